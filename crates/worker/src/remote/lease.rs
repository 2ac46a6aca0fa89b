//! The lease of a session, watched by a thread that nothing else holds up.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::os;

/// Beats in one lease: some may be lost.
const BEATS: u32 = 6;

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Default)]
struct State {
    /// None: the worker is in no session yet. Zero: the session needs none.
    length: Option<Duration>,
    /// When the request for the last renewal was sent, by the clock of [`now`].
    renewed_at: Duration,
    /// Requests under way and when each was sent.
    beats: Vec<(u64, Duration)>,
    next: u64,
    /// What runs was stopped for want of a lease.
    abandoned: bool,
    closed: bool,
}

/// Since boot, sleep of the machine included.
fn now() -> Duration {
    Duration::from_millis(os::boot_millis())
}

/// From when on before its end nothing may run any more: time for TERM and KILL.
fn margin(length: Duration) -> Duration {
    (length / 4).min(Duration::from_secs(8))
}

impl State {
    /// Nothing may run any more.
    fn is_over(&self) -> bool {
        let passed = now().saturating_sub(self.renewed_at);
        let over = |length: Duration| !length.is_zero() && passed + margin(length) >= length;
        self.length.is_some_and(over)
    }
}

impl Lease {
    /// True if something may run: there is a session, and its lease is not about to end.
    pub(crate) fn allows(&self) -> bool {
        let state = self.state.lock();
        state.length.is_some() && !state.is_over()
    }

    /// A lease begins, as of when it was asked for. One of length zero does not end.
    pub(crate) fn begin(&self, length: Duration, asked_at: Duration) {
        let mut state = self.state.lock();
        state.length = Some(length);
        state.renewed_at = asked_at;
        state.beats.clear();
        state.abandoned = false;
    }

    /// The clock that leases count on.
    pub(crate) fn clock() -> Duration {
        now()
    }

    /// A request for a renewal is sent now; its name.
    pub(crate) fn beat(&self) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let beat = state.next;
        state.beats.push((beat, now()));
        beat
    }

    /// A request was granted, and with it all before.
    pub(crate) fn renewed(&self, beat: u64) {
        let mut state = self.state.lock();
        let sent = state
            .beats
            .iter()
            .filter(|(number, _)| *number <= beat)
            .map(|(_, sent)| *sent)
            .max();
        if let Some(sent) = sent {
            state.renewed_at = state.renewed_at.max(sent);
            state.abandoned = false;
        }
        state.beats.retain(|(number, _)| *number > beat);
    }

    /// Between two requests; none if none is needed.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let length = self.state.lock().length.unwrap_or_default();
        (!length.is_zero()).then(|| (length / BEATS).max(Duration::from_millis(100)))
    }

    /// Calls `end` each time when the lease is about to end. Returns once closed.
    pub(crate) fn watch(&self, end: impl Fn()) {
        let mut state = self.state.lock();
        while !state.closed {
            if state.is_over() && !state.abandoned {
                state.abandoned = true;
                parking_lot::MutexGuard::unlocked(&mut state, || {
                    tracing::warn!("the lease is about to end: what runs is stopped");
                    end();
                });
            }
            self.closed.wait_for(&mut state, LOOK);
        }
    }

    /// Nobody needs to watch any more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.closed.notify_all();
    }
}
