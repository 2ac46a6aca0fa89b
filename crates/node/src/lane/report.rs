//! Reports of workers reach their runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kapell_api::task::{Outcome, Report, TaskEvent};
use kapell_engine::{Decision, Refusal};
use kapell_model::{EntityKey, RunId};

use super::{Grant, Lane, Slot, ToEntity};
use crate::entity::Entity;

impl Lane {
    /// Takes the next reports of one run, until the open batch has `end` inputs. What they make the
    /// run decide is absorbed once: a report of a large fan-out costs little more than its event.
    pub(super) fn reports_of(&mut self, id: RunId, end: usize) {
        let key = EntityKey::Run(id);
        if !self.takes_reports(&key) {
            if let Some(report) = self.next_report(id) {
                self.open.inputs += 1;
                let input = kapell_engine::Input::Report(report);
                self.submit(key, ToEntity::Run(Box::new(input)), false);
            }
            return;
        }
        let mut decision = Decision::default();
        let mut chunk = Vec::new();
        while self.open.inputs < end
            && !self.is_full()
            && let Some(report) = self.next_report(id)
        {
            self.open.inputs += 1;
            let now = self.now;
            let Some(Slot {
                entity: Entity::Run(run),
                touched_at,
                ..
            }) = self.slots.get_mut(&key)
            else {
                return;
            };
            *touched_at = now;
            let kept = report.clone();
            // A panic is a bug on this one entity: all others go on, from what is durable.
            let decided = catch_unwind(AssertUnwindSafe(|| {
                run.decide_report(report, now, &mut decision)
            }));
            let needs = !run.live.needs.is_empty();
            match decided {
                Ok(Err(Refusal::Stale)) if self.comes_early(&kept) => self.hold_back(kept),
                Ok(Ok(()) | Err(Refusal::Stale | Refusal::Reject(_))) => {
                    kapell_engine::chunk::encode_into(&mut chunk, &decision.events);
                    decision.events.clear();
                    self.taken(kept);
                    if needs {
                        break;
                    }
                }
                Ok(Err(Refusal::Need(needs))) => {
                    let input = Box::new(kapell_engine::Input::Report(kept));
                    if let Some(slot) = self.slots.get_mut(&key) {
                        slot.waiting.push_back((ToEntity::Run(input), false));
                    }
                    self.ask(&key, needs);
                    break;
                }
                Err(_) => {
                    self.taken(kept);
                    self.quarantine(&key);
                    return;
                }
            }
        }
        if !chunk.is_empty() {
            self.append(&key, &chunk);
        }
        self.absorb(&key, decision);
    }

    /// True if the run is in memory and takes inputs at once.
    fn takes_reports(&self, key: &EntityKey) -> bool {
        let slot = self.slots.get(key).filter(|slot| slot.asked.is_empty());
        matches!(slot.map(|slot| &slot.entity), Some(Entity::Run(_)))
            && !self.quarantined.contains(key)
    }

    /// The next report, if it is of this run.
    fn next_report(&mut self, id: RunId) -> Option<Report> {
        let reports = self.reports.front_mut()?;
        let report = reports.pop_front_if(|report| report.run == id)?;
        if reports.is_empty() {
            self.reports.pop_front();
        }
        Some(report)
    }

    /// True for the end of an attempt that an owner before this one granted, while workers have yet to say what
    /// they hold: only then is it known. A loss needs not be known.
    pub(super) fn comes_early(&self, report: &Report) -> bool {
        let ended = match &report.event {
            TaskEvent::Ended { outcome, .. } => !matches!(outcome, Outcome::Lost { .. }),
            TaskEvent::Started { .. } => false,
        };
        let lease = self.leases.get(&report.run.shard());
        let before = lease.is_some_and(|lease| report.offer.epoch < lease.epoch);
        ended && before && !self.seats.all_heard()
    }

    /// A report that came early waits until the next worker has said what it holds.
    pub(super) fn hold_back(&mut self, report: Report) {
        let name = (report.run, report.place, report.offer);
        self.early.insert(name, report);
    }

    /// Reports that came early are looked at again.
    pub(super) fn look_at_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.reports.push_back(early.into_values().collect());
        }
    }

    /// A report has become part of the open batch. One that still waits for its run or for a value is
    /// not part of any: until then its attempt counts as held, and it outlives the lane's memory.
    pub(super) fn taken(&mut self, report: Report) {
        let landed = self.landed(&report);
        self.open.reports.push((report, landed));
    }

    /// If the report is about an end, its attempt is held no more.
    pub(super) fn landed(&mut self, report: &Report) -> Option<Grant> {
        if !matches!(report.event, TaskEvent::Ended { .. }) {
            return None;
        }
        let landed = self
            .held
            .land(report.run, report.place, report.offer, &mut self.seats)?;
        self.seats.landed(&landed);
        Some(landed)
    }

    /// Deciding broke a rule of its own: the entity is left as it is, and all memory is dropped.
    pub(super) fn quarantine(&mut self, key: &EntityKey) {
        tracing::error!(
            ?key,
            "deciding an input broke a rule of its own; left as it is"
        );
        self.quarantined.insert(key.clone());
        self.broken = true;
    }
}
