//! `kapell breakpoint`, `kapell continue`, `kapell set-param`: where runs stop, beside what their
//! definitions say, and how they go on.

use kapell_api::client::Api;
use kapell_api::http::{
    Action, AddBreakpoint, Breakpoint, RemoveBreakpoints, RunQuery, WorkflowBreakpoints,
};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, RunId, RunStatus, limits};
use serde_json::{Value as Json, json};

use crate::args::{
    self, BreakpointAdd, BreakpointList, BreakpointRemove, Continue, SetParam, Whose,
};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, item, words};

/// Whose breakpoints are meant.
#[derive(Clone)]
enum Of {
    Run(RunId),
    Workflow(String, Option<u32>),
    /// Every workflow, those that come later too.
    All,
}

/// Breakpoints that were set, and whose they are.
struct Held {
    of: Of,
    all: Vec<Breakpoint>,
    /// Of a run: every step stops.
    stepping: bool,
}

/// A change of breakpoints.
enum Change<'c> {
    Add(Breakpoint),
    Remove(&'c BreakpointRemove),
}

impl Of {
    /// What is meant.
    fn find(whose: &Whose, session: &Session) -> Result<Self, Error> {
        Ok(match (&whose.run, &whose.workflow) {
            (Some(run), _) => Self::Run(session.find(run)?),
            (None, Some(workflow)) => Self::Workflow(workflow.clone(), whose.version),
            (None, None) => Self::All,
        })
    }

    /// The workflow and the version that are named, if any is.
    fn named(&self) -> (Option<&str>, Option<u32>) {
        match self {
            Self::Workflow(workflow, version) => (Some(workflow), *version),
            Self::Run(_) | Self::All => (None, None),
        }
    }

    fn held(&self, api: &dyn Api) -> Result<Held, Error> {
        Ok(match self {
            Self::Run(run) => {
                let view = api.view(*run)?;
                Held {
                    of: self.clone(),
                    all: view.breakpoints,
                    stepping: view.stepping,
                }
            }
            Self::Workflow(..) | Self::All => {
                let (workflow, version) = self.named();
                self.of_workflow(api.breakpoints(workflow, version)?)
            }
        })
    }

    fn of_workflow(&self, found: WorkflowBreakpoints) -> Held {
        Held {
            of: self.clone(),
            all: found.breakpoints,
            stepping: false,
        }
    }

    fn change(&self, change: &Change<'_>, api: &dyn Api, by: &str) -> Result<Held, Error> {
        let by = by.to_owned();
        let (workflow, version) = self.named();
        match (self, change) {
            (Self::Run(run), Change::Add(breakpoint)) => {
                let breakpoint = breakpoint.clone();
                api.act(*run, &Action::AddBreakpoint { by, breakpoint })?;
                self.held(api)
            }
            (Self::Run(run), Change::Remove(gone)) => {
                let (step, at) = (gone.step.clone(), gone.stops.at());
                api.act(*run, &Action::RemoveBreakpoints { by, step, at })?;
                self.held(api)
            }
            (Self::Workflow(..) | Self::All, Change::Add(breakpoint)) => {
                let of = AddBreakpoint {
                    version,
                    breakpoint: breakpoint.clone(),
                    by,
                };
                Ok(self.of_workflow(api.add_breakpoint(workflow, &of)?))
            }
            (Self::Workflow(..) | Self::All, Change::Remove(gone)) => {
                let which = RemoveBreakpoints {
                    version,
                    step: gone.step.clone(),
                    at: gone.stops.at(),
                    by,
                };
                Ok(self.of_workflow(api.remove_breakpoints(workflow, &which)?))
            }
        }
    }
}

impl Held {
    fn of(&self) -> String {
        match &self.of {
            Of::Run(run) => format!("run {}", words::short(*run)),
            Of::All => "new runs of every workflow".to_owned(),
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

    fn json(&self) -> Json {
        let mut json = json!({ "breakpoints": self.all, "stepping": self.stepping });
        match &self.of {
            Of::Run(run) => json["run"] = json!(run.to_string()),
            Of::All => json["all_workflows"] = json!(true),
            Of::Workflow(name, version) => {
                json["workflow"] = json!(name);
                json["version"] = json!(version);
            }
        }
        json
    }
}

/// Runs of what is meant that have not ended.
fn active_runs(api: &dyn Api, whose: &Whose) -> Result<Vec<Of>, Error> {
    let open = [
        RunStatus::Queued,
        RunStatus::Running,
        RunStatus::Paused,
        RunStatus::Cancelling,
    ];
    let mut query = RunQuery {
        workflow: whose.workflow.clone(),
        status: open.map(RunStatus::name).join(","),
        limit: limits::LIST_PAGE,
        ..RunQuery::default()
    };
    let mut runs = Vec::new();
    loop {
        let page = api.list(&query)?;
        let wanted = page
            .runs
            .iter()
            .filter(|run| whose.version.is_none_or(|version| run.version == version));
        runs.extend(wanted.map(|run| Of::Run(run.run)));
        query.before = page.next;
        if query.before.is_none() {
            return Ok(runs);
        }
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
    if let Some(by) = &of.by {
        line.push(DIM, format!("  by {by}"));
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
        args::Breakpoint::Add(new) => add(new, config, printer),
        args::Breakpoint::Remove(gone) => {
            let how = (gone.active, gone.json);
            change(&gone.whose, &Change::Remove(gone), how, config, printer)
        }
    }
}

fn add(new: &BreakpointAdd, config: &Config, printer: &mut Printer) -> Ended {
    let wanted = Breakpoint {
        step: new.step.clone().filter(|step| step != "*"),
        at: new.stops.at().unwrap_or_default(),
        when: new.when.clone(),
        by: None,
    };
    let how = (new.active, new.json);
    change(&new.whose, &Change::Add(wanted), how, config, printer)
}

/// Changes breakpoints of all that are meant. Of several those count that have such a step and have not
/// ended.
fn change(
    whose: &Whose,
    change: &Change<'_>,
    (active, json): (bool, bool),
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let changed = Of::find(whose, &session).and_then(|of| {
        let mut all = match of {
            Of::Workflow(..) | Of::All if active => active_runs(session.api(), whose)?,
            _ => Vec::new(),
        };
        all.push(of);
        let several = all.len() > 1;
        let (mut changed, mut refused) = (Vec::new(), None);
        for of in all {
            match of.change(change, session.api(), &config.user) {
                Ok(held) => changed.push(held),
                Err(error) if several && does_not_apply(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if changed.is_empty() => Err(error),
            Some(_) | None => Ok(changed),
        }
    });
    session.close();
    let changed = changed?;
    if json {
        let all: Vec<Json> = changed.iter().map(Held::json).collect();
        printer.json(&json!({ "changed": all }))?;
    } else {
        let lines: Vec<Line> = changed.iter().flat_map(Held::lines).collect();
        printer.lines(&lines)?;
    }
    Ok(Exit::Success)
}

/// True for what is said of a run or workflow that a change of several does not concern.
fn does_not_apply(error: &Error) -> bool {
    matches!(
        error.code,
        ErrorCode::StepNotFound | ErrorCode::NotAllowedNow | ErrorCode::BadRequest
    )
}

fn list(which: &BreakpointList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let held = Of::find(&which.whose, &session).and_then(|of| of.held(session.api()));
    session.close();
    let held = held?;
    if which.json {
        printer.json(&held.json())?;
    } else {
        printer.lines(&held.lines())?;
    }
    Ok(Exit::Success)
}

/// `kapell continue`
pub(crate) fn go_on(which: &Continue, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Record)?;
    let run = session.find(&which.run)?;
    let of = |step: &String| item::path(session.api(), run, step, which.item.as_deref());
    let step = which.step.as_ref().map(of).transpose()?;
    let action = Action::Continue {
        by: config.user.clone(),
        step: step.clone(),
        stepping: which.next,
    };
    session.api().act(run, &action)?;
    let elsewhere = session.holder().is_some();
    session.close();
    if which.json {
        printer.json(&json!({ "run": run.to_string(), "stepping": which.next }))?;
        return Ok(Exit::Success);
    }
    let what = step.as_deref().unwrap_or("what had stopped");
    let mut text = format!("{what} of run {run} goes on");
    if which.next {
        text += ", and the next step stops";
    }
    if !elsewhere {
        text += ": `kapell resume` does the work";
    }
    printer.plain(text)?;
    Ok(Exit::Success)
}

/// `kapell set-param`
pub(crate) fn set_param(set: &SetParam, config: &Config, printer: &mut Printer) -> Ended {
    let Some((name, value)) = set.param.split_once('=') else {
        let message = format!("`{}` has no `=`", set.param);
        return Err(Error::new(ErrorCode::BadParams, message).hint("as in `rows=100`"));
    };
    let name = name.trim();
    let session = session::open(config, Need::Record)?;
    let run = session.find(&set.run)?;
    let action = Action::SetParam {
        by: config.user.clone(),
        name: name.to_owned(),
        value: Value::string(value),
        text: true,
    };
    session.api().act(run, &action)?;
    let view = session.api().view(run)?;
    session.close();
    let value = &view.params[name];
    if set.json {
        printer.json(&json!({ "run": run.to_string(), "name": name, "value": value }))?;
    } else {
        printer.plain(format!("params.{name} of run {run} is {value}"))?;
    }
    Ok(Exit::Success)
}
