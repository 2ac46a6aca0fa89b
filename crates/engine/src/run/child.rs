//! Runs that steps make.

use kapell_api::task::Place;
use kapell_expr::Value;
use kapell_model::{RunId, Shard, StepStatus, limits};

use super::names::At;
use super::state::{Inner, ParentUnit};
use super::{Decider, Stop};
use crate::event::{ChildStarted, Fact};
use crate::message::{Message, StartChild};

impl Decider<'_> {
    pub(super) fn start_child(
        &mut self,
        place: Place,
        step: &kapell_model::spec::Step,
        (name, version): (&std::sync::Arc<str>, Option<u32>),
        wait: bool,
        total: i64,
    ) -> Result<(), Stop> {
        let state = &self.run.state;
        // A child that ended badly before is the same run again, with its successes.
        if let Some(Inner::Child(child)) = state.unit(place).map(|unit| unit.inner.clone()) {
            self.emit(Fact::ChildStarted(ChildStarted {
                unit: place.into(),
                run: child.to_bytes().to_vec(),
                total,
            }));
            self.send(child.into(), Message::RetryChild);
            return Ok(());
        }
        if state.meta.depth + 1 > limits::RUN_DEPTH {
            let message = format!("sub-workflows nest deeper than {} runs", limits::RUN_DEPTH);
            return self.expression_failed(place, message);
        }
        let params = match &step.with {
            Some(with) => match self.render(with, &At::unit(self.run, place, self.now)) {
                Ok(params) => params,
                Err(stop) => return self.failed_by(place, "with", stop),
            },
            None => Value::Null,
        };
        let state = &self.run.state;
        let child = self.child_id(place, name);
        let mut held = state.meta.held_queues.clone();
        let own = state.line();
        if wait && !held.contains(&own) {
            held.push(own);
        }
        let start = StartChild {
            id: child,
            namespace: state.meta.namespace.clone(),
            workflow: name.clone(),
            version,
            params,
            parent: ParentUnit {
                run: state.meta.id,
                place,
                waits: wait,
            },
            root_by: state.meta.person().clone(),
            depth: state.meta.depth + 1,
            priority: state.meta.priority,
            scheduled_at: state.meta.scheduled_at.0,
            interval: state.meta.interval,
            timezone: state.meta.timezone.clone(),
            hops: state.meta.hops,
            held_queues: held,
        };
        self.emit(Fact::ChildStarted(ChildStarted {
            unit: place.into(),
            run: child.to_bytes().to_vec(),
            total,
        }));
        self.send(child.into(), Message::StartChild(Box::new(start)));
        if !wait {
            let output = Value::map([("run_id", Value::string(child.to_string()))]);
            self.end(place, StepStatus::Succeeded, output, None);
        }
        Ok(())
    }

    /// The id of a child: derived from parent and place alone. It lives where its workflow does.
    fn child_id(&self, place: Place, workflow: &str) -> RunId {
        let meta = &self.run.state.meta;
        let parent = meta.id;
        let mut hash = blake3::Hasher::new();
        hash.update(&parent.to_bytes());
        for number in [place.scope, u32::from(place.step), place.item] {
            hash.update(&number.to_le_bytes());
        }
        let hash = hash.finalize();
        let unique = hash.as_bytes()[..16]
            .iter()
            .fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        let shard = Shard::of_workflow(&meta.namespace, workflow);
        RunId::new(self.now, shard, unique)
    }
}
