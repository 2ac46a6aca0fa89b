//! Links between nodes: a connection after another each way, which carries what is said in order.
//!
//! What is said into a cut of a moment arrives when that is over. A longer one ends the connection: whoever
//! speaks notices after a while, and what was asked on it is unknown then.

use std::collections::{BTreeMap, BTreeSet};

use kapell_model::{NodeId, Shard};
use kapell_node::relay::Word;

use super::Cluster;
use super::node::Step;

/// A connection on which nothing is heard for so long is given up.
const SILENCE: i64 = 4_000_000;

/// How long a connection may take to be made.
const CONNECT: i64 = 3_000_000;

/// A link of a node to another one.
#[derive(Default)]
pub(super) struct Link {
    /// The connection; none yet.
    pub(super) number: Option<u64>,
    /// Words are said on it.
    open: bool,
    /// It carries nothing more, and that is not noticed yet.
    dead: bool,
    free: i64,
    back: i64,
    /// What was asked on it and is not answered, and which request that is.
    pub(super) asks: BTreeMap<u64, u64>,
}

impl Cluster<'_> {
    /// Where a process is, if it is there.
    fn place(&self, id: NodeId) -> Option<usize> {
        let (at, life) = *self.places.get(&id)?;
        let node = &self.nodes[at];
        (node.life == life && node.process.is_some()).then_some(at)
    }

    /// Until when what one says to another is lost.
    fn parted_until(&self, from: usize, to: usize) -> i64 {
        self.parted.get(&(from, to)).copied().unwrap_or(0)
    }

    fn is_parted(&self, from: usize, to: usize) -> bool {
        let until = self.parted_until(from, to).max(self.parted_until(to, from));
        until > self.now
    }

    pub(super) fn connect_link(&mut self, at: usize, to: NodeId) {
        let wire = self.scenario.knobs.wire;
        let there = self.place(to);
        let Some(link) = self.process(at).and_then(|own| own.links.get(&to)) else {
            return;
        };
        if link.number.is_some() {
            return;
        }
        let there = there.filter(|there| {
            !self.is_parted(at, *there) && self.nodes[*there].paused_until <= self.now
        });
        let Some(there) = there else {
            let after = self.rng.magnitude(20_000, CONNECT);
            self.later(at, after, Step::Connect(to));
            return;
        };
        self.last_link += 1;
        let number = self.last_link;
        let (from, now) = (self.process(at).map(|own| own.id), self.now);
        let (go, back) = (self.rng.between(1, wire), self.rng.between(1, wire));
        if let Some(link) = self.process(at).and_then(|own| own.links.get_mut(&to)) {
            *link = Link {
                number: Some(number),
                free: now + go,
                back: now + go + back,
                ..Link::default()
            };
        }
        self.later(there, go, Step::Comes(from.unwrap_or_default(), number));
        self.later(at, go + back, Step::Opened(to, number));
    }

    /// A node has connected.
    pub(super) fn link_comes(&mut self, at: usize, from: NodeId, number: u64) {
        if let Some(process) = self.process(at) {
            process.last.insert(from, number);
        }
        // What it could not say while there was no link it means now.
        self.later(at, 0, Step::Rang);
        self.later(at, 0, Step::VersionsChanged);
    }

    pub(super) fn link_opened(&mut self, at: usize, to: NodeId, number: u64) {
        let link = self.process(at).and_then(|own| own.links.get_mut(&to));
        let Some(link) = link.filter(|link| link.number == Some(number)) else {
            return;
        };
        link.open = true;
        self.with_relay(at, |relay| relay.opened(to));
    }

    /// A connection has ended, or its node is gone.
    pub(super) fn close_link(&mut self, at: usize, to: NodeId, number: Option<u64>) {
        let Some(process) = self.process(at) else {
            return;
        };
        let Some(link) = process.links.get_mut(&to) else {
            return;
        };
        if number.is_some() && link.number != number {
            return;
        }
        let asks: Vec<u64> = std::mem::take(&mut link.asks).into_values().collect();
        if number.is_some() {
            *link = Link::default();
            let after = self.rng.magnitude(20_000, 1_000_000);
            self.later(at, after, Step::Connect(to));
        } else {
            process.links.remove(&to);
        }
        for ask in asks {
            self.unanswered(ask);
        }
    }

    /// When what is said on a link arrives, and where; none if it is lost or there is no connection.
    fn way(&mut self, at: usize, to: NodeId) -> Option<(usize, i64, u64)> {
        let there = self.place(to);
        let (now, wire) = (self.now, self.scenario.knobs.wire);
        let parted = there.map_or(0, |there| self.parted_until(at, there));
        let span = self.rng.between(1, wire);
        let link = self.process(at)?.links.get_mut(&to)?;
        let number = link.number?;
        if link.dead {
            return None;
        }
        if there.is_none() || parted > now + SILENCE {
            link.dead = true;
            self.later(at, SILENCE, Step::Close(to, number));
            return None;
        }
        link.free = link.free.max(now + span).max(parted);
        let after = link.free - now;
        there.map(|there| (there, after, number))
    }

    /// Says something of attempts.
    pub(super) fn tell(&mut self, at: usize, to: NodeId, word: Word) {
        let (kind, size) = measure(&word);
        let count = self.counts.words.entry(kind).or_default();
        *count = (count.0 + 1, count.1 + size);
        let Some(process) = self.process(at) else {
            return;
        };
        let from = process.id;
        // Without a connection it is said anew when there is one.
        if !process.links.get(&to).is_some_and(|link| link.open) {
            return;
        }
        if let Some((there, after, number)) = self.way(at, to) {
            self.later(there, after, Step::Word(from, number, word));
        }
    }

    pub(super) fn hears_word(&mut self, at: usize, from: NodeId, number: u64, word: Word) {
        let last = self
            .process(at)
            .and_then(|own| own.last.get(&from).copied());
        // A newer connection of the same node counts.
        if last == Some(number) && !self.is_deaf_to(&word) {
            self.note(|| {
                let text = format!("{word:?}");
                let text: String = text.chars().take(300).collect();
                format!("{at} hears {from}: {text}")
            });
            self.with_relay(at, |relay| relay.hear(from, word));
        }
    }

    /// Asks a node; false if there is no connection.
    pub(super) fn ask_node(&mut self, at: usize, to: NodeId, ask: u64, bytes: Vec<u8>) -> bool {
        self.replies += 1;
        let name = self.replies;
        let Some(process) = self.process(at) else {
            return false;
        };
        let from = process.id;
        let Some(link) = process.links.get_mut(&to).filter(|link| link.open) else {
            return false;
        };
        link.asks.insert(name, ask);
        if let Some((there, after, number)) = self.way(at, to) {
            self.later(there, after, Step::Asked(from, number, name, bytes));
        }
        true
    }

    /// The answer to a node that asked on a connection.
    pub(super) fn answer_node(
        &mut self,
        at: usize,
        to: NodeId,
        (number, ask): (u64, u64),
        bytes: Vec<u8>,
    ) {
        let (now, wire) = (self.now, self.scenario.knobs.wire);
        let (Some(there), Some(from)) = (self.place(to), self.process(at).map(|own| own.id)) else {
            return;
        };
        let parted = self.parted_until(at, there);
        let span = self.rng.between(1, wire);
        let link = self.process(there).and_then(|own| own.links.get_mut(&from));
        let Some(link) = link.filter(|link| link.number == Some(number)) else {
            return;
        };
        if parted > now + SILENCE {
            // Whoever asked notices.
            link.dead = true;
            self.later(there, SILENCE, Step::Close(from, number));
            return;
        }
        link.back = link.back.max(now + span).max(parted);
        let after = link.back - now;
        self.later(there, after, Step::Told(from, number, ask, bytes));
    }

    /// Says to whoever owns these that messages may have come. It may be lost.
    pub(super) fn ring(&mut self, at: usize, shards: &BTreeSet<Shard>) {
        let Some(process) = self.process(at) else {
            return;
        };
        let me = process.id;
        let owners = shards.iter().filter_map(|shard| process.owner(*shard));
        let owners: BTreeSet<NodeId> = owners.filter(|owner| *owner != me).collect();
        for owner in owners {
            if let Some((there, after, _)) = self.way(at, owner) {
                self.later(there, after, Step::Rang);
            }
        }
    }

    /// A version was registered, at any node: all hear of it.
    pub(super) fn versions_changed(&mut self) {
        for at in 0..self.nodes.len() {
            let after = self.rng.between(1, self.scenario.knobs.wire);
            self.later(at, after, Step::VersionsChanged);
        }
    }

    /// A way is cut: whoever has a connection over it, in either direction, notices.
    pub(super) fn part(&mut self, from: usize, to: usize, span: i64) {
        let until = self.now + span;
        let known = self.parted.entry((from, to)).or_default();
        *known = until.max(*known);
        if span <= SILENCE {
            return;
        }
        for (speaks, hears) in [(from, to), (to, from)] {
            let id = self.process(hears).map(|own| own.id);
            let link = id.and_then(|id| self.process(speaks)?.links.get(&id));
            let (Some(number), Some(id)) = (link.and_then(|link| link.number), id) else {
                continue;
            };
            let after = self.rng.between(SILENCE / 2, SILENCE);
            self.later(speaks, after, Step::Close(id, number));
        }
    }

    /// A process stands still: others find its connections dead, if it does so for long.
    pub(super) fn links_pause(&mut self, at: usize, span: i64) {
        if span > SILENCE {
            self.links_close(at, SILENCE);
        }
    }

    /// A process has ended: some notice at once.
    pub(super) fn links_end(&mut self, at: usize, id: NodeId) {
        for other in 0..self.nodes.len() {
            let link = self.process(other).and_then(|own| own.links.get_mut(&id));
            let Some(link) = link.filter(|_| other != at) else {
                continue;
            };
            let Some(number) = link.number else { continue };
            link.dead = true;
            let after = if self.rng.chance(700) { 1_000 } else { SILENCE };
            self.later(other, after, Step::Close(id, number));
        }
    }

    fn links_close(&mut self, at: usize, after: i64) {
        let Some(id) = self.process(at).map(|own| own.id) else {
            return;
        };
        for other in 0..self.nodes.len() {
            let link = self.process(other).and_then(|own| own.links.get(&id));
            if let Some(number) = link.and_then(|link| link.number) {
                self.later(other, after, Step::Close(id, number));
            }
        }
    }
}

/// The kind of a word, and how much it names.
fn measure(word: &Word) -> (&'static str, u64) {
    let (kind, size) = match word {
        Word::Again => ("again", 1),
        Word::Offer(tasks) => ("offer", tasks.len()),
        Word::Got(names) => ("got", names.len()),
        Word::Stop(names) => ("stop", names.len()),
        Word::Taken(names) => ("taken", names.len()),
        Word::Reports(reports) => ("reports", reports.len()),
        Word::Sessions(sessions) => ("sessions", sessions.len()),
        Word::Session(_, change) => return change_of(change),
        Word::Wants(wants) => ("wants", wants.len()),
        Word::Took(_, shards) => ("took", shards.len()),
        Word::Holds(_, _, holds) => ("holds", holds.len()),
        Word::Told(_) => ("told", 1),
    };
    (kind, size as u64)
}

fn change_of(change: &kapell_node::lane::SessionChange) -> (&'static str, u64) {
    use kapell_node::lane::SessionChange;
    match change {
        SessionChange::Unheard(_) => ("session unheard", 1),
        SessionChange::Open { holds, .. } => ("session open", 1 + holds.len() as u64),
        SessionChange::Seat(_) => ("session seat", 1),
        SessionChange::Holds(holds) => ("session holds", holds.len() as u64),
        SessionChange::Over => ("session over", 1),
    }
}
