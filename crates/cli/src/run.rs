//! `kapell run`: a file, to its end.

use kapell_api::http::StartRun;

use crate::args::Run;
use crate::config::Config;
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, definition, follow, params};

pub(crate) fn run(run: &Run, config: &Config, printer: &mut Printer) -> Ended {
    let Some(params) = params::read(&run.params, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let scheduled_at = params::scheduled_at(run.at.as_deref())?;
    let Some(all) = definition::read_all(&run.file, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let need = if run.work.detach {
        Need::Record
    } else {
        Need::Work(run.work.slots)
    };
    let session = session::open(config, need)?;
    let unfinished = follow::unfinished(&session)?;
    let registered = definition::register(&all, config, session.api())?;
    let start = StartRun {
        workflow: registered.workflow,
        version: Some(registered.version),
        params,
        text: true,
        by: config.user.clone(),
        priority: run.priority,
        idempotency_key: run.idempotency_key.clone(),
        scheduled_at,
    };
    let started = session.api().start(&start)?.run;
    if run.work.detach {
        return follow::recorded(session, started, &run.work, printer);
    }
    let others = unfinished
        .into_iter()
        .filter(|other| *other != started)
        .count();
    follow::announce(&session, others, &run.work, printer);
    follow::to_the_end(session, vec![started], &run.work, config, printer)
}
