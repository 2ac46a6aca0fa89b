//! The one store: what it does for whom, how long that takes, and what becomes of it.

use std::sync::Arc;

use kapell_expr::BlobRef;
use kapell_model::NodeId;
use kapell_node::lane::{Input, Output};
use kapell_node::perform;
use kapell_store::{Cluster as _, Commit, Error, Lease, NodeAbout, Result};

use super::node::Step;
use super::owners::Who;
use super::{Cluster, Happening};
use crate::scenario::Fate;
use crate::writer::Next;

/// The longest that a slow store takes.
const SLOWEST: i64 = 30_000_000;

/// How long whoever does not reach the store waits for it at most.
const TIMEOUT: i64 = 5_000_000;

/// The answer did not come.
pub(super) fn lost() -> Error {
    Error::Unavailable("the answer was lost".to_owned())
}

/// What a read is answered with that was not done.
fn failed(output: &Output) -> Option<Input> {
    Some(match output {
        Output::Acquire(..) => Input::Acquired(Err(lost())),
        Output::Release(leases) => Input::Released(leases.clone(), Err(lost())),
        Output::Load(key) => Input::Loaded(key.clone(), Err(lost())),
        Output::LoadVersion(key) => Input::Version(key.clone(), Err(lost())),
        Output::LoadContent(key, reference) => {
            Input::Content(key.clone(), reference.clone(), Err(lost().to_string()))
        }
        Output::FindDue(..) => Input::Due(Err(lost())),
        Output::FindActive(key) => Input::Active(key.clone(), Err(lost())),
        Output::FindMail(_) => Input::Mail(Err(lost())),
        Output::FindHeard => Input::Heard(Err(lost())),
        _ => return None,
    })
}

/// The same of one whose answer is on its way.
fn unanswered(input: Input) -> Input {
    match input {
        Input::Acquired(_) => Input::Acquired(Err(lost())),
        Input::Released(leases, _) => Input::Released(leases, Err(lost())),
        Input::Loaded(key, _) => Input::Loaded(key, Err(lost())),
        Input::Version(key, _) => Input::Version(key, Err(lost())),
        Input::Content(key, reference, _) => {
            Input::Content(key, reference, Err(lost().to_string()))
        }
        Input::Due(_) => Input::Due(Err(lost())),
        Input::Active(key, _) => Input::Active(key, Err(lost())),
        Input::Mail(_) => Input::Mail(Err(lost())),
        Input::Heard(_) => Input::Heard(Err(lost())),
        input => input,
    }
}

impl Cluster<'_> {
    pub(super) fn store_micros(&mut self, most: i64) -> i64 {
        let micros = self.rng.magnitude(1, most.max(2));
        let stalls = (self.stalled_until - self.now).max(0);
        stalls
            + if self.now < self.slow_until {
                micros.saturating_mul(self.slow).min(SLOWEST)
            } else {
                micros
            }
    }

    /// True if a node does not reach the store now.
    fn is_away(&self, at: usize) -> bool {
        self.nodes[at].away_until > self.now || self.down_until > self.now
    }

    /// Reads are done one after another.
    pub(super) fn plan_read(&mut self, at: usize, output: Output) {
        if let Output::Release(leases) = &output {
            let shards = leases.iter().map(|lease| lease.shard).collect();
            self.with_relay(at, |relay| relay.gave(&shards));
        }
        let after = self.store_micros(self.scenario.knobs.read);
        let now = self.now;
        let Some(process) = self.process(at) else {
            return;
        };
        process.reader_free = process.reader_free.max(now) + after;
        let after = process.reader_free - now;
        self.later(at, after, Step::Read(output));
    }

    pub(super) fn read(&mut self, at: usize, output: Output) {
        if self.stalled_until > self.now {
            let after = self.stalled_until - self.now + self.rng.between(1, 1_000);
            self.later(at, after, Step::Read(output));
            return;
        }
        let away = self.is_away(at);
        let waits = if away {
            self.rng.magnitude(1_000, TIMEOUT)
        } else {
            self.rng.between(1, 200)
        };
        let input = if away {
            let input = failed(&output);
            // It may have been heard, and only its answer not.
            if self.down_until <= self.now && self.rng.chance(300) {
                self.perform(at, output);
            }
            input
        } else {
            self.perform(at, output)
        };
        let Some(input) = input else { return };
        let now = self.now;
        let store_life = self.store_life;
        let Some(process) = self.process(at) else {
            return;
        };
        process.answers_at = process.answers_at.max(now) + waits;
        process.reader_free = process.reader_free.max(process.answers_at);
        let after = process.answers_at - now;
        self.later(at, after, Step::Answer(store_life, input));
    }

    /// Does what is asked.
    fn perform(&mut self, at: usize, output: Output) -> Option<Input> {
        let who = (at, self.nodes[at].life);
        self.store.set_now(self.wall());
        let released = match &output {
            Output::Release(leases) => leases.clone(),
            _ => Vec::new(),
        };
        self.robs(at, &output);
        let store = self.store.clone();
        let process = self.nodes[at].process.as_mut()?;
        let among: (Arc<dyn kapell_store::Cluster>, NodeId) = (Arc::new(store), process.id);
        let plans = &mut process.plans;
        let input = perform::read(&self.store, &self.blobs, plans, Some(&among), output)?;
        if let Input::Acquired(Ok(leases)) = &input {
            self.took(who, leases);
        }
        self.owners.gave(who, &released);
        Some(self.spoil_input(input))
    }

    /// Whoever takes shards owns them: from here on the ones before cannot write.
    fn took(&mut self, who: Who, leases: &[Lease]) {
        self.checks.acquired(leases);
        self.counts.shards += leases.len() as u64;
        self.counts.takes += u64::from(!leases.is_empty());
        let nodes = &self.nodes;
        let lives = |(at, life): Who| {
            nodes
                .get(at)
                .is_some_and(|node| node.life == life && node.process.is_some())
        };
        let since = self.now - 2 * self.about.lease;
        let verdict = self.owners.took(who, leases, lives, since);
        self.judge(verdict);
    }

    /// The answer to a read has come.
    pub(super) fn store_answers(&mut self, at: usize, of: u64, input: Input) {
        let input = if of == self.store_life {
            input
        } else {
            unanswered(input)
        };
        let Input::Acquired(Ok(leases)) = &input else {
            self.give_lane(at, input);
            return;
        };
        if leases.is_empty() {
            self.give_lane(at, input);
            return;
        }
        let leases = leases.clone();
        self.knows_sessions(at);
        self.with_relay(at, |relay| relay.took(&leases));
        self.tell_lane(at, input);
        let now = self.now;
        let after = self
            .process(at)
            .map_or(0, |process| process.answers_at - now);
        self.later(at, after, Step::Asks(leases));
    }

    /// The relay of a node hears which sessions the store knows.
    pub(super) fn knows_sessions(&mut self, at: usize) {
        if self.forgets_sessions() {
            return;
        }
        let rows: Vec<_> = self.rows.iter().map(|(id, row)| (*id, *row)).collect();
        for (id, (worker, home)) in rows {
            let queues = self.scenario.far[worker].queues();
            self.with_relay(at, |relay| relay.known(id, home, queues));
        }
    }

    pub(super) fn beat(&mut self, at: usize, about: &NodeAbout) {
        if self.stalled_until > self.now {
            let after = self.stalled_until - self.now + self.rng.between(1, 1_000);
            self.later(at, after, Step::Beat(about.clone()));
            return;
        }
        let away = self.is_away(at);
        self.store.set_now(self.wall());
        let lease = u64::try_from(self.about.lease).unwrap_or(1);
        let beats = !away || self.down_until <= self.now && self.rng.chance(300);
        self.note(|| format!("{at} beats: {beats}"));
        let result = if beats {
            self.store
                .beat(about, std::time::Duration::from_micros(lease))
        } else {
            Err(lost())
        };
        let (result, after) = if away {
            let after = self.rng.magnitude(1_000, TIMEOUT);
            let who = (at, self.nodes[at].life);
            self.owners.troubled(who, self.now + after);
            (Err(lost()), after)
        } else {
            (result, self.rng.between(1, 1_000))
        };
        self.later(at, after, Step::Beaten(self.store_life, result));
    }

    /// A node has given everything away.
    pub(super) fn left_store(&mut self, at: usize) {
        if let Some(process) = &self.nodes[at].process
            && !self.is_away(at)
        {
            // If it cannot say so, its lease ends instead.
            let _ = self.store.leave(process.id);
        }
        self.goes(at);
    }

    pub(super) fn commit(
        &mut self,
        who: Who,
        commit: &Commit,
        contents: &[(BlobRef, Vec<u8>)],
    ) -> Result<()> {
        let fenced = self.checks.may_write(commit);
        let spoilt = self.spoil_commit(commit);
        let sent = spoilt.as_ref().unwrap_or(commit);
        let result = perform::commit(&self.store, &self.blobs, contents, sent);
        match &result {
            Ok(()) => {
                if !fenced {
                    self.fail(
                        "fence",
                        "a commit landed although its shards were taken over",
                    );
                }
                self.commits += 1;
                if self.sink.is_some() {
                    for line in crate::check::facts(commit) {
                        self.note(|| line);
                    }
                }
                let verdict = self.owners.committed(who, commit);
                self.judge(verdict);
                let verdict = self.checks.landed(commit, &self.store, &self.worker);
                self.judge(verdict);
            }
            Err(Error::Conflict(_)) if !fenced => {}
            Err(error) => self.fail("commit", format!("the store refuses a commit: {error}")),
        }
        result
    }

    /// The thread of a node that commits goes on.
    pub(super) fn write(&mut self, at: usize, next: Vec<Next>) {
        for next in next {
            match next {
                Next::Send(write) => {
                    let fate = self.fates.pop_front();
                    let after = self.store_micros(self.scenario.knobs.commit);
                    let life = self.nodes[at].life;
                    let land = Happening::Land(at, life, write.commit, write.contents, fate);
                    self.plan(after, land);
                }
                Next::Refuse => {
                    self.note(|| "a commit is refused: the one before failed".to_owned());
                    self.give_lane(at, Input::Committed(Err(perform::follows_failed())));
                }
            }
        }
    }

    pub(super) fn land(
        &mut self,
        (at, life): Who,
        commit: Arc<Commit>,
        contents: Vec<(BlobRef, Vec<u8>)>,
        fate: Option<Fate>,
    ) {
        if self.stalled_until > self.now {
            let after = self.stalled_until - self.now + self.rng.between(1, 1_000);
            self.plan(after, Happening::Land(at, life, commit, contents, fate));
            return;
        }
        if self.nodes[at].life != life {
            // The process is dead; what it had sent may still arrive.
            if self.rng.chance(500) && self.down_until <= self.now {
                let result = self.commit((at, life), &commit, &contents);
                self.note(|| format!("a commit of the dead lands: {result:?}"));
            }
            return;
        }
        let away = self.is_away(at);
        let fate = match fate {
            _ if self.down_until > self.now => Some(Fate::Never),
            None if away => Some(*self.rng.pick(&[Fate::Never, Fate::Never, Fate::Landed])),
            fate => fate,
        };
        let result = match fate {
            None => self.commit((at, life), &commit, &contents),
            Some(Fate::Landed) => {
                let result = self.commit((at, life), &commit, &contents);
                self.note(|| format!("a commit lands and its answer is lost: {result:?}"));
                Err(lost())
            }
            Some(Fate::Never) => Err(lost()),
            Some(Fate::Later) => {
                let after = self.rng.magnitude(100, 5_000_000);
                self.plan(after, Happening::LateLand(at, life, commit, contents));
                Err(lost())
            }
        };
        let after = if away {
            self.rng.magnitude(1_000, TIMEOUT)
        } else {
            self.store_micros(self.scenario.knobs.commit)
        };
        self.later(at, after, Step::Committed(self.store_life, result));
    }
}
