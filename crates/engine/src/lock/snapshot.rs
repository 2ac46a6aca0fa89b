//! A lock as bytes. The only record of it once its history is forgotten, so tags keep their meaning
//! for ever, as those of events do.

use std::collections::{BTreeSet, VecDeque};

use kapell_model::Time;
use prost::Message;

use super::{About, Holder, Lock};
use crate::event::{UnitRef, run_id};

#[derive(Clone, PartialEq, Message)]
struct StoredLock {
    #[prost(uint32, tag = "1")]
    max: u32,
    #[prost(int64, tag = "2")]
    period: i64,
    #[prost(message, repeated, tag = "3")]
    holders: Vec<StoredHolder>,
    #[prost(message, repeated, tag = "4")]
    waiting: Vec<StoredHolder>,
    /// Microseconds since 1970, oldest first.
    #[prost(int64, repeated, tag = "5")]
    granted_at: Vec<i64>,
    #[prost(int64, tag = "6")]
    last_at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHolder {
    #[prost(bytes = "vec", tag = "1")]
    run: Vec<u8>,
    #[prost(message, required, tag = "2")]
    unit: UnitRef,
    /// When it asked, if it waits; since when it holds the lock, if it does.
    #[prost(int64, tag = "3")]
    at: i64,
    /// The unit's path in its run.
    #[prost(string, tag = "4")]
    path: String,
    /// Which of the unit's requests it is.
    #[prost(int64, tag = "5")]
    asked: i64,
}

impl StoredHolder {
    fn new((run, place): Holder, at: Time, about: Option<&About>) -> Self {
        Self {
            run: run.to_bytes().to_vec(),
            unit: place.into(),
            at: at.0,
            path: about.map_or_else(String::new, |about| about.path.to_string()),
            asked: about.map_or(0, |about| about.asked),
        }
    }

    fn holder(&self) -> Holder {
        (run_id(&self.run), self.unit.into())
    }
}

impl Lock {
    /// The lock as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let holders = self.holders.iter();
        let waiting = self.waiting.iter();
        let about = |holder: &Holder| self.about.get(holder);
        StoredLock {
            max: self.max,
            period: self.period,
            holders: holders
                .map(|holder| {
                    let at = about(holder).map_or(Time::ZERO, |about| about.since);
                    StoredHolder::new(*holder, at, about(holder))
                })
                .collect(),
            waiting: waiting
                .map(|(holder, at)| StoredHolder::new(*holder, *at, about(holder)))
                .collect(),
            granted_at: self.granted_at.iter().map(|at| at.0).collect(),
            last_at: self.last_at.0,
        }
        .encode_to_vec()
    }

    /// Reads [`Lock::snapshot`], also of an earlier or a later version.
    ///
    /// # Errors
    /// Bytes that are no such message.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let stored = StoredLock::decode(bytes)?;
        let known = stored.holders.iter().chain(&stored.waiting);
        let about = known
            .filter(|of| !of.path.is_empty())
            .map(|of| (of.holder(), About::new(&of.path, Time(of.at), of.asked)))
            .collect();
        Ok(Self {
            about,
            max: stored.max,
            period: stored.period,
            holders: stored
                .holders
                .iter()
                .map(StoredHolder::holder)
                .collect::<BTreeSet<_>>(),
            waiting: stored
                .waiting
                .iter()
                .map(|waiting| (waiting.holder(), Time(waiting.at)))
                .collect::<VecDeque<_>>(),
            granted_at: stored.granted_at.into_iter().map(Time).collect(),
            last_at: Time(stored.last_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kapell_api::task::Place;
    use kapell_model::{RunId, Shard};
    use proptest::prelude::*;

    use super::*;
    use crate::message::Message as Told;

    /// A later field set: what it has more is passed over, what is gone is as if nobody had set it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Later {
        #[prost(uint32, tag = "1")]
        max: u32,
        #[prost(message, repeated, tag = "3")]
        holders: Vec<LaterHolder>,
        #[prost(string, tag = "90")]
        note: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct LaterHolder {
        #[prost(bytes = "vec", tag = "1")]
        run: Vec<u8>,
        #[prost(message, required, tag = "2")]
        unit: UnitRef,
        #[prost(uint64, tag = "9")]
        weight: u64,
    }

    fn run(number: u8) -> RunId {
        RunId::new(Time(0), Shard(1), number.into())
    }

    fn place(step: u16) -> Place {
        Place {
            scope: 0,
            step,
            item: Place::NO_ITEM,
        }
    }

    #[test]
    fn more_and_fewer_fields_are_read() {
        let later = Later {
            max: 2,
            holders: vec![LaterHolder {
                run: run(7).to_bytes().to_vec(),
                unit: place(3).into(),
                weight: 5,
            }],
            note: "what a later version adds".to_owned(),
        };
        let lock = Lock::from_snapshot(&later.encode_to_vec()).unwrap();
        let expected = Lock {
            max: 2,
            holders: BTreeSet::from([(run(7), place(3))]),
            ..Lock::default()
        };
        assert_eq!(lock, expected);
        let back = Later::decode(&*lock.snapshot()).unwrap();
        assert_eq!((back.max, back.holders.len()), (2, 1));
        assert_eq!(Lock::from_snapshot(&[]).unwrap(), Lock::default());
        assert!(Lock::from_snapshot(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn a_lock_comes_back_as_it_was(
            period in prop_oneof![Just(0), 1_i64..50],
            inputs in prop::collection::vec((0_u8..5, 0_u16..3, any::<bool>(), 0_i64..30), 0..60),
        ) {
            let mut lock = Lock::default();
            let mut now = 0;
            for (number, step, asks, later) in inputs {
                now += later;
                let (run, place) = (run(number), place(step));
                let told = if asks {
                    Told::Acquire { run, place, max: 2, period, path: "a".into(), asked: Some(Time(now)) }
                } else {
                    Told::Release { run, place, unused: (step > 0).then_some(Time(now)), asked: None }
                };
                lock.decide(&Arc::from("x"), Some(&told), Time(now));
                prop_assert_eq!(Lock::from_snapshot(&lock.snapshot()).unwrap(), lock.clone());
            }
        }
    }
}
