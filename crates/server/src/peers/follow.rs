//! Nodes tell each other of runs that changed, as long as somebody subscribes where it is not committed.
//!
//! Who follows is told first that something may have been missed, and again whenever something was: when a
//! connection was new, or too slow for what there was to tell. So a subscriber sees each change, or looks again.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use kapell_api::nodes::proto::frame::Kind;
use kapell_api::nodes::proto::{self, Changed, Frame};
use kapell_model::{RunId, limits};
use kapell_node::clock;
use kapell_store::{Commit, RunRow};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::Nodes;
use super::service::Out;
use crate::feed::{Feed, touched};

/// How long others are followed after the last subscriber went.
const LINGERS: Duration = Duration::from_mins(1);

/// How often it is looked who is to be told that it missed something, and whether anybody subscribes.
const LOOK: Duration = Duration::from_secs(1);

/// Who follows, and whether others are followed.
#[derive(Default)]
pub(super) struct Follow {
    /// What hears of others' changes.
    pub(super) feed: Arc<OnceLock<Arc<Feed>>>,
    /// When somebody subscribed last, while others are followed.
    wanted_at: Mutex<Option<Instant>>,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    last: u64,
    all: BTreeMap<u64, Follower>,
}

/// A node that follows this one.
struct Follower {
    out: Out,
    /// Places of what waits to be sent to it.
    places: Arc<Semaphore>,
    /// It was not told something.
    missed: bool,
}

impl Follow {
    /// True while others are followed.
    pub(super) fn is_on(&self) -> bool {
        self.wanted_at.lock().is_some()
    }

    /// Somebody subscribes; true if others are not followed yet.
    fn want(&self) -> bool {
        let now = clock::steady();
        self.wanted_at.lock().replace(now).is_none()
    }

    /// True if nobody subscribes for a while, and others are followed no more.
    fn is_over(&self) -> bool {
        let mut wanted_at = self.wanted_at.lock();
        let Some(since) = *wanted_at else {
            return false;
        };
        let now = clock::steady();
        if self.feed.get().is_some_and(|feed| feed.has_subscribers()) {
            *wanted_at = Some(now);
            return false;
        }
        if now.saturating_duration_since(since) < LINGERS {
            return false;
        }
        *wanted_at = None;
        true
    }

    /// A node follows this one over a connection from now on, or does no more; `number` is its own.
    pub(super) fn follower(&self, number: &mut Option<u64>, out: Option<Out>) {
        let mut followers = self.followers.lock();
        if let Some(number) = number.take() {
            followers.all.remove(&number);
        }
        let Some(out) = out else {
            return;
        };
        followers.last += 1;
        let mut follower = Follower {
            out,
            places: Arc::new(Semaphore::new(limits::NODE_HINTS)),
            missed: true,
        };
        follower.tell(&Changed::default());
        *number = Some(followers.last);
        let last = followers.last;
        followers.all.insert(last, follower);
    }

    /// Tells whoever follows what was committed.
    fn committed(&self, commit: &Commit) {
        let mut followers = self.followers.lock();
        if followers.all.is_empty() || commit.entities.is_empty() {
            return;
        }
        let rows = match serde_json::to_vec(&commit.runs) {
            Ok(rows) if rows.len() <= limits::NODE_MESSAGE_BYTES / 2 => Some(rows),
            Ok(_) | Err(_) => None,
        };
        let touched: Vec<u8> = touched(commit).flat_map(RunId::to_bytes).collect();
        let changed = Changed {
            missed: rows.is_none(),
            rows: rows.unwrap_or_default().into(),
            touched: touched.into(),
        };
        for follower in followers.all.values_mut() {
            follower.tell(&changed);
        }
    }

    /// Tells those that missed something, and were too slow to hear it then.
    fn look(&self) {
        let mut followers = self.followers.lock();
        for follower in followers
            .all
            .values_mut()
            .filter(|follower| follower.missed)
        {
            follower.tell(&Changed::default());
        }
    }
}

impl Follower {
    fn tell(&mut self, changed: &Changed) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.missed = true;
            return;
        };
        let changed = Changed {
            missed: changed.missed || std::mem::take(&mut self.missed),
            ..changed.clone()
        };
        let kind = Some(Kind::Changed(changed));
        // A connection that has ended is followed no more in a moment.
        let _ = self.out.send((Frame { kind }, place));
    }
}

/// That others are followed, or are no more.
pub(super) fn said(on: bool) -> Kind {
    Kind::Follow(proto::Follow { on })
}

/// Another node tells what changed there.
pub(super) fn hear(feed: &Feed, changed: &Changed) {
    let rows: Result<Vec<RunRow>, _> = match changed.rows.len() {
        0 => Ok(Vec::new()),
        _ => serde_json::from_slice(&changed.rows),
    };
    let (runs, rest) = changed.touched.as_chunks::<16>();
    match rows {
        Ok(rows) if !changed.missed && rest.is_empty() => {
            feed.take_changes(&rows, runs.iter().map(|id| RunId::from_bytes(*id)));
        }
        // A later version may tell it in another way.
        Ok(_) | Err(_) => feed.gap(),
    }
}

impl Nodes {
    /// Follows other nodes while somebody subscribes to this, and tells them what changes here.
    pub(crate) fn follow_for(self: &Arc<Self>, feed: &Arc<Feed>) {
        if self.follow.feed.set(Arc::clone(feed)).is_err() {
            return;
        }
        let nodes = Arc::downgrade(self);
        feed.when_wanted(Box::new(move || {
            if let Some(nodes) = nodes.upgrade()
                && nodes.follow.want()
            {
                nodes.hint(nodes.others(), &said(true));
            }
        }));
        let nodes = Arc::downgrade(self);
        self.node.watch_commits(Box::new(move |commit| {
            if let Some(nodes) = nodes.upgrade() {
                nodes.follow.committed(commit);
            }
        }));
        let looks = look(Arc::downgrade(self));
        if let Some(runtime) = &*self.runtime.lock() {
            runtime.spawn(looks);
        }
    }
}

async fn look(nodes: Weak<Nodes>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(nodes) = nodes.upgrade() else {
            return;
        };
        nodes.follow.look();
        if nodes.follow.is_over() {
            nodes.hint(nodes.others(), &said(false));
        }
    }
}
