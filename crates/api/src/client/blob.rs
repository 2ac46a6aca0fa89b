//! Bytes that are kept.

use std::path::Path;

use hyper::Method;
use hyper::body::Bytes;
use kapell_expr::BlobRef;
use kapell_model::{Error, ErrorCode};

use super::{Client, Result};

/// Keeping bytes.
pub trait BlobCalls: Send + Sync {
    /// Keeps bytes.
    fn put(&self, bytes: &[u8]) -> Result<BlobRef>;
    /// Keeps a file's content.
    fn put_file(&self, path: &Path) -> Result<BlobRef>;
}

impl BlobCalls for Client {
    fn put(&self, bytes: &[u8]) -> Result<BlobRef> {
        self.call(
            Method::POST,
            "/blobs",
            Bytes::copy_from_slice(bytes),
            "application/octet-stream",
        )
    }

    fn put_file(&self, path: &Path) -> Result<BlobRef> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::new(
                ErrorCode::FileNotFound,
                format!("`{}`: {error}", path.display()),
            )
        })?;
        self.call(
            Method::POST,
            "/blobs",
            bytes.into(),
            "application/octet-stream",
        )
    }
}
