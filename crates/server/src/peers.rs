//! The other nodes of a cluster: who they are, who owns what, and the links over which they are asked.
//!
//! Start reading at [`Nodes`], which whoever follows the membership tells who is there; then `link`, the way to
//! one of them, `service`, what answers on the other side, and `secret`, by which nodes know each other.
//!
//! A link is opened when there is something to say to a node, or at once where attempts are to reach its workers,
//! and kept until that node is gone. It carries asks with their answers; hints, which may be lost: mail is looked
//! for each second anyway, and a link that is opened anew counts as every hint at once; what is said of
//! attempts ([`crate::relaying`]); and questions to the other's server ([`question`]).
//!
//! - **Crash** of a node: its links end at once, or within [`link::SILENCE`] where nobody says so; what was
//!   asked on them is answered as unknown.
//! - **Slow node**: asks under way at it are bounded, and each has a deadline.
//! - **Slow store**: the key of nodes is read when a link is opened; until it is there the link is not.
//! - **Clock jump**: deadlines count on a clock that does not jump.

mod follow;
mod link;
pub(crate) mod question;
mod secret;
mod service;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use kapell_api::nodes::proto::frame::Kind;
use kapell_model::{Error, ErrorCode, NodeId, SHARDS, Shard, limits};
use kapell_node::drive::{FromPeer, Node, Owner, Peers, Unanswered};
use kapell_node::members;
use kapell_node::relay::Word;
use kapell_store::{NodeAbout, NodeRow, Store};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Runtime;

use link::Link;
use secret::Secret;
pub(crate) use service::routes;

use crate::relaying::Relaying;

/// See the module.
pub struct Nodes {
    me: NodeId,
    secret: Arc<Secret>,
    /// Certificates that nodes may show beside those that the system trusts.
    ca: Option<PathBuf>,
    /// This node, for what others ask of it.
    node: Node,
    known: RwLock<Known>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    follow: follow::Follow,
    /// What sends attempts to workers of other nodes.
    relaying: Arc<OnceLock<Weak<Relaying>>>,
    /// What answers questions of other servers.
    answers: OnceLock<question::Answers>,
    /// Runs the links. None once it has ended.
    runtime: Mutex<Option<Runtime>>,
}

/// What was said last of who is there.
#[derive(Default)]
struct Known {
    rows: Vec<NodeRow>,
    /// By number of the shard.
    owners: Vec<Option<NodeId>>,
}

impl Nodes {
    /// Nodes that share a store with this one. `node` asks them from now on; whoever they are is said by
    /// [`Nodes::heard`].
    ///
    /// # Errors
    /// Codes of the store, from which the key of nodes is read or to which it is written; `internal` if no
    /// thread could be started.
    pub fn start(
        me: NodeId,
        store: Arc<dyn Store>,
        node: Node,
        ca: Option<PathBuf>,
    ) -> Result<Arc<Self>, Error> {
        let no_thread = |error: std::io::Error| {
            Error::new(
                ErrorCode::Internal,
                format!("no thread for other nodes: {error}"),
            )
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kapell-nodes")
            .enable_all()
            .build()
            .map_err(no_thread)?;
        let nodes = Arc::new(Self {
            me,
            secret: Arc::new(Secret::open(store)?),
            ca,
            node: node.clone(),
            known: RwLock::default(),
            links: Mutex::default(),
            follow: follow::Follow::default(),
            relaying: Arc::default(),
            answers: OnceLock::new(),
            runtime: Mutex::new(Some(runtime)),
        });
        let asked = Arc::downgrade(&nodes);
        node.join(Arc::new(Seen(asked))).map_err(no_thread)?;
        Ok(nodes)
    }

    /// Who is there now, this node among them, without those whose lease has ended.
    pub fn heard(&self, rows: Vec<NodeRow>) {
        let same = {
            let known = self.known.read();
            let before = known.rows.iter().map(|row| &row.about);
            before.eq(rows.iter().map(|row| &row.about))
        };
        let owners = (!same).then(|| members::owners(rows.iter().map(|row| &row.about)));
        let mut known = self.known.write();
        known.rows = rows;
        let Some(owners) = owners else {
            return;
        };
        known.owners = owners;
        let there: BTreeMap<NodeId, String> = known
            .rows
            .iter()
            .map(|row| (row.about.id, row.about.address.clone()))
            .collect();
        drop(known);
        let relaying = self.relaying.get().and_then(Weak::upgrade);
        if let Some(relaying) = &relaying {
            relaying.nodes(self.others().into_iter().collect());
        }
        let mut links = self.links.lock();
        let gone: Vec<Arc<Link>> = links
            .extract_if(.., |id, link| {
                there.get(id).is_none_or(|address| *address != link.address)
            })
            .map(|(_, link)| link)
            .collect();
        drop(links);
        for link in gone {
            link.close();
        }
        if self.follow.is_on() || relaying.is_some() {
            // Those that came are followed too, and hear of attempts.
            for id in self.others() {
                self.link(id);
            }
        }
    }

    /// Attempts go through this to workers of other nodes, and come through it from others. Once, at the start.
    pub(crate) fn relay_through(&self, relaying: &Arc<Relaying>) {
        // Whoever says it twice keeps the first.
        let _ = self.relaying.set(Arc::downgrade(relaying));
    }

    /// Says something of attempts to a node.
    pub(crate) fn tell(&self, node: NodeId, word: Word) {
        if let Some(link) = self.link(node) {
            link.work(words::encoded(word));
        }
    }

    /// Who is there, by id, and how many shards each is to own.
    pub(crate) fn list(&self) -> Vec<(NodeRow, usize)> {
        let known = self.known.read();
        let mut shards: BTreeMap<NodeId, usize> = BTreeMap::new();
        for owner in known.owners.iter().flatten() {
            *shards.entry(*owner).or_default() += 1;
        }
        let rows = known.rows.iter();
        rows.map(|row| (row.clone(), shards.get(&row.about.id).copied().unwrap_or(0)))
            .collect()
    }

    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    /// Addresses of the nodes that stay, this one among them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let known = self.known.read();
        let stay = known.rows.iter().filter(|row| !row.about.leaving);
        stay.map(|row| row.about.address.clone()).collect()
    }

    /// Ends all links: what is asked on them is answered as unknown.
    pub fn stop(&self) {
        let links = std::mem::take(&mut *self.links.lock());
        for link in links.into_values() {
            link.close();
        }
        let runtime = self.runtime.lock().take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }

    /// The link to a node, opened if need be; none if there is no such node.
    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        if let Some(link) = self.links.lock().get(&to) {
            return Some(Arc::clone(link));
        }
        let about = self.about(to)?;
        let mut links = self.links.lock();
        if let Some(link) = links.get(&to) {
            return Some(Arc::clone(link));
        }
        if links.len() >= limits::NODES {
            return None;
        }
        let hears = (Arc::clone(&self.follow.feed), Arc::clone(&self.relaying));
        let link = Arc::new(Link::new((self.me, to), about.address, hears));
        if self.follow.is_on() {
            link.hint(&follow::said(true));
        }
        let runtime = self.runtime.lock();
        let keeping = link::keep(Arc::clone(&link), Arc::clone(&self.secret), self.ca.clone());
        runtime.as_ref()?.spawn(keeping);
        links.insert(to, Arc::clone(&link));
        Some(link)
    }

    fn about(&self, id: NodeId) -> Option<NodeAbout> {
        let known = self.known.read();
        let row = known.rows.iter().find(|row| row.about.id == id);
        row.map(|row| row.about.clone())
    }

    fn others(&self) -> Vec<NodeId> {
        let known = self.known.read();
        let others = known.rows.iter().map(|row| row.about.id);
        others.filter(|id| *id != self.me).collect()
    }

    pub(crate) fn owner(&self, shard: Shard) -> Owner {
        let known = self.known.read();
        match known.owners.get(usize::from(shard.0 % SHARDS)) {
            Some(Some(id)) if *id == self.me => Owner::Here,
            Some(Some(id)) => Owner::There(*id),
            Some(None) | None => Owner::Nobody,
        }
    }

    fn hint(&self, to: impl IntoIterator<Item = NodeId>, kind: &Kind) {
        for id in to {
            if let Some(link) = self.link(id) {
                link.hint(kind);
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the node sees of them. It keeps nothing alive.
struct Seen(std::sync::Weak<Nodes>);

impl Peers for Seen {
    fn owner(&self, shard: Shard) -> Owner {
        let nodes = self.0.upgrade();
        nodes.map_or(Owner::Nobody, |nodes| nodes.owner(shard))
    }

    fn ask(&self, node: NodeId, request: Vec<u8>, answer: FromPeer) {
        match self.0.upgrade().and_then(|nodes| nodes.link(node)) {
            Some(link) => link.ask(request, answer),
            None => answer(Err(Unanswered::NotSent)),
        }
    }

    fn rang(&self, shards: &BTreeSet<Shard>) {
        let Some(nodes) = self.0.upgrade() else {
            return;
        };
        let owners: BTreeSet<NodeId> = shards
            .iter()
            .filter_map(|shard| match nodes.owner(*shard) {
                Owner::There(id) => Some(id),
                Owner::Here | Owner::Nobody => None,
            })
            .collect();
        nodes.hint(owners, &Kind::Rang(kapell_api::nodes::proto::Rang {}));
    }

    fn versions_changed(&self) {
        if let Some(nodes) = self.0.upgrade() {
            let kind = Kind::VersionsChanged(kapell_api::nodes::proto::VersionsChanged {});
            nodes.hint(nodes.others(), &kind);
        }
    }
}
