//! Bytes that are kept.

use std::path::Path;

use kapell_api::client::{BlobCalls, Result};
use kapell_expr::BlobRef;
use kapell_model::{Error, ErrorCode};

use super::Service;

impl BlobCalls for Service {
    fn put(&self, bytes: &[u8]) -> Result<BlobRef> {
        self.blobs.put(bytes).map_err(|error| stored(&error))
    }

    fn put_file(&self, path: &Path) -> Result<BlobRef> {
        self.blobs.put_file(path).map_err(|error| stored(&error))
    }
}

/// Content that cannot be read.
pub(super) fn unread(error: &std::io::Error) -> Error {
    let message = format!("a file cannot be read: {error}");
    Error::new(ErrorCode::StoreUnavailable, message)
}

fn stored(error: &std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
        _ => ErrorCode::StoreUnavailable,
    };
    Error::new(code, format!("a file cannot be kept: {error}"))
}
