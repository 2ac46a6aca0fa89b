//! Which nodes a node knows, and what its membership wants done.

use std::collections::BTreeSet;

use kapell_model::NodeId;
use kapell_node::lane::{self, Own};
use kapell_node::members;
use kapell_store::NodeAbout;

use super::Cluster;
use super::link::Link;
use super::node::Step;

impl Cluster<'_> {
    pub(super) fn members(&mut self, at: usize, input: members::Input) {
        let (steady, now) = (self.steady(), self.now);
        let read = matches!(input, members::Input::Beaten(Ok(_)));
        let Some(process) = self.process(at) else {
            return;
        };
        let outputs = process.members.on(steady, input);
        if read {
            let rows = process.members.nodes().map(|row| row.about.clone());
            let rows = rows.collect();
            self.hears_nodes(at, rows);
        }
        for output in outputs {
            let own = match output {
                members::Output::Beat(about) => {
                    let after = self.store_micros(self.scenario.knobs.read);
                    let alone = after - (self.stalled_until - self.now).max(0);
                    if alone > self.about.lease / 2 {
                        // Where one heartbeat takes as long as a lease, who had luck may follow who had none.
                        let who = (at, self.nodes[at].life);
                        self.owners.troubled(who, self.now + after);
                    }
                    self.later(at, after, Step::Beat(about));
                    continue;
                }
                members::Output::Leave => {
                    let after = self.store_micros(self.scenario.knobs.read);
                    self.later(at, after, Step::Leave);
                    continue;
                }
                members::Output::Take(shards, dead) => Own::Take(shards, dead),
                members::Output::Give(shards) => Own::Give(shards),
                members::Output::Stop => Own::Stop,
            };
            self.tell_lane(at, lane::Input::Own(Box::new(own)));
        }
        let Some(process) = self.process(at) else {
            return;
        };
        let next = process.members.next_tick().0.saturating_sub(steady.0);
        let after = i64::try_from(next)
            .unwrap_or(i64::MAX)
            .clamp(1_000, 1_000_000);
        if process
            .members_at
            .is_none_or(|at| at > now + after || at <= now)
        {
            process.members_at = Some(now + after);
            self.later(at, after, Step::MembersTick);
        }
    }

    /// Who is there now, this node among them.
    fn hears_nodes(&mut self, at: usize, rows: Vec<NodeAbout>) {
        let Some(process) = self.process(at) else {
            return;
        };
        if process.rows == rows {
            return;
        }
        *process.known.lock() = members::owners(rows.iter());
        process.rows = rows;
        let others = process.others();
        let known: BTreeSet<NodeId> = process.links.keys().copied().collect();
        self.note(|| format!("{at} knows of {others:?}"));
        self.with_relay(at, |relay| relay.nodes(others.clone()));
        for gone in known.difference(&others) {
            self.close_link(at, *gone, None);
        }
        for new in others.difference(&known) {
            if let Some(process) = self.process(at) {
                process.links.insert(*new, Link::default());
            }
            self.later(at, 0, Step::Connect(*new));
        }
    }
}
