//! Steps that do nothing: what Kapell itself costs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kapell_expr::Value;
use kapell_model::EntityKey;
use kapell_store::Store;

use super::{Figures, figures, lines, peak_memory, per_second};
use kapell_store::testing::{TestSchema, Written};
use kapell_store::{PostgresStore, SqliteStore};

use crate::raw::{replay, replay_by_hand};
use crate::recorder::Recorded;
use crate::system::{SLOTS, System};

/// When all that connections have counted is seen.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Runs that go on at a time where they go on for long.
const IN_FLIGHT: usize = 20_000;

/// Parts of a long workload: the first is to warm up.
const PARTS: usize = 25;

fn recorded(system: &System) -> Vec<Recorded> {
    std::mem::take(&mut *system.store.commits.lock())
}

/// Where a workload keeps what it does.
pub(crate) enum Base {
    /// A file.
    Sqlite,
    /// A schema of a server of this machine, which syncs as one that is in use.
    Postgres(Box<TestSchema>),
}

impl Base {
    /// The one that the name of a workload names.
    pub(crate) fn of(name: &str) -> Result<Self> {
        if !name.starts_with("pg-") {
            return Ok(Self::Sqlite);
        }
        let schema = TestSchema::durable().context("there is no PostgreSQL")?;
        Ok(Self::Postgres(Box::new(schema)))
    }

    fn open(&self, dir: &Path) -> Result<System> {
        let store: Arc<dyn Store> = match self {
            Self::Sqlite => Arc::new(SqliteStore::open(dir)?),
            Self::Postgres(schema) => Arc::new(PostgresStore::open(schema.url())?),
        };
        System::over(store, dir, SLOTS)
    }

    /// Seconds that the raw reference takes for what was committed.
    fn raw(&self, dir: &Path, commits: Vec<Recorded>) -> Result<f64> {
        match self {
            Self::Sqlite => replay(dir, commits),
            Self::Postgres(schema) => replay_by_hand(schema, &commits),
        }
    }

    /// Rows that were written anew and are still there.
    fn dead_rows(&self) -> Result<f64> {
        match self {
            Self::Sqlite => Ok(0.0),
            Self::Postgres(schema) => Ok(schema.dead_rows()? as f64),
        }
    }

    /// What a server has written until now.
    fn written(&self) -> Result<Option<Written>> {
        match self {
            Self::Sqlite => Ok(None),
            Self::Postgres(schema) => Ok(Some(schema.written()?)),
        }
    }

    /// What is left of rows that were written anew, and what a step wrote.
    fn with_written(
        &self,
        steps: usize,
        before: Option<Written>,
        mut figures: Figures,
    ) -> Result<Figures> {
        if let (Some(before), Some(after)) = (before, self.written()?) {
            figures = figures.with("dead", self.dead_rows()?);
            let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / steps as f64;
            figures = figures
                .with("wal", each(after.wal, before.wal))
                .with("rows", each(after.rows, before.rows))
                .with("bytes", each(after.bytes, before.bytes));
        }
        Ok(figures)
    }
}

/// Seconds a workload took, and what it committed.
fn measured(
    (base, dir): (&Base, &Path),
    steps: usize,
    runs: usize,
    text: &[&str],
    start: impl Fn(&System, &[Arc<str>]),
) -> Result<Figures> {
    let system = base.open(&dir.join("data"))?;
    let workflows = text
        .iter()
        .map(|text| system.register(text))
        .collect::<Result<Vec<_>>>()?;
    let before = base.written()?;
    let started = Instant::now();
    start(&system, &workflows);
    system.wait(runs)?;
    let value = per_second(steps, started);
    let commits = recorded(&system);
    drop(system);
    let peak = peak_memory().unwrap_or(0);
    // The server counts rows when connections have ended.
    std::thread::sleep(SETTLED);
    let figures = base.with_written(steps, before, figures(value))?;
    let raw = steps as f64 / base.raw(dir, commits)?;
    Ok(Figures {
        raw: Some(raw),
        peak,
        ..figures
    })
}

pub(crate) fn fanout(base: &Base, dir: &Path, n: usize) -> Result<Figures> {
    let text = "workflow: fanout\nparams:\n  n: { type: int }\nsteps:\n  work:\n    foreach: { i: \"${{ range(params.n) }}\" }\n    noop: {}\n";
    measured((base, dir), n, 1, &[text], |system, workflows| {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        system.start(&workflows[0], Value::map([("n", Value::Int(n))]));
    })
}

/// Runs of a hundred steps each: a chain, a diamond, a foreach, a loop.
pub(crate) fn many(base: &Base, dir: &Path, runs: usize) -> Result<Figures> {
    let chain: String = (0..100)
        .map(|step| match step {
            0 => "  s0: { noop: {} }\n".to_owned(),
            step => format!("  s{step}: {{ needs: [s{}], noop: {{}} }}\n", step - 1),
        })
        .collect();
    let diamond = lines(98, |step| {
        format!("  m{step}: {{ needs: [a], noop: {{}} }}\n")
    });
    let last: Vec<String> = (0..98).map(|step| format!("m{step}")).collect();
    let texts = [
        format!("workflow: chain\nsteps:\n{chain}"),
        format!("workflow: diamond\nsteps:\n  a: {{ noop: {{}} }}\n{diamond}  z: {{ needs: [{}], noop: {{}} }}\n", last.join(", ")),
        "workflow: items\nsteps:\n  a: { noop: {} }\n  b: { needs: [a], foreach: { i: \"${{ range(98) }}\" }, noop: {} }\n  c: { needs: [b], noop: {} }\n".to_owned(),
        "workflow: cycle\nsteps:\n  a:\n    loop:\n      vars: { n: 0 }\n      while: \"${{ vars.n < 50 }}\"\n      next: { n: \"${{ vars.n + 1 }}\" }\n      steps: { b: { noop: {} }, c: { needs: [b], noop: {} } }\n".to_owned(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    measured(
        (base, dir),
        runs * 100,
        runs,
        &texts,
        |system, workflows| {
            for run in 0..runs {
                system.start(&workflows[run % workflows.len()], Value::Null);
            }
        },
    )
}

const THREE: &str = "workflow: three\nsteps:\n  a: { noop: {} }\n  b: { needs: [a], noop: {} }\n  c: { needs: [b], noop: {} }\n";

/// Runs of three steps for minutes, from an empty store to one that holds them all: how much longer one takes in the
/// end, and the most rows that were dead at any time.
pub(crate) fn long(base: &Base, dir: &Path, runs: usize) -> Result<Figures> {
    let system = base.open(&dir.join("data"))?;
    let workflow = system.register(THREE)?;
    let (part, mut dead) = ((runs / PARTS).max(1), Vec::new());
    let started = Instant::now();
    for _ in 0..IN_FLIGHT.min(runs) {
        system.start(&workflow, Value::Null);
    }
    let (mut asked, mut parts) = (IN_FLIGHT.min(runs), Vec::new());
    let mut since = started;
    for ended in 1..=runs {
        system.wait(1)?;
        if asked < runs {
            system.start(&workflow, Value::Null);
            asked += 1;
        }
        if ended % part == 0 {
            parts.push(per_second(part, since));
            since = Instant::now();
            dead.push(base.dead_rows()?);
        }
        if ended % IN_FLIGHT == 0 {
            // Nobody writes it again, and it would fill the memory.
            recorded(&system);
        }
    }
    let value = per_second(runs, started);
    let (first, last) = (parts.get(1).or(parts.first()), parts.last());
    let growth = first.context("no part")? / last.context("no part")?;
    let most = dead.iter().copied().fold(0.0, f64::max);
    Ok(figures(value)
        .with("growth", growth)
        .with("dead", super::median(dead))
        .with("most dead", most)
        .with("seconds", started.elapsed().as_secs_f64()))
}

pub(crate) fn runs(base: &Base, dir: &Path, runs: usize) -> Result<Figures> {
    measured((base, dir), runs, runs, &[THREE], |system, workflows| {
        for _ in 0..runs {
            system.start(&workflows[0], Value::Null);
        }
    })
}

/// Microseconds a step of a chain, from the ends that history keeps.
pub(crate) fn chain(base: &Base, dir: &Path, n: usize) -> Result<Figures> {
    let steps: String = (0..n)
        .map(|step| match step {
            0 => "  s0: { noop: {} }\n".to_owned(),
            step => format!("  s{step}: {{ needs: [s{}], noop: {{}} }}\n", step - 1),
        })
        .collect();
    let system = base.open(&dir.join("data"))?;
    let workflow = system.register(&format!("workflow: chain\nsteps:\n{steps}"))?;
    // One run to warm up, one to measure.
    for _ in 0..2 {
        recorded(&system);
        system.start(&workflow, Value::Null);
        system.wait(1)?;
    }
    let commits = recorded(&system);
    let run = commits
        .iter()
        .flat_map(|commit| &commit.entities)
        .map(|written| written.key.clone())
        .find(|key| matches!(key, EntityKey::Run(_)))
        .context("no run was committed")?;
    let mut ends = Vec::with_capacity(n);
    for (_, chunk) in system.store.inner.history(&run, 1, usize::MAX)? {
        ends.extend(ends_of(&chunk)?);
    }
    drop(system);
    let mut steps: Vec<i64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    let at = |share: usize| -> f64 {
        let place = steps.len() * share / 100;
        steps
            .get(place.min(steps.len().saturating_sub(1)))
            .map_or(0.0, |micros| *micros as f64)
    };
    let count = commits.len().max(1) as f64;
    let raw = base.raw(dir, commits)? * 1e6 / count;
    Ok(Figures {
        raw: Some(raw),
        ..figures(at(50))
    }
    .with("p99", at(99)))
}

fn ends_of(chunk: &[u8]) -> Result<Vec<i64>> {
    use kapell_node::engine::chunk;
    use kapell_node::engine::event::{Event, Fact};
    Ok(chunk::decode::<Event>(chunk)?
        .into_iter()
        .filter_map(|event| match event.fact {
            Some(Fact::AttemptEnded(ended)) => Some(event.at + ended.ended),
            _ => None,
        })
        .collect())
}
