//! What goes wrong, and how the process comes back.

use std::collections::BTreeSet;

use kapell_api::task::TaskResources;
use kapell_api::worker::Queues;
use kapell_engine::run::room::Labels;
use kapell_model::Shard;
use kapell_node::Lane;
use kapell_node::lane::{Config, Input, Seat, SessionChange};
use kapell_node::perform::Plans;
use kapell_store::Store as _;

use super::{Happening, World};
use crate::rng::Rng;
use crate::scenario::Fault;
use crate::worker::{HERE, NEAR};
use crate::writer::Writer;

impl World<'_> {
    pub(super) fn restart(&mut self) {
        if self.lane.is_some() {
            return;
        }
        self.life += 1;
        let config = Config {
            alone: true,
            seed: self.rng.bits(),
            idle_micros: self.scenario.knobs.idle,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: kapell_node::DispatchSettings::default(),
        };
        self.note(|| "the process starts".to_owned());
        self.plans = Plans::default();
        self.writer = Writer::default();
        let mut lane = Lane::new(config, self.wall());
        if self.scenario.knobs.follow > 0 {
            lane.follow_after(self.scenario.knobs.follow);
        }
        lane.on(self.wall(), self.near_worker());
        for input in self.far_restarted() {
            lane.on(self.wall(), input);
        }
        let lost = std::mem::take(&mut self.lost);
        if !lost.is_empty() {
            lane.on(self.wall(), Input::Reports(lost));
        }
        self.lane = Some(lane);
        let verdict = self.checks.restarted(&self.store);
        self.judge(verdict);
        self.flush();
    }

    /// The worker of the process says what it takes.
    fn near_worker(&self) -> Input {
        let seat = Seat {
            queues: Queues::Others,
            process_window: self.scenario.knobs.process_window,
            light_window: self.scenario.knobs.light_window,
            total: TaskResources::ALL,
            share: TaskResources::ALL,
            labels: Labels::default(),
            spot: false,
        };
        let holds = Vec::new();
        Input::Session(
            NEAR,
            SessionChange::Open {
                seat,
                holds,
                hello: 0,
            },
        )
    }

    pub(super) fn fault(&mut self, fault: &Fault) {
        self.note(|| format!("fault: {fault:?}"));
        match *fault {
            Fault::Crash { down } => {
                if self.lane.take().is_some() {
                    self.life += 1;
                    self.flush_at = None;
                    self.wake_at = None;
                    self.asked.clear();
                    self.reader_free = 0;
                    let lost = self.worker.die(HERE, false, self.wall());
                    self.lost.extend(lost);
                    self.far_crashed();
                    self.plan(down, Happening::Restart);
                }
            }
            Fault::LostAnswer { fate } => self.fates.push_back(fate),
            Fault::Thief { dice } => {
                let shards: Vec<Shard> = self.checks.leases.keys().copied().collect();
                if shards.is_empty() {
                    return;
                }
                let mut rng = Rng::new(dice);
                let count = 1 + rng.place(4);
                let stolen: BTreeSet<Shard> = (0..count).map(|_| *rng.pick(&shards)).collect();
                let stolen: Vec<Shard> = stolen.into_iter().collect();
                if let Ok(leases) = self.store.acquire(&stolen) {
                    self.checks.acquired(&leases);
                }
            }
            Fault::Full { span } => self.full_until = self.now + span,
            Fault::Slow { span, factor } => {
                self.slow_until = self.now + span;
                self.slow = factor;
            }
            Fault::Clock { jump } => {
                self.offset += jump;
                self.flush();
            }
            Fault::Reads { span } => self.reads_until = self.now + span,
            Fault::Far { worker, ref what } => self.far_fault(worker, what),
            // Of several nodes.
            Fault::Node { .. }
            | Fault::Part { .. }
            | Fault::Stall { .. }
            | Fault::Failover { .. } => {}
            Fault::Worker => {
                let lost = self.worker.die(HERE, true, self.wall());
                if !lost.is_empty() && self.lane.is_some() {
                    self.give_lane(Input::Reports(lost));
                }
            }
        }
    }
}
