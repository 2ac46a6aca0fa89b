//! The table: every workload in processes of its own, several times, beside its raw reference.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::workloads::Figures;

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    n: usize,
    value: f64,
    unit: &'static str,
    raw: Option<f64>,
    ratio: Option<f64>,
    must: f64,
    goal: f64,
    met_must: bool,
    met_goal: bool,
}

/// What is measured, and what is wanted of it.
struct Wanted {
    name: &'static str,
    workload: &'static str,
    n: usize,
    unit: &'static str,
    pick: fn(&Figures) -> Option<f64>,
    must: f64,
    goal: f64,
    /// Greater is better.
    up: bool,
}

const fn wanted(
    name: &'static str,
    workload: &'static str,
    n: usize,
    unit: &'static str,
    pick: fn(&Figures) -> Option<f64>,
    (must, goal): (f64, f64),
    up: bool,
) -> Wanted {
    Wanted {
        name,
        workload,
        n,
        unit,
        pick,
        must,
        goal,
        up,
    }
}

fn value(figures: &Figures) -> Option<f64> {
    Some(figures.value)
}

fn share(figures: &Figures) -> Option<f64> {
    figures.raw.map(|raw| figures.value / raw * 100.0)
}

fn p99(figures: &Figures) -> Option<f64> {
    figures.p99
}

const WANTED: &[Wanted] = &[
    wanted(
        "fanout",
        "fanout",
        1_000,
        "steps/s",
        value,
        (0.0, 0.0),
        true,
    ),
    wanted(
        "fanout",
        "fanout",
        10_000,
        "steps/s",
        value,
        (100_000.0, 250_000.0),
        true,
    ),
    wanted(
        "fanout",
        "fanout",
        100_000,
        "steps/s",
        value,
        (100_000.0, 250_000.0),
        true,
    ),
    wanted(
        "fanout",
        "fanout",
        1_000_000,
        "steps/s",
        value,
        (100_000.0, 250_000.0),
        true,
    ),
    wanted(
        "fanout of raw",
        "fanout",
        1_000_000,
        "%",
        share,
        (20.0, 50.0),
        true,
    ),
    wanted(
        "many",
        "many",
        1_000,
        "steps/s",
        value,
        (80_000.0, 200_000.0),
        true,
    ),
    wanted("chain", "chain", 1_000, "us", value, (200.0, 120.0), false),
    wanted(
        "chain p99",
        "chain",
        1_000,
        "us",
        p99,
        (1_000.0, 300.0),
        false,
    ),
    wanted(
        "runs",
        "runs",
        20_000,
        "runs/s",
        value,
        (20_000.0, 50_000.0),
        true,
    ),
    wanted(
        "shell of a bare loop",
        "shell",
        2_000,
        "%",
        share,
        (70.0, 90.0),
        true,
    ),
    wanted(
        "python",
        "python",
        10_000,
        "calls/s",
        value,
        (5_000.0, 15_000.0),
        true,
    ),
    wanted(
        "python fib chain",
        "fib",
        40,
        "ms",
        value,
        (100.0, 50.0),
        false,
    ),
    wanted("start", "start", 20, "ms", value, (50.0, 20.0), false),
    wanted("idle memory", "idle", 1, "MiB", value, (40.0, 20.0), false),
];

/// Runs what is wanted, prints the table and writes `target/bench.json`.
pub(crate) fn all(only: &[&str], pairs: usize) -> Result<()> {
    let mut rows = Vec::new();
    let mut done: Vec<(&str, usize, Vec<Figures>)> = Vec::new();
    println!(
        "{:<22} {:>9}  {:>12} {:<8} {:>12} {:>7}  {:>9} {:>9}",
        "name", "n", "value", "unit", "raw", "ratio", "must", "goal"
    );
    for wanted in WANTED {
        if !only.is_empty() && !only.contains(&wanted.workload) {
            continue;
        }
        let known = done
            .iter()
            .position(|(name, n, _)| *name == wanted.workload && *n == wanted.n);
        let known = if let Some(known) = known {
            known
        } else {
            let pairs = if wanted.n >= 1_000_000 {
                pairs.min(3)
            } else {
                pairs
            };
            let figures = (0..pairs)
                .map(|_| one(wanted.workload, wanted.n))
                .collect::<Result<_>>()?;
            done.push((wanted.workload, wanted.n, figures));
            done.len() - 1
        };
        rows.push(row(wanted, &done[known].2));
        print_row(rows.last().context("a row was just made")?);
    }
    for extra in growth(&done) {
        print_row(&extra);
        rows.push(extra);
    }
    let path = std::env::current_exe()?
        .parent()
        .and_then(std::path::Path::parent)
        .context("the binary is in no target directory")?
        .join("bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)?;
    Ok(())
}

fn print_row(row: &Row) {
    let mark = match (row.met_must, row.met_goal) {
        (_, true) => "goal met",
        (true, false) => "must met",
        (false, false) => "MISSED",
    };
    let number = |number: Option<f64>| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"))
    };
    println!(
        "{:<22} {:>9}  {:>12.1} {:<8} {:>12} {:>7}  {:>9} {:>9}  {mark}",
        row.name,
        row.n,
        row.value,
        row.unit,
        number(row.raw),
        row.ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        row.must,
        row.goal,
    );
}

fn one(name: &str, n: usize) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .args(["one", name, &n.to_string()])
        .output()?;
    if !output.status.success() {
        bail!("{name} {n}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

fn row(wanted: &Wanted, figures: &[Figures]) -> Row {
    let value = median(figures.iter().filter_map(wanted.pick).collect());
    let raws: Vec<f64> = figures.iter().filter_map(|figures| figures.raw).collect();
    let raw = (!raws.is_empty() && wanted.unit != "%").then(|| median(raws));
    let ratio = raw.map(|_| {
        median(
            figures
                .iter()
                .filter_map(|figures| figures.raw.map(|raw| figures.value / raw))
                .collect(),
        )
    });
    made(
        wanted.name,
        wanted.n,
        value,
        wanted.unit,
        (raw, ratio),
        (wanted.must, wanted.goal),
        wanted.up,
    )
}

fn made(
    name: &str,
    n: usize,
    value: f64,
    unit: &'static str,
    (raw, ratio): (Option<f64>, Option<f64>),
    (must, goal): (f64, f64),
    up: bool,
) -> Row {
    let met = |bound: f64| if up { value >= bound } else { value <= bound };
    Row {
        name: name.to_owned(),
        n,
        value,
        unit,
        raw,
        ratio,
        must,
        goal,
        met_must: met(must),
        met_goal: met(goal),
    }
}

/// Bytes an item and the cost of a step at a million items against fewer.
fn growth(done: &[(&str, usize, Vec<Figures>)]) -> Vec<Row> {
    let find = |n: usize| {
        done.iter()
            .find(|(name, count, _)| *name == "fanout" && *count == n)
    };
    let (Some(small), Some(middle), Some(large)) = (find(1_000), find(10_000), find(1_000_000))
    else {
        return Vec::new();
    };
    let peak =
        |figures: &[Figures]| median(figures.iter().map(|figures| figures.peak as f64).collect());
    let rate = |figures: &[Figures]| median(figures.iter().map(|figures| figures.value).collect());
    let bytes = (peak(&large.2) - peak(&small.2)) / 1_000_000.0;
    vec![
        made(
            "fanout memory",
            1_000_000,
            bytes,
            "B/item",
            (None, None),
            (300.0, 100.0),
            false,
        ),
        made(
            "fanout growth",
            1_000_000,
            rate(&middle.2) / rate(&large.2),
            "times",
            (None, None),
            (1.3, 1.1),
            false,
        ),
    ]
}
