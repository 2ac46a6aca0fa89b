//! Runs that were started again.

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{RunStatus, StepStatus, Time};

use super::Fold;
use super::unit::StepFold;
use crate::event::{RunReopened, ScopeKind};

impl Fold<'_> {
    pub(super) fn reopened(&mut self, at: Time, reopened: &RunReopened) {
        self.record.status = if reopened.queued {
            RunStatus::Queued
        } else {
            RunStatus::Running
        };
        self.record.ended_at = None;
        self.record.error = None;
        self.record.outputs = Value::Null;
        let again: Vec<Place> = reopened.again.iter().map(|unit| (*unit).into()).collect();
        let word = if again.is_empty() {
            "retried"
        } else {
            "restarted"
        };
        self.note(at, format!("{word} by {}", reopened.by));
        let finals: Vec<u32> = self
            .scopes
            .iter()
            .filter(|(_, scope)| scope.kind == ScopeKind::Finally)
            .map(|(number, _)| *number)
            .collect();
        for number in finals {
            self.drop_scope(number);
        }
        for place in &again {
            self.drop_inner(*place);
            if let Some(step) = self.step(*place) {
                *step = StepFold::default();
            }
        }
        if again.is_empty() {
            self.reset_scope(0, reopened.keeps_skipped);
        }
    }

    /// Units that did not succeed start again.
    fn reset_scope(&mut self, number: u32, keeps_skipped: bool) {
        let Some(scope) = self.scopes.get_mut(&number) else {
            return;
        };
        let mut inside = Vec::new();
        let mut handlers = Vec::new();
        for step in &mut scope.steps {
            use StepStatus::{Cancelled, Failed, TimedOut, UpstreamFailed};
            if !matches!(
                step.unit.status,
                Failed | TimedOut | Cancelled | UpstreamFailed
            ) {
                continue;
            }
            step.unit.again();
            if let Some(items) = &mut step.items {
                step.unit.status = StepStatus::Running;
                items.again(keeps_skipped, &mut inside);
            } else if !step.unit.inner.is_empty() {
                step.unit.status = StepStatus::Running;
                inside.extend(&step.unit.inner);
            }
        }
        inside.retain(|number| {
            let handler = self
                .scopes
                .get(number)
                .is_some_and(|scope| scope.kind == ScopeKind::Handler);
            if handler {
                handlers.push(*number);
            }
            !handler
        });
        for number in handlers {
            self.drop_scope(number);
        }
        for number in inside {
            self.reset_scope(number, keeps_skipped);
        }
    }
}
