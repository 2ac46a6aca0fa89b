//! What each example must give.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use super::expect_part;
use super::kapell::Kapell;

/// One example.
pub(super) struct Case {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// The workflow files that it runs, below the folder of the examples.
    pub(super) files: &'static [&'static str],
    /// Runs and judges it.
    pub(super) check: fn(&Kapell) -> Result<()>,
}

/// Every example, the quick ones first.
pub(super) const CASES: [Case; 13] = [
    Case {
        name: "etl-shell",
        files: &["etl-shell.yaml"],
        check: etl_shell,
    },
    Case {
        name: "branching",
        files: &["branching.yaml"],
        check: branching,
    },
    Case {
        name: "nested-foreach",
        files: &["nested-foreach.yaml"],
        check: nested_foreach,
    },
    Case {
        name: "loop",
        files: &["loop.yaml"],
        check: cycle,
    },
    Case {
        name: "retry",
        files: &["retry.yaml"],
        check: retry,
    },
    Case {
        name: "sub-workflow",
        files: &["sub-workflow/child.yaml", "sub-workflow/parent.yaml"],
        check: sub_workflow,
    },
    Case {
        name: "failure-policies",
        files: &["failure-policies.yaml"],
        check: failure_policies,
    },
    Case {
        name: "failing",
        files: &["failing.yaml"],
        check: failing,
    },
    Case {
        name: "cron",
        files: &["cron.yaml"],
        check: cron,
    },
    Case {
        name: "approval",
        files: &["approval.yaml"],
        check: approval,
    },
    Case {
        name: "locks",
        files: &["locks.yaml"],
        check: locks,
    },
    Case {
        name: "run-queue",
        files: &["run-queue.yaml"],
        check: run_queue,
    },
    Case {
        name: "flights",
        files: &["flights/flights.yaml"],
        check: flights,
    },
];

fn etl_shell(kapell: &Kapell) -> Result<()> {
    let outputs = kapell.run("etl-shell.yaml", &[])?;
    expect_part(
        &outputs,
        &json!({ "orders": 570, "warehouse": { "name": "warehouse.csv" } }),
    )?;
    let outputs = kapell.run("etl-shell.yaml", &["orders=20", "regions=[\"eu\"]"])?;
    expect_part(&outputs, &json!({ "orders": 19, "best_region": "eu" }))
}

fn branching(kapell: &Kapell) -> Result<()> {
    expect_part(
        &kapell.run("branching.yaml", &[])?,
        &json!({ "branch": 2, "notified": false }),
    )?;
    expect_part(
        &kapell.run("branching.yaml", &["rows=0"])?,
        &json!({ "branch": 0 }),
    )?;
    let outputs = kapell.run("branching.yaml", &["rows=50000", "notify=true"])?;
    expect_part(&outputs, &json!({ "branch": 1, "notified": true }))
}

fn cron(kapell: &Kapell) -> Result<()> {
    let outputs = kapell.run("cron.yaml", &["day=2026-01-31", "rows=7"])?;
    expect_part(&outputs, &json!({ "text": "7 rows on 2026-01-31" }))
}

fn approval(kapell: &Kapell) -> Result<()> {
    expect_part(
        &kapell.run("approval.yaml", &[])?,
        &json!({ "model": "model-1", "asked": false }),
    )
}

fn nested_foreach(kapell: &Kapell) -> Result<()> {
    let skus = [
        "small-red",
        "small-green",
        "small-blue",
        "large-red",
        "large-green",
        "large-blue",
    ];
    let by_country = json!([
        { "name": "Norway", "pieces": 10 },
        { "name": "Chile", "pieces": 20 },
        { "name": "Japan", "pieces": 5 },
    ]);
    let outputs = kapell.run("nested-foreach.yaml", &[])?;
    expect_part(
        &outputs,
        &json!({ "pieces": 35, "by_country": by_country, "skus": skus }),
    )
}

fn cycle(kapell: &Kapell) -> Result<()> {
    let outputs = kapell.run("loop.yaml", &[])?;
    expect_part(
        &outputs,
        &json!({ "rows": 60, "pages": 3, "steps_taken": 5 }),
    )?;
    let root = outputs["root"].as_f64().unwrap_or_default();
    ensure!(
        (root - std::f64::consts::SQRT_2).abs() < 1e-9,
        "the root of 2 came out as {root}"
    );
    Ok(())
}

fn retry(kapell: &Kapell) -> Result<()> {
    let expected =
        json!({ "succeeded_at": 3, "attempts": 3, "hopeless": "failed", "hopeless_attempts": 1 });
    expect_part(&kapell.run("retry.yaml", &[])?, &expected)
}

fn sub_workflow(kapell: &Kapell) -> Result<()> {
    expect_part(
        &kapell.run("sub-workflow/child.yaml", &["region=eu"])?,
        &json!({ "region": "eu", "rows": 20 }),
    )?;
    let outputs = kapell.run("sub-workflow/parent.yaml", &[])?;
    expect_part(&outputs, &json!({ "rows": 800 }))?;
    let runs = outputs["runs"].as_array().map_or(0, Vec::len);
    ensure!(runs == 3, "three children have a run each, not {runs}");
    Ok(())
}

fn failure_policies(kapell: &Kapell) -> Result<()> {
    let expected = json!({
        "converted": 8,
        "damaged": [3, 7],
        "thumbnails": "failed",
        "publish": "failed",
        "slow": "timed_out",
    });
    expect_part(&kapell.run("failure-policies.yaml", &[])?, &expected)
}

fn failing(kapell: &Kapell) -> Result<()> {
    let file = kapell.folder().join("delivery.csv");
    let parameter = format!("delivery={}", file.display());
    let text = kapell.fails(&["run", "failing.yaml", "-p", &parameter])?;
    ensure!(
        text.contains("no delivery"),
        "the error does not show what the step said: {text}"
    );
    let why = kapell.succeeds(&["why"])?;
    ensure!(why.contains("check"), "`why` does not name the step: {why}");
    fs::write(&file, "apple,3\npear,4\n")?;
    let outputs = kapell.retry()?;
    expect_part(&outputs, &json!({ "pieces": 7, "prepare_attempts": 1 }))
}

fn locks(kapell: &Kapell) -> Result<()> {
    expect_part(
        &kapell.run("locks.yaml", &[])?,
        &json!({ "written": 6, "invoiced": 8, "called": 10 }),
    )
}

fn run_queue(kapell: &Kapell) -> Result<()> {
    expect_part(
        &kapell.run("run-queue.yaml", &["customer=bob"])?,
        &json!({ "customer": "bob" }),
    )
}

/// A twentieth of two months: every step, in seconds once the Python environment is there.
fn flights(kapell: &Kapell) -> Result<()> {
    let taste = [
        "sample=0.05",
        "months=[1, 7]",
        "leaves=[15, 31]",
        "rates=[0.06, 0.12]",
    ];
    let outputs = kapell.run("flights/flights.yaml", &taste)?;
    expect_part(
        &outputs,
        &json!({ "flights": 2741, "plot": { "name": "delays.png" } }),
    )?;
    let auc = outputs["auc"].as_f64().unwrap_or_default();
    ensure!(auc > 0.6, "the model is no better than chance: AUC {auc}");
    Ok(())
}
