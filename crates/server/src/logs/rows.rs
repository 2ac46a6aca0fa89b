//! Logs as rows of a database: lines are gathered here and written together.
//!
//! Lines wait until a second has passed, until there are many of them, or, for a moment, until an attempt has
//! ended; one thread writes them. What waits is bounded: beyond that lines are dropped, and the log says how
//! many bytes, there where they are missing.
//!
//! - **Crash**: lines of the last second are lost with the node; a worker of another process that has not
//!   heard that its lines are written says them again.
//! - **Slow store**: lines wait, then are dropped; attempts and commits go on.
//! - **Clock jump**: nothing here goes by the clock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::http::LogQuery;
use kapell_api::log::LogOf;
use kapell_model::{Error, RunId, limits};
use kapell_store::{LogLines, PostgresLogs};
use parking_lot::{Condvar, Mutex};

use super::{LOGS, Log, Logs, unreadable};

/// Lines wait at most so long for others.
const WAIT: Duration = Duration::from_secs(1);

/// From one writing to the next, however soon lines are wanted: an attempt that ends is not alone.
const SOON: Duration = Duration::from_millis(100);

/// So many bytes are written at once.
const MANY: usize = 1 << 20;

/// Whoever wants to read waits at most so long for lines on their way.
const PATIENCE: Duration = Duration::from_secs(2);

/// After an attempt has ended its last lines are written within this time, unless the database is slow.
pub(crate) const SETTLES: Duration = Duration::from_millis(300);

/// Logs of which it is remembered that lines were dropped.
const LOST: usize = 10_000;

/// Told once lines are written, or are known to be lost.
type Then = Box<dyn FnOnce() + Send>;

/// See the module.
pub(crate) struct RowLogs {
    logs: PostgresLogs,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something changed that the thread waits for.
    wake: Condvar,
    /// Something was written.
    wrote: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<LogLines>,
    /// Where in `waiting` the lines of a log are.
    places: HashMap<Name, usize>,
    /// Bytes that wait or are being written.
    bytes: usize,
    /// Up to where lines of a log were dropped.
    lost: HashMap<Name, u64>,
    then: Vec<Then>,
    /// What was appended and what of it is written, counted.
    appended: u64,
    written: u64,
    soon: bool,
    stopping: bool,
}

type Name = (RunId, Arc<str>, u32);

impl RowLogs {
    /// Begins to write.
    pub(crate) fn start(logs: PostgresLogs) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (to, from) = (logs.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("kapell-logs".to_owned())
            .spawn(move || write(&from, |lines| to.append(lines)))?;
        Ok(Self {
            logs,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Appends lines of one log, of which `offset` bytes came before. Does not block.
    pub(crate) fn append(&self, (run, path, attempt): LogOf<'_>, offset: u64, text: &[u8]) {
        let name = (run, path.into(), attempt);
        self.shared.state.lock().append(name, offset, text);
        self.shared.wake.notify_one();
    }

    /// Calls this once all that was appended is written, or is known to be lost.
    pub(crate) fn then(&self, then: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.then.push(Box::new(then));
        state.appended += 1;
        self.shared.wake.notify_one();
    }

    /// Writes what waits in a moment.
    pub(crate) fn write_soon(&self) {
        let mut state = self.shared.state.lock();
        state.soon = state.appended > state.written;
        self.shared.wake.notify_one();
    }

    /// Waits until what was appended is written; not for ever.
    pub(crate) fn flush(&self) {
        let mut state = self.shared.state.lock();
        let wanted = state.appended;
        state.soon = true;
        self.shared.wake.notify_one();
        let waits = |state: &mut State| state.written < wanted && !state.stopping;
        self.shared
            .wrote
            .wait_while_for(&mut state, waits, PATIENCE);
    }

    /// Drops the logs of a run.
    pub(crate) fn remove(&self, run: RunId) -> kapell_store::Result<()> {
        self.logs.remove(run)
    }

    /// Writes what waits, and nothing after it.
    pub(crate) fn close(&self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for RowLogs {
    fn drop(&mut self) {
        self.close();
    }
}

impl Logs for RowLogs {
    fn find(&self, run: RunId, query: &LogQuery) -> Result<(Vec<Log<'_>>, usize), Error> {
        let found = self
            .logs
            .find(run, query.step.as_deref(), query.attempt, LOGS);
        let (mut found, all) = found.map_err(|error| unreadable(run, &error))?;
        let left_out = usize::try_from(all)
            .unwrap_or(usize::MAX)
            .saturating_sub(found.len());
        found.sort_by(|a, b| (&a.path, a.attempt).cmp(&(&b.path, b.attempt)));
        let logs = found.into_iter().map(|log| {
            let mut key = String::from("r");
            for byte in &log.id {
                // Writing to a string does not fail.
                let _ = write!(key, "{byte:02x}");
            }
            Log {
                key,
                path: log.path.clone(),
                attempt: log.attempt,
                length: log.length,
                bytes: Box::new(move |from, most| {
                    if from >= log.length {
                        // Whoever follows asks for many logs in which nothing is new.
                        return (from, Vec::new());
                    }
                    self.logs
                        .read(run, &log, from, most)
                        .unwrap_or_else(|error| {
                            tracing::warn!(%error, %run, "a log cannot be read now");
                            (from, Vec::new())
                        })
                }),
            }
        });
        Ok((logs.collect(), left_out))
    }
}

impl State {
    fn append(&mut self, name: Name, offset: u64, text: &[u8]) {
        self.appended += 1;
        let end = offset + text.len() as u64;
        if self.bytes + text.len() > limits::LOG_BUFFER_BYTES {
            self.lose(name, end);
            return;
        }
        self.bytes += text.len();
        let place = self.places.get(&name).copied();
        if let Some(lines) = place.and_then(|place| self.waiting.get_mut(place))
            && lines.offset + lines.text.len() as u64 == offset
        {
            lines.text.extend_from_slice(text);
            return;
        }
        self.places.insert(name.clone(), self.waiting.len());
        let (run, path, attempt) = name;
        self.waiting.push(LogLines {
            run,
            path,
            attempt,
            offset,
            text: text.to_vec(),
        });
    }

    /// Lines of a log up to here will not be written.
    fn lose(&mut self, name: Name, end: u64) {
        let known = self.lost.len();
        match self.lost.entry(name) {
            Entry::Occupied(mut lost) => *lost.get_mut() = end.max(*lost.get()),
            Entry::Vacant(lost) if known < LOST => drop(lost.insert(end)),
            Entry::Vacant(_) => {}
        }
    }

    /// What is to be written now. Lines that were dropped last are said to be by an empty text behind them.
    fn take(&mut self) -> Vec<LogLines> {
        self.places.clear();
        self.soon = false;
        let mut lines = std::mem::take(&mut self.waiting);
        let lost = std::mem::take(&mut self.lost);
        lines.extend(
            lost.into_iter()
                .map(|((run, path, attempt), end)| LogLines {
                    run,
                    path,
                    attempt,
                    offset: end,
                    text: Vec::new(),
                }),
        );
        lines
    }
}

/// Writes until it is stopped and nothing waits.
fn write(shared: &Shared, append: impl Fn(&[LogLines]) -> kapell_store::Result<()>) {
    let mut failing = false;
    let mut state = shared.state.lock();
    loop {
        let idle = |state: &mut State| state.appended == state.written && !state.stopping;
        shared.wake.wait_while(&mut state, idle);
        if state.appended == state.written {
            return;
        }
        let waits = |state: &mut State| !state.soon && !state.stopping && state.bytes < MANY;
        shared.wake.wait_while_for(&mut state, waits, WAIT);
        let stopping = state.stopping;
        let (upto, then, lines) = (
            state.appended,
            std::mem::take(&mut state.then),
            state.take(),
        );
        drop(state);
        let wrote = append(&lines);
        state = shared.state.lock();
        let bytes: usize = lines.iter().map(|lines| lines.text.len()).sum();
        match wrote {
            Err(kapell_store::Error::Unavailable(error)) if !stopping => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error, "log lines wait: they cannot be written now");
                }
                state.put_back(lines);
                state.then.splice(0..0, then);
                // Whoever comes meanwhile changes nothing.
                let waits = |state: &mut State| !state.stopping;
                shared.wake.wait_while_for(&mut state, waits, WAIT);
                continue;
            }
            Err(error) => {
                tracing::error!(%error, bytes, "log lines were lost");
                for lines in lines {
                    let end = lines.offset + lines.text.len() as u64;
                    state.lose((lines.run, lines.path, lines.attempt), end);
                }
            }
            Ok(()) if std::mem::take(&mut failing) => {
                tracing::info!("log lines are written again");
            }
            Ok(()) => {}
        }
        state.bytes -= bytes;
        state.written = upto;
        shared.wrote.notify_all();
        drop(state);
        for then in then {
            then();
        }
        state = shared.state.lock();
        // Those that want their lines soon are many.
        let waits = |state: &mut State| !state.stopping && state.bytes < MANY;
        shared.wake.wait_while_for(&mut state, waits, SOON);
    }
}

impl State {
    /// Lines that could not be written come before those that came meanwhile.
    fn put_back(&mut self, lines: Vec<LogLines>) {
        let newer = std::mem::replace(&mut self.waiting, lines);
        self.waiting.extend(newer);
        self.places.clear();
        for (place, lines) in self.waiting.iter().enumerate() {
            let name = (lines.run, Arc::clone(&lines.path), lines.attempt);
            self.places.insert(name, place);
        }
    }
}

#[cfg(test)]
mod tests;
