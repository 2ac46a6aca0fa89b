//! Deadlines of the event loop, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use kapell_model::Time;

/// Names a deadline that was set.
pub(crate) type Timer = (Time, u64);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The attempt may have a deadline soon, and word of its start may be waiting.
    Awaited(u64),
    /// The attempt has run for long enough that its start is reported.
    Started(u64),
    /// The attempt's time is over.
    Timeout(u64),
    /// The attempt had its grace.
    Kill(u64),
    /// The process is gone, but somebody else holds its output open.
    Drained(u64),
    /// The host did nothing for long.
    Idle(u64),
    /// The worker had its grace.
    Shutdown,
}

/// Deadlines, the earliest first.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<Timer, Due>,
    next: u64,
}

impl Timers {
    /// Sets a deadline.
    pub(crate) fn set(&mut self, now: Time, after: Duration, what: Due) -> Timer {
        self.next += 1;
        let timer = (later(now, after), self.next);
        self.due.insert(timer, what);
        timer
    }

    /// Forgets a deadline.
    pub(crate) fn clear(&mut self, timer: Timer) {
        self.due.remove(&timer);
    }

    /// The next thing that is due.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Due> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// How long until the next deadline: at most a second, since the clock may be set.
    pub(crate) fn wait(&self, now: Time) -> Option<Duration> {
        let ((at, _), _) = self.due.first_key_value()?;
        let micros = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0);
        Some(Duration::from_micros(micros).min(Duration::from_secs(1)))
    }
}

/// The instant `after` later, held at the end of time.
pub(crate) fn later(now: Time, after: Duration) -> Time {
    Time(
        now.0
            .saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)),
    )
}
