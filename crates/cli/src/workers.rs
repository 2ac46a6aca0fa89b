//! `kapell workers`: who does the work of a server, what each has and wastes.

use kapell_api::http::{WorkerQuery, WorkerView, WorkerWaste};
use kapell_api::task::TaskResources;
use kapell_model::Time;
use kapell_node::clock;

use crate::args::Workers;
use crate::config::Config;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

pub(crate) fn workers(workers: &Workers, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let grace = workers.grace;
    let which = WorkerQuery {
        queue: workers.queue.clone(),
        pool: workers.pool.clone(),
        node: workers.node.clone(),
        idle: workers.idle,
    };
    let found = match (&workers.drain, &workers.drain_pool) {
        (Some(worker), _) => session.api().drain(worker, grace),
        (None, Some(pool)) => session.api().drain_pool(pool, grace),
        (None, None) => session.api().workers(&which),
    };
    let server = session.holder().is_some();
    session.close();
    let found = found?;
    if workers.json {
        printer.json(&found)?;
        return Ok(Exit::Success);
    }
    let filtered = workers.idle
        || [&workers.queue, &workers.pool, &workers.node]
            .iter()
            .any(|filter| filter.is_some());
    if found.workers.is_empty() {
        printer.plain(match (filtered, server) {
            (true, _) => "no such workers",
            (false, true) => "no workers: `kapell worker --server URL` starts one on any machine",
            (false, false) => {
                "no workers: no server runs here. `kapell server` starts one, which works too; \
                 `kapell worker --server URL` works for it elsewhere"
            }
        })?;
    }
    let now = clock::now();
    let mut homes: Vec<&str> = found.workers.iter().map(|of| of.node.as_str()).collect();
    homes.sort_unstable();
    homes.dedup();
    let several = homes.len() > 1 || !found.unanswered.is_empty();
    for worker in &found.workers {
        printer.lines(&lines(worker, several, now))?;
    }
    printer.notes(&silent(&found.unanswered));
    Ok(Exit::Success)
}

/// Nodes that did not answer.
pub(crate) fn silent(nodes: &[String]) -> Vec<Line> {
    let note = |node: &String| {
        let note = format!("node {node} did not answer: what is there is not shown");
        Line::default().with(YELLOW, note)
    };
    nodes.iter().map(note).collect()
}

fn lines(worker: &WorkerView, several: bool, now: Time) -> Vec<Line> {
    let (style, state) = match (worker.connected, worker.draining) {
        (false, _) => (YELLOW, "away"),
        (true, true) => (YELLOW, "goes"),
        (true, false) => (GREEN, "here"),
    };
    let place = match (worker.inside, worker.spot) {
        (true, _) => "  inside the server",
        (false, true) => "  spot",
        (false, false) => "",
    };
    let taken = worker.slots.saturating_sub(worker.free_slots);
    let mut of = vec![format!("{taken} of {} slots", worker.slots)];
    let ahead = (worker.count as u64).saturating_sub(taken.into());
    if ahead > 0 {
        of.push(format!("{ahead} more given"));
    }
    of.extend(worker.pool.iter().map(|pool| format!("pool {pool}")));
    let labels: Vec<String> = worker
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !labels.is_empty() {
        of.push(labels.join(" "));
    }
    if several {
        of.push(format!("at node {}", worker.node));
    }
    let since = list::ago(worker.opened_at, now);
    of.push(format!("session {} since {since}", worker.session));
    let mut lines = vec![
        Line::default()
            .with(BOLD, worker.name.clone())
            .with(style, format!("  {state}"))
            .with(DIM, format!("{place}  {}", of.join("  "))),
        Line::default().with(DIM, format!("  {}", has(worker))),
    ];
    if let Some(waste) = &worker.waste {
        lines.push(Line::default().with(DIM, format!("  {}", wasted(waste))));
    }
    for attempt in &worker.attempts {
        lines.push(
            Line::default()
                .with(PLAIN, format!("  {} ", attempt.step))
                .with(
                    DIM,
                    format!(
                        "of {} run {} try {}  {}",
                        attempt.workflow,
                        attempt.run,
                        attempt.attempt,
                        list::ago(attempt.granted_at, now)
                    ),
                ),
        );
    }
    let more = worker.count.saturating_sub(worker.attempts.len());
    if more > 0 {
        lines.push(Line::default().with(DIM, format!("  … and {more} more")));
    }
    lines
}

/// What it serves, offers, and has free.
fn has(worker: &WorkerView) -> String {
    let queues = if worker.queues.is_empty() {
        "every queue that nobody names".to_owned()
    } else {
        worker.queues.join(", ")
    };
    let offers: Vec<String> = worker
        .capacity
        .custom
        .iter()
        .map(|(name, amount)| format!("{amount} {name}"))
        .collect();
    let offers = if offers.is_empty() {
        String::new()
    } else {
        format!("  offers {}", offers.join(", "))
    };
    let free = resources(&worker.free);
    let free = if free.is_empty() {
        String::new()
    } else {
        format!("  free {free} of {}", resources(&worker.capacity))
    };
    format!("serves {queues}{offers}{free}")
}

/// Cores, memory, devices, as far as there are any.
pub(crate) fn resources(of: &TaskResources) -> String {
    let mut parts = Vec::new();
    if of.cpu_millis > 0 {
        parts.push(cores(of.cpu_millis));
    }
    if of.memory_bytes > 0 {
        parts.push(words::bytes(of.memory_bytes));
    }
    if of.gpus > 0 {
        parts.push(words::count(of.gpus.into(), "GPU"));
    }
    parts.join(", ")
}

fn cores(millis: u64) -> String {
    let (whole, part) = (millis / 1_000, millis % 1_000);
    match (whole, part) {
        (1, 0) => "1 core".to_owned(),
        (_, 0) => format!("{whole} cores"),
        _ => format!(
            "{whole}.{} cores",
            format!("{part:03}").trim_end_matches('0')
        ),
    }
}

fn wasted(waste: &WorkerWaste) -> String {
    let mut parts = vec![format!("{} of its slots", percent(waste.slots))];
    let of = |share: Option<f64>, what: &str| {
        let share = share.filter(|share| *share > 0.0);
        share.map(|share| format!("{} of its {what}", percent(share)))
    };
    parts.extend(of(waste.cpu, "cores"));
    parts.extend(of(waste.memory, "memory"));
    parts.extend(of(waste.gpus, "GPUs"));
    let minutes = waste.over_ms / 60_000;
    let over = if minutes == 0 {
        words::count(waste.over_ms / 1_000, "second")
    } else {
        words::count(minutes, "minute")
    };
    let used = waste.cpu_used_ms.saturating_mul(100);
    let used = used
        .checked_div(waste.cpu_asked_ms)
        .map_or_else(String::new, |used| {
            format!("; steps that ended used {used} % of the cores they asked for")
        });
    format!("idle over {over}: {}{used}", parts.join(", "))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
