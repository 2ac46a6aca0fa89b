//! The service: asks the node, reads the store. Every client's request ends here. What it answers is in
//! a file a noun.

mod all_workflows;
mod approval;
mod artifact;
mod backfill;
mod blob;
mod bulk;
mod channel;
mod debug;
mod deploy;
mod health;
mod lock;
mod log;
mod node;
pub(crate) mod queue;
mod run;
mod secret;
mod signal;
mod token;
mod trigger;
mod waits;
mod worker;
mod workflow;
mod workflow_settings;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use kapell_api::client::Result;
use kapell_api::task::Blobs;
use kapell_engine::{Ask, SmallInput};
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Time, limits};
use kapell_node::drive::Node;
use kapell_node::perform::{self, Plans};
use kapell_node::{Answer, ClientRequest, Entity, clock};
use kapell_store::{Order, RunRow, Store};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, oneshot};

use crate::auth::{Audit, Tokens, carried};
use crate::feed::Feed;
use crate::hooks::{Hooks, SecretSource};
use crate::logs::RunLogs;
use crate::metrics::Requests;
use crate::notify::{self, Senders};
use crate::peers::Nodes;
use crate::rows::failure;
use crate::traces::Counts;
use crate::workers::Workers;
use crate::{Options, Secrets};

/// Answers clients.
pub struct Service {
    pub(crate) store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    logs: RunLogs,
    /// None: nobody decides; runs are only looked at.
    pub(crate) node: Option<Node>,
    working: bool,
    pub(crate) feed: Arc<Feed>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) audit: Audit,
    hooks: Hooks,
    /// One backup is made at a time.
    pub(crate) backing_up: Mutex<()>,
    stopping: AtomicBool,
    /// Set where work is done.
    workers: OnceLock<Arc<Workers>>,
    /// Set where other nodes share the store.
    nodes: OnceLock<Arc<Nodes>>,
    /// The first address that is listened on.
    address: OnceLock<String>,
    opened_at: Time,
    secrets: Arc<Secrets>,
    /// Held while what is in force changes: numbers of versions and what holds for all workflows are looked
    /// up first.
    definitions: Mutex<()>,
    /// Set where it is known where notices go.
    senders: OnceLock<Senders>,
    pub(crate) notices: Arc<notify::Counts>,
    pub(crate) options: Options,
    pub(crate) data_dir: PathBuf,
    pub(crate) requests: Requests,
    /// Files on their way to clients.
    contents: Arc<Semaphore>,
    /// Spans that were sent, if any are.
    pub(crate) traces: Option<Arc<Counts>>,
}

impl Service {
    /// A service over a store, with a node that decides if there is one. `working`: it starts work.
    pub fn new(
        data_dir: &Path,
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        node: Option<Node>,
        working: bool,
        secrets: Arc<Secrets>,
        options: &Options,
    ) -> Self {
        // Two lives of a process do not begin in one microsecond.
        let feed = Arc::new(Feed::new(clock::now().0.unsigned_abs()));
        if let Some(node) = &node {
            let feed = Arc::clone(&feed);
            node.watch_commits(Box::new(move |commit| feed.take(commit)));
        }
        Self {
            tokens: Arc::new(Tokens::new(Arc::clone(&store), options.node.is_some())),
            audit: Audit::new(Arc::clone(&store)),
            hooks: Hooks::new(Arc::clone(&store), Arc::clone(&secrets)),
            backing_up: Mutex::default(),
            stopping: AtomicBool::new(false),
            store,
            blobs,
            logs: RunLogs::new(data_dir.join("logs"), None),
            node,
            working,
            workers: OnceLock::new(),
            nodes: OnceLock::new(),
            address: OnceLock::new(),
            opened_at: clock::now(),
            secrets,
            definitions: Mutex::new(()),
            senders: OnceLock::new(),
            notices: Arc::default(),
            traces: options.traces.as_ref().map(|_| Arc::default()),
            options: options.clone(),
            data_dir: data_dir.to_owned(),
            requests: Requests::default(),
            contents: Arc::new(Semaphore::new(limits::CONTENTS)),
            feed,
        }
    }

    /// The same reading these logs instead of files of the data directory alone.
    pub(crate) fn reading(self, logs: RunLogs) -> Self {
        Self { logs, ..self }
    }

    /// Whether requests are taken.
    pub(crate) fn ready(&self) -> Result<()> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(
                Error::new(ErrorCode::StoreUnavailable, "the server is ending")
                    .hint("ask again after its restart"),
            );
        }
        if self.node.as_ref().is_some_and(Node::store_is_full) {
            return Err(Error::new(ErrorCode::DiskFull, "the disk is full")
                .hint("make room: what is under way goes on by itself then"));
        }
        self.store
            .next_wake(Time::ZERO)
            .map_err(failure)
            .map(|_| ())
    }

    /// True if what is in memory can be looked at. While the disk is full nobody is asked; what is stored
    /// says the same then.
    fn has_memory(&self) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|node| !node.store_is_full())
    }

    /// From now on the service is not ready any more and makes no runs for clients; all else goes on.
    pub(crate) fn begin_end(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whoever waits for changes is let go.
    pub(crate) fn stop(&self) {
        self.begin_end();
        self.feed.close();
    }

    /// Whether runs are made.
    fn takes_starts(&self) -> Result<()> {
        if !self.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::StoreUnavailable,
            "the process that does the work is ending: it makes no new runs",
        )
        .hint("ask again after its restart"))
    }

    /// The workers, where work is done.
    pub(crate) fn workers(&self) -> Option<Arc<Workers>> {
        self.workers.get().cloned()
    }

    /// The workers that it is asked about.
    pub(crate) fn set_workers(&self, workers: Arc<Workers>) {
        // Set once, where everything is put together.
        let _ = self.workers.set(workers);
    }

    /// The other nodes, where there may be some.
    pub(crate) fn nodes(&self) -> Option<&Arc<Nodes>> {
        self.nodes.get()
    }

    /// The other nodes: before anybody is answered.
    pub fn set_nodes(self: &Arc<Self>, nodes: Arc<Nodes>) {
        nodes.follow_for(&self.feed);
        let service = Arc::downgrade(self);
        nodes.answer_with(Box::new(move |question| {
            let service = service.upgrade().ok_or_else(no_answer)?;
            service.answer_question(&question)
        }));
        // Set once, where everything is put together.
        let _ = self.nodes.set(nodes);
    }

    /// It is reached there.
    pub(crate) fn set_address(&self, address: String) {
        // The first one counts.
        let _ = self.address.set(address);
    }

    /// Where notices go.
    pub(crate) fn know_channels(&self, senders: Senders) {
        // Set once, where everything is put together.
        let _ = self.senders.set(senders);
    }

    /// Asks the node and waits for its answer.
    fn ask(&self, request: ClientRequest) -> Result<Answer> {
        self.node()?.ask_and_wait(request)
    }

    /// Says what goes before the kept secrets for those of webhooks.
    pub fn resolve_secrets(&self, secret: SecretSource) {
        self.hooks.resolve_secrets(secret);
    }

    /// What an entity that is no run answers to whoever looks. Without a node it is as it is stored.
    fn look(&self, key: EntityKey, ask: Ask) -> Result<Value> {
        if self.has_memory() {
            return self.ask_small(key, ask);
        }
        let found = perform::load(&*self.store, &mut Plans::default(), &key);
        let found = found.map_err(failure)?.map(|found| found.entity);
        let Some(mut entity) = found.or_else(|| Entity::fresh(&key)) else {
            return Err(unexpected());
        };
        let small = entity.small_mut().ok_or_else(unexpected)?;
        let decided = small.decide(&key, SmallInput::Ask(ask), clock::now())?;
        Ok(decided.answer)
    }

    /// Asks an entity that is no run.
    fn ask_small(&self, key: EntityKey, ask: Ask) -> Result<Value> {
        match self.ask(ClientRequest::Ask { key, ask })? {
            Answer::Value(value) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    /// The same without a thread that waits.
    async fn ask_small_soon(&self, key: EntityKey, ask: Ask) -> Result<Value> {
        match self.ask_soon(ClientRequest::Ask { key, ask }).await? {
            Answer::Value(value) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    /// The document of an entity that is no run.
    fn document(&self, key: &EntityKey) -> Result<Option<String>> {
        let key = key.to_bytes();
        let found = self.store.documents(&key, None, Order::Forward, 1);
        let found = found.map_err(failure)?.into_iter().next();
        Ok(found
            .filter(|(found, _)| *found == key)
            .map(|(_, text)| text))
    }

    /// The same without a thread that waits.
    async fn ask_soon(&self, request: ClientRequest) -> Result<Answer> {
        answered(self.ask_now(request)?).await
    }

    /// The same, asked for at once: answers come in the order of what was asked.
    fn ask_now(&self, request: ClientRequest) -> Result<oneshot::Receiver<Result<Answer>>> {
        let (send, receive) = oneshot::channel();
        self.node()?.ask(
            request,
            Box::new(move |answer| {
                // Whoever asked may have gone.
                let _ = send.send(answer);
            }),
        );
        Ok(receive)
    }

    fn node(&self) -> Result<&Node> {
        self.node
            .as_ref()
            .ok_or_else(|| Error::new(ErrorCode::Internal, "the store is open for reading alone"))
    }

    fn row(&self, run: RunId) -> Result<RunRow> {
        self.store
            .run(run)
            .map_err(failure)?
            .ok_or_else(|| no_run(&run.to_string()))
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

fn page(limit: usize) -> usize {
    if limit == 0 {
        100
    } else {
        limit.min(limits::LIST_PAGE)
    }
}

/// What stands in a document, or in what an entity answered.
fn read<T: DeserializeOwned>(what: &str, json: serde_json::Result<T>) -> Result<T> {
    json.map_err(|error| Error::new(ErrorCode::StoreCorrupt, format!("{what}: {error}")))
}

fn unexpected() -> Error {
    Error::new(
        ErrorCode::Internal,
        "the node gave an answer to another question",
    )
}

/// What the node answers, unless it stops before it does.
async fn answered(answer: oneshot::Receiver<Result<Answer>>) -> Result<Answer> {
    answer.await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> Error {
    Error::new(
        ErrorCode::StoreUnavailable,
        "the node has stopped before it answered",
    )
    .hint("ask again after its restart: what it did is kept")
}

/// Does what blocks away from the threads that serve.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(carried(work))
        .await
        .unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string())))
}
