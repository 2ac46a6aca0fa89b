//! When a step may start: not before an instant, and in the quiet hours of each day.

use kapell_api::task::Place;
use kapell_model::Time;
use kapell_model::spec::{OffPeak, Step};

use super::names::At;
use super::{Decider, Run, Stop};
use crate::calendar::Hours;
use crate::event::{Fact, UnitReady};

impl Decider<'_> {
    /// Until when a step may not start; none if it may.
    pub(super) fn held_until(&self, place: Place, step: &Step) -> Result<Option<Time>, Stop> {
        let mut at = self.now;
        if let Some(template) = &step.not_before {
            let names = At::unit(self.run, place, self.now);
            at = at.max(self.instant(template, &names)?.unwrap_or(at));
        }
        if let Some(off_peak) = &step.off_peak {
            let hours = self.run.hours(off_peak).map_err(Stop::Failed)?;
            at = hours.opening(at).unwrap_or(at);
        }
        Ok(Some(at).filter(|at| *at > self.now))
    }

    /// A step that waited for a worker until the quiet hours were over waits for the next ones, without its
    /// locks; false if it may start.
    pub(super) fn waits_for_hours(&mut self, place: Place, step: &Step) -> bool {
        let Ok(Some(until)) = self.held_until(place, step) else {
            return false;
        };
        self.release(place);
        let not_before = self.relative(until);
        self.emit(Fact::UnitReady(UnitReady {
            unit: place.into(),
            not_before,
            ..UnitReady::default()
        }));
        true
    }
}

impl Run {
    fn hours(&self, off_peak: &OffPeak) -> Result<Hours, String> {
        Hours::new(off_peak, &self.plan.spec.timezone)
    }

    /// What a unit waits for that may not start before an instant.
    pub(super) fn held_reason(&self, place: Place, at: Time) -> String {
        self.hours_reason(place, Time(at.0.saturating_sub(1)))
            .unwrap_or_else(|| format!("its `not_before`, {at}"))
    }

    /// What a unit waits for that starts in the quiet hours alone; none if it may start now.
    pub(super) fn hours_reason(&self, place: Place, now: Time) -> Option<String> {
        let plan = self.state.plan_step(&self.plan, place)?;
        let off_peak = plan.step.off_peak.as_ref()?;
        let at = self.hours(off_peak).ok()?.opening(now)?;
        let zone = off_peak.timezone.as_ref();
        let zone = zone.unwrap_or(&self.plan.spec.timezone);
        let (from, to) = (off_peak.from, off_peak.to);
        Some(format!(
            "its quiet hours ({} to {} in {zone}), {at}",
            from.strftime("%H:%M"),
            to.strftime("%H:%M"),
        ))
    }
}
