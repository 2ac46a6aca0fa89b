//! From the start of a process to its first new step, after a kill with a million steps of history.
//!
//! A child of ours makes the directory: its store lets commits through up to a moment and then stands
//! still, and we kill it there. Then `kapell resume` goes on, and history says when its first step
//! ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kapell_expr::Value;
use kapell_model::limits;
use kapell_node::clock;
use kapell_node::engine::chunk;
use kapell_node::engine::event::Event;
use kapell_server::workers::OwnQueues;
use kapell_store::{RunFilter, RunRow, SqliteStore, Store};

use super::{Figures, figures, lines};
use crate::kapell::Kapell;
use crate::recorder::{Gate, succeeded};
use crate::system::System;

/// Whose steps the history holds.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    /// One run's, killed after 99 % of its items.
    Items,
    /// One run's, whose items are chains of a hundred, killed when half of all steps had ended.
    Groups,
    /// Runs' of a hundred, all with one step left that waits for a worker.
    Runs,
    /// Runs' of a hundred that have ended, beside one run that was killed amid its items.
    Ended,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Groups => "groups",
            Self::Runs => "runs",
            Self::Ended => "ended",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Items, Self::Groups, Self::Runs, Self::Ended]
            .into_iter()
            .find(|case| case.name() == name)
    }
}

const ITEMS: &str = "workflow: items\nparams:\n  n: { type: int }\nsteps:\n  work:\n    foreach: { i: \"${{ range(params.n) }}\" }\n    noop: {}\n";
const LEFT: &str = "workflow: left\nsteps:\n  a:\n    foreach: { i: \"${{ range(99) }}\" }\n    noop: {}\n  b: { needs: [a], queue: left, exec: [/bin/true] }\n";

/// A foreach whose items are chains of a hundred.
fn groups() -> String {
    let chain = lines(100, |step| match step {
        0 => "      s0: { noop: {} }\n".to_owned(),
        step => format!("      s{step}: {{ needs: [s{}], noop: {{}} }}\n", step - 1),
    });
    format!(
        "workflow: groups\nparams:\n  n: {{ type: int }}\nsteps:\n  work:\n    foreach: {{ i: \"${{{{ range(params.n) }}}}\" }}\n    steps:\n{chain}"
    )
}

/// Items of the run that is under way beside those that have ended.
const UNDER_WAY: usize = 50_000;

/// Makes a directory with `n` steps of history, prints a line, and stands still until it is killed.
pub(crate) fn make(case: &str, dir: &str, n: usize) -> Result<()> {
    let case = Case::named(case).context("there is no such case")?;
    let (shut, shuts) = mpsc::channel();
    let steps = match case {
        Case::Items | Case::Runs => n / 100 * 99,
        Case::Groups => n,
        Case::Ended => n + UNDER_WAY / 2,
    };
    let own = match case {
        Case::Items | Case::Groups | Case::Ended => OwnQueues::Free,
        // What is left is for a worker that is not there yet.
        Case::Runs => OwnQueues::Named(["default".into()].into()),
    };
    let gate = Gate::new(steps, shut);
    let system = System::with_gate(Path::new(dir), own, gate)?;
    let of = |items: usize| {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        Value::map([("n", Value::Int(items))])
    };
    match case {
        Case::Items => system.start(&system.register(ITEMS)?, of(n)),
        Case::Groups => system.start(&system.register(&groups())?, of(n / 50)),
        Case::Runs => {
            let left = system.register(LEFT)?;
            (0..n / 100).for_each(|_| system.start(&left, Value::Null));
        }
        Case::Ended => {
            let items = system.register(ITEMS)?;
            (0..n / 100).for_each(|_| system.start(&items, of(100)));
            system.wait(n / 100)?;
            system.start(&items, of(UNDER_WAY));
        }
    }
    shuts.recv()?;
    println!("made");
    // Ends also if whoever should kill us is gone.
    std::io::stdin().read_line(&mut String::new())?;
    std::process::abort()
}

/// Seconds from the start of `kapell resume` to the end of its first step; raw is the store alone,
/// opened and asked for the same runs.
pub(crate) fn recover(dir: &Path, case: Case, n: usize) -> Result<Figures> {
    let data = dir.join(".kapell");
    killed(case, &data, n)?;
    let raw = raw(&data, &dir.join("raw"))?;
    let started_at = clock::now();
    Kapell::spawn(dir, &["resume", "--json"])?.ended()?;
    let store = SqliteStore::open(&data)?;
    let mut first = None::<i64>;
    each_run(&store, |run| {
        for (_, chunk) in store.history(&run.id.into(), 1, usize::MAX)? {
            let ends = chunk::decode::<Event>(&chunk)?
                .into_iter()
                .filter(|event| event.at > started_at.0 && succeeded(event))
                .map(|event| event.at);
            first = first.into_iter().chain(ends).min();
        }
        Ok(())
    })?;
    let first = first.context("no step ended after the restart")?;
    Ok(Figures {
        raw: Some(raw),
        ..figures((first - started_at.0) as f64 / 1e6)
    })
}

/// Lets a child make the directory, and kills it.
fn killed(case: Case, data: &Path, n: usize) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("make")
        .arg(case.name())
        .arg(data)
        .arg(n.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    let read = BufReader::new(output).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    ensure!(line == "made\n", "the history could not be made");
    Ok(())
}

/// Seconds of the store alone on a copy: it is opened and gives what it holds of every run that is due.
fn raw(data: &Path, copy: &Path) -> Result<f64> {
    std::fs::create_dir(copy)?;
    for file in ["kapell.db", "kapell.db-wal"] {
        if data.join(file).exists() {
            std::fs::copy(data.join(file), copy.join(file))?;
        }
    }
    let started = Instant::now();
    let store = SqliteStore::open(copy)?;
    let mut after = None;
    loop {
        let due = store.due(clock::now(), after.as_ref(), limits::LIST_PAGE)?;
        let Some(last) = due.last().cloned() else {
            break;
        };
        after = Some(last);
        for (_, key) in due {
            ensure!(store.load(&key)?.is_some(), "{key:?} has no history");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(store);
    std::fs::remove_dir_all(copy)?;
    Ok(seconds)
}

fn each_run(store: &SqliteStore, mut each: impl FnMut(&RunRow) -> Result<()>) -> Result<()> {
    let mut filter = RunFilter::default();
    loop {
        let rows = store.list_runs(&filter, limits::LIST_PAGE)?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        filter.before = Some(kapell_store::RunPlace::of(last));
        rows.iter().try_for_each(&mut each)?;
    }
}
