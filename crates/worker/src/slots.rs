//! The slot file: which attempts this worker holds, for the worker that starts after a crash.
//!
//! One file of fixed records that are overwritten in place and never synced: it must survive the
//! death of this process, not of the machine, which no child survives. The first record names the
//! boot. A record is JSON padded with spaces, so a person can read it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kapell_api::task::Place;
use kapell_model::{Offer, RunId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of one record, its line end included.
const RECORD: usize = 256;

/// What one slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The attempt; none for a host that serves many.
    pub(crate) attempt: Option<(RunId, Place, Offer, u32)>,
    /// Its process group; 0 while it has none.
    pub(crate) pid: i32,
    /// Its session.
    #[serde(default)]
    pub(crate) session: i32,
    /// Clock ticks since boot between which the process was made.
    pub(crate) born: (u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Header {
    boot: String,
}

/// The open file.
pub(crate) struct Slots {
    file: File,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    slots: Vec<u32>,
    next: u32,
}

impl Slots {
    /// Empties the file and gives what it held, and whether that was written since the last boot.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Vec<Record>, bool)> {
        let path = directory.join("attempts");
        let old = fs::read(&path).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let mut records = old.chunks(RECORD);
        let same_boot = records
            .next()
            .and_then(|record| serde_json::from_slice::<Header>(record).ok())
            .is_some_and(|header| header.boot == boot);
        let held = records
            .filter_map(|record| serde_json::from_slice(record).ok())
            .collect();
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let slots = Self {
            file,
            free: Mutex::new(Free {
                slots: Vec::new(),
                next: 1,
            }),
        };
        slots.write(0, &Header { boot });
        Ok((slots, held, same_boot))
    }

    /// A slot that nothing holds.
    pub(crate) fn take(&self) -> u32 {
        let mut free = self.free.lock();
        free.slots.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    /// Says what a slot holds.
    pub(crate) fn set(&self, slot: u32, record: &Record) {
        self.write(slot, record);
    }

    /// Nothing is held there any more.
    pub(crate) fn give_back(&self, slot: u32) {
        let _ = self
            .file
            .write_all_at(&[b'\n'; 1], u64::from(slot) * RECORD as u64);
        self.free.lock().slots.push(slot);
    }

    /// A full disk costs the record, not the attempt: marks and groups find survivors without it.
    fn write(&self, slot: u32, record: &impl Serialize) {
        let mut bytes = [b' '; RECORD];
        bytes[RECORD - 1] = b'\n';
        if serde_json::to_writer(&mut bytes[..RECORD - 1], record).is_ok() {
            let _ = self
                .file
                .write_all_at(&bytes, u64::from(slot) * RECORD as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_fits_and_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record {
            attempt: Some((
                RunId(u128::MAX >> 1),
                Place {
                    scope: u32::MAX,
                    step: u16::MAX,
                    item: u32::MAX,
                },
                Offer {
                    epoch: u64::MAX,
                    counter: u64::MAX,
                },
                u32::MAX,
            )),
            pid: i32::MAX,
            session: i32::MAX,
            born: (1 << 40, 1 << 40),
        };
        let (slots, held, _) = Slots::open(directory.path()).unwrap();
        assert!(held.is_empty());
        let slot = slots.take();
        slots.set(slot, &record);
        slots.take();
        let (_, held, same_boot) = Slots::open(directory.path()).unwrap();
        assert_eq!(held, [record]);
        assert!(same_boot);
    }
}
