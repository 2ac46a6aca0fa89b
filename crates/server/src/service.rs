//! The service: asks the node, reads the store. Every client's request ends here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kapell_api::client::{Api, Result};
use kapell_api::http::{
    Action, Health, LogPage, LogQuery, RegisterWorkflow, Registered, RunPage, RunQuery, RunSummary,
    RunView, StartRun, Started, Version, VersionPage, WorkflowPage, WorkflowSummary,
};
use kapell_api::record::Record;
use kapell_api::task::Blobs;
use kapell_engine::record::Fold;
use kapell_engine::{Request, event};
use kapell_expr::{BlobRef, Value};
use kapell_model::{Error, ErrorCode, RunId, RunStatus, Time, limits};
use kapell_node::drive::Node;
use kapell_node::perform::{self, Plans};
use kapell_node::{Answer, ClientRequest, Entity, clock};
use kapell_store::{RunFilter, RunRow, Store, VersionRow};
use parking_lot::{Condvar, Mutex};

use crate::register::{self, NAMESPACE};
use crate::rows::{self, failure};
use crate::{logs, rows::summary};

/// Characters of the end of an id that name a run.
const SUFFIX: usize = 4;

/// Chunks of history read at a time.
const CHUNKS: usize = 64;

/// Answers clients.
pub struct Service {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    logs: PathBuf,
    /// None: nobody decides; runs are only looked at.
    node: Option<Node>,
    working: bool,
    changes: Arc<Changes>,
}

/// Counts changes of rows, so that whoever waits for one misses none.
#[derive(Default)]
struct Changes {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Service {
    /// A service over a store, with a node that decides if there is one. `working`: it starts work.
    pub fn new(
        data_dir: &Path,
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        node: Option<Node>,
        working: bool,
    ) -> Self {
        let changes = Arc::new(Changes::default());
        if let Some(node) = &node {
            let changes = Arc::clone(&changes);
            node.watch(Box::new(move |_| {
                *changes.count.lock() += 1;
                changes.changed.notify_all();
            }));
        }
        Self {
            store,
            blobs,
            logs: data_dir.join("logs"),
            node,
            working,
            changes,
        }
    }

    fn ask(&self, request: ClientRequest) -> Result<Answer> {
        match &self.node {
            Some(node) => node.ask_and_wait(request),
            None => Err(Error::new(
                ErrorCode::Internal,
                "the store is open for reading alone",
            )),
        }
    }

    fn row(&self, run: RunId) -> Result<RunRow> {
        self.store
            .run(run)
            .map_err(failure)?
            .ok_or_else(|| no_run(&run.to_string()))
    }

    /// A view without a node: the run as its history says.
    fn view_at_rest(&self, row: &RunRow) -> Result<kapell_engine::run::view::RunView> {
        let found = perform::load(&*self.store, &mut Plans::default(), &row.id.into(), None);
        match found.map_err(failure)?.1.map(|found| found.entity) {
            Some(Entity::Run(run)) => Ok(run.view(clock::now())),
            _ => Err(no_run(&row.id.to_string())),
        }
    }

    fn filter(query: &RunQuery) -> Result<RunFilter> {
        let statuses = query
            .status
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let statuses = statuses
            .map(|name| {
                RunStatus::ALL
                    .into_iter()
                    .find(|status| status.name() == name.replace(['-', ' '], "_"))
                    .ok_or_else(|| {
                        let known: Vec<&str> =
                            RunStatus::ALL.iter().map(|status| status.name()).collect();
                        Error::new(
                            ErrorCode::BadRequest,
                            format!("`{name}` is no status of a run"),
                        )
                        .hint(format!("one of {}", known.join(", ")))
                    })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(RunFilter {
            namespace: Some(NAMESPACE.into()),
            workflow: query.workflow.as_deref().map(Into::into),
            statuses,
            parent: query.parent,
            since: query.since,
            before: query.before,
        })
    }

    fn last(&self) -> Result<RunId> {
        let filter = RunFilter {
            namespace: Some(NAMESPACE.into()),
            ..RunFilter::default()
        };
        let rows = self
            .store
            .list_runs(&filter, limits::LIST_PAGE)
            .map_err(failure)?;
        let top = rows
            .iter()
            .find(|row| row.parent.is_none())
            .or(rows.first());
        top.map(|row| row.id).ok_or_else(|| {
            Error::new(ErrorCode::RunNotFound, "there are no runs yet")
                .hint("`kapell run FILE` makes one")
        })
    }
}

fn no_run(name: &str) -> Error {
    Error::new(ErrorCode::RunNotFound, format!("there is no run `{name}`"))
        .hint("`kapell list` lists runs")
}

fn no_version(workflow: &str, version: Option<u32>) -> Error {
    let what = match version {
        Some(version) => format!("there is no version {version} of workflow `{workflow}`"),
        None => format!("there is no workflow `{workflow}`"),
    };
    Error::new(ErrorCode::WorkflowNotFound, what).hint("`kapell run FILE` registers a file")
}

fn stored(error: &std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
        _ => ErrorCode::StoreUnavailable,
    };
    Error::new(code, format!("a file cannot be kept: {error}"))
}

fn version(row: &VersionRow, source: String) -> Version {
    Version {
        workflow: row.workflow.to_string(),
        version: row.version,
        hash: row.hash.to_string(),
        created_at: row.created_at,
        source,
    }
}

fn page(limit: usize) -> usize {
    if limit == 0 {
        100
    } else {
        limit.min(limits::LIST_PAGE)
    }
}

impl Api for Service {
    fn health(&self) -> Result<Health> {
        Ok(Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            working: self.working,
        })
    }

    fn put(&self, bytes: &[u8]) -> Result<BlobRef> {
        self.blobs.put(bytes).map_err(|error| stored(&error))
    }

    fn put_file(&self, path: &Path) -> Result<BlobRef> {
        self.blobs.put_file(path).map_err(|error| stored(&error))
    }

    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered> {
        let row = register::row(workflow, clock::now())?;
        let number = self.store.register(&row).map_err(failure)?;
        if let Some(node) = &self.node {
            node.versions_changed();
        }
        Ok(Registered {
            workflow: row.workflow.to_string(),
            version: number,
        })
    }

    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage> {
        let limit = page(limit);
        let mut found = self
            .store
            .list_workflows(NAMESPACE, after, limit + 1)
            .map_err(failure)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let mut counts: BTreeMap<Arc<str>, BTreeMap<String, u64>> = BTreeMap::new();
        for (workflow, status, count) in self.store.run_counts(NAMESPACE).map_err(failure)? {
            counts
                .entry(workflow)
                .or_default()
                .insert(status.name().to_owned(), count);
        }
        let next = found.last().filter(|_| more);
        let next = next.map(|(name, _)| name.to_string());
        let workflows = found
            .into_iter()
            .map(|(name, version)| WorkflowSummary {
                runs: counts.remove(&name).unwrap_or_default(),
                name: name.to_string(),
                version,
            })
            .collect();
        Ok(WorkflowPage { workflows, next })
    }

    fn version(&self, workflow: &str, number: Option<u32>) -> Result<Version> {
        let row = self
            .store
            .version(NAMESPACE, workflow, number)
            .map_err(failure)?;
        let row = row.ok_or_else(|| no_version(workflow, number))?;
        Ok(version(&row, row.source.to_string()))
    }

    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage> {
        let newest = match before {
            Some(before) => before.saturating_sub(1),
            None => self.version(workflow, None)?.version,
        };
        let mut found = VersionPage::default();
        for number in (1..=newest).rev() {
            if found.versions.len() == page(limit) {
                found.next = Some(number + 1);
                break;
            }
            if let Some(row) = self
                .store
                .version(NAMESPACE, workflow, Some(number))
                .map_err(failure)?
            {
                found.versions.push(version(&row, String::new()));
            }
        }
        Ok(found)
    }

    fn start(&self, start: &StartRun) -> Result<Started> {
        let request = kapell_node::StartRun {
            namespace: NAMESPACE.into(),
            workflow: start.workflow.as_str().into(),
            version: start.version,
            params: some_map(&start.params),
            text: start.text,
            by: start.by.clone(),
            scheduled_at: None,
            priority: start.priority,
            idempotency_key: start.idempotency_key.clone(),
        };
        match self.ask(ClientRequest::Start(Box::new(request)))? {
            Answer::Started(run) => Ok(Started { run }),
            _ => Err(unexpected()),
        }
    }

    fn find(&self, name: &str) -> Result<RunId> {
        if name == "last" {
            return self.last();
        }
        if name.len() < SUFFIX {
            return Err(Error::new(
                ErrorCode::BadRequest,
                format!("`{name}` is too short to name a run"),
            )
            .hint("the last 4 characters of its id or more, the whole id, or `last`"));
        }
        let found = self.store.find_runs(name, 2).map_err(failure)?;
        match found.as_slice() {
            [] => Err(no_run(name)),
            [run] => Ok(*run),
            _ => Err(Error::new(
                ErrorCode::BadRequest,
                format!("several runs end in `{name}`"),
            )
            .hint("give more characters of the id")),
        }
    }

    fn list(&self, query: &RunQuery) -> Result<RunPage> {
        let limit = page(query.limit);
        // One more than is shown tells whether there is more.
        let mut rows = self
            .store
            .list_runs(&Self::filter(query)?, limit + 1)
            .map_err(failure)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        Ok(RunPage {
            runs: rows.into_iter().map(summary).collect(),
            next,
        })
    }

    fn view(&self, run: RunId) -> Result<RunView> {
        let row = self.row(run)?;
        let view = if self.node.is_some() {
            match self.ask(ClientRequest::View { run })? {
                Answer::View(view) => *view,
                _ => return Err(unexpected()),
            }
        } else {
            self.view_at_rest(&row)?
        };
        Ok(rows::view(row, view))
    }

    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary> {
        let end = Time(
            clock::now()
                .0
                .saturating_add(i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)),
        );
        let first = self.row(run)?;
        let mut row = first.clone();
        loop {
            let seen = *self.changes.count.lock();
            let left = u64::try_from(end.0 - clock::now().0).unwrap_or(0);
            if row.status.ended() || row.status != first.status || left == 0 || self.node.is_none()
            {
                return Ok(summary(row));
            }
            row = self.row(run)?;
            if row.status.ended() || row.status != first.status {
                continue;
            }
            let mut count = self.changes.count.lock();
            if *count == seen {
                self.changes
                    .changed
                    .wait_for(&mut count, Duration::from_micros(left));
            }
            drop(count);
            row = self.row(run)?;
        }
    }

    fn record(&self, run: RunId, at: Option<Time>) -> Result<Record> {
        let row = self.row(run)?;
        let version = self
            .store
            .version(&row.namespace, &row.workflow, Some(row.version))
            .map_err(failure)?;
        let version = version.ok_or_else(|| no_version(&row.workflow, Some(row.version)))?;
        let plan = perform::Version::read(&version).map_err(failure)?.plan;
        let mut fold = Fold::new(&plan, at);
        let mut from = 1;
        loop {
            let chunks = self
                .store
                .history(&run.into(), from, CHUNKS)
                .map_err(failure)?;
            let Some((last, _)) = chunks.last() else {
                break;
            };
            from = last + 1;
            for (seq, chunk) in &chunks {
                let events = event::decode_chunk(chunk).map_err(|error| {
                    Error::new(
                        ErrorCode::StoreCorrupt,
                        format!("chunk {seq} of run {run}: {error}"),
                    )
                })?;
                for event in &events {
                    fold.take(event);
                }
            }
            if fold.is_over() {
                break;
            }
        }
        Ok(fold.finish())
    }

    fn logs(&self, run: RunId, query: &LogQuery) -> Result<LogPage> {
        self.row(run)?;
        logs::read(&self.logs, run, query)
    }

    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>> {
        let request = match action.clone() {
            Action::Cancel { by, reason, now } => Request::Cancel { by, reason, now },
            Action::Pause { by } => Request::Pause { by },
            Action::Resume { by } => Request::Resume { by },
            Action::Retry { by } => Request::Retry { by },
            Action::Restart { by, from } => Request::Restart { by, from },
            Action::Skip { by, step } => Request::Skip { by, step },
            Action::SetOutput { by, step, output } => Request::SetOutput { by, step, output },
            Action::Priority { by, priority } => Request::Priority { by, priority },
            Action::Dismiss => return self.ask(ClientRequest::Dismiss { run }).map(|_| None),
            Action::Fork {
                by,
                from,
                params,
                text,
                version,
            } => {
                let params = some_map(&params);
                let fork = ClientRequest::Fork {
                    run,
                    from,
                    params,
                    text,
                    version,
                    by,
                };
                return match self.ask(fork)? {
                    Answer::Started(run) => Ok(Some(run)),
                    _ => Err(unexpected()),
                };
            }
        };
        self.ask(ClientRequest::Run { run, request }).map(|_| None)
    }
}

fn some_map(params: &Value) -> Value {
    if params.is_null() {
        Value::map([] as [(&str, Value); 0])
    } else {
        params.clone()
    }
}

fn unexpected() -> Error {
    Error::new(
        ErrorCode::Internal,
        "the node gave an answer to another question",
    )
}
