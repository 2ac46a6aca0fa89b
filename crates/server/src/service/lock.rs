//! Named locks and rates.

use std::collections::BTreeMap;

use kapell_api::client::{LockCalls, Result};
use kapell_api::http::{LockPage, LockQuery, LockSummary, LockUse, LockView, RunView, StepView};
use kapell_engine::Ask;
use kapell_model::{EntityKey, Error, ErrorCode, RunId};
use kapell_store::Order;

use super::{Service, page, read};
use crate::register::NAMESPACE;
use crate::rows::failure;

/// Locks of one view of a run that are asked who holds them.
const ASKED: usize = 20;

fn key(name: &str) -> EntityKey {
    EntityKey::Lock {
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

impl Service {
    /// A lock as it answers.
    fn shown_lock(&self, name: &str) -> Result<LockView> {
        let shown = self.look(key(name), Ask::View)?;
        let mut view: LockView = read(
            &format!("the lock `{name}`"),
            serde_json::from_value(shown.to_json()),
        )?;
        name.clone_into(&mut view.summary.name);
        let mut workflows: BTreeMap<RunId, String> = BTreeMap::new();
        for of in view.holding.iter_mut().chain(&mut view.queue) {
            if let Some(workflow) = workflows.get(&of.run) {
                of.workflow.clone_from(workflow);
                continue;
            }
            let row = self.store.run(of.run).map_err(failure)?;
            of.workflow = row.map_or_else(String::new, |row| row.workflow.to_string());
            workflows.insert(of.run, of.workflow.clone());
        }
        Ok(view)
    }

    /// Says of steps that wait for a lock who holds it, and who is before them.
    pub(super) fn name_holders(&self, view: &mut RunView) {
        let run = view.summary.run;
        let mut known: BTreeMap<String, LockView> = BTreeMap::new();
        for step in &mut view.steps {
            let Some(name) = step.lock.clone() else {
                continue;
            };
            if !known.contains_key(&name) {
                if known.len() >= ASKED {
                    return;
                }
                // What is not known is left out: the lock's name is there anyway.
                let Ok(lock) = self.shown_lock(&name) else {
                    continue;
                };
                known.insert(name.clone(), lock);
            }
            if let Some(lock) = known.get(&name) {
                step.waits_for = Some(waits_for(lock, run, step));
            }
        }
    }
}

/// What a step that asked for a lock waits for.
fn waits_for(lock: &LockView, run: RunId, step: &StepView) -> String {
    let name = &lock.summary.name;
    let mut text = match (lock.summary.per_ms, lock.next_at) {
        (None, _) => format!("the lock `{name}`"),
        (Some(_), None) => format!("the rate `{name}`"),
        (Some(_), Some(at)) => format!("the rate `{name}`, which lets the next one start at {at}"),
    };
    let holders: Vec<String> = lock.holding.iter().take(3).map(named).collect();
    if !holders.is_empty() {
        text += &format!(", held by {}", holders.join(", "));
        let held = usize::try_from(lock.summary.holders).unwrap_or(usize::MAX);
        if held > holders.len() {
            text += &format!(" and {} more", held - holders.len());
        }
    }
    let own = |of: &LockUse| of.run == run && of.step == step.path;
    match lock.queue.iter().position(own) {
        Some(0) | None => {}
        Some(1) => text += "; one asks before it",
        Some(before) => text += &format!("; {before} ask before it"),
    }
    text
}

fn named(of: &LockUse) -> String {
    let run = of.run.to_string();
    format!(
        "`{}` of run {} of `{}`",
        of.step,
        &run[run.len() - 8..],
        of.workflow
    )
}

impl LockCalls for Service {
    fn locks(&self, which: &LockQuery) -> Result<LockPage> {
        let limit = page(which.limit);
        let after = which.after.as_deref().map(|after| key(after).to_bytes());
        let found = self
            .store
            .documents(
                &key("").to_bytes(),
                after.as_deref(),
                Order::Forward,
                limit + 1,
            )
            .map_err(failure)?;
        let more = found.len() > limit;
        let mut locks = Vec::with_capacity(found.len().min(limit));
        for (bytes, text) in found.iter().take(limit) {
            let Some(EntityKey::Lock { name, .. }) = EntityKey::from_bytes(bytes) else {
                continue;
            };
            let mut lock: LockSummary =
                read(&format!("the lock `{name}`"), serde_json::from_str(text))?;
            lock.name = name.to_string();
            locks.push(lock);
        }
        let next = locks.last().filter(|_| more).map(|last| last.name.clone());
        Ok(LockPage { locks, next })
    }

    fn lock(&self, name: &str) -> Result<LockView> {
        if name.is_empty() || name.contains('\0') {
            let message = format!("`{name}` cannot name a lock");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("`kapell lock list` lists those that are in use"));
        }
        self.shown_lock(name)
    }
}
