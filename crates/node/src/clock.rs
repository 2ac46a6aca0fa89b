//! The one place that reads a clock.

use kapell_model::Time;

/// The time of day.
pub fn now() -> Time {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
