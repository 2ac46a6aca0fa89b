//! `kapell signal`: sending signals, and looking at what is kept of them.

use kapell_api::http::{SendSignal, SignalQuery, TopicQuery, TopicSummary, TopicView};
use kapell_expr::Value;
use kapell_model::{Error, ErrorCode, Time};
use kapell_node::clock;

use crate::args::{Signal, SignalList, SignalSend, SignalShow};
use crate::config::Config;
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

/// Characters of a payload that are shown.
const SHOWN: usize = 100;

pub(crate) fn signal(command: &Signal, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Signal::Send(signal) => send(signal, config, printer),
        Signal::List(which) => all(which, config, printer),
        Signal::Show(which) => show(which, config, printer),
    }
}

fn send(signal: &SignalSend, config: &Config, printer: &mut Printer) -> Ended {
    let payload = match &signal.payload {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Error::new(
                ErrorCode::BadRequest,
                format!("the payload is not JSON: {error}"),
            )
            .hint("as in --payload '{\"table\": \"orders\"}'; text needs its own quotes")
        })?,
    };
    let key = match &signal.key {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::string(text)),
    };
    let wanted = SendSignal {
        payload,
        key,
        id: signal.id.clone(),
        by: config.user.clone(),
    };
    let session = session::open(config, Need::Record)?;
    let sent = session.api().send_signal(&signal.name, &wanted);
    let elsewhere = session.holder().is_some();
    session.close();
    let sent = sent?;
    if signal.json {
        printer.json(&sent)?;
        return Ok(Exit::Success);
    }
    let what = match (sent.known, elsewhere) {
        (true, _) => "was there already: nothing was sent",
        (false, true) => "was sent",
        (false, false) => "was sent; `kapell resume` does what follows",
    };
    printer.plain(format!("signal {} {} {what}", signal.name, sent.id))?;
    Ok(Exit::Success)
}

pub(crate) fn all(which: &SignalList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().topics(&TopicQuery {
        after: which.after.clone(),
        limit: which.limit as usize,
    });
    session.close();
    let page = page?;
    if which.json {
        printer.json(&page)?;
        return Ok(Exit::Success);
    }
    if page.topics.is_empty() {
        printer.plain("no signal was sent, and nobody listens to any")?;
        return Ok(Exit::Success);
    }
    printer.lines(&rows(&page.topics, clock::now()))?;
    if let Some(next) = page.next {
        let more = format!("more: kapell signal list --after {next}");
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn rows(topics: &[TopicSummary], now: Time) -> Vec<Line> {
    let names = topics.iter().map(|topic| words::columns(&topic.name));
    let kept_at = names.max().unwrap_or(0).max("signal".len()) + 2;
    let (listen_at, last_at) = (kept_at + 12, kept_at + 24);
    let mut head = Line::default().with(DIM, "signal");
    for (column, text) in [(kept_at, "kept"), (listen_at, "listen"), (last_at, "last")] {
        head.pad(column);
        head.push(DIM, text);
    }
    let mut lines = vec![head];
    for topic in topics {
        let mut line = Line::default().with(BOLD, &topic.name);
        line.pad(kept_at);
        line.push(PLAIN, words::grouped(topic.signals));
        line.pad(listen_at);
        line.push(PLAIN, words::grouped(topic.listeners));
        line.pad(last_at);
        let last = topic.last_sent_at.map(|at| list::ago(at, now));
        line.push(DIM, last.unwrap_or_else(|| "-".to_owned()));
        lines.push(line);
    }
    lines
}

fn show(which: &SignalShow, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let view = session.api().topic(
        &which.name,
        &SignalQuery {
            before: which.before,
            limit: which.limit as usize,
        },
    );
    session.close();
    let view = view?;
    if which.json {
        printer.json(&view)?;
        return Ok(Exit::Success);
    }
    printer.lines(&lines(&view, clock::now()))?;
    if let Some(next) = view.next {
        let more = format!("more: kapell signal show {} --before {next}", which.name);
        printer.line(Line::default().with(DIM, more))?;
    }
    Ok(Exit::Success)
}

fn lines(view: &TopicView, now: Time) -> Vec<Line> {
    let mut head = Line::default().with(BOLD, &view.summary.name);
    let (kept, listen) = (view.summary.signals, view.summary.listeners);
    if view.summary.received == 0 && listen == 0 {
        head.push(DIM, "  was never sent, and nobody listens");
        return vec![head];
    }
    let kept = words::count(kept, "signal");
    head.push(
        DIM,
        format!("  {kept} kept, {} listen", words::grouped(listen)),
    );
    let mut lines = vec![head];
    for of in &view.listening {
        let mut line = Line::default()
            .with(DIM, "  listens  ")
            .with(PLAIN, &of.who);
        if !of.matches.is_empty() {
            line.push(DIM, format!("  where {}", of.matches.join(" && ")));
        }
        lines.push(line);
    }
    for signal in &view.kept {
        let mut line = Line::default().with(PLAIN, "  ");
        line.push(DIM, list::ago(signal.sent_at, now));
        line.pad(14);
        line.push(BOLD, &signal.id);
        if !signal.key.is_null() {
            line.push(PLAIN, format!("  key {}", signal.key.to_json()));
        }
        if !signal.payload.is_null() {
            let payload = words::shortened(&signal.payload.to_json().to_string(), SHOWN);
            line.push(PLAIN, format!("  {payload}"));
        }
        if !signal.by.is_empty() {
            line.push(DIM, format!("  by {}", signal.by));
        }
        lines.push(line);
    }
    lines
}
