//! What is kept of steps and items while a history is folded.

use std::collections::{BTreeMap, VecDeque};

use kapell_api::record::{AttemptRecord, AttemptResult as Result};
use kapell_api::task::{Place, TaskError};
use kapell_expr::Value;
use kapell_model::{StepStatus, Time};

use super::{ATTEMPTS, FAILED_ITEMS};
use crate::event::ScopeKind;

/// An instance of a graph.
#[derive(Debug)]
pub(super) struct ScopeFold {
    pub(super) graph: u32,
    pub(super) kind: ScopeKind,
    pub(super) parent: Option<Place>,
    pub(super) iteration: u32,
    pub(super) steps: Vec<StepFold>,
}

#[derive(Debug, Default)]
pub(super) struct StepFold {
    pub(super) unit: UnitFold,
    pub(super) items: Option<Box<ItemsFold>>,
}

/// A step without foreach, a foreach as a whole, or an item.
#[derive(Debug, Default)]
pub(super) struct UnitFold {
    pub(super) status: StepStatus,
    pub(super) ready_at: Option<Time>,
    pub(super) started_at: Option<Time>,
    pub(super) ended_at: Option<Time>,
    pub(super) until: Option<Time>,
    pub(super) attempts: VecDeque<AttemptRecord>,
    pub(super) output: Value,
    pub(super) output_bytes: Option<u64>,
    pub(super) error: Option<Box<TaskError>>,
    pub(super) child: Option<kapell_model::RunId>,
    pub(super) lock: Option<String>,
    /// A signal, people or a breakpoint.
    pub(super) waits_for: Option<String>,
    /// Names of the signals that it sent.
    pub(super) sent: Vec<String>,
    pub(super) by: Option<String>,
    pub(super) tolerated: bool,
    pub(super) inner: Vec<u32>,
    pub(super) left_out: u32,
}

#[derive(Debug, Default)]
pub(super) struct ItemsFold {
    /// Numbers of their statuses.
    pub(super) statuses: Vec<u8>,
    /// The lists that they are made of, or references to them.
    pub(super) lists: Vec<Value>,
    pub(super) kept: BTreeMap<u32, UnitFold>,
    pub(super) beyond: usize,
    /// `stop_when` held.
    pub(super) enough: bool,
}

impl ScopeFold {
    /// What paths inside begin with; `above`: the path of the unit that it is in.
    pub(super) fn prefix(&self, above: &str) -> String {
        match self.kind {
            ScopeKind::Iteration => format!("{above}#{}.", self.iteration),
            _ if self.parent.is_some() => format!("{above}."),
            _ => String::new(),
        }
    }
}

impl ItemsFold {
    /// An item if it is kept: `keeps` says so, or it failed.
    pub(super) fn kept_unit(
        &mut self,
        item: u32,
        status: StepStatus,
        keeps: bool,
    ) -> Option<&mut UnitFold> {
        if !keeps && !self.kept.contains_key(&item) {
            let failing = matches!(
                status,
                StepStatus::Retrying | StepStatus::Failed | StepStatus::TimedOut
            );
            if !failing || self.beyond >= FAILED_ITEMS || item as usize >= self.statuses.len() {
                return None;
            }
            self.beyond += 1;
        }
        Some(self.kept.entry(item).or_default())
    }

    /// What did not succeed starts again; with `keeps_skipped`, without what a person skipped.
    pub(super) fn again(&mut self, keeps_skipped: bool, inside: &mut Vec<u32>) {
        let pending = StepStatus::Pending.number();
        let kept = keeps_skipped && !self.enough;
        self.enough = false;
        for (item, known) in self.statuses.iter_mut().enumerate() {
            let status = StepStatus::from_number(*known).unwrap_or_default();
            let stays = kept && status == StepStatus::Skipped;
            if status.ended() && !status.good() && !stays {
                *known = pending;
                let item = u32::try_from(item).unwrap_or(u32::MAX);
                if let Some(unit) = self.kept.get_mut(&item) {
                    unit.again();
                    inside.extend(&unit.inner);
                }
            }
        }
    }
}

impl UnitFold {
    pub(super) fn begin(&mut self, at: Time) {
        self.ready_at.get_or_insert(at);
        self.started_at.get_or_insert(at);
    }

    pub(super) fn end(&mut self, at: Time, (output, bytes): (Value, Option<u64>)) {
        self.ended_at = Some(at);
        self.output = output;
        self.output_bytes = bytes;
        self.until = None;
        self.lock = None;
        self.waits_for = None;
        for attempt in &mut self.attempts {
            if attempt.result == Result::Running {
                attempt.result = Result::Lost;
                attempt.ended_at = Some(at);
            }
        }
    }

    /// It starts again; its attempts stay.
    pub(super) fn again(&mut self) {
        self.status = StepStatus::Pending;
        self.ready_at = None;
        self.started_at = None;
        self.ended_at = None;
        self.error = None;
        self.by = None;
        self.tolerated = false;
        self.waits_for = None;
        self.sent = Vec::new();
    }

    /// Keeps an attempt, in place of what was known of the same before.
    pub(super) fn attempt(&mut self, attempt: AttemptRecord) {
        if let Some(last) = self.attempts.back_mut()
            && last.attempt == attempt.attempt
            && last.result == Result::Running
        {
            *last = attempt;
            return;
        }
        if self.attempts.len() == ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
    }
}
