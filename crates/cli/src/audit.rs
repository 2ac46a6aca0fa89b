//! `kapell audit`: who changed what over a connection.

use kapell_api::http::AuditQuery;

use crate::args::Audit;
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN, RED};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

pub(crate) fn audit(audit: &Audit, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().audit(&AuditQuery {
        before: audit.before,
        limit: audit.limit as usize,
    })?;
    session.close();
    if audit.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.entries.is_empty() {
        printer.plain("nothing was changed over a connection")?;
        return Ok(Exit::Success);
    }
    let mut lines = Vec::new();
    for entry in &page.entries {
        let style = if entry.status < 400 { PLAIN } else { RED };
        let mut line = Line::default().with(DIM, words::moment(entry.at));
        line.push(PLAIN, "  ");
        line.push(BOLD, entry.who.as_str());
        line.push(DIM, format!(" ({})", entry.from));
        line.push(style, format!("  {} {}", entry.what, entry.status));
        lines.push(line);
    }
    if let Some(next) = page.next {
        let more = format!("more: kapell audit --before {next}");
        lines.push(Line::default().with(DIM, more));
    }
    printer.lines(&lines)?;
    Ok(Exit::Success)
}
