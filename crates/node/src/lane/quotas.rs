//! What namespaces have in flight, where an operator bounds it.
//!
//! A lane counts the attempts of the shards that it owns. Of each quota it may use the part that these shards are of
//! all, rounded up, and one attempt in any case. So one node keeps quotas exactly; several together go past one by
//! less than an attempt each, and a run alone has the part of its node. After a restart what workers
//! hold counts once its run is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::task::TaskResources;
use kapell_engine::run::room::{Allowance, Quota};
use kapell_model::{RunId, SHARDS};

use super::held::Grant;

/// Runs named when it is said who uses a quota.
const NAMED: usize = 3;

/// Attempts of one namespace.
#[derive(Debug, Default)]
struct Used {
    steps: u64,
    cpu_millis: u64,
    gpus: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    bounds: BTreeMap<Arc<str>, Quota>,
    used: BTreeMap<Arc<str>, Used>,
    /// Namespaces that have less in flight than when this was asked last.
    freed: BTreeSet<Arc<str>>,
}

impl Quotas {
    /// These are the quotas.
    pub(super) fn new(bounds: BTreeMap<Arc<str>, Quota>) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// The namespace, if it has a quota.
    pub(super) fn bounded(&self, namespace: &Arc<str>) -> Option<Arc<str>> {
        self.bounds
            .get_key_value(namespace)
            .map(|(name, _)| name.clone())
    }

    /// An attempt is in flight.
    pub(super) fn take(&mut self, grant: &Grant) {
        if let Some(namespace) = &grant.namespace {
            self.add(namespace.clone(), &grant.needs);
        }
    }

    fn add(&mut self, namespace: Arc<str>, needs: &TaskResources) {
        let used = self.used.entry(namespace).or_default();
        used.steps += 1;
        used.cpu_millis += needs.cpu_millis;
        used.gpus += u64::from(needs.gpus);
    }

    /// An attempt is no longer in flight.
    pub(super) fn give_back(&mut self, grant: &Grant) {
        let Some(namespace) = &grant.namespace else {
            return;
        };
        if let Some(used) = self.used.get_mut(namespace) {
            used.steps = used.steps.saturating_sub(1);
            used.cpu_millis = used.cpu_millis.saturating_sub(grant.needs.cpu_millis);
            used.gpus = used.gpus.saturating_sub(grant.needs.gpus.into());
            self.freed.insert(namespace.clone());
        }
    }

    /// Namespaces in which something may start again.
    pub(super) fn freed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.freed)
    }

    /// Another part of all shards is owned here.
    pub(super) fn shards_changed(&mut self) {
        self.freed.extend(self.bounds.keys().cloned());
    }

    /// What a namespace may have in flight besides what it has, with so many shards; none is no bound.
    pub(super) fn allowance(&self, namespace: &str, shards: usize) -> Option<Allowance> {
        let quota = *self.bounds.get(namespace)?;
        let nothing = Used::default();
        let used = self.used.get(namespace).unwrap_or(&nothing);
        let part = |bound: Option<u64>, used: u64| {
            let bound = u128::from(bound?);
            let part = (bound * shards as u128).div_ceil(u128::from(SHARDS));
            Some(u64::try_from(part).unwrap_or(u64::MAX).saturating_sub(used))
        };
        Some(Allowance {
            quota,
            left: Quota {
                steps: part(quota.steps, used.steps),
                cpu_millis: part(quota.cpu_millis, used.cpu_millis),
                gpus: part(quota.gpus, used.gpus),
            },
            idle: used.steps == 0,
        })
    }

    /// What somebody is told whose work waits for its namespace's quota: what it is, and which runs have the most
    /// of it in flight. `flights` names the run of each attempt.
    pub(super) fn why(
        &self,
        namespace: &str,
        alone: bool,
        flights: impl Iterator<Item = RunId>,
    ) -> Option<String> {
        let quota = self.bounds.get(namespace)?;
        let mut runs: BTreeMap<RunId, usize> = BTreeMap::new();
        for run in flights {
            *runs.entry(run).or_default() += 1;
        }
        let mut runs: Vec<(RunId, usize)> = runs.into_iter().collect();
        runs.sort_by_key(|(run, count)| (std::cmp::Reverse(*count), *run));
        let most: Vec<String> = runs
            .iter()
            .take(NAMED)
            .map(|(run, count)| format!("{count} of run {run}"))
            .collect();
        let more = if runs.len() > NAMED { ", …" } else { "" };
        let part = if alone { "" } else { ", shared by the nodes" };
        Some(format!(
            "the quota of namespace `{namespace}` ({quota}{part}): in flight {} {}{more}",
            if alone { "are" } else { "here are" },
            most.join(", ")
        ))
    }
}
