use std::time::Duration;

use kapell_expr::{BlobRef, Value};
use kapell_model::spec::PythonSource;
use kapell_model::{FailureKind, Offer, RunId, SessionId, Time};
use prost::Message as _;

use super::{Holding, decode, encode, proto};
use crate::task::{
    Artifact, HttpCredentials, HttpRequest, Input, Outcome, Place, Process, Report, SecretText,
    Task, TaskError, TaskEvent, TaskResources, TextPart, Usage, Work,
};

fn blob() -> BlobRef {
    BlobRef {
        hash: "0123456789abcdef".repeat(4).into(),
        size: 77,
    }
}

fn secret() -> SecretText {
    SecretText(vec![
        TextPart::Text("a ".into()),
        TextPart::Secret("TOKEN".into()),
    ])
}

fn process() -> Process {
    Process {
        path: "extract[3]".into(),
        namespace: "default".into(),
        workflow: "w".into(),
        with: Input {
            value: Value::map([("n", Value::Int(1 << 60)), ("blob", Value::Blob(blob()))]),
            secrets: vec![("/db/password".to_owned(), secret())],
        },
        env: vec![
            ("A".into(), Some(secret())),
            ("B".into(), None),
            ("EMPTY".into(), Some(SecretText(Vec::new()))),
        ],
        idempotency_key: "key".into(),
        timeout: Some(Duration::from_millis(1500)),
        grace: Duration::from_secs(10),
        resources: TaskResources {
            cpu_millis: 500,
            memory_bytes: 1 << 30,
            gpus: 2,
            custom: [("license".into(), 3)].into_iter().collect(),
        },
        output_file: Some("out.json".into()),
        artifacts_in: vec![(
            "in/a".into(),
            Artifact {
                blob: blob(),
                name: "a".into(),
            },
        )],
        artifacts_out: vec![("report".into(), "r.txt".into())],
        bundle: Some(blob()),
    }
}

fn plain() -> Process {
    Process {
        with: Input::default(),
        timeout: None,
        output_file: None,
        bundle: None,
        ..process()
    }
}

fn works() -> Vec<Work> {
    let request = |auth, body| HttpRequest {
        method: "POST".into(),
        url: "https://example.org/".to_owned(),
        query: vec![("q".to_owned(), "a b".to_owned())],
        headers: vec![("x".into(), secret())],
        body,
        auth,
    };
    let python = |source| Work::Python {
        source,
        function: "main".into(),
        requirements: vec!["pydantic".into()],
        concurrency: 3,
        process: Box::new(process()),
    };
    let http = |request| Work::Http {
        request: Box::new(request),
        process: Box::new(plain()),
    };
    vec![
        Work::Noop,
        Work::Fail {
            message: "no".to_owned(),
        },
        Work::Shell {
            script: "echo".into(),
            interpreter: vec!["sh".into(), "-eu".into()],
            args: vec!["1".to_owned()],
            process: Box::new(process()),
        },
        Work::Exec {
            argv: vec!["true".to_owned()],
            process: Box::new(plain()),
        },
        python(PythonSource::File("a.py".into())),
        python(PythonSource::Module("a".into())),
        python(PythonSource::Code("pass".into())),
        http(request(
            Some(HttpCredentials::Bearer(secret())),
            Some(("application/json", "{}".to_owned())),
        )),
        http(request(
            Some(HttpCredentials::Basic {
                user: secret(),
                password: secret(),
            }),
            None,
        )),
        http(request(None, None)),
    ]
}

fn place() -> Place {
    Place {
        scope: 3,
        step: 4,
        item: Place::NO_ITEM,
    }
}

const OFFER: Offer = Offer {
    epoch: 1 << 40,
    counter: 9,
};

#[test]
fn tasks_come_over_as_they_are() {
    for work in works() {
        let task = Task {
            offer: OFFER,
            session: SessionId(5),
            queue: "far".into(),
            run: RunId(u128::MAX / 3),
            place: place(),
            attempt: 2,
            alone: true,
            work,
        };
        let bytes = encode::task(&task).encode_to_vec();
        let read = proto::Task::decode(bytes.as_slice()).unwrap();
        let read = decode::task(SessionId(5), read).unwrap();
        assert_eq!(format!("{read:?}"), format!("{task:?}"));
    }
}

#[test]
fn reports_come_over_as_they_are() {
    let failed = TaskError {
        kind: FailureKind::Platform,
        reason: "http_status".to_owned(),
        message: "503".to_owned(),
        exit_code: Some(-1),
        http_status: Some(503),
        permanent: true,
        retry_after: Some(Duration::from_secs(3)),
        traceback: Some("line 1".to_owned()),
    };
    let outcomes = [
        Outcome::Succeeded(Value::Null),
        Outcome::Succeeded(Value::Blob(blob())),
        Outcome::Succeeded(Value::string("x")),
        Outcome::Failed(Box::new(failed)),
        Outcome::Failed(Box::default()),
        Outcome::Cancelled,
        Outcome::Lost {
            reason: "gone".to_owned(),
            explained: true,
        },
    ];
    let ended = outcomes.map(|outcome| TaskEvent::Ended {
        started_at: Time(5),
        ended_at: Time(6),
        outcome,
        usage: Some(Usage {
            cpu_millis: 1,
            memory_bytes: 2,
        }),
    });
    for event in ended
        .into_iter()
        .chain([TaskEvent::Started { at: Time(9) }])
    {
        let report = Report {
            run: RunId(7),
            place: Place { item: 0, ..place() },
            offer: OFFER,
            worker: std::sync::Arc::default(),
            event,
        };
        let bytes = encode::report(11, &report).encode_to_vec();
        let read = proto::Report::decode(bytes.as_slice()).unwrap();
        let (number, read) = decode::report(read).unwrap();
        assert_eq!(number, 11);
        assert_eq!(format!("{read:?}"), format!("{report:?}"));
    }
}

#[test]
fn what_is_held_comes_over_as_it_is() {
    let held = Holding {
        run: RunId(7),
        place: place(),
        offer: OFFER,
        attempt: 3,
        light: true,
        needs: process().resources,
    };
    let message = encode::holding(&held, "a", "w", "far");
    assert_eq!(decode::holding(&message).unwrap(), held);
}

#[test]
fn malformed_messages_are_refused() {
    let broken = proto::Task {
        attempt: Some(proto::Attempt::default()),
        ..proto::Task::default()
    };
    assert!(decode::task(SessionId(1), broken).is_err());
    let attempt = Some(encode::attempt(RunId(1), place(), OFFER));
    let empty = proto::Task {
        attempt,
        ..proto::Task::default()
    };
    assert!(decode::task(SessionId(1), empty).is_err());
    let bodiless = proto::Task {
        attempt,
        work: Some(proto::task::Work::Exec(proto::Exec::default())),
        ..proto::Task::default()
    };
    assert!(decode::task(SessionId(1), bodiless).is_err());
    let far = proto::Attempt {
        step: 70_000,
        ..encode::attempt(RunId(1), place(), OFFER)
    };
    assert!(decode::attempt(Some(&far)).is_err());
    for hash in ["", "../../etc/passwd", "ABCDEF"] {
        let blob = proto::Blob {
            hash: hash.to_owned(),
            size: 1,
        };
        assert!(decode::blob(&blob).is_err());
    }
    let unread = proto::Report {
        number: 1,
        attempt,
        started_at: 0,
        ended: Some(proto::Ended {
            outcome: Some(proto::ended::Outcome::Succeeded(b"{".to_vec())),
            ..proto::Ended::default()
        }),
    };
    assert!(decode::report(unread).is_err());
}
