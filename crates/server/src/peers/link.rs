//! The way to one other node: a connection after another, as long as that node is there.
//!
//! Where attempts go to workers of other nodes the link is always open, or being opened: what is said of them
//! arrives in order, or the connection ends and it is said anew on the next one.
//!
//! ```text
//! idle -- something to say --> connecting -- welcome --> open -- it ends --> a pause --> idle
//!                                   \-- failed: nothing was sent --> a pause --> idle
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kapell_api::client::{HttpServer, Target};
use kapell_api::nodes::proto::frame::Kind;
use kapell_api::nodes::proto::nodes_client::NodesClient;
use kapell_api::nodes::proto::{Ask, Frame, Hello, Work};
use kapell_api::nodes::{KEY_HEADER, PROTOCOL};
use kapell_model::{NodeId, limits};
use kapell_node::clock;
use kapell_node::drive::{FromPeer, Unanswered};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use super::secret::Secret;
use crate::feed::Feed;
use crate::relaying::Relaying;

/// A connection on which nothing comes for so long is asked whether it still is one, and given up when it does
/// not say so in that time again. Both together are no longer than the lease of a node.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// How long a connection may take to be made and welcomed.
const CONNECT: Duration = Duration::from_secs(3);

/// How long an answer may take; then whether it was done is unknown.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How often deadlines are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Frames on their way.
const FRAMES: usize = 8;

/// The most that one message may have: an attempt has as much room here as on its way to a worker.
pub(super) const FRAME_BYTES: usize = 2 * limits::NODE_MESSAGE_BYTES + (64 << 10);

/// What hears of runs that change at the other node, and what of its workers; once there is any.
type Hears = (Arc<OnceLock<Arc<Feed>>>, Arc<OnceLock<Weak<Relaying>>>);

/// See the module.
pub(super) struct Link {
    me: NodeId,
    to: NodeId,
    /// Where the node is reached.
    pub(super) address: String,
    state: Mutex<State>,
    wake: Notify,
    /// What hears of runs that change there.
    feed: Arc<OnceLock<Arc<Feed>>>,
    /// What sends attempts to its workers.
    relaying: Arc<OnceLock<Weak<Relaying>>>,
}

#[derive(Default)]
struct State {
    /// Counts asks.
    last: u64,
    /// Asked, and not answered yet.
    asks: BTreeMap<u64, Waiting>,
    /// Not sent yet.
    queue: VecDeque<Ask>,
    /// Hints that are not sent yet.
    hints: Hints,
    /// Runs that change there are to be told.
    follows: bool,
    /// What is said of attempts, and not sent yet, with its bytes.
    work: VecDeque<(Work, usize)>,
    work_bytes: usize,
    way: Way,
    /// Work goes before the next ask.
    work_first: bool,
    /// The node is gone.
    closed: bool,
}

/// Whether work is said.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    /// There is no connection for it.
    #[default]
    Away,
    Open,
    /// Something was not said: the connection is to end.
    Broken,
}

struct Waiting {
    answer: FromPeer,
    until: Instant,
    sent: bool,
}

#[derive(Clone, Copy, Default)]
struct Hints {
    rang: bool,
    versions_changed: bool,
    follow: bool,
}

impl Link {
    /// A link that is opened once there is something to say.
    pub(super) fn new(
        (me, to): (NodeId, NodeId),
        address: String,
        (feed, relaying): Hears,
    ) -> Self {
        Self {
            me,
            to,
            address,
            state: Mutex::default(),
            wake: Notify::new(),
            feed,
            relaying,
        }
    }

    /// Asks the node; `answer` is called once, on a thread that must not wait.
    pub(super) fn ask(&self, request: Vec<u8>, answer: FromPeer) {
        let ask = Ask {
            request: request.into(),
            ..Ask::default()
        };
        self.send(ask, answer);
    }

    /// Asks the server of the node, likewise.
    pub(super) fn question(&self, question: Vec<u8>, answer: FromPeer) {
        let ask = Ask {
            question: question.into(),
            ..Ask::default()
        };
        self.send(ask, answer);
    }

    fn send(&self, ask: Ask, answer: FromPeer) {
        let refused = {
            let mut state = self.state.lock();
            if state.closed || state.asks.len() >= limits::NODE_REQUESTS {
                Some(answer)
            } else {
                state.last += 1;
                let number = state.last;
                state.queue.push_back(Ask { number, ..ask });
                let waiting = Waiting {
                    answer,
                    until: clock::steady() + ANSWER,
                    sent: false,
                };
                state.asks.insert(number, waiting);
                None
            }
        };
        match refused {
            Some(answer) => answer(Err(Unanswered::NotSent)),
            None => self.wake.notify_one(),
        }
    }

    /// Says something that may be lost. What is said already and not sent yet is said once.
    pub(super) fn hint(&self, kind: &Kind) {
        {
            let mut state = self.state.lock();
            match kind {
                Kind::Rang(_) => state.hints.rang = true,
                Kind::VersionsChanged(_) => state.hints.versions_changed = true,
                Kind::Follow(follow) => {
                    state.follows = follow.on;
                    state.hints.follow = true;
                }
                Kind::Hello(_)
                | Kind::Welcome(_)
                | Kind::Ask(_)
                | Kind::Answer(_)
                | Kind::Changed(_)
                | Kind::Work(_) => return,
            }
        }
        self.wake.notify_one();
    }

    /// From now on work is said, on the connection that is there.
    pub(super) fn begin_work(&self) {
        self.state.lock().way = Way::Open;
    }

    /// Says something of attempts, in order. Without a connection it is said anew when there is one.
    pub(super) fn work(&self, words: Vec<(Work, usize)>) {
        {
            let mut state = self.state.lock();
            if state.way != Way::Open {
                return;
            }
            for (word, bytes) in words {
                state.work_bytes += bytes;
                state.work.push_back((word, bytes));
            }
            if state.work_bytes > limits::NODE_WORK_BYTES || state.work.len() > limits::NODE_WORK {
                state.stop_work(Way::Broken);
            }
        }
        self.wake.notify_one();
    }

    /// True once something was not said.
    fn is_broken(&self) -> bool {
        self.state.lock().way == Way::Broken
    }

    /// The node is gone, or this one ends.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
        self.fail();
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn has_to_say(&self) -> bool {
        let state = self.state.lock();
        let Hints {
            rang,
            versions_changed,
            follow,
        } = state.hints;
        let relays = self.relaying.get().is_some();
        state.closed || rang || versions_changed || follow || relays || !state.queue.is_empty()
    }

    /// The next frame to send.
    fn next(&self) -> Option<Frame> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.hints.versions_changed) {
            let kind = Kind::VersionsChanged(kapell_api::nodes::proto::VersionsChanged {});
            return Some(Frame { kind: Some(kind) });
        }
        if std::mem::take(&mut state.hints.follow) {
            let kind = super::follow::said(state.follows);
            return Some(Frame { kind: Some(kind) });
        }
        if std::mem::take(&mut state.hints.rang) {
            let kind = Kind::Rang(kapell_api::nodes::proto::Rang {});
            return Some(Frame { kind: Some(kind) });
        }
        // One after the other, so that neither waits for all of the other.
        state.work_first = !state.work_first;
        if (state.work_first || state.queue.is_empty())
            && let Some((work, bytes)) = state.work.pop_front()
        {
            state.work_bytes -= bytes;
            let kind = Some(Kind::Work(work));
            return Some(Frame { kind });
        }
        while let Some(ask) = state.queue.pop_front() {
            // Its time may be over.
            if let Some(waiting) = state.asks.get_mut(&ask.number) {
                waiting.sent = true;
                let kind = Kind::Ask(ask);
                return Some(Frame { kind: Some(kind) });
            }
        }
        let (work, bytes) = state.work.pop_front()?;
        state.work_bytes -= bytes;
        let kind = Some(Kind::Work(work));
        Some(Frame { kind })
    }

    fn answered(&self, number: u64, answer: &Bytes) {
        // Whoever asked may have been told already that it took too long.
        let waiting = self.state.lock().asks.remove(&number);
        if let Some(waiting) = waiting {
            (waiting.answer)(Ok(answer.to_vec()));
        }
    }

    /// Whoever waits is told that no answer comes any more.
    fn fail(&self) {
        let asks = {
            let mut state = self.state.lock();
            state.queue.clear();
            state.stop_work(Way::Away);
            // The next connection says so again.
            state.hints.follow = state.follows;
            std::mem::take(&mut state.asks)
        };
        asks.into_values().for_each(Waiting::fails);
    }

    /// The same for those whose time is over.
    fn look(&self) {
        let now = clock::steady();
        let over: Vec<Waiting> = {
            let mut state = self.state.lock();
            let over = state.asks.extract_if(.., |_, waiting| waiting.until <= now);
            over.map(|(_, waiting)| waiting).collect()
        };
        over.into_iter().for_each(Waiting::fails);
    }
}

impl State {
    fn stop_work(&mut self, way: Way) {
        self.way = way;
        self.work.clear();
        self.work_bytes = 0;
    }
}

impl Waiting {
    fn fails(self) {
        let why = if self.sent {
            Unanswered::Unknown
        } else {
            Unanswered::NotSent
        };
        (self.answer)(Err(why));
    }
}

/// Keeps the link until its node is gone.
pub(super) async fn keep(link: Arc<Link>, secret: Arc<Secret>, ca: Option<PathBuf>) {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    while !link.is_closed() {
        if !link.has_to_say() {
            link.wake.notified().await;
            continue;
        }
        match connect(&link, &secret, ca.clone()).await {
            Ok((to, inbound)) => {
                (pause, told) = (FIRST_PAUSE, String::new());
                if let Some(relaying) = link.relaying.get().and_then(Weak::upgrade) {
                    relaying.opened(link.to, || link.begin_work());
                }
                tokio::select! {
                    () = read(&link, inbound) => {}
                    () = write(&link, to) => {}
                    () = look(&link) => {}
                }
            }
            Err(why) => {
                if why != told {
                    let (node, address) = (link.to.to_string(), &link.address);
                    tracing::warn!(node, address, why, "another node cannot be reached");
                    told = why;
                }
            }
        }
        link.fail();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn connect(
    link: &Link,
    secret: &Arc<Secret>,
    ca: Option<PathBuf>,
) -> Result<(mpsc::Sender<Frame>, Streaming<Frame>), String> {
    let (secret, address) = (Arc::clone(secret), link.address.clone());
    let read = move || {
        let key = secret.read().map_err(|error| error.to_string())?;
        let server = HttpServer::new(&address, None, ca.as_deref());
        Ok::<_, String>((key, server.map_err(|error| error.to_string())?))
    };
    let (key, server) = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| error.to_string())??;
    let server = Target::Http(Box::new(server));
    let connector = tower::service_fn(move |_| {
        let server = server.clone();
        async move { server.wire().await.map(TokioIo::new) }
    });
    let (to, frames) = mpsc::channel(FRAMES);
    let hello = Kind::Hello(Hello {
        protocol: PROTOCOL,
        from: link.me.0,
        to: link.to.0,
    });
    let window = u32::try_from(limits::NODE_MESSAGE_BYTES).unwrap_or(u32::MAX);
    let endpoint = Endpoint::from_static("http://kapell")
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window);
    let opening = async {
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| cause(&error))?;
        let hello = Frame { kind: Some(hello) };
        to.send(hello).await.map_err(|error| error.to_string())?;
        let mut request = Request::new(ReceiverStream::new(frames));
        let key = key.parse().map_err(|_| "the key of nodes is none")?;
        request.metadata_mut().insert(KEY_HEADER, key);
        let mut client = NodesClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES)
            .max_encoding_message_size(FRAME_BYTES);
        let said = |status: tonic::Status| status.message().to_owned();
        let mut inbound = client.link(request).await.map_err(said)?.into_inner();
        match inbound
            .message()
            .await
            .map_err(said)?
            .and_then(|first| first.kind)
        {
            Some(Kind::Welcome(_)) => Ok((to, inbound)),
            _ => Err("it said no welcome".to_owned()),
        }
    };
    tokio::time::timeout(CONNECT, opening)
        .await
        .unwrap_or_else(|_| Err(format!("no welcome within {} s", CONNECT.as_secs())))
}

async fn read(link: &Link, mut inbound: Streaming<Frame>) {
    while let Ok(Some(frame)) = inbound.message().await {
        match frame.kind {
            Some(Kind::Answer(answer)) => link.answered(answer.number, &answer.answer),
            Some(Kind::Changed(changed)) => {
                if let Some(feed) = link.feed.get() {
                    super::follow::hear(feed, &changed);
                }
            }
            // What a later version says as well, or what nobody who answers says.
            Some(
                Kind::Hello(_)
                | Kind::Welcome(_)
                | Kind::Ask(_)
                | Kind::Rang(_)
                | Kind::VersionsChanged(_)
                | Kind::Follow(_)
                | Kind::Work(_),
            )
            | None => {}
        }
    }
}

async fn write(link: &Link, to: mpsc::Sender<Frame>) {
    while !link.is_closed() && !link.is_broken() {
        while let Some(frame) = link.next() {
            if to.send(frame).await.is_err() {
                return;
            }
        }
        link.wake.notified().await;
    }
}

async fn look(link: &Link) {
    loop {
        tokio::time::sleep(LOOK).await;
        link.look();
    }
}

/// What is behind an error that says little by itself.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
