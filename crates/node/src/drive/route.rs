//! Requests find the node that owns what they are about.
//!
//! ```text
//! asked -- mine --> lane -------- answered --> done
//!   |  \-- another's --> link --- answered --> done
//!   |                       '---- the link ended: it may have been done --> asked, or "outcome unknown"
//!   '-- nobody's, or whoever is asked does not own it (any more) --> a pause --> asked
//! ```
//!
//! A node that is asked by another never asks a third: it does what it owns, and refuses the rest, so a request
//! makes one hop at a time, and whoever the client asked looks for the owner anew until [`PATIENCE`] is over.
//! What is asked of entities of several owners is committed by one of them, with mail to the others, and
//! answered once they have taken it.
//!
//! - **Crash** of the owner: links to it end, and what may be asked twice is asked of the next owner. Of
//!   everything else the client is told that the outcome is unknown, as after a commit that was not confirmed.
//! - **Slow store**: requests wait at the owner; here they are counted, and refused beyond a bound.
//! - **Clock jump**: patience counts on a clock that does not jump.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kapell_model::{Error, ErrorCode, NodeId, Shard, limits};
use parking_lot::Mutex;

use super::{Callback, Node, REQUESTS};
use crate::clock;
use crate::lane::{not_here, unconfirmed};
use crate::request::{Answer, ClientRequest, wire};

/// How long the owner of a request is looked for: longer than a lease and a takeover.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Between two tries to find the owner.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Who owns a shard, as far as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This node.
    Here,
    /// Another.
    There(NodeId),
    /// None yet.
    Nobody,
}

/// Why another node gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It was never asked.
    NotSent,
    /// It was asked, and may have done it.
    Unknown,
}

/// What is called once, with the answer of another node as bytes.
pub type FromPeer = Box<dyn FnOnce(Result<Vec<u8>, Unanswered>) + Send>;

/// The other nodes of a cluster. Calls must not wait.
pub trait Peers: Send + Sync {
    /// Who owns a shard, or soon will.
    fn owner(&self, shard: Shard) -> Owner;
    /// Asks a node, which answers for itself alone.
    fn ask(&self, node: NodeId, request: Vec<u8>, answer: FromPeer);
    /// Tells the owners of these shards that messages may wait for them. A hint: it may be lost.
    fn rang(&self, shards: &BTreeSet<Shard>);
    /// Tells all nodes that another version of some workflow may be active. A hint: it may be lost.
    fn versions_changed(&self);
}

/// A request on its way.
struct Asked {
    request: ClientRequest,
    until: Instant,
    pause: Duration,
    callback: Callback,
}

/// See the module.
pub(super) struct Router {
    /// This node, which answers for itself alone.
    here: Node,
    pub(super) peers: Arc<dyn Peers>,
    /// Requests that are asked again later.
    later: Sender<(Instant, Asked)>,
    /// Requests of clients that are not answered yet.
    under_way: AtomicUsize,
}

impl Router {
    /// Starts the thread that asks again.
    pub(super) fn start(here: Node, peers: Arc<dyn Peers>) -> std::io::Result<Arc<Self>> {
        let (later, waiting) = mpsc::channel();
        let router = Arc::new(Self {
            here,
            peers,
            later,
            under_way: AtomicUsize::new(0),
        });
        let asks = Arc::downgrade(&router);
        std::thread::Builder::new()
            .name("kapell-route".to_owned())
            .spawn(move || ask_again(&waiting, &asks))?;
        Ok(router)
    }

    /// Asks whoever owns what the request is about.
    pub(super) fn ask(self: &Arc<Self>, request: ClientRequest, callback: Callback) {
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            callback(Err(too_many()));
            return;
        }
        let router = Arc::downgrade(self);
        let counted: Callback = Box::new(move |answer| {
            if let Some(router) = router.upgrade() {
                router.under_way.fetch_sub(1, Ordering::Relaxed);
            }
            callback(answer);
        });
        self.go(Asked {
            request,
            until: clock::steady() + PATIENCE,
            pause: FIRST_PAUSE,
            callback: counted,
        });
    }

    fn go(self: &Arc<Self>, asked: Asked) {
        match self.target(&asked.request) {
            Owner::Here => {
                let (router, request) = (Arc::clone(self), asked.request.clone());
                let answered = move |answer| router.answered(asked, answer);
                self.here.ask_lane(request, Box::new(answered));
            }
            Owner::There(node) => self.send(node, asked),
            Owner::Nobody => self.again(asked),
        }
    }

    /// Who is asked. What is about entities of several owners is done here if some of them are here.
    fn target(&self, request: &ClientRequest) -> Owner {
        let mut first = Owner::Nobody;
        let shards = request.shards();
        if shards.is_empty() {
            return Owner::Here;
        }
        for shard in shards {
            match self.peers.owner(shard) {
                Owner::Here => return Owner::Here,
                there @ Owner::There(_) if first == Owner::Nobody => first = there,
                Owner::There(_) | Owner::Nobody => {}
            }
        }
        first
    }

    fn send(self: &Arc<Self>, node: NodeId, asked: Asked) {
        let bytes = match wire::request_to_bytes(&asked.request) {
            Ok(bytes) if bytes.len() <= limits::NODE_MESSAGE_BYTES / 2 => bytes,
            Ok(bytes) => {
                (asked.callback)(Err(too_big(bytes.len())));
                return;
            }
            Err(error) => {
                (asked.callback)(Err(error));
                return;
            }
        };
        let router = Arc::clone(self);
        let answered = move |answer: Result<Vec<u8>, Unanswered>| match answer {
            Ok(bytes) => router.answered(asked, wire::answer_from_bytes(&bytes)),
            Err(Unanswered::NotSent) => router.again(asked),
            Err(Unanswered::Unknown) if asked.request.is_repeatable() => router.again(asked),
            Err(Unanswered::Unknown) => (asked.callback)(Err(unconfirmed())),
        };
        self.peers.ask(node, bytes, Box::new(answered));
    }

    /// Whoever was asked has answered.
    fn answered(self: &Arc<Self>, asked: Asked, answer: Result<Answer, Error>) {
        match answer {
            Err(error) if error.code == ErrorCode::NotHere => self.again(asked),
            // What is asked can be asked until it is answered well.
            Err(error)
                if matches!(asked.request, ClientRequest::Settle { .. })
                    && error.code.retryable() =>
            {
                self.again(asked);
            }
            Ok(Answer::Sent(shards)) => self.settle(&shards, asked.callback),
            answer => (asked.callback)(answer),
        }
    }

    /// What was done is on its way to these shards: it is answered once it has arrived. If an owner does not
    /// say so in time it is answered too: it is durable, and no crash keeps it back.
    fn settle(self: &Arc<Self>, shards: &[Shard], callback: Callback) {
        let left = Arc::new((AtomicUsize::new(shards.len()), Mutex::new(Some(callback))));
        for shard in shards {
            let (shard, left) = (*shard, Arc::clone(&left));
            let settled = move |answer: Result<Answer, Error>| {
                if let Err(error) = answer {
                    let shard = shard.0;
                    tracing::warn!(shard, %error, "what was asked of another node takes its time");
                }
                if left.0.fetch_sub(1, Ordering::AcqRel) == 1
                    && let Some(callback) = left.1.lock().take()
                {
                    callback(Ok(Answer::Done));
                }
            };
            self.go(Asked {
                request: ClientRequest::Settle { shard },
                until: clock::steady() + PATIENCE,
                pause: FIRST_PAUSE,
                callback: Box::new(settled),
            });
        }
    }

    /// Asks after a pause, if there is still time.
    fn again(&self, mut asked: Asked) {
        let at = clock::steady() + asked.pause;
        if at > asked.until {
            (asked.callback)(Err(not_here()));
            return;
        }
        asked.pause = (asked.pause * 2).min(LAST_PAUSE);
        if let Err(mpsc::SendError((_, asked))) = self.later.send((at, asked)) {
            (asked.callback)(Err(not_here()));
        }
    }
}

/// Takes requests when their pause is over, as long as there is somebody to ask.
fn ask_again(waiting: &Receiver<(Instant, Asked)>, router: &Weak<Router>) {
    let mut pauses: BinaryHeap<Reverse<Paused>> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let wait = match pauses.peek() {
            None => LAST_PAUSE,
            Some(Reverse(first)) => first.at.saturating_duration_since(clock::steady()),
        };
        match waiting.recv_timeout(wait) {
            Ok((at, asked)) => {
                number += 1;
                pauses.push(Reverse(Paused { at, number, asked }));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(router) = router.upgrade() else {
            return;
        };
        let now = clock::steady();
        while pauses.peek().is_some_and(|Reverse(first)| first.at <= now) {
            if let Some(Reverse(paused)) = pauses.pop() {
                router.go(paused.asked);
            }
        }
    }
}

/// A request and when it is asked again; the one that waits longest first.
struct Paused {
    at: Instant,
    number: u64,
    asked: Asked,
}

impl PartialEq for Paused {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Paused {}

impl PartialOrd for Paused {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Paused {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

fn too_big(bytes: usize) -> Error {
    let most = limits::NODE_MESSAGE_BYTES / 2;
    let message = format!("the request has {bytes} bytes on its way to the node that does it");
    Error::new(ErrorCode::LimitReached, message)
        .hint(format!("at most {most}: give large values as files"))
}

pub(super) fn too_many() -> Error {
    let message = format!("more than {REQUESTS} requests wait for an answer");
    Error::new(ErrorCode::LimitReached, message).hint("try again in a moment")
}
