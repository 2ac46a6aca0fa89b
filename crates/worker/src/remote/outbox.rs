//! What the server must still hear, and what is here of its attempts. Everything is bounded by what
//! the server hands out; log lines have a bound of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use kapell_api::task::{Place, Report, Task, TaskEvent};
use kapell_api::worker::{Holding, MESSAGE_BYTES, encode, proto};
use kapell_model::{Offer, RunId, limits};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Names one handing-out.
pub(crate) type Name = (RunId, Place, Offer);

/// Reports in one message.
const REPORTS: usize = 512;

/// Bytes of log lines in one message.
const LOG_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to say.
    pub(crate) wake: Notify,
    /// All was heard.
    heard: Condvar,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says something else")]
struct State {
    held: HashMap<Name, Held>,
    /// Ends that are not acknowledged, by number.
    ends: BTreeMap<u64, Report>,
    last_end: u64,
    /// The last end said on this connection.
    said: u64,
    /// Beginnings, said once.
    starts: Vec<Report>,
    /// Log lines that are not acknowledged: those not said on this connection last.
    logs: VecDeque<Lines>,
    log_bytes: usize,
    logs_said: usize,
    logs_number: u64,
    /// The last batch of tasks that arrived, and whether the server knows.
    received: u64,
    confirms: bool,
    beat: u64,
    draining: bool,
    tells_draining: bool,
    leaving: bool,
    /// That it goes was said.
    left: bool,
    gone: bool,
}

struct Held {
    holding: Holding,
    path: Arc<str>,
    workflow: Arc<str>,
    queue: Arc<str>,
}

struct Lines {
    /// Of the message that they were said in.
    number: u64,
    of: Name,
    offset: u64,
    text: Vec<u8>,
}

impl Outbox {
    /// Tasks have arrived.
    pub(crate) fn hold(&self, tasks: &[Task]) {
        let mut state = self.state.lock();
        for task in tasks {
            let process = task.work.process();
            let text = |of: Option<&Arc<str>>| of.cloned().unwrap_or_default();
            let held = Held {
                holding: Holding {
                    run: task.run,
                    place: task.place,
                    offer: task.offer,
                    attempt: task.attempt,
                    light: process.is_none(),
                    needs: process
                        .map(|process| process.resources.clone())
                        .unwrap_or_default(),
                },
                path: text(process.map(|process| &process.path)),
                workflow: text(process.map(|process| &process.workflow)),
                queue: task.queue.clone(),
            };
            state.held.insert((task.run, task.place, task.offer), held);
        }
    }

    /// A whole batch has arrived.
    pub(crate) fn received(&self, batch: u64) {
        let mut state = self.state.lock();
        state.received = state.received.max(batch);
        state.confirms = true;
        self.wake.notify_one();
    }

    /// What the worker reports. Of attempts that are not held nobody wants to hear.
    pub(crate) fn report(&self, reports: Vec<Report>) {
        let mut state = self.state.lock();
        for report in reports {
            let name = (report.run, report.place, report.offer);
            if !state.held.contains_key(&name) {
                continue;
            }
            if matches!(report.event, TaskEvent::Ended { .. }) {
                state.last_end += 1;
                let number = state.last_end;
                state.ends.insert(number, report);
            } else {
                state.starts.push(report);
            }
        }
        self.wake.notify_one();
    }

    /// Log lines of an attempt, of whose log `offset` bytes came before.
    pub(crate) fn log(&self, of: Name, offset: u64, text: &[u8]) {
        let mut state = self.state.lock();
        // What is dropped here the server notices by the offset of what comes next.
        if state.log_bytes + text.len() > limits::LOG_SPOOL_BYTES || !state.held.contains_key(&of) {
            return;
        }
        state.log_bytes += text.len();
        let said = state.logs_said;
        if state.logs.len() > said
            && let Some(last) = state.logs.back_mut()
            && last.of == of
            && last.offset + last.text.len() as u64 == offset
            && last.text.len() < LOG_BYTES
        {
            last.text.extend_from_slice(text);
        } else {
            state.logs.push_back(Lines {
                number: 0,
                of,
                offset,
                text: text.to_vec(),
            });
        }
        self.wake.notify_one();
    }

    /// The server has these ends.
    pub(crate) fn taken(&self, numbers: &[u64]) {
        let mut state = self.state.lock();
        for number in numbers {
            if let Some(report) = state.ends.remove(number) {
                state.held.remove(&(report.run, report.place, report.offer));
            }
        }
        self.heard.notify_all();
    }

    /// The server has log lines up to this number.
    pub(crate) fn logs_taken(&self, number: u64) {
        let mut state = self.state.lock();
        while state.logs_said > 0
            && state
                .logs
                .front()
                .is_some_and(|lines| lines.number <= number)
        {
            let taken = state.logs.pop_front().map_or(0, |lines| lines.text.len());
            state.log_bytes -= taken;
            state.logs_said -= 1;
        }
    }

    /// Asks for a renewal.
    pub(crate) fn beat(&self, beat: u64) {
        self.state.lock().beat = beat;
        self.wake.notify_one();
    }

    /// Says that nothing more is taken.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        state.tells_draining = true;
        self.wake.notify_one();
    }

    /// True once it was said that nothing more is taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    /// Waits until everything was heard, at most so long, and ends.
    pub(crate) fn leave(&self, patience: Duration) {
        let mut state = self.state.lock();
        let waits = |state: &mut State| !state.ends.is_empty() || !state.held.is_empty();
        self.heard.wait_while_for(&mut state, waits, patience);
        state.leaving = true;
        if !state.gone {
            self.wake.notify_one();
            self.heard
                .wait_while_for(&mut state, |state| !state.gone, Duration::from_secs(1));
        }
        state.gone = true;
        self.wake.notify_one();
    }

    /// True once the worker has gone, or its last word was said.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// True once it was said that the worker goes.
    pub(crate) fn has_left(&self) -> bool {
        self.state.lock().left
    }

    /// The last word was said.
    pub(crate) fn went(&self) {
        self.state.lock().gone = true;
        self.heard.notify_all();
    }

    /// Another session: what was of the one before nobody wants to hear.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.held.clear();
        state.ends.clear();
        state.starts.clear();
        state.logs.clear();
        (state.log_bytes, state.logs_said, state.logs_number) = (0, 0, 0);
        state.received = 0;
        self.heard.notify_all();
    }

    /// Another connection: what was not acknowledged is said again.
    pub(crate) fn again(&self, logs_taken: u64) {
        self.logs_taken(logs_taken);
        let mut state = self.state.lock();
        state.said = 0;
        state.logs_said = 0;
        state.confirms = true;
        state.tells_draining = state.draining;
        self.wake.notify_one();
    }

    /// What a hello says of what is here.
    pub(crate) fn hello(&self, hello: &mut proto::Hello) {
        let state = self.state.lock();
        hello.received = state.received;
        hello.draining = state.draining;
        hello.holds = state
            .held
            .values()
            .map(|held| encode::holding(&held.holding, &held.path, &held.workflow, &held.queue))
            .collect();
    }

    /// The next message; none if there is nothing to say.
    pub(crate) fn compose(&self) -> Option<proto::FromWorker> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut message = proto::FromWorker {
            received: state.received,
            beat: std::mem::take(&mut state.beat),
            draining: std::mem::take(&mut state.tells_draining),
            ..proto::FromWorker::default()
        };
        let mut says = std::mem::take(&mut state.confirms) || message.beat > 0 || message.draining;
        let mut bytes = 0;
        if state.logs_said < state.logs.len() {
            state.logs_number += 1;
            message.logs_number = state.logs_number;
        }
        while bytes < LOG_BYTES
            && let Some(lines) = state.logs.get_mut(state.logs_said)
        {
            lines.number = state.logs_number;
            bytes += lines.text.len();
            let (run, place, offer) = lines.of;
            message.logs.push(proto::LogPart {
                attempt: Some(encode::attempt(run, place, offer)),
                offset: lines.offset,
                text: lines.text.clone(),
            });
            state.logs_said += 1;
            says = true;
        }
        // Ends only after the lines that came before them.
        if state.logs_said == state.logs.len() {
            let starts = state.starts.drain(..);
            message
                .reports
                .extend(starts.map(|start| encode::report(0, &start)));
            let mut said = state.said;
            let mut room = MESSAGE_BYTES / 4;
            for (number, end) in state.ends.range(said + 1..).take(REPORTS) {
                let report = encode::report(*number, end);
                room = room.saturating_sub(encode::report_size(&report));
                message.reports.push(report);
                said = *number;
                if room == 0 {
                    break;
                }
            }
            state.said = said;
            says |= !message.reports.is_empty();
            message.leaving = state.leaving && state.ends.range(said + 1..).next().is_none();
            says |= message.leaving;
            state.left |= message.leaving;
        }
        says.then_some(message)
    }
}
