//! `kapell why`

use kapell_api::client::Api;
use kapell_api::http::{ItemCounts, RecordQuery, RunView, StepView};
use kapell_model::{Error, ErrorCode, RunStatus, StepStatus, Time};
use kapell_node::clock;
use serde::Serialize;

use crate::args::Why;
use crate::config::Config;
use crate::failure::Failure;
use crate::paint::{self, BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, failure, item, show, tree, words};

/// Waiting steps that are named; the others are counted.
const NAMED: usize = 30;

/// The widest column of names.
const NAMES: usize = 40;

/// Items of a foreach that are named: how many wait for what is said of it as a whole.
const ITEMS: usize = 5;

/// One thing that is so, and why.
#[derive(Serialize)]
struct Because {
    /// Path of the step; empty for the run.
    step: String,
    /// The label, if it is an item.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    status: String,
    /// One sentence.
    why: String,
    /// Items of a foreach, by what they wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<ItemCounts>,
    /// Of what failed.
    #[serde(flatten)]
    failed: Option<Failure>,
}

impl Because {
    fn name(&self) -> String {
        words::labelled(&self.step, self.label.as_deref())
    }
}

pub(crate) fn why(why: &Why, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&why.run)?;
    let view = session.api().view(run)?;
    let now = clock::now();
    let all = match &why.step {
        Some(step) => {
            let path = item::path(session.api(), run, step, why.item.as_deref())?;
            vec![because(&step_of(&view, &path, session.api())?, &view, now)]
        }
        None => reasons(&view, &session, now),
    };
    let ended_badly = view.summary.status.ended() && view.summary.status != RunStatus::Succeeded;
    let whole = why.step.is_none() && ended_badly;
    if why.json {
        let mut all = all;
        if whole && view.summary.status != RunStatus::Discarded {
            all.extend(failures(session.api(), &view)?);
        }
        session.close();
        printer.json(&all)?;
        return Ok(Exit::Success);
    }
    let explained = if whole {
        failure::explain(session.api(), &view)?
    } else {
        Vec::new()
    };
    session.close();
    printer.line(tree::head(&view, now))?;
    let mut lines = sentences(&all);
    lines.extend(explained);
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

/// The steps that made a run fail, and how; of a run that no step failed, itself.
fn failures(api: &dyn Api, view: &RunView) -> Result<Vec<Because>, Error> {
    let found = failure::found(api, view)?;
    Ok(found
        .into_iter()
        .map(|(step, status, failure)| Because {
            why: format!("{}: {}", paint::word(&status), failure.message()),
            step,
            label: None,
            status,
            items: None,
            failed: Some(failure),
        })
        .collect())
}

/// A step or item as it is now; one that has ended may be in the run's record alone.
pub(crate) fn step_of(view: &RunView, path: &str, api: &dyn Api) -> Result<StepView, Error> {
    if let Some(step) = view.steps.iter().find(|step| step.path == path) {
        return Ok(step.clone());
    }
    match api.view_step(view.summary.run, path) {
        Err(error) if error.code == ErrorCode::StepNotFound => {}
        found => return found,
    }
    let record = api.record(view.summary.run, &RecordQuery::with(path))?;
    let step = show::find(&record, path)?;
    Ok(StepView {
        path: step.path.clone(),
        label: step.label.clone(),
        depth: 0,
        status: step.status,
        attempts: u32::try_from(step.attempts.len()).unwrap_or(u32::MAX),
        ready_at: step.ready_at,
        started_at: step.started_at,
        ended_at: step.ended_at,
        items: None,
        waits_for: step.waits_for.clone(),
        worker: None,
        error: step.error.clone(),
        child: step.child,
        lock: step.lock.clone(),
        approval: None,
        stopped: None,
    })
}

/// What a run waits for, as lines.
pub(crate) fn lines(view: &RunView, session: &Session, now: Time) -> Vec<Line> {
    sentences(&reasons(view, session, now))
}

fn sentences(all: &[Because]) -> Vec<Line> {
    let steps = all
        .iter()
        .map(|reason| words::columns(&reason.name()))
        .max()
        .unwrap_or(0)
        .min(NAMES);
    let mut lines = Vec::new();
    let all = without_most_items(all);
    for reason in all.iter().take(NAMED) {
        let mut line = Line::default().with(PLAIN, "  ");
        if !reason.step.is_empty() {
            line.push(BOLD, reason.name());
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

/// Items of a foreach beyond the first ones are left out: the foreach says how many there are.
fn without_most_items(all: &[Because]) -> Vec<&Because> {
    let (mut foreach, mut items) = ("", 0);
    let mut kept = Vec::with_capacity(all.len());
    for reason in all {
        let path = reason.step.strip_suffix(']');
        if let Some((of, _)) = path.and_then(|path| path.rsplit_once('[')) {
            if foreach != of {
                (foreach, items) = (of, 0);
            }
            items += 1;
            if items > ITEMS {
                continue;
            }
        }
        kept.push(reason);
    }
    kept
}

/// Everything that waits or runs in a run that has not ended; of one that has, the run alone.
fn reasons(view: &RunView, session: &Session, now: Time) -> Vec<Because> {
    let of_run = |why: String| Because {
        step: String::new(),
        label: None,
        status: view.summary.status.name().to_owned(),
        why: words::commands(&why, view.summary.run, None),
        items: None,
        failed: None,
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
    if let Some(what) = &view.summary.waits_for {
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
            (None, Some(items)) => format!("has run for {took}: {}", of_items(items, now)),
            (None, None) => match &step.worker {
                Some(worker) => format!("has run for {took} at the worker `{}`", worker.name),
                None => format!("has run for {took}"),
            },
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
        label: step.label.clone(),
        status: step.status.name().to_owned(),
        why: words::commands(&why, view.summary.run, Some(&step.path)),
        items: step.items.clone(),
        failed: None,
    }
}

/// How many items have ended, run, and wait for what.
fn of_items(items: &ItemCounts, now: Time) -> String {
    let number = |count: u32| words::grouped(u64::from(count));
    let ended = items.succeeded + items.failed + items.other;
    let (runs, have) = (
        if items.running == 1 { "runs" } else { "run" },
        if items.count == 1 {
            "item has"
        } else {
            "items have"
        },
    );
    let mut text = format!(
        "{} of {} {have} ended, {} {runs}",
        number(ended),
        number(items.count),
        number(items.running)
    );
    for of in &items.waiting {
        let least = if of.more { "at least " } else { "" };
        let wait = if of.items == 1 { "waits" } else { "wait" };
        let what = words::local(&of.waits_for, now);
        text += &format!("; {least}{} {wait} for {what}", number(of.items));
    }
    text
}
