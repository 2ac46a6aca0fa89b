//! Named locks and rates.

use std::collections::BTreeMap;

use kapell_api::client::{LockCalls, Result};
use kapell_api::http::{LockPage, LockQuery, LockSummary, LockUse, LockView, RunView};
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

    /// Says of steps and items that wait for a lock who holds it, and of steps who is before them.
    pub(super) fn name_holders(&self, view: &mut RunView) {
        let run = view.summary.run;
        let mut known: BTreeMap<String, LockView> = BTreeMap::new();
        for step in &mut view.steps {
            if let Some(name) = &step.lock
                && let Some(lock) = self.known_lock(name, &mut known)
            {
                let own = |of: &LockUse| of.run == run && of.step == step.path;
                let before = lock.queue.iter().position(own);
                step.waits_for = Some(held_by(lock) + &asked_before(before));
            }
            let waiting = step.items.iter_mut().flat_map(|items| &mut items.waiting);
            for of in waiting {
                if let Some(name) = &of.lock
                    && let Some(lock) = self.known_lock(name, &mut known)
                {
                    of.waits_for = held_by(lock);
                }
            }
        }
    }

    /// A lock that was asked already, or is now; what is not known is left out: its name is there
    /// anyway.
    fn known_lock<'k>(
        &self,
        name: &str,
        known: &'k mut BTreeMap<String, LockView>,
    ) -> Option<&'k LockView> {
        if !known.contains_key(name) && known.len() < ASKED {
            let lock = self.shown_lock(name).ok()?;
            known.insert(name.to_owned(), lock);
        }
        known.get(name)
    }
}

/// A lock that is waited for, and who holds it.
fn held_by(lock: &LockView) -> String {
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
    text
}

/// How many ask for a lock before somebody.
fn asked_before(before: Option<usize>) -> String {
    match before {
        Some(0) | None => String::new(),
        Some(1) => "; one asks before it".to_owned(),
        Some(before) => format!("; {before} ask before it"),
    }
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
