//! Progress of runs: a tree that is written again and again on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;

use kapell_api::http::{RunView, StepView};
use kapell_model::{Error, RunId, RunStatus, StepStatus, Time};

use crate::config::Config;
use crate::paint::{self, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{tree, words};

/// Seconds between two lines about a foreach that goes on, where progress is lines.
const EVERY_SECONDS: u64 = 10;

/// What has been shown so far.
pub(crate) struct Progress {
    terminal: bool,
    several: bool,
    shown: BTreeMap<RunId, Shown>,
}

#[derive(Default)]
struct Shown {
    status: Option<RunStatus>,
    steps: BTreeMap<String, (StepStatus, u32)>,
    items_at: Option<Time>,
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new(config: &Config, runs: usize) -> Self {
        Self {
            terminal: config.terminal,
            several: runs > 1,
            shown: BTreeMap::new(),
        }
    }

    /// Shows where runs stand.
    pub(crate) fn show(
        &mut self,
        views: &[RunView],
        now: Time,
        config: &Config,
        printer: &mut Printer,
    ) -> Result<(), Error> {
        if self.terminal {
            let (width, height) = config.size();
            return printer.live(&frame(views, now, height), width);
        }
        let mut lines = Vec::new();
        for view in views {
            let several = self.several;
            let shown = self.shown.entry(view.summary.run).or_default();
            news(view, now, several, shown, &mut lines);
        }
        printer.lines(&lines)
    }
}

/// Everything on one screen: what does not fit is counted, what has ended first.
fn frame(views: &[RunView], now: Time, height: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let room = (height.saturating_sub(2 + 2 * views.len()) / views.len().max(1)).max(1);
    for view in views.iter().take(height.saturating_sub(3).max(1)) {
        lines.push(tree::head(view, now));
        if views.len() > height / 3 {
            continue;
        }
        let mut steps = tree::steps(view, now);
        if steps.len() > room {
            let all = steps.len();
            for droppable in [
                StepStatus::Pending,
                StepStatus::Skipped,
                StepStatus::UpstreamFailed,
                StepStatus::Succeeded,
            ] {
                let mut over = steps.len().saturating_sub(room.saturating_sub(1));
                // Those that ended are dropped from the top, those to come from the bottom.
                if droppable == StepStatus::Pending {
                    steps.reverse();
                }
                steps.retain(|(status, _)| {
                    let drops = over > 0 && *status == droppable;
                    over -= usize::from(drops);
                    !drops
                });
                if droppable == StepStatus::Pending {
                    steps.reverse();
                }
            }
            steps.truncate(room.saturating_sub(1));
            let hidden = words::count((all - steps.len()) as u64, "more step");
            steps.push((
                StepStatus::Pending,
                Line::default().with(DIM, format!("    … {hidden}")),
            ));
        }
        lines.extend(steps.into_iter().map(|(_, line)| line));
    }
    let running = views
        .iter()
        .filter(|view| !view.summary.status.ended())
        .count();
    if running > 0 {
        let which = if views.len() > 1 {
            format!("{running} of {} runs  ", views.len())
        } else {
            String::new()
        };
        lines.push(Line::default().with(DIM, format!("  {which}Ctrl-C pauses")));
    }
    lines
}

/// What is new since the last look, as lines.
fn news(view: &RunView, now: Time, several: bool, shown: &mut Shown, lines: &mut Vec<Line>) {
    let prefix = if several {
        format!("{} ", words::short(view.summary.run))
    } else {
        String::new()
    };
    if shown.status.is_none() {
        let summary = &view.summary;
        lines.push(Line::default().with(
            PLAIN,
            format!(
                "run {} of {} v{}",
                summary.run, summary.workflow, summary.version
            ),
        ));
    }
    let waits = matches!(view.summary.status, RunStatus::Queued | RunStatus::Paused);
    if waits && shown.status != Some(view.summary.status) {
        let why = view.summary.waits_for.as_deref();
        let why = words::local(why.unwrap_or("nothing"), now);
        let why = words::run_waits(&why);
        lines.push(Line::default().with(DIM, format!("  {prefix}{why}")));
    }
    shown.status = Some(view.summary.status);
    let mut steps: Vec<_> = view.steps.iter().collect();
    steps.sort_by_key(|step| step.ended_at);
    for step in steps {
        let status = step.status;
        let before = shown
            .steps
            .insert(step.path.clone(), (status, step.attempts));
        let news = before.map(|(status, _)| status) != Some(status)
            || before.map(|(_, tries)| tries) != Some(step.attempts);
        let tells = status.ended() || status == StepStatus::Retrying;
        let counts = step.items.is_some() && status == StepStatus::Running && {
            let due = shown
                .items_at
                .is_none_or(|at| words::between(at, now).as_secs() >= EVERY_SECONDS);
            if due {
                shown.items_at.replace(now).is_some()
            } else {
                false
            }
        };
        if (news && tells) || counts {
            lines.push(whole(&prefix, step, now));
        }
    }
}

/// A step with its whole path.
fn whole(prefix: &str, step: &StepView, now: Time) -> Line {
    let (sign, style) = paint::step(step.status);
    let mut line = Line::default()
        .with(PLAIN, format!("  {prefix}"))
        .with(style, sign)
        .with(PLAIN, " ");
    line.push(PLAIN, format!("{}  ", step.path));
    line.pad(24 + prefix.len());
    tree::detail(step, now, &mut line);
    line
}
