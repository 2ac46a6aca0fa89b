//! `kapell start`: a workflow that is registered.

use kapell_api::http::StartRun;

use crate::args::{Start, Work};
use crate::config::Config;
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, follow, params};

pub(crate) fn start(start: &Start, config: &Config, printer: &mut Printer) -> Ended {
    let Some(params) = params::read(&start.params, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let scheduled_at = params::scheduled_at(start.at.as_deref())?;
    let work = Work {
        detach: !start.watch,
        json: start.json,
        slots: None,
    };
    let need = if start.watch {
        Need::Work(None)
    } else {
        Need::Record
    };
    let session = session::open(config, need)?;
    let unfinished = follow::unfinished(&session)?;
    let wanted = StartRun {
        workflow: start.workflow.clone(),
        version: start.version,
        params,
        text: true,
        by: config.user.clone(),
        priority: start.priority,
        idempotency_key: start.idempotency_key.clone(),
        scheduled_at,
    };
    let run = session.api().start(&wanted)?.run;
    if !start.watch {
        return follow::recorded(session, run, &work, printer);
    }
    let others = unfinished.into_iter().filter(|other| *other != run).count();
    follow::announce(&session, others, &work, printer);
    follow::to_the_end(session, vec![run], &work, config, printer)
}
