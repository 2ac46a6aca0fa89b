//! A backup of a server.

use std::io::Write;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use kapell_model::{Error, ErrorCode};

use super::{ANSWER_PATIENCE, Client, Result, TRANSFER_PATIENCE, refusal};
use crate::http::ANSWER_BYTES;

impl Client {
    /// Writes a backup of the server as it comes; its bytes.
    ///
    /// # Errors
    /// What the server refuses, `server-unreachable` if it is cut off, `disk-full` and others if it cannot
    /// be written.
    pub fn backup(&self, logs: bool, to: &mut dyn Write) -> Result<u64> {
        let path = if logs {
            "/backup"
        } else {
            "/backup?without_logs=true"
        };
        let request = self
            .target
            .request(Method::GET, path, Bytes::new(), "application/json")?;
        self.runtime.block_on(async {
            let mut connection = self.target.open().await?;
            // The store is copied before the first byte comes.
            let answer = self
                .within(TRANSFER_PATIENCE, connection.send_request(request))
                .await?
                .map_err(|error| self.target.unreachable(&error))?;
            let status = answer.status();
            let mut body = answer.into_body();
            let (mut bytes, mut refused) = (0, Vec::new());
            while let Some(frame) = self.within(ANSWER_PATIENCE, body.frame()).await? {
                let frame = frame.map_err(|error| self.target.unreachable(&error))?;
                let Ok(piece) = frame.into_data() else {
                    continue;
                };
                if status.is_success() {
                    to.write_all(&piece).map_err(|error| unwritten(&error))?;
                    bytes += piece.len() as u64;
                } else if refused.len() + piece.len() <= ANSWER_BYTES {
                    refused.extend_from_slice(&piece);
                }
            }
            if status.is_success() {
                Ok(bytes)
            } else {
                Err(refusal(status, &refused))
            }
        })
    }
}

fn unwritten(error: &std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
        _ => ErrorCode::StoreUnavailable,
    };
    Error::new(code, format!("the backup cannot be written: {error}"))
}
