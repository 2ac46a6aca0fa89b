//! A run's record as spans of OTLP's JSON form: ids in hexadecimal, times as texts of nanoseconds.

use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_api::trace::{attempt_span, run_span, trace_id};
use kapell_model::{RunStatus, Time};
use serde_json::{Value, json};

/// Attempts of one run that are sent.
const ATTEMPTS: usize = 10_000;

/// Characters of an error's message.
const MESSAGE: usize = 1_000;

/// Inside of the process that makes it.
const INTERNAL: u8 = 1;

/// How a span went.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// The span of a run, which ended with this error, and those of its attempts.
pub(super) fn spans(record: &Record, error: Option<&str>) -> Vec<Value> {
    let mut spans = vec![run(record, error)];
    for step in &record.steps {
        step.walk(&mut |step| {
            for attempt in &step.attempts {
                if spans.len() <= ATTEMPTS {
                    spans.push(self::attempt(record, step, attempt));
                }
            }
        });
    }
    spans
}

/// The body of a request.
pub(super) fn request(service_name: &str, spans: &[Value]) -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&[
            ("service.name", service_name.into()),
            ("service.version", env!("CARGO_PKG_VERSION").into()),
        ]) },
        "scopeSpans": [{
            "scope": { "name": "kapell", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }] })
}

fn run(record: &Record, error: Option<&str>) -> Value {
    let failed = matches!(record.status, RunStatus::Failed | RunStatus::TimedOut);
    // Of a step that failed the row says which; the record has only what the run failed by itself.
    let own = record.error.as_ref().map(|error| error.message.as_str());
    let message = error.or(own);
    let mut span = json!({
        "traceId": trace_id(record.run),
        "spanId": run_span(record.run),
        "name": record.workflow,
        "kind": INTERNAL,
        "startTimeUnixNano": nanos(record.created_at),
        "endTimeUnixNano": nanos(record.ended_at.unwrap_or(record.seen_at)),
        "attributes": attributes(&[
            ("kapell.run.id", record.run.to_string().into()),
            ("kapell.workflow.name", record.workflow.as_str().into()),
            ("kapell.workflow.version", record.version.into()),
            ("kapell.namespace", record.namespace.as_str().into()),
            ("kapell.run.trigger", record.trigger.as_str().into()),
            ("kapell.run.status", record.status.name().into()),
        ]),
        "status": status(failed, message),
    });
    // The run of a sub-workflow is a trace of its own that points to the one it belongs to.
    let above = record.parent.into_iter().chain(record.forked_from);
    let links: Vec<Value> = above
        .map(|run| json!({ "traceId": trace_id(run), "spanId": run_span(run) }))
        .collect();
    if !links.is_empty() {
        span["links"] = links.into();
    }
    span
}

fn attempt(record: &Record, step: &StepRecord, attempt: &AttemptRecord) -> Value {
    let failed = matches!(attempt.result, AttemptResult::Failed | AttemptResult::Lost);
    let error = attempt.error.as_ref();
    let result = serde_json::to_value(attempt.result).unwrap_or_default();
    let mut about = vec![
        ("kapell.step.path", step.path.as_str().into()),
        ("kapell.step.verb", step.verb.as_str().into()),
        ("kapell.attempt.number", attempt.attempt.into()),
        ("kapell.attempt.result", result),
    ];
    if let Some(error) = error {
        about.push(("error.type", error.reason.as_str().into()));
    }
    json!({
        "traceId": trace_id(record.run),
        "spanId": attempt_span(record.run, &step.path, attempt.attempt),
        "parentSpanId": run_span(record.run),
        "name": step.path,
        "kind": INTERNAL,
        "startTimeUnixNano": nanos(attempt.started_at),
        "endTimeUnixNano": nanos(attempt.ended_at.unwrap_or(record.seen_at)),
        "attributes": attributes(&about),
        "status": status(failed, error.map(|error| error.message.as_str())),
    })
}

fn status(failed: bool, message: Option<&str>) -> Value {
    if !failed {
        return json!({ "code": OK });
    }
    let message: String = message.unwrap_or_default().chars().take(MESSAGE).collect();
    json!({ "code": ERROR, "message": message })
}

fn nanos(at: Time) -> String {
    (i128::from(at.0.max(0)) * 1_000).to_string()
}

fn attributes(about: &[(&str, Value)]) -> Value {
    let one = |(key, value): &(&str, Value)| {
        let value = match value {
            Value::String(text) => json!({ "stringValue": text }),
            // Whole numbers of 64 bits are texts in this form.
            other => json!({ "intValue": other.to_string() }),
        };
        json!({ "key": key, "value": value })
    };
    about.iter().map(one).collect()
}
