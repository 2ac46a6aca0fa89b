//! Reads and commits: their latencies, and what becomes of them.

use std::sync::Arc;

use kapell_expr::BlobRef;
use kapell_node::lane::{Input, Output};
use kapell_node::perform;
use kapell_store::{Commit, Error};

use super::{Happening, World};
use crate::scenario::Fate;
use crate::writer::Next;

fn no_room() -> Error {
    Error::Full("no room".to_owned())
}

impl World<'_> {
    pub(super) fn store_micros(&mut self, most: i64) -> i64 {
        let micros = self.rng.magnitude(1, most.max(2));
        if self.now < self.slow_until {
            micros.saturating_mul(self.slow).min(30_000_000)
        } else {
            micros
        }
    }

    pub(super) fn read(&mut self, life: u64, output: Output) {
        if life != self.life {
            return;
        }
        let unavailable = || Error::Unavailable("reads fail for a while".to_owned());
        // Acquiring writes: a little may still fit.
        let full = self.now < self.full_until
            && matches!(output, Output::Acquire(..))
            && self.rng.chance(700);
        let input = if self.now < self.reads_until {
            match output {
                Output::Acquire(..) => Some(Input::Acquired(Err(unavailable()))),
                Output::Load(key) => Some(Input::Loaded(key, Err(unavailable()))),
                Output::LoadVersion(key) => Some(Input::Version(key, Err(unavailable()))),
                Output::LoadContent(key, reference) => Some(Input::Content(
                    key,
                    reference,
                    Err(unavailable().to_string()),
                )),
                Output::FindDue(..) => Some(Input::Due(Err(unavailable()))),
                Output::FindActive(key) => Some(Input::Active(key, Err(unavailable()))),
                Output::FindMail(_) => Some(Input::Mail(Err(unavailable()))),
                Output::FindHeard => Some(Input::Heard(Err(unavailable()))),
                _ => None,
            }
        } else if full {
            Some(Input::Acquired(Err(no_room())))
        } else {
            perform::read(&self.store, &self.blobs, &mut self.plans, None, output)
        };
        if let Some(input) = input {
            // Whoever reads takes over: from here on the ones before cannot write.
            if let Input::Acquired(Ok(leases)) = &input {
                self.checks.acquired(leases);
            }
            // Answers come in the order in which they were asked.
            self.answers_at = self.answers_at.max(self.now) + self.rng.between(1, 200);
            let after = self.answers_at - self.now;
            self.plan(after, Happening::ToLane(life, Box::new(input)));
        }
    }

    pub(super) fn commit(
        &mut self,
        commit: &Commit,
        contents: &[(BlobRef, Vec<u8>)],
    ) -> kapell_store::Result<()> {
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
                let verdict = self.checks.landed(commit, &self.store, &self.worker);
                self.judge(verdict);
            }
            Err(Error::Conflict(_)) if !fenced => {}
            Err(error) => self.fail("commit", format!("the store refuses a commit: {error}")),
        }
        result
    }

    pub(super) fn land(
        &mut self,
        life: u64,
        commit: Arc<Commit>,
        contents: Vec<(BlobRef, Vec<u8>)>,
        fate: Option<Fate>,
    ) {
        if life != self.life {
            // The process is dead; what it had sent may still arrive.
            if self.rng.chance(500) {
                let result = self.commit(&commit, &contents);
                self.note(|| format!("a commit of the dead lands: {result:?}"));
            }
            return;
        }
        let unknown = || Error::Unavailable("the answer was lost".to_owned());
        let result = if self.now < self.full_until {
            Err(no_room())
        } else {
            match fate {
                None => self.commit(&commit, &contents),
                Some(Fate::Landed) => {
                    let result = self.commit(&commit, &contents);
                    self.note(|| format!("a commit lands and its answer is lost: {result:?}"));
                    Err(unknown())
                }
                Some(Fate::Never) => Err(unknown()),
                Some(Fate::Later) => {
                    let after = self.rng.magnitude(100, 5_000_000);
                    self.plan(after, Happening::LateLand(commit, contents));
                    Err(unknown())
                }
            }
        };
        let after = self.store_micros(self.scenario.knobs.commit);
        self.plan(after, Happening::Committed(life, result));
    }

    /// The thread that commits goes on.
    pub(super) fn write(&mut self, next: Vec<Next>) {
        for next in next {
            match next {
                Next::Send(write) if self.forgets() => {
                    drop(write);
                    self.plan(1, Happening::Committed(self.life, Ok(())));
                }
                Next::Send(write) => {
                    let fate = self.fates.pop_front();
                    let after = self.store_micros(self.scenario.knobs.commit);
                    let land = Happening::Land(self.life, write.commit, write.contents, fate);
                    self.plan(after, land);
                }
                Next::Refuse => {
                    self.note(|| "a commit is refused: the one before failed".to_owned());
                    self.give_lane(Input::Committed(Err(perform::follows_failed())));
                }
            }
        }
    }
}
