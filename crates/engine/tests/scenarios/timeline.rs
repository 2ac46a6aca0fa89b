//! What followed, as text: status changes with their times.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::SignedDuration;
use kapell_api::task::Place;
use kapell_engine::Plan;
use kapell_engine::event::{Event, Fact, UnitRef};
use kapell_engine::run::State;
use kapell_engine::run::state::{Inner, TimerKind, Unit};
use kapell_engine::run::waiting::Waiting;
use kapell_expr::{Value, format_duration};
use kapell_model::{RunId, StepStatus, Time};

/// Characters of a line's text that are shown.
const TEXT_CHARS: usize = 150;

/// What followed.
#[derive(Default)]
pub(crate) struct Timeline {
    lines: Vec<Line>,
    /// The last change of each thing, as its line.
    last: BTreeMap<(usize, String), usize>,
    /// Numbers of runs, from 1.
    pub numbers: BTreeMap<RunId, usize>,
}

struct Line {
    at: SignedDuration,
    run: usize,
    path: String,
    text: String,
    /// Something else followed in the same instant.
    passed: bool,
}

/// A run as it is after an event.
pub(crate) struct After<'a> {
    pub run: RunId,
    pub state: &'a State,
    pub plan: &'a Plan,
}

impl Timeline {
    /// Notes a change. Of several changes of one thing in one instant only the last stays.
    pub(crate) fn note(
        &mut self,
        at: SignedDuration,
        run: RunId,
        path: &str,
        text: impl Into<String>,
    ) {
        let number = self.numbers.get(&run).copied().unwrap_or(0);
        let text = text.into();
        let last = self
            .last
            .insert((number, path.to_owned()), self.lines.len());
        if let Some(line) = last.map(|last| &mut self.lines[last]) {
            if line.text == text {
                self.last
                    .insert((number, path.to_owned()), last.unwrap_or_default());
                return;
            }
            line.passed = line.at == at;
        }
        self.lines.push(Line {
            at,
            run: number,
            path: path.to_owned(),
            text,
            passed: false,
        });
    }

    /// Notes something that is no status.
    pub(crate) fn say(
        &mut self,
        at: SignedDuration,
        run: RunId,
        path: &str,
        text: impl Into<String>,
    ) {
        let run = self.numbers.get(&run).copied().unwrap_or(0);
        let text = text.into();
        self.lines.push(Line {
            at,
            run,
            path: path.to_owned(),
            text,
            passed: false,
        });
    }

    fn with_numbers(&self, mut text: String) -> String {
        for (run, number) in &self.numbers {
            let id = run.to_string();
            if text.contains(&id) {
                text = text.replace(&id, &format!("#{number}"));
            }
        }
        match text.char_indices().nth(TEXT_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    /// Notes what an event of a run changed.
    pub(crate) fn event(&mut self, at: SignedDuration, event: &Event, after: &After<'_>) {
        let Some(fact) = &event.fact else { return };
        let run = after.run;
        match fact {
            Fact::RunCreated(created) => {
                let mut text = "queued".to_owned();
                if let Some(parent) = &after.state.meta.parent {
                    let _ = write!(text, " (child of {})", parent.run);
                }
                if let Some(fork) = after.state.meta.forked_from {
                    let kept = created.fork.as_ref().map_or(0, |fork| fork.kept.len());
                    let _ = write!(text, " (fork of {fork}, {kept} steps kept)");
                }
                self.note(at, run, "run", text);
            }
            Fact::RunStarted(_)
            | Fact::RunResumed(_)
            | Fact::RunPaused(_)
            | Fact::RunDiscarded(_)
            | Fact::RunReopened(_)
            | Fact::CancelRequested(_)
            | Fact::RunEnded(_) => self.note(at, run, "run", run_text(after)),
            Fact::PriorityChanged(priority) => {
                self.say(
                    at,
                    run,
                    "run",
                    format!("has priority {}", priority.priority),
                );
            }
            Fact::UnitReady(fact) => self.unit(at, fact.unit, after),
            Fact::AttemptStarted(fact) => self.unit(at, fact.unit, after),
            Fact::AttemptEnded(fact) => self.unit(at, fact.unit, after),
            Fact::UnitEnded(fact) => self.unit(at, fact.unit, after),
            Fact::ForeachExpanded(fact) => self.unit(at, fact.unit, after),
            Fact::ScopeOpened(fact) => {
                if let Some(unit) = fact.unit {
                    self.unit(at, unit, after);
                }
            }
            Fact::WaitStarted(fact) => self.unit(at, fact.unit, after),
            Fact::ChildStarted(fact) => self.unit(at, fact.unit, after),
            Fact::LockRequested(fact) => self.unit(at, fact.unit, after),
            Fact::LockGranted(unit) | Fact::LocksReturned(unit) => self.unit(at, *unit, after),
            Fact::HandlingStarted(fact) => self.unit(at, fact.unit, after),
            Fact::UnitStopping(fact) => self.unit(at, fact.unit, after),
            Fact::LoopWaiting(fact) => self.unit(at, fact.unit, after),
            Fact::UnitRetrying(fact) => self.unit(at, fact.unit, after),
            Fact::ItemsEnded(fact) => {
                let status = u8::try_from(fact.status)
                    .ok()
                    .and_then(StepStatus::from_number);
                for item in fact.from..fact.to {
                    let place = Place {
                        item,
                        ..fact.unit.into()
                    };
                    let path = after.state.path(after.plan, place);
                    self.note(at, run, &path, status.unwrap_or_default().name());
                }
            }
            Fact::AwaitStarted(fact) => self.unit(at, fact.unit, after),
            Fact::ApprovalAsked(fact) => self.unit(at, fact.unit, after),
            Fact::ApprovalGiven(fact) => self.unit(at, fact.unit, after),
            Fact::SignalsSent(fact) => {
                self.unit(at, fact.unit, after);
                let path = after.state.path(after.plan, fact.unit.into());
                for sent in &fact.sent {
                    self.say(at, run, &path, format!("sends `{}`", sent.signal));
                }
            }
            Fact::BreakReached(fact) => self.unit(at, fact.unit, after),
            Fact::BreakPassed(fact) => self.unit(at, fact.unit, after),
            Fact::ParamChanged(fact) => {
                let value = fact.value.value().to_json();
                self.say(at, run, "run", format!("has `{}` {value}", fact.name));
            }
            Fact::DeadlineSet(fact) => {
                let text = match after.state.deadline.as_ref() {
                    Some(deadline) => format!("should end by {}", deadline.at),
                    None => format!("has no deadline: {}", fact.error),
                };
                self.say(at, run, "run", text);
            }
            Fact::DeadlineAtRisk(_) => {
                self.say(at, run, "run", "will probably miss its deadline".to_owned());
            }
            Fact::DeadlineMissed(_) => {
                self.say(at, run, "run", "missed its deadline".to_owned());
            }
            Fact::BreakpointsChanged(_)
            | Fact::DeadlineEstimated(_)
            | Fact::StepsEnded(_)
            | Fact::PageClosed(_)
            | Fact::ScopeStopped(_)
            | Fact::ForeachStopped(_) => {}
        }
    }

    fn unit(&mut self, at: SignedDuration, unit: UnitRef, after: &After<'_>) {
        let place: Place = unit.into();
        let path = after.state.path(after.plan, place);
        let text = match after.state.unit(place) {
            Some(unit) => unit_text(place, unit, after),
            None => "?".to_owned(),
        };
        self.note(at, after.run, &path, text);
    }

    /// The lines, in columns. Neighbours that are items of one step and changed alike are one line.
    pub(crate) fn text(&self) -> String {
        let several = self.numbers.len() > 1;
        let mut rows: Vec<(String, String, String)> = Vec::new();
        let mut from = 0;
        let lines: Vec<&Line> = self.lines.iter().filter(|line| !line.passed).collect();
        while from < lines.len() {
            let line = lines[from];
            let mut to = from + 1;
            while to < lines.len() && follows(lines[to - 1], lines[to]) {
                to += 1;
            }
            let mut path = line.path.clone();
            if to - from > 1
                && let (Some((base, first)), Some((_, last))) =
                    (item(&line.path), item(&lines[to - 1].path))
            {
                path = format!("{base}[{first}..{last}]");
            }
            if several {
                path = format!("#{} {path}", line.run);
            }
            rows.push((
                format_duration(line.at),
                path,
                self.with_numbers(line.text.clone()),
            ));
            from = to;
        }
        let width = |column: fn(&(String, String, String)) -> &String| {
            rows.iter()
                .map(|row| column(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (times, paths) = (width(|row| &row.0), width(|row| &row.1));
        let mut text = String::new();
        for (at, path, what) in &rows {
            let _ = writeln!(text, "{at:<times$}  {path:<paths$}  {what}");
        }
        text
    }
}

fn item(path: &str) -> Option<(&str, u32)> {
    let (base, item) = path.strip_suffix(']')?.rsplit_once('[')?;
    Some((base, item.parse().ok()?))
}

fn follows(before: &Line, line: &Line) -> bool {
    before.at == line.at
        && before.run == line.run
        && before.text == line.text
        && item(&before.path)
            .zip(item(&line.path))
            .is_some_and(|(before, line)| before.0 == line.0 && before.1 + 1 == line.1)
}

fn run_text(after: &After<'_>) -> String {
    let state = after.state;
    let mut text = state.status.name().to_owned();
    if let Some(cancel) = state.cancel.as_ref().filter(|_| !state.ended()) {
        let _ = write!(text, " ({})", cancel.reason);
    }
    if !state.outputs.is_null() {
        let _ = write!(text, " {}", shown(&state.outputs));
    }
    if let Some(error) = state.error.as_ref().filter(|_| state.ended()) {
        if !error.step.is_empty() {
            let _ = write!(text, ": {}", error.step);
        }
        let _ = write!(text, ": {}", error.error.message);
    }
    text
}

fn unit_text(place: Place, unit: &Unit, after: &After<'_>) -> String {
    let mut text = unit.status.name().to_owned();
    let step = after.state.step(place.scope, place.step);
    let foreach = step
        .and_then(|step| step.foreach.as_ref())
        .filter(|_| place.item == Place::NO_ITEM);
    let until = |kind| after.state.timers.get(place, kind);
    let from_start = |at: Time| format_duration(at.since(super::world::BEGIN));
    let error = unit.error.as_deref();
    match unit.status {
        StepStatus::Running => match (&unit.inner, foreach) {
            (Inner::Child(child), _) => {
                let _ = write!(text, " ({child})");
            }
            (Inner::Handler(..), _) => text.push_str(" (its handler)"),
            (_, Some(foreach)) => {
                let _ = write!(text, " ({} items)", foreach.count);
            }
            (Inner::None, None) if unit.attempts > 0 => {
                let alone = if unit.deliveries > 0 { ", alone" } else { "" };
                let _ = write!(text, " (try {}{alone})", unit.attempts + 1);
            }
            (Inner::None | Inner::Scope(_), None) => {}
        },
        StepStatus::Waiting => {
            if let Some(waits) = after.state.waits.get(&place) {
                match waits {
                    Waiting::Signal { signal, .. } => {
                        let _ = write!(text, " (for the signal `{signal}`)");
                    }
                    Waiting::Approval { given, .. } => {
                        let _ = write!(text, " (for people; {} said yes)", given.len());
                    }
                    Waiting::Break { at, .. } => {
                        let _ = write!(text, " (stopped {})", at.name());
                    }
                }
            } else if let Some(name) = after
                .state
                .locks
                .get(&place)
                .and_then(|locks| locks.asked.as_ref())
            {
                let _ = write!(text, " (for `{name}`)");
            } else if let Some(at) = [TimerKind::Wait, TimerKind::NotBefore, TimerKind::Iteration]
                .into_iter()
                .find_map(until)
            {
                let _ = write!(text, " (until {})", from_start(at));
            }
        }
        StepStatus::Retrying => {
            let at = until(TimerKind::Retry).map(from_start).unwrap_or_default();
            let message = error.map_or("", |error| &error.message);
            let _ = write!(text, " (at {at}): {message}");
        }
        StepStatus::Succeeded | StepStatus::Cached => {
            if !unit.output.is_null() {
                let _ = write!(text, " {}", shown(&unit.output));
            }
            if let Some(foreach) = foreach
                && foreach.good < foreach.count
            {
                let _ = write!(text, " ({} of {} items)", foreach.good, foreach.count);
            }
        }
        StepStatus::Skipped
        | StepStatus::Failed
        | StepStatus::UpstreamFailed
        | StepStatus::TimedOut
        | StepStatus::Cancelled => {
            if let Some(error) = error {
                let known = [
                    "exit_code",
                    "skipped",
                    "upstream_failed",
                    "not_started",
                    "fail",
                    "cancelled",
                ];
                if !known.contains(&error.reason.as_str()) {
                    let _ = write!(text, " [{}]", error.reason);
                }
                let _ = write!(text, ": {}", error.message);
            }
        }
        StepStatus::Pending | StepStatus::Queued | StepStatus::Cancelling => {}
    }
    text
}

/// A value as JSON, a stored one as its size.
fn shown(value: &Value) -> String {
    match value {
        Value::Blob(blob) => format!("<{} bytes>", blob.size),
        value => value.to_json().to_string(),
    }
}
