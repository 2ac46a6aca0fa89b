//! Topics in a lane: signals are kept and told in the commit that takes them, whoever is in memory.

use kapell_engine::Ask;
use kapell_engine::message::{Signal, StartTriggered};
use kapell_engine::run::Request;
use kapell_model::RunStatus;

use super::*;

const WAITS: &str = "workflow: waits\nparams: { n: { type: int, default: 1 } }\nsteps:\n  a: { await: { signal: landed, match: \"${{ signal.payload.n == params.n }}\" } }\n";
const CHAIN: &str =
    "workflow: chain\nsteps:\n  a: { await: { signal: workflow.first.succeeded } }\n";
const FIRST: &str = "workflow: first\nsteps:\n  a: { set: { n: 1 } }\n";
const SENDS: &str = "workflow: sends\nsteps:\n  a: { set: { n: 1 }, emit: { signal: landed, payload: { n: 1 } } }\n";

fn topic(name: &str) -> EntityKey {
    EntityKey::Topic {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn landed(id: &str, n: i64) -> ClientRequest {
    let signal = Signal {
        id: id.into(),
        name: "landed".into(),
        key: Value::Null,
        payload: Value::map([
            ("n", Value::Int(n)),
            ("pad", Value::string("x".repeat(2_000))),
        ]),
        sent_at: Time::ZERO,
        hops: 0,
        by: "me".into(),
    };
    ClientRequest::Ask {
        key: topic("landed"),
        ask: Ask::Send(Box::new(signal)),
    }
}

impl World {
    /// The owner is another, with nothing in memory.
    fn restarted(&mut self) {
        let config = Config {
            alone: true,
            seed: 100 + self.next_reply,
            idle_micros: 60_000_000,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: crate::DispatchSettings::default(),
        };
        self.lane = with_worker(config, self.now, 10_000);
        self.go();
    }

    fn value(&self, reply: ReplyId) -> Value {
        match self.answer(reply) {
            Some(Ok(Answer::Value(value))) => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn field(&self, reply: ReplyId, name: &str) -> Value {
        self.value(reply).as_map().unwrap()[name].clone()
    }

    fn chunks(&self, key: &EntityKey) -> usize {
        self.store
            .load(key)
            .unwrap()
            .map_or(0, |loaded| loaded.chunks.len())
    }
}

#[test]
fn a_run_that_left_memory_is_told_of_its_signal() {
    let mut world = World::new(&[WAITS]);
    let run = world.started("waits");
    world.seconds(200);
    assert_eq!(world.lane.runs().count(), 0, "it is idle and left memory");
    world.ask(landed("", 2));
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.ask(landed("", 1));
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
}

#[test]
fn signals_and_who_waits_for_them_outlive_the_owner() {
    let mut world = World::new(&[WAITS, SENDS]);
    world.ask(landed("a", 1));
    world.go();
    world.restarted();
    let again = world.ask(landed("a", 5));
    world.go();
    assert_eq!(world.field(again, "known"), Value::Bool(true));
    // A run looks at what was sent since it is due; the one before was sent earlier.
    world.pass(1_000);
    let run = world.started("waits");
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.restarted();
    world.started("sends");
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
}

#[test]
fn a_signal_that_was_not_confirmed_is_told_of_or_not_there() {
    for commits in [Commits::LandUnheard, Commits::Vanish] {
        let mut world = World::new(&[WAITS]);
        let run = world.started("waits");
        world.commits = commits;
        let reply = world.ask(landed("a", 1));
        world.go();
        world.seconds(2);
        assert!(matches!(world.answer(reply), Some(Err(_))));
        let arrived = world.status(run) == Some(RunStatus::Succeeded);
        assert_eq!(arrived, commits == Commits::LandUnheard);
        let again = world.ask(landed("a", 1));
        world.go();
        assert_eq!(world.field(again, "known"), Value::Bool(arrived));
        assert_eq!(world.status(run), Some(RunStatus::Succeeded));
    }
}

#[test]
fn how_runs_end_is_told_only_where_somebody_listens() {
    let mut world = World::new(&[FIRST, CHAIN]);
    world.started("first");
    let ends = topic("workflow.first.succeeded");
    assert!(world.store.load(&ends).unwrap().is_none());
    assert!(!world.lane.entities().any(|(key, _)| *key == ends));
    let chain = world.started("chain");
    world.restarted();
    world.started("first");
    assert_eq!(world.status(chain), Some(RunStatus::Succeeded));
}

#[test]
fn a_big_topic_is_written_anew_only_after_as_much_has_changed() {
    let mut world = World::new(&[]);
    let key = topic("landed");
    let mut snapshots = 0;
    let mut before = 0;
    for n in 0..2_000 {
        world.ask(landed("", n));
        world.go();
        let chunks = world.chunks(&key);
        snapshots += usize::from(chunks < before);
        before = chunks;
        if n == 1_000 {
            world.restarted();
        }
    }
    assert!(
        (3..12).contains(&snapshots),
        "{snapshots} snapshots of 2,000 chunks"
    );
}

#[test]
fn runs_that_start_each_other_in_a_circle_end() {
    let mut world = World::new(&[FIRST]);
    let start = |hops: u32| {
        Box::new(StartTriggered {
            id: RunId::new(START, Shard(3), u128::from(hops)),
            from: topic("landed"),
            namespace: "default".into(),
            workflow: "first".into(),
            version: None,
            params: Value::Null,
            kind: "signal",
            name: "t".into(),
            by: "trigger t".to_owned(),
            scheduled_at: START,
            interval: (START, START),
            timezone: "UTC".into(),
            hops,
            class: kapell_engine::message::StartClass::Regular,
            backfill: None,
            waited: false,
        })
    };
    for (hops, expected) in [
        (limits::HOPS, Some(RunStatus::Succeeded)),
        (limits::HOPS + 1, None),
    ] {
        let start = start(hops);
        let run = start.id;
        world.lane.send(
            topic("landed").shard(),
            topic("landed"),
            Message::StartTriggered(start),
        );
        world.lane.post();
        world.go();
        assert_eq!(world.status(run), expected, "{hops}");
    }
}

#[test]
fn an_answer_and_a_breakpoint_outlive_the_owner() {
    const ASKS: &str = "workflow: asks\nsteps:\n  a: { approval: { count: 2 } }\n  b: { needs: a, breakpoint: before, set: { n: 1 } }\n";
    let mut world = World::new(&[ASKS]);
    let run = world.started("asks");
    for by in ["bob", "eve"] {
        world.restarted();
        world.ask(ClientRequest::Run {
            run,
            request: Request::Answer(kapell_engine::run::Answer {
                by: by.to_owned(),
                groups: Vec::new(),
                step: "a".to_owned(),
                approved: true,
                comment: String::new(),
                input: Value::Null,
                text: false,
            }),
        });
        world.go();
    }
    world.restarted();
    assert_eq!(world.status(run), Some(RunStatus::Running));
    world.ask(ClientRequest::Run {
        run,
        request: Request::Continue {
            by: "bob".to_owned(),
            step: None,
            stepping: false,
        },
    });
    world.go();
    assert_eq!(world.status(run), Some(RunStatus::Succeeded));
}
