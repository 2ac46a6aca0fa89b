//! `kapell channel`: notices that wait or were given up, and where they go.

use anstyle::Style;
use kapell_api::http::{ChannelSummary, ChannelView, NoticeAction};
use kapell_model::Time;
use kapell_node::clock;
use serde_json::{Value, json};

use crate::args::{Channel, ChannelList, ChannelNotices, ChannelOne};
use crate::config::Config;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

pub(crate) fn channel(command: &Channel, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Channel::List(which) => all(which, config, printer),
        Channel::Show(one) => show(one, config, printer),
        Channel::Test(one) => test(one, config, printer),
        Channel::Again(which) => act(which, NoticeAction::Again, config, printer),
        Channel::Forget(which) => act(which, NoticeAction::Forget, config, printer),
    }
}

fn all(which: &ChannelList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let page = session.api().channels();
    session.close();
    let page = page?;
    if which.json {
        printer.json(&page)?;
    } else if page.channels.is_empty() {
        printer.plain("no notice waits, and none was given up")?;
    } else {
        let now = clock::now();
        let rows = page.channels.iter().map(|channel| row(channel, now));
        printer.lines(&rows.collect::<Vec<_>>())?;
    }
    Ok(Exit::Success)
}

fn row(channel: &ChannelSummary, now: Time) -> Line {
    let mut line = Line::default().with(BOLD, &channel.name);
    let style = if channel.waiting > 0 { YELLOW } else { PLAIN };
    line.push(
        style,
        format!("  {} waiting", words::grouped(channel.waiting)),
    );
    let style = if channel.failed > 0 { RED } else { PLAIN };
    line.push(
        style,
        format!("  {} given up", words::grouped(channel.failed)),
    );
    line.push(
        DIM,
        format!("  {} delivered", words::grouped(channel.delivered)),
    );
    if let Some(at) = channel.due_at {
        let at = words::local(&at.to_string(), now);
        line.push(DIM, format!("  next try {at}"));
    }
    line
}

fn show(one: &ChannelOne, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let view = session.api().channel(&one.name);
    session.close();
    let view = view?;
    if one.json {
        printer.json(&view)?;
    } else {
        printer.lines(&lines(&one.name, &view, clock::now()))?;
    }
    Ok(Exit::Success)
}

fn lines(name: &str, view: &ChannelView, now: Time) -> Vec<Line> {
    let head = format!(
        "  {} waiting, {} given up, {} delivered",
        words::grouped(view.waiting),
        words::grouped(view.failed.len() as u64),
        words::grouped(view.delivered)
    );
    let mut lines = vec![Line::default().with(BOLD, name).with(DIM, head)];
    for notice in &view.queue {
        let next = words::local(&notice.next_at, now);
        let state = (YELLOW, "waits");
        let tries = format!(
            "  next try {next}, tried {}",
            words::count(notice.tries.into(), "time")
        );
        notice_lines(
            notice.number,
            state,
            &tries,
            (&notice.content, &notice.error),
            &mut lines,
        );
    }
    for notice in &view.failed {
        let state = (RED, "given up");
        let tries = format!("  tried {}", words::count(notice.tries.into(), "time"));
        notice_lines(
            notice.number,
            state,
            &tries,
            (&notice.content, &notice.error),
            &mut lines,
        );
    }
    lines
}

fn notice_lines(
    number: u64,
    (style, state): (Style, &str),
    tries: &str,
    (content, error): (&Value, &str),
    lines: &mut Vec<Line>,
) {
    let text = content["text"].as_str().unwrap_or_default();
    let text = text.lines().next().unwrap_or_default();
    lines.push(
        Line::default()
            .with(PLAIN, format!("  {number}  "))
            .with(style, state)
            .with(DIM, tries)
            .with(PLAIN, format!("  {text}")),
    );
    if !error.is_empty() {
        lines.push(Line::default().with(RED, format!("      {error}")));
    }
}

fn test(one: &ChannelOne, config: &Config, printer: &mut Printer) -> Ended {
    let mut session = session::open(config, Need::Record)?;
    session.know_channels(config)?;
    let test = session.api().test_channel(&one.name);
    session.close();
    let test = test?;
    if one.json {
        printer.json(&test)?;
    } else if test.delivered {
        let said = Line::default().with(GREEN, "delivered");
        printer.line(said.with(PLAIN, format!(" a test to {}", one.name)))?;
    } else {
        let why = test.error.as_deref().unwrap_or_default();
        let said = Line::default().with(RED, "not delivered");
        printer.line(said.with(PLAIN, format!(": {why}")))?;
    }
    Ok(if test.delivered {
        Exit::Success
    } else {
        Exit::Failed
    })
}

/// Does something with the notices that are named, or with all that it can be done with.
fn act(
    which: &ChannelNotices,
    action: NoticeAction,
    config: &Config,
    printer: &mut Printer,
) -> Ended {
    let session = session::open(config, Need::Record)?;
    let acted = || {
        let mut numbers = which.numbers.clone();
        if numbers.is_empty() {
            let view = session.api().channel(&which.name)?;
            numbers.extend(view.failed.iter().map(|notice| notice.number));
            if action == NoticeAction::Again {
                numbers.extend(view.queue.iter().map(|notice| notice.number));
            }
        }
        for number in &numbers {
            session.api().notice(&which.name, *number, action)?;
        }
        Ok::<_, kapell_model::Error>(numbers)
    };
    let acted = acted();
    session.close();
    let numbers = acted?;
    if which.json {
        printer.json(&json!({ "channel": which.name, "notices": numbers }))?;
        return Ok(Exit::Success);
    }
    let done = match action {
        NoticeAction::Again => "are sent now",
        NoticeAction::Forget => "are forgotten",
    };
    let count = words::count(numbers.len() as u64, "notice");
    printer.plain(format!("{count} of {} {done}", which.name))?;
    Ok(Exit::Success)
}
