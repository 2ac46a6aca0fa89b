//! Attempts go to workers of other nodes, and theirs come to workers here.
//!
//! Stands where the workers of a node that is alone stand: the node hands attempts to [`Relaying`], and workers
//! report to it. What goes where is decided by [`Relay`], under one lock. What it says to the node or to other
//! nodes is put into their queues under that lock, so that everybody hears it in order; what it says to workers
//! here a thread does, since they have a lock of their own, under which they speak to this:
//!
//! ```text
//! workers (their lock) --> relay (its lock) --> queues: of the lane, of links, of the thread
//! thread --> workers (their lock)
//! ```
//!
//! - **Crash**: nothing is kept here. Rows of sessions say which workers may hold attempts.
//! - **Slow store**: shards that were taken wait until rows of sessions are read.
//! - **Slow node**: what waits for it is bounded, and said anew on the next connection.
//! - **Clock jump**: times are those of a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::Duration;

use kapell_api::task::{Place, Report, Task};
use kapell_api::worker::Queues;
use kapell_model::{Error, NodeId, Offer, RunId, SessionId, Shard};
use kapell_node::clock;
use kapell_node::drive::{self, Node, Owner};
use kapell_node::lane::SessionChange;
use kapell_node::lend::Wants;
use kapell_node::members::Instant;
use kapell_node::relay::{self, Name, Output, Relay, Word};
use kapell_store::{Lease, Store};
use parking_lot::Mutex;

use crate::local::no_thread;
use crate::peers::Nodes;
use crate::workers::{About, Workers, stored};

/// Between two tries to read the rows of sessions.
const PAUSE: Duration = Duration::from_millis(200);

/// What is done with workers here.
enum Job {
    Offer(Vec<Task>),
    Stop(Vec<Name>),
    Taken(Vec<Name>),
    Forget(SessionId),
    Over(SessionId),
    /// Workers somewhere name these.
    Named(Queues),
}

/// See the module.
pub(crate) struct Relaying {
    me: NodeId,
    node: Node,
    nodes: Weak<Nodes>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
    jobs: Sender<Job>,
    stopped: AtomicBool,
}

struct State {
    relay: Relay,
    /// Counts connections of other nodes.
    connections: u64,
    /// The last one of each: what came on one before counts no more.
    last: BTreeMap<NodeId, u64>,
}

/// What the thread of a [`Relaying`] does, until it is started.
pub(crate) struct Jobs(Receiver<Job>);

impl Relaying {
    /// For a node that is not started yet. `lease` is that of workers' sessions.
    pub(crate) fn new(
        node: Node,
        nodes: &Arc<Nodes>,
        store: Arc<dyn Store>,
        lease: Duration,
    ) -> (Arc<Self>, Jobs) {
        let (jobs, from) = mpsc::channel();
        let me = nodes.me();
        let knows = Arc::downgrade(nodes);
        let owner = move |shard: Shard| match knows.upgrade()?.owner(shard) {
            Owner::Here => Some(me),
            Owner::There(node) => Some(node),
            Owner::Nobody => None,
        };
        let relaying = Arc::new(Self {
            me,
            node,
            nodes: Arc::downgrade(nodes),
            store,
            state: Mutex::new(State {
                relay: Relay::new(me, lease, Box::new(owner)),
                connections: 0,
                last: BTreeMap::new(),
            }),
            jobs,
            stopped: AtomicBool::new(false),
        });
        nodes.relay_through(&relaying);
        (relaying, Jobs(from))
    }

    /// Starts the thread that speaks to workers here.
    ///
    /// # Errors
    /// Code `internal`: it could not be started.
    pub(crate) fn start(self: &Arc<Self>, jobs: Jobs, workers: &Arc<Workers>) -> Result<(), Error> {
        let (relaying, workers) = (Arc::downgrade(self), Arc::downgrade(workers));
        let thread = std::thread::Builder::new().name("kapell-relay".to_owned());
        thread
            .spawn(move || turn(&jobs.0, &relaying, &workers))
            .map_err(|error| no_thread("attempts at workers of other nodes", &error))?;
        Ok(())
    }

    /// Rows of sessions are waited for no more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    // What workers here say, under their lock.

    /// Something is said of the session of a worker here.
    pub(crate) fn session(&self, id: SessionId, change: SessionChange) {
        self.with(|relay| relay.session(id, change));
    }

    /// Workers here report.
    pub(crate) fn reports(&self, reports: Vec<Report>) {
        self.with(|relay| relay.reports(reports));
    }

    /// The store has the row of a session whose home is, or was, another node.
    pub(crate) fn known(&self, id: SessionId, about: About) {
        self.with(|relay| relay.known(id, (about.home, about.hello), about.queues));
    }

    /// The store says that a session has another home, which was not heard.
    pub(crate) fn moved(&self, id: SessionId, store: &dyn Store) {
        if let Ok(Some(about)) = stored::find(store, id) {
            self.with(|relay| relay.moved(id, (about.home, about.hello)));
        }
    }

    /// These queues are for workers that name them.
    pub(crate) fn keep_queues(&self, names: BTreeSet<Arc<str>>) {
        self.with(|relay| relay.keep_queues(names));
    }

    /// True if the home of a session is this node.
    pub(crate) fn is_here(&self, id: SessionId) -> bool {
        self.state.lock().relay.is_here(id)
    }

    /// True if a node is there.
    pub(crate) fn is_there(&self, node: NodeId) -> bool {
        self.state.lock().relay.is_there(node)
    }

    // What other nodes say.

    /// Which other nodes there are.
    pub(crate) fn nodes(&self, nodes: BTreeSet<NodeId>) {
        self.with(|relay| relay.nodes(nodes));
    }

    /// A connection to a node is there; `begin` lets words onto it.
    pub(crate) fn opened(&self, node: NodeId, begin: impl FnOnce()) {
        self.with(|relay| {
            begin();
            relay.opened(node);
        });
    }

    /// A node has connected; the number of that connection.
    pub(crate) fn comes(&self, node: NodeId) -> u64 {
        let mut state = self.state.lock();
        state.connections += 1;
        let number = state.connections;
        state.last.insert(node, number);
        number
    }

    /// A node speaks on a connection; false if it has a newer one.
    pub(crate) fn hear(&self, (node, number): (NodeId, u64), word: Word) -> bool {
        let mut state = self.state.lock();
        if state.last.get(&node) != Some(&number) {
            return false;
        }
        self.act(&mut state.relay, |relay| relay.hear(node, word));
        true
    }

    fn with(&self, says: impl FnOnce(&mut Relay)) {
        self.act(&mut self.state.lock().relay, says);
    }

    /// Says something to the relay, and does what comes of it, all of which only puts it into queues.
    fn act(&self, relay: &mut Relay, says: impl FnOnce(&mut Relay)) {
        relay.pass(Instant(clock::boot_micros()), clock::now());
        says(relay);
        for output in relay.outputs() {
            match output {
                Output::Reports(reports) => self.node.reports(reports),
                Output::Session(id, change) => {
                    if let SessionChange::Open { seat, .. } = &change
                        && let Queues::Named(_) = &seat.queues
                    {
                        self.job(Job::Named(seat.queues.clone()));
                    }
                    self.node.session(id, change);
                }
                Output::Offer(tasks) => self.job(Job::Offer(tasks)),
                Output::Stop(names) => self.job(Job::Stop(names)),
                Output::Taken(names) => self.job(Job::Taken(names)),
                Output::Forget(id) => self.job(Job::Forget(id)),
                Output::Over(id) => self.job(Job::Over(id)),
                Output::Tell(node, word) => {
                    if let Some(nodes) = self.nodes.upgrade() {
                        nodes.tell(node, word);
                    }
                }
            }
        }
    }

    /// There are no more jobs than what workers have room for asks for.
    fn job(&self, job: Job) {
        // Without workers there is nothing to be done with them.
        let _ = self.jobs.send(job);
    }
}

fn turn(jobs: &Receiver<Job>, relaying: &Weak<Relaying>, workers: &Weak<Workers>) {
    let mut ticked = clock::steady();
    loop {
        let job = jobs.recv_timeout(relay::TICK);
        let (Some(relaying), Some(workers)) = (relaying.upgrade(), workers.upgrade()) else {
            return;
        };
        match job {
            Ok(Job::Offer(tasks)) => drive::Workers::offer(&*workers, tasks),
            Ok(Job::Stop(names)) => drive::Workers::stop(&*workers, &names),
            Ok(Job::Taken(names)) => drive::Workers::taken(&*workers, &names),
            Ok(Job::Forget(id)) => workers.forget(id),
            Ok(Job::Over(id)) => workers.over_elsewhere(id),
            Ok(Job::Named(queues)) => workers.named_elsewhere(&queues),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = clock::steady();
        if now.saturating_duration_since(ticked) >= relay::TICK {
            ticked = now;
            relaying.with(Relay::tick);
        }
    }
}

/// What the node says.
impl drive::Workers for Relaying {
    fn offer(&self, tasks: Vec<Task>) {
        self.with(|relay| relay.offer(tasks));
    }

    fn stop(&self, attempts: &[(RunId, Place, Offer)]) {
        self.with(|relay| relay.stop(attempts));
    }

    fn taken(&self, attempts: &[(RunId, Place, Offer)]) {
        self.with(|relay| relay.taken(attempts));
    }

    fn wants(&self, wants: Wants) {
        self.with(|relay| relay.wants(wants));
    }

    fn took(&self, leases: &[Lease]) {
        // A row is there before the first attempt goes to its session, so whoever may hold one is among these.
        let mut told = false;
        let rows = loop {
            match stored::read(&*self.store) {
                Ok(rows) => break rows,
                // The lane is about to end.
                Err(_) if self.stopped.load(Ordering::Relaxed) => break Vec::new(),
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "the sessions of workers cannot be read; trying again");
                }
                Err(_) => {}
            }
            std::thread::park_timeout(PAUSE);
        };
        self.with(|relay| {
            for (id, about) in rows {
                relay.known(id, (about.home, about.hello), about.queues);
            }
            relay.took(leases);
        });
    }

    fn ask(&self, leases: &[Lease]) {
        self.with(|relay| relay.ask(leases));
    }

    fn gave(&self, shards: &BTreeSet<Shard>) {
        self.with(|relay| relay.gave(shards));
    }
}
