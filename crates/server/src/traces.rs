//! Traces by OTLP over HTTP: a run is a trace, each of its attempts a span inside the run's.
//!
//! Start reading at [`Traces::start`]. A run is sent once it has ended, from its committed history; its
//! spans have names that follow from run, step and attempt (`kapell_api::trace`), so nothing has to be
//! remembered, and a run that ended twice gives the same spans again with more of them.
//!
//! - **Crash**: runs that wait to be sent are not sent. Traces are for looking, not for counting.
//! - **Slow or missing collector**: a bounded queue of runs; what does not fit is dropped and counted.
//!   Nobody waits for a trace.

mod otlp;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::client::RunCalls;
use kapell_api::http::RecordQuery;
use kapell_model::RunId;
use kapell_node::drive::Node;

use crate::Service;

/// Runs that wait to be sent.
const WAITING: usize = 10_000;

/// Spans in one request.
const BATCH: usize = 512;

/// How long a span waits for others to go with it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between tries of a request, the last of which is given up.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// A run that has ended, and its error.
type Ended = (RunId, Option<String>);

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesTo {
    /// As `http://localhost:4318`; `/v1/traces` is added unless it is there.
    pub endpoint: String,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// The name of this Kapell.
    pub service_name: String,
}

/// What was sent and what was not.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    stopping: AtomicBool,
}

/// The thread that sends. Dropping it ends it after one more try of what waits.
pub(crate) struct Traces {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Counts {
    /// Spans by what became of them.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [
            ("sent", self.sent.load(Ordering::Relaxed)),
            ("dropped", self.dropped.load(Ordering::Relaxed)),
        ]
    }
}

impl Traces {
    /// Sends the runs of a node as they end. The service is held weakly: it ends before the thread.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(crate) fn start(
        to: TracesTo,
        counts: Arc<Counts>,
        node: &Node,
        service: Weak<Service>,
    ) -> std::io::Result<Self> {
        let (ended, runs): (SyncSender<Ended>, _) = mpsc::sync_channel(WAITING);
        let mut sender = Sender {
            to,
            agent: agent(),
            counts: Arc::clone(&counts),
            spans: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("kapell-traces".to_owned())
            .spawn(move || sender.turn(&runs, &service))?;
        let full = Arc::clone(&counts);
        node.watch(Box::new(move |row| {
            if row.status.ended() && ended.try_send((row.id, row.error.clone())).is_err() {
                full.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }));
        Ok(Self {
            counts,
            thread: Some(thread),
        })
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.counts.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into()
}

struct Sender {
    to: TracesTo,
    agent: ureq::Agent,
    counts: Arc<Counts>,
    spans: Vec<serde_json::Value>,
}

impl Sender {
    fn turn(&mut self, runs: &Receiver<Ended>, service: &Weak<Service>) {
        loop {
            let stopping = self.counts.stopping.load(Ordering::Relaxed);
            let next = match (stopping, runs.try_recv()) {
                (_, Ok(run)) => Ok(run),
                (true, Err(_)) => Err(RecvTimeoutError::Disconnected),
                (false, Err(_)) => runs.recv_timeout(LINGER),
            };
            match next {
                Ok((run, error)) => {
                    let Some(service) = service.upgrade() else {
                        return self.send();
                    };
                    // A run that was dropped meanwhile has nothing to show.
                    if let Ok(record) = service.record(run, &RecordQuery::default()) {
                        self.spans.extend(otlp::spans(&record, error.as_deref()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.send(),
                Err(RecvTimeoutError::Disconnected) => return self.send(),
            }
            if self.spans.len() >= BATCH {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        for spans in spans.chunks(BATCH) {
            let sent = self.send_batch(spans);
            let count = if sent {
                &self.counts.sent
            } else {
                &self.counts.dropped
            };
            count.fetch_add(spans.len() as u64, Ordering::Relaxed);
        }
    }

    fn send_batch(&self, spans: &[serde_json::Value]) -> bool {
        let body = otlp::request(&self.to.service_name, spans).to_string();
        let mut said = String::new();
        for pause in [None].into_iter().chain(PAUSES.map(Some)) {
            if let Some(pause) = pause {
                if self.counts.stopping.load(Ordering::Relaxed) {
                    break;
                }
                // Ended early by whoever stops it.
                std::thread::park_timeout(pause);
            }
            match self.try_batch(&body) {
                Ok(status) if (200..300).contains(&status) => return true,
                Ok(status) => {
                    said = format!("it answered {status}");
                    // What is refused is refused again; what is too much now may go later.
                    if !matches!(status, 408 | 429 | 502..=504) {
                        break;
                    }
                }
                Err(error) => said = error.to_string(),
            }
        }
        tracing::warn!(
            endpoint = self.to.endpoint,
            spans = spans.len(),
            said,
            "traces were not taken"
        );
        false
    }

    fn try_batch(&self, body: &str) -> Result<u16, ureq::Error> {
        let mut address = self.to.endpoint.trim_end_matches('/').to_owned();
        if !address.ends_with("/v1/traces") {
            address.push_str("/v1/traces");
        }
        let mut request = self
            .agent
            .post(&address)
            .header("content-type", "application/json");
        for (name, value) in &self.to.headers {
            request = request.header(name, value);
        }
        Ok(request.send(body)?.status().as_u16())
    }
}
