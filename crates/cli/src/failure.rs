//! What is said of a run that did not succeed: which step, why, its last words, what to do.

use kapell_api::client::Api;
use kapell_api::http::{LogCursor, LogQuery, RecordQuery, RunView, StepView};
use kapell_api::log::{Line as LogLine, Stream};
use kapell_api::record::StepRecord;
use kapell_api::task::TaskError;
use kapell_model::{Error, RunId, RunStatus, StepStatus};
use serde::Serialize;

use crate::paint::{BOLD, CYAN, DIM, Line, PLAIN, RED};
use crate::words;

/// Failed steps that are explained.
const STEPS: usize = 5;
/// Last lines of a log that are shown.
const LOG_LINES: usize = 10;
/// Lines of an error that are shown.
const ERROR_LINES: usize = 12;
/// Runs inside runs that are followed to where it began.
const DEEP: usize = 16;

/// A failed step, where its failure began: in a run that it made, or one that this made.
struct Failed {
    /// The steps on the way, the outermost first.
    steps: Vec<String>,
    /// The run of the last of them, if it is another, and its workflow.
    child: Option<(RunId, String)>,
    /// The step or item that printed something.
    path: String,
    timed_out: bool,
    message: String,
}

/// What to tell of an ended run that did not succeed.
pub(crate) fn explain(api: &dyn Api, view: &RunView) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let failed: Vec<&StepView> = roots(view);
    let mut printed = None;
    for step in failed.iter().take(STEPS) {
        let origin = origin(api, view, step)?;
        let run = origin
            .child
            .as_ref()
            .map_or(view.summary.run, |(run, _)| *run);
        let tail = tail(api, run, Some(&origin.path), None, LOG_LINES)?;
        lines.push(Line::default());
        lines.extend(heading(&origin));
        lines.extend(last_words(&tail, &origin.message));
        if printed.is_none() && !tail.is_empty() {
            printed = Some((run, origin.path));
        }
    }
    if failed.len() > STEPS {
        let more = words::count((failed.len() - STEPS) as u64, "more step");
        lines.push(Line::default());
        lines.push(Line::default().with(
            DIM,
            format!(
                "  {more} failed: kapell show {}",
                words::short(view.summary.run)
            ),
        ));
    }
    if failed.is_empty()
        && let Some(error) = &view.summary.error
    {
        lines.push(Line::default());
        lines.push(
            Line::default()
                .with(PLAIN, "  ")
                .with(RED, words::first_line(error)),
        );
    }
    lines.push(Line::default());
    lines.extend(advice(view, printed));
    Ok(lines)
}

/// How a step failed, for programs.
#[derive(Serialize)]
pub(crate) struct Failure {
    /// The reason in one word.
    code: String,
    /// All that is known of the error.
    error: TaskError,
    /// The run in which it began, if it is another, and its workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    /// The last lines that it printed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
    /// What to do.
    hint: String,
}

impl Failure {
    /// The error in words.
    pub(crate) fn message(&self) -> &str {
        &self.error.message
    }
}

/// The steps that made a run end as it did: path, status, and how each failed. Of a run that no step
/// failed the run itself, without a path.
pub(crate) fn found(
    api: &dyn Api,
    view: &RunView,
) -> Result<Vec<(String, String, Failure)>, Error> {
    let hint = format!("kapell retry {}", words::short(view.summary.run));
    let failure = |error: TaskError, hint: &str| Failure {
        code: error.reason.clone(),
        error,
        run: None,
        workflow: None,
        log: Vec::new(),
        hint: hint.to_owned(),
    };
    let mut all = Vec::new();
    for step in roots(view) {
        let origin = origin(api, view, step)?;
        let run = origin.child.as_ref().map(|(run, _)| *run);
        let log = tail(
            api,
            run.unwrap_or(view.summary.run),
            Some(&origin.path),
            None,
            LOG_LINES,
        )?;
        let mut error = step.error.clone().unwrap_or_default();
        error.message.clone_from(&origin.message);
        let mut failure = failure(error, &hint);
        failure.run = run;
        failure.workflow = origin.child.map(|(_, workflow)| workflow);
        failure.log = log.into_iter().map(|line| line.line.text).collect();
        all.push((
            origin.steps.join(" → "),
            step.status.name().to_owned(),
            failure,
        ));
    }
    if all.is_empty() {
        let error = view.failure.clone().unwrap_or_else(|| TaskError {
            message: view.summary.error.clone().unwrap_or_default(),
            ..TaskError::default()
        });
        let status = view.summary.status.name().to_owned();
        all.push((String::new(), status, failure(error, &hint)));
    }
    Ok(all)
}

/// Failed steps that no failed step inside them explains.
fn roots(view: &RunView) -> Vec<&StepView> {
    let failed = |step: &StepView| matches!(step.status, StepStatus::Failed | StepStatus::TimedOut);
    let mut found = Vec::new();
    for (place, step) in view.steps.iter().enumerate() {
        let inside = view.steps[place + 1..]
            .iter()
            .take_while(|other| other.depth > step.depth);
        if failed(step) && !inside.clone().any(failed) {
            found.push(step);
        }
    }
    found
}

/// Follows a failed step through the runs that it made to where the failure began.
fn origin(api: &dyn Api, view: &RunView, step: &StepView) -> Result<Failed, Error> {
    let mut failed = Failed {
        steps: Vec::new(),
        child: None,
        path: String::new(),
        timed_out: false,
        message: String::new(),
    };
    let mut child = failed.step(api, view.summary.run, step)?;
    while let Some(run) = child.take()
        && failed.steps.len() < DEEP
    {
        // A run that is no longer kept has nothing to add.
        let Ok(inner) = api.view(run) else { break };
        let Some(step) = roots(&inner).first().copied() else {
            break;
        };
        child = failed.step(api, run, step)?;
        failed.child = Some((run, inner.summary.workflow.clone()));
    }
    Ok(failed)
}

impl Failed {
    /// Goes on to a step, or the first item of it that failed; the run that this made.
    fn step(&mut self, api: &dyn Api, run: RunId, step: &StepView) -> Result<Option<RunId>, Error> {
        let item = match &step.items {
            Some(_) => failed_item(api, run, &step.path)?,
            None => None,
        };
        self.timed_out = step.status == StepStatus::TimedOut;
        self.message = step
            .error
            .as_ref()
            .map_or_else(String::new, |error| error.message.clone());
        self.steps.push(step.path.clone());
        let Some(item) = item else {
            self.path.clone_from(&step.path);
            return Ok(step.child);
        };
        self.path.clone_from(&item.path);
        if item.child.is_some() {
            // What comes is of this item.
            self.steps.pop();
            self.steps.push(item.path);
        }
        Ok(item.child)
    }
}

/// Which step failed, and why.
fn heading(failed: &Failed) -> Vec<Line> {
    let mut rows = failed.message.lines();
    let word = if failed.timed_out {
        " timed out"
    } else {
        " failed"
    };
    let mut head = Line::default()
        .with(PLAIN, "  ")
        .with(BOLD, failed.steps.join(" → "))
        .with(RED, word);
    if let Some((run, workflow)) = &failed.child {
        head.push(DIM, format!(" in run {} of {workflow}", words::short(*run)));
    }
    let mut lines = vec![
        head.with(RED, ": ")
            .with(PLAIN, rows.next().unwrap_or_default()),
    ];
    lines.extend(
        rows.take(ERROR_LINES)
            .map(|row| Line::default().with(PLAIN, format!("    {row}"))),
    );
    lines
}

/// The first item of a foreach that failed.
fn failed_item(api: &dyn Api, run: RunId, path: &str) -> Result<Option<StepRecord>, Error> {
    let record = api.record(run, &RecordQuery::default())?;
    let mut found = None;
    record.walk(&mut |step| {
        let is_item = step
            .path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']'));
        if found.is_none()
            && is_item
            && matches!(step.status, StepStatus::Failed | StepStatus::TimedOut)
        {
            found = Some(step.clone());
        }
    });
    Ok(found)
}

/// The last lines that a step printed, unless its error says them already.
fn last_words(tail: &[kapell_api::http::LogLine], message: &str) -> Vec<Line> {
    let said = |line: &LogLine| message.contains(line.text.trim()) || line.stream == Stream::System;
    if tail.iter().all(|line| said(&line.line)) {
        return Vec::new();
    }
    tail.iter()
        .map(|line| {
            let style = if line.line.stream == Stream::Stderr {
                PLAIN
            } else {
                DIM
            };
            Line::default()
                .with(DIM, "    │ ")
                .with(style, &line.line.text)
        })
        .collect()
}

/// The last lines of a step's logs.
pub(crate) fn tail(
    api: &dyn Api,
    run: RunId,
    step: Option<&str>,
    attempt: Option<u32>,
    most: usize,
) -> Result<Vec<kapell_api::http::LogLine>, Error> {
    let mut cursor = LogCursor::new();
    let mut lines = std::collections::VecDeque::new();
    loop {
        let query = LogQuery {
            step: step.map(str::to_owned),
            attempt,
            cursor,
            limit: 0,
        };
        let page = api.logs(run, &query)?;
        for line in page.lines {
            if lines.len() == most {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        if !page.more {
            return Ok(lines.into());
        }
        cursor = page.cursor;
    }
}

/// What can be done about it. `printed`: the first of the failed steps that printed something.
fn advice(view: &RunView, printed: Option<(RunId, String)>) -> Vec<Line> {
    let run = words::short(view.summary.run);
    let mut lines = Vec::new();
    let mut say = |command: String, what: &str| {
        let mut line = Line::default()
            .with(PLAIN, "  ")
            .with(CYAN, command)
            .with(PLAIN, "  ");
        line.pad(32);
        lines.push(line.with(DIM, what));
    };
    if view.summary.status == RunStatus::Discarded {
        return lines;
    }
    say(
        format!("kapell retry {run}"),
        "does again what did not succeed",
    );
    if let Some((run, step)) = printed {
        say(
            format!("kapell logs {} {}", words::short(run), words::quoted(&step)),
            "shows all that it printed",
        );
    }
    lines
}
