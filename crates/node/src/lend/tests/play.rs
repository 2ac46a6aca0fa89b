//! Nodes that use what they are lent, over time.

use kapell_model::Time;

use super::*;

/// Nodes with work at one home, each step of which takes a while.
struct Play {
    lender: Lender,
    nodes: BTreeSet<NodeId>,
    /// Slots that nodes were told of.
    slots: BTreeMap<(NodeId, SessionId), usize>,
    /// What waits at each.
    waits: BTreeMap<NodeId, u32>,
    /// What runs: when it ends, whose, where.
    runs: BTreeSet<(Time, u64, NodeId, SessionId)>,
    now: i64,
    count: u64,
    words: usize,
    done: BTreeMap<NodeId, usize>,
    /// How long the longest step of a node waited.
    idle_since: BTreeMap<NodeId, i64>,
    longest: i64,
}

impl Play {
    fn new(nodes: u64, workers: u64, slots: usize) -> Self {
        let mut play = Self {
            lender: Lender::new(HOME),
            nodes: (1..=nodes).map(NodeId).collect(),
            slots: BTreeMap::new(),
            waits: BTreeMap::new(),
            runs: BTreeSet::new(),
            now: 0,
            count: 0,
            words: 0,
            done: BTreeMap::new(),
            idle_since: BTreeMap::new(),
            longest: 0,
        };
        for number in 1..=workers {
            let seat = seat(Queues::Others, slots);
            play.lender.set(session(number), seat);
        }
        play.settle();
        play
    }

    fn settle(&mut self) {
        for (node, session, seat) in self.lender.settle(&self.nodes) {
            self.words += usize::from(node != HOME);
            self.slots.insert((node, session), seat.process_window);
        }
    }

    fn running(&self, node: NodeId, at: SessionId) -> usize {
        let runs = self.runs.iter();
        runs.filter(|(_, _, of, on)| (*of, *on) == (node, at))
            .count()
    }

    fn wait(&mut self, node: NodeId, waits: u32) {
        self.waits.insert(node, waits);
        let said = if waits == 0 {
            Wants::new()
        } else {
            wants("default", 50, waits.next_power_of_two())
        };
        self.lender.wants(node, said);
        self.settle();
    }

    /// All that can begin does.
    fn begin(&mut self, takes: i64) {
        loop {
            let ready = self.slots.iter().find(|((node, at), slots)| {
                self.waits.get(node).is_some_and(|waits| *waits > 0)
                    && self.running(*node, *at) < **slots
            });
            let Some((&(node, at), _)) = ready else {
                return;
            };
            self.count += 1;
            let ends = Time(self.now + takes);
            self.runs.insert((ends, self.count, node, at));
            if let Some(since) = self.idle_since.insert(node, self.now) {
                self.longest = self.longest.max(self.now - since);
            }
            self.lender.takes(at, node, &process());
            let left = self.waits[&node] - 1;
            self.wait(node, left);
        }
    }

    /// The next step ends, or a tick passes.
    fn pass(&mut self, takes: i64) {
        let tick = self.now + 100_000;
        let next = self.runs.first().map_or(tick, |(ends, ..)| ends.0);
        self.now = next.min(tick);
        let steady = u64::try_from(self.now).unwrap();
        self.lender.pass(Instant(steady));
        while let Some((ends, number, node, at)) = self.runs.pop_first() {
            if ends.0 > self.now {
                self.runs.insert((ends, number, node, at));
                break;
            }
            self.lender.gives_back(at, node, &process());
            *self.done.entry(node).or_default() += 1;
            self.settle();
        }
        self.lender.tick();
        self.settle();
        self.begin(takes);
    }

    /// Nothing is lent twice.
    fn check(&self, workers: u64, window: usize) {
        for number in 1..=workers {
            let at = session(number);
            let lent: usize = self
                .nodes
                .iter()
                .map(|node| {
                    let slots = self.slots.get(&(*node, at)).copied().unwrap_or(0);
                    slots.max(self.running(*node, at))
                })
                .sum();
            assert_eq!(lent, window, "session {number}: all is lent, and once");
        }
    }
}

#[test]
fn of_more_nodes_than_slots_each_has_its_turn() {
    for takes in [20_000, 300_000] {
        let mut play = Play::new(20, 3, 4);
        for node in play.nodes.clone() {
            play.wait(node, 100_000);
        }
        play.begin(takes);
        while play.now < 60_000_000 {
            play.pass(takes);
            play.check(3, 4);
        }
        let done: Vec<usize> = play.nodes.iter().map(|node| play.done[node]).collect();
        let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
        assert!(most * 4 <= least * 5, "each the same, about: {done:?}");
        let steps: usize = done.iter().sum();
        let full = usize::try_from(60_000_000 / takes).unwrap() * 12;
        assert!(
            steps * 20 >= full * 19,
            "no slot lies idle: {steps} of {full}"
        );
        assert!(
            play.longest < 2_000_000,
            "nobody waits long: {}",
            play.longest
        );
        assert!(play.words <= steps * 2, "{} for {steps}", play.words);
    }
}

#[test]
fn where_there_is_room_for_all_steps_are_done_without_words() {
    let mut play = Play::new(10, 10, 4);
    for round in 0..100 {
        for node in play.nodes.clone() {
            let waits = play.waits.get(&node).copied().unwrap_or(0);
            play.wait(node, waits + 3);
        }
        play.begin(70_000);
        play.pass(70_000);
        play.pass(70_000);
        if round == 9 {
            play.words = 0;
        }
    }
    let steps: usize = play.done.values().sum();
    assert!(steps > 2_000);
    assert_eq!(play.words, 0);
}

/// Numbers that look like chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 += 1;
        crate::lane::mix(self.0) % bound
    }
}

#[test]
fn whatever_happens_all_slots_are_lent_once_and_nobody_is_kept_from_free_ones() {
    for seed in 0..300 {
        let mut chance = Chance(seed << 32);
        let workers = 1 + chance.below(4);
        let slots = 1 + usize::try_from(chance.below(4)).unwrap();
        let mut play = Play::new(5, workers, slots);
        for _ in 0..chance.below(60) {
            let node = NodeId(1 + chance.below(5));
            let takes = i64::try_from(10_000 + chance.below(900_000)).unwrap();
            play.wait(node, u32::try_from(chance.below(10)).unwrap());
            play.begin(takes);
            play.check(workers, slots);
            play.pass(takes);
            play.check(workers, slots);
        }
        // Whoever waits has a slot once others have let theirs go.
        for _ in 0..400 {
            play.pass(10_000);
        }
        let wait = play.waits.values().filter(|waits| **waits > 0).count();
        assert_eq!(wait, 0, "seed {seed}: {:?}", play.waits);
        play.check(workers, slots);
    }
}
