//! What people see of steps that wait for signals, people and breakpoints.

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::spec::{Approval, OnReject, Verb};
use kapell_model::{Time, params};
use serde::{Deserialize, Serialize};

use super::super::names::At;
use super::super::state::TimerKind;
use super::super::waiting::{Given, Waiting};
use super::super::{Decider, Run};
use super::settings;
use crate::event::BreakAt;

/// What a step asks people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// What they are asked.
    pub message: String,
    /// Users and groups that may answer; empty is everybody.
    pub by: Vec<String>,
    /// Whoever started the run may not.
    pub not_by: Option<String>,
    /// How many must say yes.
    pub count: u32,
    /// Who has.
    pub given: Vec<GivenView>,
    /// What they fill in.
    pub input: Vec<InputView>,
    /// When it is too late.
    pub until: Option<Time>,
    /// A no fails the step.
    pub reject_fails: bool,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenView {
    /// Who.
    pub by: String,
    /// When.
    pub at: Time,
    /// What they said with it.
    pub comment: String,
}

/// Something that people fill in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputView {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: String,
    /// What it is.
    pub description: String,
    /// It must be given.
    pub required: bool,
    /// Its only values, if it has such.
    pub allowed: Option<Vec<serde_json::Value>>,
}

/// A step that stopped at a breakpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoppedView {
    /// Where it stopped.
    pub at: BreakAt,
    /// Which breakpoint it is, after "a breakpoint"; empty is not known.
    #[serde(default)]
    pub why: String,
    /// What it starts with, or started with, as expressions give it now: the name of each setting
    /// with its value, or with the error that its evaluation gives.
    pub inputs: Vec<(String, Result<serde_json::Value, String>)>,
    /// What it gives, if it has been tried.
    pub output: Option<serde_json::Value>,
}

/// Settings of a stopped step that are shown.
const INPUTS: usize = 200;

impl Run {
    /// What a unit asks people; none if it does not.
    pub(super) fn approval_view(&self, place: Place) -> Option<ApprovalView> {
        let (Waiting::Approval { message, given }, approval) =
            (self.state.waits.get(&place)?, self.approval_of(place)?)
        else {
            return None;
        };
        let input = approval.input.iter().map(|param| InputView {
            name: param.name.to_string(),
            ty: params::type_name(param),
            description: param.description.clone(),
            required: param.default.is_none(),
            allowed: param
                .allowed
                .as_ref()
                .map(|allowed| allowed.iter().map(Value::to_json).collect()),
        });
        Some(ApprovalView {
            message: message.to_string(),
            by: approval.by.iter().map(ToString::to_string).collect(),
            not_by: (!approval.allow_self).then(|| self.state.meta.person().to_string()),
            count: approval.count,
            given: given.iter().map(given_view).collect(),
            input: input.collect(),
            until: self.state.timers.get(place, TimerKind::TotalTimeout),
            reject_fails: approval.on_reject == OnReject::Fail,
        })
    }

    fn approval_of(&self, place: Place) -> Option<&Approval> {
        match &self.state.plan_step(&self.plan, place)?.step.verb {
            Verb::Approval(approval) => Some(approval),
            _ => None,
        }
    }

    /// What a unit shows at a breakpoint; none if it has not stopped.
    pub(super) fn stopped_view(&self, place: Place, now: Time) -> Option<StoppedView> {
        let Waiting::Break { at, ends, why } = self.state.waits.get(&place)? else {
            return None;
        };
        let output = ends.is_some().then(|| {
            self.output(place, now)
                .unwrap_or_else(Value::string)
                .to_json()
        });
        Some(StoppedView {
            at: *at,
            why: why.to_string(),
            inputs: self.inputs_at(place, now),
            output,
        })
    }

    fn inputs_at(
        &self,
        place: Place,
        now: Time,
    ) -> Vec<(String, Result<serde_json::Value, String>)> {
        let Some(plan) = self.state.plan_step(&self.plan, place) else {
            return Vec::new();
        };
        let names = At::unit(self, place, now);
        let settings = settings::of(&plan.step).into_iter().take(INPUTS);
        settings
            .map(|(name, setting)| (name, setting.shown(&names)))
            .collect()
    }

    /// What a unit that waits for somebody else's decision waits for.
    pub(super) fn waits_for_others(&self, place: Place) -> Option<String> {
        let until = self.state.timers.get(place, TimerKind::TotalTimeout);
        let until = until.map_or(String::new(), |at| format!(", until {at}"));
        Some(match self.state.waits.get(&place)? {
            Waiting::Signal { signal, since } => {
                let matches = match self
                    .state
                    .plan_step(&self.plan, place)
                    .map(|plan| &plan.step.verb)
                {
                    Some(Verb::Await(wanted)) => wanted.matches.as_ref(),
                    _ => None,
                };
                let matches = matches.map_or(String::new(), |matches| {
                    format!(" for which `{}`", matches.source())
                });
                format!("a signal `{signal}`{matches}, sent since {since}{until}")
            }
            Waiting::Approval { given, .. } => {
                let approval = self.approval_of(place)?;
                let who = Decider::may_be_answered_by(approval, given);
                let but = if approval.allow_self {
                    String::new()
                } else {
                    format!(
                        ", but not `{}`, who started the run",
                        self.state.meta.person()
                    )
                };
                let yes = if approval.count > 1 {
                    format!(" ({} of {} said yes)", given.len(), approval.count)
                } else {
                    String::new()
                };
                format!("{who} to approve it{but}{yes}{until}: `kapell approve`")
            }
            Waiting::Break { at, why, .. } => {
                let unit = self.state.unit(place);
                let error = unit.and_then(|unit| unit.error.as_deref());
                let error = error.map_or(String::new(), |error| format!(" ({})", error.message));
                let gap = if why.is_empty() { "" } else { " " };
                format!(
                    "somebody to let it go on: it stopped {}{error} at a breakpoint{gap}{why}: `kapell continue`",
                    at.name()
                )
            }
        })
    }
}

fn given_view(given: &Given) -> GivenView {
    GivenView {
        by: given.by.to_string(),
        at: given.at,
        comment: given.comment.to_string(),
    }
}

#[cfg(test)]
mod tests;
