//! What a node has of a worker.

use std::time::Duration;

use kapell_api::task::TaskResources;

use super::HOLD;
use crate::members::Instant;

/// What a node has of a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Slots that it was lent.
    pub(super) lent: usize,
    /// Attempts in flight that take one.
    pub(super) used: usize,
    pub(super) resources: TaskResources,
    /// When it got a slot here, or one of its attempts came or ended.
    pub(super) moved_at: Instant,
    /// When it got a slot of others here, if none of its attempts ended since.
    pub(super) gained_at: Option<Instant>,
    /// How many of its attempts ended in this span of [`HOLD`] and in the one before, and when this one began.
    ended: [usize; 2],
    since: Instant,
    /// It did not use what it had here: it gets nothing until then, and after how long.
    pub(super) unfit: Option<(Instant, Duration)>,
}

impl Part {
    /// Slots that its attempts take. Where more are handed out than it was lent, and each slot was free again and
    /// again a moment ago, all will be in another.
    pub(super) fn takes(&self, now: Instant) -> usize {
        let ended = match self.since {
            since if since.plus(HOLD) > now => self.ended[0] + self.ended[1],
            since if since.plus(HOLD * 2) > now => self.ended[0],
            _ => 0,
        };
        if self.used > self.lent && ended > self.lent {
            0
        } else {
            self.used
        }
    }

    pub(super) fn ends(&mut self, now: Instant) {
        if self.since.plus(HOLD) <= now {
            let recent = self.since.plus(HOLD * 2) > now;
            self.ended = [0, if recent { self.ended[0] } else { 0 }];
            self.since = now;
        }
        self.ended[0] += 1;
    }

    /// Slots that it has, idle ones among them.
    pub(super) fn has(&self, now: Instant) -> usize {
        self.lent.max(self.takes(now))
    }

    /// Slots that it was lent and does not use.
    pub(super) fn idle(&self, now: Instant) -> usize {
        self.lent.saturating_sub(self.takes(now))
    }

    /// Idle slots that an attempt is on its way to, most likely.
    pub(super) fn awaits(&self, now: Instant) -> usize {
        let gained = self.gained_at.is_some_and(|at| at.plus(HOLD) > now);
        if gained { self.idle(now) } else { 0 }
    }

    pub(super) fn is_unfit(&self, now: Instant) -> bool {
        self.unfit.is_some_and(|(until, _)| until > now)
    }

    pub(super) fn is_nothing(&self, now: Instant) -> bool {
        self.lent == 0 && self.used == 0 && !self.is_unfit(now)
    }
}
