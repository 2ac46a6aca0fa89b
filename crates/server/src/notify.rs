//! Delivers notices of runs to the channels of the server's settings.
//!
//! Overview: runs put notices into channels, entities that keep them until they have arrived (see
//! `kapell_engine::notice`). One thread looks at the channels' documents whenever a row of a run has
//! changed, when a try is due, and every few seconds; it takes what is due and posts it, several
//! channels at a time and each channel in order. What became of each try is told to the channel, which
//! decides when the next one is.
//!
//! - **Crash**: between a post and the word of it the notice is posted again, with the same
//!   `Idempotency-Key`.
//! - **Slow receiver**: its channel waits, others do not for longer than one round.
//! - **Clock jump**: a look every few seconds notices.
//!
//! Not here: retries and bounds (`kapell_engine::notice`), which addresses may be asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_expr::Value;
use kapell_model::{EntityKey, Time};
use kapell_node::drive::Node;
use kapell_node::{Answer, ClientRequest, clock};
use kapell_store::{Order, Store};
use ureq::Agent;

mod post;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{Channel, ChannelSettings, Kind, NotifySettings, Receivers};

/// The longest time without a look at the channels.
const LOOK: Duration = Duration::from_secs(5);

/// Rows change often under load: a look at most so often.
const PAUSE: Duration = Duration::from_millis(100);

/// Notices of one channel posted in a round.
const BATCH: usize = 10;

/// Channels posted to at the same time.
const TOGETHER: usize = 8;

/// Channels looked at.
const CHANNELS: usize = 1_000;

/// The first byte of the keys of channels' documents.
const PREFIX: [u8; 1] = [7];

/// The sender. Dropping it stops it: posts under way are torn down, and made again after a restart.
pub struct Sender {
    stop: Option<mpsc::SyncSender<Word>>,
    agent: Agent,
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
    pub fn start(node: Node, store: Arc<dyn Store>, receivers: Receivers) -> std::io::Result<Self> {
        // One word is enough: whoever looks sees everything.
        let (stop, words) = mpsc::sync_channel::<Word>(1);
        let changed = stop.clone();
        node.watch(Box::new(move |_| {
            // Full: a look is about to be made. Closed: nobody delivers any more.
            let _ = changed.try_send(Word::Look);
        }));
        let agent = post::agent();
        let round = Round {
            node,
            store,
            receivers,
            agent: agent.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("kapell-notify".to_owned())
            .spawn(move || round.turn(&words))?;
        Ok(Self {
            stop: Some(stop),
            agent,
            thread: Some(thread),
        })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.agent.clone().shutdown();
        if let Some(stop) = self.stop.take() {
            // It is gone already if this fails.
            let _ = stop.send(Word::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Round {
    node: Node,
    store: Arc<dyn Store>,
    receivers: Receivers,
    agent: Agent,
}

/// A notice to be posted.
pub(crate) struct Due {
    number: u64,
    pub(crate) id: String,
    pub(crate) at: Value,
    pub(crate) content: Value,
}

impl Round {
    fn turn(self, words: &mpsc::Receiver<Word>) {
        let mut wait = Duration::ZERO;
        loop {
            match words.recv_timeout(wait) {
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
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
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Word::Look) => wait = Duration::ZERO,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Posts what is due, and says when the next try is.
    fn look(&self) -> kapell_store::Result<Option<Time>> {
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
                Some(key) if at <= now => due.push(key),
                _ => next = Some(next.map_or(at, |next| next.min(at))),
            }
        }
        for keys in due.chunks(TOGETHER) {
            std::thread::scope(|scope| {
                for key in keys {
                    scope.spawn(|| self.deliver(key));
                }
            });
        }
        Ok(if due.is_empty() { next } else { Some(now) })
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
            let posted = match &receiver {
                Ok(channel) => post::post(&self.agent, channel, &self.receivers, &due),
                Err(error) => Err(post::Failure::hopeless(error.clone())),
            };
            let number = due.number;
            let (said, fine) = match posted {
                Ok(()) => (NoticeAsk::Delivered { number }, true),
                Err(failure) => {
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
