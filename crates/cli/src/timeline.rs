//! `kapell timeline`: where the time of a run went, as bars.

use std::collections::BTreeSet;

use anstyle::Style;
use kapell_api::http::RecordQuery;
use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_engine::record::critical_path;
use kapell_model::{StepStatus, Time};
use kapell_node::clock;
use serde::Serialize;

use crate::args::Timeline;
use crate::config::Config;
use crate::paint::{self, BOLD, CYAN, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, show, words};

/// Rows of one timeline.
const ROWS: usize = 500;
/// The widest column of names, and columns after the bars.
const NAMES: usize = 36;
const TAIL: usize = 9;
/// Columns of a worker's name.
const WORKER: usize = 20;

/// A row: a step and its times.
#[derive(Serialize)]
struct Row<'r> {
    path: &'r str,
    /// The label of an item.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'r str>,
    status: &'static str,
    critical: bool,
    /// Milliseconds it waited for other steps, for a slot or a lock, and ran.
    waited_ms: u64,
    queued_ms: u64,
    ran_ms: u64,
    /// The worker in another process that runs it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'r str>,
    /// When it began to wait for other steps.
    #[serde(skip)]
    since: Time,
    /// When it needed nothing but a slot, a lock or a time.
    #[serde(skip)]
    ready: Option<Time>,
    #[serde(skip)]
    depth: usize,
    #[serde(skip)]
    step: &'r StepRecord,
}

pub(crate) fn timeline(timeline: &Timeline, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&timeline.run)?;
    let record = session.api().record(run, &RecordQuery::default())?;
    session.close();
    let now = record.ended_at.unwrap_or_else(clock::now);
    let critical: BTreeSet<String> = critical_path(&record).into_iter().collect();
    let mut collect = Collect {
        items: timeline.items,
        critical: &critical,
        now,
        rows: Vec::new(),
    };
    for step in &record.steps {
        collect.step(step, 0, record.started_at.unwrap_or(record.created_at));
    }
    let rows = collect.rows;
    if timeline.json {
        printer.json(&rows)?;
        return Ok(Exit::Success);
    }
    printer.lines(&chart(&record, &rows, now, config.size().0))?;
    Ok(Exit::Success)
}

/// Rows as they are found.
struct Collect<'r, 'c> {
    /// Of each foreach so many.
    items: usize,
    critical: &'c BTreeSet<String>,
    now: Time,
    rows: Vec<Row<'r>>,
}

impl<'r> Collect<'r, '_> {
    /// A step and what is inside it. `since`: when it could have started if it needed no other.
    fn step(&mut self, step: &'r StepRecord, depth: usize, since: Time) {
        self.row(step, depth, since, step.ready_at.or(step.started_at));
    }

    fn row(&mut self, step: &'r StepRecord, depth: usize, since: Time, ready: Option<Time>) {
        let millis = |from: Time, to: Time| {
            u64::try_from(words::between(from, to).as_millis()).unwrap_or(u64::MAX)
        };
        let first = step
            .attempts
            .first()
            .map(|attempt| attempt.started_at)
            .or(step.started_at);
        let end = step.ended_at.unwrap_or(self.now);
        let waits = (!step.status.ended()).then_some(self.now);
        self.rows.push(Row {
            path: &step.path,
            label: step.label.as_deref(),
            status: step.status.name(),
            critical: self.critical.contains(&step.path),
            waited_ms: ready.or(waits).map_or(0, |ready| millis(since, ready)),
            queued_ms: ready
                .zip(first)
                .map_or(0, |(ready, first)| millis(ready, first)),
            ran_ms: first.map_or(0, |first| millis(first, end)),
            worker: show::runs_at(step),
            since,
            ready,
            depth,
            step,
        });
        let items = step.items.iter().flat_map(|items| &items.shown);
        for item in items.take(self.items) {
            // An item waits for no step: what it waits for is room.
            let ready = item.ready_at.or(ready).or(item.started_at);
            self.row(item, depth + 1, ready.unwrap_or(since), ready);
        }
        for child in &step.children {
            // The first of its graph or iteration waited for no other.
            let together = step
                .children
                .iter()
                .filter(|other| (other.iteration, other.part) == (child.iteration, child.part));
            let first = together.filter_map(|other| other.ready_at).min();
            self.step(child, depth + 1, first.or(ready).unwrap_or(since));
        }
    }
}

fn chart(record: &Record, rows: &[Row<'_>], now: Time, width: usize) -> Vec<Line> {
    let start = record.started_at.unwrap_or(record.created_at);
    let span = words::between(start, now);
    let (sign, style) = paint::run(record.status);
    let mut lines = vec![
        Line::default()
            .with(style, sign)
            .with(PLAIN, " ")
            .with(BOLD, &record.workflow)
            .with(
                DIM,
                format!(
                    " v{}  run {}  {}  ",
                    record.version,
                    record.run,
                    paint::word(record.status.name())
                ),
            )
            .with(PLAIN, words::span(span)),
    ];
    let name = |row: &Row<'_>| {
        let own = words::labelled(last_part(row), row.label);
        format!("{}{own}", "  ".repeat(row.depth))
    };
    let names = rows
        .iter()
        .take(ROWS)
        .map(|row| words::columns(&name(row)))
        .max()
        .unwrap_or(0)
        .min(NAMES);
    let workers = rows.iter().take(ROWS).filter_map(at);
    let workers = workers.map(|at| words::columns(&at)).max().unwrap_or(0);
    let columns = width.saturating_sub(names + 4 + TAIL + workers).max(10);
    let scale = Scale {
        start,
        micros: (now.0 - start.0).max(1),
        columns,
    };
    lines.push(axis(span, names, columns));
    for row in rows.iter().take(ROWS) {
        let (mark, style) = if row.critical {
            ("▸ ", YELLOW)
        } else {
            ("  ", PLAIN)
        };
        let quiet = if row.step.started_at.is_none() {
            DIM
        } else {
            style
        };
        let mut line = Line::default()
            .with(style, mark)
            .with(quiet, words::cut(&name(row), names));
        line.pad(names + 4);
        bar(row, &scale, now, &mut line);
        line.pad(names + 4 + columns + 1);
        let end = row.step.ended_at.unwrap_or(now);
        if let Some(took) = words::took(row.step.started_at, Some(end), now) {
            line.push(DIM, words::span(took));
        }
        line.push(DIM, at(row).unwrap_or_default());
        lines.push(line.cut(width));
    }
    if rows.len() > ROWS {
        lines.push(Line::default().with(
            DIM,
            format!(
                "  … {}",
                words::count((rows.len() - ROWS) as u64, "more step")
            ),
        ));
    }
    lines.extend(legend(width));
    lines
}

/// Who runs it.
fn at(row: &Row<'_>) -> Option<String> {
    row.worker
        .map(|worker| format!("  at {}", words::cut(worker, WORKER)))
}

/// What the signs mean, on as many lines as it takes.
fn legend(width: usize) -> Vec<Line> {
    let signs = [
        (DIM, "····", "waits for steps"),
        (YELLOW, "░░░░", "waits for room, time, a signal or people"),
        (CYAN, "████", "runs"),
        (RED, "▚▚▚▚", "fails"),
        (YELLOW, "▸", "critical path"),
    ];
    let mut lines = vec![Line::default()];
    for (style, sign, meaning) in signs {
        let one = Line::default()
            .with(PLAIN, "  ")
            .with(style, sign)
            .with(DIM, format!(" {meaning}"));
        match lines.last_mut() {
            Some(line) if line.width() == 0 || line.width() + one.width() <= width => {
                *line = std::mem::take(line).join(one);
            }
            _ => lines.push(one),
        }
    }
    lines
}

fn last_part<'r>(row: &Row<'r>) -> &'r str {
    if row.depth == 0 {
        return row.path;
    }
    let at = row.path.rfind('.').map_or(0, |at| at + 1);
    let own = &row.path[at..];
    // Of `refine#2.improve` the iteration stays.
    match row.path[..at.saturating_sub(1)].rfind('#') {
        Some(hash) if !row.path[hash..at.saturating_sub(1)].contains('.') => &row.path[hash..],
        _ => own,
    }
}

struct Scale {
    start: Time,
    micros: i64,
    columns: usize,
}

impl Scale {
    /// The column of an instant.
    fn column(&self, at: Time) -> usize {
        let part = i128::from((at.0 - self.start.0).clamp(0, self.micros)) * self.columns as i128;
        usize::try_from(part / i128::from(self.micros))
            .unwrap_or(0)
            .min(self.columns - 1)
    }
}

fn axis(span: std::time::Duration, names: usize, columns: usize) -> Line {
    let mut line = Line::default();
    line.pad(names + 4);
    line.push(DIM, "0");
    let quarter = columns / 4;
    for part in 1..=4_u32 {
        let text = words::span(span * part / 4);
        let at = names
            + 4
            + if part == 4 {
                columns
            } else {
                quarter * part as usize
            };
        let column = at.saturating_sub(text.chars().count() / 2);
        if column > line.width() + 1 {
            line.pad(column);
            line.push(DIM, text);
        }
    }
    line
}

/// What each column of a bar shows: the most telling of what happened in it.
fn bar(row: &Row<'_>, scale: &Scale, now: Time, line: &mut Line) {
    let step = row.step;
    let mut cells: Vec<(char, Style)> = vec![(' ', PLAIN); scale.columns];
    let mut fill = |from: Time, to: Time, cell: (char, Style)| {
        for place in &mut cells[scale.column(from)..=scale.column(to)] {
            *place = cell;
        }
    };
    let ready = row.ready;
    let waits = (!step.status.ended()).then_some(now);
    if let Some(until) = ready.or(waits).filter(|until| *until > row.since) {
        fill(row.since, until, ('·', DIM));
    }
    let end = step.ended_at.unwrap_or(now);
    if let Some(ready) = ready {
        fill(ready, end, ('░', YELLOW));
    }
    if step.attempts.is_empty()
        && let Some(started) = step.started_at
    {
        let fails = step.status.bad();
        match (waits_for_others(step), fails) {
            (true, true) => fill(end, end, FAILS),
            (true, false) => {}
            (false, true) => fill(started, end, FAILS),
            (false, false) => fill(started, end, RUNS),
        }
    }
    for attempt in &step.attempts {
        fill(
            attempt.started_at,
            attempt.ended_at.unwrap_or(now),
            cell(attempt),
        );
    }
    let mut rest = cells.as_slice();
    while let Some((_, style)) = rest.first() {
        let same = rest.iter().take_while(|(_, other)| other == style).count();
        let text: String = rest[..same].iter().map(|(c, _)| *c).collect();
        line.push(*style, text);
        rest = &rest[same..];
    }
}

/// A step that nothing runs for, however long it takes, or that stands now.
fn waits_for_others(step: &StepRecord) -> bool {
    matches!(&*step.verb, "wait" | "await" | "approval") || step.status == StepStatus::Waiting
}

/// What an attempt looks like: without colours too, one that failed is not like the others.
const RUNS: (char, Style) = ('█', CYAN);
const FAILS: (char, Style) = ('▚', RED);
const STOPPED: (char, Style) = ('█', YELLOW);

fn cell(attempt: &AttemptRecord) -> (char, Style) {
    match attempt.result {
        AttemptResult::Running | AttemptResult::Succeeded => RUNS,
        AttemptResult::Failed => FAILS,
        AttemptResult::Cancelled | AttemptResult::Lost => STOPPED,
    }
}
