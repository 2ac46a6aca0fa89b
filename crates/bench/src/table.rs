//! The table: every workload in processes of its own, several times, beside its raw reference.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::wanted::{POSTGRES, Pick, WANTED, Wanted};
use crate::workloads::{Figures, median};

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

/// Runs what is wanted, prints the table and writes `target/bench.json`.
pub(crate) fn all(only: &[&str], pairs: usize) -> Result<()> {
    let mut rows = Vec::new();
    let mut done: Vec<(&str, usize, Vec<Figures>)> = Vec::new();
    println!(
        "{:<24} {:>9}  {:>12} {:<8} {:>12} {:>7}  {:>9} {:>9}",
        "name", "n", "value", "unit", "raw", "ratio", "must", "goal"
    );
    for wanted in WANTED {
        if wanted.belongs(POSTGRES) && !only.contains(&POSTGRES) {
            continue;
        }
        if !only.is_empty() && !only.iter().any(|name| wanted.belongs(name)) {
            continue;
        }
        let known = done
            .iter()
            .position(|(name, n, _)| *name == wanted.workload && *n == wanted.n);
        let known = if let Some(known) = known {
            known
        } else {
            let figures = (0..pairs.min(wanted.most))
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
        _ if row.goal.is_infinite() => "",
        (_, true) => "goal met",
        (true, false) => "must met",
        (false, false) => "MISSED",
    };
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), shown);
    println!(
        "{:<24} {:>9}  {:>12} {:<8} {:>12} {:>7}  {:>9} {:>9}  {mark}",
        row.name,
        row.n,
        shown(row.value),
        row.unit,
        number(row.raw),
        row.ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        bound(row.must),
        bound(row.goal),
    );
}

/// What is wanted; nothing where a row is only to be seen.
fn bound(number: f64) -> String {
    if number.is_finite() {
        number.to_string()
    } else {
        "-".to_owned()
    }
}

/// A number with as many decimals as it takes to tell it from another.
fn shown(number: f64) -> String {
    if number.abs() < 10.0 {
        format!("{number:.3}")
    } else {
        format!("{number:.1}")
    }
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

fn row(wanted: &Wanted, figures: &[Figures]) -> Row {
    let all = |of: &dyn Fn(&Figures) -> Option<f64>| -> Option<f64> {
        let numbers: Vec<f64> = figures.iter().filter_map(of).collect();
        (!numbers.is_empty()).then(|| median(numbers))
    };
    let value = all(&|figures| wanted.pick.of(figures)).unwrap_or(f64::NAN);
    // Raw is of the same kind as the value itself, not as what else was measured.
    let beside = wanted.pick == Pick::Value;
    let raw = all(&|figures| figures.raw.filter(|_| beside));
    let ratio = all(&|figures| {
        figures
            .raw
            .filter(|_| beside)
            .map(|raw| figures.value / raw)
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
    let find = |workload: &str, n: usize| {
        done.iter()
            .find(|(name, count, _)| *name == workload && *count == n)
    };
    let rate = |figures: &[Figures]| median(figures.iter().map(|figures| figures.value).collect());
    let mut rows = Vec::new();
    for (name, workload, must) in [
        ("fanout growth", "fanout", 1.3),
        ("pg fanout growth", "pg-fanout", 1.2),
    ] {
        if let (Some(middle), Some(large)) = (find(workload, 10_000), find(workload, 1_000_000)) {
            rows.push(made(
                name,
                1_000_000,
                rate(&middle.2) / rate(&large.2),
                "times",
                (None, None),
                (must, 1.1),
                false,
            ));
        }
    }
    let (Some(small), Some(large)) = (find("fanout", 1_000), find("fanout", 1_000_000)) else {
        return rows;
    };
    let peak =
        |figures: &[Figures]| median(figures.iter().map(|figures| figures.peak as f64).collect());
    let bytes = (peak(&large.2) - peak(&small.2)) / 1_000_000.0;
    rows.push(made(
        "fanout memory",
        1_000_000,
        bytes,
        "B/item",
        (None, None),
        (300.0, 100.0),
        false,
    ));
    rows
}
