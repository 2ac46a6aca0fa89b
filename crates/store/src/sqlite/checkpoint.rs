//! Brings the write-ahead log into the database, on a thread of its own.
//!
//! SQLite would do it inside a commit, which then takes tens of milliseconds. Here a commit that
//! sees a long log wakes the thread, which copies while commits go on. What they add meanwhile it
//! copies with the writer held for a moment, so that the next commit starts the log anew; without
//! that a busy writer would let the log grow for ever. The file of the log keeps its length and is
//! written over: a sync of a file that grows takes twice as long.
//!
//! A checkpoint that fails loses nothing: the log keeps every page until a later one succeeds, and
//! each one copies and syncs all that the last complete one did not.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::connection::{self, PAGE_BYTES};
use super::writer::Writer;

/// Frames of a log that is long enough to be copied: 8 MiB. The first so many of a process are slow to
/// sync because the file grows; shorter, and one commit in a hundred would wait for a copy.
const LONG: u32 = (8 << 20) / PAGE_BYTES;

/// So few frames are copied with the writer held: 1 MiB.
const FEW: u32 = (1 << 20) / PAGE_BYTES;

/// Copies beside a busy writer before the rest is copied with it held.
const ROUNDS: usize = 4;

/// Watches the length of the log. Shared by the writer's hook and the thread.
#[derive(Debug)]
pub(super) struct Watch {
    /// Frames after the last commit.
    frames: AtomicU32,
    /// Frames at which the thread is woken.
    wake_at: AtomicU32,
    ask: Mutex<Ask>,
    asked: Condvar,
    /// Held by whoever copies; taken before the writer. SQLite refuses a second one.
    copying: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Nothing,
    Copy,
    Stop,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            frames: AtomicU32::new(0),
            wake_at: AtomicU32::new(LONG),
            ask: Mutex::new(Ask::Nothing),
            asked: Condvar::new(),
            copying: Mutex::new(()),
        }
    }

    /// Called inside each commit with the frames that the log now has.
    pub(super) fn committed(&self, frames: u32) {
        if frames < self.frames.swap(frames, Relaxed) {
            self.wake_at.store(LONG, Relaxed);
        }
        if frames >= self.wake_at.load(Relaxed) {
            // Not again before the thread had its turn.
            self.wake_at.store(u32::MAX, Relaxed);
            self.ask(Ask::Copy);
        }
    }

    /// Asks for a copy now, however short the log is.
    pub(super) fn copy(&self) {
        self.ask(Ask::Copy);
    }

    /// Keeps the thread from copying until what is returned is dropped.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        self.copying.lock()
    }

    fn ask(&self, ask: Ask) {
        let mut asked = self.ask.lock();
        if *asked != Ask::Stop {
            *asked = ask;
            self.asked.notify_one();
        }
    }

    fn wait(&self) -> Ask {
        let mut ask = self.ask.lock();
        while *ask == Ask::Nothing {
            self.asked.wait(&mut ask);
        }
        let got = *ask;
        if got == Ask::Copy {
            *ask = Ask::Nothing;
        }
        got
    }
}

/// The thread. Dropping it waits for a copy that is under way.
#[derive(Debug)]
pub(super) struct Checkpointer {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(
        database: Arc<File>,
        path: &Path,
        watch: Arc<Watch>,
        writer: Arc<Mutex<Writer>>,
    ) -> std::io::Result<Self> {
        let (path, watched) = (path.to_owned(), Arc::clone(&watch));
        let thread = std::thread::Builder::new().name("kapell-checkpoint".to_owned()).spawn(move || {
            while watched.wait() == Ask::Copy {
                // A connection of its own each time: after an error none is used again, and a
                // copy of 8 MiB is rare.
                let copied = connection::plain(&path).and_then(|connection| copy(&connection, &database, &watched, &writer));
                if let Err(error) = copied {
                    tracing::warn!(%error, "could not bring the log into the database; will try again");
                }
                let frames = watched.frames.load(Relaxed);
                watched.wake_at.store(frames.saturating_add(LONG / 4).max(LONG), Relaxed);
            }
        })?;
        Ok(Self {
            watch,
            thread: Some(thread),
        })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.watch.ask(Ask::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Brings the log into the database so that the next commit starts it anew.
fn copy(
    connection: &Connection,
    database: &File,
    watch: &Watch,
    writer: &Mutex<Writer>,
) -> rusqlite::Result<()> {
    let _alone = watch.copying.lock();
    // Until a connection has read it does not know that there is a log, and copies nothing.
    connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
    for _ in 0..ROUNDS {
        let (_, copied) = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE)?;
        let copied = u32::try_from(copied).unwrap_or(0);
        if watch.frames.load(Relaxed).saturating_sub(copied) < FEW {
            break;
        }
    }
    // SQLite syncs when it has copied all. What is synced here it need not sync with the writer
    // held; if this fails SQLite's own will tell.
    let _ = database.sync_data();
    let _held = writer.lock();
    connection.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE)?;
    Ok(())
}
