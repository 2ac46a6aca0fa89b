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
