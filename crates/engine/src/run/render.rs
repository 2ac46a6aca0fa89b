//! What a task carries: expressions evaluated, secrets still names.

use std::sync::Arc;
use std::time::Duration;

use kapell_api::task::{
    Artifact, Custom, HttpCredentials, HttpRequest, Input, Place, Process, SecretText,
    TaskResources, TextPart, Work,
};
use kapell_expr::{Part, Template, Value};
use kapell_model::limits;
use kapell_model::spec::{Dyn, Http, HttpAuth, Resources, Step, Verb};

use super::names::At;
use super::{Decider, Stop};
use crate::event::ScopeKind;

/// Where the artifacts in a value go. A list fills the folder `target`; the place in the list comes
/// before each name, because the items of one foreach all name their file alike.
fn place_artifacts(
    files: &mut Vec<(Arc<str>, Artifact)>,
    target: &Arc<str>,
    value: &Value,
) -> Result<(), Stop> {
    let read = |value: &Value| {
        Artifact::from_value(value).ok_or_else(|| {
            Stop::Failed(format!(
                "artifacts.in.{target}: expected an artifact, found a {}",
                value.type_name()
            ))
        })
    };
    let Some(list) = value.as_list() else {
        files.push((target.clone(), read(value)?));
        return Ok(());
    };
    let folder = target.trim_end_matches('/');
    let width = list.len().saturating_sub(1).to_string().len();
    for (index, value) in list.iter().enumerate() {
        let artifact = read(value)?;
        files.push((
            format!("{folder}/{index:0width$}-{}", artifact.name).into(),
            artifact,
        ));
    }
    Ok(())
}

pub(super) fn named(name: &str, stop: Stop) -> Stop {
    match stop {
        Stop::Failed(message) => Stop::Failed(format!("{name}: {message}")),
        Stop::Need(need) => Stop::Need(need),
    }
}

impl Decider<'_> {
    /// The work of a unit's next attempt.
    pub(super) fn work(&self, place: Place) -> Result<Work, Stop> {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Err(Stop::Failed("the step is not in the plan".to_owned()));
        };
        let step = &*plan.step;
        if let Verb::Noop = step.verb {
            return Ok(Work::Noop);
        }
        let names = At::unit(self.run, place, self.now);
        Ok(match &step.verb {
            Verb::Fail { message } => Work::Fail {
                message: self.text(message, &names)?,
            },
            Verb::Shell {
                script,
                interpreter,
                args,
            } => Work::Shell {
                script: script.clone(),
                interpreter: interpreter.clone(),
                args: self.texts("args", args, &names)?,
                process: self.process(place, step, &names)?,
            },
            Verb::Exec { argv } => Work::Exec {
                argv: self.texts("exec", argv, &names)?,
                process: self.process(place, step, &names)?,
            },
            Verb::Python {
                source,
                function,
                requirements,
                concurrency,
            } => Work::Python {
                source: source.clone(),
                function: function.clone(),
                requirements: requirements.clone(),
                concurrency: *concurrency,
                process: self.process(place, step, &names)?,
            },
            Verb::Http(http) => Work::Http {
                request: Box::new(self.http(http, &names)?),
                process: self.process(place, step, &names)?,
            },
            Verb::Noop
            | Verb::Workflow { .. }
            | Verb::Steps { .. }
            | Verb::Switch { .. }
            | Verb::Loop(_)
            | Verb::Wait(_)
            | Verb::Await(_)
            | Verb::Approval(_)
            | Verb::Set { .. } => Work::Noop,
        })
    }

    pub(super) fn text(&self, template: &Template, names: &At<'_>) -> Result<String, Stop> {
        match self.render(template, names)? {
            Value::Null => Ok(String::new()),
            Value::Blob(blob) => Err(Stop::from(kapell_expr::EvalError::Need(blob))),
            value => Ok(value.text()),
        }
    }

    fn texts(&self, what: &str, list: &[Template], names: &At<'_>) -> Result<Vec<String>, Stop> {
        list.iter()
            .map(|template| self.text(template, names).map_err(|stop| named(what, stop)))
            .collect()
    }

    /// Text that may hold secrets; none if it is one expression that gives null.
    fn secret_text(&self, template: &Template, names: &At<'_>) -> Result<Option<SecretText>, Stop> {
        let Template::Text(text) = template else {
            let value = self.render(template, names)?;
            if let Value::Blob(blob) = value {
                return Err(Stop::from(kapell_expr::EvalError::Need(blob)));
            }
            return Ok((!value.is_null()).then(|| SecretText::plain(value.text())));
        };
        let mut parts = Vec::with_capacity(text.parts.len());
        for part in text.parts.iter() {
            parts.push(match part {
                Part::Literal(text) => TextPart::Text(text.clone()),
                Part::Secret(name) => TextPart::Secret(name.clone()),
                Part::Expr(program) => TextPart::Text(self.eval(program, names)?.text().into()),
            });
        }
        Ok(Some(SecretText(parts)))
    }

    fn process(&self, place: Place, step: &Step, names: &At<'_>) -> Result<Box<Process>, Stop> {
        let state = &self.run.state;
        let path: Arc<str> = state.path(&self.run.plan, place).into();
        let mut env = Vec::with_capacity(step.env.len());
        for (name, template) in &step.env {
            let value = match template {
                Some(template) => self
                    .secret_text(template, names)
                    .map_err(|stop| named(&format!("env.{name}"), stop))?,
                None => None,
            };
            env.push((name.clone(), value));
        }
        let with = match &step.with {
            Some(template) => self
                .input(template, names)
                .map_err(|stop| named("with", stop))?,
            None => Input::default(),
        };
        let mut artifacts_in = Vec::with_capacity(step.artifacts.inputs.len());
        for (target, template) in &step.artifacts.inputs {
            let value = self
                .render(template, names)
                .map_err(|stop| named("artifacts.in", stop))?;
            place_artifacts(&mut artifacts_in, target, &value)?;
        }
        let timeout = match &step.timeout.attempt {
            Some(timeout) => self
                .duration(timeout, names)
                .map_err(|stop| named("timeout", stop))?
                .map(|span| Duration::try_from(span).unwrap_or(Duration::ZERO)),
            None => self.in_finally(place).then_some(limits::FINALLY_TIMEOUT),
        };
        Ok(Box::new(Process {
            idempotency_key: format!("{}/{path}", state.meta.id).into(),
            path,
            namespace: state.meta.namespace.clone(),
            workflow: state.meta.workflow.clone(),
            with,
            env,
            timeout,
            grace: limits::GRACE,
            resources: self.resources(&step.resources, names)?,
            output_file: step.outputs.file.clone(),
            artifacts_in,
            artifacts_out: step.artifacts.outputs.clone(),
            bundle: state.meta.bundle.clone(),
        }))
    }

    fn in_finally(&self, place: Place) -> bool {
        let mut scope = self.run.state.scopes.get(&place.scope);
        while let Some(here) = scope {
            if here.kind == ScopeKind::Finally {
                return true;
            }
            scope = here
                .parent
                .and_then(|parent| self.run.state.scopes.get(&parent.scope));
        }
        false
    }

    /// A tree in which secrets are left out and named beside it.
    fn input(&self, template: &Template, names: &At<'_>) -> Result<Input, Stop> {
        let mut secrets = Vec::new();
        let value = self.tree(template, names, &mut String::new(), &mut secrets)?;
        Ok(Input { value, secrets })
    }

    fn tree(
        &self,
        template: &Template,
        names: &At<'_>,
        pointer: &mut String,
        secrets: &mut Vec<(String, SecretText)>,
    ) -> Result<Value, Stop> {
        match template {
            Template::Literal(value) => Ok(value.clone()),
            Template::Expr(program) => self.eval(program, names),
            Template::Text(text) => {
                if text
                    .parts
                    .iter()
                    .any(|part| matches!(part, Part::Secret(_)))
                {
                    if let Some(text) = self.secret_text(template, names)? {
                        secrets.push((pointer.clone(), text));
                    }
                    return Ok(Value::Null);
                }
                self.render(template, names)
            }
            Template::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let len = pointer.len();
                    pointer.push_str(&format!("/{index}"));
                    list.push(self.tree(item, names, pointer, secrets)?);
                    pointer.truncate(len);
                }
                Ok(Value::list(list))
            }
            Template::Map(entries) => {
                let mut map = kapell_expr::Map::new();
                for (key, item) in entries.iter() {
                    let len = pointer.len();
                    pointer.push('/');
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                    map.insert(key.clone(), self.tree(item, names, pointer, secrets)?);
                    pointer.truncate(len);
                }
                Ok(Value::Map(map.into()))
            }
        }
    }

    fn resources(&self, resources: &Resources, names: &At<'_>) -> Result<TaskResources, Stop> {
        let mut needs = TaskResources {
            cpu_millis: 0,
            memory_bytes: 0,
            gpus: 0,
            custom: Custom::NONE,
        };
        if let Some(cpu) = &resources.cpu {
            let cores = match cpu {
                Dyn::Fixed(cores) => *cores,
                Dyn::Expr(program) => match self.eval(program, names)? {
                    Value::Int(cores) => f64::from(u32::try_from(cores).unwrap_or(0)),
                    Value::Float(cores) => cores,
                    other => return Err(wrong("resources.cpu", "a number", &other)),
                },
            };
            needs.cpu_millis = millis(cores);
        }
        if let Some(memory) = &resources.memory {
            needs.memory_bytes = self.whole("resources.memory", memory, names)?;
        }
        if let Some(gpu) = &resources.gpu {
            needs.gpus =
                u32::try_from(self.whole("resources.gpu", gpu, names)?).unwrap_or(u32::MAX);
        }
        if !resources.custom.is_empty() {
            let amount = |(name, amount): &(Arc<str>, Dyn<i64>)| {
                let what = format!("resources.custom.{name}");
                Ok((name.clone(), self.whole(&what, amount, names)?))
            };
            let amounts: Result<Vec<_>, Stop> = resources.custom.iter().map(amount).collect();
            let needed = amounts?.into_iter().filter(|(_, amount)| *amount > 0);
            needs.custom = needed.collect();
        }
        Ok(needs)
    }

    fn whole(&self, what: &str, setting: &Dyn<i64>, names: &At<'_>) -> Result<u64, Stop> {
        let number = match setting {
            Dyn::Fixed(number) => *number,
            Dyn::Expr(program) => match self.eval(program, names)? {
                Value::Int(number) => number,
                other => return Err(wrong(what, "a whole number", &other)),
            },
        };
        u64::try_from(number).map_err(|_| Stop::Failed(format!("{what}: {number} is below 0")))
    }

    fn http(&self, http: &Http, names: &At<'_>) -> Result<HttpRequest, Stop> {
        let mut headers = Vec::with_capacity(http.headers.len());
        for (name, template) in &http.headers {
            if let Some(text) = self
                .secret_text(template, names)
                .map_err(|stop| named("http.headers", stop))?
            {
                headers.push((name.clone(), text));
            }
        }
        let body = if let Some(json) = &http.json {
            let value = self
                .render(json, names)
                .map_err(|stop| named("http.json", stop))?;
            Some(("application/json", value.to_json().to_string()))
        } else if let Some(body) = &http.body {
            Some(("text/plain; charset=utf-8", self.text(body, names)?))
        } else {
            None
        };
        let secret = |template: &Template| {
            self.secret_text(template, names)
                .map(|text| text.unwrap_or_else(|| SecretText::plain("")))
        };
        let auth = match &http.auth {
            None => None,
            Some(HttpAuth::Bearer(token)) => Some(HttpCredentials::Bearer(secret(token)?)),
            Some(HttpAuth::Basic { user, password }) => Some(HttpCredentials::Basic {
                user: secret(user)?,
                password: secret(password)?,
            }),
        };
        Ok(HttpRequest {
            method: http.method.clone(),
            url: self
                .url(&http.url, names)
                .map_err(|stop| named("http.url", stop))?,
            query: self.query(http.query.as_ref(), names)?,
            headers,
            body,
            auth,
        })
    }

    fn url(&self, template: &Template, names: &At<'_>) -> Result<String, Stop> {
        let Template::Text(text) = template else {
            return self.text(template, names);
        };
        let mut url = String::new();
        for part in text.parts.iter() {
            match part {
                Part::Literal(text) => url.push_str(text),
                Part::Expr(program) => percent_encode(&self.eval(program, names)?.text(), &mut url),
                Part::Secret(name) => {
                    return Err(Stop::Failed(format!(
                        "the secret `{name}` cannot be part of a URL"
                    )));
                }
            }
        }
        Ok(url)
    }

    fn query(
        &self,
        query: Option<&Template>,
        names: &At<'_>,
    ) -> Result<Vec<(String, String)>, Stop> {
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        let value = self
            .render(query, names)
            .map_err(|stop| named("http.query", stop))?;
        let mut pairs = Vec::new();
        for (key, value) in value.as_map().into_iter().flat_map(|map| map.iter()) {
            match value {
                Value::Null => {}
                Value::List(items) => {
                    pairs.extend(items.iter().map(|item| (key.to_string(), item.text())));
                }
                value => pairs.push((key.to_string(), value.text())),
            }
        }
        Ok(pairs)
    }
}

fn wrong(what: &str, expected: &str, found: &Value) -> Stop {
    Stop::Failed(format!(
        "{what}: expected {expected}, found a {}",
        found.type_name()
    ))
}

/// Everything but RFC 3986's unreserved characters is encoded.
fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Thousandths of a core.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "held between 0 and a million cores"
)]
pub(super) fn millis(cores: f64) -> u64 {
    (cores.clamp(0.0, 1e6) * 1000.0).round() as u64
}
