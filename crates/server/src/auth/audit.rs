//! The audit log: every change that was asked for, with who, from where, what it was about and how it
//! ended; over a connection and in a process that works in the data directory itself. One thread writes entries in batches; a change that would find no room there is refused.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_api::http::{AuditEntry, AuditPage, AuditQuery};
use kapell_model::{Error, ErrorCode, Time, limits};
use kapell_node::clock;
use kapell_store::{Order, Store};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rows::failure;

/// First byte of the keys of entries; then their number.
const DOCUMENT: u8 = 67;

/// How long entries are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(100);

/// Entries written at once.
const BATCH: usize = 4_096;

/// How long entries are kept, in days.
const KEPT_DAYS: i64 = 365;

/// Between two tries to write, if the store takes nothing.
const AGAIN: Duration = Duration::from_secs(1);

struct Waiting {
    entry: AuditEntry,
    _room: Option<OwnedSemaphorePermit>,
}

/// The audit log.
pub(crate) struct Audit {
    store: Arc<dyn Store>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<(Sender<Waiting>, JoinHandle<()>)>>,
}

impl Audit {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            room: Arc::new(Semaphore::new(limits::AUDIT_WAITING)),
            writer: Mutex::new(None),
        }
    }

    /// Room for an entry, before the change is made.
    pub(crate) fn room(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorCode::StoreUnavailable,
                "the audit log cannot be written fast enough",
            )
            .hint("try again in a moment")
        })
    }

    /// Keeps an entry; its number is given by the writer.
    pub(crate) fn record(&self, entry: AuditEntry, room: Option<OwnedSemaphorePermit>) {
        let mut writer = self.writer.lock();
        if writer.is_none() {
            let (send, receive) = channel();
            let store = Arc::clone(&self.store);
            let thread = std::thread::Builder::new()
                .name("kapell-audit".to_owned())
                .spawn(move || write(&*store, &receive));
            match thread {
                Ok(thread) => *writer = Some((send, thread)),
                Err(error) => tracing::error!(%error, "the audit log is not written"),
            }
        }
        if let Some((send, _)) = &*writer {
            // The writer ends only after this sender.
            let _ = send.send(Waiting { entry, _room: room });
        }
    }

    /// Writes what waits, and ends.
    pub(crate) fn close(&self) {
        if let Some((send, thread)) = self.writer.lock().take() {
            drop(send);
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// A page of the entries that match, newest first. Of many that do not match, some are looked at; the
    /// page may then be short or empty, and `next` goes on.
    pub(crate) fn list(&self, query: &AuditQuery, limit: usize) -> Result<AuditPage, Error> {
        let mut page = AuditPage::default();
        let mut before = query.before;
        let mut looked_at = 0;
        loop {
            let size = if is_filtered(query) {
                limits::LIST_PAGE
            } else {
                limit + 1
            };
            let beyond = before.map(key);
            let rows = self
                .store
                .documents(&[DOCUMENT], beyond.as_deref(), Order::Backward, size)
                .map_err(failure)?;
            let last = rows.len() < size;
            for (_, text) in rows {
                let entry: AuditEntry = serde_json::from_str(&text).map_err(|error| {
                    let message = format!("an entry of the audit log cannot be read: {error}");
                    Error::new(ErrorCode::StoreCorrupt, message)
                })?;
                if query.since.is_some_and(|since| entry.at < since) {
                    return Ok(page);
                }
                if page.entries.len() == limit || looked_at == limits::AUDIT_LOOK {
                    page.next = before;
                    return Ok(page);
                }
                before = Some(entry.number);
                looked_at += 1;
                if matches(query, &entry) {
                    page.entries.push(entry);
                }
            }
            if last {
                return Ok(page);
            }
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_filtered(query: &AuditQuery) -> bool {
    query.who.is_some() || query.what.is_some()
}

fn matches(query: &AuditQuery, entry: &AuditEntry) -> bool {
    let holds = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let who = query.who.as_deref().is_none_or(|who| entry.who == who);
    let about = entry.about.as_deref().unwrap_or_default();
    let what = query.what.as_deref();
    who && what.is_none_or(|part| holds(&entry.what, part) || holds(about, part))
}

fn key(number: u64) -> Vec<u8> {
    [&[DOCUMENT][..], &number.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> u64 {
    let bytes = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

fn write(store: &dyn Store, entries: &Receiver<Waiting>) {
    let mut next = None;
    while let Ok(first) = entries.recv() {
        let mut batch = vec![first];
        let until = Time(
            clock::now()
                .0
                .saturating_add(i64::try_from(GATHER.as_micros()).unwrap_or(0)),
        );
        let mut open = true;
        while open && batch.len() < BATCH {
            let left = Duration::try_from(until.since(clock::now())).unwrap_or(Duration::ZERO);
            match entries.recv_timeout(left) {
                Ok(entry) => batch.push(entry),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        let mut said = false;
        while let Err(error) = keep(store, &mut next, &mut batch) {
            if !said {
                tracing::error!(%error, "the audit log cannot be written; trying again");
                said = true;
            }
            if !open {
                return;
            }
            // How many wait is bounded by the room for them.
            match entries.recv_timeout(AGAIN) {
                Ok(entry) => batch.push(entry),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
    }
}

/// Writes a batch, and drops about as many of the oldest as are too many or too old.
fn keep(
    store: &dyn Store,
    next: &mut Option<u64>,
    batch: &mut [Waiting],
) -> kapell_store::Result<()> {
    let first = if let Some(next) = *next {
        next
    } else {
        let newest = store.documents(&[DOCUMENT], None, Order::Backward, 1)?;
        newest.first().map_or(1, |(key, _)| number(key) + 1)
    };
    let mut changes = Vec::with_capacity(batch.len());
    for (number, waiting) in (first..).zip(batch.iter_mut()) {
        waiting.entry.number = number;
        let text = serde_json::to_string(&waiting.entry).unwrap_or_default();
        changes.push((key(number), Some(text)));
    }
    let last = first + changes.len() as u64;
    let now = clock::now();
    for (key, text) in store.documents(&[DOCUMENT], None, Order::Forward, 2 * batch.len())? {
        let old = serde_json::from_str::<AuditEntry>(&text)
            .is_ok_and(|entry| now.since(entry.at).as_hours() > KEPT_DAYS * 24);
        if !old && last - number(&key) <= limits::AUDIT_ENTRIES {
            break;
        }
        changes.push((key, None));
    }
    store.put_documents(&changes)?;
    *next = Some(last);
    Ok(())
}
