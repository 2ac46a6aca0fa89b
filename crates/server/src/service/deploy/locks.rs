//! What belongs to the name of a lock: all that is in force says the same of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::client::Result;
use kapell_engine::Plan;
use kapell_expr::Template;
use kapell_model::spec::{LockBounds, Spec};
use kapell_model::{Error, ErrorCode};

use super::Service;
use crate::register::NAMESPACE;
use crate::rows::failure;

/// What is said of names, and which workflow says it.
type Bounds = BTreeMap<Arc<str>, (LockBounds, Arc<str>)>;

impl Service {
    /// Refuses workflows that say something else of a lock than each other, or than one that is in force
    /// and neither among them nor about to go.
    pub(in crate::service) fn check_locks(
        &self,
        wanted: &[(&Arc<str>, &Arc<Spec>)],
        left_over: &[String],
    ) -> Result<()> {
        let mut bounds = Bounds::new();
        for (workflow, spec) in wanted {
            agree(&mut bounds, workflow, spec)?;
        }
        if bounds.is_empty() {
            return Ok(());
        }
        let own: BTreeSet<&str> = wanted.iter().map(|(workflow, _)| &***workflow).collect();
        let names: Vec<String> = bounds
            .keys()
            .map(|name| serde_json::Value::from(&**name).to_string())
            .collect();
        self.each_workflow(|workflow, settings| {
            let in_force = settings.active.filter(|version| *version > 0);
            let goes = || left_over.iter().any(|gone| gone == workflow);
            let Some(version) = in_force.filter(|_| !own.contains(workflow) && !goes()) else {
                return Ok(());
            };
            let row = self.store.version(NAMESPACE, workflow, Some(version));
            let Some(row) = row.map_err(failure)? else {
                return Ok(());
            };
            // A definition is long, and most name none of these.
            if !names.iter().any(|name| row.spec.contains(name.as_str())) {
                return Ok(());
            }
            let spec: Spec = super::super::read(workflow, serde_json::from_str(&row.spec))?;
            for (name, found) in literals(&Arc::new(spec)) {
                if let Some((own, of)) = bounds.get(&name).filter(|(own, _)| *own != found) {
                    let message = format!(
                        "the lock `{name}` has `{own}` in `{of}`, and `{found}` in `{workflow}`, which is in force"
                    );
                    return Err(Error::new(ErrorCode::BadDefinition, message).hint(
                        "nothing was changed; what bounds a lock belongs to its name: deploy all that use it with the same, or use two names",
                    ));
                }
            }
            Ok(())
        })
    }
}

/// Adds what a workflow says of locks to what others say.
fn agree(bounds: &mut Bounds, workflow: &Arc<str>, spec: &Arc<Spec>) -> Result<()> {
    for (name, own) in literals(spec) {
        let (first, other) = bounds
            .entry(name.clone())
            .or_insert_with(|| (own, workflow.clone()));
        if *first != own {
            let message = format!(
                "the lock `{name}` has `{first}` in `{other}`, and `{own}` in `{workflow}`"
            );
            return Err(Error::new(ErrorCode::BadDefinition, message).hint(
                "nothing was changed; what bounds a lock belongs to its name: give both the same, or use two names",
            ));
        }
    }
    Ok(())
}

/// Locks whose names stand in a definition, with their bounds.
fn literals(spec: &Arc<Spec>) -> Vec<(Arc<str>, LockBounds)> {
    let plan = Plan::new(Arc::clone(spec));
    let steps = plan.graphs.iter().flat_map(|graph| &graph.steps);
    steps
        .flat_map(|step| &step.step.locks)
        .filter_map(|lock| match &lock.name {
            Template::Literal(name) => Some((name.text().into(), lock.bounds())),
            _ => None,
        })
        .collect()
}
