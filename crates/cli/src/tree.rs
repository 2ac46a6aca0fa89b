//! A run as a tree of steps, from where it stands now.

use kapell_api::http::{ItemCounts, RunView, StepView};
use kapell_model::{StepStatus, Time};

use crate::paint::{self, BOLD, CYAN, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::words;

/// Columns of a bar.
const BAR: usize = 20;
/// The widest column of names.
const NAMES: usize = 40;

/// The head line of a run.
pub(crate) fn head(view: &RunView, now: Time) -> Line {
    let summary = &view.summary;
    let (sign, style) = paint::run(summary.status);
    let mut line = Line::default()
        .with(style, sign)
        .with(PLAIN, " ")
        .with(BOLD, &summary.workflow)
        .with(DIM, format!(" v{}  run {}", summary.version, summary.run))
        .with(DIM, "  ")
        .with(style, paint::word(summary.status.name()));
    if let Some(took) = words::took(summary.started_at, summary.ended_at, now) {
        line.push(DIM, format!("  {}", words::span(took)));
    }
    line
}

/// One line for each step, with its depth.
pub(crate) fn steps(view: &RunView, now: Time) -> Vec<(StepStatus, Line)> {
    let mut above: Vec<(u32, &str)> = Vec::new();
    let mut names = Vec::with_capacity(view.steps.len());
    for step in &view.steps {
        above.retain(|(depth, _)| *depth < step.depth);
        names.push(name(step, above.last().map_or("", |(_, path)| path)));
        above.push((step.depth, &step.path));
    }
    let column = view
        .steps
        .iter()
        .zip(&names)
        .map(|(step, name)| step.depth as usize * 2 + words::columns(name))
        .max()
        .unwrap_or(0)
        .min(NAMES);
    view.steps
        .iter()
        .zip(names)
        .map(|(step, name)| (step.status, line(step, &name, column, now)))
        .collect()
}

/// What is left of a path below the step above it.
fn name(step: &StepView, above: &str) -> String {
    let own = step.path.strip_prefix(above).unwrap_or(&step.path);
    words::labelled(own.trim_start_matches('.'), step.label.as_deref())
}

fn line(step: &StepView, name: &str, column: usize, now: Time) -> Line {
    let (sign, style) = paint::step(step.status);
    let indent = "  ".repeat(step.depth as usize);
    let mut line = Line::default()
        .with(PLAIN, format!("  {indent}"))
        .with(style, sign)
        .with(PLAIN, " ");
    let quiet = matches!(
        step.status,
        StepStatus::Pending | StepStatus::Skipped | StepStatus::UpstreamFailed
    );
    line.push(if quiet { DIM } else { PLAIN }, words::cut(name, NAMES));
    line.pad(column + 6);
    detail(step, now, &mut line);
    line
}

/// What is to be said of a step beside its name.
pub(crate) fn detail(step: &StepView, now: Time, line: &mut Line) {
    let tries = if step.attempts > 1 {
        format!("  try {}", step.attempts)
    } else {
        String::new()
    };
    let took = words::took(step.started_at, step.ended_at, now)
        .map(words::span)
        .unwrap_or_default();
    if let Some(items) = &step.items {
        bar(items, step, line);
        if matches!(step.status, StepStatus::Running) && step.started_at.is_some() {
            rate(items, step, now, line);
        }
        if !took.is_empty() {
            line.push(DIM, format!("  {took}"));
        }
        return;
    }
    match step.status {
        StepStatus::Succeeded => line.push(DIM, format!("{took}{tries}")),
        StepStatus::Cached => line.push(DIM, "cached"),
        StepStatus::Running => {
            line.push(CYAN, took);
            if let Some(worker) = &step.worker {
                line.push(DIM, format!("  at {}", worker.name));
            }
            if step.waits_for.is_some() {
                line.push(DIM, format!("  {}", waits(step, now)));
            }
        }
        StepStatus::Failed | StepStatus::TimedOut => {
            let took = format!("{took}{tries}");
            if !took.is_empty() {
                line.push(DIM, took + "  ");
            }
            line.push(RED, error(step));
        }
        StepStatus::UpstreamFailed => line.push(DIM, "not started: a step before it failed"),
        StepStatus::Skipped => line.push(DIM, "skipped"),
        StepStatus::Cancelled => line.push(YELLOW, "cancelled"),
        StepStatus::Retrying => line.push(YELLOW, waits(step, now)),
        StepStatus::Pending | StepStatus::Waiting | StepStatus::Queued | StepStatus::Cancelling => {
            line.push(DIM, waits(step, now));
        }
    }
}

fn waits(step: &StepView, now: Time) -> String {
    match step.waits_for.as_ref().map(|what| words::local(what, now)) {
        Some(what) if step.status == StepStatus::Retrying && what.starts_with("try ") => what,
        Some(what) => format!("waits for {what}"),
        None => paint::word(step.status.name()),
    }
}

/// The first line of a step's error.
pub(crate) fn error(step: &StepView) -> String {
    let error = step.error.as_ref().map_or("", |error| &error.message);
    words::first_line(error).to_owned()
}

fn bar(items: &ItemCounts, step: &StepView, line: &mut Line) {
    let ended = items.succeeded + items.failed + items.other;
    let share = |count: u32| (count as usize * BAR).div_ceil(items.count.max(1) as usize);
    if !step.status.ended() {
        let good = (items.succeeded as usize * BAR) / items.count.max(1) as usize;
        let bad = share(items.failed).min(BAR - good);
        let rest = BAR - good - bad;
        line.push(GREEN, "━".repeat(good));
        line.push(RED, "━".repeat(bad));
        line.push(DIM, "━".repeat(rest));
        line.push(PLAIN, " ");
    }
    let counted = format!(
        "{}/{}",
        words::grouped(u64::from(ended)),
        words::grouped(u64::from(items.count))
    );
    line.push(PLAIN, counted);
    if items.failed > 0 {
        line.push(
            RED,
            format!("  {} failed", words::grouped(u64::from(items.failed))),
        );
    }
    if items.other > 0 {
        line.push(
            DIM,
            format!("  {} not run", words::grouped(u64::from(items.other))),
        );
    }
    if items.running > 0 && !step.status.ended() {
        line.push(
            CYAN,
            format!("  {} running", words::grouped(u64::from(items.running))),
        );
    }
}

/// Items a second, and what is left at that rate.
fn rate(items: &ItemCounts, step: &StepView, now: Time, line: &mut Line) {
    let Some(took) = words::took(step.started_at, None, now) else {
        return;
    };
    let ended = u64::from(items.succeeded + items.failed + items.other);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    if ended == 0 || millis < 500 {
        return;
    }
    let tenths = ended * 10_000 / millis;
    let text = if tenths < 100 {
        format!("{}.{}", tenths / 10, tenths % 10)
    } else {
        words::grouped(tenths / 10)
    };
    let left = u64::from(items.count).saturating_sub(ended) * millis / ended;
    line.push(
        DIM,
        format!(
            "  {text}/s, {} left",
            words::span(std::time::Duration::from_millis(left))
        ),
    );
}
