//! What is said of a run that did not succeed: which step, why, its last words, what to do.

use kapell_api::client::Api;
use kapell_api::http::{LogCursor, LogQuery, RunView, StepView};
use kapell_api::log::{Line as LogLine, Stream};
use kapell_model::{Error, RunId, RunStatus, StepStatus};

use crate::paint::{BOLD, CYAN, DIM, Line, PLAIN, RED};
use crate::words;

/// Failed steps that are explained.
const STEPS: usize = 5;
/// Last lines of a log that are shown.
const LOG_LINES: usize = 10;
/// Lines of an error that are shown.
const ERROR_LINES: usize = 12;

/// What to tell of an ended run that did not succeed.
pub(crate) fn explain(api: &dyn Api, view: &RunView) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let failed: Vec<&StepView> = roots(view);
    for step in failed.iter().take(STEPS) {
        lines.push(Line::default());
        lines.extend(step_failed(api, view, step)?);
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
    lines.extend(advice(view));
    Ok(lines)
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

fn step_failed(api: &dyn Api, view: &RunView, step: &StepView) -> Result<Vec<Line>, Error> {
    let run = view.summary.run;
    let mut lines = Vec::new();
    let message = step.error.as_ref().map_or("", |error| &error.message);
    let word = if step.status == StepStatus::TimedOut {
        " timed out"
    } else {
        " failed"
    };
    let mut rows = message.lines();
    lines.push(
        Line::default()
            .with(PLAIN, "  ")
            .with(BOLD, &step.path)
            .with(RED, format!("{word}: "))
            .with(PLAIN, rows.next().unwrap_or_default()),
    );
    lines.extend(
        rows.take(ERROR_LINES)
            .map(|row| Line::default().with(PLAIN, format!("    {row}"))),
    );
    let path = match &step.items {
        Some(_) => failed_item(api, run, &step.path)?.unwrap_or_else(|| step.path.clone()),
        None => step.path.clone(),
    };
    if let Some(child) = step.child {
        lines.push(Line::default().with(DIM, format!("    kapell why {}", words::short(child))));
    }
    lines.extend(last_words(api, run, &path, message)?);
    Ok(lines)
}

/// The first item of a foreach that failed.
fn failed_item(api: &dyn Api, run: RunId, path: &str) -> Result<Option<String>, Error> {
    let record = api.record(run, None)?;
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
            found = Some(step.path.clone());
        }
    });
    Ok(found)
}

/// The last lines that a step printed, unless its error says them already.
fn last_words(api: &dyn Api, run: RunId, path: &str, message: &str) -> Result<Vec<Line>, Error> {
    let tail = tail(api, run, Some(path), None, LOG_LINES)?;
    let said = |line: &LogLine| message.contains(line.text.trim()) || line.stream == Stream::System;
    if tail.iter().all(|line| said(&line.line)) {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for line in &tail {
        let style = if line.line.stream == Stream::Stderr {
            PLAIN
        } else {
            DIM
        };
        lines.push(
            Line::default()
                .with(DIM, "    │ ")
                .with(style, &line.line.text),
        );
    }
    Ok(lines)
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

/// What can be done about it.
fn advice(view: &RunView) -> Vec<Line> {
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
    let logs = view.failed_step.as_ref().filter(|step| !step.is_empty());
    if let Some(step) = logs {
        say(
            format!("kapell logs {run} {step}"),
            "shows all that it printed",
        );
    }
    lines
}
