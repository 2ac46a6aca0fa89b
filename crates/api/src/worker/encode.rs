//! From the types of this crate to messages.

use std::sync::Arc;
use std::time::Duration;

use kapell_expr::{BlobRef, Value};
use kapell_model::spec::PythonSource;
use kapell_model::{FailureKind, Offer, RunId};

use super::{Holding, proto};
use crate::task::{
    self, Artifact, HttpCredentials, HttpRequest, Outcome, Place, SecretText, TaskEvent,
    TaskResources, Work,
};

/// The name of one handing-out.
pub fn attempt(run: RunId, place: Place, offer: Offer) -> proto::Attempt {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let (run_high, run_low) = ((run.0 >> 64) as u64, run.0 as u64);
    proto::Attempt {
        run_high,
        run_low,
        scope: place.scope,
        step: u32::from(place.step),
        item: place.item.wrapping_add(1),
        epoch: offer.epoch,
        counter: offer.counter,
    }
}

/// Resources of a worker or an attempt.
pub fn resources(resources: &TaskResources) -> proto::Resources {
    proto::Resources {
        cpu_millis: resources.cpu_millis,
        memory_bytes: resources.memory_bytes,
        gpus: resources.gpus,
        custom: resources
            .custom
            .iter()
            .map(|(name, amount)| (name.to_string(), amount))
            .collect(),
    }
}

/// A blob's name.
pub fn blob(blob: &BlobRef) -> proto::Blob {
    proto::Blob {
        hash: blob.hash.to_string(),
        size: blob.size,
    }
}

/// An attempt that a worker has; `path`, `workflow` and `queue` are for people.
pub fn holding(held: &Holding, path: &str, workflow: &str, queue: &str) -> proto::Holding {
    proto::Holding {
        attempt: Some(attempt(held.run, held.place, held.offer)),
        number: held.attempt,
        light: held.light,
        needs: Some(resources(&held.needs)),
        path: path.to_owned(),
        workflow: workflow.to_owned(),
        queue: queue.to_owned(),
    }
}

/// Bytes of a task in a message.
pub fn size(task: &proto::Task) -> usize {
    prost::Message::encoded_len(task)
}

/// A task.
pub fn task(task: &task::Task) -> proto::Task {
    proto::Task {
        attempt: Some(attempt(task.run, task.place, task.offer)),
        number: task.attempt,
        alone: task.alone,
        queue: task.queue.to_string(),
        process: task.work.process().map(process).map(Box::new),
        work: Some(work(&task.work)),
    }
}

fn work(work: &Work) -> proto::task::Work {
    use proto::task::Work as To;
    match work {
        Work::Noop => To::Noop(proto::Noop {}),
        Work::Fail { message } => To::Fail(proto::Fail {
            message: message.clone(),
        }),
        Work::Shell {
            script,
            interpreter,
            args,
            process: _,
        } => To::Shell(proto::Shell {
            script: script.to_string(),
            interpreter: texts(interpreter),
            args: args.clone(),
        }),
        Work::Exec { argv, process: _ } => To::Exec(proto::Exec { argv: argv.clone() }),
        Work::Python {
            source,
            function,
            requirements,
            concurrency,
            process: _,
        } => {
            use proto::python::Source;
            To::Python(Box::new(proto::Python {
                source: Some(match source {
                    PythonSource::File(path) => Source::File(path.to_string()),
                    PythonSource::Module(name) => Source::Module(name.to_string()),
                    PythonSource::Code(code) => Source::Code(code.to_string()),
                }),
                function: function.to_string(),
                requirements: texts(requirements),
                concurrency: *concurrency,
            }))
        }
        Work::Http {
            request,
            process: _,
        } => To::Http(Box::new(http(request))),
    }
}

fn texts(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn http(request: &HttpRequest) -> proto::Http {
    let (bearer, user, password) = match &request.auth {
        None => (None, None, None),
        Some(HttpCredentials::Bearer(token)) => (Some(text(token)), None, None),
        Some(HttpCredentials::Basic { user, password }) => {
            (None, Some(text(user)), Some(text(password)))
        }
    };
    proto::Http {
        method: request.method.to_string(),
        url: request.url.clone(),
        query: request
            .query
            .iter()
            .map(|(name, value)| pair(name, value))
            .collect(),
        headers: request
            .headers
            .iter()
            .map(|(name, value)| variable(name, Some(value)))
            .collect(),
        body: request.body.as_ref().map(|(kind, body)| pair(kind, body)),
        bearer,
        user,
        password,
    }
}

fn process(process: &task::Process) -> proto::Process {
    let secrets = process.with.secrets.iter();
    proto::Process {
        path: process.path.to_string(),
        namespace: process.namespace.to_string(),
        workflow: process.workflow.to_string(),
        with: stored(&process.with.value),
        with_secrets: secrets
            .map(|(pointer, text)| variable(pointer, Some(text)))
            .collect(),
        env: process
            .env
            .iter()
            .map(|(name, text)| variable(name, text.as_ref()))
            .collect(),
        idempotency_key: process.idempotency_key.to_string(),
        timeout_micros: process.timeout.map_or(0, |timeout| micros(timeout).max(1)),
        grace_micros: micros(process.grace),
        resources: Some(resources(&process.resources)),
        output_file: process
            .output_file
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        artifacts_in: process.artifacts_in.iter().map(placed).collect(),
        artifacts_out: process
            .artifacts_out
            .iter()
            .map(|(name, path)| pair(name, path))
            .collect(),
        bundle: process.bundle.as_ref().map(blob),
    }
}

fn placed((path, artifact): &(Arc<str>, Artifact)) -> proto::PlacedArtifact {
    proto::PlacedArtifact {
        path: path.to_string(),
        blob: Some(blob(&artifact.blob)),
        name: artifact.name.to_string(),
    }
}

fn pair(name: &str, value: &str) -> proto::Pair {
    proto::Pair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn variable(name: &str, value: Option<&SecretText>) -> proto::Variable {
    proto::Variable {
        name: name.to_owned(),
        text: value.map(text),
    }
}

fn text(text: &SecretText) -> proto::Text {
    use proto::text_part::Part;
    let parts = text.0.iter().map(|part| proto::TextPart {
        part: Some(match part {
            task::TextPart::Text(text) => Part::Text(text.to_string()),
            task::TextPart::Secret(name) => Part::Secret(name.to_string()),
        }),
    });
    proto::Text {
        parts: parts.collect(),
    }
}

fn stored(value: &Value) -> Vec<u8> {
    if value.is_null() {
        Vec::new()
    } else {
        value.to_stored()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes of a report in a message.
pub fn report_size(report: &proto::Report) -> usize {
    prost::Message::encoded_len(report)
}

/// What a worker says of a task, under a number of its own.
pub fn report(number: u64, report: &task::Report) -> proto::Report {
    let (started_at, ended) = match &report.event {
        TaskEvent::Started { at } => (at.0, None),
        TaskEvent::Ended {
            started_at,
            ended_at,
            outcome,
            usage,
        } => {
            let ended = proto::Ended {
                at: ended_at.0,
                usage: usage.map(|usage| proto::Usage {
                    cpu_millis: usage.cpu_millis,
                    memory_bytes: usage.memory_bytes,
                }),
                outcome: Some(self::outcome(outcome)),
            };
            (started_at.0, Some(ended))
        }
    };
    proto::Report {
        number,
        attempt: Some(attempt(report.run, report.place, report.offer)),
        started_at,
        ended,
    }
}

fn outcome(outcome: &Outcome) -> proto::ended::Outcome {
    use proto::ended::Outcome as To;
    match outcome {
        Outcome::Succeeded(value) => To::Succeeded(stored(value)),
        Outcome::Failed(error) => To::Failed(Box::new(self::error(error))),
        Outcome::Cancelled => To::Cancelled(proto::Cancelled {}),
        Outcome::Lost { reason, explained } => To::Lost(proto::Lost {
            reason: reason.clone(),
            explained: *explained,
        }),
    }
}

fn error(error: &task::TaskError) -> proto::TaskError {
    let kind = match error.kind {
        FailureKind::User => proto::Kind::User,
        FailureKind::Timeout => proto::Kind::Timeout,
        FailureKind::Platform => proto::Kind::Platform,
    };
    proto::TaskError {
        kind: kind.into(),
        reason: error.reason.clone(),
        message: error.message.clone(),
        exit_code: error.exit_code,
        http_status: error.http_status.map(u32::from),
        permanent: error.permanent,
        retry_after_micros: error.retry_after.map(micros),
        traceback: error.traceback.clone(),
    }
}
