//! `kapell approve`, `kapell reject`, `kapell approvals`: what runs ask people.

use kapell_api::client::Api;
use kapell_api::http::{Action, ApprovalQuery, ApprovalView, ApprovalWaiting, StepView};
use kapell_model::{Error, ErrorCode, RunId, StepStatus, Time};
use kapell_node::clock;

use crate::args::{Approvals, Approve, Reject};
use crate::config::{self, Config};
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, item, list, params, words};

/// Characters of a message in a list.
const SHOWN: usize = 120;

pub(crate) fn approve(approve: &Approve, config: &Config, printer: &mut Printer) -> Ended {
    let Some(input) = params::read(&approve.input, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let given = input.as_map().is_some_and(|input| !input.is_empty());
    let action = |step: String| Action::Approve {
        by: config.user.clone(),
        groups: config::groups(&config.user),
        step,
        comment: approve.comment.clone(),
        input: if given {
            input.clone()
        } else {
            kapell_expr::Value::Null
        },
        text: true,
    };
    answer(
        &approve.run,
        (approve.step.as_ref(), approve.item.as_deref()),
        &action,
        (config, approve.json),
        printer,
    )
}

pub(crate) fn reject(reject: &Reject, config: &Config, printer: &mut Printer) -> Ended {
    let action = |step: String| Action::Reject {
        by: config.user.clone(),
        groups: config::groups(&config.user),
        step,
        comment: reject.comment.clone(),
    };
    answer(
        &reject.run,
        (reject.step.as_ref(), reject.item.as_deref()),
        &action,
        (config, reject.json),
        printer,
    )
}

fn answer(
    run: &str,
    (step, item): (Option<&String>, Option<&str>),
    action: &dyn Fn(String) -> Action,
    (config, json): (&Config, bool),
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let api = session.api();
    let run = session.find(run)?;
    let step = match step {
        Some(step) => item::path(api, run, step, item)?,
        None => asking(api, run)?,
    };
    api.act(run, &action(step.clone()))?;
    let view = api.view(run)?;
    let elsewhere = session.holder().is_some();
    session.close();
    let found = view.steps.iter().find(|of| of.path == step);
    if json {
        printer.json(&serde_json::json!({
            "run": run.to_string(),
            "step": step,
            "status": found.map(|of| of.status.name()),
            "waits_for": found.and_then(|of| of.waits_for.as_deref()),
        }))?;
        return Ok(Exit::Success);
    }
    let text = match found {
        Some(of) if of.status == StepStatus::Waiting => {
            let waits = of.waits_for.as_deref().unwrap_or("others");
            format!("still waits for {}", words::local(waits, clock::now()))
        }
        Some(of) => format!("is {}", crate::paint::word(of.status.name())),
        None => "was answered".to_owned(),
    };
    let label = found.and_then(|of| of.label.as_deref());
    let mut line = Line::default().with(BOLD, words::labelled(&step, label));
    line.push(PLAIN, format!(" of run {run} {text}"));
    if !elsewhere && !view.summary.status.ended() {
        line.push(PLAIN, ": `kapell resume` goes on");
    }
    printer.line(line)?;
    Ok(Exit::Success)
}

/// The only step of a run that asks people something.
fn asking(api: &dyn Api, run: RunId) -> Result<String, Error> {
    let view = api.view(run)?;
    let asks = view.steps.iter().filter(|step| step.approval.is_some());
    let asks: Vec<_> = asks.collect();
    match asks.as_slice() {
        [one] => Ok(one.path.clone()),
        [] => Err(Error::new(
            ErrorCode::NotAllowedNow,
            format!("run {run} asks nobody anything"),
        )
        .hint("`kapell approvals` lists what waits for you, `kapell why` what a run waits for")),
        many => {
            let name = |of: &&StepView| words::labelled(&of.path, of.label.as_deref());
            let names: Vec<String> = many.iter().map(name).collect();
            let message = format!("several steps of run {run} ask something");
            Err(Error::new(ErrorCode::BadRequest, message)
                .hint(format!("name one of {}", names.join(", "))))
        }
    }
}

pub(crate) fn approvals(which: &Approvals, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let after = which.after.as_deref();
    let after = after.map(|run| session.find(run)).transpose()?;
    let page = session.api().approvals(&ApprovalQuery {
        by: (!which.all).then(|| config.user.clone()),
        groups: config::groups(&config.user).join(","),
        after,
        limit: which.limit as usize,
    });
    session.close();
    let page = page?;
    if which.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.approvals.is_empty() {
        let text = if which.all {
            "no run asks anybody anything"
        } else {
            "nothing waits for you; --all shows what others are asked"
        };
        printer.plain(text)?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    let lines: Vec<Line> = page
        .approvals
        .iter()
        .flat_map(|question| lines(question, now))
        .collect();
    printer.lines(&lines)?;
    if let Some(next) = page.next {
        let all = if which.all { " --all" } else { "" };
        let more = format!("more: kapell approvals{all} --after {}", words::short(next));
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn lines(question: &ApprovalWaiting, now: Time) -> Vec<Line> {
    let approval = &question.approval;
    let mut head = Line::default().with(YELLOW, "? ");
    head.push(BOLD, &question.step);
    if let Some(label) = &question.label {
        head.push(PLAIN, format!(" ({})", words::shown_label(label)));
    }
    let run = words::short(question.run);
    head.push(
        PLAIN,
        format!("  {} v{}  run {run}", question.workflow, question.version),
    );
    if let Some(at) = question.asked_at {
        head.push(DIM, format!("  asked {}", list::ago(at, now)));
    }
    if let Some(until) = approval.until {
        let until = words::local(&until.to_string(), now);
        head.push(DIM, format!("  until {until}"));
    }
    let mut lines = vec![head];
    if !approval.message.is_empty() {
        let text = words::shortened(&approval.message, SHOWN);
        lines.push(Line::default().with(PLAIN, format!("  {text}")));
    }
    lines.push(Line::default().with(DIM, format!("  {}", who(approval))));
    for input in &approval.input {
        let mut line = Line::default().with(PLAIN, format!("  -p {}=", input.name));
        line.push(DIM, format!("  {}", input.ty));
        if !input.required {
            line.push(DIM, ", may be left out");
        }
        if let Some(allowed) = &input.allowed {
            let words: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            line.push(DIM, format!(", one of {}", words.join(", ")));
        }
        if !input.description.is_empty() {
            line.push(DIM, format!(": {}", words::first_line(&input.description)));
        }
        lines.push(line);
    }
    let mut command = Line::default().with(GREEN, "  kapell approve ");
    command.push(PLAIN, format!("{run} {}", question.step));
    lines.push(command);
    lines
}

/// Who may answer, in one sentence.
fn who(approval: &ApprovalView) -> String {
    let mut text = if approval.by.is_empty() {
        "anybody may answer".to_owned()
    } else {
        format!("{} may answer", approval.by.join(", "))
    };
    if let Some(not) = &approval.not_by {
        text += &format!(", but not {not}, who started the run");
    }
    if approval.count > 1 {
        text += &format!("; {} of {} said yes", approval.given.len(), approval.count);
        let names: Vec<&str> = approval.given.iter().map(|given| &*given.by).collect();
        if !names.is_empty() {
            text += &format!(": {}", names.join(", "));
        }
    }
    text
}
