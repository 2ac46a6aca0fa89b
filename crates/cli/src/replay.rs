//! `kapell replay`: a run at each moment of its history.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};

use kapell_api::client::Api;
use kapell_api::http::RecordQuery;
use kapell_api::record::Record;
use kapell_model::{Error, ErrorCode, RunId, Time};

use crate::args::Replay;
use crate::config::Config;
use crate::paint::{CYAN, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, show, words};

/// Moments of one run that are gone through.
const MOMENTS: usize = 10_000;

const HELP: &str = "n or nothing: the next moment · p: the one before · f, l: the first, the last\n\
    a number: that moment · a time, or 10s after the run was made: the moment then · q: leave";

pub(crate) fn replay(replay: &Replay, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&replay.run)?;
    let whole = session.api().record(run, &RecordQuery::default())?;
    let moments = moments(&whole);
    if replay.json {
        for at in &moments {
            printer.json_line(&session.api().record(run, &RecordQuery::at(*at))?)?;
        }
        session.close();
        return Ok(Exit::Success);
    }
    let mut replaying = Replaying {
        api: session.api(),
        run,
        created_at: whole.created_at,
        moments,
        place: 0,
    };
    let said = replaying.go(printer);
    session.close();
    said.map(|()| Exit::Success)
}

/// When something happened, in order.
fn moments(record: &Record) -> Vec<Time> {
    let mut all: BTreeSet<Time> = [Some(record.created_at), record.started_at, record.ended_at]
        .into_iter()
        .flatten()
        .collect();
    all.extend(record.notes.iter().map(|note| note.at));
    record.walk(&mut |step| {
        if all.len() >= MOMENTS {
            return;
        }
        all.extend(
            [step.ready_at, step.started_at, step.ended_at]
                .into_iter()
                .flatten(),
        );
        for attempt in &step.attempts {
            all.insert(attempt.started_at);
            all.extend(attempt.ended_at);
        }
    });
    all.into_iter().take(MOMENTS).collect()
}

struct Replaying<'a> {
    api: &'a dyn Api,
    run: RunId,
    created_at: Time,
    moments: Vec<Time>,
    place: usize,
}

impl Replaying<'_> {
    fn go(&mut self, printer: &mut Printer) -> Result<(), Error> {
        self.show(printer)?;
        let prompts = std::io::stdin().is_terminal();
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if prompts {
                printer.line(Line::default().with(DIM, "n, p, f, l, a time, q or ? for help"))?;
            }
            let Some(line) = lines.next() else {
                return Ok(());
            };
            let line = line.map_err(|error| {
                Error::new(
                    ErrorCode::BadRequest,
                    format!("the input cannot be read: {error}"),
                )
            })?;
            match self.command(line.trim()) {
                Ok(Some(place)) => {
                    self.place = place;
                    self.show(printer)?;
                }
                Ok(None) if matches!(line.trim(), "?" | "h" | "help") => {
                    printer.text(HELP)?;
                    printer.plain("")?;
                }
                Ok(None) => return Ok(()),
                Err(error) => printer.error(&error),
            }
        }
    }

    /// The place that a command means; none for help and to leave.
    fn command(&self, command: &str) -> Result<Option<usize>, Error> {
        let last = self.moments.len().saturating_sub(1);
        Ok(Some(match command {
            "q" | "quit" | "?" | "h" | "help" => return Ok(None),
            "" | "n" | "next" => (self.place + 1).min(last),
            "p" | "previous" => self.place.saturating_sub(1),
            "f" | "first" => 0,
            "l" | "last" => last,
            other => {
                if let Ok(number) = other.parse::<usize>() {
                    number.saturating_sub(1).min(last)
                } else {
                    let at = words::instant(other, self.created_at, false)?;
                    self.moments
                        .partition_point(|moment| *moment <= at)
                        .saturating_sub(1)
                }
            }
        }))
    }

    fn show(&self, printer: &mut Printer) -> Result<(), Error> {
        let Some(at) = self.moments.get(self.place) else {
            return printer.plain("nothing has happened in this run");
        };
        let record = self.api.record(self.run, &RecordQuery::at(*at))?;
        let after = words::span(words::between(self.created_at, *at));
        let mut head = Line::default().with(
            CYAN,
            format!("moment {} of {}", self.place + 1, self.moments.len()),
        );
        head.push(PLAIN, format!("  {after} after it was made"));
        printer.line(head)?;
        printer.lines(&show::whole(&record, record.seen_at, true))
    }
}
