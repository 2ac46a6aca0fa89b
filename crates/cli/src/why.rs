//! `kapell why`

use kapell_api::http::{RunView, StepView};
use kapell_model::{Error, ErrorCode, RunStatus, StepStatus, Time};
use kapell_node::clock;
use serde::Serialize;

use crate::args::Why;
use crate::config::Config;
use crate::paint::{self, BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, failure, tree, words};

/// Waiting steps that are named; the others are counted.
const NAMED: usize = 30;

/// One thing that is so, and why.
#[derive(Serialize)]
struct Because {
    /// Path of the step; empty for the run.
    step: String,
    status: String,
    /// One sentence.
    why: String,
}

pub(crate) fn why(why: &Why, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&why.run)?;
    let view = session.api().view(run)?;
    let now = clock::now();
    let all = match &why.step {
        Some(path) => vec![because(find(&view, path)?, &view, now)],
        None => reasons(&view, &session, now),
    };
    let ended_badly = view.summary.status.ended() && view.summary.status != RunStatus::Succeeded;
    let explained = if why.step.is_none() && ended_badly && !why.json {
        failure::explain(session.api(), &view)?
    } else {
        Vec::new()
    };
    session.close();
    if why.json {
        printer.json(&all)?;
        return Ok(Exit::Success);
    }
    printer.line(tree::head(&view, now))?;
    let mut lines = sentences(&all);
    lines.extend(explained);
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

/// What a run waits for, as lines.
pub(crate) fn lines(view: &RunView, session: &Session, now: Time) -> Vec<Line> {
    sentences(&reasons(view, session, now))
}

fn sentences(all: &[Because]) -> Vec<Line> {
    let steps = all
        .iter()
        .map(|reason| reason.step.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    let mut lines = Vec::new();
    for reason in all.iter().take(NAMED) {
        let mut line = Line::default().with(PLAIN, "  ");
        if !reason.step.is_empty() {
            line.push(BOLD, &reason.step);
            line.pad(steps + 4);
        }
        lines.push(line.with(PLAIN, &reason.why));
    }
    if all.len() > NAMED {
        let more = words::count((all.len() - NAMED) as u64, "more step");
        lines.push(Line::default().with(DIM, format!("  … and {more}")));
    }
    lines
}

/// The step of a path.
pub(crate) fn find<'v>(view: &'v RunView, path: &str) -> Result<&'v StepView, Error> {
    view.steps
        .iter()
        .find(|step| step.path == path)
        .ok_or_else(|| {
            let names: Vec<&str> = view
                .steps
                .iter()
                .take(20)
                .map(|step| step.path.as_str())
                .collect();
            Error::new(
                ErrorCode::StepNotFound,
                format!("run {} has no step `{path}`", view.summary.run),
            )
            .hint(format!("its steps are {}", names.join(", ")))
        })
}

/// Everything that waits or runs in a run that has not ended; of one that has, the run alone.
fn reasons(view: &RunView, session: &Session, now: Time) -> Vec<Because> {
    let of_run = |why: String| Because {
        step: String::new(),
        status: view.summary.status.name().to_owned(),
        why,
    };
    match view.summary.status {
        RunStatus::Succeeded => return vec![of_run("the run succeeded: nothing waits".to_owned())],
        RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled => return Vec::new(),
        RunStatus::Discarded => {
            let error = view
                .failure
                .as_ref()
                .map_or("its strategy dropped it", |error| &error.message);
            return vec![of_run(format!("the run never started: {error}"))];
        }
        RunStatus::Queued | RunStatus::Running | RunStatus::Paused | RunStatus::Cancelling => {}
    }
    let mut all = Vec::new();
    if let Some(what) = &view.waits_for {
        all.push(of_run(words::run_waits(&words::local(what, now))));
    } else if session.holder().is_none() {
        all.push(of_run(
            "no process works in this directory: `kapell resume` goes on".to_owned(),
        ));
    }
    all.extend(
        view.steps
            .iter()
            .filter(|step| !step.status.ended())
            .map(|step| because(step, view, now)),
    );
    all
}

/// One sentence about a step.
fn because(step: &StepView, view: &RunView, now: Time) -> Because {
    let took = words::took(step.started_at, step.ended_at, now)
        .map(words::span)
        .unwrap_or_default();
    let error = tree::error(step);
    let waits = step.waits_for.as_ref().map(|what| words::local(what, now));
    let waits = waits.as_deref();
    let why = match step.status {
        StepStatus::Succeeded => format!("succeeded in {took}"),
        StepStatus::Cached => "took a result that was kept".to_owned(),
        StepStatus::Failed => format!("failed: {error}"),
        StepStatus::TimedOut => format!("timed out: {error}"),
        StepStatus::Cancelled if error.is_empty() => "was cancelled".to_owned(),
        StepStatus::Cancelled => format!("was cancelled: {error}"),
        StepStatus::Skipped if error.is_empty() => "was skipped: its `if` was false, a step that it needs was skipped, or its branch was not taken".to_owned(),
        StepStatus::Skipped => format!("was skipped: {error}"),
        StepStatus::UpstreamFailed => match view.failed_step.as_deref().filter(|path| !path.is_empty()) {
            Some(failed) => format!("did not start: `{failed}` failed before it"),
            None => "did not start: a step before it failed".to_owned(),
        },
        StepStatus::Retrying => format!("waits for {}", waits.unwrap_or("its next try")),
        StepStatus::Running => match (waits, &step.items) {
            (Some(what), _) => format!("has run for {took} and waits for {what}"),
            (None, Some(items)) => {
                let ended = items.succeeded + items.failed + items.other;
                let (count, running) = (items.count, items.running);
                let rest = match count.saturating_sub(ended + running) {
                    0 => String::new(),
                    left => format!(", {left} wait for a worker with room or for their turn"),
                };
                format!(
                    "has run for {took}: {ended} of {count} items have ended, {running} run{rest}"
                )
            }
            (None, None) => format!("has run for {took}"),
        },
        StepStatus::Pending | StepStatus::Waiting | StepStatus::Queued | StepStatus::Cancelling => {
            match waits {
                Some(what) => format!("waits for {what}"),
                None => format!("is {}", paint::word(step.status.name())),
            }
        }
    };
    Because {
        step: step.path.clone(),
        status: step.status.name().to_owned(),
        why,
    }
}
