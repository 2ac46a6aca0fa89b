//! From messages to the types of this crate. What is malformed is refused, whoever sent it.

use std::sync::Arc;
use std::time::Duration;

use kapell_expr::{BlobRef, Value};
use kapell_model::spec::PythonSource;
use kapell_model::{FailureKind, Offer, RunId, SessionId, Time, limits};

use super::{Holding, proto};
use crate::task::{
    self, Artifact, HttpCredentials, HttpRequest, Input, Outcome, Place, SecretText, TaskEvent,
    TaskResources, Usage, Work,
};

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of a worker's session is malformed: {0}")]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

fn given<T>(value: Option<T>, what: &'static str) -> Result<T> {
    value.ok_or(Malformed(what))
}

/// The name of one handing-out.
pub fn attempt(attempt: Option<&proto::Attempt>) -> Result<(RunId, Place, Offer)> {
    let attempt = given(attempt, "no attempt")?;
    let run = u128::from(attempt.run_high) << 64 | u128::from(attempt.run_low);
    if run == 0 {
        return Err(Malformed("no run"));
    }
    let run = RunId(run);
    let place = Place {
        scope: attempt.scope,
        step: u16::try_from(attempt.step).map_err(|_| Malformed("a step beyond all"))?,
        item: attempt.item.wrapping_sub(1),
    };
    let offer = Offer {
        epoch: attempt.epoch,
        counter: attempt.counter,
    };
    Ok((run, place, offer))
}

/// Resources of a worker or an attempt.
pub fn resources(resources: Option<proto::Resources>) -> TaskResources {
    let resources = resources.unwrap_or_default();
    TaskResources {
        cpu_millis: resources.cpu_millis,
        memory_bytes: resources.memory_bytes,
        gpus: resources.gpus,
        custom: resources
            .custom
            .iter()
            .map(|(name, amount)| (name.as_str().into(), *amount))
            .collect(),
    }
}

/// A blob's name.
pub fn blob(blob: &proto::Blob) -> Result<BlobRef> {
    let hash = &blob.hash;
    let is_hash = hash.len() == 64
        && hash
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        return Err(Malformed("no hash of a blob"));
    }
    Ok(BlobRef {
        hash: hash.as_str().into(),
        size: blob.size,
    })
}

/// An attempt that a worker has.
pub fn holding(held: &proto::Holding) -> Result<Holding> {
    let (run, place, offer) = attempt(held.attempt.as_ref())?;
    Ok(Holding {
        run,
        place,
        offer,
        attempt: held.number,
        light: held.light,
        needs: resources(held.needs.clone()),
    })
}

/// A task that a session got.
pub fn task(session: SessionId, task: proto::Task) -> Result<task::Task> {
    let (run, place, offer) = attempt(task.attempt.as_ref())?;
    let process = task.process.map(|given| process(*given)).transpose()?;
    Ok(task::Task {
        offer,
        session,
        queue: task.queue.into(),
        run,
        place,
        attempt: task.number,
        alone: task.alone,
        work: work(given(task.work, "a task without work")?, process)?,
    })
}

fn work(work: proto::task::Work, process: Option<task::Process>) -> Result<Work> {
    use proto::task::Work as From;
    let process = || given(process, "a process without its part").map(Box::new);
    Ok(match work {
        From::Noop(proto::Noop {}) => Work::Noop,
        From::Fail(fail) => Work::Fail {
            message: fail.message,
        },
        From::Shell(shell) => Work::Shell {
            script: shell.script.into(),
            interpreter: texts(shell.interpreter),
            args: shell.args,
            process: process()?,
        },
        From::Exec(exec) => Work::Exec {
            argv: exec.argv,
            process: process()?,
        },
        From::Python(python) => {
            use proto::python::Source;
            Work::Python {
                source: match given(python.source, "a function without a source")? {
                    Source::File(path) => PythonSource::File(path.into()),
                    Source::Module(name) => PythonSource::Module(name.into()),
                    Source::Code(code) => PythonSource::Code(code.into()),
                },
                function: python.function.into(),
                requirements: texts(python.requirements),
                concurrency: python.concurrency,
                process: process()?,
            }
        }
        From::Http(request) => Work::Http {
            request: Box::new(http(*request)?),
            process: process()?,
        },
    })
}

fn texts(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

/// Content types that a rendered request may have.
const BODY_KINDS: [&str; 2] = ["application/json", "text/plain; charset=utf-8"];

fn http(request: proto::Http) -> Result<HttpRequest> {
    let auth = match (request.bearer, request.user, request.password) {
        (Some(token), _, _) => Some(HttpCredentials::Bearer(text(token)?)),
        (None, Some(user), Some(password)) => Some(HttpCredentials::Basic {
            user: text(user)?,
            password: text(password)?,
        }),
        (None, _, _) => None,
    };
    let body = match request.body {
        None => None,
        Some(body) => {
            let kind = BODY_KINDS.into_iter().find(|kind| *kind == body.name);
            Some((given(kind, "an unknown kind of body")?, body.value))
        }
    };
    let headers = request.headers.into_iter();
    Ok(HttpRequest {
        method: request.method.into(),
        url: request.url,
        query: request
            .query
            .into_iter()
            .map(|pair| (pair.name, pair.value))
            .collect(),
        headers: headers
            .map(|header| {
                let value = text(given(header.text, "a header without text")?)?;
                Ok((Arc::from(header.name), value))
            })
            .collect::<Result<_>>()?,
        body,
        auth,
    })
}

fn process(process: proto::Process) -> Result<task::Process> {
    let secrets = process.with_secrets.into_iter();
    let secrets = secrets.map(|place| {
        let value = text(given(place.text, "a secret without text")?)?;
        Ok((place.name, value))
    });
    let env = process.env.into_iter();
    let env = env.map(|variable| {
        let value = variable.text.map(text).transpose()?;
        Ok((Arc::from(variable.name), value))
    });
    Ok(task::Process {
        path: process.path.into(),
        namespace: process.namespace.into(),
        workflow: process.workflow.into(),
        with: Input {
            value: stored(&process.with)?,
            secrets: secrets.collect::<Result<_>>()?,
        },
        env: env.collect::<Result<_>>()?,
        idempotency_key: process.idempotency_key.into(),
        timeout: (process.timeout_micros > 0)
            .then(|| Duration::from_micros(process.timeout_micros)),
        grace: Duration::from_micros(process.grace_micros),
        resources: resources(process.resources),
        output_file: (!process.output_file.is_empty()).then(|| process.output_file.into()),
        artifacts_in: process
            .artifacts_in
            .into_iter()
            .map(placed)
            .collect::<Result<_>>()?,
        artifacts_out: process
            .artifacts_out
            .into_iter()
            .map(|pair| (Arc::from(pair.name), Arc::from(pair.value)))
            .collect(),
        bundle: process.bundle.as_ref().map(blob).transpose()?,
    })
}

fn placed(artifact: proto::PlacedArtifact) -> Result<(Arc<str>, Artifact)> {
    let blob = blob(&given(artifact.blob, "an artifact without its content")?)?;
    let name = artifact.name.into();
    Ok((artifact.path.into(), Artifact { blob, name }))
}

fn text(text: proto::Text) -> Result<SecretText> {
    use proto::text_part::Part;
    let parts = text.parts.into_iter().map(|part| {
        Ok(match given(part.part, "an empty part of a text")? {
            Part::Text(text) => task::TextPart::Text(text.into()),
            Part::Secret(name) => task::TextPart::Secret(name.into()),
        })
    });
    Ok(SecretText(parts.collect::<Result<_>>()?))
}

fn stored(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    Value::from_stored(bytes).map_err(|_| Malformed("a value that cannot be read"))
}

/// What a worker says of a task, and the number that it gives this.
pub fn report(report: proto::Report) -> Result<(u64, task::Report)> {
    let (run, place, offer) = attempt(report.attempt.as_ref())?;
    let event = match report.ended {
        None => TaskEvent::Started {
            at: Time(report.started_at),
        },
        Some(ended) => TaskEvent::Ended {
            started_at: Time(report.started_at),
            ended_at: Time(ended.at),
            outcome: outcome(given(ended.outcome, "an end without an outcome")?)?,
            usage: ended.usage.map(|usage| Usage {
                cpu_millis: usage.cpu_millis,
                memory_bytes: usage.memory_bytes,
            }),
        },
    };
    let told = task::Report {
        run,
        place,
        offer,
        worker: std::sync::Arc::default(),
        event,
    };
    Ok((report.number, told))
}

fn outcome(outcome: proto::ended::Outcome) -> Result<Outcome> {
    use proto::ended::Outcome as From;
    Ok(match outcome {
        From::Succeeded(bytes) if bytes.len() > 2 * limits::INLINE_OUTPUT_BYTES => {
            return Err(Malformed("an output too big for a report"));
        }
        From::Succeeded(bytes) => Outcome::Succeeded(stored(&bytes)?),
        From::Failed(failed) => Outcome::Failed(Box::new(error(*failed))),
        From::Cancelled(proto::Cancelled {}) => Outcome::Cancelled,
        From::Lost(lost) => Outcome::Lost {
            reason: bounded(lost.reason),
            explained: lost.explained,
        },
    })
}

fn error(error: proto::TaskError) -> task::TaskError {
    let kind = match error.kind() {
        proto::Kind::User => FailureKind::User,
        proto::Kind::Timeout => FailureKind::Timeout,
        proto::Kind::Platform => FailureKind::Platform,
    };
    task::TaskError {
        kind,
        reason: bounded(error.reason),
        message: bounded(error.message),
        exit_code: error.exit_code,
        http_status: error.http_status.and_then(|status| status.try_into().ok()),
        permanent: error.permanent,
        retry_after: error.retry_after_micros.map(Duration::from_micros),
        traceback: error.traceback,
    }
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::ERROR_BYTES));
    text
}
