//! What people are told of runs, and where.
//!
//! A run that has something to tell sends a [`Notice`] to each channel in the commit in which it
//! becomes true, so nothing is told that did not happen and nothing that happened is forgotten. The
//! channel keeps it until whoever sends it to the outside says that it has arrived, or that it cannot.
//! So it arrives at least once; its id lets the receiver see that it is the same.
//!
//! Not here: how a notice is sent, what it looks like there, and who is behind a channel's name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use serde::{Deserialize, Serialize};

use crate::chunk;
use crate::message::Message;
use crate::small::{Ask, Decided, Small, SmallInput, misdirected};

mod snapshot;
#[cfg(test)]
mod tests;

/// Before the second try; each wait is three times the one before.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait between two tries.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// Ids that are known to have come, so that the same notice is kept once.
const KNOWN: usize = 1_000;

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same notice has the same id.
    pub id: Arc<str>,
    /// When it became true.
    pub at: Time,
    /// What it says: a map. See `docs/guide` for its fields.
    #[serde(with = "kapell_expr::stored")]
    pub content: Value,
}

/// A notice that has not arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// What is told.
    pub notice: Notice,
    /// Tries so far.
    pub tries: u32,
    /// When the next try is due; of one that was given up when that was.
    pub next_at: Time,
    /// Why the last try failed; empty before it.
    pub error: String,
}

/// The notices of a channel in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    /// To be delivered, in the order in which they came.
    pub waiting: BTreeMap<u64, Waiting>,
    /// Given up, oldest first.
    pub failed: BTreeMap<u64, Waiting>,
    /// How many have arrived.
    pub delivered: u64,
    next: u64,
    known: VecDeque<Arc<str>>,
    last_at: Time,
}

/// What whoever delivers, and people, ask of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeAsk {
    /// Notices that are due, oldest first: a list as in [`Channel::view`].
    Due {
        /// At most so many.
        limit: usize,
    },
    /// It has arrived.
    Delivered {
        /// Which.
        number: u64,
    },
    /// A try has failed.
    Failed {
        /// Which.
        number: u64,
        /// Why.
        error: String,
        /// The receiver wants to be left alone so long.
        after: Option<SignedDuration>,
        /// Another try would not help.
        hopeless: bool,
    },
    /// Deliver one that was given up after all, or one that waits for its next try now.
    Again {
        /// Which.
        number: u64,
    },
    /// Forget one that was given up.
    Forget {
        /// Which.
        number: u64,
    },
}

/// One fact about a channel.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelEvent {
    /// When, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// Number of the [`Kind`].
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Which notice.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// Of one that came.
    #[prost(string, tag = "4")]
    pub id: String,
    /// Of one that came: when it became true.
    #[prost(int64, tag = "5")]
    pub true_at: i64,
    /// Of one that came: a stored value.
    #[prost(bytes = "vec", tag = "6")]
    pub content: Vec<u8>,
    /// Why a try failed.
    #[prost(string, tag = "7")]
    pub error: String,
    /// When the next try is due.
    #[prost(int64, tag = "8")]
    pub next_at: i64,
}

/// What happened. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is to be delivered.
    Came = 1,
    /// It has arrived.
    Delivered = 2,
    /// A try failed, and another follows.
    TryFailed = 3,
    /// It is not tried again.
    GivenUp = 4,
    /// It is tried again after all.
    Again = 5,
    /// It is forgotten.
    Forgotten = 6,
}

impl Channel {
    /// Takes a notice.
    fn hear(&mut self, notice: &Notice, now: Time, out: &mut Vec<ChannelEvent>) {
        if self.known.contains(&notice.id) {
            return;
        }
        if self.waiting.len() >= limits::NOTICES
            && let Some(oldest) = self.waiting.keys().next().copied()
        {
            let error = format!("more than {} notices wait", limits::NOTICES);
            self.emit(failure(now, Kind::GivenUp, oldest, error), out);
        }
        let came = ChannelEvent {
            id: notice.id.to_string(),
            true_at: notice.at.0,
            content: notice.content.to_stored(),
            ..fact(now, Kind::Came, self.next)
        };
        self.emit(came, out);
    }

    fn ask(
        &mut self,
        ask: NoticeAsk,
        now: Time,
        out: &mut Vec<ChannelEvent>,
    ) -> Result<Value, Error> {
        match ask {
            NoticeAsk::Due { limit } => return Ok(self.due(limit, now)),
            NoticeAsk::Delivered { number } => {
                // Whoever delivers may have said so before and not have heard that it was heard.
                if self.waiting.contains_key(&number) {
                    self.emit(fact(now, Kind::Delivered, number), out);
                }
            }
            NoticeAsk::Failed {
                number,
                error,
                after,
                hopeless,
            } => {
                let Some(tries) = self.waiting.get(&number).map(|waiting| waiting.tries + 1) else {
                    return Ok(Value::Null);
                };
                if hopeless || tries >= limits::NOTICE_TRIES {
                    self.emit(failure(now, Kind::GivenUp, number, error), out);
                } else {
                    let asked = after.unwrap_or_default().min(limits::RETRY_AFTER);
                    let event = ChannelEvent {
                        next_at: now.plus(wait_after(tries).max(asked)).0,
                        ..failure(now, Kind::TryFailed, number, error)
                    };
                    self.emit(event, out);
                }
            }
            NoticeAsk::Again { number } => {
                if !self.waiting.contains_key(&number) {
                    self.given_up(number)?;
                }
                self.emit(fact(now, Kind::Again, number), out);
            }
            NoticeAsk::Forget { number } => {
                self.given_up(number)?;
                self.emit(fact(now, Kind::Forgotten, number), out);
            }
        }
        Ok(Value::Null)
    }

    fn given_up(&self, number: u64) -> Result<(), Error> {
        if self.failed.contains_key(&number) {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::NotAllowedNow,
            format!("no notice {number} of this channel was given up"),
        )
        .hint("those that wait or were given up can be sent again, those that were given up forgotten"))
    }

    fn due(&self, limit: usize, now: Time) -> Value {
        let due = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.next_at <= now)
            .take(limit)
            .map(|(number, waiting)| told(*number, waiting));
        Value::list(due.collect())
    }

    /// When a try is due; none if nothing waits.
    pub fn due_at(&self) -> Option<Time> {
        self.waiting.values().map(|waiting| waiting.next_at).min()
    }

    /// Everything of it: `{waiting, delivered, failed, queue}`, the last two lists of `{number, id, at,
    /// tries, error, next_at, content}`: of those that were given up the newest page, of those that wait
    /// the oldest.
    pub fn view(&self) -> Value {
        let queue = self.waiting.iter().take(limits::LIST_PAGE);
        let queue = queue.map(|(number, waiting)| told(*number, waiting));
        let failed = self.failed.iter().rev().take(limits::LIST_PAGE);
        Value::map([
            ("waiting", count(self.waiting.len())),
            (
                "delivered",
                Value::Int(i64::try_from(self.delivered).unwrap_or(i64::MAX)),
            ),
            (
                "failed",
                Value::list(
                    failed
                        .map(|(number, waiting)| told(*number, waiting))
                        .collect(),
                ),
            ),
            ("queue", Value::list(queue.collect())),
        ])
    }

    fn emit(&mut self, event: ChannelEvent, out: &mut Vec<ChannelEvent>) {
        self.apply(&event);
        out.push(event);
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &ChannelEvent) {
        let at = Time(event.at);
        let number = event.number;
        self.last_at = at;
        match event.kind {
            1 => {
                let id: Arc<str> = event.id.as_str().into();
                self.known.push_back(id.clone());
                if self.known.len() > KNOWN {
                    self.known.pop_front();
                }
                self.next = number + 1;
                let notice = Notice {
                    id,
                    at: Time(event.true_at),
                    content: Value::from_stored(&event.content).unwrap_or_default(),
                };
                let waiting = Waiting {
                    notice,
                    tries: 0,
                    next_at: at,
                    error: String::new(),
                };
                self.waiting.insert(number, waiting);
            }
            2 => {
                self.waiting.remove(&number);
                self.delivered += 1;
            }
            3 => {
                if let Some(waiting) = self.waiting.get_mut(&number) {
                    waiting.tries += 1;
                    waiting.next_at = Time(event.next_at);
                    waiting.error.clone_from(&event.error);
                }
            }
            4 => {
                if let Some(mut waiting) = self.waiting.remove(&number) {
                    waiting.tries += 1;
                    waiting.next_at = at;
                    waiting.error.clone_from(&event.error);
                    self.failed.insert(number, waiting);
                }
                if self.failed.len() > limits::NOTICES_FAILED {
                    self.failed.pop_first();
                }
            }
            5 => {
                if let Some(mut waiting) = self.failed.remove(&number) {
                    waiting.tries = 0;
                    waiting.next_at = at;
                    self.waiting.insert(number, waiting);
                } else if let Some(waiting) = self.waiting.get_mut(&number) {
                    waiting.next_at = at;
                }
            }
            6 => {
                self.failed.remove(&number);
            }
            _ => {}
        }
    }
}

fn wait_after(tries: u32) -> SignedDuration {
    let factor = 3_i32.saturating_pow(tries.saturating_sub(1).min(10));
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
}

fn told(number: u64, waiting: &Waiting) -> Value {
    Value::map([
        (
            "number",
            Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        ),
        ("id", Value::String(waiting.notice.id.clone())),
        ("at", Value::Timestamp(waiting.notice.at.timestamp())),
        ("tries", Value::Int(i64::from(waiting.tries))),
        ("error", Value::string(&waiting.error)),
        ("next_at", Value::Timestamp(waiting.next_at.timestamp())),
        ("content", waiting.notice.content.clone()),
    ])
}

fn count(of: usize) -> Value {
    Value::Int(i64::try_from(of).unwrap_or(i64::MAX))
}

fn fact(at: Time, kind: Kind, number: u64) -> ChannelEvent {
    ChannelEvent {
        at: at.0,
        kind: kind as u32,
        number,
        ..ChannelEvent::default()
    }
}

fn failure(at: Time, kind: Kind, number: u64, error: String) -> ChannelEvent {
    ChannelEvent {
        error,
        ..fact(at, kind, number)
    }
}

impl Small for Channel {
    fn decide(&mut self, _: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let now = now.max(self.last_at);
        let mut events = Vec::new();
        let answer = match input {
            SmallInput::Message(message) => {
                if let Message::Notice(notice) = *message {
                    self.hear(&notice, now, &mut events);
                }
                Value::Null
            }
            SmallInput::Wake => Value::Null,
            SmallInput::Ask(Ask::View) => self.view(),
            SmallInput::Ask(Ask::Notice(ask)) => self.ask(ask, now, &mut events)?,
            SmallInput::Ask(_) => return Err(misdirected()),
        };
        Ok(Decided {
            chunk: chunk::encode(&events),
            answer,
            ..Decided::default()
        })
    }

    fn replay(&mut self, chunk: &[u8]) -> Result<(), prost::DecodeError> {
        for event in chunk::decode(chunk)? {
            self.apply(&event);
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.snapshot()
    }

    /// Whoever delivers looks at the document: nothing happens here by itself.
    fn wake_at(&self) -> Option<Time> {
        None
    }

    /// `{waiting, failed, delivered, due_at}`, `due_at` in microseconds since 1970; none where nothing
    /// waits and nothing was given up.
    fn document(&self) -> Option<String> {
        let quiet = self.waiting.is_empty() && self.failed.is_empty();
        let document = serde_json::json!({
            "waiting": self.waiting.len(),
            "failed": self.failed.len(),
            "delivered": self.delivered,
            "due_at": self.due_at().map(|at| at.0),
        });
        (!quiet).then(|| document.to_string())
    }
}
