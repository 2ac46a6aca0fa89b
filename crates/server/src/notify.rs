//! Delivers notices of runs to the channels of the server's settings.
//!
//! Overview: runs put notices into channels, entities that keep them until they have arrived (see
//! `kapell_engine::notice`). One thread looks at the channels' documents whenever a row of a run has
//! changed, when a try is due, and every few seconds. Each channel with something due gets a thread of its
//! own, for some notices in order; then it is another channel's turn if more have something due than
//! there may be threads. What became of each try is told to the channel, which decides when the next is.
//!
//! - **Crash**: between a post and the word of it the notice is posted again, with the same
//!   `Idempotency-Key`.
//! - **Slow receiver**: its channel waits, and holds one of the threads for as long as a post may take.
//! - **Clock jump**: a look every few seconds notices.
//! - **Full disk**: channels answer nothing, so nothing is posted until there is room.
//!
//! Not here: retries and bounds (`kapell_engine::notice`), which addresses may be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_expr::Value;
use kapell_model::{EntityKey, Time, limits};
use kapell_node::drive::Node;
use kapell_node::{Answer, ClientRequest, clock};
use kapell_store::{Order, Store};
use parking_lot::Mutex;
use ureq::Agent;

use crate::register::NAMESPACE;

mod guard;
mod post;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{Channel, ChannelSettings, Kind, NotifySettings, Receivers};

/// The longest time without a look at the channels.
const LOOK: Duration = Duration::from_secs(5);

/// Rows change often under load: a look at most so often.
const PAUSE: Duration = Duration::from_millis(100);

/// Notices of one channel posted in one turn.
const BATCH: usize = 10;

/// Channels looked at.
const CHANNELS: usize = 1_000;

/// The first byte of the keys of channels' documents.
const PREFIX: [u8; 1] = [7];

/// Says whether an address may be reached.
pub type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What notices go through.
#[derive(Clone)]
pub struct Senders {
    /// The channels there are.
    pub receivers: Receivers,
    /// Where they may lead.
    pub allowed: Allowed,
}

/// What was sent and what was not, since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    /// Tries that failed.
    pub(crate) failed: AtomicU64,
}

/// The sender. Dropping it stops it: posts under way are torn down, and made again after a restart.
pub struct Sender {
    stop: Option<mpsc::SyncSender<Word>>,
    posting: Arc<Posting>,
    thread: Option<JoinHandle<()>>,
}

enum Word {
    Look,
    Stop,
}

impl Sender {
    /// Starts to deliver.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn start(
        node: Node,
        store: Arc<dyn Store>,
        senders: Senders,
        counts: Arc<Counts>,
    ) -> std::io::Result<Self> {
        // One word is enough: whoever looks sees everything.
        let (stop, words) = mpsc::sync_channel::<Word>(1);
        let changed = stop.clone();
        node.watch(Box::new(move |_| {
            // Full: a look is about to be made. Closed: nobody delivers any more.
            let _ = changed.try_send(Word::Look);
        }));
        let posting = Arc::new(Posting {
            node,
            agent: post::agent(senders.allowed),
            receivers: senders.receivers,
            counts,
            busy: Mutex::default(),
            stopping: AtomicBool::new(false),
            over: stop.clone(),
        });
        let mut round = Round {
            store,
            posting: Arc::clone(&posting),
            threads: Vec::new(),
            last: None,
        };
        let thread = std::thread::Builder::new()
            .name("kapell-notify".to_owned())
            .spawn(move || round.turn(&words))?;
        Ok(Self {
            stop: Some(stop),
            posting,
            thread: Some(thread),
        })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.posting.stopping.store(true, Ordering::Relaxed);
        self.posting.agent.clone().shutdown();
        if let Some(stop) = self.stop.take() {
            // It is gone already if this fails.
            let _ = stop.send(Word::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Posts one notice that is no run's to a channel, to see whether it arrives.
pub(crate) fn try_out(senders: &Senders, channel: &str) -> Result<(), String> {
    let receiver = senders.receivers.get(channel)?;
    let now = clock::now();
    let text = format!("A test of the channel `{channel}`: notices arrive here.");
    let content = [("event", "test"), ("text", &text), ("namespace", NAMESPACE)];
    let due = Due {
        number: 0,
        id: format!("test-{}", now.0),
        at: Value::Timestamp(now.timestamp()),
        content: Value::map(content.map(|(name, text)| (name, Value::string(text)))),
    };
    let agent = post::agent(Arc::clone(&senders.allowed));
    let posted = post::post(&agent, &receiver, &senders.receivers, &due);
    posted.map_err(|failure| failure.error)
}

/// Notices of all channels: how many wait, and how many were given up and are kept.
pub(crate) fn kept(store: &dyn Store) -> kapell_store::Result<(u64, u64)> {
    let documents = store.documents(&PREFIX, None, Order::Forward, CHANNELS)?;
    let mut kept = (0, 0);
    for (_, document) in documents {
        let count = |fields: &serde_json::Value, name: &str| fields[name].as_u64().unwrap_or(0);
        if let Ok(fields) = serde_json::from_str(&document) {
            kept.0 += count(&fields, "waiting");
            kept.1 += count(&fields, "failed");
        }
    }
    Ok(kept)
}

/// Looks for what is due.
struct Round {
    store: Arc<dyn Store>,
    posting: Arc<Posting>,
    threads: Vec<JoinHandle<()>>,
    /// The channel whose turn was the last.
    last: Option<EntityKey>,
}

/// What the threads of channels share.
struct Posting {
    node: Node,
    receivers: Receivers,
    agent: Agent,
    counts: Arc<Counts>,
    /// Channels that a thread posts to.
    busy: Mutex<BTreeSet<EntityKey>>,
    stopping: AtomicBool,
    over: mpsc::SyncSender<Word>,
}

/// A notice to be posted.
pub(crate) struct Due {
    number: u64,
    pub(crate) id: String,
    pub(crate) at: Value,
    pub(crate) content: Value,
}

impl Round {
    fn turn(&mut self, words: &mpsc::Receiver<Word>) {
        let mut wait = Duration::ZERO;
        loop {
            match words.recv_timeout(wait) {
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Word::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            wait = match self.look() {
                Ok(next) => next.map_or(LOOK, |at| {
                    let wait = Duration::try_from(at.since(clock::now())).unwrap_or_default();
                    wait.clamp(PAUSE, LOOK)
                }),
                Err(error) => {
                    tracing::warn!(%error, "channels cannot be read");
                    LOOK
                }
            };
            // A burst of changes is one look; a stop is heard at once.
            match words.recv_timeout(PAUSE) {
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Word::Look) => wait = Duration::ZERO,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Gives channels with something due a thread, and says when the next try is. Who finds no thread is
    /// looked for again when one has ended.
    fn look(&mut self) -> kapell_store::Result<Option<Time>> {
        let now = clock::now();
        let documents = self
            .store
            .documents(&PREFIX, None, Order::Forward, CHANNELS)?;
        let mut next: Option<Time> = None;
        let mut due = Vec::new();
        for (key, document) in documents {
            let Some(at) = due_at(&document) else {
                continue;
            };
            match EntityKey::from_bytes(&key) {
                // Of several nodes the one that owns a channel delivers what is in it.
                Some(key) if !self.posting.node.is_mine(key.shard()) => {}
                Some(key) if at <= now => due.push(key),
                _ => next = Some(next.map_or(at, |next| next.min(at))),
            }
        }
        // Channels take turns: those after the last one come first.
        let after = due.partition_point(|key| Some(key) <= self.last.as_ref());
        due.rotate_left(after);
        self.threads.retain(|thread| !thread.is_finished());
        for key in due {
            let mut busy = self.posting.busy.lock();
            if busy.len() >= limits::NOTICE_SENDERS {
                break;
            }
            if !busy.insert(key.clone()) {
                continue;
            }
            drop(busy);
            let (posting, of) = (Arc::clone(&self.posting), key.clone());
            let thread = std::thread::Builder::new()
                .name("kapell-notice".to_owned())
                .spawn(move || posting.turn_of(&of));
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    tracing::warn!(%error, "no thread for notices");
                    self.posting.busy.lock().remove(&key);
                    break;
                }
            }
            self.last = Some(key);
        }
        Ok(next)
    }
}

impl Posting {
    fn turn_of(&self, key: &EntityKey) {
        self.deliver(key);
        self.busy.lock().remove(key);
        // Full: a look is about to be made. Closed: nobody delivers any more.
        let _ = self.over.try_send(Word::Look);
    }

    /// Posts what is due in a channel, in order, until a try fails.
    fn deliver(&self, key: &EntityKey) {
        let EntityKey::Channel { name, .. } = key else {
            return;
        };
        let Some(Value::List(due)) = self.ask(key, NoticeAsk::Due { limit: BATCH }) else {
            return;
        };
        let receiver = self.receivers.get(name);
        for due in due.iter().filter_map(Due::read) {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let posted = match &receiver {
                Ok(channel) => post::post(&self.agent, channel, &self.receivers, &due),
                Err(error) => Err(post::Failure::hopeless(error.clone())),
            };
            if posted.is_err() && self.stopping.load(Ordering::Relaxed) {
                // It was torn down, which says nothing of the receiver.
                return;
            }
            let number = due.number;
            let (said, fine) = match posted {
                Ok(()) => {
                    self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                    (NoticeAsk::Delivered { number }, true)
                }
                Err(failure) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(channel = %name, notice = %due.id, error = %failure.error, "a notice was not delivered");
                    let hopeless = failure.hopeless;
                    let failed = NoticeAsk::Failed {
                        number,
                        error: failure.error,
                        after: failure.after,
                        hopeless,
                    };
                    // What is hopeless for one says nothing of the next.
                    (failed, hopeless)
                }
            };
            if self.ask(key, said).is_none() || !fine {
                return;
            }
        }
    }

    fn ask(&self, key: &EntityKey, ask: NoticeAsk) -> Option<Value> {
        let request = ClientRequest::Ask {
            key: key.clone(),
            ask: Ask::Notice(ask),
        };
        match self.node.ask_and_wait(request) {
            Ok(Answer::Value(value)) => Some(value),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "a channel does not answer");
                None
            }
        }
    }
}

impl Due {
    fn read(value: &Value) -> Option<Self> {
        let map = value.as_map()?;
        Some(Self {
            number: match map.get("number")? {
                Value::Int(number) => u64::try_from(*number).ok()?,
                _ => return None,
            },
            id: map.get("id")?.as_str()?.to_owned(),
            at: map.get("at")?.clone(),
            content: map.get("content")?.clone(),
        })
    }
}

fn due_at(document: &str) -> Option<Time> {
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(document).ok()?;
    fields.get("due_at")?.as_i64().map(Time)
}
