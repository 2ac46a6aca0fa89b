//! `kapell workflow`: what is in force, and changing it.

use kapell_api::client::Api;
use kapell_api::http::{
    Bound, Hold, QueueQuery, QueueView, RetentionChange, StrategyView, VersionDiff, WorkflowChange,
    WorkflowView,
};
use kapell_model::spec::{Retention, StrategyMode};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;

use crate::args::{
    Workflow, WorkflowDiff, WorkflowList, WorkflowOne, WorkflowQueue, WorkflowSet, WorkflowSome,
    WorkflowVersions,
};
use crate::config::Config;
use crate::list;
use crate::paint::{self, BOLD, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, deploy, words};

/// Takes an override back.
pub(crate) const DEFAULT: &str = "default";

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
            changed(&activate.workflow, &change, activate.json, config, printer)
        }
        Workflow::Deactivate(one) => {
            let change = WorkflowChange {
                deactivate: true,
                ..by(config)
            };
            changed(&one.workflow, &change, one.json, config, printer)
        }
        Workflow::Pause(some) => paused(some, true, config, printer),
        Workflow::Resume(some) => paused(some, false, config, printer),
        Workflow::Set(set) => {
            let change = settings(set, config)?;
            changed(&set.workflow, &change, set.json, config, printer)
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
    json: bool,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let view = session.api().change(workflow, change);
    session.close();
    said(&view?, json, printer)
}

fn paused(some: &WorkflowSome, pause: bool, config: &Config, printer: &mut Printer) -> Ended {
    let Some(workflow) = &some.workflow else {
        let session = session::open(config, Need::Record)?;
        let held = session.api().hold(&Hold {
            paused: pause,
            by: config.user.clone(),
        });
        session.close();
        let held = held?;
        if some.json {
            printer.json(&held)?;
            return Ok(Exit::Success);
        }
        let what = words::count(held.workflows, "workflow");
        let verb = if pause { "wait" } else { "go on" };
        printer.plain(format!("{what}: starts {verb}"))?;
        return Ok(Exit::Success);
    };
    let change = WorkflowChange {
        paused: Some(pause),
        ..by(config)
    };
    changed(workflow, &change, some.json, config, printer)
}

fn settings(set: &WorkflowSet, config: &Config) -> Result<WorkflowChange, Error> {
    let strategy = set.strategy.as_deref().map(|name| {
        // The other name is `default`.
        StrategyMode::named(name).map(|mode| StrategyView {
            mode,
            limit: set.limit,
            total: set.total,
        })
    });
    let owner = set
        .owner
        .as_ref()
        .map(|owner| (owner != DEFAULT).then(|| owner.clone()));
    let retention = kept(set)?.map(Some);
    if strategy.is_none() && owner.is_none() && retention.is_none() {
        return Err(
            Error::new(ErrorCode::BadRequest, "it is not said what to set").hint(
                "`--owner`, `--strategy` with `--limit` and `--total`, `--keep`, `--keep-runs`",
            ),
        );
    }
    Ok(WorkflowChange {
        strategy,
        owner,
        retention,
        ..by(config)
    })
}

/// How long ended runs are kept: what is not named stays.
fn kept(set: &WorkflowSet) -> Result<Option<RetentionChange>, Error> {
    let refused = |flag: &str, error: &dyn std::fmt::Display, hint: &str| {
        Error::new(ErrorCode::BadRequest, format!("`{flag}`: {error}")).hint(hint.to_owned())
    };
    let age = match set.keep.as_deref() {
        None => None,
        Some(DEFAULT) => Some(Bound::Default),
        Some(age) => {
            let age = kapell_expr::parse_duration(age)
                .map_err(|error| refused("--keep", &error, "a number and a unit: `30d`, `12h`"))?;
            Some(Bound::Is(Some(age)))
        }
    };
    let runs = match set.keep_runs.as_deref() {
        None => None,
        Some(DEFAULT) => Some(Bound::Default),
        Some(runs) => {
            let runs = runs
                .parse()
                .map_err(|error| refused("--keep-runs", &error, "a number, or `default`"))?;
            Some(Bound::Is(Some(runs)))
        }
    };
    Ok((age.is_some() || runs.is_some()).then_some(RetentionChange { age, runs }))
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
    let overridden = |name: &str| {
        let own = view.overrides.iter().any(|own| own == name);
        if own { "  (set here)" } else { "" }
    };
    let said = |name: &str, text: String| {
        if text.is_empty() {
            text
        } else {
            text + overridden(name)
        }
    };
    field("owner", said("owner", view.owner.clone()));
    field("tags", view.tags.join(", "));
    field("triggers", view.triggers.join(", "));
    field("strategy", said("strategy", strategy(&view.strategy)));
    field("key", view.key.clone().unwrap_or_default());
    if let Some(debounce) = &view.debounce {
        let longest = debounce.max.as_ref();
        let longest = longest.map_or_else(String::new, |max| format!(", at most {max}"));
        field("debounce", format!("{} of quiet{longest}", debounce.quiet));
    }
    field("kept", said("retention", retention(view.retention)));
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

fn retention(kept: Option<Retention>) -> String {
    let Some(Retention { age, runs }) = kept else {
        return String::new();
    };
    let age = age.map(|age| format!("ended runs for {}", kapell_expr::format_duration(age)));
    let runs = runs.map(|runs| format!("the newest {}", words::grouped(runs.into())));
    let parts: Vec<String> = age.into_iter().chain(runs).collect();
    parts.join(", ")
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
        line.pad(34);
        line.push(PLAIN, &version.author);
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
    let found = between(which, api).and_then(|(from, to)| api.diff(&which.workflow, from, to));
    session.close();
    let found = found?;
    if which.json {
        printer.json(&found)?;
    } else {
        printer.lines(&differences(&found))?;
    }
    Ok(Exit::Success)
}

/// The two versions that are meant: as far as nothing is said, what activating the newest would change,
/// and if that is active what its activation changed.
fn between(which: &WorkflowDiff, api: &dyn Api) -> Result<(u32, u32), Error> {
    let newest = || {
        let page = api.versions(&which.workflow, None, 1)?;
        Ok::<_, Error>(page.versions.first().map_or(1, |version| version.version))
    };
    let to = match which.to {
        Some(to) => to,
        None => newest()?,
    };
    let from = match (which.from, which.to) {
        (Some(from), _) => Some(from),
        (None, Some(_)) => None,
        (None, None) => api.workflow(&which.workflow)?.active,
    };
    match from.filter(|from| which.from.is_some() || *from != to) {
        Some(from) => Ok((from, to)),
        None if to > 1 => Ok((to - 1, to)),
        None => {
            let message = format!("there is no version of `{}` before v{to}", which.workflow);
            Err(Error::new(ErrorCode::BadRequest, message).hint("`--from` and `--to` name the two"))
        }
    }
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
    lines.extend(deploy::files(found.files_differ, &found.files, ""));
    if lines.len() == 1 {
        lines.push(Line::default().with(DIM, "no difference"));
    }
    lines
}

fn queue(which: &WorkflowQueue, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Record)?;
    let query = QueueQuery {
        key: which.key.clone(),
        after: which.after.clone(),
    };
    let view = session.api().queue(&which.workflow, &query);
    session.close();
    let view = view?;
    if which.json {
        printer.json(&view)?;
        return Ok(Exit::Success);
    }
    printer.lines(&queue_lines(&view))?;
    if let Some(next) = &view.next {
        let key = which.key.as_ref();
        let key = key.map_or_else(String::new, |key| format!(" --key {}", words::quoted(key)));
        let more = format!(
            "more: kapell workflow queue {}{key} --after {}",
            which.workflow,
            words::quoted(next)
        );
        printer.line(Line::default().with(DIM, more))?;
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
            line.pad(14);
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
    lines
}
