//! The one place that reads clocks.

use kapell_model::Time;
use parking_lot::Mutex;

pub mod carried;

use carried::{Carried, Noticed};

/// Measures how long something takes, whatever becomes of the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// It runs from now on.
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
        Self(std::time::Instant::now())
    }

    /// Since its start.
    pub fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// The clock of this process, from its first reading on.
static CLOCK: Mutex<Option<Carried>> = Mutex::new(None);

/// The time of day as this process knows it: see [`carried`]. It never goes back but by more than
/// [`carried::ADOPTED`].
pub fn now() -> Time {
    let (now, noticed) = {
        let mut clock = CLOCK.lock();
        let (wall, since_boot) = (wall(), since_boot());
        let clock = clock.get_or_insert_with(|| Carried::new(wall, since_boot));
        clock.at(wall, since_boot)
    };
    match noticed {
        None => {}
        Some(Noticed::Jump(by)) => tracing::warn!(
            by = %kapell_expr::format_duration(by),
            "the clock of the machine was set: times here follow it by and by, a restart takes it at once"
        ),
        Some(Noticed::Adopted(by)) => tracing::warn!(
            by = %kapell_expr::format_duration(by),
            "the clock of the machine was set by so much that it is taken at once"
        ),
    }
    now
}

/// The time of day as the machine says: only to be compared with what others read from theirs.
pub fn wall() -> Time {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Microseconds of a clock that nobody sets and that, where the system has one, goes on while the
/// machine sleeps.
fn since_boot() -> i64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let at = rustix::time::clock_gettime(clock);
    at.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(at.tv_nsec / 1_000)
}

/// Microseconds on the clock that nobody sets and that goes on in sleep: to count leases.
pub fn boot_micros() -> u64 {
    since_boot().unsigned_abs()
}

/// For spans of time: it never goes back, and stands still while the machine sleeps.
pub fn steady() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    std::time::Instant::now()
}
