//! Which nodes there are, which shards this one is to own, and until when it may act.
//!
//! ```text
//! outside -- beat answered --> member -- no answer for a whole lease --> outside
//!                                \-- leaving: gives all shards --> gone
//! ```
//!
//! Each node writes a heartbeat and reads the others' with it. A shard belongs to the node that rendezvous
//! hashing over the live nodes gives it, so when a node comes or goes only its own shards move. Nobody
//! decides for others: an owner gives away what is no longer its own, and the next one takes what nobody
//! owns.
//!
//! - **Crash**: the node's lease ends. The others find out with their next heartbeat and take its shards.
//! - **Slow store**: a node that had no answer for a whole lease, counted from when it *sent* the last
//!   heartbeat that was answered, stops acting before others may take its shards. Who could not reach the
//!   store for a whole lease itself judges nobody dead: after a stall nobody is robbed.
//! - **Clock jump**: leases are decided by the store's clock; this node's deadline counts on a steady one.
//!
//! Nothing here waits or reads a clock: times are given, on the steady clock.

use std::time::Duration;

use kapell_model::{NodeId, SHARDS, Shard, ShardSet};
use kapell_store::{Beat, NodeAbout, NodeRow};

/// An instant on the steady clock, in microseconds since some beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    pub(crate) fn plus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// What a member is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it says of itself.
    pub about: NodeAbout,
    /// How long others wait for it.
    pub lease: Duration,
    /// How often it beats.
    pub beat: Duration,
}

/// What comes to it.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and none is kept"
)]
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The answer to the heartbeat under way.
    Beaten(kapell_store::Result<Beat>),
    /// Which shards the lane holds now, and no longer tries to take.
    Holds(ShardSet),
    /// It is to leave.
    Leave,
}

/// What it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Beat, with this said of it; answer [`Input::Beaten`].
    Beat(NodeAbout),
    /// Take these shards, whose owners may be these dead nodes; answer [`Input::Holds`].
    Take(ShardSet, Vec<NodeId>),
    /// Give these shards away; answer [`Input::Holds`].
    Give(ShardSet),
    /// The lease is over: nothing may be acted on, all memory is dropped; answer [`Input::Holds`] of none.
    Stop,
    /// It has given everything away and may be removed from the nodes.
    Leave,
}

/// How often shards are asked for that others still own.
const RETRY: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub struct Members {
    config: Config,
    now: Instant,
    nodes: Vec<NodeRow>,
    /// Those whose leases have ended.
    dead: Vec<NodeId>,
    /// When the heartbeat under way was sent.
    sent_at: Option<Instant>,
    next_beat: Instant,
    /// Until when it may act.
    until: Option<Instant>,
    /// Since when each heartbeat was answered in time.
    reached_since: Option<Instant>,
    wanted: ShardSet,
    /// The nodes by which that was found, and whether this one was leaving.
    wanted_by: (Vec<NodeId>, bool),
    holds: ShardSet,
    /// What the store may say is its own although it holds it not: it owned that when its lease ended, or was
    /// taking it. It takes that too, to give away what is not to be its own: nobody else can while it lives.
    doubtful: ShardSet,
    /// What it is taking.
    taking: ShardSet,
    /// A request to the lane is under way.
    asked: bool,
    next_take: Instant,
    left: bool,
    out: Vec<Output>,
}

impl Members {
    /// One that knows nobody yet: its first output is a heartbeat.
    pub fn new(config: Config, now: Instant) -> Self {
        let mut members = Self {
            config,
            now,
            nodes: Vec::new(),
            dead: Vec::new(),
            sent_at: None,
            next_beat: now,
            until: None,
            reached_since: None,
            wanted: ShardSet::default(),
            wanted_by: (Vec::new(), false),
            holds: ShardSet::default(),
            doubtful: ShardSet::default(),
            taking: ShardSet::default(),
            asked: false,
            next_take: now,
            left: false,
            out: Vec::new(),
        };
        members.beat();
        members
    }

    /// Takes one input; what it asks for then.
    pub fn on(&mut self, now: Instant, input: Input) -> Vec<Output> {
        self.now = self.now.max(now);
        // Before all else: the lane may have stopped by itself, and what it held is not forgotten by that.
        if self.until.is_some_and(|until| until <= self.now) {
            self.stop();
        }
        match input {
            Input::Tick => {}
            Input::Beaten(result) => self.beaten(result),
            Input::Holds(shards) => {
                self.holds = shards;
                self.asked = false;
                let taken = std::mem::take(&mut self.taking);
                self.doubtful = self.doubtful.without(&taken);
            }
            Input::Leave => {
                if !self.config.about.leaving {
                    self.config.about.leaving = true;
                    // Others hear of it at once.
                    self.next_beat = self.now;
                }
            }
        }
        if self.until.is_some_and(|until| until <= self.now) {
            self.stop();
        }
        if self.next_beat <= self.now {
            self.beat();
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    /// When it must be ticked at the latest.
    pub fn next_tick(&self) -> Instant {
        let beat = match self.sent_at {
            None => self.next_beat,
            Some(_) => Instant(u64::MAX),
        };
        let until = self.until.unwrap_or(Instant(u64::MAX));
        let lacks = self.until.is_some() && !self.asked && self.lacks();
        let take = if lacks {
            self.next_take
        } else {
            Instant(u64::MAX)
        };
        beat.min(until).min(take)
    }

    /// The nodes that are there, as far as it knows.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRow> {
        let dead = &self.dead;
        self.nodes
            .iter()
            .filter(move |node| !dead.contains(&node.about.id))
    }

    /// The node that owns a shard, or soon will.
    pub fn owner(&self, shard: Shard) -> Option<&NodeAbout> {
        self.candidates().max_by_key(|node| score(node.id, shard))
    }

    /// Until when it may act; none if it may not.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// True while it may act on the shards that it holds.
    pub fn may_act(&self) -> bool {
        self.until.is_some_and(|until| self.now < until)
    }

    /// True once it has given everything away.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// Nodes that shards go to: those that are leaving only if there are no others.
    fn candidates(&self) -> impl Iterator<Item = &NodeAbout> {
        let stays = self.nodes().any(|node| !node.about.leaving);
        self.nodes()
            .map(|node| &node.about)
            .filter(move |about| !stays || !about.leaving)
    }

    fn beat(&mut self) {
        if self.sent_at.is_some() || self.left {
            return;
        }
        self.sent_at = Some(self.now);
        self.next_beat = self.now.plus(self.config.beat);
        self.out.push(Output::Beat(self.config.about.clone()));
    }

    fn beaten(&mut self, result: kapell_store::Result<Beat>) {
        let Some(sent_at) = self.sent_at.take() else {
            return;
        };
        let beat = match result {
            Ok(beat) => beat,
            Err(error) => {
                tracing::warn!(%error, "a heartbeat was not written");
                return;
            }
        };
        let until = sent_at.plus(self.config.lease);
        if until <= self.now {
            // It came too late to be of use, and others may have judged by it.
            self.reached_since = None;
            return;
        }
        if self.until.is_none_or(|until| until <= self.now) {
            self.reached_since = Some(sent_at);
        }
        self.until = Some(until);
        let since = self.reached_since.unwrap_or(self.now);
        let judges = since.plus(self.config.lease) <= self.now;
        let me = self.config.about.id;
        self.dead = beat
            .nodes
            .iter()
            .filter(|node| judges && node.about.id != me && node.expires_at <= beat.now)
            .map(|node| node.about.id)
            .collect();
        self.nodes = beat.nodes;
        self.want();
    }

    /// Which shards it is to own, by who is there.
    fn want(&mut self) {
        let me = self.config.about.id;
        let candidates: Vec<NodeId> = self.candidates().map(|about| about.id).collect();
        let by = (candidates.clone(), self.config.about.leaving);
        if self.wanted_by == by {
            return;
        }
        self.wanted_by = by;
        if self.config.about.leaving && candidates.contains(&me) {
            // Nobody is left to give them to.
            self.wanted = ShardSet::default();
            return;
        }
        self.wanted = (0..SHARDS)
            .map(Shard)
            .filter(|shard| {
                let owner = candidates.iter().max_by_key(|node| score(**node, *shard));
                owner == Some(&me)
            })
            .collect();
    }

    fn lacks(&self) -> bool {
        !self.lacking().is_empty()
    }

    fn lacking(&self) -> ShardSet {
        self.wanted.with(&self.doubtful).without(&self.holds)
    }

    /// The lease is over before the store answered.
    fn stop(&mut self) {
        self.until = None;
        self.reached_since = None;
        self.wanted = ShardSet::default();
        self.wanted_by = (Vec::new(), false);
        self.asked = false;
        if !self.holds.is_empty() {
            tracing::error!("the store was not reached for a whole lease: nothing is acted on");
        }
        self.doubtful.extend(std::mem::take(&mut self.holds).iter());
        self.doubtful
            .extend(std::mem::take(&mut self.taking).iter());
        self.out.push(Output::Stop);
    }

    /// Takes what it lacks, gives what is no longer its own.
    fn settle(&mut self) {
        if self.asked || self.until.is_none() {
            return;
        }
        let extra = self.holds.without(&self.wanted);
        if !extra.is_empty() {
            self.asked = true;
            self.out.push(Output::Give(extra));
            return;
        }
        if self.config.about.leaving && self.holds.is_empty() && !self.left {
            self.left = true;
            self.out.push(Output::Leave);
            return;
        }
        if self.next_take <= self.now && self.lacks() && !self.left {
            self.asked = true;
            self.next_take = self.now.plus(RETRY);
            self.taking = self.lacking();
            let take = Output::Take(self.taking.clone(), self.dead.clone());
            self.out.push(take);
        }
    }
}

/// The node that owns each shard, by number, where these are there: as [`Members::owner`] says it.
pub fn owners<'a>(nodes: impl Iterator<Item = &'a NodeAbout>) -> Vec<Option<NodeId>> {
    let (leave, stay): (Vec<&NodeAbout>, Vec<_>) = nodes.partition(|node| node.leaving);
    let candidates = if stay.is_empty() { leave } else { stay };
    let owner = |shard| {
        let ids = candidates.iter().map(|node| node.id);
        ids.max_by_key(|id| score(*id, shard))
    };
    (0..SHARDS).map(Shard).map(owner).collect()
}

/// How much a node wants a shard: highest random weight, after Thaler and Ravishankar, "Using name-based
/// mappings to increase hit rates" (1998).
fn score(node: NodeId, shard: Shard) -> (u64, NodeId) {
    let seed = node.0 ^ (u64::from(shard.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (crate::lane::mix(seed), node)
}

#[cfg(test)]
mod tests;
