//! What goes to the lane, and what it wants done.

use std::collections::BTreeMap;

use kapell_api::task::Task;
use kapell_model::SessionId;
use kapell_node::lane::{Input, Output};

use super::brief::{brief_input, brief_output};
use super::{Happening, LATEST, SPINS, World};
use crate::worker::{Act, HERE, NEAR};
use crate::writer::Write;

impl World<'_> {
    pub(super) fn act(&mut self, acts: Vec<Act>) {
        let life = self.life;
        for act in acts {
            match act {
                Act::Alarm(after, id, alarm) => self.plan(after, Happening::Alarm(id, alarm)),
                Act::Report(after, host, report) if host != HERE => {
                    // What is said twice on a connection is numbered, and so is one.
                    if after == 0 {
                        self.far_reports(host - 1, report);
                    }
                }
                Act::Report(after, _, report) => {
                    let mut wire = self.rng.between(1, self.scenario.knobs.wire);
                    if self.rng.chance(self.scenario.knobs.late) {
                        wire += self.rng.magnitude(1_000, LATEST);
                    }
                    self.plan(
                        after + wire,
                        Happening::ToLane(life, Box::new(Input::Reports(vec![report]))),
                    );
                }
            }
        }
    }

    pub(super) fn give_lane(&mut self, input: Input) {
        let input = self.spoil_input(input);
        let wall = self.wall();
        self.note(|| format!("-> {}", brief_input(&input)));
        self.trace(1, brief_input(&input).as_bytes());
        let Some(lane) = &mut self.lane else { return };
        lane.on(wall, input);
        if self.scenario.knobs.lump == 0 {
            self.flush();
        } else if self.flush_at.is_none() {
            let after = self.rng.between(0, self.scenario.knobs.lump);
            self.flush_at = Some(self.now + after);
            self.plan(after, Happening::Flush);
        }
    }

    pub(super) fn flush(&mut self) {
        let wall = self.wall();
        let Some(lane) = &mut self.lane else { return };
        if wall >= lane.next_tick() {
            lane.on(wall, Input::Tick);
        }
        let outputs = lane.flush(wall);
        let next = lane.next_tick();
        let idle = outputs.is_empty();
        for output in outputs {
            self.output(output);
        }
        if next <= wall && idle {
            self.spins += 1;
            if self.spins > SPINS {
                self.fail(
                    "spins",
                    format!("the next tick stays at {next} while it is {wall}"),
                );
            }
        } else {
            self.spins = 0;
        }
        let after = (next.0 - wall.0).clamp(1_000, 5_000_000);
        let at = self.now + after;
        if self
            .wake_at
            .is_none_or(|wake_at| wake_at > at || wake_at <= self.now)
        {
            self.wake_at = Some(at);
            self.plan(after, Happening::Wake);
        }
    }

    pub(super) fn output(&mut self, output: Output) {
        let Some(output) = self.spoil_output(output) else {
            return;
        };
        let life = self.life;
        self.note(|| format!("<- {}", brief_output(&output)));
        match output {
            Output::Commit {
                commit,
                contents,
                follows,
            } => {
                for write in &commit.entities {
                    self.trace(2, &write.chunk);
                }
                let next = self.writer.push(Write {
                    commit,
                    contents,
                    follows,
                });
                self.write(next);
            }
            Output::Offer(tasks) => {
                let mut sent = Vec::new();
                let mut far: BTreeMap<SessionId, Vec<Task>> = BTreeMap::new();
                for task in tasks {
                    self.trace(3, &task.offer.counter.to_le_bytes());
                    let here = task.session == NEAR;
                    let host = if here {
                        HERE
                    } else {
                        self.far_host(task.session)
                    };
                    match self.checks.offered(&task, &self.worker) {
                        Ok(locks) => self.worker.expect(&task, locks, host),
                        Err(failure) => self.fail(failure.what, failure.detail),
                    }
                    if here {
                        sent.push((task.run, task.place, task.offer));
                    } else {
                        far.entry(task.session).or_default().push(task);
                    }
                }
                let wire = self.rng.between(1, self.scenario.knobs.wire);
                if !sent.is_empty() {
                    self.plan(wire, Happening::Tasks(life, sent));
                }
                for (session, tasks) in far {
                    self.far_offer(session, &tasks);
                }
            }
            Output::Stop(mut stops) => {
                self.far_stop(&stops);
                let is_far = |host: usize| host != HERE;
                stops.retain(|name| !self.worker.host_of(name).is_some_and(is_far));
                let wire = self.rng.between(1, self.scenario.knobs.wire);
                self.plan(
                    wire + self.scenario.knobs.wire,
                    Happening::Stops(life, stops),
                );
            }
            // The worker in the process keeps no results: what it reports arrives.
            Output::Taken(names) => self.far_taken(&names),
            Output::Reply(reply, answer) => self.answered(reply, answer),
            Output::RowsChanged(commit, _) => {
                for row in &commit.runs {
                    let verdict = self.checks.row_shown(row);
                    self.judge(verdict);
                }
            }
            output => {
                let after = self.store_micros(self.scenario.knobs.read);
                self.reader_free = self.reader_free.max(self.now) + after;
                let after = self.reader_free - self.now;
                self.plan(after, Happening::Read(life, Box::new(output)));
            }
        }
    }
}
