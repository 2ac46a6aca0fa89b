//! Requests and answers arrive at another node as they were sent.

use std::sync::Arc;

use kapell_engine::Ask;
use kapell_engine::backfill::{AskBackfill, Only};
use kapell_engine::event::BreakAt;
use kapell_engine::message::Signal;
use kapell_engine::notice::NoticeAsk;
use kapell_engine::run::{self, Break, Breaks};
use kapell_engine::run_queue::{Activate, Bounds, Change, Kept, Mark};
use kapell_engine::run_queue::{LinesAsk, Rule};
use kapell_engine::{Plan, Request, Run};
use kapell_expr::Value;
use kapell_model::spec::{Approval, Spec, StrategyMode, Verb};
use kapell_model::{EntityKey, Error, ErrorCode, RunId, Shard, Time};
use kapell_store::VersionRow;

use super::wire::{answer_from_bytes, answer_to_bytes, request_from_bytes, request_to_bytes};
use super::{Answer, ClientRequest, StartRun};

const FILE: &str = "
workflow: w
params:
  day: { type: timestamp, default: '${{ run.interval.start }}' }
triggers:
  - { name: nightly, cron: '0 3 * * *', timezone: Europe/Berlin, with: { day: '${{ run.scheduled_at }}' } }
  - { name: landed, signal: landed, when: '${{ signal.payload.size > 3 }}' }
steps:
  a: { shell: 'true' }
  ask: { approval: { message: 'go on with ${{ params.day }}?', timeout: 2h }, needs: a }
";

fn run_id() -> RunId {
    RunId::new(Time(1_000_000), Shard(7), 42)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn spec() -> Arc<Spec> {
    let parsed = kapell_model::parse("w.yaml", FILE);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn approval() -> Approval {
    let spec = spec();
    let verbs = spec.graph.steps.iter().map(|step| &step.verb);
    let mut approvals = verbs.filter_map(|verb| match verb {
        Verb::Approval(approval) => Some((*approval).clone()),
        _ => None,
    });
    *approvals.next().unwrap()
}

/// Values of every type, some of which JSON does not have, and one as deep as values get.
fn value() -> Value {
    let mut deep = Value::Int(1);
    for _ in 0..200 {
        deep = Value::list(vec![deep]);
    }
    Value::map([
        ("at", Value::Timestamp(Time(5).timestamp())),
        ("bytes", Value::Bytes(Arc::from([0_u8, 255].as_slice()))),
        ("float", Value::Float(1.0)),
        ("infinite", Value::Float(f64::INFINITY)),
        ("$ts", Value::string("\u{0}not a marker")),
        ("list", Value::list(vec![Value::Int(i64::MAX), Value::Null])),
        ("one", Value::map([("$date", Value::Bool(true))])),
        ("deep", deep),
    ])
}

fn signal() -> Signal {
    Signal {
        id: "a".into(),
        name: "landed".into(),
        key: Value::Null,
        payload: value(),
        sent_at: Time(3),
        hops: 4,
        by: "me".into(),
    }
}

fn breakpoint() -> Break {
    Break {
        step: Some("a".into()),
        at: BreakAt::OnFailure,
        when: Some("true".into()),
        by: None,
    }
}

fn requests_of_runs() -> Vec<Request> {
    let by = || text("me");
    vec![
        Request::Cancel {
            by: by(),
            reason: text("r"),
            now: true,
        },
        Request::Pause { by: by() },
        Request::Resume { by: by() },
        Request::Retry { by: by() },
        Request::Restart {
            by: by(),
            from: text("a"),
        },
        Request::Skip {
            by: by(),
            groups: vec![text("g")],
            admin: true,
            step: text("ask"),
            below: vec![approval()],
        },
        Request::SetOutput {
            by: by(),
            groups: Vec::new(),
            admin: false,
            step: text("ask"),
            below: vec![approval()],
            output: value(),
        },
        Request::Priority {
            by: by(),
            priority: 90,
        },
        Request::Answer(run::Answer {
            by: by(),
            groups: vec![text("g")],
            step: text("ask"),
            approved: true,
            comment: text("fine"),
            input: value(),
            text: true,
        }),
        Request::Continue {
            by: by(),
            step: Some(text("a")),
            stepping: true,
        },
        Request::Breakpoints {
            by: by(),
            breakpoints: vec![breakpoint()],
            stepping: false,
        },
        Request::AddBreakpoint {
            by: by(),
            breakpoint: breakpoint(),
        },
        Request::RemoveBreakpoints {
            by: by(),
            which: Breaks {
                step: Some("*".into()),
                at: Some(BreakAt::After),
            },
        },
        Request::SetParam {
            by: by(),
            name: "day".into(),
            value: value(),
            text: false,
        },
    ]
}

/// Changes that say nothing, that there is none any more, and everything.
fn changes() -> Vec<Change> {
    let rule = Rule::of(&spec().strategy).unwrap_or_default();
    let taken_back = Change {
        paused: Some(None),
        held: Some(None),
        strategy: Some(None),
        owner: Some(None),
        retention: Some(None),
        ..Change::default()
    };
    let everything = Change {
        paused: Some(Some(text("me"))),
        held: Some(Some(Mark {
            by: text("me"),
            at: 7,
        })),
        breaks_of_all: Some(vec![breakpoint()]),
        strategy: Some(Some(Bounds {
            mode: StrategyMode::Parallel,
            limit: Some(3),
            total: None,
        })),
        rule: Some(rule),
        owner: Some(Some(text("team"))),
        retention: Some(Some(Kept::default())),
        breaks: Some(Vec::new()),
        breaks_of: Some((2, vec![breakpoint()])),
        add_break: Some((None, breakpoint())),
        remove_breaks: Some((Some(2), Breaks::default())),
        deactivate: true,
        delete: true,
    };
    vec![Change::default(), taken_back, everything]
}

fn asks() -> Vec<Ask> {
    let by = || text("me");
    let spec = spec();
    let mut asks = vec![
        Ask::View,
        Ask::PauseTrigger { by: by() },
        Ask::ResumeTrigger { by: by() },
        Ask::RotateTrigger,
        Ask::Backfill(Box::new(AskBackfill {
            id: "b".into(),
            from: Time(1),
            until: Time(2),
            only: Only::Failed,
            newest_first: true,
            concurrency: 3,
            by: by(),
        })),
        Ask::Deliver(Box::new(signal())),
        Ask::PauseBackfill { by: by() },
        Ask::ResumeBackfill { by: by() },
        Ask::CancelBackfill { by: by() },
        Ask::Lines(LinesAsk {
            key: Some("eu".into()),
            after: Some(("eu".into(), run_id())),
        }),
        Ask::Whys(vec![run_id()]),
        Ask::Activate(Box::new(Activate {
            version: 3,
            triggers: spec.triggers.clone(),
            timezone: "UTC".into(),
            rule: Rule::of(&spec.strategy),
        })),
        Ask::Dismiss {
            key: "eu".into(),
            by: by(),
        },
        Ask::Send(Box::new(signal())),
        Ask::Signals {
            before: Some(4),
            limit: 10,
        },
        Ask::Notice(NoticeAsk::Due { limit: 5 }),
        Ask::Notice(NoticeAsk::Failed {
            number: 1,
            error: text("no"),
            after: Some(std::time::Duration::from_millis(1_500).try_into().unwrap()),
            hopeless: false,
        }),
    ];
    asks.extend(changes().into_iter().map(Box::new).map(Ask::Change));
    asks
}

fn requests() -> Vec<ClientRequest> {
    let key = EntityKey::RunQueue {
        namespace: "default".into(),
        workflow: "w".into(),
        key: "".into(),
    };
    let version = VersionRow {
        namespace: "default".into(),
        workflow: "w".into(),
        version: 2,
        hash: "h".into(),
        spec: serde_json::to_string(&*spec()).unwrap().into(),
        source: FILE.into(),
        bundle: Some("{}".into()),
        created_at: Time(8),
        author: "me".into(),
    };
    let mut requests = vec![
        start(Some("k")),
        ClientRequest::View { run: run_id() },
        ClientRequest::ViewStep {
            run: run_id(),
            step: text("a"),
        },
        ClientRequest::Evaluate {
            run: run_id(),
            step: text("a"),
            expression: text("1 + 1"),
        },
        ClientRequest::Fork {
            run: run_id(),
            from: text("a"),
            params: value(),
            text: true,
            version: Some(2),
            by: text("me"),
            idempotency_key: Some(text("k")),
        },
        ClientRequest::AskTogether(asks().into_iter().map(|ask| (key.clone(), ask)).collect()),
        ClientRequest::Deploy {
            versions: vec![version],
            asks: vec![(key.clone(), Ask::View)],
        },
        ClientRequest::Dismiss { run: run_id() },
        ClientRequest::Settle { shard: Shard(9) },
    ];
    let of_runs = requests_of_runs().into_iter();
    requests.extend(of_runs.map(|request| ClientRequest::Run {
        run: run_id(),
        request,
    }));
    let asks = asks().into_iter();
    requests.extend(asks.map(|ask| ClientRequest::Ask {
        key: key.clone(),
        ask,
    }));
    requests
}

fn start(idempotency_key: Option<&str>) -> ClientRequest {
    ClientRequest::Start(Box::new(StartRun {
        namespace: "default".into(),
        workflow: "w".into(),
        version: None,
        params: value(),
        text: false,
        by: text("me"),
        scheduled_at: Some(Time(4)),
        priority: Some(50),
        idempotency_key: idempotency_key.map(text),
    }))
}

/// A kind that is added here goes into the lists above too.
fn kinds(request: &ClientRequest) -> (usize, usize) {
    let kind = match request {
        ClientRequest::Start(_) => 0,
        ClientRequest::Run { .. } => 1,
        ClientRequest::View { .. } => 2,
        ClientRequest::ViewStep { .. } => 3,
        ClientRequest::Evaluate { .. } => 4,
        ClientRequest::Fork { .. } => 5,
        ClientRequest::Ask { .. } => 6,
        ClientRequest::AskTogether(_) => 7,
        ClientRequest::Deploy { .. } => 8,
        ClientRequest::Dismiss { .. } => 9,
        ClientRequest::Settle { .. } => 10,
    };
    (kind, 11)
}

#[test]
fn every_request_arrives_as_it_was_sent() {
    let mut kinds_seen = std::collections::BTreeSet::new();
    let mut all = 0;
    for request in requests() {
        let (kind, of) = kinds(&request);
        kinds_seen.insert(kind);
        all = of;
        let bytes = request_to_bytes(&request).unwrap();
        let again = request_from_bytes(&bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{request:?}"));
        assert_eq!(again.shards(), request.shards());
        assert_eq!(again.is_repeatable(), request.is_repeatable());
    }
    assert_eq!(kinds_seen.len(), all, "a kind is not tried");
}

#[test]
fn every_answer_and_refusal_arrives_as_it_was_given() {
    let view = Run::new(Arc::new(Plan::new(spec()))).view(Time(9));
    let refusals = ErrorCode::ALL.iter().enumerate().map(|(place, code)| {
        let error = Error::new(*code, format!("`{code}` says \"no\""));
        Err(if place % 2 == 0 {
            error.hint("do something else")
        } else {
            error
        })
    });
    let answers = [
        Ok(Answer::Started(run_id())),
        Ok(Answer::Done),
        Ok(Answer::Sent(vec![Shard(3), Shard(4)])),
        Ok(Answer::Value(value())),
        Ok(Answer::View(Box::new(view))),
    ];
    for answer in answers.into_iter().chain(refusals) {
        let bytes = answer_to_bytes(&answer).unwrap();
        let again = answer_from_bytes(&bytes);
        assert_eq!(format!("{again:?}"), format!("{answer:?}"));
    }
}

#[test]
fn what_a_later_version_asks_is_refused_not_misread() {
    for bytes in [&b"{\"Teleport\":{}}"[..], b"", b"\"Done\"x", b"\xff"] {
        let error = request_from_bytes(bytes).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotAvailable);
        assert!(answer_from_bytes(bytes).is_err());
    }
}

#[test]
fn what_would_be_done_twice_is_not_repeatable() {
    assert!(start(Some("k")).is_repeatable());
    assert!(!start(Some("")).is_repeatable());
    assert!(!start(None).is_repeatable());
    for request in requests_of_runs() {
        let request = ClientRequest::Run {
            run: run_id(),
            request,
        };
        assert!(!request.is_repeatable());
    }
    let mut unnamed = signal();
    unnamed.id = "".into();
    let topic = EntityKey::Topic {
        namespace: "default".into(),
        name: "landed".into(),
    };
    let send = |signal| ClientRequest::Ask {
        key: topic.clone(),
        ask: Ask::Send(Box::new(signal)),
    };
    assert!(send(signal()).is_repeatable());
    assert!(!send(unnamed).is_repeatable());
}
