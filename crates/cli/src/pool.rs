//! `kapell pool`: keeps as many workers as the backlog of their queues needs.
//!
//! Start reading at [`pool`], the loop, then [`decide`], which says what is to be done and does nothing, and
//! `driver`, which starts and ends workers. It is a client of the API like any other: it owns nothing, and what it
//! remembers can be lost. One process runs a pool; a second one on another machine would start workers of its own
//! for the same backlog.
//!
//! - **Crash**: workers go on. The next process finds them, by what the driver lists and the server knows.
//! - **Slow or dead server**, or a node that does not answer: nothing is started or let go until all is known.
//! - **Driver that fails**: it is said, once for each error, and tried again after pauses that grow.
//! - **Clock jump**: times count on a clock that does not jump.

mod decide;
mod driver;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::{Duration, Instant};

use kapell_api::client::Api;
use kapell_api::http::{TaskQueueList, WorkerQuery, WorkerView};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock::{self, Stopwatch};
use serde::Serialize;

use crate::args::Pool;
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, server, words};
use decide::{Decided, Failure, Known, Memory, Seen, decide};
use settings::Set;

/// The longest wait for a signal.
const LOOK: Duration = Duration::from_millis(200);

/// Names that are shown of many.
const NAMED: usize = 5;

/// A pool at work.
struct Running {
    set: Set,
    memory: Memory,
    /// Its queues are kept for its workers.
    kept: bool,
    /// Workers that the driver had.
    had: BTreeSet<String>,
    next: Instant,
    /// What was said last of its numbers, and of what goes wrong.
    told: Option<Said>,
    wrong: Option<String>,
}

/// What is said of a pool, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Said {
    pool: String,
    /// Attempts that could start and that its workers can do.
    startable: u64,
    /// Attempts that could start in its queues and that its workers cannot do.
    unfit: u64,
    wanted: usize,
    serving: usize,
    starting: usize,
    leaving: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_up_ms: Option<u128>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    started: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drained: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn pool(pool: &Pool, config: &Config, printer: &mut Printer) -> Ended {
    if config.server()?.is_none() {
        let message = "it is not said which server to keep workers for";
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`--server` or KAPELL_SERVER names the address of a `kapell server`"));
    }
    let sets = settings::read(config, &pool.names)?;
    let mut signals = server::signals()?;
    signals
        .set_nonblocking(true)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no signals: {error}")))?;
    let session = session::open(config, Need::Look)?;
    let mut pools: Vec<Running> = sets.into_iter().map(Running::new).collect();
    if !pool.json {
        for running in &pools {
            printer.line(running.set.line())?;
        }
    }
    let since = Stopwatch::start();
    loop {
        if signals.read_exact(&mut [0]).is_ok() {
            break;
        }
        for running in &mut pools {
            if running.next <= clock::steady() {
                running.turn(session.api(), since.elapsed(), (pool.json, printer))?;
                running.next = clock::steady() + running.set.every;
            }
        }
        let next = pools.iter().map(|running| running.next).min();
        let wait = next.map_or(LOOK, |next| {
            next.saturating_duration_since(clock::steady()).min(LOOK)
        });
        std::thread::park_timeout(wait);
    }
    let note =
        "ending: workers of this machine end what they run, a second signal leaves them to it";
    printer.notes(&[Line::default().with(PLAIN, note)]);
    std::thread::scope(|scope| {
        for running in &mut pools {
            scope.spawn(|| running.set.driver.end());
        }
    });
    session.close();
    Ok(Exit::Success)
}

impl Set {
    fn line(&self) -> Line {
        let terms = &self.terms;
        let text = format!(
            "  {} to {} of queue {}",
            terms.min,
            words::count(u64::try_from(terms.max).unwrap_or(u64::MAX), "worker"),
            self.queues.join(", ")
        );
        Line::default()
            .with(BOLD, format!("Pool {}", terms.name))
            .with(PLAIN, text)
            .with(DIM, format!("  by {}", self.by))
    }
}

impl Running {
    fn new(set: Set) -> Self {
        Self {
            set,
            memory: Memory::default(),
            kept: false,
            had: BTreeSet::new(),
            next: clock::steady(),
            told: None,
            wrong: None,
        }
    }

    /// Looks, decides and acts once.
    fn turn(
        &mut self,
        api: &dyn Api,
        at: Duration,
        (json, printer): (bool, &mut Printer),
    ) -> Result<(), Error> {
        let (mut said, failed) = match self.look(api, at) {
            Ok(seen) => {
                let decided = decide(&mut self.memory, &self.set.terms, &seen);
                let failed = self.act(api, &decided, at);
                (self.said(&decided), failed)
            }
            Err(error) => (self.told.clone().unwrap_or_default(), Some(error)),
        };
        said.pool.clone_from(&self.set.terms.name);
        said.error = failed.as_ref().map(ToString::to_string);
        let acted = !(said.started.is_empty() && said.drained.is_empty() && said.failed.is_empty());
        let numbers = Said {
            started: Vec::new(),
            drained: Vec::new(),
            failed: Vec::new(),
            start_up_ms: None,
            ..said.clone()
        };
        if acted || self.told.as_ref() != Some(&numbers) {
            if json {
                printer.json_line(&said)?;
            } else {
                self.show(&said, failed, printer)?;
            }
        }
        self.told = Some(numbers);
        Ok(())
    }

    /// What there is to be known; nothing is decided on less.
    fn look(&mut self, api: &dyn Api, at: Duration) -> Result<Seen, Error> {
        let which = WorkerQuery {
            pool: Some(self.set.terms.name.clone()),
            ..WorkerQuery::default()
        };
        if !self.kept {
            for queue in &self.set.queues {
                api.keep_task_queue(queue)?;
            }
            self.kept = true;
        }
        let queues = api.task_queues()?;
        let workers = api.workers(&which)?;
        if let Some(node) = queues.unanswered.iter().chain(&workers.unanswered).next() {
            let message = format!("node {node} does not say what it has");
            return Err(Error::new(ErrorCode::StoreUnavailable, message)
                .hint("nothing is started or let go until it is there again, or gone"));
        }
        let alive = self.set.driver.list()?;
        let dead = self.had.difference(&alive).cloned().collect();
        self.had.extend(alive.iter().cloned());
        Ok(Seen {
            at,
            needs: needs(&queues, &self.set.queues),
            known: known(&workers.workers),
            alive,
            dead,
        })
    }

    /// Does what was decided; the first thing that failed.
    fn act(&mut self, api: &dyn Api, decided: &Decided, at: Duration) -> Option<Error> {
        let mut failed = None;
        let immediate = self.set.driver.is_immediate();
        let started = if decided.start.is_empty() {
            Vec::new()
        } else {
            self.set.driver.start(&decided.start)
        };
        for (name, started) in decided.start.iter().zip(started) {
            self.had.remove(name);
            match started {
                Ok(()) if immediate => drop(self.had.insert(name.clone())),
                Ok(()) => {}
                Err(error) => {
                    self.memory.start_failed(name, at);
                    failed.get_or_insert(error);
                }
            }
        }
        for (name, session) in &decided.drain {
            if let Err(error) = api.drain(session, self.set.grace)
                && error.code != ErrorCode::WorkerNotFound
            {
                self.memory.drain_failed(name);
                failed.get_or_insert(error);
            }
        }
        for name in &decided.stop {
            if let Err(error) = self.set.driver.stop(name) {
                failed.get_or_insert(error);
            }
        }
        failed
    }

    fn said(&self, decided: &Decided) -> Said {
        let failed = decided.failed.iter().map(|(name, failure)| {
            let what = match failure {
                Failure::Died => "ended before it came",
                Failure::NeverCame => "did not come in time",
                Failure::Flaps => "ended soon after it came",
                Failure::Lost => "is gone",
            };
            let words = self.set.driver.last_words(name);
            let words = words.map_or_else(String::new, |words| format!(": {words}"));
            format!("worker {name} {what}{words}")
        });
        Said {
            pool: String::new(),
            startable: decided.startable,
            unfit: decided.unfit,
            wanted: decided.wanted,
            serving: decided.serving,
            starting: decided.starting,
            leaving: decided.leaving,
            start_up_ms: self.memory.start_up().map(|time| time.as_millis()),
            started: decided.start.clone(),
            drained: decided.drain.iter().map(|(name, _)| name.clone()).collect(),
            failed: failed.collect(),
            error: None,
        }
    }

    fn show(
        &mut self,
        said: &Said,
        failed: Option<Error>,
        printer: &mut Printer,
    ) -> Result<(), Error> {
        for failure in &said.failed {
            printer.notes(&[Line::default().with(YELLOW, format!("{}: {failure}", said.pool))]);
        }
        // What fails again and again for one reason is said once.
        if said.error != self.wrong {
            self.wrong.clone_from(&said.error);
            if let Some(error) = failed {
                printer.error(&error);
            }
        }
        if said.error.is_some() && said.started.is_empty() && said.drained.is_empty() {
            return Ok(());
        }
        let mut parts = vec![format!("{} could start", said.startable)];
        if said.unfit > 0 {
            parts.push(format!("{} that its workers cannot do", said.unfit));
        }
        parts.push(format!("{} wanted", said.wanted));
        parts.push(format!("{} serving", said.serving));
        for (count, what) in [(said.starting, "starting"), (said.leaving, "leaving")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let mut line = Line::default()
            .with(BOLD, said.pool.clone())
            .with(PLAIN, format!("  {}", parts.join(", ")));
        for (names, what) in [(&said.started, "starts"), (&said.drained, "lets go")] {
            if !names.is_empty() {
                line = line.with(BOLD, format!("  {what} {}", named(names)));
            }
        }
        printer.line(line)
    }
}

fn named(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 0 {
        format!("{} and {more} more", first.join(", "))
    } else {
        first.join(", ")
    }
}

/// What could start in the queues of a pool.
fn needs(queues: &TaskQueueList, own: &[String]) -> Vec<kapell_api::http::TaskNeed> {
    let queues = queues.queues.iter();
    let of = queues.filter(|queue| own.contains(&queue.name));
    of.flat_map(|queue| queue.needs.iter().cloned()).collect()
}

/// Workers by name. Of two with one name the one that is there counts: the other died, and came again.
fn known(workers: &[WorkerView]) -> Vec<Known> {
    let mut all: BTreeMap<&str, Known> = BTreeMap::new();
    for worker in workers {
        let known = Known {
            name: worker.name.clone(),
            session: worker.session.clone(),
            connected: worker.connected,
            draining: worker.draining,
            load: load(worker),
        };
        match all.get_mut(worker.name.as_str()) {
            Some(other) if other.connected => {}
            Some(other) => *other = known,
            None => drop(all.insert(&worker.name, known)),
        }
    }
    all.into_values().collect()
}

/// How much of a worker is taken, in thousandths: of what is taken most.
fn load(worker: &WorkerView) -> u64 {
    let taken = |all: u64, free: u64| {
        let taken = u128::from(all.saturating_sub(free)) * 1_000;
        taken.checked_div(u128::from(all)).unwrap_or(0)
    };
    let (all, free) = (&worker.capacity, &worker.free);
    let custom = all.custom.iter();
    let custom = custom.map(|(name, amount)| taken(amount, free.custom.of(name)));
    let most = custom
        .chain([
            taken(worker.slots.into(), worker.free_slots.into()),
            taken(all.cpu_millis, free.cpu_millis),
            taken(all.memory_bytes, free.memory_bytes),
            taken(all.gpus.into(), free.gpus.into()),
        ])
        .max();
    // What starts nothing takes no slot, and yet the worker has it.
    let least = u64::from(worker.count > 0);
    u64::try_from(most.unwrap_or(0)).unwrap_or(1_000).max(least)
}
