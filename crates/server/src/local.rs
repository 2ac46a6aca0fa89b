//! Everything in one process: a store, a node, a worker and a socket over one data directory.
//!
//! [`open`] makes what a command needs of it: all of it to work, the node alone to record what
//! somebody wants, or only the store to look. If another process holds the directory, that one is
//! asked over its socket instead.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use kapell_api::client::{self, Api};
use kapell_api::http::SOCKET;
use kapell_model::{Error, ErrorCode, Time};
use kapell_node::clock;
use kapell_node::drive::{self, Node, Prepared, Threads};
use kapell_store::{RunRow, Store};

use crate::logs::RunLogs;
use crate::net::{self, Listener, Served, TlsFiles, Trust};
use crate::rows::failure;
use crate::traces::Traces;
use crate::workers::{Settings, Workers};
use crate::{Options, SecretSource, Secrets, Service, contents, http, notify, stores};

mod among;
mod upkeep;

/// What is wanted of a data directory.
pub enum Want {
    /// Look at what is there.
    Look,
    /// Record what somebody wants; start no work.
    Record,
    /// Do the work, with these workers: all unfinished runs go on.
    Work(Settings),
}

/// A data directory that is open, here or in the process that holds it.
pub enum Opened {
    /// This process holds it.
    Here(Box<Local>),
    /// Another does, and answers.
    Elsewhere {
        /// Asks it.
        client: client::Client,
        /// Its process.
        pid: u32,
    },
}

/// Everything of this process. Dropping it stops it without grace.
pub struct Local {
    service: Arc<Service>,
    threads: Option<Threads>,
    workers: Option<Arc<Workers>>,
    /// The other nodes, and what goes to their workers.
    cluster: Option<among::Others>,
    _upkeep: Option<upkeep::Upkeep>,
    notify: Option<notify::Sender>,
    store: Arc<dyn Store>,
    node: Option<Node>,
    _traces: Option<Traces>,
    socket: Option<Socket>,
    logs: RunLogs,
    /// Listeners at addresses.
    listening: Vec<Served>,
}

/// An address to listen on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Which; port 0 takes any that is free.
    pub address: SocketAddr,
    /// How connections are encrypted.
    pub tls: Tls,
    /// Listens without TLS where others may read along: behind a proxy that speaks it. Such a proxy
    /// stands for anybody, so nobody is let in without a token.
    pub insecure: bool,
    /// Lets nobody in without a token at the loopback either.
    pub require_token: bool,
    /// Requests of one client a second.
    pub request_rate: u32,
}

/// How connections of an address are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Plain,
    /// By TLS with this certificate.
    Files(TlsFiles),
    /// By TLS with a certificate of the data directory's own, for these names too.
    SelfSigned(Vec<String>),
}

/// Requests of one client a second where nothing else is said.
pub const REQUEST_RATE: u32 = 20_000;

/// Threads that handle requests from addresses.
const THREADS: usize = 2;

/// Idle entities leave memory after so long.
const IDLE: Duration = Duration::from_mins(1);

/// How long a holder that has no socket yet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens a data directory. Work that processes before this one left unfinished goes on at once, if
/// that is wanted.
///
/// # Errors
/// Codes `directory-held` (somebody holds it and does not answer), `directory-unusable`,
/// `store-too-new`, `store-corrupt`, `store-unavailable`, `disk-full`.
pub fn open(data_dir: &Path, want: Want, options: &Options) -> Result<Opened, Error> {
    let since = clock::now();
    let store = loop {
        let is_node = options.node.is_some() && matches!(want, Want::Work { .. });
        match stores::open(data_dir, options.store.as_deref(), is_node) {
            Ok(store) => break store,
            Err(kapell_store::Error::Held { pid }) => {
                if let Ok(client) = client::Client::connect(&data_dir.join(SOCKET)) {
                    return Ok(Opened::Elsewhere { client, pid });
                }
                let waited = Duration::try_from(clock::now().since(since)).unwrap_or_default();
                if waited > PATIENCE {
                    return Err(failure(kapell_store::Error::Held { pid }));
                }
                // It is starting or ending: neither tells us when it is done.
                std::thread::park_timeout(PAUSE);
            }
            Err(error) => return Err(stores::refused(error, options.store.as_deref())),
        }
    };
    put_together(data_dir, store, want, options).map(|local| Opened::Here(Box::new(local)))
}

/// The database of a data directory, to see whether there is one.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("kapell.db")
}

/// The same over a store that is open, whose data directory nobody else holds.
///
/// # Errors
/// Codes `directory-unusable`, `store-unavailable`, `disk-full`.
pub fn over(
    data_dir: &Path,
    store: Arc<dyn Store>,
    want: Want,
    options: &Options,
) -> Result<Local, Error> {
    let found = stores::Found {
        store,
        cluster: None,
    };
    put_together(data_dir, found, want, options)
}

fn put_together(
    data_dir: &Path,
    found: stores::Found,
    want: Want,
    options: &Options,
) -> Result<Local, Error> {
    let mut workers = None;
    let local = assemble((data_dir, found), want, options, &mut workers);
    if local.is_err()
        && let Some(workers) = &workers
    {
        // The worker inside holds them, and they hold it.
        workers.dismiss(Duration::ZERO);
    }
    local
}

fn assemble(
    (data_dir, stores::Found { store, cluster }): (&Path, stores::Found),
    want: Want,
    options: &Options,
    workers: &mut Option<Arc<Workers>>,
) -> Result<Local, Error> {
    let unusable = |error: &std::io::Error| cannot_write(data_dir, error);
    contents::clear(data_dir).map_err(|error| unusable(&error))?;
    let (blobs, kept_blobs) = stores::blobs(data_dir, options)?;
    let logs = stores::logs(data_dir, options)?;
    let secrets = Arc::new(Secrets::new(Arc::clone(&store), options.keys_in(data_dir)));
    let mut others = None;
    let mut open = |prepared: &Prepared, settings: Settings, relaying| {
        let (store, blobs) = (Arc::clone(&store), Arc::clone(&blobs));
        let node = (prepared.node(), relaying);
        let opened = Workers::open(data_dir, node, store, blobs, settings)?;
        opened.write_logs_to(logs.rows());
        *workers = Some(Arc::clone(&opened));
        Ok::<_, Error>(opened)
    };
    let (node, working) = match want {
        Want::Look => (None, false),
        Want::Record => {
            let prepared = Node::prepare();
            let handed_to = open(&prepared, Settings::default(), None)?;
            (
                Some((prepared, handed_to as Arc<dyn drive::Workers>)),
                false,
            )
        }
        Want::Work(workers) => {
            let prepared = Node::prepare();
            let settings = with_kept(workers, &secrets);
            let lease = settings.lease;
            let shared = cluster.zip(options.node.clone()).map(|with| {
                secrets.agree()?;
                among::joins(&prepared, &store, with, lease)
            });
            let shared = shared.transpose()?;
            let relaying = shared.as_ref().map(|shared| Arc::clone(&shared.relaying));
            let workers = open(&prepared, settings, relaying)?;
            let (started, joined) = among::begins(prepared, shared, &workers)?;
            others = joined;
            // The node hears what was lost with the worker before before anything else.
            workers.hire()?;
            (Some(started), true)
        }
    };
    let threads = node.map(|(prepared, handed_to)| {
        let config = kapell_node::Config {
            alone: true,
            seed: seed(),
            idle_micros: i64::try_from(IDLE.as_micros()).unwrap_or(i64::MAX),
            keeps: options.keeps,
            dispatch: options.dispatch.clone(),
        };
        let node = prepared.node();
        let threads = prepared
            .start(config, Arc::clone(&store), Arc::clone(&blobs), handed_to)
            .map_err(|error| no_thread("the node", &error))?;
        Ok::<_, Error>((node, threads))
    });
    let (node, threads) = threads.transpose()?.unzip();
    if let Some(node) = node.as_ref().filter(|_| working) {
        node.watch(Box::new(log_end));
    }
    let upkeep = upkeep::start(
        &store,
        kept_blobs,
        logs.clone(),
        options.retention,
        node.clone().filter(|_| working),
    )?;
    let (kept_store, kept_node) = (Arc::clone(&store), node.clone());
    let service = Service::new(data_dir, store, blobs, node, working, secrets, options);
    let service = Arc::new(service.reading(logs.clone()));
    if let Some(workers) = &*workers {
        service.set_workers(Arc::clone(workers));
    }
    let (nodes, relaying) = others.unzip();
    if let Some(nodes) = &nodes {
        service.set_nodes(Arc::clone(nodes));
    }
    service.finish_telling()?;
    let traces = traces_of(&service, options).map_err(|error| no_thread("traces", &error))?;
    // Who only looks or records is done in a moment: others wait for the directory itself.
    let socket = workers
        .as_ref()
        .filter(|_| working)
        .map(|_| {
            let routes = http::router(Arc::clone(&service), REQUEST_RATE);
            Socket::serve(data_dir, routes).map_err(|error| unusable(&error))
        })
        .transpose()?;
    Ok(Local {
        service,
        threads,
        workers: workers.take(),
        cluster: nodes.zip(relaying),
        socket,
        logs,
        listening: Vec::new(),
        _upkeep: upkeep,
        notify: None,
        store: kept_store,
        node: kept_node,
        _traces: traces,
    })
}

/// Says that a run has ended.
fn log_end(row: &RunRow) {
    if !row.status.ended() {
        return;
    }
    let end = row.ended_at.unwrap_or(row.created_at);
    tracing::info!(
        workflow = %row.workflow,
        run = %row.id,
        status = row.status.name(),
        seconds = end.since(row.created_at).as_secs_f64(),
        error = row.error.as_deref(),
        "a run has ended"
    );
}

pub(crate) fn cannot_write(data_dir: &Path, error: &std::io::Error) -> Error {
    let message = format!(
        "the data directory `{}` cannot be written: {error}",
        data_dir.display()
    );
    if error.kind() == std::io::ErrorKind::StorageFull {
        return Error::new(ErrorCode::DiskFull, message).hint("make room, then try again");
    }
    Error::new(ErrorCode::DirectoryUnusable, message)
}

pub(crate) fn no_thread(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::Internal,
        format!("no thread for {what}: {error}"),
    )
}

/// What is kept is given to workers too, after what this process was given.
fn with_kept(workers: Settings, kept: &Arc<Secrets>) -> Settings {
    let (given, kept) = (workers.secrets, Arc::clone(kept));
    let secrets = move |namespace: &str, name: &str| {
        given(namespace, name).or_else(|| {
            kept.open(namespace, name).unwrap_or_else(|error| {
                tracing::error!(name, %error, "a secret cannot be read");
                None
            })
        })
    };
    Settings {
        secrets: Box::new(secrets),
        ..workers
    }
}

/// Sends traces of runs as they end, where that is wanted and runs end here.
fn traces_of(service: &Arc<Service>, options: &Options) -> std::io::Result<Option<Traces>> {
    match (&options.traces, &service.traces, &service.node) {
        (Some(to), Some(counts), Some(node)) => {
            let (counts, weak) = (Arc::clone(counts), Arc::downgrade(service));
            Traces::start(to.clone(), counts, node, weak).map(Some)
        }
        _ => Ok(None),
    }
}

/// From the system's randomness; from the time and the process where there is none.
fn seed() -> u64 {
    use std::io::Read;
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => clock::now().0.unsigned_abs().rotate_left(20) ^ u64::from(std::process::id()),
    }
}

impl Local {
    /// What decides here; none where somebody only looks.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// What answers.
    pub fn api(&self) -> Arc<dyn Api> {
        Arc::clone(&self.service) as Arc<dyn Api>
    }

    /// Says what goes before the kept secrets for those of webhooks.
    pub fn resolve_secrets(&self, secret: SecretSource) {
        self.service.resolve_secrets(secret);
    }

    /// Listens on an address too, until the end; where that is.
    ///
    /// # Errors
    /// [`ErrorCode::NotPermitted`] for an address that others reach if there is neither TLS nor a word
    /// that it may be without, or no token; [`ErrorCode::BadRequest`] if it cannot be listened on.
    pub fn listen(&mut self, listen: &Listen) -> Result<SocketAddr, Error> {
        let address = listen.address;
        let beyond = !address.ip().is_loopback();
        if beyond && listen.tls == Tls::Plain && !listen.insecure {
            let message = format!("`{address}` can be reached by others, and there is no TLS");
            return Err(Error::new(ErrorCode::NotPermitted, message)
                .hint("`--tls-self-signed`, `--tls-cert` with `--tls-key`, or `--insecure` behind a proxy that speaks TLS"));
        }
        let trust = if beyond || listen.insecure || listen.require_token {
            Trust::Nobody
        } else {
            Trust::Machine
        };
        if trust == Trust::Nobody && !self.service.tokens.any()? {
            let message = if beyond {
                format!("`{address}` can be reached by others, and there is no token")
            } else {
                format!("nobody is let in at `{address}` without a token, and there is none")
            };
            return Err(Error::new(ErrorCode::NotPermitted, message)
                .hint("`kapell token create NAME --scope admin` makes the first"));
        }
        let refused = |error: &std::io::Error| {
            let message = format!("`{address}` cannot be listened on: {error}");
            Error::new(ErrorCode::BadRequest, message)
                .hint("`--listen` names another address; port 0 takes any that is free")
        };
        let files = match &listen.tls {
            Tls::Plain => None,
            Tls::Files(files) => Some(files.clone()),
            Tls::SelfSigned(names) => {
                let data_dir = &self.service.data_dir;
                Some(net::self_signed(data_dir, address, names, clock::now())?)
            }
        };
        let tls = files.as_ref().map(net::acceptor).transpose()?;
        let listener = TcpListener::bind(address).map_err(|error| refused(&error))?;
        let bound = listener.local_addr().map_err(|error| refused(&error))?;
        listener
            .set_nonblocking(true)
            .map_err(|error| refused(&error))?;
        let router = http::router(Arc::clone(&self.service), listen.request_rate);
        let served = Served::start(Listener::Tcp(listener, tls, trust), router, THREADS);
        self.listening
            .push(served.map_err(|error| refused(&error))?);
        let scheme = if listen.tls == Tls::Plain {
            "http"
        } else {
            "https"
        };
        self.service.set_address(format!("{scheme}://{bound}"));
        Ok(bound)
    }

    /// Delivers notices of runs from now on.
    ///
    /// # Errors
    /// Code `internal`: no thread could be started, or nobody decides here.
    pub fn notify(&mut self, senders: notify::Senders) -> Result<(), Error> {
        self.know_channels(senders.clone());
        let failed = |message: String| Error::new(ErrorCode::Internal, message);
        let node = self.node.clone();
        let node = node.ok_or_else(|| failed("there is no node to ask for notices".to_owned()))?;
        let counts = Arc::clone(&self.service.notices);
        let sender = notify::Sender::start(node, Arc::clone(&self.store), senders, counts)
            .map_err(|error| failed(format!("no thread for notices: {error}")))?;
        self.notify = Some(sender);
        Ok(())
    }

    /// Knows where notices go, without delivering any that wait.
    pub fn know_channels(&mut self, senders: notify::Senders) {
        self.service.know_channels(senders);
    }

    /// Stops: nothing more starts, running attempts get `grace` to end, everything that is known is
    /// written.
    pub fn stop(mut self, grace: Duration) {
        self.shut_down(grace);
    }

    fn shut_down(&mut self, grace: Duration) {
        // Until what runs here has ended all connections go on: clients look, workers of other processes
        // report, supervisors see that nothing new is taken.
        self.service.begin_end();
        if let Some(workers) = &self.workers {
            workers.dismiss(grace);
        }
        // It asks the node, which is still there.
        self.notify.take();
        if let Some(workers) = &self.workers {
            workers.close();
        }
        self.service.stop();
        if let Some((_, relaying)) = &self.cluster {
            relaying.stop();
        }
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
        for served in self.listening.drain(..) {
            served.close();
        }
        if let Some((nodes, _)) = self.cluster.take() {
            nodes.stop();
        }
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
        if let Some(rows) = self.logs.rows() {
            rows.close();
        }
        self.service.audit.close();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.shut_down(Duration::ZERO);
    }
}

/// The socket of a data directory, served by a thread of its own.
struct Socket {
    path: PathBuf,
    served: Served,
}

impl Socket {
    fn serve(data_dir: &Path, routes: Router) -> std::io::Result<Self> {
        let path = data_dir.join(SOCKET);
        let listener = Listener::Unix(listen(data_dir, &path)?);
        Ok(Self {
            path,
            served: Served::start(listener, routes, 1)?,
        })
    }

    fn close(self) {
        // Whoever connects from now on meets nobody, and looks whether the directory is free.
        let _ = fs::remove_file(&self.path);
        self.served.close();
    }
}

/// Listens under another name first, so that nobody but the owner ever can connect.
fn listen(data_dir: &Path, path: &Path) -> std::io::Result<UnixListener> {
    let new = data_dir.join(format!("{SOCKET}.new"));
    let _ = fs::remove_file(&new);
    let (address, _directory) = client::short(&new)?;
    let listener = UnixListener::bind(address)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    // A socket that a process before left is replaced: we hold the directory.
    fs::rename(&new, path)?;
    Ok(listener)
}

/// How long ago something was, never below zero.
pub fn elapsed(since: Time) -> Duration {
    Duration::try_from(clock::now().since(since)).unwrap_or_default()
}
