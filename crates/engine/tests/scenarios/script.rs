//! What happens in a scenario: how attempts go, and what people do and when.

use std::time::Duration;

use jiff::SignedDuration;
use kapell_api::task::{Outcome, TaskError};
use kapell_engine::event::BreakAt;
use kapell_engine::run::waiting::Break;
use kapell_expr::{Value, parse_duration};
use kapell_model::FailureKind;

/// A scenario's script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// How attempts go; of those that match a path equally well the last counts.
    rules: Vec<Rule>,
    /// What people do.
    pub commands: Vec<Command>,
    /// Attempts that start something and fit at once.
    pub workers: Option<usize>,
    /// When it is over, since the beginning; none: once nothing more happens.
    pub until: Option<SignedDuration>,
}

/// How the attempts of a step go.
#[derive(Clone, Debug)]
struct Rule {
    run: Option<usize>,
    path: String,
    attempts: Vec<Attempt>,
}

/// How one attempt goes.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// How it ends.
    pub outcome: Outcome,
    /// How long it takes; none is for ever.
    pub takes: Option<SignedDuration>,
    /// What it does when told to stop.
    pub stop: Stop,
}

/// What an attempt does when told to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stop {
    /// Ends after so long.
    After(SignedDuration),
    /// Says nothing more.
    Never,
    /// It has just ended as it would have.
    TooLate,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// When, since the beginning.
    pub at: SignedDuration,
    /// To which run, from 1.
    pub run: usize,
    /// What.
    pub what: What,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Starts a run: of which workflow, with which parameters.
    Start(Option<String>, Vec<(String, String)>),
    /// Forks from a step with changed parameters.
    Fork(String, Vec<(String, String)>),
    Cancel {
        now: bool,
    },
    Pause,
    Resume,
    Retry,
    Restart(String),
    Skip(String),
    Set(String, Value),
    Priority(u8),
    Dismiss,
    /// Asks what every step waits for.
    Why,
    /// The worker of an attempt dies.
    Lose(String),
    /// As many attempts fit from now on.
    Workers(usize),
    /// Sends a signal: its name, its id if it has one of its own, its payload.
    Send(String, String, Value),
    /// Answers what a step asks: the step, who with their group, yes or no, what they fill in or say.
    Answer(String, String, bool, String),
    /// Sets one more breakpoint.
    Break(Break),
    /// Lets steps go on; with `true` the next ones stop.
    Continue(Option<String>, bool),
    /// Changes a parameter.
    Param(String, String),
    /// The triggers of every workflow are set.
    Deploy,
    /// Nobody is there for so long: what is due meanwhile happens afterwards.
    Away(SignedDuration),
    /// Pauses a trigger of the first workflow, or resumes it.
    Trigger(String, bool),
    /// Pauses a backfill of the first workflow, or resumes it.
    HoldBackfill(String, bool),
    /// Backfills a trigger of the first workflow: its name, from and until since the beginning, which
    /// due times, how many at once.
    Backfill(String, SignedDuration, SignedDuration, String, u32),
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            outcome: Outcome::Succeeded(Value::Null),
            takes: Some(SignedDuration::ZERO),
            stop: Stop::After(SignedDuration::ZERO),
        }
    }
}

impl Script {
    /// Reads a script.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for line in text.lines() {
            let line = line.split(" # ").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with("# ") {
                continue;
            }
            let bad = |error: String| format!("`{line}`: {error}");
            if let Some(count) = line.strip_prefix("workers ") {
                script.workers = Some(count.trim().parse().map_err(|_| bad("how many?".into()))?);
                continue;
            }
            if let Some(span) = line.strip_prefix("until ") {
                script.until = Some(parse_duration(span.trim()).map_err(bad)?);
                continue;
            }
            let first = line.split_whitespace().next().unwrap_or_default();
            if let Ok(at) = parse_duration(first) {
                let (run, what) = numbered(line[first.len()..].trim());
                let what = command(what).map_err(bad)?;
                script.commands.push(Command {
                    at,
                    run: run.unwrap_or(1),
                    what,
                });
                continue;
            }
            let (run, rest) = numbered(line);
            let (path, attempts) = rest
                .split_once(": ")
                .ok_or_else(|| bad("neither a time nor a step".into()))?;
            let attempts = attempts
                .split(", then ")
                .map(attempt)
                .collect::<Result<_, _>>()
                .map_err(bad)?;
            script.rules.push(Rule {
                run,
                path: path.trim().to_owned(),
                attempts,
            });
        }
        if !script
            .commands
            .iter()
            .any(|command| matches!(command.what, What::Start(..) | What::Deploy))
        {
            let start = What::Start(None, Vec::new());
            script.commands.insert(
                0,
                Command {
                    at: SignedDuration::ZERO,
                    run: 1,
                    what: start,
                },
            );
        }
        Ok(script)
    }

    /// How the `nth` attempt (from 0) at a path goes in a run.
    pub(crate) fn attempt(&self, run: usize, path: &str, nth: usize) -> Attempt {
        let bare = without_numbers(path);
        let last = bare.rsplit('.').next().unwrap_or_default();
        let fit = |rule: &Rule| {
            let path_fit = if rule.path == path {
                3
            } else if rule.path == bare {
                2
            } else {
                usize::from(rule.path == last)
            };
            let run_fits = rule.run.is_none_or(|number| number == run);
            if path_fit > 0 && run_fits {
                path_fit * 2 + usize::from(rule.run.is_some())
            } else {
                0
            }
        };
        self.rules
            .iter()
            .filter(|rule| fit(rule) > 0)
            .max_by_key(|rule| fit(rule))
            .and_then(|rule| rule.attempts.get(nth.min(rule.attempts.len() - 1)))
            .cloned()
            .unwrap_or_default()
    }
}

/// A path without the numbers of items and iterations.
fn without_numbers(path: &str) -> String {
    let part = |part: &str| part.split(['[', '#']).next().unwrap_or_default().to_owned();
    path.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// `#2 rest` names a run.
fn numbered(text: &str) -> (Option<usize>, &str) {
    let found = text.strip_prefix('#').and_then(|rest| rest.split_once(' '));
    match found.and_then(|(number, rest)| Some((number.parse().ok()?, rest.trim()))) {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

fn command(text: &str) -> Result<What, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let pairs = |words: &str| -> Vec<(String, String)> {
        words
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    Ok(match (verb, rest) {
        ("start", _) => {
            let name = rest
                .split_whitespace()
                .next()
                .filter(|word| !word.contains('='));
            What::Start(name.map(str::to_owned), pairs(rest))
        }
        ("fork", _) => What::Fork(
            rest.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            pairs(rest),
        ),
        ("deploy", "") => What::Deploy,
        ("away", span) => What::Away(parse_duration(span)?),
        ("pause-trigger", name) => What::Trigger(name.to_owned(), true),
        ("resume-trigger", name) => What::Trigger(name.to_owned(), false),
        ("pause-backfill", id) => What::HoldBackfill(id.to_owned(), true),
        ("resume-backfill", id) => What::HoldBackfill(id.to_owned(), false),
        ("backfill", rest) => backfill(rest)?,
        ("cancel", "") => What::Cancel { now: false },
        ("cancel", "now") => What::Cancel { now: true },
        ("pause", "") => What::Pause,
        ("resume", "") => What::Resume,
        ("retry", "") => What::Retry,
        ("dismiss", "") => What::Dismiss,
        ("send", rest) => {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, "null"));
            let id = rest
                .strip_prefix("id=")
                .and_then(|rest| rest.split_once(' '));
            let (id, payload) = id.unwrap_or(("", rest));
            What::Send(name.to_owned(), id.to_owned(), json(payload)?)
        }
        ("approve" | "reject", rest) => {
            let (step, rest) = rest.split_once(' ').ok_or("who answers which step?")?;
            let (who, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            What::Answer(step.into(), who.into(), verb == "approve", rest.into())
        }
        ("break", rest) => {
            let (rest, when) = match rest.split_once(" if ") {
                Some((rest, when)) => (rest, Some(when.into())),
                None => (rest, None),
            };
            let (step, at) = rest.split_once(' ').ok_or("break where?")?;
            let at = match at {
                "before" => BreakAt::Before,
                "after" => BreakAt::After,
                "on_failure" => BreakAt::OnFailure,
                other => return Err(format!("nothing stops `{other}`")),
            };
            let step = (step != "*").then(|| step.into());
            What::Break(Break {
                step,
                at,
                when,
                by: None,
            })
        }
        ("continue", "") => What::Continue(None, false),
        ("continue", step) => What::Continue(Some(step.to_owned()), false),
        ("step", "") => What::Continue(None, true),
        ("step", step) => What::Continue(Some(step.to_owned()), true),
        ("param", rest) => {
            let (name, value) = rest.split_once('=').ok_or("which parameter?")?;
            What::Param(name.to_owned(), value.to_owned())
        }
        ("why", "") => What::Why,
        ("restart", step) => What::Restart(step.to_owned()),
        ("skip", step) => What::Skip(step.to_owned()),
        ("lose", step) => What::Lose(step.to_owned()),
        ("set", rest) => {
            // `set STEP VALUE`, `set STEP by WHO VALUE`
            let whom = rest
                .split_once(" by ")
                .map_or(0, |(step, _)| step.len() + 4);
            let value = rest[whom..].find(' ').ok_or("set which step to what?")? + whom;
            What::Set(rest[..value].to_owned(), json(&rest[value + 1..])?)
        }
        ("priority", number) => What::Priority(
            number
                .parse()
                .map_err(|_| "a priority is 0 to 100".to_owned())?,
        ),
        ("workers", number) => {
            What::Workers(number.parse().map_err(|_| "how many workers?".to_owned())?)
        }
        _ => return Err(format!("nobody knows how to `{verb}`")),
    })
}

/// `nightly 0s 3h only=failed concurrency=2`.
fn backfill(text: &str) -> Result<What, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [name, from, until, options @ ..] = words.as_slice() else {
        return Err("of which trigger, from when until when?".to_owned());
    };
    let option = |wanted: &str| {
        let mut pairs = options.iter().filter_map(|word| word.split_once('='));
        pairs
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let concurrency = option("concurrency").unwrap_or("1").parse();
    Ok(What::Backfill(
        (*name).to_owned(),
        parse_duration(from)?,
        parse_duration(until)?,
        option("only").unwrap_or("missing").to_owned(),
        concurrency.map_err(|_| "how many at once?")?,
    ))
}

fn json(text: &str) -> Result<Value, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Value::from_json(&value))
}

/// `fails exit 3 after 2s (never stops)`.
fn attempt(text: &str) -> Result<Attempt, String> {
    let mut rest = text.trim();
    let mut made = Attempt::default();
    if let Some((before, note)) = rest
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" ("))
    {
        made.stop = match note {
            "never stops" => Stop::Never,
            "too late to stop" => Stop::TooLate,
            note => match note.strip_prefix("stops in ") {
                Some(span) => Stop::After(parse_duration(span)?),
                None => return Err(format!("what is `{note}`?")),
            },
        };
        rest = before;
    }
    if let Some((before, span)) = rest.rsplit_once(" after ") {
        made.takes = Some(parse_duration(span)?);
        rest = before;
    }
    let (verb, how) = rest.split_once(' ').unwrap_or((rest, ""));
    match (verb, how) {
        ("succeeds", "") => {}
        ("succeeds", output) => made.outcome = Outcome::Succeeded(json(output)?),
        ("returns", many) => {
            // A big output: so many thousand characters.
            let count: usize = many
                .strip_suffix("k")
                .unwrap_or(many)
                .parse()
                .map_err(|_| "how big?")?;
            made.outcome = Outcome::Succeeded(Value::string("x".repeat(count * 1000)));
        }
        ("hangs", "") => made.takes = None,
        ("is", "lost") => {
            made.outcome = Outcome::Lost {
                reason: "its worker is gone".to_owned(),
                explained: false,
            };
        }
        ("fails", how) => made.outcome = Outcome::Failed(Box::new(failure(how)?)),
        _ => return Err(format!("no attempt `{verb}`")),
    }
    Ok(made)
}

fn failure(how: &str) -> Result<TaskError, String> {
    let user = TaskError::default();
    let words: Vec<&str> = how.split_whitespace().collect();
    Ok(match words.as_slice() {
        [] => exit(1),
        ["permanently"] => TaskError {
            permanent: true,
            ..exit(78)
        },
        ["exit", code] => exit(code.parse().map_err(|_| "which exit code?")?),
        ["oom"] => TaskError {
            reason: "oom".into(),
            message: "out of memory".into(),
            ..user
        },
        ["connection"] => TaskError {
            kind: FailureKind::Platform,
            reason: "connection".into(),
            message: "connection refused".into(),
            ..user
        },
        ["http", status, after @ ..] => {
            let status: u16 = status.parse().map_err(|_| "which status?")?;
            let platform = matches!(status, 408 | 425 | 429 | 500..=599);
            let retry_after = match after {
                [] => None,
                ["retry-after", span] => Duration::try_from(parse_duration(span)?).ok(),
                _ => return Err("only `retry-after` follows a status".to_owned()),
            };
            TaskError {
                kind: if platform {
                    FailureKind::Platform
                } else {
                    FailureKind::User
                },
                reason: "http_status".into(),
                message: format!("HTTP status {status}"),
                http_status: Some(status),
                retry_after,
                ..user
            }
        }
        _ => return Err(format!("nothing fails `{how}`")),
    })
}

fn exit(code: i32) -> TaskError {
    TaskError {
        reason: "exit_code".into(),
        message: format!("exit code {code}"),
        exit_code: Some(code),
        ..TaskError::default()
    }
}
