//! A node among others: heartbeats on one thread, and [`Members`] on another, which tells the lane what to
//! own.
//!
//! - **Crash**: nothing is kept here; the store's row of the node ends with its lease.
//! - **Slow store**: a heartbeat takes as long as it takes, on its own thread; the lease ends all the same.
//! - **Clock jump**: everything here counts on the clock that nobody sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_model::{NodeId, ShardSet};
use kapell_store::{Cluster, NodeAbout, NodeRow};

use super::Message;
use crate::clock;
use crate::lane::{self, Own};
use crate::members::{self, Input, Instant, Members, Output};

/// What a node needs to be one of several.
pub struct Join {
    /// The store that they share.
    pub cluster: Arc<dyn Cluster>,
    /// What it says of itself.
    pub about: NodeAbout,
    /// How long others wait for it.
    pub lease: Duration,
    /// Who else wants to know which nodes there are.
    pub heard: Heard,
}

/// Heartbeats in a lease.
const BEATS: u32 = 5;

/// The longest wait without a tick.
const TICK: Duration = Duration::from_secs(1);

/// How long a node that leaves waits until it has given its shards away.
const LEAVES: Duration = Duration::from_secs(10);

/// Hears which nodes there are, each time that is read.
pub type Heard = Box<dyn Fn(Vec<NodeRow>) + Send>;

/// Until when the lane may act, on the clock that nobody sets.
#[derive(Clone, Default)]
pub(super) struct Until(Arc<AtomicU64>);

impl Until {
    /// True once that is over.
    pub(super) fn is_over(&self) -> bool {
        clock::boot_micros() >= self.0.load(Ordering::Relaxed)
    }
}

enum Note {
    Input(Box<Input>),
    Stop,
}

/// Says what the lane owns now.
#[derive(Clone)]
pub(super) struct ToMembers(Sender<Note>);

impl ToMembers {
    pub(super) fn holds(&self, shards: ShardSet) {
        // One that is gone wants to know nothing.
        let _ = self.0.send(Note::Input(Box::new(Input::Holds(shards))));
    }
}

/// The threads of a membership.
pub(super) struct Membership {
    notes: Sender<Note>,
    thread: Option<JoinHandle<()>>,
    pub(super) until: Until,
}

impl Membership {
    /// Begins to beat, and tells the lane what to own.
    pub(super) fn start(join: Join, to_lane: Sender<Message>) -> std::io::Result<Self> {
        let (notes, from) = mpsc::channel();
        let (to_beat, beats) = mpsc::channel::<NodeAbout>();
        let until = Until::default();
        let me = join.about.id;
        let (cluster, answers, lease) = (Arc::clone(&join.cluster), notes.clone(), join.lease);
        std::thread::Builder::new()
            .name("kapell-beat".to_owned())
            .spawn(move || {
                while let Ok(about) = beats.recv() {
                    let beaten = Input::Beaten(cluster.beat(&about, lease));
                    if answers.send(Note::Input(Box::new(beaten))).is_err() {
                        return;
                    }
                }
            })?;
        let config = members::Config {
            about: join.about,
            lease,
            beat: lease / BEATS,
        };
        let mut turn = Turn {
            members: Members::new(config, now()),
            cluster: join.cluster,
            to_beat,
            to_lane,
            until: until.clone(),
            me,
            heard: join.heard,
        };
        let thread = std::thread::Builder::new()
            .name("kapell-members".to_owned())
            .spawn(move || turn.turn(&from))?;
        Ok(Self {
            notes,
            thread: Some(thread),
            until,
        })
    }

    pub(super) fn sender(&self) -> ToMembers {
        ToMembers(self.notes.clone())
    }

    /// Gives everything away and goes. The lane must still turn.
    pub(super) fn leave(mut self) {
        let watch = clock::Stopwatch::start();
        let _ = self.notes.send(Note::Input(Box::new(Input::Leave)));
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() && watch.elapsed() < LEAVES {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if !thread.is_finished() {
            tracing::warn!(
                "the shards of this node were not given away in time: others take them when its lease ends"
            );
            let _ = self.notes.send(Note::Stop);
        }
        let _ = thread.join();
    }
}

fn now() -> Instant {
    Instant(clock::boot_micros())
}

struct Turn {
    members: Members,
    cluster: Arc<dyn Cluster>,
    to_beat: Sender<NodeAbout>,
    to_lane: Sender<Message>,
    until: Until,
    me: NodeId,
    heard: Heard,
}

impl Turn {
    fn turn(&mut self, from: &Receiver<Note>) {
        let mut input = Input::Tick;
        loop {
            let read = matches!(input, Input::Beaten(Ok(_)));
            let outputs = self.members.on(now(), input);
            let until = self.members.until().map_or(0, |until| until.0);
            self.until.0.store(until, Ordering::Relaxed);
            if read {
                (self.heard)(self.members.nodes().cloned().collect());
            }
            for output in outputs {
                if !self.output(output) {
                    return;
                }
            }
            let wait = self.members.next_tick().0.saturating_sub(now().0);
            input = match from.recv_timeout(Duration::from_micros(wait).min(TICK)) {
                Ok(Note::Input(input)) => *input,
                Err(RecvTimeoutError::Timeout) => Input::Tick,
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// False once it has left.
    fn output(&mut self, output: Output) -> bool {
        let own = match output {
            Output::Beat(about) => {
                // Without that thread the lease ends, and with it all that the lane does.
                let _ = self.to_beat.send(about);
                return true;
            }
            Output::Leave => {
                if let Err(error) = self.cluster.leave(self.me) {
                    tracing::warn!(%error, "the node could not say that it leaves: its lease ends instead");
                }
                return false;
            }
            Output::Take(shards, dead) => {
                let lost: Vec<String> = dead.iter().map(ToString::to_string).collect();
                tracing::info!(
                    shards = shards.len(),
                    dead = lost.join(","),
                    "taking shards"
                );
                Own::Take(shards, dead)
            }
            Output::Give(shards) => {
                tracing::info!(shards = shards.len(), "giving shards away");
                Own::Give(shards)
            }
            Output::Stop => Own::Stop,
        };
        self.to_lane
            .send(Message::Input(lane::Input::Own(Box::new(own))))
            .is_ok()
    }
}
