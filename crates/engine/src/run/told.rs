//! Who hears of the end of a run: its trigger, its parent, its run queue.

use kapell_expr::Value;
use kapell_model::spec::StrategyMode;
use kapell_model::{EntityKey, RunStatus, limits};

use super::Decider;
use crate::message::Message;
use crate::run_queue::Success;

impl Decider<'_> {
    /// Whoever keeps account of due times hears how the run for one of them has ended.
    pub(super) fn tell_trigger(&mut self, status: RunStatus) {
        let state = &self.run.state;
        let blocks = self.blocks(status);
        let message = Message::DueRunEnded {
            run: state.meta.id,
            scheduled_at: state.meta.scheduled_at,
            status,
            blocks,
        };
        self.send_to_trigger(&message);
    }

    /// True if those after it are kept back.
    fn blocks(&self, status: RunStatus) -> bool {
        self.run.plan.spec.strategy.mode == StrategyMode::StrictSequential
            && matches!(status, RunStatus::Failed | RunStatus::TimedOut)
            && !self.ended_by_person()
    }

    fn ended_by_person(&self) -> bool {
        let cancel = self.run.state.cancel.as_ref();
        cancel.is_some_and(|cancel| !cancel.timed_out)
    }

    /// Nobody is to make another run for the same due time meanwhile.
    pub(super) fn tell_trigger_it_goes_on(&mut self) {
        let meta = &self.run.state.meta;
        let message = Message::DueRunReopened {
            run: meta.id,
            scheduled_at: meta.scheduled_at,
        };
        self.send_to_trigger(&message);
    }

    /// To whoever wanted a run for a due time: nobody did for other runs.
    fn send_to_trigger(&mut self, message: &Message) {
        if !self.is_for_a_due_time() {
            return;
        }
        let meta = &self.run.state.meta;
        let (namespace, workflow) = (meta.namespace.clone(), meta.workflow.clone());
        let trigger = EntityKey::Trigger {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            name: meta.trigger_name.clone(),
        };
        let backfill = meta.backfill.clone().map(|id| EntityKey::Backfill {
            namespace,
            workflow,
            id,
        });
        for to in backfill.into_iter().chain([trigger]) {
            self.send(to, message.clone());
        }
    }

    fn is_for_a_due_time(&self) -> bool {
        matches!(&*self.run.state.meta.trigger, "schedule" | "backfill")
    }

    pub(super) fn tell_parent(&mut self, status: RunStatus, outputs: Value, error: String) {
        let Some(parent) = self.run.state.meta.parent.filter(|parent| parent.waits) else {
            return;
        };
        let run = self.run.state.meta.id;
        self.send(
            parent.run.into(),
            Message::ChildEnded {
                place: parent.place,
                run,
                status,
                outputs,
                error,
            },
        );
    }

    /// What the runs after it see of a run that succeeded. A later version may ask for it: it is told also
    /// where this one does not, if the run stands in a queue anyhow or is for a due time. Many others
    /// would all write to one queue.
    fn success(&mut self, status: RunStatus) -> Option<Box<Success>> {
        if status != RunStatus::Succeeded {
            return None;
        }
        let meta = &self.run.state.meta;
        let (run, scheduled_at) = (meta.id, meta.scheduled_at);
        let key = match &meta.queue {
            Some((_, _, key)) => key.clone(),
            None if self.is_for_a_due_time() && self.run.plan.spec.strategy.key.is_none() => {
                "".into()
            }
            None => return None,
        };
        let params = meta.params.clone();
        let outputs = self.run.state.outputs.clone();
        Some(Box::new(Success {
            run,
            key,
            scheduled_at,
            ended_at: self.now,
            params: self.short(&params),
            outputs: self.short(&outputs),
        }))
    }

    fn short(&mut self, value: &Value) -> Vec<u8> {
        let bytes = value.to_stored();
        if bytes.len() <= limits::LAST_SUCCESS_BYTES {
            return bytes;
        }
        if !self.run.plan.watermark {
            // Nobody asks for it yet: no content is kept for that.
            return Value::Null.to_stored();
        }
        self.blob(value, bytes).inline
    }

    pub(super) fn tell_queue(&mut self, status: RunStatus) {
        let success = self.success(status);
        let state = &self.run.state;
        // Also if it went past its queue: by now it may be counted there.
        let to = state.run_queue();
        let run = state.meta.id;
        let by_person = self.ended_by_person();
        let backfill = state.meta.backfill.clone();
        let blocks = backfill.filter(|_| self.blocks(status));
        self.send(
            to,
            Message::RunEnded {
                run,
                status,
                by_person,
                success,
                blocks,
            },
        );
    }
}
