//! `/metrics`: what Prometheus reads.
//!
//! Start reading at [`FAMILIES`], every family with its meaning, from which its page is written too.
//! What is counted is in `kapell_node::metrics` and [`requests`]; here it becomes text, in the classic
//! format (0.0.4), which every version of Prometheus reads. Counts of runs come from the store, which
//! keeps them: nothing is counted for a page.

mod requests;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kapell_api::http::Scope;
use kapell_api::task::TaskResources;
use kapell_model::{Error, ErrorCode, RunStatus, limits};
use kapell_node::clock;
use kapell_node::metrics::{ATTEMPT_ENDS, Backlog, Metrics, OfWorkflow, STEP_ENDS};

use crate::auth::Caller;
use crate::service::queue::times;
use crate::{NAMESPACE, Service, http, notify};

pub(crate) use requests::{Requests, measured};
use text::Text;

/// The media type of the page.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Workflows whose runs are told apart; those of more are counted together as `(others)`.
const WORKFLOWS: usize = 500;

/// What stands for those beyond a bound.
const OTHERS: &str = "(others)";

/// The worker inside the server.
const INSIDE: &str = "(here)";

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every family: its name, what it is, its labels, and what it says.
const FAMILIES: &[(&str, Kind, &[&str], &str)] = {
    use Kind::{Counter, Gauge, Histogram};
    &[
        (
            "kapell_build_info",
            Gauge,
            &["version"],
            "1, with the version as a label.",
        ),
        (
            "kapell_queue_waiting_attempts",
            Gauge,
            &["queue"],
            "Attempts that could start and wait for a worker with room, also those that one was given already.",
        ),
        (
            "kapell_queue_oldest_wait_seconds",
            Gauge,
            &["queue"],
            "How long the first of them waits.",
        ),
        (
            "kapell_queue_startable_attempts",
            Gauge,
            &["queue"],
            "Attempts that could start now if workers had room: of those that wait, the ones that no bound of \
             their step or run, no quota and no quiet hours hold back, and that no worker was given.",
        ),
        (
            "kapell_queue_in_flight_attempts",
            Gauge,
            &["queue"],
            "Attempts with a process or a request that workers have.",
        ),
        (
            "kapell_queue_demand_cpu_cores",
            Gauge,
            &["queue"],
            "Cores that the startable attempts ask for together.",
        ),
        (
            "kapell_queue_demand_memory_bytes",
            Gauge,
            &["queue"],
            "Memory that they ask for together.",
        ),
        (
            "kapell_queue_demand_gpus",
            Gauge,
            &["queue"],
            "Devices that they ask for together.",
        ),
        (
            "kapell_worker_slots",
            Gauge,
            &["worker", "pool"],
            "Attempts that a worker takes at a time: `(here)` is the one in the server's process, the others \
             are named as they are, those beyond a bound are `(others)`; 0 for one that is away or goes. One \
             of no pool has no label `pool`.",
        ),
        (
            "kapell_worker_busy_attempts",
            Gauge,
            &["worker", "pool"],
            "Slots of a worker that attempts with a process or a request have.",
        ),
        (
            "kapell_attempt_offered_total",
            Counter,
            &[],
            "Attempts that were handed out.",
        ),
        (
            "kapell_attempt_ended_total",
            Counter,
            &["workflow", "outcome"],
            "Attempts that ended, by how.",
        ),
        (
            "kapell_attempt_duration_seconds",
            Histogram,
            &["workflow"],
            "From the start of an attempt to its end.",
        ),
        (
            "kapell_run_created_total",
            Counter,
            &["trigger"],
            "Runs that were made, by what made them.",
        ),
        (
            "kapell_step_ended_total",
            Counter,
            &["workflow", "outcome"],
            "Steps and items that ended, by how; what a retry does again counts again.",
        ),
        (
            "kapell_run_ended_total",
            Counter,
            &["workflow", "status"],
            "Ends of runs, by how.",
        ),
        (
            "kapell_run_duration_seconds",
            Histogram,
            &["workflow"],
            "From the making of a run to its end, waits included.",
        ),
        (
            "kapell_runs",
            Gauge,
            &["workflow", "status"],
            "Runs that are kept, by workflow and status.",
        ),
        (
            "kapell_schedule_lateness_seconds",
            Histogram,
            &[],
            "From a due time to the making of its run.",
        ),
        (
            "kapell_commit_duration_seconds",
            Histogram,
            &[],
            "What the store takes for one commit.",
        ),
        (
            "kapell_commit_entities",
            Histogram,
            &[],
            "Entities that one commit writes.",
        ),
        (
            "kapell_commit_failures_total",
            Counter,
            &[],
            "Commits that failed.",
        ),
        (
            "kapell_store_full",
            Gauge,
            &[],
            "1 while the disk has no room: requests that change something are refused.",
        ),
        (
            "kapell_notices_waiting",
            Gauge,
            &[],
            "Notices that wait to be delivered.",
        ),
        (
            "kapell_notices_given_up",
            Gauge,
            &[],
            "Notices that could not be delivered and are kept: `kapell channel list`.",
        ),
        (
            "kapell_notices_delivered_total",
            Counter,
            &[],
            "Notices that were delivered.",
        ),
        (
            "kapell_notices_failed_total",
            Counter,
            &[],
            "Tries to deliver a notice that failed.",
        ),
        ("kapell_node_entities", Gauge, &[], "Entities in memory."),
        (
            "kapell_node_requests_total",
            Counter,
            &[],
            "Requests that were given to the node.",
        ),
        (
            "kapell_node_waiting_requests",
            Gauge,
            &[],
            "Requests that wait for the node's answer.",
        ),
        (
            "kapell_http_requests_total",
            Counter,
            &["method", "path", "code"],
            "HTTP requests that were answered.",
        ),
        (
            "kapell_http_request_duration_seconds",
            Histogram,
            &["method", "path"],
            "From a request to the head of its answer.",
        ),
        (
            "kapell_store_bytes",
            Gauge,
            &["file"],
            "Size of the database and of its log.",
        ),
        (
            "kapell_trace_spans_total",
            Counter,
            &["outcome"],
            "Spans of traces: sent, or dropped because the collector could not take them.",
        ),
        (
            "process_resident_memory_bytes",
            Gauge,
            &[],
            "Memory of this process.",
        ),
        (
            "process_cpu_seconds_total",
            Counter,
            &[],
            "Processor time of this process.",
        ),
        (
            "process_open_fds",
            Gauge,
            &[],
            "Open files of this process.",
        ),
    ]
};

/// `/metrics`, outside of the API.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/metrics", get(answer))
}

async fn answer(
    State(service): State<Arc<Service>>,
    caller: Option<Extension<Caller>>,
) -> Response {
    let refused = match caller {
        Some(Extension(caller)) => caller.may(Scope::Read, NAMESPACE).err(),
        None => Some(
            Error::new(ErrorCode::NotAuthenticated, "a token is needed here")
                .hint("`authorization` in the scrape configuration of Prometheus"),
        ),
    };
    if let Some(error) = refused {
        return http::refusal(error);
    }
    let page = tokio::task::spawn_blocking(move || page(&service)).await;
    match page {
        Ok(Some(page)) => ([(header::CONTENT_TYPE, KIND)], page).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The page; none if the configuration wants none.
fn page(service: &Service) -> Option<String> {
    if !service.options.metrics {
        return None;
    }
    let mut text = Text::default();
    text.family("kapell_build_info");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    node(service, &mut text);
    runs(service, &mut text);
    notices(service, &mut text);
    service.requests.write(&mut text);
    store(service, &mut text);
    if let Some(traces) = &service.traces {
        text.family("kapell_trace_spans_total");
        for (outcome, spans) in traces.counts() {
            text.sample(&[("outcome", outcome)], count(spans));
        }
    }
    process(&mut text);
    Some(text.finish())
}

/// Workers at this node by name and pool: what they take at a time, and what they run.
fn workers(service: &Service, text: &mut Text) {
    let mut by_name: BTreeMap<(String, Option<String>), (u64, u64)> = BTreeMap::new();
    let all = service.workers().map(|workers| workers.list());
    for mut worker in all.unwrap_or_default() {
        if worker.inside {
            INSIDE.clone_into(&mut worker.name);
        }
        let takes = worker.connected && !worker.draining;
        let slots = if takes { worker.slots.into() } else { 0 };
        let busy = u64::from(worker.slots.saturating_sub(worker.free_slots));
        let mut key = (worker.name, worker.pool);
        if !by_name.contains_key(&key) && by_name.len() >= limits::METRIC_WORKERS {
            OTHERS.clone_into(&mut key.0);
        }
        let sum = by_name.entry(key).or_default();
        *sum = (sum.0 + slots, sum.1 + busy);
    }
    let mut family = |name: &str, of: fn(&(u64, u64)) -> u64| {
        text.family(name);
        for ((worker, pool), sums) in &by_name {
            let mut labels = vec![("worker", worker.as_str())];
            labels.extend(pool.as_deref().map(|pool| ("pool", pool)));
            text.sample(&labels, count(of(sums)));
        }
    };
    family("kapell_worker_slots", |sums| sums.0);
    family("kapell_worker_busy_attempts", |sums| sums.1);
}

/// Queues: what the runs of this node have to be done there.
fn queues(queues: &[Backlog], text: &mut Text) {
    let demand: Vec<(u64, TaskResources)> = queues
        .iter()
        .map(|backlog| {
            let all = backlog.startable.iter();
            all.fold((0, TaskResources::default()), |(attempts, demand), one| {
                let more = times(&one.needs, one.attempts);
                (attempts + one.attempts, demand.more(&more))
            })
        })
        .collect();
    let all: Vec<(&Backlog, &(u64, TaskResources))> = queues.iter().zip(&demand).collect();
    let mut family = |name: &str, of: &dyn Fn(&Backlog, &(u64, TaskResources)) -> f64| {
        text.family(name);
        for (backlog, demand) in &all {
            text.sample(&[("queue", &backlog.queue)], of(backlog, demand));
        }
    };
    family("kapell_queue_waiting_attempts", &|of, _| count(of.waiting));
    family("kapell_queue_oldest_wait_seconds", &|of, _| {
        let waits = of
            .since
            .map_or(0.0, |since| clock::now().since(since).as_secs_f64());
        waits.max(0.0)
    });
    family("kapell_queue_startable_attempts", &|_, of| count(of.0));
    family("kapell_queue_in_flight_attempts", &|of, _| {
        count(of.in_flight)
    });
    family("kapell_queue_demand_cpu_cores", &|_, of| {
        count(of.1.cpu_millis) / 1_000.0
    });
    family("kapell_queue_demand_memory_bytes", &|_, of| {
        count(of.1.memory_bytes)
    });
    family("kapell_queue_demand_gpus", &|_, of| count(of.1.gpus.into()));
}

fn node(service: &Service, text: &mut Text) {
    workers(service, text);
    let Some(node) = &service.node else {
        return;
    };
    if let Some(measured) = node.measure() {
        queues(&measured.queues, text);
        text.plain("kapell_node_entities", count(measured.entities));
    }
    let metrics = node.metrics();
    let read = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    text.plain("kapell_attempt_offered_total", read(&metrics.offers));
    text.family("kapell_run_created_total");
    for (trigger, made) in metrics.made() {
        text.sample(&[("trigger", &trigger)], count(made));
    }
    workflows(metrics, text);
    text.family("kapell_schedule_lateness_seconds");
    text.seconds(&[], &metrics.lateness);
    text.family("kapell_commit_duration_seconds");
    text.seconds(&[], &metrics.commit);
    text.family("kapell_commit_entities");
    text.numbers(&[], &metrics.commit_entities);
    text.plain(
        "kapell_commit_failures_total",
        read(&metrics.commit_failures),
    );
    let full = u64::from(node.store_is_full());
    text.plain("kapell_store_full", count(full));
    text.plain("kapell_node_requests_total", read(&metrics.requests));
    text.plain("kapell_node_waiting_requests", count(node.waiting() as u64));
}

/// What is counted by workflow.
fn workflows(metrics: &Metrics, text: &mut Text) {
    let all = metrics.workflows();
    let read = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let mut ends =
        |family: &str, label: &str, names: &[&str], of: fn(&OfWorkflow) -> &[AtomicU64]| {
            text.family(family);
            for (workflow, counts) in &all {
                for (name, ended) in names.iter().zip(of(counts)) {
                    text.sample(&[("workflow", workflow), (label, name)], read(ended));
                }
            }
        };
    ends(
        "kapell_attempt_ended_total",
        "outcome",
        &ATTEMPT_ENDS,
        |of| &of.attempts,
    );
    ends("kapell_step_ended_total", "outcome", &STEP_ENDS, |of| {
        &of.steps
    });
    text.family("kapell_run_ended_total");
    for (workflow, of) in &all {
        for (status, ended) in RunStatus::ALL.iter().zip(&of.run_ends) {
            if status.ended() {
                let labels = [("workflow", &**workflow), ("status", status.name())];
                text.sample(&labels, read(ended));
            }
        }
    }
    text.family("kapell_attempt_duration_seconds");
    for (workflow, of) in &all {
        text.seconds(&[("workflow", workflow)], &of.attempt_duration);
    }
    text.family("kapell_run_duration_seconds");
    for (workflow, of) in &all {
        text.seconds(&[("workflow", workflow)], &of.run_duration);
    }
}

/// Of all channels together: their names may be addresses, which may be secrets.
fn notices(service: &Service, text: &mut Text) {
    if let Ok((waiting, given_up)) = notify::kept(&*service.store) {
        text.plain("kapell_notices_waiting", count(waiting));
        text.plain("kapell_notices_given_up", count(given_up));
    }
    let read = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let notices = &service.notices;
    text.plain("kapell_notices_delivered_total", read(&notices.delivered));
    text.plain("kapell_notices_failed_total", read(&notices.failed));
}

fn runs(service: &Service, text: &mut Text) {
    let Ok(counts) = service.store.run_counts(NAMESPACE) else {
        return;
    };
    text.family("kapell_runs");
    let mut names: Vec<&str> = counts.iter().map(|(workflow, ..)| &**workflow).collect();
    names.dedup();
    let last = names.get(WORKFLOWS).copied();
    let mut others = vec![0; RunStatus::ALL.len()];
    for (workflow, status, runs) in &counts {
        if last.is_none_or(|last| **workflow < *last) {
            let labels = [("workflow", &**workflow), ("status", status.name())];
            text.sample(&labels, count(*runs));
        } else if let Some(place) = RunStatus::ALL.iter().position(|other| other == status) {
            others[place] += runs;
        }
    }
    for (status, runs) in RunStatus::ALL.iter().zip(others) {
        if runs > 0 {
            let labels = [("workflow", OTHERS), ("status", status.name())];
            text.sample(&labels, count(runs));
        }
    }
}

fn store(service: &Service, text: &mut Text) {
    text.family("kapell_store_bytes");
    for (file, label) in [("kapell.db", "database"), ("kapell.db-wal", "log")] {
        let bytes = std::fs::metadata(service.data_dir.join(file)).map_or(0, |about| about.len());
        text.sample(&[("file", label)], count(bytes));
    }
}

/// From the files of the kernel; nothing where there are none.
fn process(text: &mut Text) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    // The name in brackets may hold anything: the fields are counted from behind it.
    let fields: Vec<u64> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let page = rustix::param::page_size() as u64;
    text.plain("process_resident_memory_bytes", count(field(24) * page));
    let ticks = count(rustix::param::clock_ticks_per_second());
    text.plain(
        "process_cpu_seconds_total",
        count(field(14) + field(15)) / ticks,
    );
    let files = std::fs::read_dir(Path::new("/proc/self/fd")).map_or(0, Iterator::count);
    text.plain("process_open_fds", count(files as u64));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn count(number: u64) -> f64 {
    number as f64
}

/// `docs/reference/metrics.md`
pub fn reference_markdown() -> String {
    let mut page = "\
# Metrics

<!-- Written by `make docs` from crates/server/src/metrics.rs. -->

A server answers `/metrics` in the text format of Prometheus, unless `metrics.enabled` is false. Counters begin
at zero with the process; what is kept over a restart is a gauge. Histograms end in `_bucket`, `_sum` and `_count`.

Of several nodes each says what its own runs, queues and workers are: sums over all nodes are the cluster's. Only
`kapell_runs` and `kapell_notices_*` that are gauges are of the store, the same from each node: their maximum is.

| name | kind | labels | what it says |
| --- | --- | --- | --- |
"
    .to_owned();
    for (name, kind, labels, help) in FAMILIES {
        let kind = format!("{kind:?}").to_lowercase();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        page += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    page + "
## What to watch

- More workers are needed: `sum by (queue) (kapell_queue_startable_attempts + kapell_queue_in_flight_attempts)`, by what
  one worker takes. [Pools](../guide/16-pools.md) has it for KEDA and the HPA.
- Work waits: `max by (queue) (kapell_queue_oldest_wait_seconds) > 300`, with the queue's workers.
- Runs fail: `sum by (workflow) (rate(kapell_run_ended_total{status=\"failed\"}[15m])) > 0`.
- Workers are all taken: `sum(kapell_worker_busy_attempts) >= sum(kapell_worker_slots)`.
- The disk is full: `kapell_store_full > 0`.
- People are not told: `kapell_notices_given_up > 0`, or `kapell_notices_waiting` that does not go down.
- Due times are missed: `histogram_quantile(0.99, rate(kapell_schedule_lateness_seconds_bucket[15m])) > 60`.
- The disk is slow: `histogram_quantile(0.99, rate(kapell_commit_duration_seconds_bucket[5m])) > 0.1`.
"
}
