use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn terms(min: usize, max: usize) -> Terms {
    Terms {
        name: "p".to_owned(),
        min,
        max,
        quiet: at(60),
        start_timeout: at(120),
        one: One {
            slots: 2,
            ..One::default()
        },
    }
}

/// The names of workers that are let go.
fn drained(decided: &Decided) -> Vec<String> {
    decided.drain.iter().map(|(name, _)| name.clone()).collect()
}

/// A world in which what is decided happens: workers come once they took as long as they take.
struct World {
    terms: Terms,
    memory: Memory,
    now: u64,
    startable: u64,
    /// Workers that were launched, and when they come; none never.
    launched: BTreeMap<String, Option<u64>>,
    /// Workers in a session, with their load.
    serving: BTreeMap<String, u64>,
    draining: BTreeSet<String>,
    dead: BTreeSet<String>,
    /// How long workers take to come; none never do.
    takes: Option<u64>,
    launches: usize,
}

impl World {
    fn new(terms: Terms) -> Self {
        Self {
            terms,
            memory: Memory::default(),
            now: 0,
            startable: 0,
            launched: BTreeMap::new(),
            serving: BTreeMap::new(),
            draining: BTreeSet::new(),
            dead: BTreeSet::new(),
            takes: Some(10),
            launches: 0,
        }
    }

    fn seen(&self) -> Seen {
        let known = self.serving.iter().map(|(name, load)| Known {
            name: name.clone(),
            session: name.clone(),
            connected: true,
            draining: self.draining.contains(name),
            load: *load,
        });
        Seen {
            at: at(self.now),
            needs: vec![TaskNeed {
                attempts: self.startable,
                ..TaskNeed::default()
            }],
            known: known.collect(),
            alive: self
                .launched
                .keys()
                .chain(self.serving.keys())
                .cloned()
                .collect(),
            dead: self.dead.clone(),
        }
    }

    /// So many seconds pass, then it is decided once.
    fn after(&mut self, seconds: u64) -> Decided {
        self.now += seconds;
        let now = self.now;
        let come = self
            .launched
            .extract_if(.., |_, comes| comes.is_some_and(|comes| comes <= now));
        self.serving.extend(come.map(|(name, _)| (name, 0)));
        let seen = self.seen();
        let decided = decide(&mut self.memory, &self.terms, &seen);
        for name in &decided.start {
            self.dead.remove(name);
            let comes = self.takes.map(|takes| now + takes);
            self.launched.insert(name.clone(), comes);
            self.launches += 1;
        }
        self.draining.extend(drained(&decided));
        for name in &decided.stop {
            self.launched.remove(name);
        }
        decided
    }

    /// Workers that were let go and have nothing to do leave.
    fn leave(&mut self) {
        let draining = &self.draining;
        self.serving
            .retain(|name, load| *load > 0 || !draining.contains(name));
        self.draining.clear();
    }

    /// A process ends.
    fn kill(&mut self, name: &str) {
        self.launched.remove(name);
        self.serving.remove(name);
        self.dead.insert(name.to_owned());
    }

    fn all_have(&mut self, load: u64) {
        self.serving.values_mut().for_each(|of| *of = load);
    }
}

#[test]
fn a_burst_is_answered_once_however_long_workers_take() {
    let mut world = World::new(terms(0, 10));
    assert_eq!(world.after(1).start, [""; 0]);
    world.startable = 7;
    let decided = world.after(1);
    assert_eq!(decided.wanted, 4);
    assert_eq!(decided.start, ["p-1", "p-2", "p-3", "p-4"]);
    for _ in 0..9 {
        let decided = world.after(1);
        assert_eq!(decided.start, [""; 0], "those that start will do");
        assert_eq!((decided.serving, decided.starting), (0, 4));
    }
    world.after(1);
    // They have all of it now.
    world.startable = 0;
    world.all_have(900);
    assert_eq!(world.after(1).serving, 4);
    // More comes while they are busy.
    world.startable = 3;
    assert_eq!(world.after(1).start, ["p-5", "p-6"]);
    assert_eq!(world.launches, 6);
}

#[test]
fn bounds_hold_and_the_least_is_always_there() {
    let mut world = World::new(terms(2, 3));
    assert_eq!(world.after(1).start, ["p-1", "p-2"]);
    world.startable = 100;
    assert_eq!(world.after(1).start, ["p-3"]);
    world.after(20);
    world.startable = 0;
    world.after(1);
    let decided = world.after(100);
    assert_eq!(drained(&decided), ["p-3"], "and no more than that");
    // While it leaves it counts among those that are there at most.
    world.serving.insert("p-3".to_owned(), 500);
    world.startable = 100;
    let decided = world.after(1);
    assert_eq!((decided.start.len(), decided.leaving), (0, 1));
    world.serving.remove("p-3");
    assert_eq!(world.after(1).start, ["p-3"]);
}

#[test]
fn what_is_too_much_is_let_go_after_a_quiet_period_the_idlest_first() {
    let mut world = World::new(terms(0, 4));
    world.startable = 8;
    world.after(1);
    world.after(10);
    world.startable = 0;
    for (name, load) in [("p-1", 1_000), ("p-2", 0), ("p-3", 500), ("p-4", 0)] {
        world.serving.insert(name.to_owned(), load);
    }
    let began = world.now;
    let first = loop {
        let decided = world.after(5);
        if !decided.drain.is_empty() {
            break drained(&decided);
        }
        assert!(world.now < began + 120);
    };
    assert!(world.now - began > 60, "after {} s", world.now - began);
    // One and a half workers' work is under way.
    assert_eq!(first, ["p-4", "p-2"]);
    world.leave();
    let decided = world.after(5);
    assert_eq!((decided.serving, decided.leaving), (2, 0));
    assert_eq!(drained(&decided), [""; 0]);
}

#[test]
fn a_backlog_that_comes_and_goes_lets_nobody_go() {
    let mut world = World::new(terms(0, 4));
    for round in 0..40 {
        world.startable = if round % 2 == 0 { 8 } else { 0 };
        let decided = world.after(20);
        assert_eq!(drained(&decided), [""; 0], "round {round}");
    }
    assert_eq!(world.launches, 4);
}

#[test]
fn the_quiet_period_is_no_less_than_workers_take_to_come() {
    let mut world = World::new(terms(0, 2));
    world.takes = Some(100);
    world.startable = 4;
    world.after(1);
    world.after(100);
    assert_eq!(world.memory.start_up(), Some(at(100)));
    world.startable = 0;
    world.after(1);
    assert_eq!(drained(&world.after(70)), [""; 0]);
    assert_eq!(drained(&world.after(40)), ["p-2", "p-1"]);
}

#[test]
fn nothing_is_started_for_what_is_over_before_it_would_be_there() {
    let mut world = World::new(terms(0, 10));
    world.takes = Some(30);
    world.startable = 2;
    world.after(1);
    world.after(30);
    world.all_have(1_000);
    // Ten a second: 50 take five seconds, a worker thirty.
    for startable in [100, 90, 80, 70, 60, 50] {
        world.startable = startable;
        let decided = world.after(1);
        if startable < 100 {
            assert_eq!(decided.start, [""; 0], "{startable}");
        } else {
            // Nobody knows yet how fast it goes.
            assert_eq!(decided.start.len(), 9);
            for name in decided.start {
                world.kill(&name);
                world.memory.starting.remove(&name);
            }
            world.memory.not_before = Duration::ZERO;
        }
    }
    // It goes on no faster than one in ten seconds.
    world.startable = 49;
    assert!(!world.after(10).start.is_empty());
}

#[test]
fn a_worker_that_does_not_come_is_cleared_away_and_another_started_after_a_pause() {
    let mut world = World::new(terms(1, 1));
    world.takes = None;
    assert_eq!(world.after(1).start, ["p-1"]);
    assert_eq!(world.after(119).failed, []);
    let decided = world.after(2);
    assert_eq!(decided.failed, [("p-1".to_owned(), Failure::NeverCame)]);
    assert_eq!(decided.stop, ["p-1"]);
    assert_eq!(decided.start, [""; 0]);
    world.takes = Some(1);
    assert_eq!(world.after(1).start, [""; 0]);
    assert_eq!(world.after(1).start, ["p-1"]);
    assert_eq!(world.after(1).serving, 1);
}

#[test]
fn one_that_is_not_cleared_away_is_asked_for_again_and_is_no_worker() {
    let mut world = World::new(terms(1, 1));
    world.takes = None;
    world.after(1);
    assert_eq!(world.after(121).stop, ["p-1"]);
    // The machine is still there.
    world.launched.insert("p-1".to_owned(), None);
    let decided = world.after(5);
    assert_eq!(decided.stop, [""; 0]);
    assert_eq!(decided.start, ["p-2"], "under another name");
    world.launched.insert("p-1".to_owned(), None);
    assert_eq!(world.after(26).stop, ["p-1"]);
}

#[test]
fn a_driver_that_fails_is_tried_after_pauses_that_grow() {
    let mut world = World::new(terms(1, 1));
    let mut tries = Vec::new();
    while world.now < 400 {
        let decided = world.after(1);
        for name in decided.start {
            tries.push(world.now);
            world.launched.remove(&name);
            world.memory.start_failed(&name, at(world.now));
        }
    }
    assert_eq!(tries, [1, 3, 7, 15, 31, 63, 127, 255]);
}

#[test]
fn a_worker_that_dies_is_replaced_at_once_and_one_that_flaps_after_pauses() {
    let mut world = World::new(terms(1, 1));
    world.takes = Some(0);
    world.after(1);
    assert_eq!(world.after(1).serving, 1);
    world.after(100);
    world.kill("p-1");
    let decided = world.after(1);
    assert_eq!(decided.failed, [("p-1".to_owned(), Failure::Lost)]);
    assert_eq!(decided.start, ["p-1"]);
    let mut started = 0;
    for _ in 0..300 {
        let decided = world.after(1);
        started += decided.start.len();
        let serving: Vec<String> = world.serving.keys().cloned().collect();
        for name in serving {
            world.kill(&name);
        }
    }
    assert!((4..=9).contains(&started), "{started} in 300 seconds");
}

#[test]
fn a_process_that_starts_anew_finds_its_workers() {
    let mut world = World::new(terms(0, 4));
    world.startable = 8;
    world.after(1);
    world.after(5);
    world.launched.insert("p-3".to_owned(), Some(10));
    world.after(8);
    assert_eq!(world.serving.len(), 4);
    world.memory = Memory::default();
    world.launched.insert("p-4".to_owned(), None);
    world.serving.remove("p-4");
    let decided = world.after(1);
    assert_eq!((decided.serving, decided.starting), (3, 1));
    assert_eq!(decided.start, [""; 0]);
}

#[test]
fn a_name_whose_session_is_still_known_is_used_first() {
    let mut world = World::new(terms(1, 2));
    let mut seen = world.seen();
    seen.known.push(Known {
        name: "p-7".to_owned(),
        ..Known::default()
    });
    let decided = decide(&mut world.memory, &world.terms, &seen);
    // It says what was lost with the one before.
    assert_eq!(decided.start, ["p-7"]);
}

#[test]
fn workers_that_are_away_for_a_moment_are_still_there() {
    let mut world = World::new(terms(0, 2));
    world.startable = 2;
    world.after(1);
    world.after(10);
    world.startable = 0;
    let mut seen = world.seen();
    seen.at = at(12);
    seen.known[0].connected = false;
    let decided = decide(&mut world.memory, &world.terms, &seen);
    assert_eq!((decided.serving, decided.failed.len()), (1, 0));
}

#[test]
fn work_that_no_worker_of_the_pool_can_do_starts_none() {
    let mut world = World::new(terms(0, 2));
    let mut seen = world.seen();
    seen.needs = vec![TaskNeed {
        attempts: 5,
        labels: [("zone".to_owned(), "eu".to_owned())].into(),
        ..TaskNeed::default()
    }];
    let decided = decide(&mut world.memory, &world.terms, &seen);
    assert_eq!((decided.start.len(), decided.unfit), (0, 5));
}
