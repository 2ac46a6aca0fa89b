//! A topic: the signals of one name, kept for a while, and who listens to them.
//!
//! A signal is kept, then those who listen and could want it are told. Who listens names fields that
//! must be equal ([`Equal`]); by these it is found, so that a signal costs as much as those that it
//! may concern, not as all that wait. The rest of a condition is looked at by who listens.
//!
//! ```text
//! Signal ------> known by its id? -> nothing
//!                else kept, dropped again by age, number and bytes
//!                     `-> listeners that match, at most TOPIC_TELLS a commit; the others at the next wake
//! Subscribe ---> kept signals since a time, newest first, a page at a time; then each that comes
//! ```
//!
//! - **Crash**: what was told is in the same commit as what the told one decided.
//! - **Clock jump**: a jump forward drops old signals early; none is told twice.
//!
//! | file | what |
//! | --- | --- |
//! | `index` | finding by fields that are equal |
//! | `event` | facts and the state as bytes |
//! | `ask` | what people see and send |

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, Time, limits};

use crate::chunk;
use crate::message::{Equal, Message, Signal, Subscribe};
use crate::small::{Ask, Decided, Small, SmallInput};

mod ask;
mod event;
mod index;

pub(crate) use ask::{fits, given_id, may_name};
pub use event::TopicEvent;
pub use index::{equals, signal_value};

use event::Fact;
use index::{Listeners, Signals};

pub use kapell_model::FINISHED;

/// A topic in memory.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Kept signals by number, ascending.
    signals: VecDeque<Kept>,
    /// Of them, by id.
    ids: BTreeMap<Arc<str>, u64>,
    /// Bytes of them.
    bytes: usize,
    /// The number of the last signal that came.
    last_signal: u64,
    /// Who listens, by number, and by what it looks for.
    listeners: Listeners,
    /// The number of the last subscription.
    last_listener: u64,
    /// Signals that some listeners are still to be told of, in order.
    telling: VecDeque<Telling>,
    last_at: Time,
    /// Kept signals by their fields: made where somebody looks for one, and not stored.
    found: Signals,
    /// How much is kept: comes with the inputs, and is not stored.
    keeps: Keeps,
}

/// How much a topic keeps. What is dropped is a fact: another setting changes nothing that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// For how long, in microseconds.
    pub micros: i64,
    /// How many signals.
    pub signals: usize,
}

impl Default for Keeps {
    fn default() -> Self {
        Self {
            micros: i64::try_from(limits::TOPIC_KEEPS.as_micros()).unwrap_or(i64::MAX),
            signals: limits::TOPIC_SIGNALS,
        }
    }
}

/// A kept signal.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    number: u64,
    signal: Arc<Signal>,
    bytes: usize,
}

/// Who listens.
#[derive(Clone, Debug, PartialEq)]
struct Listener {
    who: EntityKey,
    place: Option<Place>,
    since: Option<Time>,
    equal: Vec<Equal>,
}

/// A signal that listeners above `after` and up to `until` are still to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Telling {
    signal: u64,
    after: u64,
    until: u64,
}

/// Bytes that a kept signal takes beside its texts and values.
const SIGNAL_OVERHEAD: usize = 256;

/// How much longer than it must a signal may be kept at most, so that many are dropped at once.
const SLACK_MICROS: i64 = 3_600_000_000;

/// Deciding one input.
struct Deciding<'a> {
    topic: &'a mut Topic,
    name: Arc<str>,
    now: Time,
    events: Vec<TopicEvent>,
    messages: Vec<(EntityKey, Message)>,
    /// How many may still be told.
    tells: usize,
}

impl Deciding<'_> {
    fn emit(&mut self, fact: Fact) {
        let event = TopicEvent {
            at: self.now.0,
            fact: Some(fact),
        };
        self.topic.apply(&event);
        self.events.push(event);
    }

    /// Keeps a signal and tells who listens. Returns its id, when it was taken, and whether it was
    /// there already.
    fn keep(&mut self, signal: &Signal) -> (Arc<str>, Time, bool) {
        if let Some(known) = self.topic.by_id(&signal.id) {
            return (known.id.clone(), known.sent_at, true);
        }
        let number = self.topic.last_signal + 1;
        let mut signal = signal.clone();
        signal.sent_at = self.now;
        if signal.id.is_empty() {
            signal.id = given_id(number);
        }
        let id = signal.id.clone();
        if signal.name.starts_with(FINISHED) && self.topic.last_listener == 0 {
            // Nobody has ever asked how runs of this workflow end.
            return (id, self.now, false);
        }
        let until = self.topic.last_listener;
        let signal = Arc::new(signal);
        let rest = self.tell(&signal, 0, until);
        let kept = event::stored_signal(number, &signal, rest.map(|after| (after, until)));
        self.emit(Fact::Kept(kept));
        (id, self.now, false)
    }

    /// Tells listeners above `after` and up to `until` of a signal, in their order. Returns the last
    /// one that was told if there may be more.
    fn tell(&mut self, signal: &Arc<Signal>, after: u64, until: u64) -> Option<u64> {
        let found = self
            .topic
            .listeners
            .that_match(signal, after, until, self.tells + 1);
        let more = found.len() > self.tells;
        let mut last = after;
        for (number, listener) in found.into_iter().take(self.tells) {
            last = number;
            let message = match listener.place {
                Some(place) => Message::Signals {
                    place,
                    signals: vec![signal.clone()],
                    older: None,
                },
                None => Message::Signal(signal.clone()),
            };
            self.messages.push((listener.who.clone(), message));
            self.tells -= 1;
        }
        more.then_some(last)
    }

    /// Goes on telling where an input before had to stop.
    fn tell_rest(&mut self) {
        while self.tells > 0 {
            let Some(telling) = self.topic.telling.front().copied() else {
                return;
            };
            let signal = self.topic.by_number(telling.signal).cloned();
            let rest = signal.and_then(|signal| self.tell(&signal, telling.after, telling.until));
            self.emit(Fact::Told(event::Told {
                signal: telling.signal,
                after: rest.unwrap_or(telling.until),
            }));
        }
    }

    fn subscribe(&mut self, wanted: Subscribe) {
        let place = wanted.place;
        if wanted.before.is_none() {
            let known = self.topic.listeners.number_of(&wanted.who, place).is_some();
            if !known && self.topic.listeners.len() >= limits::TOPIC_SUBSCRIPTIONS {
                let topic = self.name.clone();
                let message = Message::SubscriptionRefused { place, topic };
                self.messages.push((wanted.who, message));
                return;
            }
            let number = self.topic.last_listener + 1;
            self.emit(Fact::Subscribed(event::stored_listener(number, &wanted)));
        }
        if let (Some(since), Some(place)) = (wanted.since, place) {
            let (signals, older) = self.topic.page(since, wanted.before, &wanted.equal);
            if !signals.is_empty() || older.is_some() {
                let message = Message::Signals {
                    place,
                    signals,
                    older,
                };
                self.messages.push((wanted.who, message));
            }
        }
    }

    /// Drops what is too old and what there is no room for. What is still being told stays.
    fn expire(&mut self) {
        let topic = &self.topic;
        let keeps = topic.keeps;
        let oldest = Time(self.now.0.saturating_sub(keeps.micros));
        let (mut count, mut bytes) = (topic.signals.len(), topic.bytes);
        let told = topic.telling.front().map_or(u64::MAX, |first| first.signal);
        let mut before = 0;
        for kept in &topic.signals {
            let room = count <= keeps.signals && bytes <= limits::TOPIC_BYTES;
            if kept.number >= told || room && kept.signal.sent_at >= oldest {
                break;
            }
            before = kept.number + 1;
            count -= 1;
            bytes = bytes.saturating_sub(kept.bytes);
        }
        if before > 0 {
            self.emit(Fact::DroppedBefore(before));
        }
    }
}

impl Topic {
    /// Says how much it keeps, before it decides anything.
    pub fn keep(&mut self, keeps: Keeps) {
        self.keeps = keeps;
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// How many units of runs listen.
    pub fn runs_that_listen(&self) -> usize {
        let listeners = self.listeners.iter();
        listeners.filter(|(_, of)| of.place.is_some()).count()
    }

    /// True if it tells somebody, or one unit of a run, of signals.
    pub fn tells(&self, who: &EntityKey, place: Option<Place>) -> bool {
        self.listeners.number_of(who, place).is_some()
    }

    /// Kept signals, oldest first.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Arc<Signal>> {
        self.signals.iter().map(|kept| &kept.signal)
    }

    fn by_id(&self, id: &str) -> Option<&Arc<Signal>> {
        self.ids.get(id).and_then(|number| self.by_number(*number))
    }

    fn by_number(&self, number: u64) -> Option<&Arc<Signal>> {
        let place = self
            .signals
            .binary_search_by_key(&number, |kept| kept.number)
            .ok()?;
        self.signals.get(place).map(|kept| &kept.signal)
    }

    /// Kept signals sent since then, newest first, and before which number the next page begins.
    fn page(
        &mut self,
        since: Time,
        before: Option<u64>,
        equal: &[Equal],
    ) -> (Vec<Arc<Signal>>, Option<u64>) {
        let before = before.unwrap_or(u64::MAX);
        let wanted = |kept: &Kept| index::has(&kept.signal, equal);
        let mut page = Vec::new();
        let numbers = self.found.numbers(&self.signals, equal);
        let place = |number: u64| {
            self.signals
                .binary_search_by_key(&number, |kept| kept.number)
                .ok()
        };
        let mut candidates: Box<dyn Iterator<Item = &Kept>> = if let Some(numbers) = numbers {
            let numbers = numbers.range(..before).rev();
            Box::new(numbers.filter_map(|number| self.signals.get(place(*number)?)))
        } else {
            let end = self.signals.partition_point(|kept| kept.number < before);
            Box::new(self.signals.range(..end).rev())
        };
        let mut bytes = 0;
        let mut last = None;
        for kept in candidates.by_ref() {
            if kept.signal.sent_at < since {
                return (page, None);
            }
            if !wanted(kept) {
                continue;
            }
            if page.len() >= limits::SIGNALS_PAGE || bytes > limits::INLINE_OUTPUT_BYTES {
                return (page, last);
            }
            bytes += kept.bytes;
            last = Some(kept.number);
            page.push(kept.signal.clone());
        }
        (page, None)
    }

    /// Makes the state that the event says.
    pub fn apply(&mut self, event: &TopicEvent) {
        self.last_at = Time(event.at);
        match &event.fact {
            Some(Fact::Kept(kept)) => {
                self.last_signal = kept.number;
                self.keeps(kept);
                if let Some(rest) = &kept.rest {
                    self.telling.push_back(Telling {
                        signal: kept.number,
                        after: rest.after,
                        until: rest.until,
                    });
                }
            }
            Some(Fact::Subscribed(stored)) => {
                if let Some((number, listener)) = event::listener(stored) {
                    self.last_listener = number;
                    self.listeners.add(number, listener);
                }
            }
            Some(Fact::Unsubscribed(number)) => self.listeners.remove(*number),
            Some(Fact::Told(told)) => {
                if let Some(first) = self.telling.front_mut()
                    && first.signal == told.signal
                {
                    first.after = told.after;
                    if first.after >= first.until {
                        self.telling.pop_front();
                    }
                }
            }
            Some(Fact::DroppedBefore(number)) => {
                while let Some(kept) = self.signals.pop_front_if(|kept| kept.number < *number) {
                    self.bytes = self.bytes.saturating_sub(kept.bytes);
                    self.ids.remove(&kept.signal.id);
                    self.found.remove(kept.number, &kept.signal);
                }
            }
            None => {}
        }
    }
}

impl Small for Topic {
    fn decide(&mut self, key: &EntityKey, input: SmallInput, now: Time) -> Result<Decided, Error> {
        let EntityKey::Topic { name, .. } = key else {
            return Ok(Decided::default());
        };
        let mut deciding = Deciding {
            now: now.max(self.last_at),
            topic: self,
            name: name.clone(),
            events: Vec::new(),
            messages: Vec::new(),
            tells: limits::TOPIC_TELLS,
        };
        let mut answer = Value::Null;
        match input {
            SmallInput::Message(message) => match *message {
                Message::Signal(signal) => {
                    deciding.keep(&signal);
                }
                Message::Subscribe(wanted) => deciding.subscribe(*wanted),
                Message::Unsubscribe { who, place } => {
                    if let Some(number) = deciding.topic.listeners.number_of(&who, place) {
                        deciding.emit(Fact::Unsubscribed(number));
                    }
                }
                _ => {}
            },
            SmallInput::Ask(Ask::Send(signal)) => {
                ask::may_send(deciding.topic, name, &signal)?;
                answer = ask::sent(deciding.keep(&signal));
            }
            SmallInput::Ask(ask) => {
                return Ok(Decided {
                    answer: ask::shown(deciding.topic, name, &ask),
                    ..Decided::default()
                });
            }
            SmallInput::Wake => deciding.tell_rest(),
        }
        deciding.expire();
        Ok(Decided {
            chunk: chunk::encode(&deciding.events),
            messages: deciding.messages,
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

    fn wake_at(&self) -> Option<Time> {
        if !self.telling.is_empty() {
            return Some(self.last_at);
        }
        let first = self.signals.front()?;
        // Where little is kept, little is kept too long.
        let slack = SLACK_MICROS.min(self.keeps.micros / 16);
        let keeps = self.keeps.micros.saturating_add(slack);
        Some(Time(first.signal.sent_at.0.saturating_add(keeps)))
    }

    fn document(&self) -> Option<String> {
        ask::document(self)
    }
}

#[cfg(test)]
mod tests;
