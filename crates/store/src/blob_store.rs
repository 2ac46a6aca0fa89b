//! What keeps big things by what is in them: values, artifacts, bundles.
//!
//! What every kind must do is in [`crate::conformance`]; a blob that something refers to is never removed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kapell_expr::BlobRef;
use kapell_model::Time;

use crate::{FileBlobs, Result, Store, Sweep, Swept};

/// Blobs by the hashes of their contents.
pub trait BlobStore: Send + Sync {
    /// Keeps bytes, and every blob that is here whose hash stands in them. Durable when it returns.
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef>;

    /// Keeps a file's content without reading it into memory. Durable when it returns. Hashes in it mean
    /// nothing. One that is larger than what is taken is [`io::ErrorKind::FileTooLarge`].
    fn put_file(&self, path: &Path) -> io::Result<BlobRef>;

    /// The bytes of a blob of at most `limit` bytes. Damaged content is [`io::ErrorKind::InvalidData`], a
    /// larger blob [`io::ErrorKind::FileTooLarge`].
    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>>;

    /// Writes the content to a new file without reading it into memory. What cannot be read whole leaves
    /// no file.
    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()>;

    /// Marks blobs as put now: a sweep leaves them for as long as what was just put. What is not here or is
    /// no hash is passed over.
    fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()>;

    /// Does the next step of a sweep: removes some of what was not put or touched for `unused`, what
    /// nothing in the store refers to, and what no other blob holds. Whoever calls it chooses a time so
    /// long that what was put before it is referred to by now. `now` is the clock of this machine; blobs
    /// that several share go by their own.
    ///
    /// # Errors
    /// Those of the store, and [`crate::Error::Unavailable`] for the disk. The step may be done again.
    fn sweep(
        &self,
        sweep: &mut Sweep,
        store: &dyn Store,
        now: Time,
        unused: Duration,
    ) -> Result<Swept>;
}

impl BlobStore for FileBlobs {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        FileBlobs::put(self, bytes)
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        FileBlobs::put_file(self, path)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        FileBlobs::get(self, blob, limit)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        FileBlobs::get_file(self, blob, path)
    }

    fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()> {
        FileBlobs::touch(self, hashes)
    }

    fn sweep(
        &self,
        sweep: &mut Sweep,
        store: &dyn Store,
        now: Time,
        unused: Duration,
    ) -> Result<Swept> {
        let unused = i64::try_from(unused.as_micros()).unwrap_or(i64::MAX);
        FileBlobs::sweep(self, sweep, store, Time(now.0.saturating_sub(unused)))
    }
}

impl<B: BlobStore> BlobStore for Arc<B> {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        (**self).put(bytes)
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        (**self).put_file(path)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        (**self).get(blob, limit)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        (**self).get_file(blob, path)
    }

    fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()> {
        (**self).touch(hashes)
    }

    fn sweep(
        &self,
        sweep: &mut Sweep,
        store: &dyn Store,
        now: Time,
        unused: Duration,
    ) -> Result<Swept> {
        (**self).sweep(sweep, store, now, unused)
    }
}
