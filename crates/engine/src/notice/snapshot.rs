//! A channel as bytes. The only record of it once its history is forgotten, so tags keep their meaning
//! for ever, as those of events do.

use kapell_expr::Value;
use kapell_model::Time;
use prost::Message;

use super::{Channel, Notice, Waiting};

#[derive(Clone, PartialEq, Message)]
struct StoredChannel {
    #[prost(message, repeated, tag = "1")]
    waiting: Vec<StoredNotice>,
    #[prost(message, repeated, tag = "2")]
    failed: Vec<StoredNotice>,
    #[prost(uint64, tag = "3")]
    delivered: u64,
    #[prost(uint64, tag = "4")]
    next: u64,
    #[prost(string, repeated, tag = "5")]
    known: Vec<String>,
    #[prost(int64, tag = "6")]
    last_at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNotice {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(int64, tag = "3")]
    at: i64,
    #[prost(bytes = "vec", tag = "4")]
    content: Vec<u8>,
    #[prost(uint32, tag = "5")]
    tries: u32,
    #[prost(int64, tag = "6")]
    next_at: i64,
    #[prost(string, tag = "7")]
    error: String,
}

impl StoredNotice {
    fn new((number, waiting): (&u64, &Waiting)) -> Self {
        Self {
            number: *number,
            id: waiting.notice.id.to_string(),
            at: waiting.notice.at.0,
            content: waiting.notice.content.to_stored(),
            tries: waiting.tries,
            next_at: waiting.next_at.0,
            error: waiting.error.clone(),
        }
    }

    fn waiting(self) -> (u64, Waiting) {
        let notice = Notice {
            id: self.id.into(),
            at: Time(self.at),
            content: Value::from_stored(&self.content).unwrap_or_default(),
        };
        let waiting = Waiting {
            notice,
            tries: self.tries,
            next_at: Time(self.next_at),
            error: self.error,
        };
        (self.number, waiting)
    }
}

impl Channel {
    /// The channel as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        StoredChannel {
            waiting: self.waiting.iter().map(StoredNotice::new).collect(),
            failed: self.failed.iter().map(StoredNotice::new).collect(),
            delivered: self.delivered,
            next: self.next,
            known: self.known.iter().map(ToString::to_string).collect(),
            last_at: self.last_at.0,
        }
        .encode_to_vec()
    }

    /// Reads [`Channel::snapshot`], also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let stored = StoredChannel::decode(bytes)?;
        Ok(Self {
            waiting: stored
                .waiting
                .into_iter()
                .map(StoredNotice::waiting)
                .collect(),
            failed: stored
                .failed
                .into_iter()
                .map(StoredNotice::waiting)
                .collect(),
            delivered: stored.delivered,
            next: stored.next,
            known: stored.known.into_iter().map(Into::into).collect(),
            last_at: Time(stored.last_at),
        })
    }
}
