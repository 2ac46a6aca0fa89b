//! Nodes that share workers, with the ways between them, which tests cut.

use std::collections::VecDeque;

use kapell_api::task::{Outcome, TaskEvent, Work};
use kapell_api::worker::Holding;
use kapell_expr::Value;

use super::*;

mod homes;

const LEASE: Duration = Duration::from_secs(30);
const S: SessionId = SessionId(70);

struct Node {
    relay: Relay,
    /// What its lane heard.
    reports: Vec<Report>,
    sessions: Vec<(SessionId, SessionChange)>,
    /// What its workers heard.
    tasks: Vec<Task>,
    stops: Vec<Name>,
    taken: Vec<Name>,
    forgotten: Vec<SessionId>,
    over: Vec<SessionId>,
}

struct World {
    nodes: BTreeMap<NodeId, Node>,
    ways: VecDeque<(NodeId, NodeId, Word)>,
    /// Ways on which everything is lost.
    cut: BTreeSet<(NodeId, NodeId)>,
    now: Instant,
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Shard 1 is A's, shard 2 is B's, shard 3 is C's, and 9 is whoever's the test says.
fn owner(nine: Arc<std::sync::Mutex<NodeId>>) -> Box<dyn Fn(Shard) -> Option<NodeId> + Send> {
    Box::new(move |shard| match shard.0 {
        9 => Some(*nine.lock().unwrap()),
        number => Some(NodeId(u64::from(number))),
    })
}

impl World {
    fn new(nine: &Arc<std::sync::Mutex<NodeId>>) -> Self {
        let all = BTreeSet::from([A, B, C]);
        let mut world = Self {
            nodes: BTreeMap::new(),
            ways: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Instant(1),
        };
        for id in &all {
            let mut relay = Relay::new(*id, LEASE, owner(Arc::clone(nine)));
            relay.nodes(all.iter().copied().filter(|other| other != id).collect());
            let own = Lease {
                shard: Shard(u16::try_from(id.0).unwrap()),
                epoch: 1,
                seq: 1,
            };
            takes(&mut relay, &[own]);
            let node = Node {
                relay,
                reports: Vec::new(),
                sessions: Vec::new(),
                tasks: Vec::new(),
                stops: Vec::new(),
                taken: Vec::new(),
                forgotten: Vec::new(),
                over: Vec::new(),
            };
            world.nodes.insert(*id, node);
        }
        world.go();
        world
    }

    fn at(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Does something at a node, and all that follows from it.
    fn on(&mut self, id: NodeId, act: impl FnOnce(&mut Relay)) {
        act(&mut self.at(id).relay);
        self.go();
    }

    fn go(&mut self) {
        loop {
            for (id, node) in &mut self.nodes {
                for output in node.relay.outputs() {
                    match output {
                        Output::Reports(reports) => node.reports.extend(reports),
                        Output::Session(id, change) => node.sessions.push((id, change)),
                        Output::Offer(tasks) => node.tasks.extend(tasks),
                        Output::Stop(names) => node.stops.extend(names),
                        Output::Taken(names) => node.taken.extend(names),
                        Output::Forget(session) => node.forgotten.push(session),
                        Output::Over(session) => node.over.push(session),
                        Output::Tell(to, word) => self.ways.push_back((*id, to, word)),
                    }
                }
            }
            let Some((from, to, word)) = self.ways.pop_front() else {
                return;
            };
            if !self.cut.contains(&(from, to)) {
                self.at(to).relay.hear(from, word);
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.relay.pass(now, Time(0));
            node.relay.tick();
        }
        self.go();
    }

    /// What the lane of a node last heard that it may have at the session.
    fn window(&self, id: NodeId) -> usize {
        let mut seats = self.nodes[&id].sessions.iter().rev();
        let seat = |(_, change): &(SessionId, SessionChange)| match change {
            SessionChange::Open { seat, .. } | SessionChange::Seat(seat) => {
                Some(seat.process_window)
            }
            _ => None,
        };
        seats.find_map(seat).unwrap()
    }

    /// A worker is connected to a node.
    fn opens(&mut self, id: NodeId, holds: Vec<Holding>) {
        self.comes(id, holds, 0);
    }

    /// The same by its hello of this number.
    fn comes(&mut self, id: NodeId, holds: Vec<Holding>, hello: u64) {
        let seat = Seat {
            process_window: 4,
            light_window: 4,
            ..nothing(&Queues::Others)
        };
        let change = SessionChange::Open { seat, holds, hello };
        self.on(id, |relay| relay.session(S, change));
    }
}

/// The lane takes shards over.
fn takes(relay: &mut Relay, leases: &[Lease]) {
    relay.took(leases);
    relay.ask(leases);
}

fn nine() -> Arc<std::sync::Mutex<NodeId>> {
    Arc::new(std::sync::Mutex::new(A))
}

fn task(shard: u16, number: u128, epoch: u64) -> Task {
    Task {
        offer: Offer { epoch, counter: 1 },
        session: S,
        queue: "default".into(),
        run: RunId::new(Time(0), Shard(shard), number),
        place: Place {
            scope: 0,
            step: 0,
            item: Place::NO_ITEM,
        },
        attempt: 1,
        alone: false,
        work: Work::Noop,
    }
}

fn name(task: &Task) -> Name {
    (task.run, task.place, task.offer)
}

fn told(report: &Report) -> Name {
    (report.run, report.place, report.offer)
}

fn ended(task: &Task) -> Report {
    Report {
        run: task.run,
        place: task.place,
        offer: task.offer,
        worker: Arc::default(),
        event: TaskEvent::Ended {
            started_at: Time(0),
            ended_at: Time(0),
            outcome: Outcome::Succeeded(Value::Null),
            usage: None,
        },
    }
}

fn holding(task: &Task) -> Holding {
    Holding {
        run: task.run,
        place: task.place,
        offer: task.offer,
        attempt: 1,
        light: true,
        needs: TaskResources::default(),
    }
}

fn wants(priority: u8) -> Wants {
    [((Arc::from("default"), priority), 8)]
        .into_iter()
        .collect()
}

#[test]
fn an_attempt_goes_to_a_worker_elsewhere_and_its_end_comes_back() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    assert_eq!((world.window(A), world.window(B)), (0, 4));
    world.on(A, |relay| relay.wants(wants(50)));
    assert_eq!((world.window(A), world.window(B)), (4, 0));
    let task = task(1, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    assert_eq!(world.at(B).tasks.len(), 1);
    world.on(B, |relay| relay.reports(vec![ended(&task)]));
    assert_eq!(world.at(A).reports.len(), 1);
    assert_eq!(world.at(B).reports.len(), 0);
    world.on(A, |relay| relay.taken(&[name(&task)]));
    assert_eq!(world.at(B).taken, [name(&task)]);
    world.pass(60);
    assert_eq!(world.at(A).reports.len(), 1, "it is not said again");
}

#[test]
fn what_a_cut_way_loses_is_said_again_and_done_once() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    world.on(A, |relay| relay.wants(wants(50)));
    let (one, two) = (task(1, 1, 1), task(1, 2, 1));
    world.on(A, |relay| relay.offer(vec![one.clone()]));
    world.cut.insert((A, B));
    world.on(A, |relay| relay.offer(vec![two.clone()]));
    assert_eq!(world.at(B).tasks.len(), 1);
    world.cut.clear();
    for _ in 0..2 {
        world.on(A, |relay| relay.opened(B));
    }
    let arrived: Vec<Name> = world.at(B).tasks.iter().map(name).collect();
    assert_eq!(arrived, [name(&one), name(&two)]);
    world.cut.insert((B, A));
    world.on(B, |relay| relay.reports(vec![ended(&one), ended(&two)]));
    assert_eq!(world.at(A).reports.len(), 0);
    world.cut.clear();
    world.pass(1);
    assert_eq!(world.at(A).reports.len(), 0, "not yet");
    world.pass(2);
    assert_eq!(world.at(A).reports.len(), 2);
    world.on(A, |relay| relay.taken(&[name(&one), name(&two)]));
    world.pass(10);
    assert_eq!(world.at(A).reports.len(), 2);
}

#[test]
fn a_new_owner_hears_what_is_held_and_the_one_before_hands_out_nothing_more() {
    let nine = nine();
    let mut world = World::new(&nine);
    world.opens(B, Vec::new());
    world.on(A, |relay| relay.wants(wants(50)));
    let (runs, late) = (task(9, 1, 1), task(9, 2, 1));
    world.on(A, |relay| relay.offer(vec![runs.clone()]));
    *nine.lock().unwrap() = C;
    let lease = Lease {
        shard: Shard(9),
        epoch: 2,
        seq: 1,
    };
    world.at(C).sessions.clear();
    world.on(C, |relay| takes(relay, &[lease]));
    let heard = &world.at(C).sessions;
    assert!(
        matches!(&heard[0], (S, SessionChange::Unheard(_))),
        "{heard:?}"
    );
    let holds = heard.iter().find_map(|(_, change)| match change {
        SessionChange::Holds(holds) => Some(holds.clone()),
        _ => None,
    });
    assert_eq!(holds.unwrap().len(), 1);
    world.on(A, |relay| relay.offer(vec![late.clone()]));
    assert_eq!(world.at(B).tasks.len(), 1, "it was granted before");
    world.on(B, |relay| relay.reports(vec![ended(&runs)]));
    assert_eq!(world.at(C).reports.len(), 1);
    assert_eq!(world.at(A).reports.len(), 0);
}

#[test]
fn an_end_waits_for_an_owner_that_is_away() {
    let nine = nine();
    let mut world = World::new(&nine);
    world.opens(B, Vec::new());
    let task = task(9, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    world.cut.extend([(B, A), (A, B)]);
    world.on(B, |relay| relay.reports(vec![ended(&task)]));
    *nine.lock().unwrap() = C;
    takes(&mut world.at(C).relay, &[lease(2)]);
    world.pass(3);
    assert!(!world.at(C).reports.is_empty());
    world.on(C, |relay| relay.taken(&[name(&task)]));
    assert_eq!(world.at(B).taken, [name(&task)]);
}

#[test]
fn a_stop_finds_the_worker_and_a_session_that_is_unknown_loses_what_it_gets() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    let task = task(1, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    world.on(A, |relay| relay.stop(&[name(&task)]));
    assert_eq!(world.at(B).stops, [name(&task)]);
    assert!(world.at(C).stops.is_empty());
    world.on(B, |relay| relay.session(S, SessionChange::Over));
    let late = Task {
        offer: Offer {
            epoch: 1,
            counter: 2,
        },
        ..task
    };
    world.on(A, |relay| relay.offer(vec![late]));
    let lost = world.at(A).reports.pop().unwrap();
    assert!(matches!(
        lost.event,
        TaskEvent::Ended {
            outcome: Outcome::Lost {
                explained: true,
                ..
            },
            ..
        }
    ));
}

/// The lease of shard 9.
fn lease(epoch: u64) -> Lease {
    Lease {
        shard: Shard(9),
        epoch,
        seq: 1,
    }
}

#[test]
fn only_the_answer_to_the_last_question_counts() {
    let nine = nine();
    let mut world = World::new(&nine);
    world.opens(B, Vec::new());
    let task = task(9, 1, 1);
    *nine.lock().unwrap() = C;
    takes(&mut world.at(C).relay, &[lease(2)]);
    takes(&mut world.at(C).relay, &[lease(3)]);
    world.at(C).sessions.clear();
    let holds = |number| Word::Holds(number, S, vec![holding(&task)]);
    world.at(C).relay.hear(B, holds(2));
    let heard = |world: &mut World| {
        for output in world.at(C).relay.outputs() {
            if let Output::Session(_, SessionChange::Holds(holds)) = output {
                return holds.len();
            }
        }
        0
    };
    assert_eq!(heard(&mut world), 0, "more may have been handed out since");
    world.at(C).relay.hear(B, holds(3));
    assert_eq!(heard(&mut world), 1);
}

#[test]
fn what_a_session_holds_counts_once_its_home_has_answered() {
    let mut world = World::new(&nine());
    takes(&mut world.at(C).relay, &[lease(2)]);
    let open = |holds| {
        let seat = nothing(&Queues::Others);
        Word::Session(
            S,
            SessionChange::Open {
                seat,
                holds,
                hello: 0,
            },
        )
    };
    world.at(C).relay.hear(B, open(Vec::new()));
    let hears = |world: &mut World| {
        let outputs = world.at(C).relay.outputs();
        outputs
            .iter()
            .any(|output| matches!(output, Output::Session(S, SessionChange::Open { .. })))
    };
    assert!(!hears(&mut world), "its home may be handed out more");
    world.at(C).relay.hear(B, Word::Told(2));
    world.at(C).relay.hear(B, open(Vec::new()));
    assert!(hears(&mut world));
}

#[test]
fn a_home_that_says_itself_again_still_lends_and_an_end_outlives_its_session() {
    let nine = nine();
    let mut world = World::new(&nine);
    world.opens(B, Vec::new());
    world.on(A, |relay| relay.wants(wants(50)));
    world.on(B, |relay| relay.opened(A));
    assert_eq!(world.window(A), 4, "what it wants is known");
    let task = task(9, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    world.cut.insert((B, A));
    world.on(B, |relay| relay.reports(vec![ended(&task)]));
    world.on(B, |relay| relay.session(S, SessionChange::Over));
    world.cut.clear();
    world.pass(3);
    let succeeded = world.at(A).reports.iter().filter(|report| {
        matches!(
            report.event,
            TaskEvent::Ended {
                outcome: Outcome::Succeeded(_),
                ..
            }
        )
    });
    assert_eq!(succeeded.count(), 1);
}

#[test]
fn a_stop_that_a_cut_way_lost_is_said_again_until_the_end() {
    let mut world = World::new(&nine());
    world.opens(B, Vec::new());
    world.on(A, |relay| takes(relay, &[lease(1)]));
    let task = task(9, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    world.cut.insert((A, B));
    world.on(A, |relay| relay.stop(&[name(&task)]));
    world.cut.clear();
    world.on(A, |relay| relay.opened(B));
    assert_eq!(world.at(B).stops, [name(&task)]);
    world.on(B, |relay| relay.reports(vec![ended(&task)]));
    world.on(A, |relay| relay.opened(B));
    assert_eq!(world.at(B).stops.len(), 1);
}

#[test]
fn who_is_not_known_yet_is_asked_to_say_all_again() {
    let mut world = World::new(&nine());
    world.on(A, |relay| relay.nodes(BTreeSet::from([C])));
    world.opens(B, Vec::new());
    assert!(world.at(A).sessions.is_empty());
    world.on(A, |relay| relay.nodes(BTreeSet::from([B, C])));
    let heard = &world.at(A).sessions;
    let holds = |(id, change): &(SessionId, SessionChange)| {
        *id == S && matches!(change, SessionChange::Holds(_))
    };
    assert!(heard.iter().any(holds), "{heard:?}");
}

#[test]
fn an_end_on_its_way_is_said_again_after_what_is_held() {
    let mut world = World::new(&nine());
    world.opens(A, Vec::new());
    let task = task(1, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    world.on(A, |relay| relay.reports(vec![ended(&task)]));
    world.opens(A, Vec::new());
    let names: Vec<Name> = world.at(A).reports.iter().map(told).collect();
    assert_eq!(names, [name(&task), name(&task)]);
}

#[test]
fn what_is_held_is_said_once_the_lane_takes_it() {
    let mut world = World::new(&nine());
    let task = task(9, 1, 1);
    for at in [A, B] {
        world.opens(at, vec![holding(&task)]);
        world.at(A).sessions.clear();
        world.on(A, |relay| relay.took(&[lease(2)]));
        let says = |world: &mut World, holds: usize| {
            let heard = std::mem::take(&mut world.at(A).sessions);
            let said = heard.iter().any(|(_, change)| match change {
                SessionChange::Holds(said) => said.len() == holds,
                SessionChange::Open { .. } => true,
                _ => false,
            });
            let unheard = matches!(heard.first(), Some((S, SessionChange::Unheard(_))));
            (unheard, said)
        };
        assert_eq!(
            says(&mut world, 1),
            (true, false),
            "it would hear of what it does not own"
        );
        world.on(B, |relay| relay.opened(A));
        world.on(A, |relay| relay.opened(B));
        assert_eq!(
            says(&mut world, 1),
            (false, false),
            "nor when homes say themselves again"
        );
        world.on(A, |relay| relay.ask(&[lease(2)]));
        assert_eq!(says(&mut world, 1), (false, true));
    }
}

#[test]
fn an_end_counts_once_the_owner_has_heard_what_is_held() {
    let nine = nine();
    let mut world = World::new(&nine);
    world.opens(B, Vec::new());
    let task = task(9, 1, 1);
    world.on(A, |relay| relay.offer(vec![task.clone()]));
    *nine.lock().unwrap() = C;
    world.cut.insert((C, B));
    world.on(C, |relay| takes(relay, &[lease(2)]));
    world.on(B, |relay| relay.reports(vec![ended(&task)]));
    assert!(
        world.at(C).reports.is_empty(),
        "it knows of no such attempt"
    );
    world.cut.clear();
    world.on(C, |relay| relay.opened(B));
    let holds = world.at(C).sessions.iter().rev();
    let holds = holds.filter(|(_, change)| matches!(change, SessionChange::Holds(_)));
    assert_eq!(holds.count(), 1);
    assert_eq!(world.at(C).reports.len(), 1);
}
