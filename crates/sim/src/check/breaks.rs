//! New runs stop where their workflow or version says that all of its runs stop.

use std::collections::BTreeSet;

use kapell_engine::event::{RunCreated, StoredBreak};
use kapell_engine::run_queue::{Kind, QueueEvent};
use kapell_model::{EntityKey, RunId};

use super::{Checks, Verdict, wrong};
use crate::world::NAMESPACE;

/// What one commit says of breakpoints.
#[derive(Default)]
pub(super) struct Breaks {
    /// Runs that were made.
    made: Vec<(RunId, EntityKey, u32, Vec<StoredBreak>)>,
    /// Run queues whose settings changed: runs may have been made before or after that.
    changed: BTreeSet<EntityKey>,
}

impl Breaks {
    /// A run was made.
    pub(super) fn created(&mut self, id: RunId, created: &RunCreated) {
        let queue = EntityKey::RunQueue {
            namespace: NAMESPACE.into(),
            workflow: created.workflow.as_str().into(),
            key: "".into(),
        };
        let breakpoints = created.breakpoints.clone();
        self.made.push((id, queue, created.version, breakpoints));
    }

    /// A run queue has decided something.
    pub(super) fn event(&mut self, key: &EntityKey, event: &QueueEvent) {
        if event.kind == Kind::Set as u32 {
            self.changed.insert(key.clone());
        }
    }
}

impl Checks {
    /// The commit is over: runs that were made in it have the breakpoints that new runs have.
    pub(super) fn breakpoints_set(&mut self) -> Verdict {
        let Breaks { made, changed } = std::mem::take(&mut self.breaks);
        for (id, queue, version, breakpoints) in made {
            if changed.contains(&queue) {
                continue;
            }
            let settings = self.queues.get(&queue).map(|queue| &queue.settings);
            let wanted = settings.map(|settings| settings.breakpoints(version));
            let wanted: Vec<StoredBreak> = wanted.iter().flatten().map(StoredBreak::from).collect();
            if wanted != breakpoints {
                let detail = format!("{id} stops at {breakpoints:?}, and not at {wanted:?}");
                return wrong("breakpoints", detail);
            }
        }
        Ok(())
    }
}
