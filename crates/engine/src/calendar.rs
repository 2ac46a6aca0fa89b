//! Due times of a schedule, in its time zone.
//!
//! - `cron` with a fixed hour goes by the wall clock: a due time that a change of the clock skips is
//!   at the first instant after it, one that is repeated is at the first of both.
//! - `cron` whose hour is `*` or `*/n` goes by elapsed time: each instant at which the wall clock shows a
//!   matching time is due. What is skipped is never shown, what is repeated is shown twice.
//! - `every` counts elapsed time from the schedule's start, else from 1970.
//!
//! The wall clock is searched with `croner`, without a zone: what a zone does to it is decided here.

use croner::parser::{CronParser, Year};
use croner::{Cron, errors::CronError};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use kapell_model::Time;
use kapell_model::spec::{Schedule, Timing};

use known::Known;

/// Due times of a schedule.
#[derive(Clone, Debug)]
pub struct Calendar {
    rule: Rule,
    zone: TimeZone,
    start: Option<Time>,
    end: Option<Time>,
    known: Known,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// Fixed hours.
    Wall(Box<Cron>),
    /// The hour is `*` or `*/n`.
    Elapsed(Box<Cron>),
    /// Every so many microseconds.
    Every { anchor: i64, period: i64 },
}

/// Steps of one search, each over a change of the clock or a due time that another one has swallowed.
const SEARCH: usize = 100_000;

impl Calendar {
    /// The calendar of a schedule; `timezone` is an IANA name for one that names none itself.
    ///
    /// # Errors
    /// A text that quotes what cannot be read: the cron expression or the time zone.
    pub fn new(schedule: &Schedule, timezone: &str) -> Result<Self, String> {
        let name = schedule.timezone.as_deref().unwrap_or(timezone);
        let zone = TimeZone::get(name).map_err(|_| format!("there is no time zone `{name}`"))?;
        let rule = match &schedule.timing {
            Timing::Cron(text) => {
                let parser = CronParser::builder().year(Year::Disallowed).build();
                let cron = parser
                    .parse(text)
                    .map_err(|error| format!("`{text}` is no cron expression: {error}"))?;
                if goes_by_elapsed_time(text) {
                    Rule::Elapsed(Box::new(cron))
                } else {
                    Rule::Wall(Box::new(cron))
                }
            }
            Timing::Every(span) => Rule::Every {
                anchor: schedule.start.map_or(0, |start| start.0),
                period: i64::try_from(span.as_micros()).unwrap_or(i64::MAX).max(1),
            },
        };
        Ok(Self {
            rule,
            zone,
            start: schedule.start,
            end: schedule.end,
            known: Known::default(),
        })
    }

    /// True if both have the same due times, where both have any: they may begin and end differently.
    pub fn has_the_times_of(&self, other: &Self) -> bool {
        self.rule == other.rule && self.zone == other.zone
    }

    /// The same due times without a beginning or an end.
    #[must_use]
    pub fn without_bounds(&self) -> Self {
        Self {
            start: None,
            end: None,
            ..self.clone()
        }
    }

    /// The first due time after an instant.
    pub fn next(&self, after: Time) -> Option<Time> {
        let after = match self.start {
            Some(start) => after.max(Time(start.0.saturating_sub(1))),
            None => after,
        };
        self.unbounded_next(after)
            .filter(|due| self.end.is_none_or(|end| *due < end))
    }

    /// The last due time before an instant.
    pub fn previous(&self, before: Time) -> Option<Time> {
        let before = self.end.map_or(before, |end| before.min(end));
        self.unbounded_previous(before)
            .filter(|due| self.start.is_none_or(|start| *due >= start))
    }

    /// The first `max` due times after `after`, until `until` included.
    pub fn first(&self, after: Time, until: Time, max: usize) -> Vec<Time> {
        let mut found = Vec::new();
        let mut at = after;
        while found.len() < max
            && let Some(due) = self.next(at).filter(|due| *due <= until)
        {
            found.push(due);
            at = due;
        }
        found
    }

    /// The last `max` due times after `after`, until `until` included; oldest first.
    pub fn last(&self, after: Time, until: Time, max: usize) -> Vec<Time> {
        let mut found = Vec::new();
        let mut at = Time(until.0.saturating_add(1));
        while found.len() < max
            && let Some(due) = self.previous(at).filter(|due| *due > after)
        {
            found.push(due);
            at = due;
        }
        found.reverse();
        found
    }

    /// `run.interval` of a due time: from the due time before it, whether or not the schedule had begun
    /// then. Both ends are the due time if there is none before.
    pub fn interval(&self, due: Time) -> (Time, Time) {
        (self.unbounded_previous(due).unwrap_or(due), due)
    }

    /// The last interval that was complete at an instant; none if the schedule had not begun.
    pub fn last_interval(&self, at: Time) -> Option<(Time, Time)> {
        let due = self.previous(Time(at.0.saturating_add(1)))?;
        Some(self.interval(due))
    }

    /// A due time with its offset, `2026-10-25T02:30:00+02:00`: what names it where one wall clock time
    /// comes twice.
    pub fn label(&self, due: Time) -> String {
        let local = due.timestamp().to_zoned(self.zone.clone());
        local.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
    }

    fn unbounded_next(&self, after: Time) -> Option<Time> {
        if let Rule::Every { anchor, period } = &self.rule {
            let passed = after.0.checked_sub(*anchor)?.div_euclid(*period);
            let micros = passed.checked_add(1)?.checked_mul(*period)?;
            return anchor.checked_add(micros).map(Time);
        }
        self.known.next(after, || match &self.rule {
            Rule::Every { .. } => None,
            Rule::Wall(cron) => self.wall_next(cron, after),
            Rule::Elapsed(cron) => self.elapsed_next(cron, after),
        })
    }

    fn unbounded_previous(&self, before: Time) -> Option<Time> {
        if let Rule::Every { anchor, period } = &self.rule {
            let last = before.0.checked_sub(*anchor)?.checked_sub(1)?;
            let micros = last.div_euclid(*period).checked_mul(*period)?;
            return anchor.checked_add(micros).map(Time);
        }
        self.known.previous(before, || match &self.rule {
            Rule::Every { .. } => None,
            Rule::Wall(cron) => self.wall_previous(cron, before),
            Rule::Elapsed(cron) => self.elapsed_previous(cron, before),
        })
    }

    /// The instant of a wall clock time. A later time is never at an earlier instant.
    fn instant(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the later offset it lies before the change.
                let before = after.to_timestamp(wall).ok()?;
                Some(self.zone.following(before).next()?.timestamp())
            }
        }
    }

    fn wall_next(&self, cron: &Cron, after: Time) -> Option<Time> {
        let after = after.timestamp();
        let mut wall = self.zone.to_datetime(after);
        for _ in 0..SEARCH {
            wall = found(cron.find_next_occurrence(&wall, false))?;
            // The second time round, and what a skipped time has fallen on already, are passed over.
            let due = self.instant(wall)?;
            if due > after {
                return Some(due.into());
            }
        }
        None
    }

    fn wall_previous(&self, cron: &Cron, before: Time) -> Option<Time> {
        let before = before.timestamp();
        let mut wall = self.zone.to_datetime(before);
        // After the clock went back, times that it has still to show again are over.
        if let AmbiguousOffset::Fold { before: first, .. } =
            self.zone.to_ambiguous_timestamp(wall).offset()
        {
            wall = wall.max(first.to_datetime(before));
        }
        let mut inclusive = wall.subsec_nanosecond() > 0;
        for _ in 0..SEARCH {
            wall = found(cron.find_previous_occurrence(&wall, inclusive))?;
            inclusive = false;
            let due = self.instant(wall)?;
            if due < before {
                return Some(due.into());
            }
        }
        None
    }

    fn elapsed_next(&self, cron: &Cron, after: Time) -> Option<Time> {
        let second = SignedDuration::from_secs(1);
        let mut from = whole_second(after.timestamp())?.checked_add(second).ok()?;
        for _ in 0..SEARCH {
            let offset = self.zone.to_offset(from);
            let wall = found(cron.find_next_occurrence(&offset.to_datetime(from), true))?;
            let due = offset.to_timestamp(wall).ok()?;
            // Until the next change of the clock the offset stays as it is.
            match self.zone.following(from).next() {
                Some(change) if due >= change.timestamp() => from = change.timestamp(),
                _ => return Some(due.into()),
            }
        }
        None
    }

    fn elapsed_previous(&self, cron: &Cron, before: Time) -> Option<Time> {
        let second = SignedDuration::from_secs(1);
        let before = before.timestamp();
        let mut to = whole_second(before)?;
        if to == before {
            to = to.checked_sub(second).ok()?;
        }
        for _ in 0..SEARCH {
            let offset: Offset = self.zone.to_offset(to);
            let wall = found(cron.find_previous_occurrence(&offset.to_datetime(to), true))?;
            let due = offset.to_timestamp(wall).ok()?;
            let changed = self.zone.preceding(to.checked_add(second).ok()?).next();
            match changed {
                Some(change) if due < change.timestamp() => {
                    to = change.timestamp().checked_sub(second).ok()?;
                }
                _ => return Some(due.into()),
            }
        }
        None
    }
}

/// The last whole second that is not after an instant.
fn whole_second(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.as_microsecond().div_euclid(1_000_000)).ok()
}

/// An expression that no date fits finds nothing.
fn found(search: Result<DateTime, CronError>) -> Option<DateTime> {
    search.ok()
}

/// True if the hour of a cron expression is `*` or `*/n`.
fn goes_by_elapsed_time(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.as_slice() {
        [nickname] => nickname.eq_ignore_ascii_case("@hourly"),
        [_, hour, _, _, _] | [_, _, hour, _, _, _] => hour.starts_with('*'),
        _ => false,
    }
}

mod hours;
mod known;
#[cfg(test)]
mod tests;

pub use hours::Hours;
