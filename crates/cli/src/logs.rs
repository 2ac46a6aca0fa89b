//! `kapell logs`

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::Style;
use kapell_api::client::Api;
use kapell_api::http::{LogLine, LogQuery};
use kapell_api::log::Stream;
use kapell_model::{Error, ErrorCode, RunId};

use crate::args::Logs;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::paint::{DIM, Line, MANY, PLAIN, RED};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, failure, words};

/// Between two looks while following.
const LOOK: Duration = Duration::from_millis(100);
/// The widest prefix.
const PREFIX: usize = 32;

pub(crate) fn logs(logs: &Logs, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&logs.run)?;
    let step = path(logs);
    if let Some(step) = &step {
        known(session.api(), run, step)?;
    }
    let mut shown = Shown {
        logs,
        prefixes: BTreeMap::new(),
        width: 0,
    };
    if let Some(tail) = logs.tail {
        let lines = failure::tail(
            session.api(),
            run,
            step.as_deref(),
            logs.attempt,
            tail.max(1),
        )?;
        shown.show(&lines, printer)?;
        return Ok(Exit::Success);
    }
    let interrupt = if logs.follow {
        Some(Interrupt::listen()?)
    } else {
        None
    };
    let mut query = LogQuery {
        step,
        attempt: logs.attempt,
        ..LogQuery::default()
    };
    let mut said_left_out = false;
    loop {
        // Whether it has ended is looked at first: what was printed before is there then.
        let ended = !logs.follow || session.api().wait(run, Duration::ZERO)?.status.ended();
        let page = session.api().logs(run, &query)?;
        shown.show(&page.lines, printer)?;
        query.cursor = page.cursor;
        if page.left_out > 0 && !said_left_out {
            said_left_out = true;
            let text = format!(
                "{} left out: name a step to see them",
                words::count(page.left_out as u64, "older log")
            );
            printer.notes(&[Line::default().with(DIM, text)]);
        }
        if page.more {
            continue;
        }
        if ended || interrupt.as_ref().is_some_and(Interrupt::asked) {
            break;
        }
        session.api().wait(run, LOOK)?;
    }
    if shown.prefixes.is_empty() && !logs.json && !logs.follow {
        printer.notes(&[Line::default().with(DIM, "nothing was printed")]);
    }
    Ok(Exit::Success)
}

fn path(logs: &Logs) -> Option<String> {
    let step = logs.step.clone()?;
    Some(match logs.item {
        Some(item) => format!("{step}[{item}]"),
        None => step,
    })
}

/// Refuses a step that the run does not have.
fn known(api: &dyn Api, run: RunId, step: &str) -> Result<(), Error> {
    let record = api.record(run, None)?;
    let mut found = false;
    let mut names = Vec::new();
    record.walk(&mut |known| {
        found |= known.path == step || known.path.starts_with(&format!("{step}#"));
        if !known.path.contains('[') && names.len() < 20 {
            names.push(known.path.clone());
        }
        let whole = step.rsplit_once('[').map(|(whole, _)| whole);
        found |= known.items.is_some() && whole == Some(&known.path);
    });
    if found {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::StepNotFound,
        format!("run {run} has no step `{step}`"),
    )
    .hint(format!("its steps are {}", names.join(", "))))
}

struct Shown<'a> {
    logs: &'a Logs,
    prefixes: BTreeMap<(String, u32), Style>,
    width: usize,
}

impl Shown<'_> {
    fn show(&mut self, lines: &[LogLine], printer: &mut Printer) -> Result<(), Error> {
        if self.logs.json {
            return lines.iter().try_for_each(|line| printer.json_line(line));
        }
        for line in lines {
            let next = MANY[self.prefixes.len() % MANY.len()];
            self.prefixes
                .entry((line.path.clone(), line.attempt))
                .or_insert(next);
            self.width = self.width.max(prefix(line).chars().count());
        }
        let out: Vec<Line> = lines.iter().map(|line| self.line(line)).collect();
        printer.lines(&out)
    }

    fn line(&self, log: &LogLine) -> Line {
        let style = self
            .prefixes
            .get(&(log.path.clone(), log.attempt))
            .copied()
            .unwrap_or(PLAIN);
        let mut line = Line::default();
        if self.logs.timestamps {
            line.push(DIM, format!("{} ", words::time_of_day(log.line.at)));
        }
        let start = line.width();
        line.push(style, prefix(log));
        line.pad(start + self.width);
        line.push(DIM, " │ ");
        let text = match log.line.stream {
            Stream::Stdout => PLAIN,
            Stream::Stderr => RED,
            Stream::System => DIM,
        };
        line.with(text, &log.line.text)
    }
}

/// Whose line it is; the attempt if it is not the first.
fn prefix(line: &LogLine) -> String {
    let attempt = if line.attempt > 1 {
        format!(" try {}", line.attempt)
    } else {
        String::new()
    };
    words::cut(&format!("{}{attempt}", line.path), PREFIX)
}
