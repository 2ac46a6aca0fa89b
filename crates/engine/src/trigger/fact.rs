//! Facts about a trigger, as they are stored: tags keep their meaning for ever. Instants are microseconds
//! since 1970.

use prost::Message;

use super::room::{Holds, NoRoom, Taken};
use super::state::{Pending, Stretch};

/// One fact about a trigger.
#[derive(Clone, PartialEq, Message)]
pub struct TriggerEvent {
    /// When.
    #[prost(int64, tag = "1")]
    pub at: i64,
    /// What.
    #[prost(
        oneof = "Fact",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22"
    )]
    pub fact: Option<Fact>,
}

/// What became true of a trigger.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Fact {
    /// The active version says this of it.
    #[prost(message, tag = "2")]
    Set(Set),
    /// The active version does not have it any more.
    #[prost(message, tag = "3")]
    Removed(Removed),
    /// It starts nothing until it is resumed.
    #[prost(message, tag = "4")]
    Paused(ByPerson),
    /// It goes on from now.
    #[prost(message, tag = "5")]
    Resumed(ByPerson),
    /// Its workflow is paused, or goes on.
    #[prost(message, tag = "6")]
    WorkflowPaused(Flag),
    /// Due times were missed and are not made up for; or a signal that fits came during a pause.
    #[prost(message, tag = "7")]
    Missed(Missed),
    /// All due times up to one are made up for.
    #[prost(message, tag = "8")]
    CatchingUp(Due),
    /// A run is to be made.
    #[prost(message, tag = "9")]
    Started(Started),
    /// `when` does not hold, or cannot be evaluated, or `with` cannot.
    #[prost(message, tag = "10")]
    Declined(Declined),
    /// A run could not be made.
    #[prost(message, tag = "11")]
    Refused(Refused),
    /// A run for a due time has ended.
    #[prost(message, tag = "12")]
    Ended(Ended),
    /// A backfill was asked for.
    #[prost(message, tag = "13")]
    Backfilled(Nothing),
    /// A signal waits for others to be joined with.
    #[prost(message, tag = "14")]
    Waits(Box<Pending>),
    /// A signal, or what was joined, is the same as one before.
    #[prost(message, tag = "15")]
    Duplicate(Used),
    /// A run for a due time that had ended goes on.
    #[prost(message, tag = "16")]
    Reopened(Due),
    /// It has another address.
    #[prost(message, tag = "17")]
    Rotated(Nothing),
    /// Its run queue had no room for a start, which waits.
    #[prost(message, tag = "18")]
    NoRoom(Box<NoRoom>),
    /// A start that waited was taken.
    #[prost(message, tag = "19")]
    Taken(Taken),
    /// Nothing waits for room any more.
    #[prost(message, tag = "20")]
    HasRoom(Nothing),
    /// A start waits behind others.
    #[prost(message, tag = "21")]
    Holds(Box<Holds>),
    /// Nothing can be joined any more with signals that waited.
    #[prost(message, tag = "22")]
    Expired(Used),
}

/// Signals that waited and wait no more.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Used {
    /// Their numbers.
    #[prost(uint64, repeated, tag = "1")]
    pub numbers: Vec<u64>,
}

/// See [`Fact::Removed`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Removed {
    /// Who paused it stays known, and so does its definition. Of facts of old neither did.
    #[prost(bool, tag = "1")]
    pub keeps: bool,
}

/// See [`Fact::Backfilled`], [`Fact::Rotated`] and [`Fact::HasRoom`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

/// See [`Fact::Set`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Set {
    /// See [`State::definition`].
    #[prost(string, tag = "1")]
    pub definition: String,
    /// See [`State::version`].
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// See [`State::timezone`].
    #[prost(string, tag = "3")]
    pub timezone: String,
    /// See [`State::workflow_paused`].
    #[prost(bool, tag = "4")]
    pub workflow_paused: bool,
    /// A new generation begins now.
    #[prost(bool, tag = "5")]
    pub anew: bool,
    /// What the definition says of `paused`, where it says something else than before.
    #[prost(bool, optional, tag = "6")]
    pub paused: Option<bool>,
    /// See [`State::delay`].
    #[prost(int64, tag = "7")]
    pub delay: i64,
    /// Anew, what is known of due times stays. With facts of old it was forgotten.
    #[prost(bool, tag = "8")]
    pub keeps: bool,
    /// Anew, [`State::succeeded`] by the calendar of the new definition.
    #[prost(message, repeated, tag = "9")]
    pub succeeded: Vec<Stretch>,
}

/// A person did it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ByPerson {
    /// Who.
    #[prost(string, tag = "1")]
    pub by: String,
}

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Flag {
    /// Which.
    #[prost(bool, tag = "1")]
    pub on: bool,
}

/// See [`Fact::Missed`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Missed {
    /// Up to this due time; 0 of signals.
    #[prost(int64, tag = "1")]
    pub until: i64,
    /// How many; a great number is a lower bound.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// A due time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Due {
    /// When.
    #[prost(int64, tag = "1")]
    pub due: i64,
}

/// See [`Fact::Started`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Started {
    /// `run.scheduled_at`.
    #[prost(int64, tag = "1")]
    pub scheduled_at: i64,
    /// The run.
    #[prost(bytes = "vec", tag = "2")]
    pub run: Vec<u8>,
    /// It is for a due time.
    #[prost(bool, tag = "3")]
    pub due: bool,
    /// Number of its class.
    #[prost(uint32, tag = "4")]
    pub class: u32,
    /// Signals that waited and were joined for it.
    #[prost(uint64, repeated, tag = "5")]
    pub used: Vec<u64>,
    /// Hash of what starts no other run.
    #[prost(bytes = "vec", tag = "6")]
    pub seen: Vec<u8>,
    /// It waited for room, and it is heard whether it is taken now.
    #[prost(bool, tag = "7")]
    pub waited: bool,
    /// See [`super::state::Seen::id`].
    #[prost(bytes = "vec", tag = "8")]
    pub seen_id: Vec<u8>,
}

/// See [`Fact::Refused`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// Its due time.
    #[prost(int64, tag = "1")]
    pub scheduled_at: i64,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The run.
    #[prost(bytes = "vec", tag = "3")]
    pub run: Vec<u8>,
}

/// See [`Fact::Declined`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Declined {
    /// The due time, if it was for one.
    #[prost(int64, optional, tag = "1")]
    pub due: Option<i64>,
    /// Why it could not be evaluated; empty: `when` is false.
    #[prost(string, tag = "2")]
    pub error: String,
    /// Signals that waited and were joined for it.
    #[prost(uint64, repeated, tag = "3")]
    pub used: Vec<u64>,
}

/// See [`Fact::Ended`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Ended {
    /// The due time.
    #[prost(int64, tag = "1")]
    pub due: i64,
    /// The due time before it.
    #[prost(int64, optional, tag = "2")]
    pub before: Option<i64>,
    /// The due time after it.
    #[prost(int64, optional, tag = "3")]
    pub after: Option<i64>,
    /// It succeeded.
    #[prost(bool, tag = "4")]
    pub succeeded: bool,
}
