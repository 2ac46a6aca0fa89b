//! How steps, items and runs end, by rules written a second time from the language's own pages.

use kapell_api::task::Place;
use kapell_engine::event::{
    AttemptEnded, AttemptResult, Event, Fact, ForeachExpanded, Next, RunEnded, ScopeKind, UnitEnded,
};
use kapell_engine::plan::StepPlan;
use kapell_engine::run::state::{Page, Scope};
use kapell_model::spec::{Dyn, MinSuccess, OnFailure, RunIf, StepIndex};
use kapell_model::{RunStatus, StepStatus, limits};

use super::{Shadow, Verdict, wrong};
use crate::worker::Worker;

/// What the ends of a step's needs mean for it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    NotYet,
    Go,
    Skip,
    Upstream,
}

/// What a need has come to.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    Open,
    Good,
    Skipped,
    Failed,
    Cancelled,
}

fn rule(run_if: RunIf, needs: &[Need]) -> Rule {
    use Need::{Cancelled, Failed, Good, Open, Skipped};
    let any = |need| needs.contains(&need);
    if any(Open) {
        return Rule::NotYet;
    }
    if needs.is_empty() {
        return Rule::Go;
    }
    let all = |need| needs.iter().all(|other| *other == need);
    if all(Skipped) && run_if != RunIf::NoneFailed {
        return Rule::Skip;
    }
    let out_of_reach = if any(Failed) || any(Cancelled) {
        Rule::Upstream
    } else {
        Rule::Skip
    };
    match run_if {
        RunIf::AllDone => Rule::Go,
        RunIf::AllSucceeded if all(Good) => Rule::Go,
        RunIf::AnySucceeded if any(Good) => Rule::Go,
        RunIf::AnyFailed if any(Failed) => Rule::Go,
        RunIf::AnyFailed => Rule::Skip,
        RunIf::NoneFailed if !any(Failed) && !any(Cancelled) => Rule::Go,
        RunIf::AllSucceeded | RunIf::AnySucceeded | RunIf::NoneFailed => out_of_reach,
    }
}

impl Shadow {
    pub(super) fn plan_of(&self, place: Place) -> Option<&StepPlan> {
        let scope = self.state.scopes.get(&place.scope)?;
        self.plan
            .graphs
            .get(scope.graph as usize)?
            .steps
            .get(usize::from(place.step))
    }

    pub(super) fn name(&self, place: Place) -> String {
        format!(
            "{} {}",
            self.state.meta.id,
            self.state.path(&self.plan, place)
        )
    }

    fn rule_of(&self, place: Place) -> Rule {
        let (Some(plan), Some(scope)) = (self.plan_of(place), self.state.scopes.get(&place.scope))
        else {
            return Rule::NotYet;
        };
        let needs: Vec<Need> = plan
            .step
            .needs
            .iter()
            .map(|need| {
                let step = &scope.steps[usize::from(*need)];
                match step.unit.status {
                    _ if !step.unit.status.ended() => Need::Open,
                    _ if step.as_success => Need::Good,
                    StepStatus::Succeeded | StepStatus::Cached => Need::Good,
                    StepStatus::Skipped => Need::Skipped,
                    StepStatus::Cancelled => Need::Cancelled,
                    _ => Need::Failed,
                }
            })
            .collect();
        rule(plan.step.run_if, &needs)
    }

    /// Looks at an event before it is applied.
    pub(super) fn before(&mut self, event: &Event, worker: &Worker) -> Verdict {
        let Some(fact) = &event.fact else {
            return wrong("history", "an event without a fact");
        };
        match fact {
            Fact::UnitReady(ready) => self.starts(ready.unit.into()),
            Fact::ForeachExpanded(expanded) => {
                self.expands(expanded)?;
                self.starts(expanded.unit.into())
            }
            Fact::WaitStarted(wait) => self.starts(wait.unit.into()),
            Fact::ChildStarted(child) => {
                if self.state.status == RunStatus::Paused {
                    return wrong(
                        "paused",
                        format!("{} starts a child", self.name(child.unit.into())),
                    );
                }
                self.starts(child.unit.into())
            }
            Fact::ScopeOpened(opened) => match opened.unit {
                Some(_) if opened.kind == ScopeKind::Handler as u32 => Ok(()),
                Some(unit) => self.starts(unit.into()),
                None => Ok(()),
            },
            Fact::AttemptEnded(ended) => self.attempt_ends(ended, worker),
            Fact::UnitEnded(ended) => self.unit_ends(ended),
            Fact::UnitRetrying(retrying) => {
                let kind = retrying.error.as_ref().map_or(1, |error| error.kind);
                self.retries(retrying.unit.into(), kind)
            }
            Fact::StepsEnded(ended) => self.steps_end(ended.outcome),
            Fact::RunEnded(ended) => {
                self.nothing_left(worker)?;
                self.run_ends(ended)
            }
            Fact::UnitStopping(stopping) => {
                self.stopping.insert(stopping.unit.into());
                Ok(())
            }
            Fact::RunReopened(_) => {
                self.generation += 1;
                self.before = self
                    .offered
                    .values()
                    .flatten()
                    .copied()
                    .max()
                    .unwrap_or(self.before);
                self.offered.clear();
                self.lost.clear();
                self.stopping.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A unit goes to work, or begins to wait for what it needs.
    fn starts(&self, place: Place) -> Verdict {
        let Some(unit) = self.state.unit(place) else {
            // An item of a page that nothing was heard of yet.
            return Ok(());
        };
        if unit.status.ended() {
            return wrong(
                "starts",
                format!("{} starts and is {}", self.name(place), unit.status),
            );
        }
        if self.state.ended() {
            return wrong(
                "starts",
                format!("{} starts in an ended run", self.name(place)),
            );
        }
        if place.item != Place::NO_ITEM || unit.status != StepStatus::Pending {
            return Ok(());
        }
        let rule = self.rule_of(place);
        if rule != Rule::Go {
            return wrong(
                "starts",
                format!("{} starts; its needs say {rule:?}", self.name(place)),
            );
        }
        let (Some(scope), Some(plan)) = (self.state.scopes.get(&place.scope), self.plan_of(place))
        else {
            return Ok(());
        };
        let late = matches!(plan.step.run_if, RunIf::AnyFailed | RunIf::AllDone)
            && !plan.step.needs.is_empty()
            && self.state.cancel.is_none();
        if scope.stopped && !late {
            return wrong(
                "starts",
                format!("{} starts where nothing more may", self.name(place)),
            );
        }
        Ok(())
    }

    /// As many items must succeed, and so many may run at once, as the definition says.
    fn expands(&self, expanded: &ForeachExpanded) -> Verdict {
        let place: Place = expanded.unit.into();
        let foreach = self
            .plan_of(place)
            .and_then(|plan| plan.step.foreach.as_ref());
        let Some(foreach) = foreach else {
            return wrong("items", format!("{} is no foreach", self.name(place)));
        };
        let count = expanded.count;
        let least = match foreach.min_success {
            MinSuccess::Count(_) if count == 0 => 0,
            MinSuccess::Count(least) => least,
            MinSuccess::Share(share) => {
                u32::try_from((u64::from(count) * u64::from(share)).div_ceil(10_000))
                    .unwrap_or(count)
            }
        };
        let bound = match foreach.concurrency {
            None => Some(0),
            Some(Dyn::Fixed(bound)) => u32::try_from(bound).ok(),
            Some(Dyn::Expr(_)) => None,
        };
        if least == expanded.min_success && bound.is_none_or(|bound| bound == expanded.concurrency)
        {
            return Ok(());
        }
        let detail = format!(
            "{}: {least} of {count} must succeed, {bound:?} may run, and it says {expanded:?}",
            self.name(place)
        );
        wrong("items", detail)
    }

    fn attempt_ends(&mut self, ended: &AttemptEnded, worker: &Worker) -> Verdict {
        let place: Place = ended.unit.into();
        let unit = self.state.unit(place).cloned().unwrap_or_default();
        let name = self.name(place);
        if unit.status.ended() {
            return wrong(
                "attempts",
                format!("an attempt of {name} ends, which is {}", unit.status),
            );
        }
        if ended.attempt != unit.attempts + 1 {
            return wrong(
                "attempts",
                format!("{name} ends try {} after {}", ended.attempt, unit.attempts),
            );
        }
        if ended.result == AttemptResult::Lost as u32 {
            self.lost.insert(place);
        }
        if ended.next == Next::Succeeded as u32 {
            let output = ended
                .output
                .as_ref()
                .map(kapell_engine::event::Stored::value)
                .unwrap_or_default();
            let given = worker
                .outputs
                .get(&(self.state.meta.id, place))
                .is_some_and(|outputs| outputs.contains(&output));
            if !given {
                return wrong(
                    "outputs",
                    format!("{name} succeeds with {output:?}, which no attempt gave"),
                );
            }
        }
        if ended.next == Next::Retry as u32 {
            let kind = ended.error.as_ref().map_or(1, |error| error.kind);
            return self.retries(place, kind);
        }
        Ok(())
    }

    /// Another try: within its budget, and only if it may be repeated.
    fn retries(&self, place: Place, kind: u32) -> Verdict {
        let unit = self.state.unit(place).cloned().unwrap_or_default();
        let Some(plan) = self.plan_of(place) else {
            return Ok(());
        };
        let retry = &plan.step.retry;
        let (used, budget) = match kind {
            2 => (unit.retries[1], retry.timeout),
            3 => (unit.retries[2], retry.platform),
            _ => (
                unit.retries[0],
                match retry.limit {
                    Dyn::Fixed(limit) => u32::try_from(limit).unwrap_or(0),
                    Dyn::Expr(_) => u32::MAX,
                },
            ),
        };
        if u32::from(used) >= budget {
            return wrong(
                "retries",
                format!(
                    "{} is tried again after {used} of {budget}",
                    self.name(place)
                ),
            );
        }
        if unit.stop.is_some() {
            return wrong(
                "retries",
                format!("{} is tried again while it is stopped", self.name(place)),
            );
        }
        if plan.step.once {
            return wrong("once", format!("{} is tried again", self.name(place)));
        }
        if !plan.step.idempotent && self.lost.contains(&place) {
            return wrong(
                "idempotent",
                format!("{} is tried again after a loss", self.name(place)),
            );
        }
        Ok(())
    }

    fn unit_ends(&mut self, ended: &UnitEnded) -> Verdict {
        let place: Place = ended.unit.into();
        if !ended.by.is_empty() {
            return Ok(());
        }
        let Some(unit) = self.state.unit(place) else {
            return Ok(());
        };
        let status = ended.step_status();
        if unit.status.ended() {
            return wrong(
                "ends",
                format!("{} ends {status} and is {}", self.name(place), unit.status),
            );
        }
        if place.item != Place::NO_ITEM {
            return Ok(());
        }
        let stopped = self
            .state
            .scopes
            .get(&place.scope)
            .is_some_and(|scope| scope.stopped)
            || self.state.cancel.is_some();
        let name = self.name(place);
        if unit.status == StepStatus::Pending {
            let rule = self.rule_of(place);
            let condition = self
                .plan_of(place)
                .is_some_and(|plan| plan.step.condition.is_some());
            let fits = match status {
                StepStatus::Skipped => rule == Rule::Skip || (rule == Rule::Go && condition),
                StepStatus::UpstreamFailed => rule == Rule::Upstream,
                StepStatus::Cancelled => stopped,
                StepStatus::Succeeded | StepStatus::Failed | StepStatus::TimedOut => {
                    rule == Rule::Go
                }
                _ => false,
            };
            if !fits {
                return wrong(
                    "ends",
                    format!("{name} ends {status}; its needs say {rule:?}"),
                );
            }
            return Ok(());
        }
        if matches!(status, StepStatus::Skipped | StepStatus::UpstreamFailed) {
            return wrong("ends", format!("{name} ends {status} after it had started"));
        }
        if status == StepStatus::Cancelled && !stopped && unit.stop.is_none() {
            return wrong(
                "ends",
                format!("{name} ends cancelled and nobody stopped it"),
            );
        }
        if let Some(scope) = self.inside(place)
            && status == StepStatus::Succeeded
            && self.failed_for_sure(scope)
        {
            return wrong("ends", format!("{name} succeeds with a failed step inside"));
        }
        self.foreach_ends(place, status)
    }

    fn inside(&self, place: Place) -> Option<&Scope> {
        self.state
            .scopes
            .values()
            .find(|scope| scope.parent == Some(place) && scope.kind != ScopeKind::Handler)
            .map(|scope| &**scope)
    }

    /// True if a step failed whose failure nothing tolerates.
    fn failed_for_sure(&self, scope: &Scope) -> bool {
        let Some(graph) = self.plan.graphs.get(scope.graph as usize) else {
            return false;
        };
        scope.steps.iter().zip(&graph.steps).any(|(step, plan)| {
            let strict = match &plan.step.on_failure {
                OnFailure::Policy => true,
                OnFailure::Continue => false,
                OnFailure::Handle { then_continue, .. } => !then_continue,
            };
            strict && matches!(step.unit.status, StepStatus::Failed | StepStatus::TimedOut)
        })
    }

    /// The items of a foreach are counted one by one.
    fn foreach_ends(&self, place: Place, status: StepStatus) -> Verdict {
        let Some(step) = self.state.step(place.scope, place.step) else {
            return Ok(());
        };
        let Some(foreach) = &step.foreach else {
            return Ok(());
        };
        let name = self.name(place);
        let (mut good, mut bad, mut other, mut open) = (0_u32, 0_u32, 0_u32, 0_u32);
        let mut skipped = 0_u32;
        for (index, page) in foreach.pages.iter().enumerate() {
            for offset in 0..foreach.page_len(index) {
                let item = u32::try_from(index * limits::FOREACH_PAGE + offset).unwrap_or(u32::MAX);
                let tail = foreach.tail.is_some_and(|(from, _)| item >= from);
                match page {
                    Page::Closed(_) => good += 1,
                    _ if tail => other += 1,
                    Page::Untouched => open += 1,
                    Page::Open { units, .. } => match units[offset].status {
                        unit if unit.good() => good += 1,
                        StepStatus::Failed | StepStatus::TimedOut => bad += 1,
                        unit if unit.ended() => {
                            other += 1;
                            skipped += u32::from(unit == StepStatus::Skipped);
                        }
                        _ => open += 1,
                    },
                }
            }
        }
        if (good, bad, other) != (foreach.good, foreach.bad, foreach.other) {
            return wrong(
                "items",
                format!(
                    "{name} counts {} good, {} bad, {} other; there are {good}, {bad}, {other}",
                    foreach.good, foreach.bad, foreach.other
                ),
            );
        }
        if open > 0 {
            return wrong(
                "items",
                format!("{name} ends {status} with {open} open items"),
            );
        }
        let enough = foreach.enough || good + skipped >= foreach.min_success;
        match status {
            StepStatus::Succeeded if !enough => wrong(
                "items",
                format!(
                    "{name} succeeds with {good} and {skipped} skipped of {}",
                    foreach.min_success
                ),
            ),
            StepStatus::Failed if enough && step.unit.stop.is_none() => wrong(
                "items",
                format!("{name} fails with {good} of {}", foreach.min_success),
            ),
            _ => Ok(()),
        }
    }

    fn steps_end(&self, outcome: u32) -> Verdict {
        let outcome = u8::try_from(outcome).ok().and_then(RunStatus::from_number);
        let id = self.state.meta.id;
        let Some(root) = self.state.scopes.get(&0) else {
            return wrong("outcome", format!("{id} ends without having started"));
        };
        let open = root.steps.iter().position(|step| !step.unit.status.ended());
        if let Some(open) = open {
            let place = Place {
                scope: 0,
                step: StepIndex::try_from(open).unwrap_or(0),
                item: Place::NO_ITEM,
            };
            return wrong(
                "outcome",
                format!("the steps end and {} has not", self.name(place)),
            );
        }
        let any_failed = root
            .steps
            .iter()
            .any(|step| matches!(step.unit.status, StepStatus::Failed | StepStatus::TimedOut));
        let fits = match (&self.state.cancel, outcome) {
            (Some(cancel), Some(RunStatus::TimedOut)) => cancel.timed_out,
            (Some(cancel), Some(RunStatus::Cancelled)) => !cancel.timed_out,
            (None, Some(RunStatus::Failed)) => any_failed,
            (None, Some(RunStatus::Succeeded)) => !self.failed_for_sure(root),
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            wrong("outcome", format!("the steps of {id} come to {outcome:?}"))
        }
    }

    fn run_ends(&self, ended: &RunEnded) -> Verdict {
        let state = &self.state;
        let id = state.meta.id;
        let status = u8::try_from(ended.status)
            .ok()
            .and_then(RunStatus::from_number);
        let Some(outcome) = state.outcome else {
            let fits =
                status == Some(RunStatus::Cancelled) && state.status == RunStatus::Cancelling;
            return if fits {
                Ok(())
            } else {
                wrong("outcome", format!("{id} ends {status:?} at once"))
            };
        };
        let finally = state
            .scopes
            .values()
            .find(|scope| scope.kind == ScopeKind::Finally);
        let now = state.cancel.as_ref().is_some_and(|cancel| cancel.now);
        if self.plan.finally.is_some() && finally.is_none() && !now {
            return wrong("finally", format!("{id} ends without its finally"));
        }
        if finally.is_some_and(|scope| scope.steps.iter().any(|step| !step.unit.status.ended())) {
            return wrong("finally", format!("{id} ends before its finally"));
        }
        let finally_failed = finally.is_some_and(|scope| self.failed_for_sure(scope));
        let fits = match status {
            Some(RunStatus::Failed) if outcome == RunStatus::Succeeded => {
                let any = finally.is_some_and(|scope| {
                    scope.steps.iter().any(|step| {
                        matches!(step.unit.status, StepStatus::Failed | StepStatus::TimedOut)
                    })
                });
                any || ended.error.is_some()
            }
            Some(RunStatus::Succeeded) => outcome == RunStatus::Succeeded && !finally_failed,
            status => status == Some(outcome),
        };
        if fits {
            Ok(())
        } else {
            wrong("outcome", format!("{id} ends {status:?} after {outcome}"))
        }
    }

    /// Looks at what an event made of the state.
    pub(super) fn after(&mut self, event: &Event) -> Verdict {
        let state = &self.state;
        if let Some(Fact::RunEnded(_)) = &event.fact {
            let id = state.meta.id;
            if !state.locks.is_empty() || !state.started.is_empty() || !state.ready.is_empty() {
                return wrong(
                    "ended",
                    format!(
                        "{id} has ended with locks {:?}, started {:?}, ready {:?}",
                        state.locks, state.started, state.ready
                    ),
                );
            }
            if let Some(timer) = state.timers.next() {
                return wrong("ended", format!("{id} has ended with a timer at {timer}"));
            }
            if !state.todo.is_empty() {
                return wrong(
                    "ended",
                    format!("{id} has ended with {:?} to do", state.todo),
                );
            }
        }
        self.counted()
    }

    /// At the end every unit that is known has ended.
    fn counted(&self) -> Verdict {
        let state = &self.state;
        let [good, other, all] = state.counts;
        if state.ended() && state.started_at.is_some() && good + other != all {
            return wrong(
                "counts",
                format!("{} has ended and counts {:?}", state.meta.id, state.counts),
            );
        }
        Ok(())
    }
}
