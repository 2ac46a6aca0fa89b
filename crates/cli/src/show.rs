//! `kapell show`

use kapell_api::http::RecordQuery;
use kapell_api::record::{AttemptResult, Part, Record, StepRecord};
use kapell_api::task::{Artifact, Usage};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, RunStatus, StepStatus, Time};
use kapell_node::clock;

use crate::args::Show;
use crate::config::Config;
use crate::paint::{self, BOLD, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, follow, item, words};

/// Items of a foreach in the tree: failed ones first in line.
const ITEMS: usize = 10;
/// Columns of an output in the tree.
const OUTPUT: usize = 80;

pub(crate) fn show(show: &Show, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&show.run)?;
    let at = match &show.at {
        Some(text) => {
            let made = session
                .api()
                .wait(run, std::time::Duration::ZERO)?
                .created_at;
            Some(words::instant(text, made, false)?)
        }
        None => None,
    };
    let of = |step: &String| item::path(session.api(), run, step, show.item.as_deref());
    let path = show.step.as_ref().map(of).transpose()?;
    let which = RecordQuery {
        at,
        step: path.clone(),
    };
    let record = session.api().record(run, &which)?;
    let queued = at.is_none() && record.status == RunStatus::Queued;
    let waits = if queued {
        session.api().view(run)?.summary.waits_for
    } else {
        None
    };
    session.close();
    if let Some(path) = &path {
        let step = find(&record, path)?;
        if show.json {
            printer.json(step)?;
        } else {
            let now = if at.is_some() {
                record.seen_at
            } else {
                clock::now()
            };
            printer.lines(&one(step, &record, record.ended_at.unwrap_or(now)))?;
        }
        return Ok(Exit::Success);
    }
    if show.json {
        printer.json(&record)?;
        return Ok(Exit::Success);
    }
    let now = if at.is_some() {
        record.seen_at
    } else {
        clock::now()
    };
    let mut lines = whole(&record, now, at.is_some());
    lines.extend(waits.map(|what| {
        let why = words::run_waits(&words::local(&what, now));
        Line::default().with(PLAIN, format!("  {why}"))
    }));
    printer.lines(&lines)?;
    follow::outputs(&record.outputs.to_json(), printer)?;
    Ok(Exit::Success)
}

/// The step or item of a path.
pub(crate) fn find<'r>(record: &'r Record, path: &str) -> Result<&'r StepRecord, Error> {
    let mut found = None;
    let mut names = Vec::new();
    record.walk(&mut |step| {
        if step.path == path && found.is_none() {
            found = Some(step);
        }
        if !step.path.contains('[') && names.len() < 20 {
            names.push(step.path.clone());
        }
    });
    found.ok_or_else(|| {
        Error::new(
            ErrorCode::StepNotFound,
            format!("run {} has no step `{path}`", record.run),
        )
        .hint(format!("its steps are {}", names.join(", ")))
    })
}

/// A run as it was at a moment.
pub(crate) fn whole(record: &Record, now: Time, past: bool) -> Vec<Line> {
    let (sign, style) = paint::run(record.status);
    let mut head = Line::default()
        .with(style, sign)
        .with(PLAIN, " ")
        .with(BOLD, &record.workflow)
        .with(DIM, format!(" v{}  run {}", record.version, record.run))
        .with(style, format!("  {}", paint::word(record.status.name())));
    if let Some(took) = words::took(record.started_at, record.ended_at, now) {
        head.push(DIM, format!("  {}", words::span(took)));
    }
    let mut lines = vec![head];
    let by = match (&record.parent, &record.forked_from) {
        (_, Some(run)) => format!("by {}, forked from run {}", record.by, words::short(*run)),
        (Some(run), None) => format!("by run {}", words::short(*run)),
        (None, None) if record.by.is_empty() => String::new(),
        (None, None) => format!("by {}", record.by),
    };
    lines.push(Line::default().with(
        DIM,
        format!("  made {} {by}", words::moment(record.created_at)).trim_end(),
    ));
    if let Some(text) = what_for(record) {
        lines.push(Line::default().with(DIM, format!("  {text}")));
    }
    if past {
        lines.push(Line::default().with(
            YELLOW,
            format!("  as it was at {}", words::moment(record.seen_at)),
        ));
    }
    if let Some(params) = record.params.as_map().filter(|params| !params.is_empty()) {
        let text: Vec<String> = params
            .iter()
            .map(|(name, value)| format!("{name}={}", value_text(value, 40)))
            .collect();
        lines.push(
            Line::default()
                .with(DIM, "  with ")
                .with(PLAIN, text.join("  ")),
        );
    }
    for note in &record.notes {
        lines.push(Line::default().with(
            DIM,
            format!("  {} {}", words::time_of_day(note.at), note.text),
        ));
    }
    if let Some(error) = &record.error {
        lines.push(Line::default().with(PLAIN, "  ").with(RED, &error.message));
    }
    lines.push(Line::default());
    let mut rows = Vec::new();
    let mut last = None;
    for step in &record.steps {
        if step.part != last && step.part == Some(Part::Finally) {
            rows.push((Line::default().with(DIM, "  finally"), Line::default()));
        }
        last = step.part;
        step_rows(step, "", 0, now, &mut rows);
    }
    lines.extend(aligned(rows));
    lines
}

/// The due time that a run stands for, and who wanted it for that.
fn what_for(record: &Record) -> Option<String> {
    let stands = matches!(
        record.trigger.as_str(),
        "schedule" | "backfill" | "manual" | "fork"
    );
    let due = record.scheduled_at.filter(|_| stands)?;
    let mut text = format!("for {}", words::moment(due));
    if let (Some(start), Some(end)) = (record.interval_start, record.interval_end) {
        text += &format!(", from {} to {}", words::moment(start), words::moment(end));
    }
    if record.catching_up {
        text += ", catching up";
    }
    if let Some(id) = &record.backfill {
        text += &format!(", backfill {id}");
    }
    if let Some(name) = &record.trigger_name {
        text += &format!(", trigger {name}");
    }
    Some(text)
}

fn step_rows(
    step: &StepRecord,
    above: &str,
    depth: usize,
    now: Time,
    rows: &mut Vec<(Line, Line)>,
) {
    let (sign, style) = paint::step(step.status);
    let own = step
        .path
        .strip_prefix(above)
        .unwrap_or(&step.path)
        .trim_start_matches('.');
    let indent = "  ".repeat(depth + 1);
    let quiet = matches!(
        step.status,
        StepStatus::Pending | StepStatus::Skipped | StepStatus::UpstreamFailed
    );
    let name = Line::default()
        .with(PLAIN, indent.clone())
        .with(style, sign)
        .with(PLAIN, " ")
        .with(if quiet { DIM } else { PLAIN }, words::cut(own, 48))
        .with(DIM, label(step));
    rows.push((name, detail(step, now)));
    if let Some(items) = &step.items {
        let failed = items.shown.iter().filter(|item| item.status.bad());
        let inner = items
            .shown
            .iter()
            .filter(|item| !item.children.is_empty() && !item.status.bad());
        let waiting = items
            .shown
            .iter()
            .filter(|item| item.children.is_empty() && waits(item, now).is_some());
        for item in failed.chain(inner).chain(waiting).take(ITEMS) {
            step_rows(item, &step.path, depth + 1, now, rows);
        }
    }
    for child in &step.children {
        step_rows(child, &step.path, depth + 1, now, rows);
    }
    if step.left_out > 0 {
        let text = format!(
            "{indent}  … {} left out",
            words::count(u64::from(step.left_out), "iteration")
        );
        rows.push((Line::default().with(DIM, text), Line::default()));
    }
}

fn detail(step: &StepRecord, now: Time) -> Line {
    let mut line = Line::default();
    let took = words::took(step.started_at, step.ended_at, now).map(words::span);
    match step.status {
        StepStatus::Skipped => line.push(DIM, "skipped"),
        StepStatus::UpstreamFailed => line.push(DIM, "not started: a step before it failed"),
        StepStatus::Succeeded | StepStatus::Failed | StepStatus::TimedOut => {}
        status => line.push(DIM, format!("{}  ", paint::word(status.name()))),
    }
    line.push(DIM, took.unwrap_or_default());
    if let Some(what) = waits(step, now) {
        line.push(DIM, format!("  waits for {what}"));
    }
    if step.attempts.len() > 1 {
        line.push(YELLOW, format!("  {} tries", step.attempts.len()));
    }
    if let Some(items) = &step.items {
        line.push(
            PLAIN,
            format!(
                "  {}/{} items",
                words::grouped(u64::from(items.succeeded)),
                words::grouped(u64::from(items.count))
            ),
        );
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
        let wait = items.shown.iter().filter(|item| waits(item, now).is_some());
        let wait = wait.count() as u64;
        if wait > 0 && !step.status.ended() {
            line.push(DIM, format!("  {} wait", words::grouped(wait)));
        }
    }
    if let Some(worker) = runs_at(step) {
        line.push(DIM, format!("  at {worker}"));
    }
    if let Some(usage) = usage(step) {
        line.push(DIM, format!("  {usage}"));
    }
    if let Some(child) = step.child {
        line.push(DIM, format!("  run {}", words::short(child)));
    }
    if let Some(by) = &step.by {
        line.push(YELLOW, format!("  by {by}"));
    }
    if step.tolerated {
        line.push(DIM, "  tolerated");
    }
    if let Some(error) = step
        .error
        .as_ref()
        .filter(|_| step.status.bad() && step.status != StepStatus::UpstreamFailed)
    {
        line.push(RED, format!("  {}", words::first_line(&error.message)));
    } else if let Some(output) = &step.output
        && step.items.is_none()
        && step.children.is_empty()
    {
        line.push(DIM, "  → ");
        line.push(PLAIN, value_text(output, OUTPUT));
    } else if let Some(bytes) = step.output_bytes {
        line.push(DIM, format!("  → {}", words::bytes(bytes)));
    }
    line
}

/// The label of an item, as it follows its path.
fn label(step: &StepRecord) -> String {
    let label = step.label.as_deref();
    label.map_or_else(String::new, |_| words::labelled("", label))
}

/// What a step waits for, as its history says.
fn waits(step: &StepRecord, now: Time) -> Option<String> {
    let until = step.until.map(|at| words::local(&at.to_string(), now));
    if step.status.ended() {
        return None;
    }
    if let Some(what) = &step.waits_for {
        let until = until.map_or(String::new(), |at| format!(", until {at}"));
        return Some(words::local(what, now) + &until);
    }
    if let Some(lock) = &step.lock {
        return Some(format!("the lock `{lock}`"));
    }
    match (step.status, until) {
        (StepStatus::Retrying, Some(at)) => Some(format!("its next try at {at}")),
        (StepStatus::Waiting, Some(at)) => Some(format!("the time {at}")),
        (StepStatus::Queued, _) => Some("a worker".to_owned()),
        (_, _) => None,
    }
}

/// The worker that runs it now.
pub(crate) fn runs_at(step: &StepRecord) -> Option<&str> {
    let last = step.attempts.last().filter(|_| !step.status.ended())?;
    let runs = last.result == AttemptResult::Running;
    last.worker.as_deref().filter(|_| runs)
}

fn usage(step: &StepRecord) -> Option<String> {
    let usage: Usage = step.attempts.last()?.usage?;
    Some(usage_text(usage))
}

fn usage_text(usage: Usage) -> String {
    let cpu = words::span(std::time::Duration::from_millis(usage.cpu_millis));
    if usage.memory_bytes == 0 {
        return format!("cpu {cpu}");
    }
    format!("cpu {cpu}  mem {}", words::bytes(usage.memory_bytes))
}

/// A value on one line.
fn value_text(value: &Value, most: usize) -> String {
    let text = value.to_json().to_string();
    if text.chars().count() <= most {
        return text;
    }
    let mut cut: String = text.chars().take(most - 1).collect();
    cut.push('…');
    cut
}

/// One step with all that is known of it.
fn one(step: &StepRecord, record: &Record, now: Time) -> Vec<Line> {
    let (sign, style) = paint::step(step.status);
    let mut lines = vec![
        Line::default()
            .with(style, sign)
            .with(PLAIN, " ")
            .with(BOLD, &step.path)
            .with(PLAIN, label(step))
            .with(DIM, format!("  {}  ", step.verb))
            .with(style, paint::word(step.status.name())),
    ];
    for (name, text) in facts(step, now) {
        let mut line = Line::default().with(DIM, format!("  {name}"));
        line.pad(12);
        lines.push(line.with(PLAIN, text));
    }
    if let Some(error) = &step.error {
        lines.push(Line::default().with(RED, "  error"));
        lines.extend(indented(&error.message, PLAIN));
        lines.extend(error.traceback.iter().flat_map(|text| indented(text, DIM)));
    }
    if let Some(output) = &step.output {
        lines.push(Line::default().with(GREEN, "  output"));
        let text = serde_json::to_string_pretty(&output.to_json()).unwrap_or_default();
        lines.extend(indented(&text, PLAIN));
        lines.extend(files(output, step, record));
    } else if let Some(bytes) = step.output_bytes {
        let size = format!("  {}, too big to show", words::bytes(bytes));
        lines.push(Line::default().with(GREEN, "  output").with(DIM, size));
    }
    let mut rows = Vec::new();
    let items = step.items.iter().flat_map(|items| &items.shown);
    for inner in items.chain(&step.children) {
        step_rows(inner, &step.path, 0, now, &mut rows);
    }
    if !rows.is_empty() {
        lines.push(Line::default());
        lines.extend(aligned(rows));
    }
    lines
}

/// How to fetch the files that a step gave.
fn files(output: &Value, step: &StepRecord, record: &Record) -> Vec<Line> {
    let given = output.as_map().into_iter().flat_map(|given| given.iter());
    let names = given
        .filter(|(_, value)| Artifact::from_value(value).is_some())
        .map(|(name, _)| name);
    let run = words::short(record.run);
    let command = |name| {
        let (step, name) = (words::quoted(&step.path), words::quoted(name));
        format!("    kapell artifact {run} {step} {name} -o FILE")
    };
    let commands = names.map(|name| Line::default().with(DIM, command(name)));
    commands.collect()
}

/// What is known of a step beside its error, its output and its inside.
fn facts(step: &StepRecord, now: Time) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !step.needs.is_empty() {
        facts.push(("needs", step.needs.join(", ")));
    }
    let times = [
        ("ready", step.ready_at),
        ("started", step.started_at),
        ("ended", step.ended_at),
    ];
    for (name, at) in times {
        if let Some(at) = at {
            let millis = words::time_of_day(at).split_off(8);
            facts.push((name, format!("{}{millis}", words::moment(at))));
        }
    }
    if let Some(what) = waits(step, now) {
        facts.push(("waits", format!("for {what}")));
    }
    if let Some(by) = &step.by {
        facts.push(("by", by.clone()));
    }
    for attempt in &step.attempts {
        let result = match attempt.result {
            AttemptResult::Running => "running",
            AttemptResult::Succeeded => "succeeded",
            AttemptResult::Failed => "failed",
            AttemptResult::Cancelled => "cancelled",
            AttemptResult::Lost => "lost",
        };
        let took = words::took(Some(attempt.started_at), attempt.ended_at, now);
        let took = took.map(words::span).unwrap_or_default();
        let mut text = format!("{} {result} in {took}", attempt.attempt);
        if let Some(worker) = &attempt.worker {
            text += &format!(" at {worker}");
        }
        if let Some(usage) = attempt.usage {
            text += &format!("  {}", usage_text(usage));
        }
        if let Some(error) = &attempt.error {
            text += &format!("  {}", words::first_line(&error.message));
        }
        facts.push(("try", text));
    }
    facts
}

fn indented(text: &str, style: anstyle::Style) -> impl Iterator<Item = Line> {
    text.lines()
        .map(move |row| Line::default().with(style, format!("    {row}")))
}

/// Names and what is said of them, in two columns.
fn aligned(rows: Vec<(Line, Line)>) -> impl Iterator<Item = Line> {
    let names = rows.iter().map(|(name, _)| name.width());
    let column = names.max().unwrap_or(0).min(56) + 2;
    rows.into_iter().map(move |(mut name, detail)| {
        if detail.width() > 0 {
            name.pad(column);
        }
        name.join(detail)
    })
}
