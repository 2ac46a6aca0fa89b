//! What keeps blobs beside a store, as nodes and workers use it.

use std::path::Path;

use kapell_api::task::Blobs;
use kapell_expr::BlobRef;
use kapell_store::{BlobStore, FileBlobs};

/// Values, artifacts and bundles, in the files of a data directory or wherever else they lie.
#[derive(Clone, Debug)]
pub struct BlobFolder<B = FileBlobs>(pub B);

impl<B: BlobStore> Blobs for BlobFolder<B> {
    fn put(&self, bytes: &[u8]) -> std::io::Result<BlobRef> {
        self.0.put(bytes)
    }

    fn put_file(&self, path: &Path) -> std::io::Result<BlobRef> {
        self.0.put_file(path)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> std::io::Result<Vec<u8>> {
        self.0.get(blob, limit)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> std::io::Result<()> {
        self.0.get_file(blob, path)
    }
}
