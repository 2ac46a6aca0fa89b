//! `kapell bulk`

use kapell_api::http::{Action, BulkAction, BulkResult};
use kapell_model::{Error, ErrorCode, RunStatus};
use kapell_node::clock;
use serde_json::json;

use crate::args::{Bulk, BulkVerb, Which};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, RED};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

/// Runs that are named, of each kind; JSON names all.
const SHOWN: usize = 20;

impl BulkVerb {
    fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Cancel => "cancelled",
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }

    /// Statuses in which there is something to do: what is meant where none is named.
    fn statuses(self) -> &'static [RunStatus] {
        match self {
            Self::Retry => &[RunStatus::Failed, RunStatus::TimedOut, RunStatus::Cancelled],
            Self::Cancel => &[RunStatus::Queued, RunStatus::Running, RunStatus::Paused],
            Self::Pause => &[RunStatus::Running],
            Self::Resume => &[RunStatus::Paused],
        }
    }

    fn action(self, reason: &str, config: &Config) -> Action {
        let by = config.user.clone();
        match self {
            Self::Retry => Action::Retry { by },
            Self::Cancel => Action::Cancel {
                by,
                reason: reason.to_owned(),
                now: false,
            },
            Self::Pause => Action::Pause { by },
            Self::Resume => Action::Resume { by },
        }
    }
}

pub(crate) fn bulk(bulk: &Bulk, config: &Config, printer: &mut Printer) -> Ended {
    if says_nothing(&bulk.which) && !bulk.all {
        let message = "nothing says which runs are meant";
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`--workflow`, `--status`, `--label` and others say it; `--all` means all"));
    }
    let need = if bulk.dry_run {
        Need::Look
    } else {
        Need::Record
    };
    let session = session::open(config, need)?;
    let mut filter = list::filter(&bulk.which, &session, clock::now())?;
    if filter.status.is_empty() {
        let names = bulk.action.statuses().iter().map(|status| status.name());
        filter.status = names.collect::<Vec<_>>().join(",");
    }
    let mut page = BulkAction {
        filter,
        all: bulk.all,
        action: bulk.action.action(&bulk.reason, config),
        dry_run: bulk.dry_run,
        by: config.user.clone(),
    };
    let mut all = BulkResult::default();
    loop {
        let done = session.api().bulk(&page)?;
        all.runs.extend(done.runs);
        all.refused.extend(done.refused);
        if done.next.is_none() {
            break;
        }
        page.filter.before = done.next;
        if !bulk.json {
            printer.notes(&[Line::default().with(DIM, format!("… {}", counted(bulk, &all)))]);
        }
    }
    session.close();
    let exit = if all.refused.is_empty() || bulk.dry_run {
        Exit::Success
    } else {
        Exit::Failed
    };
    if bulk.json {
        printer.json(&json!({
            "action": bulk.action.name(),
            "dry_run": bulk.dry_run,
            "runs": all.runs,
            "refused": all.refused,
        }))?;
        return Ok(exit);
    }
    printer.lines(&lines(bulk, &all))?;
    Ok(exit)
}

fn says_nothing(which: &Which) -> bool {
    let Which {
        workflow,
        status,
        since,
        until,
        label,
        trigger,
        backfill,
        error,
        parent,
        namespace: _,
    } = which;
    let texts = [workflow, since, until, trigger, backfill, error, parent];
    texts.iter().all(|text| text.is_none()) && status.is_empty() && label.is_empty()
}

fn counted(bulk: &Bulk, all: &BulkResult) -> String {
    let runs = words::count(all.runs.len() as u64, "run");
    let would = if bulk.dry_run { "would be " } else { "" };
    let refused = match all.refused.len() as u64 {
        0 => String::new(),
        count => format!(", {} refused", words::grouped(count)),
    };
    format!("{runs} {would}{}{refused}", bulk.action.done())
}

fn lines(bulk: &Bulk, all: &BulkResult) -> Vec<Line> {
    let mut lines = vec![Line::default().with(BOLD, counted(bulk, all))];
    let more = |count: usize| {
        let more = count.checked_sub(SHOWN).filter(|more| *more > 0)?;
        let more = format!("  and {} more", words::grouped(more as u64));
        Some(Line::default().with(DIM, more))
    };
    if bulk.dry_run {
        let runs = all.runs.iter().take(SHOWN);
        lines.extend(runs.map(|run| Line::default().with(PLAIN, format!("  {run}"))));
        lines.extend(more(all.runs.len()));
    }
    for refusal in all.refused.iter().take(SHOWN) {
        let detail = words::first_line(&refusal.error.detail);
        let line = Line::default().with(PLAIN, format!("  {}: ", refusal.run));
        lines.push(line.with(RED, detail));
    }
    lines.extend(more(all.refused.len()));
    lines
}
