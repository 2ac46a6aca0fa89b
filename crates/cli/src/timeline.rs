//! `kapell timeline`: where the time of a run went, as bars.

use std::collections::BTreeSet;

use anstyle::Style;
use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_engine::record::critical_path;
use kapell_model::Time;
use kapell_node::clock;
use serde::Serialize;

use crate::args::Timeline;
use crate::config::Config;
use crate::paint::{self, BOLD, CYAN, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

/// Rows of one timeline.
const ROWS: usize = 500;
/// The widest column of names, and columns after the bars.
const NAMES: usize = 36;
const TAIL: usize = 9;

/// A row: a step and its times.
#[derive(Serialize)]
struct Row<'r> {
    path: &'r str,
    status: &'static str,
    critical: bool,
    /// Milliseconds it waited for other steps, for a slot or a lock, and ran.
    waited_ms: u64,
    queued_ms: u64,
    ran_ms: u64,
    #[serde(skip)]
    depth: usize,
    #[serde(skip)]
    step: &'r StepRecord,
}

pub(crate) fn timeline(timeline: &Timeline, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&timeline.run)?;
    let record = session.api().record(run, None)?;
    let now = record.ended_at.unwrap_or_else(clock::now);
    let critical: BTreeSet<String> = critical_path(&record).into_iter().collect();
    let mut rows = Vec::new();
    for step in &record.steps {
        collect(step, 0, timeline.items, &critical, &record, now, &mut rows);
    }
    if timeline.json {
        printer.json(&rows)?;
        return Ok(Exit::Success);
    }
    printer.lines(&chart(&record, &rows, now, config.size().0))?;
    Ok(Exit::Success)
}

fn collect<'r>(
    step: &'r StepRecord,
    depth: usize,
    items: usize,
    critical: &BTreeSet<String>,
    record: &Record,
    now: Time,
    rows: &mut Vec<Row<'r>>,
) {
    let millis = |from: Time, to: Time| {
        u64::try_from(words::between(from, to).as_millis()).unwrap_or(u64::MAX)
    };
    let start = record.started_at.unwrap_or(record.created_at);
    let ready = step.ready_at.or(step.started_at);
    let first = step
        .attempts
        .first()
        .map(|attempt| attempt.started_at)
        .or(step.started_at);
    rows.push(Row {
        path: &step.path,
        status: step.status.name(),
        critical: critical.contains(&step.path),
        waited_ms: ready.map_or(0, |ready| millis(start, ready)),
        queued_ms: ready
            .zip(first)
            .map_or(0, |(ready, first)| millis(ready, first)),
        ran_ms: first.map_or(0, |first| millis(first, step.ended_at.unwrap_or(now))),
        depth,
        step,
    });
    for item in step.items.iter().flat_map(|items| &items.shown).take(items) {
        collect(item, depth + 1, items, critical, record, now, rows);
    }
    for child in &step.children {
        collect(child, depth + 1, items, critical, record, now, rows);
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
    let name = |row: &Row<'_>| format!("{}{}", "  ".repeat(row.depth), last_part(row));
    let names = rows
        .iter()
        .take(ROWS)
        .map(|row| name(row).chars().count())
        .max()
        .unwrap_or(0)
        .min(NAMES);
    let columns = width.saturating_sub(names + 4 + TAIL).max(10);
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
    lines.push(legend());
    lines
}

fn legend() -> Line {
    Line::default()
        .with(DIM, "  ")
        .with(DIM, "····")
        .with(DIM, " waits for steps  ")
        .with(YELLOW, "░░░░")
        .with(DIM, " waits for a slot, a lock, a time  ")
        .with(CYAN, "████")
        .with(DIM, " runs  ")
        .with(RED, "████")
        .with(DIM, " fails  ")
        .with(YELLOW, "▸")
        .with(DIM, " critical path")
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
    let Some(ready) = step.ready_at.or(step.started_at) else {
        return;
    };
    let end = step.ended_at.unwrap_or(now);
    if ready > scale.start && row.depth == 0 {
        fill(scale.start, ready, ('·', DIM));
    }
    fill(ready, end, ('░', YELLOW));
    if step.attempts.is_empty()
        && let Some(started) = step.started_at.filter(|_| step.verb != "wait")
    {
        fill(
            started,
            end,
            ('█', if step.status.bad() { RED } else { CYAN }),
        );
    }
    for attempt in &step.attempts {
        fill(
            attempt.started_at,
            attempt.ended_at.unwrap_or(now),
            ('█', color(attempt)),
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

fn color(attempt: &AttemptRecord) -> Style {
    match attempt.result {
        AttemptResult::Running | AttemptResult::Succeeded => CYAN,
        AttemptResult::Failed => RED,
        AttemptResult::Cancelled | AttemptResult::Lost => YELLOW,
    }
}
