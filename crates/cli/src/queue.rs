//! `kapell queues`: what waits, and what workers have room for.

use kapell_api::http::{TaskNeed, TaskQueue, WorkerPool};

use crate::args::Queues;
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::workers::{resources, silent};
use crate::{Ended, Exit, words};

pub(crate) fn queues(queues: &Queues, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let found = session.api().task_queues();
    session.close();
    let found = found?;
    if queues.json {
        printer.json(&found)?;
        return Ok(Exit::Success);
    }
    if found.queues.is_empty() && found.pools.is_empty() {
        printer.plain("nothing waits, and no worker names a queue")?;
    }
    for queue in &found.queues {
        printer.lines(&lines(queue))?;
    }
    for pool in &found.pools {
        printer.line(pool_line(pool))?;
    }
    printer.notes(&silent(&found.unanswered));
    Ok(Exit::Success)
}

fn lines(queue: &TaskQueue) -> Vec<Line> {
    let style = if queue.startable > 0 && queue.workers == 0 {
        YELLOW
    } else {
        PLAIN
    };
    let mut waits = format!("  {} waiting", queue.waiting);
    if queue.oldest_wait_ms >= 1_000 {
        let seconds = words::count(queue.oldest_wait_ms / 1_000, "second");
        waits += &format!(" for up to {seconds}");
    }
    let held = queue.waiting.saturating_sub(queue.startable);
    if held > 0 {
        waits += &format!(", {} could start", queue.startable);
    }
    let room = format!(
        "  {} in flight  {} with {} of {} slots free",
        queue.in_flight,
        words::count(queue.workers, "worker"),
        queue.free_slots,
        queue.slots
    );
    let mut lines = vec![
        Line::default()
            .with(BOLD, queue.name.clone())
            .with(style, waits)
            .with(DIM, room),
    ];
    let asks = queue.needs.iter().filter_map(asks);
    lines.extend(asks.map(|asks| Line::default().with(DIM, format!("  {asks}"))));
    lines
}

/// What attempts ask for; none if that is a slot alone.
fn asks(need: &TaskNeed) -> Option<String> {
    let mut parts = Vec::new();
    let each = resources(&need.each);
    if !each.is_empty() {
        parts.push(each);
    }
    let custom = need.each.custom.iter();
    parts.extend(custom.map(|(name, amount)| format!("{amount} {name}")));
    let labels = need.labels.iter();
    parts.extend(labels.map(|(name, value)| format!("{name}={value}")));
    if need.open {
        parts.push("what its expressions give".to_owned());
    }
    (!parts.is_empty()).then(|| {
        let count = words::count(need.attempts, "attempt");
        format!("{count} with {}", parts.join(", "))
    })
}

fn pool_line(pool: &WorkerPool) -> Line {
    let mut parts = vec![words::count(pool.workers, "worker")];
    if pool.draining > 0 {
        parts.push(format!("{} going", pool.draining));
    }
    if pool.away > 0 {
        parts.push(format!("{} away", pool.away));
    }
    parts.push(format!("{} of {} slots free", pool.free_slots, pool.slots));
    if !pool.queues.is_empty() {
        parts.push(format!("serves {}", pool.queues.join(", ")));
    }
    Line::default()
        .with(BOLD, format!("pool {}", pool.name))
        .with(PLAIN, format!("  {}", parts.join("  ")))
}
