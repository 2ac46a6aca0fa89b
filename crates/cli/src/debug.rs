//! `kapell debug`: a prompt at which steps of a run stop, are looked at and changed, and go on.
//!
//! Commands come from standard input, a line each, so that a script can give them too. A command that
//! fails says why, and the next one is taken.

mod command;

use std::io::{BufRead, IsTerminal, Lines, StdinLock};
use std::time::Duration;

use kapell_api::client::Api;
use kapell_api::http::{Action, Breakpoint, Evaluate, RecordQuery, RunView, StepView};
use kapell_model::{Error, ErrorCode, RunId, RunStatus, StepStatus};
use kapell_node::clock;

use self::command::{Command, HELP};
use crate::args::Debug;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::paint::{self, BOLD, CYAN, DIM, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, breakpoint, item, tree, why, words};

/// Between two looks at a run that goes on.
const LOOK: Duration = Duration::from_millis(50);

/// How long attempts under way have when the prompt is left.
const LEAVING: Duration = Duration::from_secs(2);

pub(crate) fn debug(debug: &Debug, config: &Config, printer: &mut Printer) -> Ended {
    let (run, stepping) = stop_next(&debug.run, config)?;
    let session = session::open(config, Need::Work(None))?;
    let interrupt = Interrupt::listen()?;
    let mut prompt = Prompt {
        run,
        by: config.user.clone(),
        session: &session,
        interrupt,
        at: None,
    };
    let ended = prompt.go(printer);
    let left = prompt.leave(stepping);
    let elsewhere = session.holder().is_some();
    session.stop(LEAVING);
    ended?;
    let (status, stopped) = left?;
    if !status.ended() {
        let short = words::short(run);
        let text = match (stopped, elsewhere) {
            (true, true) => {
                format!("run {run} has stopped: `kapell continue {short}` lets it go on")
            }
            (true, false) => format!(
                "run {run} has stopped: `kapell continue {short}`, then `kapell resume`, lets it go on"
            ),
            (false, true) => format!("run {run} goes on: `kapell debug {short}` stops it again"),
            (false, false) => format!("run {run} is left: `kapell resume` goes on"),
        };
        printer.plain(text)?;
    }
    Ok(if status.ended() && status != RunStatus::Succeeded {
        Exit::Failed
    } else {
        Exit::Success
    })
}

/// Before anything works: the step that comes next is to stop, if none has stopped yet. Gives the run,
/// and whether every step stopped before.
fn stop_next(run: &str, config: &Config) -> Result<(RunId, bool), Error> {
    let session = session::open(config, Need::Record)?;
    let found = session.find(run).and_then(|run| {
        let view = session.api().view(run)?;
        let stopped = view.steps.iter().any(|step| step.stopped.is_some());
        let stepping = view.stepping;
        if !view.summary.status.ended() && !stopped {
            let action = Action::Breakpoints {
                by: config.user.clone(),
                breakpoints: view.breakpoints,
                stepping: true,
            };
            session.api().act(run, &action)?;
        }
        Ok((run, stepping))
    });
    session.close();
    found
}

struct Prompt<'s> {
    run: RunId,
    by: String,
    session: &'s Session,
    interrupt: Interrupt,
    /// The step that commands are about.
    at: Option<String>,
}

impl Prompt<'_> {
    fn api(&self) -> &dyn Api {
        self.session.api()
    }

    fn go(&mut self, printer: &mut Printer) -> Result<(), Error> {
        let view = self.settled()?;
        self.place(&view, printer)?;
        let asks = std::io::stdin().is_terminal();
        let mut lines = std::io::stdin().lock().lines();
        while let Some(line) = next(&mut lines, asks, printer)? {
            let command = match Command::read(&line) {
                Ok(Some(command)) => command,
                Ok(None) => continue,
                Err(error) => {
                    printer.error(&error);
                    continue;
                }
            };
            if matches!(command, Command::Quit) {
                return Ok(());
            }
            if let Err(error) = self.take(command, printer) {
                if printer.is_closed() {
                    return Err(error);
                }
                printer.error(&error);
            }
            if self.interrupt.asked() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, command: Command, printer: &mut Printer) -> Result<(), Error> {
        match command {
            Command::Help => printer.text(HELP),
            Command::Where => {
                let view = self.api().view(self.run)?;
                self.place(&view, printer)?;
                let steps = tree::steps(&view, clock::now());
                let steps: Vec<Line> = steps.into_iter().map(|(_, line)| line).collect();
                printer.lines(&steps)
            }
            Command::At(step) => {
                let view = self.api().view(self.run)?;
                let path = self.path(&step)?;
                let step = why::step_of(&view, &path, self.api())?;
                let line = headline(&step);
                self.at = Some(path);
                printer.line(line)
            }
            Command::Inputs(step) => self.inputs(step, printer),
            Command::Outputs(step) => self.outputs(step, printer),
            Command::Expression(expression) => {
                let of = Evaluate {
                    step: self.at.clone().unwrap_or_default(),
                    expression,
                };
                let found = self.api().evaluate(self.run, &of)?;
                printer.json(&found.value)
            }
            Command::SetParam(name, value) => {
                let action = Action::SetParam {
                    by: self.by.clone(),
                    name: name.clone(),
                    value: kapell_expr::Value::string(value),
                    text: true,
                };
                self.api().act(self.run, &action)?;
                let view = self.api().view(self.run)?;
                printer.plain(format!("params.{name} = {}", view.params[&name]))
            }
            Command::SetOutput(step, output) => {
                let step = self.named(step)?;
                let action = Action::SetOutput {
                    by: self.by.clone(),
                    groups: crate::config::groups(&self.by),
                    admin: false,
                    step,
                    output: kapell_expr::Value::from_json(&output),
                };
                self.api().act(self.run, &action)?;
                self.moved(printer)
            }
            Command::Next => self.let_go(None, true, printer),
            Command::Continue(step) => self.let_go(step, false, printer),
            Command::Break(None) => self.breakpoints(printer),
            Command::Break(Some(breakpoint)) => {
                let by = self.by.clone();
                let action = Action::AddBreakpoint { by, breakpoint };
                self.api().act(self.run, &action)?;
                self.breakpoints(printer)
            }
            Command::Clear(step) => {
                let by = self.by.clone();
                let action = Action::RemoveBreakpoints { by, step, at: None };
                self.api().act(self.run, &action)?;
                self.breakpoints(printer)
            }
            Command::Why => {
                let view = self.api().view(self.run)?;
                printer.lines(&why::lines(&view, self.session, clock::now()))
            }
            Command::Quit => Ok(()),
        }
    }

    /// Nobody steps through the run any more, unless somebody did before. How it is, and whether a step
    /// has stopped.
    fn leave(&self, stepping: bool) -> Result<(RunStatus, bool), Error> {
        let view = self.api().view(self.run)?;
        let status = view.summary.status;
        let stopped = view.steps.iter().any(|step| step.stopped.is_some());
        if !status.ended() && view.stepping != stepping {
            self.set(view.breakpoints, stepping)?;
        }
        Ok((status, stopped))
    }

    fn set(&self, breakpoints: Vec<Breakpoint>, stepping: bool) -> Result<(), Error> {
        let action = Action::Breakpoints {
            by: self.by.clone(),
            breakpoints,
            stepping,
        };
        self.api().act(self.run, &action).map(drop)
    }

    fn breakpoints(&self, printer: &mut Printer) -> Result<(), Error> {
        let view = self.api().view(self.run)?;
        let mut lines: Vec<Line> = view.breakpoints.iter().map(breakpoint::line).collect();
        if view.stepping {
            lines.push(Line::default().with(YELLOW, "  every step stops before it starts"));
        }
        if lines.is_empty() {
            lines
                .push(Line::default().with(DIM, "  no breakpoints beside those of the definition"));
        }
        printer.lines(&lines)
    }

    /// Lets steps go on: the one that is named, or all that stopped.
    fn let_go(
        &mut self,
        step: Option<String>,
        stepping: bool,
        printer: &mut Printer,
    ) -> Result<(), Error> {
        let view = self.api().view(self.run)?;
        let step = step.map(|step| self.path(&step)).transpose()?;
        if view.steps.iter().any(|step| step.stopped.is_some()) {
            let by = self.by.clone();
            let action = Action::Continue { by, step, stepping };
            self.api().act(self.run, &action)?;
        } else if !view.summary.status.ended() {
            // Nothing has stopped: it goes on by itself.
            self.set(view.breakpoints, stepping)?;
        }
        self.moved(printer)
    }

    /// Something was let go on: waits until it stops again.
    fn moved(&mut self, printer: &mut Printer) -> Result<(), Error> {
        let view = self.settled()?;
        self.place(&view, printer)
    }

    /// The run once it has ended, or one of its steps has stopped, or nothing of it moves.
    fn settled(&self) -> Result<RunView, Error> {
        loop {
            let view = self.api().view(self.run)?;
            let stopped = view.steps.iter().any(|step| step.stopped.is_some());
            if stopped || !moves(&view) || self.interrupt.asked() {
                return Ok(view);
            }
            self.api().wait(self.run, LOOK)?;
        }
    }

    /// Says where the run stands, and turns to a step that stopped.
    fn place(&mut self, view: &RunView, printer: &mut Printer) -> Result<(), Error> {
        let stopped: Vec<&StepView> = view
            .steps
            .iter()
            .filter(|step| step.stopped.is_some())
            .collect();
        let here = |path: &String| stopped.iter().any(|step| step.path == *path);
        if !self.at.as_ref().is_some_and(here) {
            self.at = stopped.first().map(|step| step.path.clone());
        }
        let mut lines = vec![tree::head(view, clock::now())];
        lines.extend(stopped.iter().map(|step| headline(step)));
        if stopped.is_empty() && !view.summary.status.ended() {
            lines.extend(why::lines(view, self.session, clock::now()));
        }
        printer.lines(&lines)
    }

    /// The step that has stopped, and that commands are about.
    fn stopped(&self) -> Result<String, Error> {
        self.at.clone().ok_or_else(|| {
            Error::new(
                ErrorCode::NotAllowedNow,
                "no step is stopped at a breakpoint",
            )
            .hint("name a step, or `next` goes on to the next one")
        })
    }

    /// The path of a step or item that is named, or of the step that has stopped.
    fn named(&self, step: Option<String>) -> Result<String, Error> {
        match step {
            Some(step) => self.path(&step),
            None => self.stopped(),
        }
    }

    fn path(&self, step: &str) -> Result<String, Error> {
        item::path(self.api(), self.run, step, None)
    }

    fn inputs(&self, step: Option<String>, printer: &mut Printer) -> Result<(), Error> {
        let path = self.named(step)?;
        let view = self.api().view(self.run)?;
        let step = why::step_of(&view, &path, self.api())?;
        let Some(stopped) = &step.stopped else {
            let message = format!("`{path}` is not stopped at a breakpoint");
            return Err(Error::new(ErrorCode::NotAllowedNow, message)
                .hint("inputs are shown of steps that stopped; `expr` evaluates anywhere"));
        };
        let mut lines: Vec<Line> = stopped
            .inputs
            .iter()
            .map(|input| {
                let line = Line::default().with(BOLD, &input.name).with(DIM, " = ");
                match &input.error {
                    Some(error) => line.with(RED, error),
                    None => line.with(PLAIN, input.value.to_string()),
                }
            })
            .collect();
        if lines.is_empty() {
            lines.push(Line::default().with(DIM, "it takes nothing that is evaluated"));
        }
        printer.lines(&lines)
    }

    fn outputs(&self, step: Option<String>, printer: &mut Printer) -> Result<(), Error> {
        let view = self.api().view(self.run)?;
        let named = step.map(|step| self.path(&step)).transpose()?;
        let path = named.or_else(|| self.at.clone());
        let stopped = path.as_ref().and_then(|path| {
            let step = view.steps.iter().find(|step| step.path == *path)?;
            step.stopped.as_ref()?.output.clone()
        });
        if let (Some(path), Some(output)) = (&path, stopped) {
            let line = Line::default().with(BOLD, path).with(DIM, " = ");
            return printer.line(line.with(PLAIN, output.to_string()));
        }
        let record = self.api().record(
            self.run,
            &RecordQuery {
                step: path.clone(),
                at: None,
            },
        )?;
        let mut lines = Vec::new();
        record.walk(&mut |step| {
            let wanted = path.as_ref().is_none_or(|path| {
                step.path == *path || view.steps.iter().all(|of| of.path != *path)
            });
            if let (true, Some(output)) = (wanted, &step.output) {
                let line = Line::default().with(BOLD, &step.path).with(DIM, " = ");
                let text = words::shortened(&output.to_json().to_string(), 2_000);
                lines.push(line.with(PLAIN, text));
            }
        });
        if lines.is_empty() {
            let text = match path {
                Some(path) => format!("`{path}` has no output yet"),
                None => "no step has an output yet".to_owned(),
            };
            lines.push(Line::default().with(DIM, text));
        }
        printer.lines(&lines)
    }
}

/// The next line of the input; a prompt goes before it on a terminal.
fn next(
    lines: &mut Lines<StdinLock<'_>>,
    asks: bool,
    printer: &mut Printer,
) -> Result<Option<String>, Error> {
    if asks {
        printer.text("debug> ")?;
    }
    lines.next().transpose().map_err(|error| {
        let message = format!("the input cannot be read: {error}");
        Error::new(ErrorCode::BadRequest, message)
    })
}

/// True while something happens in the run by itself.
fn moves(view: &RunView) -> bool {
    if matches!(view.summary.status, RunStatus::Queued | RunStatus::Paused)
        || view.summary.status.ended()
    {
        return false;
    }
    let inside = |place: usize, step: &StepView| {
        let next = view.steps.get(place + 1);
        next.is_some_and(|next| next.depth > step.depth)
    };
    let mut known = false;
    for (place, step) in view.steps.iter().enumerate() {
        known |= !step.status.ended();
        // A container runs as long as what is inside it waits.
        let works = matches!(
            step.status,
            StepStatus::Queued
                | StepStatus::Running
                | StepStatus::Cancelling
                | StepStatus::Retrying
        );
        if works && !inside(place, step) {
            return true;
        }
    }
    // Every step has ended: the run is about to.
    !known
}

fn headline(step: &StepView) -> Line {
    let mut line = if let Some(stopped) = &step.stopped {
        let at = match stopped.at.as_str() {
            "after" => "after it ran",
            "on_failure" => "after it failed",
            _ => "before it starts",
        };
        let line = Line::default().with(CYAN, "stopped ");
        let why = if stopped.why.is_empty() {
            String::new()
        } else {
            format!(", at a breakpoint {}", stopped.why)
        };
        let line = line.with(BOLD, &step.path);
        line.with(PLAIN, format!(" {at}")).with(DIM, why)
    } else {
        let line = Line::default().with(BOLD, &step.path);
        line.with(PLAIN, format!(" is {}", paint::word(step.status.name())))
    };
    if let Some(error) = &step.error {
        line.push(RED, format!(": {}", words::first_line(&error.message)));
    }
    line
}
