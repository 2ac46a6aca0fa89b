use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use kapell_api::record::{AttemptRecord, AttemptResult, Record, StepRecord};
use kapell_api::task::TaskError;
use kapell_api::trace;
use kapell_model::{RunStatus, Time};
use serde_json::Value;

use super::*;

/// One request to a collector: its path, headers and body.
struct Asked {
    head: String,
    body: Value,
}

fn ask_of(stream: &TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        head.push_str(&lower);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Asked {
        head,
        body: serde_json::from_slice(&body).unwrap(),
    }
}

/// A collector that gives each request the next of these statuses.
fn collector(statuses: Vec<u16>) -> (String, mpsc::Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            sender.send(ask_of(&stream)).unwrap();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, asked)
}

fn sender(endpoint: &str) -> Sender {
    Sender {
        to: TracesTo {
            endpoint: endpoint.to_owned(),
            headers: vec![("x-key".to_owned(), "a".to_owned())],
            service_name: "here".to_owned(),
        },
        agent: agent(),
        counts: Arc::default(),
        spans: otlp::spans(&record(), None),
    }
}

fn record() -> Record {
    let attempt = |number, result, error| AttemptRecord {
        attempt: number,
        started_at: Time(2_000_000),
        ended_at: Some(Time(3_000_000)),
        result,
        error,
        usage: None,
        worker: None,
    };
    let broke = TaskError {
        reason: "exit_code".to_owned(),
        message: "it broke".to_owned(),
        ..TaskError::default()
    };
    let inner = StepRecord {
        path: "all.load[3]".to_owned(),
        verb: "shell".to_owned(),
        attempts: vec![
            attempt(1, AttemptResult::Failed, Some(broke)),
            attempt(2, AttemptResult::Succeeded, None),
        ],
        ..StepRecord::default()
    };
    Record {
        run: RunId(77),
        namespace: "default".to_owned(),
        workflow: "w".to_owned(),
        version: 3,
        status: RunStatus::Succeeded,
        parent: Some(RunId(5)),
        created_at: Time(1_000_000),
        ended_at: Some(Time(4_000_000)),
        steps: vec![StepRecord {
            path: "all".to_owned(),
            children: vec![inner],
            ..StepRecord::default()
        }],
        ..Record::default()
    }
}

#[test]
fn a_run_is_a_trace_and_each_attempt_a_span_in_it() {
    let (endpoint, asked) = collector(vec![200]);
    let mut sender = sender(&endpoint);
    sender.send();
    let asked = asked.recv().unwrap();
    assert!(asked.head.starts_with("post /v1/traces "), "{}", asked.head);
    assert!(asked.head.contains("x-key: a") && asked.head.contains("application/json"));
    assert_eq!(sender.counts.counts(), [("sent", 3), ("dropped", 0)]);
    let resource = &asked.body["resourceSpans"][0];
    let name = &resource["resource"]["attributes"][0];
    assert_eq!(name["key"], "service.name");
    assert_eq!(name["value"]["stringValue"], "here");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    let [run, first, second] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(run["traceId"], trace::trace_id(RunId(77)));
    assert_eq!(run["startTimeUnixNano"], "1000000000");
    assert_eq!(run["endTimeUnixNano"], "4000000000");
    assert!(run.get("parentSpanId").is_none());
    assert_eq!(run["links"][0]["traceId"], trace::trace_id(RunId(5)));
    for (span, number, code) in [(first, 1, 2), (second, 2, 1)] {
        assert_eq!(span["traceId"], run["traceId"]);
        assert_eq!(span["parentSpanId"], run["spanId"]);
        assert_eq!(span["status"]["code"], code);
        // What the step was told: its own spans are inside of this one.
        let told = trace::traceparent(RunId(77), "all.load[3]", number);
        assert!(told.contains(span["spanId"].as_str().unwrap()), "{told}");
    }
    assert_eq!(first["status"]["message"], "it broke");
}

#[test]
fn the_span_of_a_run_that_failed_says_why() {
    let failed = Record {
        status: RunStatus::Failed,
        ..record()
    };
    let spans = otlp::spans(&failed, Some("all.load[3]: it broke"));
    assert_eq!(spans[0]["status"]["code"], 2);
    assert_eq!(spans[0]["status"]["message"], "all.load[3]: it broke");
}

#[test]
fn what_a_collector_cannot_take_now_is_sent_again() {
    let (endpoint, asked) = collector(vec![503, 200]);
    let mut sender = sender(&format!("{endpoint}/v1/traces/"));
    sender.send();
    let both = [asked.recv().unwrap(), asked.recv().unwrap()];
    assert_eq!(both[0].body, both[1].body);
    assert!(
        both[1].head.starts_with("post /v1/traces "),
        "{}",
        both[1].head
    );
    assert_eq!(sender.counts.counts(), [("sent", 3), ("dropped", 0)]);
}

#[test]
fn what_is_refused_is_dropped_and_counted() {
    let (endpoint, asked) = collector(vec![400]);
    let mut sender = sender(&endpoint);
    sender.send();
    asked.recv().unwrap();
    assert_eq!(sender.counts.counts(), [("sent", 0), ("dropped", 3)]);
    sender.send();
    assert_eq!(sender.counts.counts()[1], ("dropped", 3), "it is not kept");
}

#[test]
fn whoever_stops_it_does_not_wait_for_a_collector_that_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut sender = sender(&endpoint);
    sender.counts.stopping.store(true, Ordering::Relaxed);
    // Without a pause: otherwise this test would take seconds.
    sender.send();
    assert_eq!(sender.counts.counts(), [("sent", 0), ("dropped", 3)]);
}
