//! The rows of the table and what is wanted of each.

use crate::workloads::Figures;

/// What is measured, and what is wanted of it.
pub(crate) struct Wanted {
    /// What the row is called.
    pub name: &'static str,
    pub workload: &'static str,
    pub n: usize,
    pub unit: &'static str,
    pub pick: Pick,
    pub must: f64,
    pub goal: f64,
    /// Greater is better.
    pub up: bool,
    /// How often it is run at most.
    pub most: usize,
}

/// Which of a workload's figures a row shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The one.
    Value,
    /// It as percent of the raw reference.
    Share,
    /// Another, by name.
    Other(&'static str),
}

impl Pick {
    pub(crate) fn of(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::Value => Some(figures.value),
            Self::Share => figures.raw.map(|raw| figures.value / raw * 100.0),
            Self::Other(name) => figures.others.get(name).copied(),
        }
    }
}

const fn row(
    name: &'static str,
    (workload, n): (&'static str, usize),
    unit: &'static str,
    (must, goal): (f64, f64),
) -> Wanted {
    Wanted {
        name,
        workload,
        n,
        unit,
        pick: Pick::Value,
        must,
        goal,
        up: false,
        most: if n >= 1_000_000 { 3 } else { usize::MAX },
    }
}

impl Wanted {
    /// True if its workload is of this name, or a case of it: `recover-runs` is one of `recover`.
    pub(crate) fn belongs(&self, name: &str) -> bool {
        let case = self.workload.split_once('-').map(|(whole, _)| whole);
        self.workload == name || case == Some(name)
    }

    const fn up(mut self) -> Self {
        self.up = true;
        self
    }

    const fn pick(mut self, pick: Pick) -> Self {
        self.pick = pick;
        self
    }

    const fn once(mut self) -> Self {
        self.most = 1;
        self
    }
}

const FANOUT: (f64, f64) = (100_000.0, 250_000.0);
const RECOVER: (f64, f64) = (5.0, 1.0);
const PARKED: (&str, usize) = ("parked", 100_000);
const PARKED_CPU: (f64, f64) = (1.0, 0.0);
const PARKED_MEMORY: (f64, f64) = (500.0, 100.0);

/// Over a PostgreSQL on this machine: only where that is asked for.
pub(crate) const POSTGRES: &str = "pg";

const PG_FANOUT: (&str, usize) = ("pg-fanout", 100_000);
const PG_RUNS: (&str, usize) = ("pg-runs", 20_000);
/// At the speed that is wanted it takes ten minutes.
const PG_LONG: (&str, usize) = ("pg-long", 5_000_000);

/// Shown, and nothing is wanted of it.
const WRITTEN: (f64, f64) = (f64::INFINITY, f64::INFINITY);

pub(crate) const WANTED: &[Wanted] = &[
    row(
        "pg fanout",
        ("pg-fanout", 100_000),
        "steps/s",
        (50_000.0, 100_000.0),
    )
    .up(),
    row(
        "pg many",
        ("pg-many", 1_000),
        "steps/s",
        (40_000.0, 80_000.0),
    )
    .up(),
    row(
        "pg runs",
        ("pg-runs", 20_000),
        "runs/s",
        (8_000.0, 16_000.0),
    )
    .up(),
    row(
        "pg runs, dead rows",
        ("pg-runs", 20_000),
        "rows",
        (1_000.0, 100.0),
    )
    .pick(Pick::Other("dead")),
    row("pg chain", ("pg-chain", 1_000), "us", (770.0, 400.0)),
    row("pg fanout", ("pg-fanout", 10_000), "steps/s", (0.0, 0.0)).up(),
    row(
        "pg fanout",
        ("pg-fanout", 1_000_000),
        "steps/s",
        (50_000.0, 100_000.0),
    )
    .up(),
    row("pg rows a step", PG_FANOUT, "rows", WRITTEN).pick(Pick::Other("rows")),
    row("pg bytes a step", PG_FANOUT, "B", WRITTEN).pick(Pick::Other("bytes")),
    row("pg WAL a step", PG_FANOUT, "B", WRITTEN).pick(Pick::Other("wal")),
    row("pg rows a run", PG_RUNS, "rows", WRITTEN).pick(Pick::Other("rows")),
    row("pg bytes a run", PG_RUNS, "B", WRITTEN).pick(Pick::Other("bytes")),
    row("pg WAL a run", PG_RUNS, "B", WRITTEN).pick(Pick::Other("wal")),
    row("pg runs for long", PG_LONG, "runs/s", (8_000.0, 20_000.0))
        .up()
        .once(),
    row("pg growth", PG_LONG, "times", (1.2, 1.1))
        .pick(Pick::Other("growth"))
        .once(),
    row("pg dead rows under load", PG_LONG, "rows", (1_000.0, 100.0))
        .pick(Pick::Other("dead"))
        .once(),
    row("pg 1 node", ("pg-nodes1", 400_000), "s/M steps", WRITTEN),
    row("pg 2 nodes", ("pg-nodes2", 400_000), "s/M steps", WRITTEN),
    row("pg 4 nodes", ("pg-nodes4", 400_000), "s/M steps", WRITTEN),
    row("pg 3 idle nodes", ("pg-idle", 3), "% core", (1.0, 0.5)).once(),
    row("pg idle statements", ("pg-idle", 3), "1/s", (10.0, 5.0))
        .pick(Pick::Other("statements"))
        .once(),
    row(
        "pg takeover after lease",
        ("pg-takeover", 3),
        "s",
        (1.0, 0.5),
    ),
    row("fanout", ("fanout", 1_000), "steps/s", (0.0, 0.0)).up(),
    row("fanout", ("fanout", 10_000), "steps/s", FANOUT).up(),
    row("fanout", ("fanout", 100_000), "steps/s", FANOUT).up(),
    row("fanout", ("fanout", 1_000_000), "steps/s", FANOUT).up(),
    row("fanout of raw", ("fanout", 1_000_000), "%", (20.0, 50.0))
        .pick(Pick::Share)
        .up(),
    row("many", ("many", 1_000), "steps/s", (80_000.0, 200_000.0)).up(),
    row("chain", ("chain", 1_000), "us", (200.0, 120.0)),
    row("chain p99", ("chain", 1_000), "us", (1_000.0, 300.0)).pick(Pick::Other("p99")),
    row("runs", ("runs", 20_000), "runs/s", (20_000.0, 50_000.0)).up(),
    row("shell of a bare loop", ("shell", 2_000), "%", (70.0, 90.0))
        .pick(Pick::Share)
        .up(),
    row(
        "remote",
        ("remote", 100_000),
        "steps/s",
        (20_000.0, 50_000.0),
    )
    .up(),
    row("starts", ("starts", 50_000), "runs/s", (5_000.0, 10_000.0)).up(),
    row(
        "starts in batches",
        ("batch", 200_000),
        "runs/s",
        (30_000.0, 60_000.0),
    )
    .up(),
    row("signal", ("signal", 300), "ms", (10.0, 5.0)),
    row("schedules", ("schedules", 10_000), "s", (2.0, 1.0)).once(),
    row(
        "schedules, the middle",
        ("schedules", 10_000),
        "ms",
        (100.0, 50.0),
    )
    .pick(Pick::Other("median"))
    .once(),
    row(
        "schedules, until ended",
        ("schedules", 10_000),
        "s",
        WRITTEN,
    )
    .pick(Pick::Other("ended"))
    .once(),
    row("list", ("list", 1_000_000), "ms", (5.0, 2.0)).once(),
    row("event", ("event", 500), "ms", (20.0, 5.0)),
    row("event p99", ("event", 500), "ms", (20.0, 10.0)).pick(Pick::Other("p99")),
    row("idle server", ("server", 100), "% core", (0.5, 0.1)).once(),
    row("idle server memory", ("server", 100), "MiB", (50.0, 30.0))
        .pick(Pick::Other("memory"))
        .once(),
    row("python", ("python", 10_000), "calls/s", (5_000.0, 15_000.0)).up(),
    row("python fib chain", ("fib", 40), "ms", (100.0, 50.0)),
    row("start", ("start", 20), "ms", (50.0, 20.0)),
    row("idle memory", ("start", 20), "MiB", (40.0, 20.0)).pick(Pick::Other("memory")),
    row("recover", ("recover", 1_000_000), "s", RECOVER),
    row(
        "recover groups",
        ("recover-groups", 1_000_000),
        "s",
        RECOVER,
    ),
    row("recover runs", ("recover-runs", 1_000_000), "s", RECOVER),
    row(
        "recover beside ended",
        ("recover-ended", 1_000_000),
        "s",
        RECOVER,
    ),
    row("parked", PARKED, "% core", PARKED_CPU).once(),
    row("parked restarted", PARKED, "% core", PARKED_CPU)
        .pick(Pick::Other("cpu after restart"))
        .once(),
    row("parked memory", PARKED, "MiB", PARKED_MEMORY)
        .pick(Pick::Other("memory"))
        .once(),
    row("parked memory restarted", PARKED, "MiB", PARKED_MEMORY)
        .pick(Pick::Other("memory after restart"))
        .once(),
];
