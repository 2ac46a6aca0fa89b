//! Server-sent events: changes of runs as they are committed.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use futures_util::{Stream, StreamExt as _};
use kapell_api::client::{DeployCalls, RunCalls};
use kapell_api::http::{EventQuery, Resync, RunQuery, StepChanges};
use kapell_model::{Error, RunId, RunStatus, limits};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::Failure;
use crate::Service;
use crate::auth::Caller;
use crate::feed::{Change, Missed, Rows};
use crate::rows::summary;
use crate::service::aside;

/// Between two signs of life. A client that has gone is noticed then.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Between two looks at one run, however often it changes.
const GATHER: Duration = Duration::from_millis(50);

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(follow_runs))
        .routes(routes!(follow_workflow))
        .routes(routes!(follow_run))
}

type Stream_ = Sse<axum::response::sse::KeepAliveStream<stream::BoxStream<'static, Sent>>>;
type Follower = Option<Extension<Caller>>;
type Sent = Result<Event, Infallible>;

/// Between two looks whether whoever follows still may.
const LOOK: Duration = Duration::from_secs(5);

fn sent(events: impl Stream<Item = Sent> + Send + 'static, caller: Follower) -> Stream_ {
    let following = (events.boxed(), caller.map(|Extension(caller)| caller));
    let events = stream::unfold(following, async |(mut events, caller)| {
        loop {
            let may = || caller.as_ref().is_none_or(Caller::still_may);
            tokio::select! {
                event = events.next() => {
                    let event = event.filter(|_| may())?;
                    return Some((event, (events, caller)));
                }
                () = tokio::time::sleep(LOOK) => {
                    if !may() {
                        return None;
                    }
                }
            }
        }
    });
    Sse::new(events.boxed()).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

/// What a client says it saw last.
fn last(headers: &HeaderMap, query: EventQuery) -> Option<String> {
    let header = headers.get("last-event-id");
    let header = header.and_then(|id| id.to_str().ok()).map(str::to_owned);
    header.or(query.last_event_id).filter(|id| !id.is_empty())
}

/// Follow all runs
///
/// An event `run` with a `RunSummary` for each change of a run's row. With `Last-Event-ID` the stream goes on
/// after that event; if it is too long ago an event `resync` says so, and the rows of runs that have not
/// ended follow.
#[utoipa::path(
    get, path = "/events", tag = "events", security(("token" = ["read"])),
    params(EventQuery),
    responses((status = 200, description = "A stream without an end", content_type = "text/event-stream"))
)]
async fn follow_runs(
    State(service): Shared,
    caller: Follower,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Stream_, Failure> {
    let rows = service.feed.rows(None, last(&headers, query).as_deref())?;
    Ok(sent(rows_stream(service, None, rows), caller))
}

/// Follow the runs of a workflow
///
/// As for all runs.
#[utoipa::path(
    get, path = "/workflows/{workflow}/events", tag = "events", security(("token" = ["read"])),
    params(("workflow" = String, Path, description = "Its name"), EventQuery),
    responses((status = 200, description = "A stream without an end", content_type = "text/event-stream"))
)]
async fn follow_workflow(
    State(service): Shared,
    caller: Follower,
    Path(workflow): Path<String>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Stream_, Failure> {
    let after = last(&headers, query);
    // One that is not there is refused; of one that was deleted runs may still go on.
    let (known, name) = (Arc::clone(&service), workflow.clone());
    aside(move || known.workflow(&name)).await?;
    let rows = service.feed.rows(Some(&workflow), after.as_deref())?;
    Ok(sent(rows_stream(service, Some(workflow), rows), caller))
}

/// Follow a run
///
/// An event `run` with a `RunSummary` and one `steps` with all steps first, so that nothing is missed whenever
/// the stream begins; then, with each change, the row if it changed and the steps that changed. The first
/// change comes at once, those within 50 ms after it together.
#[utoipa::path(
    get, path = "/runs/{run}/events", tag = "events", security(("token" = ["read"])),
    params(("run" = String, Path, description = "Its id, the last 4 or more characters of it, or `last`")),
    responses((status = 200, description = "A stream without an end", content_type = "text/event-stream"))
)]
async fn follow_run(
    State(service): Shared,
    caller: Follower,
    Path(run): Path<String>,
) -> Result<Stream_, Failure> {
    let place = service.feed.place()?;
    let run = super::run::found(&service, run).await?;
    // One that is not there is refused, and followed by nobody.
    service.view_soon(run).await?;
    let following = RunStream {
        changes: service.feed.run(run),
        closing: service.feed.closing(),
        service,
        run,
        known: BTreeMap::new(),
        row: 0,
        begun: false,
        looked_at: Instant::now(),
        number: 0,
        waiting: VecDeque::new(),
        _place: place,
    };
    let events = stream::unfold(following, async |mut following| {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(sent(events, caller))
}

fn event(kind: &str, id: Option<String>, data: &impl Serialize) -> Event {
    let event = Event::default().event(kind);
    let event = match id {
        Some(id) => event.id(id),
        None => event,
    };
    // JSON text never has a line end in it.
    event.data(serde_json::to_string(data).unwrap_or_default())
}

/// Rows of a workflow, or all.
struct RowStream {
    service: Arc<Service>,
    workflow: Option<String>,
    rows: Rows,
    closing: watch::Receiver<bool>,
    waiting: VecDeque<Event>,
    last: u64,
    /// The page of unfinished runs that comes next, while they are told.
    unfinished: Option<RunQuery>,
}

fn rows_stream(
    service: Arc<Service>,
    workflow: Option<String>,
    mut rows: Rows,
) -> impl Stream<Item = Sent> + Send + 'static {
    let missed = std::mem::replace(&mut rows.missed, Missed::Changes(Vec::new()));
    let stream = RowStream {
        closing: service.feed.closing(),
        last: rows.last,
        service,
        workflow,
        rows,
        waiting: VecDeque::new(),
        unfinished: None,
    };
    stream::unfold((stream, Some(missed)), async |(mut stream, missed)| {
        if let Some(missed) = missed {
            let last = stream.last;
            stream.catch_up(missed);
            stream.last = last.max(stream.last);
        }
        let event = stream.next().await?;
        Some((Ok(event), (stream, None)))
    })
}

impl RowStream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if let Some(query) = self.unfinished.take() {
                self.page(query).await;
                continue;
            }
            let received = tokio::select! {
                _ = self.closing.wait_for(|closing| *closing) => return None,
                received = self.rows.changes.recv() => received,
            };
            match received {
                // What was caught up with comes again.
                Ok(change) if change.number <= self.last => {}
                Ok(change) => self.push(&change),
                Err(RecvError::Lagged(_)) => {
                    let missed = self.service.feed.after(self.last, self.workflow.as_deref());
                    self.catch_up(missed);
                }
                // Some changes of other nodes are not known.
                Err(RecvError::Closed) => {
                    let workflow = self.workflow.as_deref();
                    self.rows = self.service.feed.rows(workflow, None).ok()?;
                    self.catch_up(Missed::TooMany);
                }
            }
        }
    }

    fn push(&mut self, change: &Change) {
        self.last = change.number;
        let id = self.service.feed.id(change.number);
        let row = summary(kapell_store::RunRow::clone(&change.row));
        self.waiting.push_back(event("run", Some(id), &row));
    }

    /// Sends what was missed, or says that it is not known any more and what there is.
    fn catch_up(&mut self, missed: Missed) {
        if let Missed::Changes(changes) = missed {
            for change in &changes {
                self.push(change);
            }
            return;
        }
        self.last = self.service.feed.count();
        let id = self.service.feed.id(self.last);
        let resync = Resync {
            reason: "events before this one are not kept any more".to_owned(),
        };
        self.waiting.push_back(event("resync", Some(id), &resync));
        let unfinished = RunStatus::ALL.into_iter().filter(|status| !status.ended());
        let names: Vec<&str> = unfinished.map(RunStatus::name).collect();
        let query = RunQuery {
            workflow: self.workflow.clone(),
            status: names.join(","),
            limit: limits::LIST_PAGE,
            ..RunQuery::default()
        };
        self.unfinished = Some(query);
    }

    /// Sends the rows of one page; what changes meanwhile comes after all of them.
    async fn page(&mut self, mut query: RunQuery) {
        let service = Arc::clone(&self.service);
        let asked = query.clone();
        match aside(move || service.list(&asked)).await {
            Ok(page) => {
                let rows = page.runs.iter().map(|row| event("run", None, row));
                self.waiting.extend(rows);
                if page.next.is_some() {
                    query.before = page.next;
                    self.unfinished = Some(query);
                }
            }
            Err(error) => tracing::warn!(%error, "a subscriber does not get the rows of runs"),
        }
    }
}

/// One run with its steps.
struct RunStream {
    service: Arc<Service>,
    run: RunId,
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    /// What each step was when it was sent last, as a hash.
    known: BTreeMap<String, u64>,
    row: u64,
    begun: bool,
    looked_at: Instant,
    number: u64,
    waiting: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

impl RunStream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.begun {
                tokio::select! {
                    _ = self.closing.wait_for(|closing| *closing) => return None,
                    changed = self.changes.changed() => changed.ok()?,
                }
                // The first change is told at once; those that come close behind it together.
                tokio::time::sleep_until(self.looked_at + GATHER).await;
            }
            self.begun = true;
            self.looked_at = Instant::now();
            self.changes.mark_unchanged();
            // A run that was dropped meanwhile has no more to tell.
            self.look().await.ok()?;
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let view = self.service.view_soon(self.run).await?;
        self.number += 1;
        let id = self.service.feed.id(self.number);
        let row = hashed(&view.summary);
        if row != self.row {
            self.row = row;
            self.waiting
                .push_back(event("run", Some(id.clone()), &view.summary));
        }
        let mut changed = StepChanges::default();
        let mut known = BTreeMap::new();
        for step in view.steps {
            let hash = hashed(&step);
            if self.known.remove(&step.path) != Some(hash) {
                changed.steps.push(step.clone());
            }
            known.insert(step.path, hash);
        }
        changed.gone = std::mem::replace(&mut self.known, known)
            .into_keys()
            .collect();
        if !changed.steps.is_empty() || !changed.gone.is_empty() {
            self.waiting.push_back(event("steps", Some(id), &changed));
        }
        Ok(())
    }
}

fn hashed(value: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(value)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}
