//! Hours of each day, by the clock of a zone.

use std::sync::Arc;

use jiff::civil;
use kapell_model::Time;
use kapell_model::spec::{Catchup, OffPeak, Schedule, Timing};

use super::Calendar;

/// Hours of each day. A change of the clock moves their ends as it does those of a schedule.
#[derive(Clone, Debug)]
pub struct Hours {
    opens: Calendar,
    closes: Calendar,
}

impl Hours {
    /// The hours of `off_peak`; `timezone` is an IANA name for those that name none.
    ///
    /// # Errors
    /// A text that quotes the time zone that there is not.
    pub fn new(off_peak: &OffPeak, timezone: &str) -> Result<Self, String> {
        let daily = |at: civil::Time| {
            let cron = format!("{} {} {} * * *", at.second(), at.minute(), at.hour());
            let schedule = Schedule {
                timing: Timing::Cron(Arc::from(cron)),
                timezone: off_peak.timezone.clone(),
                catchup: Catchup::default(),
                jitter: None,
                start: None,
                end: None,
            };
            Calendar::new(&schedule, timezone)
        };
        Ok(Self {
            opens: daily(off_peak.from)?,
            closes: daily(off_peak.to)?,
        })
    }

    /// When they begin next; none inside them.
    pub fn opening(&self, now: Time) -> Option<Time> {
        let after = Time(now.0.saturating_add(1));
        if self.opens.previous(after) > self.closes.previous(after) {
            return None;
        }
        let mut opens = self.opens.next(now)?;
        // A change of the clock may leave nothing of one night.
        while self.closes.previous(Time(opens.0.saturating_add(1))) == Some(opens) {
            opens = self.opens.next(opens)?;
        }
        Some(opens)
    }
}
