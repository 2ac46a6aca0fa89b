//! `kapell logs`

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::Style;
use kapell_api::client::Api;
use kapell_api::http::{ItemQuery, LogLine, LogQuery, RecordQuery};
use kapell_api::log::Stream;
use kapell_model::{Error, ErrorCode, RunId};
use serde::Serialize;

use crate::args::Logs;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::paint::{DIM, Line, MANY, PLAIN, RED};
use crate::printer::Printer;
use crate::session::{self, Need, Session};
use crate::{Ended, Exit, failure, item, words};

/// Between two looks while following, and where nobody works.
const LOOK: Duration = Duration::from_millis(100);
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// The widest prefix.
const PREFIX: usize = 32;

pub(crate) fn logs(logs: &Logs, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&logs.run)?;
    let step = path(session.api(), run, logs)?;
    if let Some(step) = &step {
        known(session.api(), run, logs, step)?;
    }
    let mut shown = Shown {
        logs,
        prefixes: BTreeMap::new(),
        labels: Labels::default(),
        width: 0,
    };
    if let Some(tail) = logs.tail {
        let lines = failure::tail(
            session.api(),
            run,
            step.as_deref(),
            logs.attempt,
            tail as usize,
        )?;
        shown.labels.learn(session.api(), run, &lines);
        session.stop(Duration::ZERO);
        shown.show(&lines, printer)?;
        shown.nothing(printer);
        return Ok(Exit::Success);
    }
    let mut reading = Reading {
        config,
        run,
        query: LogQuery {
            step,
            attempt: logs.attempt,
            ..LogQuery::default()
        },
        session: Some(session),
        said_left_out: false,
    };
    if logs.follow {
        reading.follow(&mut shown, printer)?;
    } else {
        reading.look(&mut shown, printer)?;
    }
    shown.nothing(printer);
    Ok(Exit::Success)
}

/// How far the logs of a run have been read.
struct Reading<'c> {
    config: &'c Config,
    run: RunId,
    query: LogQuery,
    /// None while nobody is asked: a directory that nobody works in is left free while lines are
    /// written, which a pager may hold up for hours.
    session: Option<Session>,
    said_left_out: bool,
}

impl Reading<'_> {
    /// Shows what is new until the run has ended or somebody wants to leave.
    fn follow(&mut self, shown: &mut Shown<'_>, printer: &mut Printer) -> Result<(), Error> {
        let interrupt = Interrupt::listen()?;
        loop {
            match self.ended(shown, printer) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Whoever held the directory has ended: what it wrote is there.
                Err(error) if error.code == ErrorCode::StoreUnavailable => self.session = None,
                Err(error) => return Err(error),
            }
            if interrupt.asked() {
                return Ok(());
            }
            match &self.session {
                // That it has ended is seen with the next look.
                Some(session) => {
                    let _ = session.api().wait(self.run, LOOK);
                }
                None => std::thread::park_timeout(IDLE_LOOK),
            }
        }
    }

    /// Shows what is new; true if nothing can follow.
    fn ended(&mut self, shown: &mut Shown<'_>, printer: &mut Printer) -> Result<bool, Error> {
        let session = self.open()?;
        // Whether it has ended is looked at first: what was printed before is there then.
        let ended = session.api().wait(self.run, Duration::ZERO)?.status.ended();
        self.session = Some(session);
        self.look(shown, printer)?;
        Ok(ended)
    }

    /// Shows what is new.
    fn look(&mut self, shown: &mut Shown<'_>, printer: &mut Printer) -> Result<(), Error> {
        loop {
            let session = self.open()?;
            let page = session.api().logs(self.run, &self.query)?;
            shown.labels.learn(session.api(), self.run, &page.lines);
            if session.holder().is_some() {
                self.session = Some(session);
            } else {
                session.stop(Duration::ZERO);
            }
            shown.show(&page.lines, printer)?;
            self.query.cursor = page.cursor;
            if page.left_out > 0 && !self.said_left_out {
                self.said_left_out = true;
                let text = format!(
                    "{} left out: name a step to see them",
                    words::count(page.left_out as u64, "older log")
                );
                printer.notes(&[Line::default().with(DIM, text)]);
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    fn open(&mut self) -> Result<Session, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => session::open(self.config, Need::Look),
        }
    }
}

fn path(api: &dyn Api, run: RunId, logs: &Logs) -> Result<Option<String>, Error> {
    let of = |step: &String| item::path(api, run, step, logs.item.as_deref());
    logs.step.as_ref().map(of).transpose()
}

/// Refuses a step, item or attempt that the run does not have.
fn known(api: &dyn Api, run: RunId, logs: &Logs, path: &str) -> Result<(), Error> {
    let record = api.record(run, &RecordQuery::with(path))?;
    let refused = |message: String, hint: String| {
        Err(Error::new(ErrorCode::StepNotFound, message).hint(hint))
    };
    let mut found = false;
    let mut items = None;
    let mut tries = 0;
    let mut names = Vec::new();
    let whole = path
        .strip_suffix(']')
        .and_then(|path| path.rsplit_once('['));
    record.walk(&mut |known| {
        if known.path == path {
            found = true;
            let last = known.attempts.last().map_or(0, |attempt| attempt.attempt);
            tries = tries.max(last);
        }
        found |= known.path.starts_with(&format!("{path}#"));
        if let Some((step, item)) = whole
            && known.path == step
        {
            let count = known.items.as_ref().map(|items| items.count);
            found |= item
                .parse()
                .is_ok_and(|item: u32| count.is_some_and(|count| item < count));
            items = Some(count);
        }
        if !known.path.contains('[') && names.len() < 20 {
            names.push(known.path.clone());
        }
    });
    let step = whole.map_or(path, |(step, _)| step);
    match items {
        Some(None) => {
            return refused(
                format!("`{step}` has no items: it is no foreach"),
                format!("`kapell logs RUN {step}` shows what it printed"),
            );
        }
        Some(Some(count)) if !found => {
            return refused(
                format!(
                    "`{path}` is not there: `{step}` has {}",
                    words::count(count.into(), "item")
                ),
                "the first is 0".to_owned(),
            );
        }
        _ if !found => {
            return refused(
                format!("run {run} has no step `{path}`"),
                format!("its steps are {}", names.join(", ")),
            );
        }
        _ => {}
    }
    match logs.attempt {
        Some(attempt) if tries > 0 && attempt > tries && !logs.follow => refused(
            format!("`{path}` has no attempt {attempt}"),
            format!("its last is {tries}"),
        ),
        _ => Ok(()),
    }
}

/// The labels of items whose lines are shown, a thousand at a time; none for one without.
#[derive(Default)]
struct Labels(BTreeMap<String, BTreeMap<u32, Option<String>>>);

/// Labels that are asked for at once.
const LABELS: u32 = 1_000;

impl Labels {
    /// Asks for the labels of what is shown for the first time. One that cannot be had is left out.
    fn learn(&mut self, api: &dyn Api, run: RunId, lines: &[LogLine]) {
        for line in lines {
            let Some((step, index)) = item_of(&line.path) else {
                continue;
            };
            if self.0.get(step).is_some_and(|of| of.contains_key(&index)) {
                continue;
            }
            let page = api.items(
                run,
                &ItemQuery {
                    step: step.to_owned(),
                    label: None,
                    from: index - index % LABELS,
                    limit: LABELS as usize,
                },
            );
            let of = self.0.entry(step.to_owned()).or_default();
            let items = page.map(|page| page.items).unwrap_or_default();
            of.extend(items.into_iter().map(|item| (item.index, item.label)));
            of.entry(index).or_default();
        }
    }

    /// Of the item that a path is in.
    fn of(&self, path: &str) -> Option<&str> {
        let (step, index) = item_of(path)?;
        self.0.get(step)?.get(&index)?.as_deref()
    }
}

/// The foreach and the index of the innermost item that a path is in.
fn item_of(path: &str) -> Option<(&str, u32)> {
    let (item, _) = path.rsplit_once(']')?;
    let (step, index) = item.rsplit_once('[')?;
    Some((step, index.parse().ok()?))
}

/// A line for programs.
#[derive(Serialize)]
struct Labelled<'l> {
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'l str>,
    #[serde(flatten)]
    line: &'l LogLine,
}

struct Shown<'a> {
    logs: &'a Logs,
    labels: Labels,
    prefixes: BTreeMap<(String, u32), Style>,
    width: usize,
}

impl Shown<'_> {
    /// Says so if there was nothing to show.
    fn nothing(&self, printer: &mut Printer) {
        if self.prefixes.is_empty() && !self.logs.json && !self.logs.follow {
            printer.notes(&[Line::default().with(DIM, "nothing was printed")]);
        }
    }

    fn show(&mut self, lines: &[LogLine], printer: &mut Printer) -> Result<(), Error> {
        if self.logs.json {
            return lines.iter().try_for_each(|line| {
                let label = self.labels.of(&line.path);
                printer.json_line(&Labelled { label, line })
            });
        }
        for line in lines {
            let next = MANY[self.prefixes.len() % MANY.len()];
            self.prefixes
                .entry((line.path.clone(), line.attempt))
                .or_insert(next);
            self.width = self.width.max(words::columns(&self.prefix(line)));
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
        line.push(style, self.prefix(log));
        line.pad(start + self.width);
        line.push(DIM, " │ ");
        let text = match log.line.stream {
            Stream::Stdout => PLAIN,
            Stream::Stderr => RED,
            Stream::System => DIM,
        };
        line.with(text, &log.line.text)
    }

    /// Whose line it is; the attempt if it is not the first.
    fn prefix(&self, line: &LogLine) -> String {
        let attempt = if line.attempt > 1 {
            format!(" try {}", line.attempt)
        } else {
            String::new()
        };
        let path = words::labelled(&line.path, self.labels.of(&line.path));
        words::cut(&format!("{path}{attempt}"), PREFIX)
    }
}
