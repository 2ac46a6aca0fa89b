//! What a pool does next, as a pure machine: no clock, no process, no call.
//!
//! Start reading at [`decide`]. Each tick it is given what is [`Seen`] of the queues and of the pool's workers, and
//! says which workers to start, to let go, and to clear away. What must be remembered from tick to tick is
//! [`Memory`]; it is small, and all of it can be lost: a pool process that starts anew sees the workers that are
//! there, and takes those that are not heard of yet for starting ones.
//!
//! ```text
//!            launched                 its session is there                drained
//! (nothing) ---------> starting ------------------------------> serving ---------> leaving --> (nothing)
//!     ^                   | it died, or did not come in time        | it died
//!     '---- back-off -----'------- back-off, if it lived briefly ---'
//! ```
//!
//! - **Enough**: what runs and what could start, as parts of a worker, rounded up; from `min` to `max`. Workers that
//!   start count as if they were there, so no backlog is answered twice.
//! - **Too late to help**: while workers are there and the backlog goes down so fast that it is over before a new
//!   one would be up, none is started.
//! - **Less**: only what was too much all through a quiet period is let go: so much as the largest number that was
//!   wanted in it leaves over, the idlest first, by drain.
//! - **Clock jump**: times are given, on a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kapell_api::http::TaskNeed;

mod fit;
mod pace;
#[cfg(test)]
mod tests;

pub(super) use fit::One;
use pace::Starts;

/// Shares of a worker are told apart in thousandths.
const WHOLE: u64 = 1_000;

/// A worker that dies before it served so long has failed.
const STEADY: Duration = Duration::from_mins(1);

/// Between two times that a worker is asked to be cleared away.
const CLEAR_AGAIN: Duration = Duration::from_secs(30);

/// Before the first failed start is tried again, and the longest such pause.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_mins(5);

/// What a pool is to be.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Its name.
    pub(super) name: String,
    /// Workers that are always there.
    pub(super) min: usize,
    /// Workers that are there at most, those that are leaving too.
    pub(super) max: usize,
    /// How long fewer workers must have been enough before some are let go.
    pub(super) quiet: Duration,
    /// How long a worker may take to come.
    pub(super) start_timeout: Duration,
    /// What one worker has.
    pub(super) one: One,
}

/// A worker that the server knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// What its owner calls it.
    pub(super) name: String,
    /// Its session.
    pub(super) session: String,
    /// It is there.
    pub(super) connected: bool,
    /// It takes nothing more.
    pub(super) draining: bool,
    /// How much of it is taken, in thousandths.
    pub(super) load: u64,
}

/// What is seen at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// When.
    pub(super) at: Duration,
    /// What could start in the pool's queues.
    pub(super) needs: Vec<TaskNeed>,
    /// The pool's workers.
    pub(super) known: Vec<Known>,
    /// Workers that the driver has.
    pub(super) alive: BTreeSet<String>,
    /// Workers that it had and that have ended.
    pub(super) dead: BTreeSet<String>,
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Launched, or found without a session, since then.
    starting: BTreeMap<String, Duration>,
    /// In a session since then.
    serving: BTreeMap<String, Duration>,
    /// Let go.
    leaving: BTreeSet<String>,
    /// Cleared away, when that was asked for last.
    clearing: BTreeMap<String, Duration>,
    starts: Starts,
    /// Starts that failed in a row.
    failures: u32,
    /// None is launched before.
    not_before: Duration,
    /// How many were wanted in the quiet period, oldest first, without those that a later one is no less than: the
    /// first is the most.
    wanted: VecDeque<(Duration, usize)>,
    /// Since when it is known how many are wanted.
    since: Option<Duration>,
    /// Attempts that could start when this was seen last.
    backlog: Option<(Duration, u64)>,
}

/// What is to be done, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    /// Workers to launch.
    pub(super) start: Vec<String>,
    /// Workers to let go, with their sessions.
    pub(super) drain: Vec<(String, String)>,
    /// Workers to clear away: they have gone, or never came.
    pub(super) stop: Vec<String>,
    /// What went wrong with workers.
    pub(super) failed: Vec<(String, Failure)>,
    /// Attempts that could start and that its workers can do.
    pub(super) startable: u64,
    /// Attempts that could start and that none of its workers can do.
    pub(super) unfit: u64,
    /// Workers that are wanted.
    pub(super) wanted: usize,
    /// Workers that serve, start and leave.
    pub(super) serving: usize,
    /// See above.
    pub(super) starting: usize,
    /// See above.
    pub(super) leaving: usize,
}

/// What went wrong with a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It ended before it came.
    Died,
    /// It did not come in time.
    NeverCame,
    /// It came and ended soon.
    Flaps,
    /// It ended after it had served for a while.
    Lost,
}

/// Says what is to be done now.
pub(super) fn decide(memory: &mut Memory, terms: &Terms, seen: &Seen) -> Decided {
    let mut decided = Decided::default();
    memory.hear(terms, seen, &mut decided);
    let known = |name: &str| seen.known.iter().find(|known| known.name == name);
    let counts = |name: &&String| !memory.leaving.contains(*name);
    let serving: Vec<&String> = memory.serving.keys().filter(counts).collect();
    decided.serving = serving.len();
    decided.starting = memory.starting.len();
    decided.leaving = memory.leaving.len();
    let load: u64 = serving
        .iter()
        .filter_map(|name| Some(known(name)?.load.min(WHOLE)))
        .sum();
    let waits = fit::waits(&terms.one, &seen.needs);
    (decided.startable, decided.unfit) = (waits.attempts, waits.unfit);
    let mut wanted = usize::try_from((load + waits.load).div_ceil(WHOLE)).unwrap_or(usize::MAX);
    if waits.some {
        wanted = wanted.max(1);
    }
    decided.wanted = wanted.clamp(terms.min, terms.max.max(terms.min));
    let supply = decided.serving + decided.starting;
    let hopeless =
        memory.is_too_late(waits.attempts, seen.at) && decided.serving >= terms.min.max(1);
    memory.backlog = Some((seen.at, waits.attempts));
    let calm = memory.calm(decided.wanted, terms, seen.at);
    if decided.wanted > supply && !hopeless && seen.at >= memory.not_before {
        let room = terms.max.saturating_sub(supply + decided.leaving);
        let count = (decided.wanted - supply).min(room);
        decided.start = memory.names(terms, seen, count);
        for name in &decided.start {
            memory.starting.insert(name.clone(), seen.at);
        }
    } else if let Some(calm) = calm.filter(|_| decided.starting == 0) {
        let excess = supply.saturating_sub(calm);
        decided.drain = idlest(memory, seen, excess);
        let names = decided.drain.iter().map(|(name, _)| name.clone());
        memory.leaving.extend(names);
    }
    decided
}

/// The workers that serve and have least to do; of those alike the ones with the highest names.
fn idlest(memory: &Memory, seen: &Seen, count: usize) -> Vec<(String, String)> {
    let serving = |known: &&Known| {
        let name = &known.name;
        memory.serving.contains_key(name) && !memory.leaving.contains(name) && known.connected
    };
    let mut all: Vec<&Known> = seen.known.iter().filter(serving).collect();
    all.sort_by(|a, b| {
        let highest = number(&b.name).cmp(&number(&a.name));
        a.load.cmp(&b.load).then(highest)
    });
    all.truncate(count);
    let named = |known: &Known| (known.name.clone(), known.session.clone());
    all.into_iter().map(named).collect()
}

/// The number at the end of a name.
fn number(name: &str) -> u64 {
    let digits = name.rsplit('-').next().unwrap_or_default();
    digits.parse().unwrap_or(u64::MAX)
}

impl Memory {
    /// A launch failed: it is tried again after a pause.
    pub(super) fn start_failed(&mut self, name: &str, at: Duration) {
        self.starting.remove(name);
        self.fail(at);
    }

    /// A worker could not be told to go: it serves on.
    pub(super) fn drain_failed(&mut self, name: &str) {
        self.leaving.remove(name);
    }

    /// How long workers take to come, if that is known.
    pub(super) fn start_up(&self) -> Option<Duration> {
        self.starts.high()
    }

    fn fail(&mut self, at: Duration) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.not_before = self.not_before.max(at + pause.min(LAST_PAUSE));
    }

    /// Takes note of who has come and who has gone.
    fn hear(&mut self, terms: &Terms, seen: &Seen, decided: &mut Decided) {
        let known: BTreeMap<&str, &Known> = seen
            .known
            .iter()
            .map(|known| (known.name.as_str(), known))
            .collect();
        for known in seen.known.iter().filter(|known| known.connected) {
            let name = &known.name;
            if let Some(since) = self.starting.remove(name) {
                self.starts.took(seen.at.saturating_sub(since));
            }
            self.serving.entry(name.clone()).or_insert(seen.at);
            if known.draining {
                self.leaving.insert(name.clone());
            }
        }
        for name in &seen.alive {
            if !self.serving.contains_key(name) && !self.clearing.contains_key(name) {
                self.starting.entry(name.clone()).or_insert(seen.at);
            }
        }
        self.cleared(seen, decided);
        self.starting_ones(terms, seen, decided);
        let gone = |name: &String| {
            let away = known
                .get(name.as_str())
                .is_none_or(|known| !known.connected);
            let ended = seen.dead.contains(name) || !seen.alive.contains(name);
            away && (ended || !known.contains_key(name.as_str()))
        };
        let ended: Vec<String> = self
            .serving
            .keys()
            .filter(|name| gone(name))
            .cloned()
            .collect();
        for name in ended {
            let since = self.serving.remove(&name).unwrap_or(seen.at);
            let expected = self.leaving.remove(&name);
            if seen.alive.contains(&name) {
                // It has left the server, and its machine is still there.
                self.clearing.insert(name.clone(), seen.at);
                decided.stop.push(name.clone());
            }
            if expected {
                continue;
            }
            if seen.at.saturating_sub(since) < STEADY {
                self.fail(seen.at);
                decided.failed.push((name, Failure::Flaps));
            } else {
                decided.failed.push((name, Failure::Lost));
            }
        }
        let steady = |since: &Duration| seen.at.saturating_sub(*since) >= STEADY;
        if self.serving.values().any(steady) && seen.at >= self.not_before {
            self.failures = 0;
        }
    }

    /// Those that are to be cleared away are gone, or asked for again.
    fn cleared(&mut self, seen: &Seen, decided: &mut Decided) {
        self.clearing.retain(|name, _| seen.alive.contains(name));
        for (name, asked_at) in &mut self.clearing {
            if seen.at.saturating_sub(*asked_at) >= CLEAR_AGAIN {
                *asked_at = seen.at;
                decided.stop.push(name.clone());
            }
        }
    }

    /// Those that have not come: they died, or it takes too long.
    fn starting_ones(&mut self, terms: &Terms, seen: &Seen, decided: &mut Decided) {
        let mut failed = Vec::new();
        for (name, since) in &self.starting {
            if seen.dead.contains(name) {
                failed.push((name.clone(), Failure::Died));
            } else if seen.at.saturating_sub(*since) > terms.start_timeout {
                failed.push((name.clone(), Failure::NeverCame));
            }
        }
        if !failed.is_empty() {
            self.fail(seen.at);
        }
        for (name, failure) in &failed {
            self.starting.remove(name);
            if *failure == Failure::NeverCame {
                self.clearing.insert(name.clone(), seen.at);
                decided.stop.push(name.clone());
            }
        }
        decided.failed.extend(failed);
    }

    /// True if what waits is over before another worker would be there.
    fn is_too_late(&self, waiting: u64, at: Duration) -> bool {
        let (Some((before_at, before)), Some(start_up)) = (self.backlog, self.starts.middle())
        else {
            return false;
        };
        let done = u128::from(before.saturating_sub(waiting));
        let took = at.saturating_sub(before_at).as_millis();
        // At this pace `waiting` takes `waiting * took / done`.
        done > 0 && u128::from(waiting) * took < done * start_up.as_millis()
    }

    /// The most workers that were wanted in the quiet period; none before it is over for the first time.
    fn calm(&mut self, wanted: usize, terms: &Terms, at: Duration) -> Option<usize> {
        let since = *self.since.get_or_insert(at);
        let quiet = terms.quiet.max(self.starts.high().unwrap_or_default());
        while self
            .wanted
            .back()
            .is_some_and(|(_, before)| *before <= wanted)
        {
            self.wanted.pop_back();
        }
        self.wanted.push_back((at, wanted));
        while self
            .wanted
            .front()
            .is_some_and(|(then, _)| *then + quiet < at)
            && self.wanted.len() > 1
        {
            self.wanted.pop_front();
        }
        let most = self.wanted.front().map(|(_, most)| *most);
        most.filter(|_| at.saturating_sub(since) >= quiet)
    }

    /// Names for new workers: of those that died and are still known first, as they say what was lost.
    fn names(&self, terms: &Terms, seen: &Seen, count: usize) -> Vec<String> {
        let free = |name: &String| {
            !seen.alive.contains(name)
                && !self.starting.contains_key(name)
                && !self.serving.contains_key(name)
                && !self.leaving.contains(name)
        };
        let start = format!("{}-", terms.name);
        let again = seen
            .known
            .iter()
            .filter(|known| !known.connected)
            .map(|known| known.name.clone())
            .filter(|name| name.strip_prefix(&start).is_some_and(is_number));
        let fresh = (1_u64..).map(|number| format!("{start}{number}"));
        let mut names: Vec<String> = Vec::new();
        for name in again.chain(fresh) {
            if names.len() == count {
                break;
            }
            if free(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// True for what stands behind a pool's name in those of its workers.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit())
}
