//! A time of day that follows the machine's and does not jump with it.
//!
//! A reading of the machine's clock at the start is carried on by a clock that nobody sets. What lies
//! between both later is made up for by and by: time here goes by at most a quarter faster or slower
//! than it is. So every instant is passed, each once: due times between are neither missed nor doubled,
//! and what is timed by it takes at least four fifths of its time.
//!
//! - **Set forward by an hour**: for four hours a minute here lasts 48 seconds.
//! - **Set back by an hour**: for four hours a minute here lasts 80 seconds. Nothing stands still.
//! - **Set by more than [`ADOPTED`]**: it is taken at once. Forward that is as if nothing had run
//!   meanwhile; back, what has happened already is waited for.
//! - **Sleep, or a process that is stopped**: both clocks go on: as if nothing had run meanwhile.
//! - **Restart**: begins with what the machine's clock says.

use jiff::SignedDuration;
use kapell_model::Time;

/// The machine's clock differs by so much: it was set, and somebody may want to know.
pub const JUMP: SignedDuration = SignedDuration::from_secs(5);

/// By more than this it is followed at once.
pub const ADOPTED: SignedDuration = SignedDuration::from_hours(2);

/// One part of so many of the time that goes by may be made up for.
const PART: i64 = 4;

/// What is to be said of the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// It was set by so much, and is followed by and by.
    Jump(SignedDuration),
    /// It was set by so much, and is followed at once.
    Adopted(SignedDuration),
}

/// A time of day. Instants of the clock that nobody sets are in microseconds.
#[derive(Clone, Debug)]
pub struct Carried {
    now: Time,
    steady: i64,
    /// A jump was said and is not made up for yet.
    noticed: bool,
}

impl Carried {
    /// It begins with what the machine's clock says.
    pub fn new(wall: Time, steady: i64) -> Self {
        Self {
            now: wall,
            steady,
            noticed: false,
        }
    }

    /// The time, when the machine's clock and the one that nobody sets say so; and what is new.
    pub fn at(&mut self, wall: Time, steady: i64) -> (Time, Option<Noticed>) {
        let passed = steady.saturating_sub(self.steady).max(0);
        self.steady = self.steady.max(steady);
        let carried = Time(self.now.0.saturating_add(passed));
        let apart = wall.since(carried);
        if apart.abs() > ADOPTED {
            self.now = wall;
            self.noticed = false;
            return (wall, Some(Noticed::Adopted(apart)));
        }
        // The one more is for readings that are closer together than a part.
        let most = passed / PART + 1;
        let micros = wall.0.saturating_sub(carried.0).clamp(-most, most);
        self.now = self.now.max(Time(carried.0.saturating_add(micros)));
        let jumped = apart.abs() > JUMP;
        let new = jumped && !self.noticed;
        self.noticed = jumped;
        (self.now, new.then_some(Noticed::Jump(apart)))
    }
}

#[cfg(test)]
mod tests;
