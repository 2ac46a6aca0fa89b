//! What is asked of the node for a start or an action, and what it answers.

use kapell_api::client::Result;
use kapell_api::http::{Action, StartRun};
use kapell_engine::{Request, run as engine};
use kapell_expr::Value;
use kapell_model::RunId;
use kapell_model::spec::Approval;
use kapell_node::{Answer, ClientRequest};

use super::super::{debug, unexpected};
use crate::register::NAMESPACE;
use crate::rows;

pub(super) fn start_request(start: StartRun) -> ClientRequest {
    ClientRequest::Start(Box::new(kapell_node::StartRun {
        namespace: NAMESPACE.into(),
        workflow: start.workflow.as_str().into(),
        version: start.version,
        params: some_map(start.params),
        text: start.text,
        by: start.by,
        scheduled_at: start.scheduled_at,
        priority: start.priority,
        idempotency_key: start.idempotency_key,
    }))
}

pub(super) fn started(answer: Answer) -> Result<RunId> {
    match answer {
        Answer::Started(run) => Ok(run),
        Answer::Done | Answer::Sent(_) | Answer::Value(_) | Answer::View(_) => Err(unexpected()),
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each action")]
pub(super) fn action_request(
    run: RunId,
    action: Action,
    below: Vec<Approval>,
) -> Result<ClientRequest> {
    let request = match action {
        Action::Cancel { by, reason, now } => Request::Cancel { by, reason, now },
        Action::Pause { by } => Request::Pause { by },
        Action::Resume { by } => Request::Resume { by },
        Action::Retry { by } => Request::Retry { by },
        Action::Restart { by, from } => Request::Restart { by, from },
        Action::Skip {
            by,
            groups,
            admin,
            step,
        } => Request::Skip {
            by,
            groups,
            admin,
            step,
            below,
        },
        Action::SetOutput {
            by,
            groups,
            admin,
            step,
            output,
        } => Request::SetOutput {
            by,
            groups,
            admin,
            step,
            below,
            output,
        },
        Action::Priority { by, priority } => Request::Priority { by, priority },
        Action::Dismiss { by: _ } => return Ok(ClientRequest::Dismiss { run }),
        Action::Approve {
            by,
            groups,
            step,
            comment,
            input,
            text,
        } => Request::Answer(engine::Answer {
            by,
            groups,
            step,
            approved: true,
            comment,
            input,
            text,
        }),
        Action::Reject {
            by,
            groups,
            step,
            comment,
        } => Request::Answer(engine::Answer {
            by,
            groups,
            step,
            approved: false,
            comment,
            input: Value::Null,
            text: false,
        }),
        Action::Continue { by, step, stepping } => Request::Continue { by, step, stepping },
        Action::Breakpoints {
            by,
            breakpoints,
            stepping,
        } => Request::Breakpoints {
            by,
            breakpoints: debug::breaks(&breakpoints)?,
            stepping,
        },
        Action::AddBreakpoint { by, breakpoint } => {
            debug::breaks(std::slice::from_ref(&breakpoint))?;
            let breakpoint = rows::break_of(&breakpoint);
            Request::AddBreakpoint { by, breakpoint }
        }
        Action::RemoveBreakpoints { by, step, at } => {
            let which = debug::gone(step.as_deref(), at);
            Request::RemoveBreakpoints { by, which }
        }
        Action::SetParam {
            by,
            name,
            value,
            text,
        } => Request::SetParam {
            by,
            name: name.into(),
            value,
            text,
        },
        Action::Fork {
            by,
            from,
            params,
            text,
            version,
            idempotency_key,
        } => {
            return Ok(ClientRequest::Fork {
                idempotency_key,
                run,
                from,
                params: some_map(params),
                text,
                version,
                by,
            });
        }
    };
    Ok(ClientRequest::Run { run, request })
}

pub(super) fn acted(answer: Answer) -> Result<Option<RunId>> {
    match answer {
        Answer::Started(run) => Ok(Some(run)),
        Answer::Done | Answer::Value(_) => Ok(None),
        Answer::Sent(_) | Answer::View(_) => Err(unexpected()),
    }
}

fn some_map(params: Value) -> Value {
    if params.is_null() {
        Value::map([] as [(&str, Value); 0])
    } else {
        params
    }
}
