//! Queues, in which tasks wait for workers: what all nodes have of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::client::{Result, TaskQueueCalls};
use kapell_api::http::{TaskNeed, TaskQueue, TaskQueueList, WorkerPool, WorkerView};
use kapell_api::task::TaskResources;
use kapell_api::worker::Queues;
use kapell_engine::run::demand::Startable;
use kapell_model::{Error, ErrorCode, Time, limits};
use kapell_node::clock;
use kapell_node::metrics::Backlog;

use super::Service;
use crate::auth::about;
use crate::peers::question::{Question, Told};

/// By queue.
type Backlogs = BTreeMap<Arc<str>, Backlog>;

impl TaskQueueCalls for Service {
    fn task_queues(&self) -> Result<TaskQueueList> {
        let (backlog, mut silent) = self.all_backlog()?;
        let list = self.all_workers();
        silent.extend(list.unanswered);
        let now = clock::now();
        let named = self.named(&list.workers);
        let of_workers = list.workers.iter().flat_map(|worker| &worker.queues);
        let mut names: BTreeSet<&str> = of_workers.map(String::as_str).collect();
        names.extend(backlog.keys().map(|name| &**name));
        let queue = |name: &str| {
            let backlog = backlog.get(name);
            let serves = list
                .workers
                .iter()
                .filter(|worker| serves(worker, name, &named));
            shown(name, backlog, serves, now)
        };
        Ok(TaskQueueList {
            queues: names.into_iter().map(queue).collect(),
            pools: pools(&list.workers),
            unanswered: silent.into_iter().collect(),
        })
    }

    fn task_queue(&self, name: &str) -> Result<TaskQueue> {
        let list = self.task_queues()?;
        if !list.unanswered.is_empty() {
            return Err(silent(&list.unanswered, "say what it has of", name));
        }
        let found = list.queues.into_iter().find(|queue| queue.name == name);
        Ok(found.unwrap_or_else(|| TaskQueue {
            name: name.to_owned(),
            ..TaskQueue::default()
        }))
    }

    fn keep_task_queue(&self, name: &str) -> Result<TaskQueue> {
        about(|| format!("queue {name}"));
        self.keep_here(name)?;
        if let Some(nodes) = self.nodes.get() {
            let (_, left_out) = nodes.ask_all(&Question::Keep(name.to_owned()));
            if !left_out.is_empty() {
                let left_out: Vec<String> = left_out.iter().map(ToString::to_string).collect();
                return Err(silent(&left_out, "know yet that workers alone do", name));
            }
        }
        self.task_queue(name)
    }
}

/// Nodes did not answer.
fn silent(nodes: &[String], what: &str, queue: &str) -> Error {
    let nodes = nodes.join(", ");
    let message = format!("the node {nodes} does not {what} `{queue}`");
    Error::new(ErrorCode::StoreUnavailable, message)
        .hint("ask again: it is there again, or gone, in a moment")
}

impl Service {
    /// A queue is for workers that name it, as far as this node goes.
    fn keep_here(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > limits::NAME_CHARS || name.contains(char::is_control) {
            let message = format!("`{name}` is no name of a queue");
            return Err(Error::new(ErrorCode::BadRequest, message));
        }
        let names = Queues::Named([Arc::from(name)].into());
        let workers = self.workers.get();
        workers.map_or(Ok(()), |workers| workers.names(&names))
    }

    /// What the runs of this node have to be done.
    pub(crate) fn backlog_here(&self) -> Result<Vec<Backlog>> {
        let Some(node) = &self.node else {
            return Ok(Vec::new());
        };
        let measured = node.measure().ok_or_else(|| {
            let message = "the node did not say in time what waits";
            Error::new(ErrorCode::StoreUnavailable, message).hint("ask again in a moment")
        })?;
        Ok(measured.queues)
    }

    /// The same of all nodes, and which did not answer.
    fn all_backlog(&self) -> Result<(Backlogs, BTreeSet<String>)> {
        let mut all = BTreeMap::new();
        merge(&mut all, self.backlog_here()?);
        let Some(nodes) = self.nodes.get() else {
            return Ok((all, BTreeSet::new()));
        };
        let (told, silent) = nodes.ask_all(&Question::Backlog);
        for (_, told) in told {
            if let Told::Backlog(backlog) = told {
                merge(&mut all, backlog);
            }
        }
        Ok((all, silent.iter().map(ToString::to_string).collect()))
    }

    /// What another server asks.
    ///
    /// # Errors
    /// Those of what it asks for.
    pub(crate) fn answer_question(&self, question: &Question) -> Result<Told> {
        Ok(match question {
            Question::Workers => Told::Workers(self.workers_here()),
            Question::Drain { whom, grace_ms } => {
                let grace = std::time::Duration::from_millis(*grace_ms);
                Told::Workers(self.drain_here(whom, grace))
            }
            Question::Backlog => Told::Backlog(self.backlog_here()?),
            Question::WhoRuns(run) => Told::Running(self.who_runs_here(*run)),
            Question::Keep(queue) => {
                self.keep_here(queue)?;
                Told::Done
            }
        })
    }
}

fn merge(all: &mut Backlogs, parts: Vec<Backlog>) {
    for part in parts {
        match all.get_mut(&part.queue) {
            Some(known) => known.add(part),
            None => drop(all.insert(Arc::clone(&part.queue), part)),
        }
    }
}

impl Service {
    /// Queues that some worker names, or ever did.
    pub(super) fn named(&self, workers: &[WorkerView]) -> BTreeSet<Arc<str>> {
        let kept = self.workers.get().map(|workers| workers.kept_queues());
        let mut named = kept.unwrap_or_default();
        let there = workers.iter().flat_map(|worker| &worker.queues);
        named.extend(there.map(|name| Arc::from(name.as_str())));
        named
    }
}

/// True if a worker serves a queue, where these are named by some.
pub(super) fn serves(worker: &WorkerView, queue: &str, named: &BTreeSet<Arc<str>>) -> bool {
    match worker.queues.as_slice() {
        [] => !named.contains(queue),
        queues => queues.iter().any(|name| name == queue),
    }
}

fn takes_work(worker: &WorkerView) -> bool {
    worker.connected && !worker.draining
}

fn shown<'w>(
    name: &str,
    backlog: Option<&Backlog>,
    workers: impl Iterator<Item = &'w WorkerView>,
    now: Time,
) -> TaskQueue {
    let none = Backlog::default();
    let backlog = backlog.unwrap_or(&none);
    let mut queue = TaskQueue {
        name: name.to_owned(),
        in_flight: backlog.in_flight,
        waiting: backlog.waiting,
        oldest_at: backlog.since,
        ..TaskQueue::default()
    };
    if let Some(since) = backlog.since {
        queue.oldest_wait_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(0);
    }
    for startable in &backlog.startable {
        queue.startable += startable.attempts;
        queue.demand = queue
            .demand
            .more(&times(&startable.needs, startable.attempts));
        queue.needs.push(need(startable));
    }
    queue.attempts = queue.startable + queue.in_flight;
    for worker in workers.filter(|worker| takes_work(worker)) {
        queue.workers += 1;
        queue.slots += u64::from(worker.slots);
        queue.free_slots += u64::from(worker.free_slots);
    }
    queue
}

fn need(startable: &Startable) -> TaskNeed {
    let labels = startable.labels.iter();
    TaskNeed {
        attempts: startable.attempts,
        each: startable.needs.clone(),
        labels: labels
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        spot: startable.spot,
        light: startable.light,
        open: startable.open,
    }
}

/// What so many attempts ask for together.
pub(crate) fn times(needs: &TaskResources, attempts: u64) -> TaskResources {
    let custom = needs.custom.iter();
    TaskResources {
        cpu_millis: needs.cpu_millis.saturating_mul(attempts),
        memory_bytes: needs.memory_bytes.saturating_mul(attempts),
        gpus: u32::try_from(u64::from(needs.gpus).saturating_mul(attempts)).unwrap_or(u32::MAX),
        custom: custom
            .map(|(name, amount)| (name.clone(), amount.saturating_mul(attempts)))
            .collect(),
    }
}

fn pools(workers: &[WorkerView]) -> Vec<WorkerPool> {
    let mut pools: BTreeMap<&str, WorkerPool> = BTreeMap::new();
    for worker in workers {
        let Some(name) = &worker.pool else { continue };
        let pool = pools.entry(name).or_insert_with(|| WorkerPool {
            name: name.clone(),
            ..WorkerPool::default()
        });
        let new = worker
            .queues
            .iter()
            .filter(|name| !pool.queues.contains(name));
        let new: Vec<String> = new.cloned().collect();
        pool.queues.extend(new);
        pool.attempts += worker.count as u64;
        if takes_work(worker) {
            pool.workers += 1;
            pool.slots += u64::from(worker.slots);
            pool.free_slots += u64::from(worker.free_slots);
        } else if worker.connected {
            pool.draining += 1;
        } else {
            pool.away += 1;
        }
    }
    pools.into_values().collect()
}
