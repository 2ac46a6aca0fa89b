//! Commands that do something to a run that is there.

use kapell_api::http::{Action, Dismissal};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, RunId, RunStatus};
use std::time::Duration;

use crate::args::{
    Bulk, BulkVerb, Cancel, Dismiss, Follow, Fork, One, Priority, Restart, Resume, SetOutput, Skip,
    Work,
};
use crate::config::{self, Config};
use crate::paint::{self, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, bulk, follow, item, params, words};

/// How long a cancelled run that has nothing more to do may take to say so.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) fn cancel(cancel: &Cancel, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Record)?;
    let run = session.find(&cancel.run)?;
    let action = Action::Cancel {
        by: config.user.clone(),
        reason: cancel.reason.clone(),
        now: cancel.now,
    };
    session.api().act(run, &action)?;
    let summary = session.api().wait(run, SETTLE)?;
    if cancel.json {
        session.stop(Duration::ZERO);
        printer.json(&summary)?;
        return Ok(Exit::Success);
    }
    let (sign, style) = paint::run(summary.status);
    let mut line = Line::default().with(style, sign).with(
        PLAIN,
        format!(" run {run} is {}", paint::word(summary.status.name())),
    );
    if summary.status == RunStatus::Cancelling {
        line.push(
            PLAIN,
            match session.holder() {
                Some(_) => ": its attempts are being stopped, then `finally` runs",
                None => ": `finally` is left to run, `kapell resume` runs it",
            },
        );
    }
    printer.line(line)?;
    session.stop(Duration::ZERO);
    Ok(Exit::Success)
}

pub(crate) fn pause(one: &One, config: &Config, printer: &mut Printer) -> Ended {
    let action = Action::Pause {
        by: config.user.clone(),
    };
    let said = "is paused: `kapell resume` continues it";
    record((&one.run, one.json), &action, said, config, printer)
}

pub(crate) fn priority(priority: &Priority, config: &Config, printer: &mut Printer) -> Ended {
    let action = Action::Priority {
        by: config.user.clone(),
        priority: priority.priority,
    };
    let said = format!("has priority {} now", priority.priority);
    record(
        (&priority.run, priority.json),
        &action,
        &said,
        config,
        printer,
    )
}

pub(crate) fn dismiss(dismiss: &Dismiss, config: &Config, printer: &mut Printer) -> Ended {
    let Some(workflow) = &dismiss.workflow else {
        let run = dismiss.run.as_deref().unwrap_or_default();
        let said = "blocks its run queue no more";
        let action = Action::Dismiss {
            by: config.user.clone(),
        };
        return record((run, dismiss.json), &action, said, config, printer);
    };
    let session = session::open(config, Need::Record)?;
    let dismissal = Dismissal {
        key: dismiss.key.clone(),
        by: config.user.clone(),
    };
    let queue = session.api().dismiss(workflow, &dismissal)?;
    if dismiss.json {
        printer.json(&queue)?;
    } else {
        printer.plain(format!("the run queue of {workflow} is blocked no more"))?;
    }
    session.stop(Duration::ZERO);
    Ok(Exit::Success)
}

/// Does something to a run, and says what became of it: in words, or the run as lists show it.
fn record(
    (run, json): (&str, bool),
    action: &Action,
    said: &str,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let run = session.find(run)?;
    session.api().act(run, action)?;
    if json {
        printer.json(&session.api().wait(run, Duration::ZERO)?)?;
    } else {
        printer.plain(format!("run {run} {said}"))?;
    }
    session.stop(Duration::ZERO);
    Ok(Exit::Success)
}

pub(crate) fn resume(resume: &Resume, config: &Config, printer: &mut Printer) -> Ended {
    if let Some(run) = &resume.run {
        let action = Action::Resume {
            by: config.user.clone(),
        };
        return go_on(run, &action, &resume.work, config, printer);
    }
    if config.server()?.is_some() {
        return resume_all(resume, config, printer);
    }
    let session = open(&resume.work, config)?;
    // A run may end with its resumption alone, so it is followed whatever it is by then.
    let mut runs = follow::in_status(&session, &[RunStatus::Paused])?;
    for run in &runs {
        session.api().act(
            *run,
            &Action::Resume {
                by: config.user.clone(),
            },
        )?;
    }
    for run in follow::unfinished(&session)? {
        if !runs.contains(&run) {
            runs.push(run);
        }
    }
    if runs.is_empty() {
        printer.plain("nothing is unfinished here")?;
        session.stop(Duration::ZERO);
        return Ok(Exit::Success);
    }
    if resume.work.detach {
        printer.plain(format!(
            "{} will go on with the next `kapell run` or `kapell resume`",
            words::count(runs.len() as u64, "run")
        ))?;
        session.stop(Duration::ZERO);
        return Ok(Exit::Success);
    }
    follow::to_the_end(session, runs, &resume.work, config, printer)
}

/// The paused runs of a server, which goes on with what is unfinished by itself.
fn resume_all(resume: &Resume, config: &Config, printer: &mut Printer) -> Ended {
    if !resume.all {
        let message = "the server's runs are those of everybody: say which one to resume";
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`--all` resumes every paused run; `kapell bulk resume` those that match"));
    }
    let all = Bulk::all(BulkVerb::Resume, resume.work.json);
    bulk::bulk(&all, config, printer)
}

pub(crate) fn retry(retry: &Follow, config: &Config, printer: &mut Printer) -> Ended {
    let action = Action::Retry {
        by: config.user.clone(),
    };
    go_on(&retry.run, &action, &retry.work, config, printer)
}

pub(crate) fn restart(restart: &Restart, config: &Config, printer: &mut Printer) -> Ended {
    let action = Action::Restart {
        by: config.user.clone(),
        from: restart.from.clone(),
    };
    go_on(&restart.run, &action, &restart.work, config, printer)
}

pub(crate) fn skip(skip: &Skip, config: &Config, printer: &mut Printer) -> Ended {
    let action = |step: String| Action::Skip {
        by: config.user.clone(),
        groups: config::groups(&config.user),
        admin: false,
        step,
    };
    let of = (&*skip.step, skip.item.as_deref());
    at_step(&skip.run, of, &action, &skip.work, config, printer)
}

pub(crate) fn set_output(set: &SetOutput, config: &Config, printer: &mut Printer) -> Ended {
    let output: Value = serde_json::from_str(&set.output).map_err(|error| {
        Error::new(
            ErrorCode::BadRequest,
            format!("the output is not JSON: {error}"),
        )
        .hint("text needs its own quotes, as in '\"text\"'")
    })?;
    let action = |step: String| Action::SetOutput {
        by: config.user.clone(),
        groups: config::groups(&config.user),
        admin: false,
        step,
        output: output.clone(),
    };
    let of = (&*set.step, set.item.as_deref());
    at_step(&set.run, of, &action, &set.work, config, printer)
}

pub(crate) fn fork(fork: &Fork, config: &Config, printer: &mut Printer) -> Ended {
    let Some(params) = params::read(&fork.params, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let action = Action::Fork {
        by: config.user.clone(),
        from: fork.from.clone(),
        params,
        text: true,
        version: fork.version,
        idempotency_key: fork.idempotency_key.clone(),
    };
    go_on(&fork.run, &action, &fork.work, config, printer)
}

fn open(work: &Work, config: &Config) -> Result<Session, Error> {
    // A directory that is not there has nothing to go on with: it is not made.
    if !config.has_store() {
        return session::open(config, Need::Look);
    }
    session::open(
        config,
        if work.detach {
            Need::Record
        } else {
            Need::Work(work.slots)
        },
    )
}

/// Does something to a step or item that lets its run go on, and follows what goes on.
fn at_step(
    run: &str,
    (step, item): (&str, Option<&str>),
    action: &dyn Fn(String) -> Action,
    work: &Work,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = open(work, config)?;
    let run = session.find(run)?;
    let step = item::path(session.api(), run, step, item)?;
    follow_on(session, run, &action(step), work, config, printer)
}

/// Does something to a run that lets it go on, and follows what goes on.
fn go_on(run: &str, action: &Action, work: &Work, config: &Config, printer: &mut Printer) -> Ended {
    let session = open(work, config)?;
    let run = session.find(run)?;
    follow_on(session, run, action, work, config, printer)
}

fn follow_on(
    session: Session,
    run: RunId,
    action: &Action,
    work: &Work,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let unfinished = follow::unfinished(&session)?;
    let run = session.api().act(run, action)?.unwrap_or(run);
    if work.detach {
        return follow::recorded(session, run, work, printer);
    }
    let others = unfinished.into_iter().filter(|other| *other != run).count();
    follow::announce(&session, others, work, printer);
    follow::to_the_end(session, vec![run], work, config, printer)
}
