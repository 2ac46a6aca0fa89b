//! Facts about a topic, and its state as bytes. Tags are stored: they keep their meaning for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::{EntityKey, Time};
use prost::Message;

use super::{Kept, Listener, Telling, Topic};
use crate::event::{Stored, UnitRef};
use crate::message::{Equal, Signal, Subscribe};

/// One fact about a topic.
#[derive(Clone, PartialEq, Message)]
pub struct TopicEvent {
    /// When, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What became true.
    #[prost(oneof = "Fact", tags = "2, 3, 4, 5, 6")]
    pub fact: Option<Fact>,
}

/// What became true of a topic.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Fact {
    /// A signal came.
    #[prost(message, tag = "2")]
    Kept(StoredSignal),
    /// Somebody listens.
    #[prost(message, tag = "3")]
    Subscribed(StoredListener),
    /// The one of this number listens no more.
    #[prost(uint64, tag = "4")]
    Unsubscribed(u64),
    /// More were told of a signal.
    #[prost(message, tag = "5")]
    Told(Told),
    /// Signals below this number are kept no more.
    #[prost(uint64, tag = "6")]
    DroppedBefore(u64),
}

/// A kept signal.
#[derive(Clone, PartialEq, Message)]
pub struct StoredSignal {
    /// Counts up in the topic.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its key.
    #[prost(message, required, tag = "4")]
    pub key: Stored,
    /// Its payload.
    #[prost(message, required, tag = "5")]
    pub payload: Stored,
    /// When it was sent, microseconds since 1970.
    #[prost(int64, tag = "6")]
    pub sent_at: i64,
    /// See [`Signal::hops`].
    #[prost(uint32, tag = "7")]
    pub hops: u32,
    /// Who sent it.
    #[prost(string, tag = "8")]
    pub by: String,
    /// Listeners that are still to be told.
    #[prost(message, optional, tag = "9")]
    pub rest: Option<Rest>,
}

/// Listeners that are still to be told of a signal: those above `after`, up to `until`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Rest {
    /// The last one that was told.
    #[prost(uint64, tag = "1")]
    pub after: u64,
    /// The last one there was when it came.
    #[prost(uint64, tag = "2")]
    pub until: u64,
}

/// Who listens.
#[derive(Clone, PartialEq, Message)]
pub struct StoredListener {
    /// Counts up in the topic.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Key of the entity.
    #[prost(bytes = "vec", tag = "2")]
    pub who: Vec<u8>,
    /// Its unit, if it is a run.
    #[prost(message, optional, tag = "3")]
    pub unit: Option<UnitRef>,
    /// Microseconds since 1970; none is any.
    #[prost(int64, optional, tag = "4")]
    pub since: Option<i64>,
    /// What must be equal.
    #[prost(message, repeated, tag = "5")]
    pub equal: Vec<StoredEqual>,
}

/// A field that must be equal.
#[derive(Clone, PartialEq, Message)]
pub struct StoredEqual {
    /// Names from the signal on.
    #[prost(string, repeated, tag = "1")]
    pub path: Vec<String>,
    /// The value.
    #[prost(message, required, tag = "2")]
    pub value: Stored,
}

/// See [`Fact::Told`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Told {
    /// The signal's number.
    #[prost(uint64, tag = "1")]
    pub signal: u64,
    /// The last listener that was told.
    #[prost(uint64, tag = "2")]
    pub after: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredTopic {
    #[prost(message, repeated, tag = "1")]
    signals: Vec<StoredSignal>,
    #[prost(uint64, tag = "2")]
    last_signal: u64,
    #[prost(message, repeated, tag = "3")]
    listeners: Vec<StoredListener>,
    #[prost(uint64, tag = "4")]
    last_listener: u64,
    #[prost(int64, tag = "5")]
    last_at: i64,
    #[prost(message, repeated, tag = "6")]
    telling: Vec<StoredTelling>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredTelling {
    #[prost(uint64, tag = "1")]
    signal: u64,
    #[prost(message, required, tag = "2")]
    rest: Rest,
}

pub(super) fn stored_signal(
    number: u64,
    signal: &Signal,
    rest: Option<(u64, u64)>,
) -> StoredSignal {
    StoredSignal {
        number,
        id: signal.id.to_string(),
        name: signal.name.to_string(),
        key: Stored::new(&signal.key),
        payload: Stored::new(&signal.payload),
        sent_at: signal.sent_at.0,
        hops: signal.hops,
        by: signal.by.to_string(),
        rest: rest.map(|(after, until)| Rest { after, until }),
    }
}

pub(super) fn signal(stored: &StoredSignal) -> (u64, Signal) {
    let signal = Signal {
        id: stored.id.as_str().into(),
        name: stored.name.as_str().into(),
        key: stored.key.value(),
        payload: stored.payload.value(),
        sent_at: Time(stored.sent_at),
        hops: stored.hops,
        by: stored.by.as_str().into(),
    };
    (stored.number, signal)
}

pub(super) fn stored_listener(number: u64, wanted: &Subscribe) -> StoredListener {
    of_listener(
        number,
        &wanted.who,
        wanted.place,
        wanted.since,
        &wanted.equal,
    )
}

fn of_listener(
    number: u64,
    who: &EntityKey,
    place: Option<Place>,
    since: Option<Time>,
    equal: &[Equal],
) -> StoredListener {
    let equal = equal.iter().map(|equal| StoredEqual {
        path: equal.path.iter().map(ToString::to_string).collect(),
        value: Stored::new(&equal.value),
    });
    StoredListener {
        number,
        who: who.to_bytes(),
        unit: place.map(UnitRef::from),
        since: since.map(|since| since.0),
        equal: equal.collect(),
    }
}

/// None if who listens is of a kind that only a later version knows.
pub(super) fn listener(stored: &StoredListener) -> Option<(u64, Listener)> {
    let equal = stored.equal.iter().map(|equal| Equal {
        path: equal
            .path
            .iter()
            .map(|name| Arc::from(name.as_str()))
            .collect(),
        value: equal.value.value(),
    });
    let listener = Listener {
        who: EntityKey::from_bytes(&stored.who)?,
        place: stored.unit.map(Place::from),
        since: stored.since.map(Time),
        equal: equal.collect(),
    };
    Some((stored.number, listener))
}

impl Topic {
    /// The topic as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let signals = self.signals.iter();
        let listeners = self.listeners.iter();
        let telling = self.telling.iter();
        StoredTopic {
            signals: signals
                .map(|kept| stored_signal(kept.number, &kept.signal, None))
                .collect(),
            last_signal: self.last_signal,
            listeners: listeners
                .map(|(number, of)| of_listener(*number, &of.who, of.place, of.since, &of.equal))
                .collect(),
            last_listener: self.last_listener,
            last_at: self.last_at.0,
            telling: telling
                .map(|telling| StoredTelling {
                    signal: telling.signal,
                    rest: Rest {
                        after: telling.after,
                        until: telling.until,
                    },
                })
                .collect(),
        }
        .encode_to_vec()
    }

    /// Reads [`Topic::snapshot`], also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let stored = StoredTopic::decode(bytes)?;
        let mut topic = Self {
            last_signal: stored.last_signal,
            last_listener: stored.last_listener,
            last_at: Time(stored.last_at),
            ..Self::default()
        };
        for kept in &stored.signals {
            topic.keeps(kept);
        }
        for (number, of) in stored.listeners.iter().filter_map(listener) {
            topic.listeners.add(number, of);
        }
        let telling = stored.telling.iter().map(|telling| Telling {
            signal: telling.signal,
            after: telling.rest.after,
            until: telling.rest.until,
        });
        topic.telling = telling.collect::<VecDeque<_>>();
        Ok(topic)
    }

    /// A signal is among those kept.
    pub(super) fn keeps(&mut self, stored: &StoredSignal) {
        let (number, signal) = signal(stored);
        let bytes = super::SIGNAL_OVERHEAD
            + signal.id.len()
            + signal.by.len()
            + signal.key.size()
            + signal.payload.size();
        self.bytes += bytes;
        self.ids.insert(signal.id.clone(), number);
        self.found.add(number, &signal);
        self.signals.push_back(Kept {
            number,
            signal: Arc::new(signal),
            bytes,
        });
    }
}
