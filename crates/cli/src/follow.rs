//! Following runs to their end: progress, Ctrl-C, and what is said at the end.

use std::time::Duration;

use kapell_api::http::{Action, RunQuery, RunView};
use kapell_model::{Error, ErrorCode, RunId, RunStatus, StepStatus, limits};
use kapell_node::clock;
use serde_json::json;

use crate::args::Work;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::paint::{BOLD, CYAN, DIM, GREEN, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::progress::Progress;
use crate::session::{self, Holder, Need, Session};
use crate::{Ended, Exit, failure, paint, words};

/// Between two looks on a terminal, and elsewhere.
const LIVE: Duration = Duration::from_millis(80);
const LINES: Duration = Duration::from_millis(200);
/// While a run is young: most are short. Once it is old and no terminal shows it, nobody minds.
const FIRST: Duration = Duration::from_millis(25);
const LAST: Duration = Duration::from_secs(1);
/// Looks that are refused before it is given up.
const LOOKS: u32 = 50;
/// How long running attempts may take to end after Ctrl-C, and when other runs are left behind.
const GRACE: Duration = Duration::from_secs(5);
const LEAVING: Duration = Duration::from_secs(2);
/// Runs that are shown at once.
const SHOWN: usize = 50;

/// Runs that have not ended and that nobody paused.
pub(crate) fn unfinished(session: &Session) -> Result<Vec<RunId>, Error> {
    in_status(
        session,
        &[RunStatus::Queued, RunStatus::Running, RunStatus::Cancelling],
    )
}

/// Runs in these statuses that no other run made.
pub(crate) fn in_status(session: &Session, statuses: &[RunStatus]) -> Result<Vec<RunId>, Error> {
    let names: Vec<&str> = statuses.iter().map(|status| status.name()).collect();
    let mut query = RunQuery {
        status: names.join(","),
        limit: limits::LIST_PAGE,
        ..RunQuery::default()
    };
    let mut runs = Vec::new();
    loop {
        let page = session.api().list(&query)?;
        let roots = page.runs.iter().filter(|run| run.parent.is_none());
        runs.extend(roots.map(|run| run.run));
        query.before = page.next;
        // All of a directory; of a server, which may have any number, the newest are enough.
        if query.before.is_none() || session.is_server() {
            break;
        }
    }
    runs.reverse();
    Ok(runs)
}

/// Says that runs from before go on too, in the directory that this process holds.
pub(crate) fn announce(session: &Session, others: usize, work: &Work, printer: &mut Printer) {
    if others > 0 && !work.json && !session.is_server() {
        let what = words::count(others as u64, "unfinished run");
        let verb = if others == 1 { "goes" } else { "go" };
        printer.notes(&[
            Line::default().with(DIM, format!("{what} of this directory {verb} on meanwhile"))
        ]);
    }
}

/// Says what was recorded, and that somebody else does the work.
pub(crate) fn recorded(session: Session, run: RunId, work: &Work, printer: &mut Printer) -> Ended {
    let holder = session.holder().cloned();
    let summary = session.api().wait(run, Duration::ZERO)?;
    let discarded = match summary.status {
        RunStatus::Discarded => session.api().view(run)?.failure,
        _ => None,
    };
    session.stop(Duration::ZERO);
    if work.json {
        printer.json(&summary)?;
        return Ok(Exit::Success);
    }
    let next = match (discarded, holder) {
        (Some(why), _) => why.message,
        (None, Some(holder)) => format!("{holder} does the work"),
        (None, None) => "`kapell resume` does the work".to_owned(),
    };
    let (sign, style) = paint::run(summary.status);
    printer.line(Line::default().with(style, sign).with(
        PLAIN,
        format!(
            " run {run} is {}: {next}",
            paint::word(summary.status.name())
        ),
    ))?;
    Ok(Exit::Success)
}

/// Follows runs until all have ended. Ctrl-C leaves, and pauses them if this process does the work.
pub(crate) fn to_the_end(
    mut session: Session,
    runs: Vec<RunId>,
    work: &Work,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let interrupt = Interrupt::listen()?;
    let mut following = Following {
        runs,
        work,
        config,
        progress: None,
    };
    let mut refused = 0;
    loop {
        match following.look(&session, &interrupt, printer) {
            Ok(Some(seen)) => return following.leave(session, &seen, printer),
            // The work of another process goes on, whoever looks.
            Ok(None) if session.holder().is_some() => {
                following.look_away(printer);
                return Ok(Exit::Interrupted);
            }
            Ok(None) => return Ok(following.pause(session, printer)),
            // Whoever held the directory has ended: what is left is ours now.
            Err(error)
                if matches!(session.holder(), Some(Holder::Process(_)))
                    && error.code == ErrorCode::StoreUnavailable =>
            {
                session = session::open(config, Need::Work(work.slots))?;
            }
            // Looking again does no harm.
            Err(error) if error.code.retryable() && refused < LOOKS => {
                refused += 1;
                std::thread::park_timeout(LINES);
            }
            Err(error) => return Err(error),
        }
    }
}

struct Following<'a> {
    runs: Vec<RunId>,
    work: &'a Work,
    config: &'a Config,
    progress: Option<Progress>,
}

impl Following<'_> {
    /// Shows progress until all runs have ended; none if somebody wants to leave.
    fn look(
        &mut self,
        session: &Session,
        interrupt: &Interrupt,
        printer: &mut Printer,
    ) -> Result<Option<Vec<RunView>>, Error> {
        let since = clock::now();
        let quiet = self.work.json;
        let progress = self
            .progress
            .get_or_insert_with(|| Progress::new(self.config, self.runs.len()));
        let mut open = self.runs.clone();
        loop {
            let pause = match words::between(since, clock::now()) {
                age if age < Duration::from_millis(300) => FIRST,
                _ if self.config.terminal => LIVE,
                age if age < Duration::from_secs(30) => LINES,
                _ => LAST,
            };
            if let Some(first) = open.first() {
                let summary = session.api().wait(*first, pause)?;
                if summary.status.ended() {
                    open.remove(0);
                }
            }
            if open.len() > 1 {
                let mut left = Vec::new();
                for run in &open {
                    if !session.api().wait(*run, Duration::ZERO)?.status.ended() {
                        left.push(*run);
                    }
                }
                open = left;
            }
            let over = open.is_empty();
            if over || !quiet {
                let views = self
                    .runs
                    .iter()
                    .take(SHOWN)
                    .map(|run| session.api().view(*run));
                let views = views.collect::<Result<Vec<_>, _>>()?;
                if !quiet {
                    progress.show(&views, clock::now(), self.config, printer)?;
                }
                if over {
                    return Ok(Some(views));
                }
            }
            if interrupt.asked() {
                return Ok(None);
            }
        }
    }

    /// All have ended: says how.
    fn leave(&self, session: Session, seen: &[RunView], printer: &mut Printer) -> Ended {
        let mut good = true;
        for run in &self.runs {
            good &= session.api().wait(*run, Duration::ZERO)?.status == RunStatus::Succeeded;
        }
        if self.work.json {
            match seen {
                [view] if self.runs.len() == 1 => printer.json(view)?,
                views => printer.json(&json!({ "runs": views }))?,
            }
        } else if let [view] = seen {
            end(&session, view, printer)?;
        } else {
            ends(seen, printer)?;
        }
        let left = unfinished(&session)?.len();
        if left > 0 && session.holder().is_none() && !self.work.json {
            let others = words::count(left as u64, "other run");
            let note = format!("{others} left unfinished here; to continue: kapell resume");
            printer.notes(&[Line::default().with(DIM, note)]);
        }
        session.stop(if left > 0 { LEAVING } else { Duration::ZERO });
        Ok(if good { Exit::Success } else { Exit::Failed })
    }

    /// Says how to look again.
    fn look_away(&self, printer: &mut Printer) {
        let what = match self.runs.as_slice() {
            [run] => format!("run {} goes on", words::short(*run)),
            runs => format!("{} go on", words::count(runs.len() as u64, "run")),
        };
        let next = match self.runs.as_slice() {
            [run] => format!("kapell show {}", words::short(*run)),
            _ => "kapell list".to_owned(),
        };
        printer.notes(&[
            Line::default(),
            Line::default().with(YELLOW, "‖ ").with(PLAIN, what),
            Line::default()
                .with(DIM, "  to look again: ")
                .with(CYAN, next),
        ]);
    }

    /// Pauses what is followed, gives running attempts time, and says how to go on.
    fn pause(&self, session: Session, printer: &mut Printer) -> Exit {
        let mut paused = Vec::new();
        for run in &self.runs {
            let asked = session.api().act(
                *run,
                &Action::Pause {
                    by: self.config.user.clone(),
                },
            );
            // What has just ended cannot be paused.
            if asked.is_ok() {
                paused.push(*run);
            }
        }
        let what = match paused.as_slice() {
            [run] => format!("run {} is paused", words::short(*run)),
            runs => format!("{} are paused", words::count(runs.len() as u64, "run")),
        };
        let next = match paused.as_slice() {
            [run] => format!("kapell resume {}", words::short(*run)),
            _ => "kapell resume".to_owned(),
        };
        let grace = format!(
            "  attempts under way have {} to end; Ctrl-C ends them now",
            words::count(GRACE.as_secs(), "second")
        );
        // All at once and first: a second Ctrl-C leaves no time to say anything.
        printer.notes(&[
            Line::default(),
            Line::default().with(YELLOW, "‖ ").with(PLAIN, what),
            Line::default()
                .with(DIM, "  to continue: ")
                .with(CYAN, next),
            Line::default().with(DIM, grace),
        ]);
        session.stop(GRACE);
        Exit::Interrupted
    }
}

/// The end of one run: how, its outputs or its errors, and what to do next.
fn end(session: &Session, view: &RunView, printer: &mut Printer) -> Result<(), Error> {
    let summary = &view.summary;
    let (sign, style) = paint::run(summary.status);
    let took = words::took(
        summary.started_at.or(Some(summary.created_at)),
        summary.ended_at,
        clock::now(),
    );
    let mut line = Line::default()
        .with(
            style,
            format!("{sign} {}", paint::word(summary.status.name())),
        )
        .with(
            DIM,
            format!(" in {}", took.map(words::span).unwrap_or_default()),
        );
    line.push(DIM, format!("  {}", tally(view)));
    printer.line(line)?;
    if summary.status == RunStatus::Succeeded {
        return outputs(&view.outputs, printer);
    }
    printer.lines(&failure::explain(session.api(), view)?)
}

/// How many steps and items came to what.
fn tally(view: &RunView) -> String {
    let [good, otherwise, _] = view.summary.counts;
    let of = |wanted: &[StepStatus]| {
        view.steps
            .iter()
            .filter(|step| wanted.contains(&step.status))
            .count() as u64
    };
    let items: u64 = view
        .steps
        .iter()
        .filter_map(|step| step.items.as_ref())
        .map(|items| u64::from(items.failed))
        .sum();
    let failed = (of(&[StepStatus::Failed, StepStatus::TimedOut]) + items).min(otherwise);
    let skipped = of(&[StepStatus::Skipped]).min(otherwise - failed);
    if otherwise == 0 {
        return words::count(good, "step");
    }
    let mut text = format!("{} succeeded", words::grouped(good));
    for (count, what) in [
        (failed, "failed"),
        (skipped, "skipped"),
        (otherwise - failed - skipped, "not run"),
    ] {
        if count > 0 {
            text += &format!(", {} {what}", words::grouped(count));
        }
    }
    text
}

/// The ends of several runs, a line each.
fn ends(views: &[RunView], printer: &mut Printer) -> Result<(), Error> {
    for view in views {
        let summary = &view.summary;
        let (sign, style) = paint::run(summary.status);
        let mut line = Line::default()
            .with(
                style,
                format!("{sign} {}", paint::word(summary.status.name())),
            )
            .with(
                PLAIN,
                format!("  {} {}", words::short(summary.run), summary.workflow),
            );
        if let Some(error) = &summary.error {
            line.push(DIM, format!("  {}", words::first_line(error)));
        }
        printer.line(line)?;
    }
    Ok(())
}

/// The outputs of a run, aligned.
pub(crate) fn outputs(outputs: &serde_json::Value, printer: &mut Printer) -> Result<(), Error> {
    let Some(outputs) = outputs.as_object().filter(|outputs| !outputs.is_empty()) else {
        return Ok(());
    };
    let width = outputs
        .keys()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut lines = vec![Line::default(), Line::default().with(BOLD, "Outputs")];
    for (name, value) in outputs {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let mut rows = text.lines();
        let mut line = Line::default().with(PLAIN, "  ").with(GREEN, name);
        line.pad(width + 4);
        lines.push(line.with(PLAIN, rows.next().unwrap_or_default()));
        lines.extend(rows.map(|row| {
            Line::default()
                .with(PLAIN, " ".repeat(width + 4))
                .with(PLAIN, row)
        }));
    }
    printer.lines(&lines)
}
