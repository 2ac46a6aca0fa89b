//! Contents and secrets, asked of the server. Calls block, from threads that may.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use kapell_api::task::Blobs;
use kapell_api::worker::{CHUNK_BYTES, decode, encode, proto};
use kapell_expr::BlobRef;
use kapell_model::SessionId;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::link::Caller;
use super::outbox::Name;

/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a call is tried whose connection ends.
const TRIES: usize = 3;

/// Parts of a content on their way.
const PARTS: usize = 4;

/// See the module.
pub(crate) struct Contents {
    runtime: Handle,
    link: Mutex<Link>,
    changed: Condvar,
}

#[derive(Default)]
struct Link {
    to: Option<(Caller, SessionId)>,
    /// Counts connections.
    number: u64,
}

impl Contents {
    /// Not connected yet.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            link: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// There is a connection.
    pub(crate) fn connected(&self, caller: Caller, session: SessionId) {
        let mut link = self.link.lock();
        link.to = Some((caller, session));
        link.number += 1;
        self.changed.notify_all();
    }

    /// There is none any more.
    pub(crate) fn disconnected(&self) {
        self.link.lock().to = None;
    }

    /// Calls the server, again if the connection ends meanwhile.
    fn call<T>(&self, call: impl Fn(Caller, SessionId) -> Result<T, Status>) -> io::Result<T> {
        let mut last = None;
        let mut failed = 0;
        for _ in 0..TRIES {
            let (caller, session) = {
                let mut link = self.link.lock();
                // One whose call failed is over, or will be in a moment.
                let waits = |link: &mut Link| link.to.is_none() || link.number == failed;
                self.changed.wait_while_for(&mut link, waits, PATIENCE);
                failed = link.number;
                match &link.to {
                    Some(to) => to.clone(),
                    None => break,
                }
            };
            match call(caller, session) {
                Ok(answer) => return Ok(answer),
                Err(status) if passes(&status) => last = Some(status),
                Err(status) => return Err(io::Error::other(status.message().to_owned())),
            }
        }
        let why = last.map_or_else(
            || "it cannot be reached".to_owned(),
            |status| status.message().to_owned(),
        );
        Err(io::Error::other(format!(
            "the server does not answer: {why}"
        )))
    }

    /// A secret that an attempt names.
    pub(crate) fn secret(&self, of: Name, name: &str) -> io::Result<Option<String>> {
        self.call(|mut caller, session| {
            let request = proto::SecretRequest {
                session: session.0,
                attempt: Some(encode::attempt(of.0, of.1, of.2)),
                name: name.to_owned(),
            };
            let answer = self.runtime.block_on(caller.secret(request))?;
            Ok(answer.into_inner().value)
        })
    }

    /// Gives each part of a content to `each`.
    fn fetch(
        &self,
        blob: &BlobRef,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
        (mut caller, session): (Caller, SessionId),
    ) -> Result<(), Status> {
        self.runtime.block_on(async {
            let request = proto::BlobRequest {
                session: session.0,
                blob: Some(encode::blob(blob)),
            };
            let mut parts = caller.get_blob(request).await?.into_inner();
            while let Some(part) = parts.message().await? {
                each(&part.bytes).map_err(|error| Status::aborted(error.to_string()))?;
            }
            Ok(())
        })
    }

    /// Sends a content.
    fn send(
        &self,
        value: bool,
        mut content: impl Read,
        (mut caller, session): (Caller, SessionId),
    ) -> Result<BlobRef, Status> {
        let (to, parts) = mpsc::channel(PARTS);
        let sending = self
            .runtime
            .spawn(async move { caller.put_blob(ReceiverStream::new(parts)).await });
        let mut first = true;
        loop {
            let mut bytes = Vec::new();
            let read = content
                .by_ref()
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut bytes);
            let count = read.map_err(|error| Status::aborted(error.to_string()))?;
            if count == 0 && !first {
                break;
            }
            let part = proto::NewBlob {
                bytes,
                value: first && value,
                session: if first { session.0 } else { 0 },
            };
            first = false;
            if to.blocking_send(part).is_err() {
                // The answer says why.
                break;
            }
        }
        drop(to);
        let answer = self.runtime.block_on(sending);
        let answer = answer.map_err(|error| Status::aborted(error.to_string()))??;
        decode::blob(&answer.into_inner()).map_err(|error| Status::aborted(error.to_string()))
    }
}

/// True for a failure of the connection.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded
    ) || status.code() == Code::Internal && std::error::Error::source(status).is_some()
}

impl Blobs for Contents {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        self.call(|caller, session| self.send(true, bytes, (caller, session)))
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        File::open(path)?;
        self.call(|caller, session| {
            let file = File::open(path).map_err(|error| Status::aborted(error.to_string()))?;
            self.send(false, file, (caller, session))
        })
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        if blob.size > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = self.call(|caller, session| {
            let mut whole = Vec::new();
            let keep = |part: &[u8]| {
                whole.extend_from_slice(part);
                Ok(())
            };
            self.fetch(blob, keep, (caller, session))?;
            Ok(whole)
        })?;
        checked(blob, &blake3::hash(&bytes))?;
        Ok(bytes)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        let hash = self.call(|caller, session| {
            let mut file =
                File::create(path).map_err(|error| Status::aborted(error.to_string()))?;
            let mut hash = blake3::Hasher::new();
            let keep = |part: &[u8]| {
                hash.update(part);
                file.write_all(part)
            };
            self.fetch(blob, keep, (caller, session))?;
            Ok(hash.finalize())
        })?;
        checked(blob, &hash)
    }
}

/// What came is what was asked for.
fn checked(blob: &BlobRef, hash: &blake3::Hash) -> io::Result<()> {
    if hash.to_hex().as_str() == &*blob.hash {
        return Ok(());
    }
    let message = format!("the content of blob {} came broken", blob.hash);
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
