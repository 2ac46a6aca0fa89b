//! `kapell list`

use kapell_api::http::{RunCursor, RunQuery, RunSummary, WorkflowState, WorkflowSummary};
use kapell_model::{Error, Time};
use kapell_node::clock;

use crate::args::{List, Which};
use crate::config::Config;
use crate::paint::{self, BOLD, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, words};

/// Columns of a due time.
const DUE: usize = 21;

/// Rows where no number is asked for.
const DEFAULT: u32 = 20;

pub(crate) fn list(list: &List, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    if list.workflows {
        return workflows(list.limit as usize, list.json, session, printer);
    }
    let now = clock::now();
    let query = query(list, &session, now)?;
    let mut page = session.api().list(&query)?;
    // A search that finds little stops after a while, and goes on where it stopped.
    while let Some(next) = page.next.take_if(|_| page.runs.len() < query.limit) {
        let more = session.api().list(&RunQuery {
            before: Some(next),
            limit: query.limit - page.runs.len(),
            ..query.clone()
        })?;
        page.runs.extend(more.runs);
        page.next = more.next;
    }
    session.close();
    if list.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.runs.is_empty() {
        printer.plain("no runs match")?;
        return Ok(Exit::Success);
    }
    printer.lines(&rows(&page.runs, now, config.table()))?;
    if let Some(next) = page.next {
        printer.line(Line::default().with(DIM, format!("more: {}", after(list, next))))?;
    }
    Ok(Exit::Success)
}

fn query(list: &List, session: &Session, now: Time) -> Result<RunQuery, Error> {
    let place = |text: &str| match text.parse() {
        Ok(place) => Ok(place),
        Err(_) => session.find(text).map(RunCursor::from),
    };
    Ok(RunQuery {
        before: list.before.as_deref().map(place).transpose()?,
        limit: list.limit as usize,
        ..filter(&list.which, session, now)?
    })
}

/// Which runs are meant.
pub(crate) fn filter(which: &Which, session: &Session, now: Time) -> Result<RunQuery, Error> {
    let instant = |text: &Option<String>| {
        let at = text.as_deref().map(|text| words::instant(text, now, true));
        at.transpose()
    };
    let parent = which.parent.as_deref().map(|run| session.find(run));
    let escaped = |label: &String| label.replace('\\', "\\\\").replace(',', "\\,");
    Ok(RunQuery {
        workflow: which.workflow.clone(),
        status: which.status.join(","),
        parent: parent.transpose()?,
        since: instant(&which.since)?,
        until: instant(&which.until)?,
        namespace: which.namespace.clone(),
        trigger: which.trigger.clone(),
        backfill: which.backfill.clone(),
        label: which
            .label
            .iter()
            .map(escaped)
            .collect::<Vec<_>>()
            .join(","),
        error: which.error.clone(),
        ..RunQuery::default()
    })
}

/// How long ago something was, in the largest unit.
pub(crate) fn ago(at: Time, now: Time) -> String {
    let seconds = words::between(at, now).as_secs();
    match seconds {
        0..=4 => "now".to_owned(),
        5..=59 => format!("{seconds}s ago"),
        60..=3_599 => format!("{}m ago", seconds / 60),
        3_600..=86_399 => format!("{}h ago", seconds / 3_600),
        86_400..=2_592_000 => format!("{}d ago", seconds / 86_400),
        _ => words::moment(at),
    }
}

/// The command that lists what comes after a place.
fn after(list: &List, next: RunCursor) -> String {
    let which = &list.which;
    let mut command = "kapell list".to_owned();
    let texts = [
        ("workflow", &which.workflow),
        ("since", &which.since),
        ("until", &which.until),
        ("trigger", &which.trigger),
        ("backfill", &which.backfill),
        ("error", &which.error),
        ("parent", &which.parent),
        ("namespace", &which.namespace),
    ];
    let texts = texts.map(|(flag, value)| value.iter().map(move |value| (flag, value)));
    let labels = which.label.iter().map(|label| ("label", label));
    for (flag, value) in texts.into_iter().flatten().chain(labels) {
        command += &format!(" --{flag} {}", words::quoted(value));
    }
    if !which.status.is_empty() {
        command += &format!(" --status {}", which.status.join(","));
    }
    if list.limit != DEFAULT {
        command += &format!(" -n {}", list.limit);
    }
    command + &format!(" --before {next}")
}

fn rows(runs: &[RunSummary], now: Time, width: Option<usize>) -> Vec<Line> {
    let name = |run: &RunSummary| format!("{} v{}", run.workflow, run.version);
    let names = runs
        .iter()
        .map(|run| words::columns(&name(run)))
        .max()
        .unwrap_or(0)
        .clamp("workflow".len(), 40);
    // A child stands for nothing of its own, and a signal says what by itself.
    let due = |run: &RunSummary| {
        let stands = matches!(
            run.trigger.as_str(),
            "schedule" | "backfill" | "manual" | "fork"
        );
        run.scheduled_at.filter(|_| stands)
    };
    let has_due = runs.iter().any(|run| due(run).is_some());
    let (run_at, name_at, due_at) = (2, 12, 12 + names + 2);
    let made_at = due_at + if has_due { DUE } else { 0 };
    let mut head = Line::default().with(PLAIN, "  ").with(DIM, "run");
    head.pad(name_at);
    head.push(DIM, "workflow");
    if has_due {
        head.pad(due_at);
        head.push(DIM, "for");
    }
    head.pad(made_at);
    head.push(DIM, "made");
    head.pad(made_at + 10);
    head.push(DIM, "took");
    head.pad(made_at + 19);
    head.push(DIM, "status");
    let mut lines = vec![head];
    for run in runs {
        let (sign, style) = paint::run(run.status);
        let mut line = Line::default().with(style, sign);
        line.pad(run_at);
        line.push(BOLD, words::short(run.run));
        line.pad(name_at);
        line.push(PLAIN, words::cut(&name(run), 40));
        if let Some(due) = due(run) {
            line.pad(due_at);
            line.push(PLAIN, words::moment(due));
        }
        line.pad(made_at);
        line.push(DIM, ago(run.created_at, now));
        line.pad(made_at + 10);
        let took = words::took(run.started_at, run.ended_at, now).map(words::span);
        line.push(PLAIN, took.unwrap_or_else(|| "-".to_owned()));
        line.pad(made_at + 19);
        line.push(style, paint::word(run.status.name()));
        if let Some(parent) = run.parent {
            line.push(DIM, format!("  of {}", words::short(parent)));
        }
        if let Some(why) = &run.waits_for {
            let why = words::local(why, now);
            let why = why.strip_prefix("the run ").unwrap_or(&why);
            line.push(DIM, format!("  {why}"));
        }
        if let Some(error) = &run.error {
            line.push(RED, format!("  {}", words::first_line(error)));
        }
        lines.push(match width {
            Some(width) => line.cut(width),
            None => line,
        });
    }
    lines
}

/// Lists workflows with their runs by status.
pub(crate) fn workflows(
    limit: usize,
    json: bool,
    session: Session,
    printer: &mut Printer,
) -> Ended {
    let mut page = session.api().workflows("", limit)?;
    while let Some(next) = page.next.take_if(|_| page.workflows.len() < limit) {
        let more = session
            .api()
            .workflows(&next, limit - page.workflows.len())?;
        page.workflows.extend(more.workflows);
        page.next = more.next;
    }
    session.close();
    if json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    let names = page
        .workflows
        .iter()
        .map(|workflow| workflow.name.chars().count())
        .max()
        .unwrap_or(0);
    let widths = page.workflows.iter().map(|workflow| match workflow.state {
        WorkflowState::Active => 4,
        WorkflowState::Paused => 10,
        WorkflowState::Inactive | WorkflowState::Deleted => 8,
    });
    let states = widths.max().unwrap_or(0);
    let lines: Vec<Line> = page
        .workflows
        .iter()
        .map(|workflow| workflow_row(workflow, names, states))
        .collect();
    printer.lines(&lines)?;
    if page.next.is_some() {
        let more = format!("more: kapell list --workflows -n {}", 10 * lines.len());
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn workflow_row(workflow: &WorkflowSummary, names: usize, states: usize) -> Line {
    let mut line = Line::default().with(BOLD, &workflow.name);
    line.pad(names + 2);
    match workflow.state {
        WorkflowState::Active => line.push(DIM, format!("v{}", workflow.version)),
        WorkflowState::Paused => line.push(YELLOW, format!("v{} paused", workflow.version)),
        WorkflowState::Inactive => line.push(YELLOW, "inactive"),
        WorkflowState::Deleted => line.push(RED, "deleted"),
    }
    line.pad(names + states + 4);
    let runs: Vec<String> = workflow
        .runs
        .iter()
        .map(|(status, count)| format!("{} {}", words::grouped(*count), paint::word(status)))
        .collect();
    line.with(
        PLAIN,
        if runs.is_empty() {
            "no runs".to_owned()
        } else {
            runs.join(", ")
        },
    )
}
