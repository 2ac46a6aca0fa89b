//! A named lock, or a rate: bounds how many attempts anywhere hold a name, or how many start in a
//! period.
//!
//! Requests are granted in the order in which they came. A rate is exact: a grant is given only if
//! fewer than `max` were given in the `period` before it (a sliding log of the last `max` grants, without
//! those that came back at once because nothing was to start with them).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::{EntityKey, Error, RunId, Time, limits};

use crate::chunk;
use crate::event::UnitRef;
use crate::message::{LockRefusal, Message};
use crate::small::{Ask, Decided, Small, SmallInput, misdirected};

mod show;
mod snapshot;

/// Who holds a lock or asks for it.
pub type Holder = (RunId, Place);

/// A lock in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// How many hold it at once, or how many a period: as the last request said.
    pub max: u32,
    /// A rate's period in microseconds; 0 is a lock.
    pub period: i64,
    /// Who holds it.
    pub holders: BTreeSet<Holder>,
    /// Who waits, in order.
    pub waiting: VecDeque<(Holder, Time)>,
    /// When a rate's last grants were given, oldest first.
    pub granted_at: VecDeque<Time>,
    /// What people are told of those who hold it or wait.
    about: BTreeMap<Holder, About>,
    last_at: Time,
}

/// What people are told of somebody who holds a lock or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    /// The unit's path in its run.
    path: Arc<str>,
    /// Since when it holds it, or waits.
    since: Time,
    /// Which of its requests it is; 0 where that is not known.
    asked: i64,
}

impl About {
    fn new(path: &str, since: Time, asked: i64) -> Self {
        Self {
            path: path.into(),
            since,
            asked,
        }
    }
}

/// One fact about a lock.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockEvent {
    /// When, microseconds since 1970.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// 1 asked, 2 granted, 3 given back or withdrawn, 4 not used by a request that is over.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The run.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
    /// Its unit.
    #[prost(message, required, tag = "4")]
    pub unit: UnitRef,
    /// Of a request.
    #[prost(uint32, tag = "5")]
    pub max: u32,
    /// Of a request.
    #[prost(int64, tag = "6")]
    pub period: i64,
    /// Of a request: the unit's path in its run.
    #[prost(string, tag = "7")]
    pub path: String,
    /// Of what a rate gave for nothing: when it gave it; 0 if it was used.
    #[prost(int64, tag = "8")]
    pub unused: i64,
    /// Of a request: which of the unit's it is.
    #[prost(int64, tag = "9")]
    pub asked: i64,
}

const ASKED: u32 = 1;
const GRANTED: u32 = 2;
const RELEASED: u32 = 3;
const UNUSED: u32 = 4;

/// What a lock decided: facts, already applied, and messages to send once they are safe.
#[derive(Debug, Default)]
pub struct LockDecision {
    /// Facts.
    pub events: Vec<LockEvent>,
    /// Messages.
    pub messages: Vec<(EntityKey, Message)>,
}

impl Lock {
    /// Takes a message or the passing of time (`None`).
    pub fn decide(
        &mut self,
        name: &Arc<str>,
        message: Option<&Message>,
        now: Time,
    ) -> LockDecision {
        let now = now.max(self.last_at);
        let mut out = LockDecision::default();
        match message {
            Some(Message::Acquire {
                run,
                place,
                max,
                period,
                path,
                asked,
            }) => {
                let holder = (*run, *place);
                let known = self.holders.contains(&holder)
                    || self.waiting.iter().any(|(waiting, _)| *waiting == holder);
                let refusal = if known {
                    None
                } else if self.is_other_kind(*period, now) {
                    Some(LockRefusal::OtherKind)
                } else if self.waiting.len() >= limits::LOCK_REQUESTS {
                    Some(LockRefusal::Full)
                } else {
                    None
                };
                if let Some(why) = refusal {
                    let (place, name) = (*place, name.clone());
                    let refused = Message::LockRefused { place, name, why };
                    out.messages.push(((*run).into(), refused));
                } else if !known {
                    let mut event = fact(now, ASKED, holder);
                    (event.max, event.period) = (*max, *period);
                    event.path = path.to_string();
                    event.asked = asked.map_or(0, |asked| asked.0);
                    self.emit(event, &mut out);
                }
            }
            Some(Message::Release {
                run,
                place,
                unused,
                asked,
            }) => {
                let holder = (*run, *place);
                // Of a request before, which is over: what the unit holds or waits for now is another.
                let stale = self.asked(&holder).is_some()
                    && asked.is_some()
                    && self.asked(&holder) != *asked;
                let unused = unused.filter(|at| self.period > 0 && self.granted_at.contains(at));
                let has = self.holders.contains(&holder)
                    || self.waiting.iter().any(|(waiting, _)| *waiting == holder);
                if unused.is_some() || has && !stale {
                    let kind = if stale { UNUSED } else { RELEASED };
                    let mut event = fact(now, kind, holder);
                    event.unused = unused.map_or(0, |at| at.0);
                    self.emit(event, &mut out);
                }
            }
            _ => {}
        }
        while let Some((holder, _)) = self.waiting.front().copied() {
            if !self.has_room(now) {
                break;
            }
            let asked = self.asked(&holder);
            self.emit(fact(now, GRANTED, holder), &mut out);
            let message = Message::LockGranted {
                place: holder.1,
                name: name.clone(),
                at: Some(now),
                asked,
            };
            out.messages.push((holder.0.into(), message));
        }
        out
    }

    /// Which of its requests a unit holds or waits by.
    fn asked(&self, holder: &Holder) -> Option<Time> {
        let asked = self.about.get(holder).map_or(0, |about| about.asked);
        (asked != 0).then_some(Time(asked))
    }

    fn emit(&mut self, event: LockEvent, out: &mut LockDecision) {
        self.apply(&event);
        out.events.push(event);
    }

    /// True for a request of a rate where a lock is in use, and the other way round: what bounds one says
    /// nothing of the other.
    fn is_other_kind(&self, period: i64, now: Time) -> bool {
        (self.period == 0) != (period == 0) && !self.is_idle(now)
    }

    fn has_room(&self, now: Time) -> bool {
        let max = self.max.max(1) as usize;
        if self.period == 0 {
            return self.holders.len() < max;
        }
        self.granted_at.len() < max
            || self
                .granted_at
                .front()
                .is_some_and(|at| now.0 >= at.0.saturating_add(self.period))
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &LockEvent) {
        let at = Time(event.at);
        self.last_at = at;
        let holder: Holder = (crate::event::run_id(&event.run), event.unit.into());
        match event.kind {
            ASKED => {
                (self.max, self.period) = (event.max, event.period);
                self.waiting.push_back((holder, at));
                if !event.path.is_empty() {
                    self.about
                        .insert(holder, About::new(&event.path, at, event.asked));
                }
            }
            GRANTED => {
                self.waiting.retain(|(waiting, _)| *waiting != holder);
                if self.period == 0 {
                    self.holders.insert(holder);
                    if let Some(about) = self.about.get_mut(&holder) {
                        about.since = at;
                    }
                } else {
                    self.about.remove(&holder);
                    self.granted_at.push_back(at);
                    while self.granted_at.len() > self.max.max(1) as usize {
                        self.granted_at.pop_front();
                    }
                }
            }
            _ => {
                let unused = |at: &Time| event.unused != 0 && at.0 == event.unused;
                if let Some(place) = self.granted_at.iter().position(unused) {
                    self.granted_at.remove(place);
                }
                if event.kind == UNUSED {
                    return;
                }
                self.about.remove(&holder);
                self.holders.remove(&holder);
                self.waiting.retain(|(waiting, _)| *waiting != holder);
            }
        }
    }

    /// When a rate may give the next grant to somebody who waits.
    pub fn wake_at(&self) -> Option<Time> {
        if self.period == 0 || self.waiting.is_empty() {
            return None;
        }
        self.granted_at
            .front()
            .map(|at| Time(at.0.saturating_add(self.period)))
    }

    /// True if nothing would be lost by forgetting it at `now`.
    pub fn is_idle(&self, now: Time) -> bool {
        self.holders.is_empty()
            && self.waiting.is_empty()
            && self
                .granted_at
                .back()
                .is_none_or(|at| now.0 >= at.0.saturating_add(self.period))
    }
}

fn fact(at: Time, kind: u32, (run, place): Holder) -> LockEvent {
    LockEvent {
        at: at.0,
        kind,
        run: run.to_bytes().to_vec(),
        unit: place.into(),
        max: 0,
        period: 0,
        path: String::new(),
        unused: 0,
        asked: 0,
    }
}

impl Small for Lock {
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let EntityKey::Lock { name, .. } = key else {
            return Ok(Decided::default());
        };
        let message = match input {
            SmallInput::Message(message) => Some(*message),
            SmallInput::Ask(Ask::View) => {
                return Ok(Decided {
                    answer: self.shown(),
                    ..Decided::default()
                });
            }
            SmallInput::Ask(_) => return Err(misdirected()),
            SmallInput::Wake => None,
        };
        let decided = Self::decide(self, name, message.as_ref(), now);
        Ok(Decided {
            chunk: chunk::encode(&decided.events),
            messages: decided.messages,
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

    fn wake_at(&self) -> Option<Time> {
        Self::wake_at(self)
    }

    fn document(&self) -> Option<String> {
        Self::document(self)
    }
}

#[cfg(test)]
mod tests;
