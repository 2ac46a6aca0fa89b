//! `kapell lock`: who holds named locks and rates, and who waits.

use std::time::Duration;

use kapell_api::http::{LockQuery, LockSummary, LockUse, LockView};
use kapell_model::Time;
use kapell_node::clock;

use crate::args::{Lock, LockList, LockOne};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

pub(crate) fn lock(command: &Lock, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Lock::List(which) => all(which, config, printer),
        Lock::Show(one) => show(one, config, printer),
    }
}

pub(crate) fn all(which: &LockList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().locks(&LockQuery {
        after: which.after.clone(),
        limit: which.limit as usize,
    });
    session.close();
    let page = page?;
    if which.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.locks.is_empty() {
        printer.plain("no lock is held, and nobody waits for one")?;
        return Ok(Exit::Success);
    }
    printer.lines(&rows(&page.locks, clock::now()))?;
    if let Some(next) = page.next {
        let more = format!("more: kapell lock list --after {next}");
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

/// How many hold it at once, or a period.
fn bound(lock: &LockSummary) -> String {
    match lock.per_ms {
        None => format!("{} at once", lock.max),
        Some(millis) => {
            let period = words::span(Duration::from_millis(millis));
            format!("{} every {period}", lock.max)
        }
    }
}

fn rows(locks: &[LockSummary], now: Time) -> Vec<Line> {
    let names = locks.iter().map(|lock| words::columns(&lock.name));
    let bound_at = names.max().unwrap_or(0).max("lock".len()) + 2;
    let (held_at, waits_at, since_at) = (bound_at + 18, bound_at + 26, bound_at + 36);
    let mut head = Line::default().with(DIM, "lock");
    for (column, text) in [
        (bound_at, "bound"),
        (held_at, "held"),
        (waits_at, "waiting"),
        (since_at, "since"),
    ] {
        head.pad(column);
        head.push(DIM, text);
    }
    let mut lines = vec![head];
    for lock in locks {
        let mut line = Line::default().with(BOLD, &lock.name);
        line.pad(bound_at);
        line.push(DIM, bound(lock));
        line.pad(held_at);
        line.push(PLAIN, words::grouped(lock.holders));
        line.pad(waits_at);
        let style = if lock.waiting > 0 { YELLOW } else { PLAIN };
        line.push(style, words::grouped(lock.waiting));
        if let Some(at) = lock.oldest_at {
            line.pad(since_at);
            line.push(DIM, list::ago(at, now));
        }
        lines.push(line);
    }
    lines
}

fn show(one: &LockOne, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let view = session.api().lock(&one.name);
    session.close();
    let view = view?;
    if one.json {
        printer.json(&view)?;
    } else {
        printer.lines(&lines(&view, clock::now()))?;
    }
    Ok(Exit::Success)
}

fn lines(view: &LockView, now: Time) -> Vec<Line> {
    let mut head = Line::default().with(BOLD, &view.summary.name);
    let idle = view.summary.holders + view.summary.waiting == 0;
    if idle && view.summary.per_ms.is_none() {
        head.push(DIM, "  nobody holds it, and nobody waits");
        return vec![head];
    }
    head.push(DIM, format!("  {}", bound(&view.summary)));
    if let Some(at) = view.next_at {
        let at = words::local(&at.to_string(), now);
        head.push(DIM, format!(", the next at {at}"));
    }
    let mut lines = vec![head];
    let mut row = |what: &str, style, of: &LockUse| {
        let mut line = Line::default().with(style, format!("  {what}"));
        line.pad(10);
        line.push(BOLD, &of.step);
        let run = words::short(of.run);
        line.push(PLAIN, format!("  of run {run} of {}", of.workflow));
        if let Some(since) = of.since {
            line.push(DIM, format!("  {}", list::ago(since, now)));
        }
        lines.push(line);
    };
    for of in &view.holding {
        row("holds", PLAIN, of);
    }
    for of in &view.queue {
        row("waits", YELLOW, of);
    }
    if view.more {
        lines.push(Line::default().with(DIM, "  more are left out"));
    }
    lines
}
