//! Contents in memory, by their hash.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kapell_api::task::Blobs;
use kapell_expr::BlobRef;
use parking_lot::Mutex;

/// Blobs that live as long as the world.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Mutex<BTreeMap<Arc<str>, Arc<[u8]>>>);

impl Blobs for MemoryBlobs {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let hash: Arc<str> = blake3::hash(bytes).to_hex().as_str().into();
        self.0.lock().insert(hash.clone(), bytes.into());
        Ok(BlobRef {
            hash,
            size: bytes.len() as u64,
        })
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            path.display().to_string(),
        ))
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        let blobs = self.0.lock();
        let bytes = blobs.get(&blob.hash).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.to_vec())
    }

    fn get_file(&self, _: &BlobRef, path: &Path) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            path.display().to_string(),
        ))
    }
}
