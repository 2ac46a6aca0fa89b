//! `kapell trigger`: what starts runs of workflows by itself.

use kapell_api::client::Api;
use kapell_api::http::{HookView, TriggerOn, TriggerQuery, TriggerView};
use kapell_model::{Error, ErrorCode, Time};
use kapell_node::clock;
use serde_json::json;

use crate::args::{Trigger, TriggerList, TriggerOne};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

/// Signals that wait for others that are named.
const NAMED: usize = 20;

/// Columns that what a trigger waits for takes in a list.
const ON: usize = 40;

pub(crate) fn trigger(command: &Trigger, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Trigger::List(which) => all(which, config, printer),
        Trigger::Show(one) => {
            let session = session::open(config, Need::Look)?;
            let found = named(session.api(), one).and_then(|view| {
                let hook = hook(session.api(), &view)?;
                Ok((view, hook))
            });
            session.close();
            let (view, hook) = found?;
            shown(&view, hook, one.json, config, printer)
        }
        Trigger::Rotate(one) => {
            let session = session::open(config, Need::Record)?;
            let api = session.api();
            let found = named(api, one).and_then(|view| {
                let hook = api.rotate_hook(&view.workflow, &view.name)?;
                Ok((api.trigger(&view.workflow, &view.name)?, Some(hook)))
            });
            session.close();
            let (view, hook) = found?;
            shown(&view, hook, one.json, config, printer)
        }
        Trigger::Pause(one) | Trigger::Resume(one) => {
            let session = session::open(config, Need::Record)?;
            let api = session.api();
            let found = named(api, one).and_then(|view| {
                let (workflow, name, by) = (&view.workflow, &view.name, &config.user);
                match command {
                    Trigger::Pause(_) => api.pause_trigger(workflow, name, by),
                    _ => api.resume_trigger(workflow, name, by),
                }
            });
            session.close();
            said(&found?, None, one.json, printer)
        }
    }
}

/// Prints a trigger with the whole address of its webhook.
fn shown(
    view: &TriggerView,
    mut hook: Option<HookView>,
    json: bool,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    if let (Some(hook), Some(server)) = (&mut hook, config.server()?) {
        hook.path.insert_str(0, server.url().trim_end_matches('/'));
    }
    said(view, hook.as_ref(), json, printer)
}

/// The trigger that somebody means.
fn named(api: &dyn Api, one: &TriggerOne) -> Result<TriggerView, Error> {
    if let Some(name) = &one.trigger {
        return api.trigger(&one.workflow, name);
    }
    let query = TriggerQuery {
        workflow: Some(one.workflow.clone()),
        ..TriggerQuery::default()
    };
    let mut found = api.triggers(&query)?.triggers;
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|view| view.name.as_str()).collect();
        let message = format!("`{}` has several triggers", one.workflow);
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint(format!("name one of {}", names.join(", "))));
    }
    found.pop().ok_or_else(|| {
        let message = format!("the active version of `{}` has no triggers", one.workflow);
        Error::new(ErrorCode::TriggerNotFound, message).hint(
            "`kapell triggers` lists those of all workflows; `kapell deploy` puts a version in force",
        )
    })
}

/// Where a webhook is called, for those who may know it.
fn hook(api: &dyn Api, view: &TriggerView) -> Result<Option<HookView>, Error> {
    if view.on.path.is_none() {
        return Ok(None);
    }
    match api.hook(&view.workflow, &view.name) {
        Ok(hook) => Ok(Some(hook)),
        Err(error) if error.code == ErrorCode::NotPermitted => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn all(which: &TriggerList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().triggers(&TriggerQuery {
        workflow: which.workflow.clone(),
        after: which.after.clone(),
        limit: which.limit as usize,
    });
    session.close();
    let page = page?;
    if which.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.triggers.is_empty() {
        printer.plain("no active version has a trigger")?;
        return Ok(Exit::Success);
    }
    printer.lines(&rows(&page.triggers, clock::now(), config.table()))?;
    if let Some(next) = page.next {
        let of = which.workflow.as_ref();
        let of = of.map_or_else(String::new, |name| format!(" --workflow {name}"));
        let more = format!("more: kapell trigger list{of} --after {next}");
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn rows(triggers: &[TriggerView], now: Time, width: Option<usize>) -> Vec<Line> {
    let widest = |of: &dyn Fn(&TriggerView) -> String, head: &str, most: usize| {
        let widths = triggers.iter().map(|view| words::columns(&of(view)));
        widths.max().unwrap_or(0).clamp(head.len(), most)
    };
    let name_at = widest(&|view| view.workflow.clone(), "workflow", 40) + 2;
    let on_at = name_at + widest(&|view| view.name.clone(), "trigger", 40) + 2;
    let next_at = on_at + widest(&|view| on(&view.on), "on", ON) + 2;
    let last_at = next_at + 22;
    let mut head = Line::default().with(DIM, "workflow");
    for (column, text) in [
        (name_at, "trigger"),
        (on_at, "on"),
        (next_at, "next"),
        (last_at, "last"),
    ] {
        head.pad(column);
        head.push(DIM, text);
    }
    let mut lines = vec![head];
    for view in triggers {
        let mut line = Line::default().with(BOLD, words::cut(&view.workflow, 40));
        line.pad(name_at);
        line.push(PLAIN, words::cut(&view.name, 40));
        line.pad(on_at);
        line.push(PLAIN, words::shortened(&on(&view.on), ON));
        line.pad(next_at);
        match (state(view), view.next_at) {
            (Some(state), _) => line.push(YELLOW, state),
            (None, Some(at)) => line.push(PLAIN, words::local(&at.to_string(), now)),
            (None, None) if view.kind == "schedule" => line.push(DIM, "never"),
            (None, None) => line.push(DIM, "when it comes"),
        }
        line.pad(last_at);
        match &view.last {
            Some(last) => line.push(DIM, list::ago(last.started_at, now)),
            None => line.push(DIM, "-"),
        }
        if let Some(problem) = &view.problem {
            line.push(RED, format!("  {}", words::first_line(&problem.message)));
        }
        lines.push(match width {
            Some(width) => line.cut(width),
            None => line,
        });
    }
    lines
}

/// Why it starts nothing, in a word.
fn state(view: &TriggerView) -> Option<&'static str> {
    if view.paused_by.is_some() {
        Some("paused")
    } else if view.workflow_paused {
        Some("workflow paused")
    } else {
        None
    }
}

/// What a trigger waits for.
fn on(on: &TriggerOn) -> String {
    match on {
        TriggerOn {
            cron: Some(text), ..
        } => format!("cron {text}"),
        TriggerOn {
            every: Some(span), ..
        } => format!("every {span}"),
        TriggerOn {
            signals: Some(names),
            ..
        } => format!("signal {}", names.join(" + ")),
        TriggerOn {
            path: Some(path), ..
        } => format!("webhook {path}"),
        TriggerOn { .. } => String::new(),
    }
}

fn said(view: &TriggerView, hook: Option<&HookView>, json: bool, printer: &mut Printer) -> Ended {
    if json {
        let mut value = json!(view);
        if let Some(hook) = hook {
            value["hook"] = json!(hook);
        }
        printer.json(&value)?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    let mut head = Line::default().with(BOLD, &view.name);
    head.push(DIM, format!("  of {} v{}", view.workflow, view.version));
    match (&view.paused_by, view.workflow_paused) {
        (Some(by), _) => head.push(YELLOW, format!("  paused by {by}")),
        (None, true) => head.push(YELLOW, "  waits: its workflow is paused"),
        (None, false) => {}
    }
    let mut lines = vec![head];
    let mut field = |name: &str, text: String| {
        let mut line = Line::default().with(DIM, format!("  {name}"));
        line.pad(13);
        line.push(PLAIN, text);
        lines.push(line);
    };
    field("on", on(&view.on));
    if view.kind == "schedule" {
        field("timezone", view.timezone.clone());
    }
    if let Some(hook) = hook {
        field("address", hook.path.clone());
        let signed = if hook.signed {
            "with the header X-Kapell-Signature"
        } else {
            "no: whoever knows the address may call it"
        };
        field("signed", signed.to_owned());
    }
    if let Some(at) = view.next_at {
        let what = if view.catching_up {
            " (makes up for what was missed)"
        } else {
            ""
        };
        field(
            "next",
            format!("{}{what}", words::local(&at.to_string(), now)),
        );
    }
    if let Some(last) = &view.last {
        let late = last
            .late_ms
            .filter(|late| *late >= 1_000)
            .map_or_else(String::new, |late| {
                let late = std::time::Duration::from_millis(late.unsigned_abs());
                format!(", {} late", words::span(late))
            });
        let for_what = words::local(&last.scheduled_at.to_string(), now);
        let ago = list::ago(last.started_at, now);
        field(
            "last",
            format!("{ago}: run {} for {for_what}{late}", words::short(last.run)),
        );
    }
    field("started", words::count(view.started, "run"));
    for (name, count) in [
        ("missed", view.missed),
        ("declined", view.declined),
        ("refused", view.refused),
        ("duplicates", view.duplicates),
        ("waiting", view.waiting_starts),
        ("unjoined", view.waiting_signals),
    ] {
        if count > 0 {
            field(name, words::grouped(count));
        }
    }
    for waiting in view.waiting.iter().take(NAMED) {
        let key = match &waiting.key {
            serde_json::Value::Null => String::new(),
            key => format!(" with key {}", words::shortened(&key.to_string(), ON)),
        };
        field(
            "waits",
            format!(
                "`{}` {}{key}, sent {}, for the others",
                waiting.source,
                waiting.id,
                list::ago(waiting.sent_at, now)
            ),
        );
    }
    if let Some(problem) = &view.problem {
        let at = problem.at.map_or_else(String::new, |at| {
            format!("{}: ", words::local(&at.to_string(), now))
        });
        lines.push(Line::default().with(RED, format!("  {at}{}", problem.message)));
    }
    printer.lines(&lines)?;
    Ok(Exit::Success)
}
