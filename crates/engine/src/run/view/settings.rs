//! What a step starts with, as its definition says, with what expressions give now.

use kapell_expr::{Budget, Fragment, Program, Template, Value, format_duration};
use kapell_model::spec::{Dyn, Http, HttpAuth, Step, Verb, Wait};

use super::super::names::At;

/// A setting of a step.
pub(super) enum Setting<'s> {
    /// Evaluated.
    Template(&'s Template),
    /// Evaluated.
    Program(&'s Program),
    /// Its source: what it looks at is not there yet.
    Source(&'s Program),
    /// As it is.
    Text(String),
}

impl Setting<'_> {
    /// What it is now. Secrets are names.
    pub(super) fn shown(&self, names: &At<'_>) -> Result<serde_json::Value, String> {
        let value = match self {
            Self::Template(Template::Text(text)) if !text.secrets().is_empty() => {
                let parts = text.render(names, Budget::default());
                let part = |part| match part {
                    Fragment::Text(text) => text,
                    Fragment::Secret(name) => format!("${{{{ secrets.{name} }}}}"),
                };
                parts.map(|parts| Value::string(parts.into_iter().map(part).collect::<String>()))
            }
            Self::Template(template) => template.eval(names, Budget::default()),
            Self::Program(program) => program.eval(names, Budget::default()),
            Self::Source(program) => return Ok(program.source().into()),
            Self::Text(text) => return Ok(text.as_str().into()),
        };
        value
            .map(|value| value.to_json())
            .map_err(|error| error.to_string())
    }
}

/// Settings with their keys.
type Settings<'s> = Vec<(String, Setting<'s>)>;

/// What a step starts with, by the keys of its definition: of a foreach what is of it as a whole.
pub(super) fn of(step: &Step) -> Settings<'_> {
    let mut found = Settings::new();
    if let Some(condition) = &step.condition {
        found.push(("if".to_owned(), Setting::Program(condition)));
    }
    if let Some(foreach) = &step.foreach {
        found.extend(named("foreach", &foreach.vars));
        if let Some(Dyn::Expr(concurrency)) = &foreach.concurrency {
            let name = "foreach.concurrency".to_owned();
            found.push((name, Setting::Program(concurrency)));
        }
        return found;
    }
    found.extend(template("with", step.with.as_ref()));
    for (name, value) in &step.env {
        found.extend(template(&format!("env.{name}"), value.as_ref()));
    }
    verb(&step.verb, &mut found);
    found.extend(template("not_before", step.not_before.as_ref()));
    for (place, lock) in step.locks.iter().enumerate() {
        let name = format!("locks[{place}].name");
        found.push((name, Setting::Template(&lock.name)));
    }
    found
}

fn verb<'s>(verb: &'s Verb, found: &mut Settings<'s>) {
    match verb {
        Verb::Shell { args, .. } => found.extend(numbered("args", args)),
        Verb::Exec { argv } => found.extend(numbered("exec", argv)),
        Verb::Http(request) => http(request, found),
        Verb::Set { values } => found.extend(named("set", values)),
        Verb::Switch { branches } => {
            for (place, branch) in branches.iter().enumerate() {
                if let Some(when) = &branch.when {
                    found.push((format!("switch[{place}].when"), Setting::Program(when)));
                }
            }
        }
        Verb::Loop(cycle) => {
            found.extend(named("vars", &cycle.vars));
            let conditions = [("while", &cycle.while_), ("until", &cycle.until)];
            for (name, condition) in conditions {
                let condition = condition.as_ref().map(Setting::Source);
                found.extend(condition.map(|condition| (format!("loop.{name}"), condition)));
            }
        }
        Verb::Wait(Wait::Until(until)) => found.extend(template("wait.until", Some(until))),
        Verb::Wait(Wait::For(Dyn::Expr(span))) => {
            found.push(("wait".to_owned(), Setting::Program(span)));
        }
        Verb::Wait(Wait::For(Dyn::Fixed(span))) => {
            found.push(("wait".to_owned(), Setting::Text(format_duration(*span))));
        }
        Verb::Await(wanted) => {
            let signal = Setting::Text(wanted.signal.to_string());
            found.push(("await.signal".to_owned(), signal));
            let matches = wanted.matches.as_ref().map(Setting::Source);
            found.extend(matches.map(|matches| ("await.match".to_owned(), matches)));
            found.extend(template("await.since", wanted.since.as_ref()));
        }
        Verb::Approval(approval) => {
            found.extend(template("approval.message", approval.message.as_ref()));
        }
        Verb::Fail { message } => found.extend(template("fail", Some(message))),
        Verb::Python { .. } | Verb::Workflow { .. } | Verb::Steps { .. } | Verb::Noop => {}
    }
}

fn http<'s>(request: &'s Http, found: &mut Settings<'s>) {
    found.extend(template("http.url", Some(&request.url)));
    found.extend(template("http.query", request.query.as_ref()));
    found.extend(named("http.headers", &request.headers));
    match &request.auth {
        Some(HttpAuth::Bearer(token)) => found.extend(template("http.auth.bearer", Some(token))),
        Some(HttpAuth::Basic { user, password }) => {
            found.extend(template("http.auth.user", Some(user)));
            found.extend(template("http.auth.password", Some(password)));
        }
        None => {}
    }
    found.extend(template("http.json", request.json.as_ref()));
    found.extend(template("http.body", request.body.as_ref()));
}

fn template<'s>(name: &str, template: Option<&'s Template>) -> Option<(String, Setting<'s>)> {
    template.map(|template| (name.to_owned(), Setting::Template(template)))
}

fn named<'s>(
    key: &'static str,
    values: &'s [(std::sync::Arc<str>, Template)],
) -> impl Iterator<Item = (String, Setting<'s>)> {
    values
        .iter()
        .map(move |(name, value)| (format!("{key}.{name}"), Setting::Template(value)))
}

fn numbered<'s>(
    key: &'static str,
    values: &'s [Template],
) -> impl Iterator<Item = (String, Setting<'s>)> {
    let values = values.iter().enumerate();
    values.map(move |(place, value)| (format!("{key}[{place}]"), Setting::Template(value)))
}
