//! `kapell audit`: who changed what.

use kapell_api::http::{AuditEntry, AuditPage, AuditQuery};
use kapell_model::Error;
use kapell_node::clock;

use crate::args::Audit;
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, RED};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, words};

pub(crate) fn audit(audit: &Audit, config: &Config, printer: &mut Printer) -> Ended {
    let since = audit.since.as_deref();
    let query = AuditQuery {
        before: audit.before,
        limit: audit.limit as usize,
        since: since
            .map(|when| words::instant(when, clock::now(), true))
            .transpose()?,
        who: audit.who.clone(),
        what: audit.what.clone(),
    };
    let session = session::open(config, Need::Look)?;
    let page = found(&session, query)?;
    session.close();
    if audit.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.entries.is_empty() {
        printer.plain("there is no such change")?;
        return Ok(Exit::Success);
    }
    let mut lines: Vec<Line> = page.entries.iter().map(row).collect();
    if let Some(next) = page.next {
        let more = format!("more: the same with --before {next}");
        lines.push(Line::default().with(DIM, more));
    }
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

/// As many as are asked for: pages of few that match are short.
fn found(session: &Session, mut query: AuditQuery) -> Result<AuditPage, Error> {
    let mut found = AuditPage::default();
    let wanted = query.limit;
    loop {
        query.limit = wanted - found.entries.len();
        let page = session.api().audit(&query)?;
        found.entries.extend(page.entries);
        found.next = page.next;
        if found.entries.len() >= wanted || page.next.is_none() {
            return Ok(found);
        }
        query.before = page.next;
    }
}

fn row(entry: &AuditEntry) -> Line {
    let style = if entry.status < 400 { PLAIN } else { RED };
    let mut line = Line::default().with(DIM, words::moment(entry.at));
    line.push(PLAIN, "  ");
    line.push(BOLD, entry.who.as_str());
    line.push(DIM, format!(" ({})", entry.from));
    line.push(style, format!("  {} {}", entry.what, entry.status));
    if let Some(about) = &entry.about {
        line.push(DIM, format!("  {about}"));
    }
    line
}
