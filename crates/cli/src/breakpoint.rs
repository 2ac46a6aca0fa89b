//! `kapell breakpoint`: where runs stop, beside what their definitions say.

use kapell_api::client::Api;
use kapell_api::http::{Action, BreakAt, Breakpoint, WorkflowBreakpoints};
use kapell_model::{Error, ErrorCode, RunId};

use crate::args::{self, BreakpointAdd, BreakpointList, BreakpointRemove, Whose};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, words};

/// Breakpoints that were set, and whose they are.
struct Held {
    of: Of,
    all: Vec<Breakpoint>,
    /// Of a run: every step stops.
    stepping: bool,
}

enum Of {
    Run(RunId),
    Workflow(String, Option<u32>),
}

impl Held {
    fn read(whose: &Whose, session: &Session) -> Result<Self, Error> {
        if let Some(run) = &whose.run {
            let run = session.find(run)?;
            let view = session.api().view(run)?;
            return Ok(Self {
                of: Of::Run(run),
                all: view.breakpoints,
                stepping: view.stepping,
            });
        }
        let workflow = whose.workflow.clone().unwrap_or_default();
        let found = session.api().breakpoints(&workflow, whose.version)?;
        Ok(Self {
            of: Of::Workflow(workflow, whose.version),
            all: found.breakpoints,
            stepping: false,
        })
    }

    fn write(&self, api: &dyn Api, by: &str) -> Result<(), Error> {
        match &self.of {
            Of::Run(run) => {
                let action = Action::Breakpoints {
                    by: by.to_owned(),
                    breakpoints: self.all.clone(),
                    stepping: self.stepping,
                };
                api.act(*run, &action).map(drop)
            }
            Of::Workflow(workflow, version) => {
                let wanted = WorkflowBreakpoints {
                    version: *version,
                    breakpoints: self.all.clone(),
                    by: by.to_owned(),
                };
                api.set_breakpoints(workflow, &wanted).map(drop)
            }
        }
    }

    fn of(&self) -> String {
        match &self.of {
            Of::Run(run) => format!("run {}", words::short(*run)),
            Of::Workflow(name, None) => format!("new runs of {name}"),
            Of::Workflow(name, Some(version)) => format!("new runs of {name} v{version}"),
        }
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::default().with(DIM, self.of())];
        if self.stepping {
            lines.push(Line::default().with(YELLOW, "  every step stops before it starts"));
        }
        lines.extend(self.all.iter().map(line));
        if lines.len() == 1 {
            lines
                .push(Line::default().with(DIM, "  no breakpoints beside those of the definition"));
        }
        lines
    }
}

/// A breakpoint in one line.
pub(crate) fn line(of: &Breakpoint) -> Line {
    let mut line = Line::default().with(PLAIN, "  ");
    line.push(BOLD, of.step.as_deref().unwrap_or("every step"));
    line.push(PLAIN, format!("  {}", of.at.name()));
    if let Some(when) = &of.when {
        line.push(DIM, format!("  when {when}"));
    }
    line
}

pub(crate) fn breakpoint(
    command: &args::Breakpoint,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    match command {
        args::Breakpoint::List(which) => list(which, config, printer),
        args::Breakpoint::Add(new) => change(&new.whose, config, printer, |held| {
            let wanted = wanted(new);
            if !held.all.contains(&wanted) {
                held.all.push(wanted);
            }
            Ok(())
        }),
        args::Breakpoint::Remove(gone) => {
            change(&gone.whose, config, printer, |held| remove(held, gone))
        }
    }
}

fn wanted(new: &BreakpointAdd) -> Breakpoint {
    Breakpoint {
        step: new.step.clone(),
        at: if new.on_failure {
            BreakAt::OnFailure
        } else if new.after {
            BreakAt::After
        } else {
            BreakAt::Before
        },
        when: new.when.clone(),
    }
}

fn remove(held: &mut Held, gone: &BreakpointRemove) -> Result<(), Error> {
    let before = held.all.len();
    match &gone.step {
        Some(step) => held.all.retain(|of| of.step.as_ref() != Some(step)),
        None => held.all.clear(),
    }
    match &gone.step {
        Some(step) if held.all.len() == before => Err(Error::new(
            ErrorCode::BadRequest,
            format!("{} have no breakpoint at `{step}`", held.of()),
        )
        .hint("`kapell breakpoint list` lists them")),
        _ => Ok(()),
    }
}

fn change(
    whose: &Whose,
    config: &Config,
    printer: &mut Printer,
    how: impl FnOnce(&mut Held) -> Result<(), Error>,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let changed = Held::read(whose, &session).and_then(|mut held| {
        how(&mut held)?;
        held.write(session.api(), &config.user)?;
        Ok(held)
    });
    session.close();
    printer.lines(&changed?.lines())?;
    Ok(Exit::Success)
}

fn list(which: &BreakpointList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let held = Held::read(&which.whose, &session);
    session.close();
    let held = held?;
    if which.json {
        let json = serde_json::json!({ "breakpoints": held.all, "stepping": held.stepping });
        printer.json(&json)?;
    } else {
        printer.lines(&held.lines())?;
    }
    Ok(Exit::Success)
}
