//! Workers, of all nodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::client::{Result, WorkerCalls};
use kapell_api::http::{WorkerList, WorkerQuery, WorkerView};
use kapell_model::{Error, ErrorCode};

use super::Service;
use super::queue::serves;
use crate::auth::about;
use crate::peers::question::{Question, Told};
use crate::workers::Whom;

/// Workers in one answer.
const LISTED: usize = 10_000;

impl WorkerCalls for Service {
    fn workers(&self, which: &WorkerQuery) -> Result<WorkerList> {
        let mut list = self.all_workers();
        let named = self.named(&list.workers);
        keep(&mut list.workers, which, &named);
        list.workers.truncate(LISTED);
        Ok(list)
    }

    fn drain(&self, worker: &str, grace: Duration) -> Result<WorkerList> {
        self.drain_all(Whom::Worker(worker.to_owned()), grace)
    }

    fn drain_pool(&self, pool: &str, grace: Duration) -> Result<WorkerList> {
        self.drain_all(Whom::Pool(pool.to_owned()), grace)
    }
}

impl Service {
    /// The workers of all nodes that answer, by name.
    pub(super) fn all_workers(&self) -> WorkerList {
        let here = self.workers_here();
        self.with_others(here, &Question::Workers)
    }

    /// Workers of this node.
    pub(crate) fn workers_here(&self) -> Vec<WorkerView> {
        let workers = self.workers.get().map(|workers| workers.list());
        self.at_home(workers.unwrap_or_default())
    }

    /// Lets workers of this node go; none may be meant.
    pub(crate) fn drain_here(&self, whom: &Whom, grace: Duration) -> Vec<WorkerView> {
        let drained = self.workers.get().map(|workers| workers.drain(whom, grace));
        self.at_home(drained.unwrap_or_default())
    }

    fn drain_all(&self, whom: Whom, grace: Duration) -> Result<WorkerList> {
        about(|| format!("within {} s", grace.as_secs()));
        // There are workers only where there is a server.
        if self.workers.get().is_none() {
            let message = format!("there is no {whom}: no server runs here");
            return Err(Error::new(ErrorCode::WorkerNotFound, message)
                .hint("ask the server that the worker is at"));
        }
        let here = self.drain_here(&whom, grace);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let message = format!("there is no {whom}");
        let list = self.with_others(here, &Question::Drain { whom, grace_ms });
        if !list.workers.is_empty() {
            return Ok(list);
        }
        if list.unanswered.is_empty() {
            let error = Error::new(ErrorCode::WorkerNotFound, message);
            return Err(error.hint("`kapell workers` lists them"));
        }
        let message = format!(
            "{message} at the nodes that answer; node {} does not",
            list.unanswered.join(", ")
        );
        Err(Error::new(ErrorCode::StoreUnavailable, message)
            .hint("ask again: it is there again, or gone, in a moment"))
    }

    /// These, and those of which other nodes tell.
    fn with_others(&self, here: Vec<WorkerView>, question: &Question) -> WorkerList {
        let mut list = WorkerList {
            workers: here,
            unanswered: Vec::new(),
        };
        if let Some(nodes) = self.nodes.get() {
            let (told, silent) = nodes.ask_all(question);
            for (_, told) in told {
                if let Told::Workers(workers) = told {
                    list.workers.extend(workers);
                }
            }
            list.unanswered = silent.iter().map(ToString::to_string).collect();
        }
        let order = |a: &WorkerView, b: &WorkerView| {
            (&a.name, &a.session, b.connected).cmp(&(&b.name, &b.session, a.connected))
        };
        list.workers.sort_by(order);
        // A worker that moves may be known at both nodes: it is where it is connected.
        list.workers.dedup_by(|b, a| a.session == b.session);
        list
    }

    fn at_home(&self, mut workers: Vec<WorkerView>) -> Vec<WorkerView> {
        let home = self.nodes.get().map_or_else(
            || format!("{:016x}", self.feed.life()),
            |nodes| nodes.me().to_string(),
        );
        for worker in &mut workers {
            worker.node.clone_from(&home);
        }
        workers
    }
}

/// Keeps those that are asked for.
fn keep(workers: &mut Vec<WorkerView>, which: &WorkerQuery, named: &BTreeSet<Arc<str>>) {
    let known = std::mem::take(workers);
    let kept = known.iter().filter(|worker| {
        let pool = worker.pool.as_ref();
        which
            .queue
            .as_ref()
            .is_none_or(|of| serves(worker, of, named))
            && which.pool.as_ref().is_none_or(|of| pool == Some(of))
            && which
                .node
                .as_ref()
                .is_none_or(|of| worker.node.starts_with(of.as_str()))
            && (!which.idle || worker.count == 0)
    });
    *workers = kept.cloned().collect();
}
