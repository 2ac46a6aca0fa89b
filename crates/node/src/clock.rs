//! The one place that reads clocks.

use kapell_model::Time;

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

/// The time of day.
pub fn now() -> Time {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// For spans of time: it never goes back, and stands still while the machine sleeps.
pub fn steady() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    std::time::Instant::now()
}
