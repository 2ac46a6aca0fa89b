//! Breakpoints: a step stops before it starts, before it ends or before its failure counts, until
//! somebody lets it go on.
//!
//! What has stopped is a unit that waits. One that stopped before it starts is decided anew when it
//! goes on, so that changed parameters count; one that stopped at its end keeps how it ends.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Program, Value};
use kapell_model::params::{Source, check_param};
use kapell_model::spec::Breakpoint;
use kapell_model::{Error, ErrorCode, StepStatus, limits};

use super::input::Taken;
use super::names::{At, error_value};
use super::people::not_now;
use super::waiting::{Break, Breaks, Waiting};
use super::{Decider, Refusal, Stop};
use crate::event::{
    BreakAt, BreakPassed, BreakReached, BreakpointsChanged, Fact, ParamChanged, Stored, StoredBreak,
};
use crate::plan::without_numbers;

impl Decider<'_> {
    /// Which breakpoint stops the step here, as people say it after "a breakpoint"; none if none does.
    ///
    /// # Errors
    /// A value that must be loaded before it is known.
    pub(super) fn stops(&self, place: Place, at: BreakAt) -> Result<Option<String>, Stop> {
        let state = &self.run.state;
        let Some(plan) = state.plan_step(&self.run.plan, place) else {
            return Ok(None);
        };
        if place.item != Place::NO_ITEM
            || state.cancel.is_some()
            || state.passed.contains(&(place, at))
        {
            return Ok(None);
        }
        let defined = match (&plan.step.breakpoint, at) {
            (Some(Breakpoint::Before), BreakAt::Before)
            | (Some(Breakpoint::After), BreakAt::After)
            | (Some(Breakpoint::OnFailure), BreakAt::OnFailure) => Some(String::new()),
            (Some(Breakpoint::When(when)), BreakAt::Before) => self.holds(place, when)?,
            _ => None,
        };
        if let Some(how) = defined {
            return Ok(Some(format!("of its definition{how}")));
        }
        if state.stepping && at == BreakAt::Before {
            return Ok(Some("at every step".to_owned()));
        }
        if state.breaks.is_empty() {
            return Ok(None);
        }
        let path = state.path(&self.run.plan, place);
        for of in &state.breaks {
            let here = of.at == at
                && of
                    .step
                    .as_deref()
                    .is_none_or(|step| is_named(&path, &plan.step.id, step));
            if !here {
                continue;
            }
            let how = match of.when.as_deref().map(Program::parse) {
                Some(Ok(when)) => self.holds(place, &when)?,
                Some(Err(_)) | None => Some(String::new()),
            };
            if let Some(how) = how {
                let by = of.by.as_deref().unwrap_or("somebody");
                return Ok(Some(format!("that {by} set{how}")));
            }
        }
        Ok(None)
    }

    /// What is to be said of a condition, unless it is surely false: one that cannot be evaluated
    /// stops, so that somebody looks.
    fn holds(&self, place: Place, when: &Program) -> Result<Option<String>, Stop> {
        let unit = self.run.state.unit(place);
        let error = unit.and_then(|unit| unit.error.as_deref());
        let names = At::unit(self.run, place, self.now)
            .with("error", error.map_or(Value::Null, error_value));
        let source = when.source();
        match self.eval(when, &names) {
            Ok(Value::Bool(false)) => Ok(None),
            Ok(Value::Bool(true)) => Ok(Some(format!(", as `{source}`"))),
            Ok(other) => Ok(Some(format!(
                ", whose condition `{source}` gives a {} and not a bool",
                other.type_name()
            ))),
            Err(Stop::Need(need)) => Err(Stop::Need(need)),
            Err(Stop::Failed(why)) => Ok(Some(format!(
                ", whose condition `{source}` cannot be evaluated: {why}"
            ))),
        }
    }

    /// True if the step stopped before it starts.
    pub(super) fn stopped_before(&mut self, place: Place) -> Result<bool, Stop> {
        let Some(why) = self.stops(place, BreakAt::Before)? else {
            return Ok(false);
        };
        self.emit(Fact::BreakReached(BreakReached {
            unit: place.into(),
            at: BreakAt::Before as u32,
            why,
            ..BreakReached::default()
        }));
        Ok(true)
    }

    /// True if a step that would end so stopped, with all that it ends with. What a condition needs
    /// is not waited for here: it stops.
    pub(super) fn stopped_at_end(
        &mut self,
        place: Place,
        at: BreakAt,
        status: StepStatus,
        (output, error): (&Value, Option<&TaskError>),
    ) -> bool {
        let failed = matches!(status, StepStatus::Failed | StepStatus::TimedOut);
        let ends = failed || status.good() && at == BreakAt::After;
        if !ends {
            return false;
        }
        let why = match self.stops(place, at) {
            Ok(Some(why)) => why,
            Ok(None) => return false,
            Err(_) => "whose condition looks into a value that is not in memory".to_owned(),
        };
        self.run.land(place);
        self.release(place);
        let output = (!output.is_null()).then(|| self.stored(output));
        self.emit(Fact::BreakReached(BreakReached {
            unit: place.into(),
            at: at as u32,
            status: u32::from(status.number()),
            output,
            error: error.map(Into::into),
            why,
        }));
        true
    }

    /// A step that stopped goes on. False if it did not stop.
    pub(super) fn go_on(&mut self, place: Place, by: &str) -> bool {
        let Some(Waiting::Break { at, ends, .. }) = self.run.state.waits.get(&place).cloned()
        else {
            return false;
        };
        self.emit(Fact::BreakPassed(BreakPassed {
            unit: place.into(),
            at: at as u32,
            by: by.to_owned(),
        }));
        let Some(status) = ends else { return true };
        let unit = self.run.state.unit(place).cloned().unwrap_or_default();
        let error = unit.error.map(|error| *error);
        if at == BreakAt::OnFailure {
            self.end_started(place, status, error);
        } else {
            self.end(place, status, unit.output, error);
        }
        true
    }

    /// Steps that have stopped: all, or the one that is named and those inside it.
    fn stopped(&self, step: Option<&str>) -> Result<Vec<Place>, Refusal> {
        let waits = &self.run.state.waits;
        let is_stopped = |place: &Place| matches!(waits.get(place), Some(Waiting::Break { .. }));
        let Some(step) = step else {
            let all: Vec<Place> = waits.keys().copied().filter(is_stopped).collect();
            if all.is_empty() {
                return Err(not_now(
                    "no step is stopped at a breakpoint",
                    "`kapell why` says what the run waits for",
                ));
            }
            return Ok(all);
        };
        let place = self.find(step)?;
        let inside = waits.keys().copied().filter(is_stopped);
        let inside: Vec<Place> = inside
            .filter(|stopped| self.is_inside(*stopped, place))
            .collect();
        if inside.is_empty() {
            return Err(not_now(
                format!("`{step}` is not stopped at a breakpoint"),
                "`kapell why` says what it waits for",
            ));
        }
        Ok(inside)
    }

    /// True for a unit itself, the items of a foreach, and all that is inside of them.
    fn is_inside(&self, place: Place, of: Place) -> bool {
        let whole = Place {
            item: of.item,
            ..place
        };
        let same = place == of || of.item == Place::NO_ITEM && whole == of;
        let scope = self.run.state.scopes.get(&place.scope);
        let parent = scope.and_then(|scope| scope.parent);
        same || parent.is_some_and(|parent| self.is_inside(parent, of))
    }

    /// Somebody lets steps go on: all that stopped, or one. With `stepping` every step that comes next
    /// stops before it starts.
    pub(super) fn request_continue(
        &mut self,
        by: &str,
        step: Option<&str>,
        stepping: bool,
    ) -> Taken {
        let stopped = self.stopped(step)?;
        if self.run.state.stepping != stepping {
            let breaks = self.run.state.breaks.clone();
            self.change_breakpoints(by, &breaks, stepping);
        }
        for place in stopped {
            self.go_on(place, by);
        }
        Ok(())
    }

    fn may_set_breakpoints(&self) -> Taken {
        if self.run.state.ended() {
            return Err(not_now(
                "the run has ended",
                "`kapell retry` or `kapell restart` starts it again; set breakpoints then",
            ));
        }
        Ok(())
    }

    /// Somebody sets all breakpoints of the run beside those of its definition. Those that were there
    /// stay those of whoever set them.
    pub(super) fn request_breakpoints(
        &mut self,
        by: &str,
        breaks: &[Break],
        stepping: bool,
    ) -> Taken {
        self.may_set_breakpoints()?;
        if breaks.len() > limits::BREAKPOINTS {
            return Err(Refusal::Reject(Breaks::too_many(breaks.len())));
        }
        let mut wanted = Vec::with_capacity(breaks.len());
        for of in breaks {
            self.check_breakpoint(of)?;
            let known = self.run.state.breaks.iter().find(|known| known.same(of));
            wanted.push(known.cloned().unwrap_or_else(|| set_by(of.clone(), by)));
        }
        self.change_breakpoints(by, &wanted, stepping);
        Ok(())
    }

    /// Somebody sets one breakpoint beside those that are there.
    pub(super) fn request_break(&mut self, by: &str, of: Break) -> Taken {
        self.may_set_breakpoints()?;
        self.check_breakpoint(&of)?;
        let mut breaks = self.run.state.breaks.clone();
        Breaks::add(&mut breaks, set_by(of, by)).map_err(Refusal::Reject)?;
        if breaks.len() > self.run.state.breaks.len() {
            self.change_breakpoints(by, &breaks, self.run.state.stepping);
        }
        Ok(())
    }

    /// Somebody removes breakpoints; with all of them no step stops any more because every step does.
    pub(super) fn request_no_break(&mut self, by: &str, gone: &Breaks) -> Taken {
        self.may_set_breakpoints()?;
        let state = &self.run.state;
        let mut breaks = state.breaks.clone();
        breaks.retain(|of| !gone.has(of));
        let stepping = state.stepping && *gone != Breaks::default();
        let unchanged = breaks.len() == state.breaks.len() && stepping == state.stepping;
        match &gone.step {
            Some(step) if unchanged => {
                let message = format!("the run has no such breakpoint at `{step}`");
                let error = Error::new(ErrorCode::BadRequest, message);
                Err(Refusal::Reject(error.hint(
                    "`kapell breakpoint list` lists them; those of the definition stay",
                )))
            }
            Some(_) | None => {
                if !unchanged {
                    self.change_breakpoints(by, &breaks, stepping);
                }
                Ok(())
            }
        }
    }

    fn check_breakpoint(&self, of: &Break) -> Result<(), Refusal> {
        if let Some(step) = of.step.as_deref()
            && !self.run.plan.has_step(step)
        {
            return Err(Refusal::Reject(self.run.plan.no_step(step)));
        }
        if let Some(Err(problems)) = of.when.as_deref().map(Program::parse) {
            let why = problems
                .first()
                .map_or("it is empty", |problem| &*problem.message);
            let when = of.when.as_deref().unwrap_or_default();
            let message = format!("`{when}` is no condition: {why}");
            let error = Error::new(ErrorCode::BadRequest, message);
            return Err(Refusal::Reject(
                error.hint("write it as in `if`, without `${{` and `}}`"),
            ));
        }
        Ok(())
    }

    fn change_breakpoints(&mut self, by: &str, breaks: &[Break], stepping: bool) {
        self.emit(Fact::BreakpointsChanged(BreakpointsChanged {
            breakpoints: breaks.iter().map(StoredBreak::from).collect(),
            stepping,
            by: by.to_owned(),
        }));
    }

    /// Somebody changes a parameter while a step has stopped, or the run is paused.
    pub(super) fn request_param(
        &mut self,
        by: &str,
        name: &Arc<str>,
        value: &Value,
        text: bool,
    ) -> Taken {
        let source = if text { Source::Text } else { Source::Typed };
        let value = check_param(&self.run.plan.spec, name, value, source).map_err(|problem| {
            let error = Error::new(ErrorCode::BadParams, problem.message);
            Refusal::Reject(match problem.hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        })?;
        if self.run.state.ended() {
            return Err(not_now(
                format!("`{name}` cannot be changed: the run has ended"),
                "`kapell fork` starts another run with changed parameters",
            ));
        }
        let paused = self.run.state.status == kapell_model::RunStatus::Paused;
        if !paused && self.stopped(None).is_err() {
            return Err(not_now(
                format!("`{name}` cannot be changed while the run goes on"),
                "set a breakpoint or pause the run first",
            ));
        }
        let others = self.run.state.meta.params.as_map();
        let size: usize = others.map_or(0, |params| {
            let others = params.iter().filter(|(other, _)| *other != name);
            others.map(|(name, value)| name.len() + value.size()).sum()
        });
        if size + value.size() > limits::PARAMS_BYTES {
            let message = format!(
                "the parameters would take more than {} bytes",
                limits::PARAMS_BYTES
            );
            let error = Error::new(ErrorCode::BadParams, message);
            return Err(Refusal::Reject(
                error.hint("pass large data by its address"),
            ));
        }
        self.emit(Fact::ParamChanged(ParamChanged {
            name: name.to_string(),
            value: Stored::new(&value),
            by: by.to_owned(),
        }));
        self.subscribe_again();
        Ok(())
    }
}

fn set_by(of: Break, by: &str) -> Break {
    let by = (!by.is_empty()).then(|| by.into());
    Break { by, ..of }
}

/// True if a step is meant by `step`: its id, or its path, with or without numbers.
fn is_named(path: &str, id: &str, step: &str) -> bool {
    step == id || step == path || step == without_numbers(path)
}
