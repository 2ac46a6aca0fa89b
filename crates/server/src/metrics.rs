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

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kapell_api::http::Scope;
use kapell_model::{Error, ErrorCode, RunStatus};
use kapell_node::clock;
use kapell_node::metrics::ATTEMPT_ENDS;

use crate::auth::Caller;
use crate::{NAMESPACE, Service, http};

pub(crate) use requests::{Requests, measured};
use text::Text;

/// The media type of the page.
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Workflows whose runs are told apart; those of more are counted together as `(others)`.
const WORKFLOWS: usize = 500;

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
            "Attempts that could start and wait for a worker.",
        ),
        (
            "kapell_queue_oldest_wait_seconds",
            Gauge,
            &["queue"],
            "How long the first of them waits.",
        ),
        (
            "kapell_worker_slots",
            Gauge,
            &[],
            "Attempts that the workers take at a time; 0 if nothing works here.",
        ),
        (
            "kapell_worker_busy_attempts",
            Gauge,
            &[],
            "Attempts that are handed out.",
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
            &["outcome"],
            "Attempts that ended, by how.",
        ),
        (
            "kapell_attempt_duration_seconds",
            Histogram,
            &[],
            "From the start of an attempt to its end.",
        ),
        (
            "kapell_run_created_total",
            Counter,
            &["trigger"],
            "Runs that were made, by what made them.",
        ),
        (
            "kapell_run_ended_total",
            Counter,
            &["status"],
            "Ends of runs, by how.",
        ),
        (
            "kapell_run_duration_seconds",
            Histogram,
            &[],
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

fn node(service: &Service, text: &mut Text) {
    text.plain("kapell_worker_slots", count(service.options.slots as u64));
    let Some(node) = &service.node else {
        return;
    };
    if let Some(measured) = node.measure() {
        text.family("kapell_queue_waiting_attempts");
        for (queue, waiting, _) in &measured.queues {
            text.sample(&[("queue", queue)], count(*waiting));
        }
        text.family("kapell_queue_oldest_wait_seconds");
        for (queue, _, since) in &measured.queues {
            let waits = since.map_or(0.0, |since| clock::now().since(since).as_secs_f64());
            text.sample(&[("queue", queue)], waits.max(0.0));
        }
        text.plain("kapell_worker_busy_attempts", count(measured.in_flight));
        text.plain("kapell_node_entities", count(measured.entities));
    }
    let metrics = node.metrics();
    let read = |counter: &std::sync::atomic::AtomicU64| count(counter.load(Ordering::Relaxed));
    text.plain("kapell_attempt_offered_total", read(&metrics.offers));
    text.family("kapell_attempt_ended_total");
    for (outcome, ended) in ATTEMPT_ENDS.iter().zip(&metrics.attempts) {
        text.sample(&[("outcome", outcome)], read(ended));
    }
    text.family("kapell_attempt_duration_seconds");
    text.seconds(&[], &metrics.attempt_duration);
    text.family("kapell_run_created_total");
    for (trigger, made) in metrics.made() {
        text.sample(&[("trigger", &trigger)], count(made));
    }
    text.family("kapell_run_ended_total");
    for (status, ended) in RunStatus::ALL.iter().zip(&metrics.run_ends) {
        if status.ended() {
            text.sample(&[("status", status.name())], read(ended));
        }
    }
    text.family("kapell_run_duration_seconds");
    text.seconds(&[], &metrics.run_duration);
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
    text.plain("kapell_node_requests_total", read(&metrics.requests));
    text.plain("kapell_node_waiting_requests", count(node.waiting() as u64));
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
            let labels = [("workflow", "(others)"), ("status", status.name())];
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

- Work waits: `max by (queue) (kapell_queue_oldest_wait_seconds) > 300`, with the queue's workers.
- Runs fail: `rate(kapell_run_ended_total{status=\"failed\"}[15m]) > 0`.
- Due times are missed: `histogram_quantile(0.99, rate(kapell_schedule_lateness_seconds_bucket[15m])) > 60`.
- The disk is slow: `histogram_quantile(0.99, rate(kapell_commit_duration_seconds_bucket[5m])) > 0.1`.
"
}
