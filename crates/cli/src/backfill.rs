//! `kapell backfill`: due times of a schedule that are made up for on request.

use std::time::Duration;

use anstyle::Style;
use kapell_api::client::Api;
use kapell_api::http::{
    BackfillOnly, BackfillOrder, BackfillQuery, BackfillRun, BackfillView, NewBackfill,
    TriggerQuery,
};
use kapell_model::{Error, Time};
use kapell_node::clock;

use crate::args::{Backfill, BackfillList, BackfillOne, BackfillStart, Only, Order};
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::paint::{BOLD, CYAN, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, list, words};

/// Columns of a bar.
const BAR: u64 = 20;

/// Runs that did not succeed that are named.
const NAMED: usize = 10;

/// Between two looks at one that is followed.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn backfill(command: &Backfill, config: &Config, printer: &mut Printer) -> Ended {
    let verb = |one: &BackfillOne, need, printer: &mut Printer| {
        let session = session::open(config, need)?;
        let (workflow, id, by) = (&one.workflow, &one.id, &config.user);
        let api = session.api();
        let view = match command {
            Backfill::Pause(_) => api.pause_backfill(workflow, id, by),
            Backfill::Resume(_) => api.resume_backfill(workflow, id, by),
            Backfill::Cancel(_) => api.cancel_backfill(workflow, id, by),
            Backfill::Show(_) | Backfill::Start(_) | Backfill::List(_) => {
                api.backfill(workflow, id)
            }
        };
        session.close();
        said(&view?, one.json, printer)
    };
    match command {
        Backfill::Start(new) => start(new, config, printer),
        Backfill::List(which) => all(which, config, printer),
        Backfill::Show(one) => verb(one, Need::Look, printer),
        Backfill::Pause(one) | Backfill::Resume(one) | Backfill::Cancel(one) => {
            verb(one, Need::Record, printer)
        }
    }
}

fn start(new: &BackfillStart, config: &Config, printer: &mut Printer) -> Ended {
    let need = if new.watch {
        Need::Work(None)
    } else {
        Need::Record
    };
    let session = session::open(config, need)?;
    let view = wanted(new, config, session.api())
        .and_then(|wanted| session.api().start_backfill(&new.workflow, &wanted))?;
    if new.watch {
        return watch(session, view, new.json, config, printer);
    }
    let elsewhere = session.holder().is_some();
    session.close();
    if !new.json && !elsewhere && view.status == "running" {
        printer.notes(&[Line::default().with(DIM, "`kapell resume` does the work")]);
    }
    said(&view, new.json, printer)
}

fn wanted(new: &BackfillStart, config: &Config, api: &dyn Api) -> Result<NewBackfill, Error> {
    let now = clock::now();
    let timezone = timezone(new, api)?;
    let instant = |text: &str| words::instant_in(text, now, &timezone);
    Ok(NewBackfill {
        trigger: new.trigger.clone(),
        from: instant(&new.from)?,
        until: new.to.as_deref().map_or(Ok(now), instant)?,
        only: match new.only {
            Only::Missing => BackfillOnly::Missing,
            Only::Failed => BackfillOnly::Failed,
            Only::All => BackfillOnly::All,
        },
        order: match new.order {
            Order::Oldest => BackfillOrder::OldestFirst,
            Order::Newest => BackfillOrder::NewestFirst,
        },
        concurrency: new.concurrency,
        id: new.id.clone(),
        by: config.user.clone(),
    })
}

/// The time zone of the schedule: dates mean what they mean there.
fn timezone(new: &BackfillStart, api: &dyn Api) -> Result<String, Error> {
    if let Some(name) = &new.trigger {
        return api
            .trigger(&new.workflow, name)
            .map(|trigger| trigger.timezone);
    }
    let query = TriggerQuery {
        workflow: Some(new.workflow.clone()),
        ..TriggerQuery::default()
    };
    let triggers = api.triggers(&query)?.triggers;
    let schedule = triggers
        .into_iter()
        .find(|trigger| trigger.kind == "schedule");
    Ok(schedule.map_or_else(|| "UTC".to_owned(), |schedule| schedule.timezone))
}

/// Follows a backfill until it has ended, or somebody wants to leave.
fn watch(
    session: Session,
    mut view: BackfillView,
    json: bool,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let interrupt = Interrupt::listen()?;
    while view.ended_at.is_none() && view.cancelled_by.is_none() && !interrupt.asked() {
        if config.terminal && !json {
            let line = Line::default().with(BOLD, &view.id).join(progress(&view));
            printer.live(&[line], config.size().0)?;
        }
        // Its runs tell when something has happened.
        match view.active.first() {
            Some(active) => drop(session.api().wait(active.run, LOOK)?),
            None => std::thread::park_timeout(LOOK),
        }
        view = session.api().backfill(&view.workflow, &view.id)?;
    }
    let good = view.failed == 0 && view.refused == 0;
    session.stop(Duration::ZERO);
    said(&view, json, printer)?;
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else if good {
        Exit::Success
    } else {
        Exit::Failed
    })
}

pub(crate) fn all(which: &BackfillList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().backfills(&BackfillQuery {
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
    if page.backfills.is_empty() {
        printer.plain("there are no backfills")?;
        return Ok(Exit::Success);
    }
    let name = |view: &BackfillView| format!("{} {}", view.workflow, view.id);
    let names = page
        .backfills
        .iter()
        .map(|view| words::columns(&name(view)));
    let column = names.max().unwrap_or(0) + 2;
    let lines = page.backfills.iter().map(|view| {
        let mut line = Line::default().with(PLAIN, format!("{} ", view.workflow));
        line.push(BOLD, &view.id);
        line.pad(column);
        line.join(progress(view))
    });
    printer.lines(&lines.collect::<Vec<_>>())?;
    if let Some(next) = page.next {
        let more = format!("more: kapell backfill list --after {next}");
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

/// A bar, the share, and how it stands.
fn progress(view: &BackfillView) -> Line {
    let (done, total) = (view.done(), view.total);
    let share = |of: u64| (done * of).checked_div(total).unwrap_or(of);
    let filled = usize::try_from(share(BAR)).unwrap_or(0);
    let empty = usize::try_from(BAR - share(BAR)).unwrap_or(0);
    let style = match view.status.as_str() {
        "ended" if view.failed + view.refused == 0 => GREEN,
        "ended" | "cancelled" | "blocked" => RED,
        "paused" => YELLOW,
        _ => CYAN,
    };
    let mut line = Line::default().with(style, "█".repeat(filled));
    line.push(DIM, "░".repeat(empty));
    line.push(PLAIN, format!(" {:>3}%", share(100)));
    line.push(
        DIM,
        format!("  {} of {}", words::grouped(done), words::grouped(total)),
    );
    let mut active = view.active.iter();
    let waits = !view.active.is_empty() && active.all(|of| of.waits_for.is_some());
    let waits = if waits { ", its runs wait" } else { "" };
    line.with(style, format!("  {}{waits}", view.status))
}

fn said(view: &BackfillView, json: bool, printer: &mut Printer) -> Ended {
    if json {
        printer.json(view)?;
    } else {
        printer.lines(&lines(view, clock::now()))?;
    }
    Ok(Exit::Success)
}

/// Why a backfill has nothing to do.
fn nothing(view: &BackfillView) -> &'static str {
    match (view.found, view.ahead, view.only) {
        (0, Some(_), _) => "all due times of the range are still the schedule's own",
        (0, None, _) => "no due time lies in the range",
        (_, _, BackfillOnly::Missing) => {
            "a run for each of them succeeded or is under way: `--only all` takes them again"
        }
        (_, _, BackfillOnly::Failed) => "no run for any of them failed",
        (_, _, BackfillOnly::All) => "there is none",
    }
}

/// Who or what holds it up.
fn held_up(view: &BackfillView, field: &mut impl FnMut(&str, Style, String)) {
    if let Some(by) = &view.paused_by {
        field("paused", YELLOW, format!("by {by}"));
    }
    if let Some(by) = &view.cancelled_by {
        field("cancelled", RED, format!("by {by}"));
    }
    if let Some(run) = view.blocked_by {
        let run = words::short(run);
        let text = format!("run {run} failed: `kapell retry {run}`, or resume the backfill");
        field("blocked", RED, text);
    }
}

fn lines(view: &BackfillView, now: Time) -> Vec<Line> {
    let mut head = Line::default().with(BOLD, &view.id);
    head.push(
        DIM,
        format!("  of {} v{}, {}", view.workflow, view.version, view.trigger),
    );
    let mut lines = vec![head, Line::default().with(PLAIN, "  ").join(progress(view))];
    let mut field = |name: &str, style, text: String| {
        let mut line = Line::default().with(DIM, format!("  {name}"));
        line.pad(14);
        line.push(style, text);
        lines.push(line);
    };
    field(
        "range",
        PLAIN,
        format!(
            "{} to {}",
            words::moment(view.from),
            words::moment(view.until)
        ),
    );
    let only = match view.only {
        BackfillOnly::Missing => "those without a run that succeeded",
        BackfillOnly::Failed => "those whose run failed",
        BackfillOnly::All => "all",
    };
    field(
        "due times",
        PLAIN,
        format!(
            "{} of {} ({only})",
            words::grouped(view.total),
            words::grouped(view.found.max(view.total))
        ),
    );
    if let Some(ahead) = view.ahead {
        let ahead = words::local(&ahead.to_string(), now);
        field(
            "left",
            DIM,
            format!("from {ahead} on to the schedule itself"),
        );
    }
    if view.total == 0 {
        field("nothing", YELLOW, nothing(view).to_owned());
    }
    let order = match view.order {
        BackfillOrder::OldestFirst => "oldest first",
        BackfillOrder::NewestFirst => "newest first",
    };
    field(
        "order",
        PLAIN,
        format!("{order}, {} at a time", view.concurrency),
    );
    let ago = view
        .created_at
        .map_or_else(String::new, |at| format!(", {}", list::ago(at, now)));
    field("made", PLAIN, format!("by {}{ago}", view.by));
    for (name, style, count) in [
        ("succeeded", GREEN, view.succeeded),
        ("failed", RED, view.failed),
        ("cancelled", DIM, view.cancelled),
        ("refused", RED, view.refused),
        ("declined", DIM, view.declined),
    ] {
        if count > 0 {
            field(name, style, words::grouped(count));
        }
    }
    held_up(view, &mut field);
    let first_why = view.active.iter().find_map(|of| of.waits_for.as_deref());
    if let Some(why) = first_why {
        field("waits", YELLOW, why.to_owned());
    }
    let mut runs = |name: &str, style, runs: &mut dyn Iterator<Item = &BackfillRun>| {
        for of in runs.take(NAMED) {
            let due = words::local(&of.scheduled_at.to_string(), now);
            field(
                name,
                style,
                format!("run {} for {due}", words::short(of.run)),
            );
        }
    };
    let waits = |of: &&BackfillRun| of.waits_for.is_some();
    runs(
        "active",
        CYAN,
        &mut view.active.iter().filter(|of| !waits(of)),
    );
    runs("queued", YELLOW, &mut view.active.iter().filter(waits));
    runs("not well", RED, &mut view.failed_runs.iter());
    if let Some(problem) = &view.problem {
        field("problem", RED, problem.clone());
    }
    lines
}
