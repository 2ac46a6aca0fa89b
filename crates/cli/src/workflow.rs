//! `kapell workflow`: what is in force, and changing it.

use kapell_api::http::{Hold, QueueView, StrategyView, VersionDiff, WorkflowChange, WorkflowView};
use kapell_model::spec::{Retention, StrategyMode};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;

use crate::args::{
    Workflow, WorkflowDiff, WorkflowList, WorkflowOne, WorkflowSet, WorkflowSome, WorkflowVersions,
};
use crate::config::Config;
use crate::list;
use crate::paint::{self, BOLD, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

/// Takes an override back.
const DEFAULT: &str = "default";

pub(crate) fn workflow(command: &Workflow, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Workflow::List(which) => all(which, config, printer),
        Workflow::Show(one) => show(one, config, printer),
        Workflow::Versions(which) => versions(which, config, printer),
        Workflow::Diff(which) => diff(which, config, printer),
        Workflow::Queue(one) => queue(one, config, printer),
        Workflow::Activate(activate) => {
            let change = WorkflowChange {
                active: Some(activate.version),
                ..by(config)
            };
            changed(&activate.workflow, &change, config, printer)
        }
        Workflow::Deactivate(one) => {
            let change = WorkflowChange {
                deactivate: true,
                ..by(config)
            };
            changed(&one.workflow, &change, config, printer)
        }
        Workflow::Pause(some) => paused(some, true, config, printer),
        Workflow::Resume(some) => paused(some, false, config, printer),
        Workflow::Set(set) => {
            let change = settings(set, config)?;
            changed(&set.workflow, &change, config, printer)
        }
        Workflow::Delete(one) => {
            let session = session::open(config, Need::Record)?;
            let view = session.api().delete(&one.workflow);
            session.close();
            said(&view?, one.json, printer)
        }
    }
}

fn by(config: &Config) -> WorkflowChange {
    WorkflowChange {
        by: config.user.clone(),
        ..WorkflowChange::default()
    }
}

fn all(which: &WorkflowList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    list::workflows(which.limit as usize, which.json, session, printer)
}

fn show(one: &WorkflowOne, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let view = session.api().workflow(&one.workflow);
    session.close();
    said(&view?, one.json, printer)
}

fn changed(
    workflow: &str,
    change: &WorkflowChange,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let view = session.api().change(workflow, change);
    session.close();
    said(&view?, false, printer)
}

fn paused(some: &WorkflowSome, pause: bool, config: &Config, printer: &mut Printer) -> Ended {
    let Some(workflow) = &some.workflow else {
        let session = session::open(config, Need::Record)?;
        let held = session.api().hold(&Hold {
            paused: pause,
            by: config.user.clone(),
        });
        session.close();
        let what = words::count(held?.workflows, "workflow");
        let verb = if pause { "wait" } else { "go on" };
        printer.plain(format!("{what}: starts {verb}"))?;
        return Ok(Exit::Success);
    };
    let change = WorkflowChange {
        paused: Some(pause),
        ..by(config)
    };
    changed(workflow, &change, config, printer)
}

fn settings(set: &WorkflowSet, config: &Config) -> Result<WorkflowChange, Error> {
    let strategy = match set.strategy.as_deref() {
        None => None,
        Some(DEFAULT) => Some(None),
        Some(name) => Some(Some(StrategyView {
            mode: mode(name)?,
            limit: set.limit,
            total: set.total,
        })),
    };
    let owner = set
        .owner
        .as_ref()
        .map(|owner| (owner != DEFAULT).then(|| owner.clone()));
    let retention = match (set.keep.as_deref(), set.keep_runs) {
        (None, None) => None,
        (Some(DEFAULT), _) => Some(None),
        (age, runs) => {
            let age = age.map(kapell_expr::parse_duration).transpose();
            let age = age.map_err(|error| {
                Error::new(ErrorCode::BadRequest, format!("`--keep`: {error}"))
                    .hint("a number and a unit: `30d`, `12h`")
            })?;
            Some(Some(Retention { age, runs }))
        }
    };
    Ok(WorkflowChange {
        strategy,
        owner,
        retention,
        ..by(config)
    })
}

fn mode(name: &str) -> Result<StrategyMode, Error> {
    serde_json::from_value(name.into()).map_err(|_| {
        Error::new(ErrorCode::BadRequest, format!("`{name}` is no strategy")).hint(
            "one of parallel, sequential, strict_sequential, first_only, last_only, serial_latest, or `default`",
        )
    })
}

fn said(view: &WorkflowView, json: bool, printer: &mut Printer) -> Ended {
    if json {
        printer.json(view)?;
        return Ok(Exit::Success);
    }
    let mut head = Line::default().with(BOLD, &view.name);
    match (view.deleted, view.active) {
        (true, _) => head.push(RED, "  deleted"),
        (false, Some(version)) => head.push(DIM, format!("  v{version}")),
        (false, None) => head.push(YELLOW, "  no version is active"),
    }
    let mut lines = vec![head];
    let mut field = |name: &str, text: String| {
        if !text.is_empty() {
            let mut line = Line::default().with(DIM, format!("  {name}"));
            line.pad(15);
            line.push(PLAIN, text);
            lines.push(line);
        }
    };
    field(
        "description",
        words::first_line(&view.description).to_string(),
    );
    field("owner", view.owner.clone());
    field("tags", view.tags.join(", "));
    field("triggers", view.triggers.join(", "));
    field("strategy", strategy(&view.strategy));
    if let Some(paused) = &view.paused {
        let since = list::ago(paused.at, clock::now());
        field("paused", format!("by {}, {since}: starts wait", paused.by));
    }
    if let Some(held) = &view.held {
        let since = list::ago(held.at, clock::now());
        field(
            "paused",
            format!("with all workflows by {}, {since}: starts wait", held.by),
        );
    }
    let runs: Vec<String> = view
        .runs
        .iter()
        .map(|(status, count)| format!("{} {}", words::grouped(*count), paint::word(status)))
        .collect();
    field("runs", runs.join(", "));
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

fn strategy(strategy: &StrategyView) -> String {
    let mode = serde_json::to_value(strategy.mode).unwrap_or_default();
    let mut text = mode.as_str().unwrap_or_default().to_owned();
    if let Some(limit) = strategy.limit {
        text += &format!(", at most {limit}");
    }
    if let Some(total) = strategy.total {
        text += &format!(", at most {total} over all keys");
    }
    text
}

fn versions(which: &WorkflowVersions, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let api = session.api();
    let page = api.versions(&which.workflow, which.before, which.limit as usize);
    let active = api.workflow(&which.workflow);
    session.close();
    let (page, active) = (page?, active?.active);
    if which.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    let lines = page.versions.iter().map(|version| {
        let style = if active == Some(version.version) {
            BOLD
        } else {
            PLAIN
        };
        let mut line = Line::default().with(style, format!("v{}", version.version));
        line.pad(8);
        line.push(DIM, list::ago(version.created_at, now));
        line.pad(20);
        line.push(DIM, version.hash.chars().take(12).collect::<String>());
        if active == Some(version.version) {
            line.push(PLAIN, "  active");
        }
        line
    });
    printer.lines(&lines.collect::<Vec<_>>())?;
    if let Some(next) = page.next {
        let more = format!(
            "more: kapell workflow versions {} --before {next}",
            which.workflow
        );
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn diff(which: &WorkflowDiff, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let api = session.api();
    let found = (|| {
        let to = match which.to {
            Some(to) => to,
            None => api.version(&which.workflow, None)?.version,
        };
        let from = which.from.unwrap_or(to.saturating_sub(1).max(1));
        api.diff(&which.workflow, from, to)
    })();
    session.close();
    let found = found?;
    if which.json {
        printer.json(&found)?;
    } else {
        printer.lines(&differences(&found))?;
    }
    Ok(Exit::Success)
}

fn differences(found: &VersionDiff) -> Vec<Line> {
    let mut lines = vec![Line::default().with(BOLD, format!("v{} -> v{}", found.from, found.to))];
    for place in &found.differences {
        lines.push(Line::default().with(PLAIN, &place.path));
        if !place.before.is_null() {
            lines.push(Line::default().with(RED, format!("  - {}", place.before)));
        }
        if !place.after.is_null() {
            lines.push(Line::default().with(paint::GREEN, format!("  + {}", place.after)));
        }
    }
    if found.files_differ {
        lines.push(Line::default().with(PLAIN, "the files beside it differ"));
    }
    if lines.len() == 1 {
        lines.push(Line::default().with(DIM, "no difference"));
    }
    lines
}

fn queue(one: &WorkflowOne, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Record)?;
    let view = session.api().queue(&one.workflow);
    session.close();
    let view = view?;
    if one.json {
        printer.json(&view)?;
    } else {
        printer.lines(&queue_lines(&view))?;
    }
    Ok(Exit::Success)
}

fn queue_lines(view: &QueueView) -> Vec<Line> {
    let counts = format!("{} active, {} waiting", view.active, view.waiting);
    let mut lines = vec![Line::default().with(DIM, counts)];
    for of in &view.lines {
        if !of.key.is_empty() {
            lines.push(Line::default().with(BOLD, format!("key {}", of.key)));
        }
        let mut row = |what: &str, style, run| {
            let mut line = Line::default().with(style, format!("  {what}"));
            line.pad(12);
            line.push(PLAIN, words::short(run));
            lines.push(line);
        };
        for run in &of.active {
            row("active", PLAIN, *run);
        }
        if let Some(run) = of.blocked_by {
            row("blocked by", RED, run);
        }
        for run in &of.waiting {
            row("waits", DIM, *run);
        }
        if let Some(burst) = &of.burst {
            row("debounced", DIM, burst.run);
        }
        if let Some(why) = &of.why {
            let why = words::local(why, clock::now());
            lines.push(Line::default().with(PLAIN, format!("  {why}")));
        }
    }
    if !view.discarded.is_empty() {
        lines.push(Line::default().with(BOLD, "discarded"));
    }
    for discard in &view.discarded {
        let mut line =
            Line::default().with(DIM, format!("  {}", list::ago(discard.at, clock::now())));
        line.pad(12);
        line.push(PLAIN, words::short(discard.run));
        line.push(DIM, format!("  {}", discard.reason));
        lines.push(line);
    }
    if view.more {
        lines.push(Line::default().with(DIM, "more are left out"));
    }
    lines
}
