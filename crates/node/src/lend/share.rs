//! Which slots move from one node to another.

use std::collections::{BTreeMap, BTreeSet};

use kapell_api::worker::Queues;
use kapell_model::{NodeId, SessionId};

use super::fill::{Claim, fill};
use super::{Lender, Lent, PATIENCE, Part, UNFIT, USUAL};
use crate::members::Instant;

/// What waits at a node for workers of one kind.
struct Wanted {
    /// How many attempts, by priority.
    waits: BTreeMap<u8, usize>,
    since: Instant,
}

impl Wanted {
    fn highest(&self) -> u8 {
        self.waits
            .last_key_value()
            .map_or(0, |(highest, _)| *highest)
    }

    fn at_least(&self, priority: u8) -> usize {
        let waits = self.waits.range(priority..);
        waits.fold(0, |sum, (_, waits)| sum.saturating_add(*waits))
    }

    /// True if what a node has of a worker does not fit what waits: it would be in use.
    fn leaves_unused(&self, part: &Part, now: Instant) -> bool {
        let late = |at: Instant| at.plus(PATIENCE) <= now;
        part.idle(now) > 0 && late(self.since) && late(part.moved_at)
    }
}

type Waiting = BTreeMap<NodeId, Wanted>;

/// True if a node waits, and what it has of a worker does not fit.
fn is_unused(waiting: &Waiting, node: NodeId, part: &Part, now: Instant) -> bool {
    let wanted = waiting.get(&node);
    wanted.is_some_and(|wanted| wanted.leaves_unused(part, now))
}

/// What a node has of workers of one kind.
#[derive(Clone, Copy, Default)]
struct Sum {
    /// Its attempts take so many.
    taken: usize,
    /// So many more are free for it.
    idle: usize,
    /// Of these it was just lent so many.
    awaits: usize,
    /// And so many that do not fit.
    unused: usize,
}

/// Who is to have how many more, the first first, and who has how many more than it is to have.
struct Plan {
    needs: Vec<(NodeId, usize)>,
    spare: BTreeMap<NodeId, usize>,
}

impl Lender {
    /// What is lent of a worker is what it has: what nobody was lent is the home's, and what there is no more is
    /// taken from whoever does not use it.
    pub(super) fn balance(&mut self, session: SessionId) {
        let (now, home) = (self.now, self.home);
        let Some(lent) = self.sessions.get_mut(&session) else {
            return;
        };
        let before: Vec<(NodeId, usize)> = lent.slots().collect();
        lent.shrink(home, now);
        let has: usize = lent.parts.values().map(|part| part.has(now)).sum();
        let free = lent.seat.process_window.saturating_sub(has);
        if free > 0 {
            lent.gain(home, free, now);
        }
        lent.parts.retain(|_, part| !part.is_nothing(now));
        let after: BTreeSet<(NodeId, usize)> = lent.slots().collect();
        let before: BTreeSet<(NodeId, usize)> = before.into_iter().collect();
        let changed = before.symmetric_difference(&after);
        self.unsaid
            .extend(changed.map(|(node, _)| (session, *node)));
        if let Some(class) = self.classes.get_mut(&lent.class) {
            class.stirred = true;
        }
    }

    /// Slots move to who waits and has less than its part.
    pub(super) fn share_out(&mut self, class: u64) {
        let waiting = self.waiting(class);
        if let Some(class) = self.classes.get_mut(&class) {
            class.stirred = false;
            for (node, wanted) in &waiting {
                let standing = class.standings.entry(*node).or_default();
                standing.priority = Some(wanted.highest());
            }
        }
        if waiting.is_empty() {
            return;
        }
        // Those for whom nothing that could be moved fits. What they do not get others may have.
        let mut stuck = BTreeSet::new();
        loop {
            let plan = self.plan(class, &waiting, &stuck);
            let before = stuck.len();
            let mut spare = plan.spare;
            for (node, need) in plan.needs {
                let placed = self.place(class, (node, need), &mut spare, &waiting);
                if placed < need {
                    stuck.insert(node);
                }
            }
            if stuck.len() == before {
                return;
            }
        }
    }

    fn waiting(&self, class: u64) -> Waiting {
        let mut waiting = Waiting::new();
        let Some(class) = self.classes.get(&class) else {
            return waiting;
        };
        for (node, wants) in self
            .wants
            .iter()
            .filter(|(node, _)| self.nodes.contains(node))
        {
            for ((queue, priority), wanting) in wants {
                let served = match &class.kind.queues {
                    Queues::Named(names) => names.contains(queue),
                    Queues::Others => !self.named.contains(queue),
                };
                if served {
                    let wanted = waiting.entry(*node).or_insert_with(|| Wanted {
                        waits: BTreeMap::new(),
                        since: wanting.since,
                    });
                    wanted.since = wanted.since.min(wanting.since);
                    let waits = usize::try_from(wanting.waits.max(1)).unwrap_or(usize::MAX);
                    let sum = wanted.waits.entry(*priority).or_default();
                    *sum = sum.saturating_add(waits);
                }
            }
        }
        waiting
    }

    fn sums(&self, class: u64, waiting: &Waiting) -> BTreeMap<NodeId, Sum> {
        let mut sums: BTreeMap<NodeId, Sum> = BTreeMap::new();
        let sessions = self.classes.get(&class).map(|class| &class.sessions);
        let lents = sessions.into_iter().flatten();
        for lent in lents.filter_map(|id| self.sessions.get(id)) {
            for (node, part) in &lent.parts {
                let sum = sums.entry(*node).or_default();
                sum.taken += part.takes(self.now);
                if is_unused(waiting, *node, part, self.now) {
                    sum.unused += part.idle(self.now);
                } else {
                    sum.idle += part.idle(self.now);
                    sum.awaits += part.awaits(self.now);
                }
            }
        }
        sums
    }

    fn plan(&mut self, class: u64, waiting: &Waiting, stuck: &BTreeSet<NodeId>) -> Plan {
        let now = self.now;
        let sums = self.sums(class, waiting);
        let of = |node: &NodeId| sums.get(node).copied().unwrap_or_default();
        let mut standings: Vec<(NodeId, u8, usize, (bool, u64))> = Vec::new();
        let mut levels = BTreeSet::new();
        if let Some(class) = self.classes.get_mut(&class) {
            for (node, standing) in &mut class.standings {
                standing.pass(now);
                let priority = standing.priority.unwrap_or(USUAL);
                let kept = standing.recent().min(of(node).taken + of(node).idle);
                let gained = standing
                    .gained_at
                    .is_some_and(|at| at.plus(super::HOLD) > now);
                let keeps = of(node).idle > 0 && (gained || of(node).taken >= super::EVEN);
                standings.push((*node, priority, kept, (!keeps, standing.turn)));
                levels.insert(priority);
            }
        }
        levels.extend(waiting.values().flat_map(|wanted| wanted.waits.keys()));
        let mut claims: Vec<Claim> = standings
            .iter()
            .map(|(node, _, _, turn)| Claim {
                has: of(node).taken,
                most: of(node).taken,
                turn: *turn,
            })
            .collect();
        let mut free: usize = sums.values().map(|sum| sum.idle + sum.unused).sum();
        for level in levels.into_iter().rev() {
            for (claim, (node, priority, kept, _)) in claims.iter_mut().zip(&standings) {
                let sum = of(node);
                if *priority >= level {
                    let awaits = (sum.taken + sum.awaits).saturating_sub(claim.has).min(free);
                    claim.has += awaits;
                    claim.most = claim.most.max(claim.has);
                    free -= awaits;
                }
                let waits = waiting.get(node).map_or(0, |wanted| {
                    let waits = wanted.at_least(level);
                    // What did not fit is tried again elsewhere, with twice as many each time.
                    let again = if waits > 0 { sum.unused } else { 0 };
                    waits.saturating_add(again)
                });
                let mut most = sum.taken.saturating_add(waits);
                if *priority >= level {
                    most = most.max(*kept);
                }
                if stuck.contains(node) {
                    most = most.min(sum.taken + sum.idle);
                }
                claim.most = claim.most.max(most);
            }
            free = fill(&mut claims, free);
        }
        let mut needs = Vec::new();
        let mut spare = BTreeMap::new();
        for (claim, (node, priority, _, turn)) in claims.iter().zip(&standings) {
            let have = of(node).taken + of(node).idle;
            if claim.has > have {
                needs.push((u8::MAX - priority, *turn, *node, claim.has - have));
            }
            spare.insert(*node, have.saturating_sub(claim.has));
        }
        for (node, sum) in &sums {
            spare.entry(*node).or_insert(sum.idle);
        }
        needs.sort_unstable();
        let needs = needs.into_iter().map(|(_, _, node, need)| (node, need));
        Plan {
            needs: needs.collect(),
            spare,
        }
    }

    /// Lends a node so many more slots that others can spare, where it has fewest; returns how many it got.
    fn place(
        &mut self,
        class: u64,
        (node, need): (NodeId, usize),
        spare: &mut BTreeMap<NodeId, usize>,
        waiting: &Waiting,
    ) -> usize {
        let (now, home) = (self.now, self.home);
        let Some(class) = self.classes.get_mut(&class) else {
            return 0;
        };
        let rank = |lent: &Lent, id: SessionId, spare: &BTreeMap<NodeId, usize>| {
            let (from, _) = lent.giver((node, home), spare, waiting, now)?;
            let has = lent.parts.get(&node).map_or(0, |part| part.has(now));
            let hash = crate::lane::mix(node.0 ^ id.0.rotate_left(32));
            Some((has, from != home, hash, id))
        };
        let mut places = BTreeSet::new();
        for id in &class.sessions {
            if let Some(lent) = self.sessions.get(id)
                && lent.may_fit(node, waiting, now)
            {
                places.extend(rank(lent, *id, spare));
            }
        }
        let mut placed = 0;
        while placed < need
            && let Some((_, _, _, id)) = places.pop_first()
        {
            let Some(lent) = self.sessions.get_mut(&id) else {
                continue;
            };
            let Some((from, unused)) = lent.giver((node, home), spare, waiting, now) else {
                continue;
            };
            lent.give_up(from, unused, now);
            lent.gain(node, 1, now);
            if let Some(part) = lent.parts.get_mut(&node) {
                part.gained_at = Some(now);
            }
            if let Some(spare) = spare.get_mut(&from).filter(|_| !unused) {
                *spare -= 1;
            }
            placed += 1;
            self.unsaid.extend([(id, from), (id, node)]);
            places.extend(rank(lent, id, spare));
        }
        if placed > 0 {
            self.turns += 1;
            let standing = class.standings.entry(node).or_default();
            standing.gains(self.turns, now);
        }
        placed
    }
}

impl Lent {
    fn slots(&self) -> impl Iterator<Item = (NodeId, usize)> {
        let parts = self.parts.iter().filter(|(_, part)| part.lent > 0);
        parts.map(|(node, part)| (*node, part.lent))
    }

    /// No more is lent than there is, as far as that is not in use.
    fn shrink(&mut self, home: NodeId, now: Instant) {
        let window = self.seat.process_window;
        let has: usize = self.parts.values().map(|part| part.has(now)).sum();
        let mut over = has.saturating_sub(window);
        while over > 0 {
            let idle = self.parts.iter_mut().filter(|(_, part)| part.idle(now) > 0);
            let Some((_, part)) = idle.min_by_key(|(node, part)| (**node != home, part.moved_at))
            else {
                break;
            };
            let less = part.idle(now).min(over);
            part.lent -= less;
            over -= less;
        }
        let lent: usize = self.parts.values().map(|part| part.lent).sum();
        for _ in window..lent {
            if let Some(most) = self.parts.values_mut().max_by_key(|part| part.lent) {
                most.lent -= 1;
            }
        }
    }

    /// True if what waits at a node may fit here.
    fn may_fit(&self, node: NodeId, waiting: &Waiting, now: Instant) -> bool {
        self.parts
            .get(&node)
            .is_none_or(|part| !part.is_unfit(now) && !is_unused(waiting, node, part, now))
    }

    /// Who can give a slot to a node: the home, then who does not use it, then whose lies idle longest. And whether
    /// it did not fit there.
    fn giver(
        &self,
        (node, home): (NodeId, NodeId),
        spare: &BTreeMap<NodeId, usize>,
        waiting: &Waiting,
        now: Instant,
    ) -> Option<(NodeId, bool)> {
        let givers = self.parts.iter().filter_map(|(from, part)| {
            if *from == node || part.idle(now) == 0 {
                return None;
            }
            let unused = is_unused(waiting, *from, part, now);
            let spares = spare.get(from).is_some_and(|spare| *spare > 0);
            (unused || spares).then_some((*from != home, !unused, part.moved_at, *from))
        });
        let (_, used, _, from) = givers.min()?;
        Some((from, !used))
    }

    fn gain(&mut self, node: NodeId, slots: usize, now: Instant) {
        let part = self.parts.entry(node).or_default();
        part.lent = part.has(now) + slots;
        part.moved_at = now;
    }

    fn give_up(&mut self, node: NodeId, unused: bool, now: Instant) {
        let Some(part) = self.parts.get_mut(&node) else {
            return;
        };
        part.lent = part.lent.saturating_sub(1);
        if unused {
            let wait = part
                .unfit
                .map_or(UNFIT[0], |(_, wait)| (wait * 2).min(UNFIT[1]));
            part.unfit = Some((now.plus(wait), wait));
        }
    }
}
