//! Contents that workers fetch and send.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kapell_api::worker::proto;
use kapell_expr::BlobRef;
use kapell_model::{SessionId, limits};
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Workers;
use crate::contents::{self, PATIENCE, Passing, on_thread};

/// A content's place among those of its session, and among all. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct ContentPlace {
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Workers {
    /// A place for one more content of a session. Those of a worker that does not read leave room for
    /// others.
    pub(super) async fn content_place(&self, session: SessionId) -> Result<ContentPlace, Status> {
        let own = self.contents_of(session);
        let own = own.ok_or_else(|| Status::permission_denied("there is no such session"))?;
        let all = Arc::clone(&self.contents);
        let places = async move {
            let own = own.acquire_owned().await.ok()?;
            Some((own, all.acquire_owned().await.ok()?))
        };
        match tokio::time::timeout(PATIENCE, places).await {
            Ok(Some(places)) => Ok(ContentPlace { _places: places }),
            Ok(None) | Err(_) => Err(Status::unavailable(
                "too many contents are on their way, and none of them gets on",
            )),
        }
    }

    /// The content of a blob, in parts.
    pub(super) fn fetch(
        &self,
        blob: BlobRef,
        place: ContentPlace,
    ) -> impl Stream<Item = Result<proto::Chunk, Status>> + Send + use<> {
        let blobs = Arc::clone(&self.blobs);
        let parts = contents::parts(blobs, &self.data_dir, blob, place);
        ReceiverStream::new(parts).map(|part| match part {
            Ok(part) => Ok(proto::Chunk { bytes: part.into() }),
            Err(error) => Err(Status::unavailable(error.to_string())),
        })
    }

    /// Keeps a content that comes in parts. Nothing is kept of one that does not come whole.
    pub(super) async fn keep(
        self: &Arc<Self>,
        first: proto::NewBlob,
        mut rest: impl Stream<Item = Result<proto::NewBlob, Status>> + Unpin,
    ) -> Result<BlobRef, Status> {
        let _place = self.content_place(SessionId(first.session)).await?;
        let failed = |error: io::Error| Status::unavailable(error.to_string());
        let value = first.value;
        let bound = if value {
            limits::OUTPUT_BYTES
        } else {
            limits::ARTIFACT_BYTES
        };
        let workers = Arc::clone(self);
        let mut writing = on_thread(move || Writing::new(&workers.data_dir))
            .await
            .map_err(failed)?;
        let mut size = 0_u64;
        let mut next = Some(first);
        while let Some(part) = next {
            size += part.bytes.len() as u64;
            if size > bound {
                let message = format!("a content of more than {bound} bytes");
                return Err(Status::resource_exhausted(message));
            }
            if !part.bytes.is_empty() {
                let write = move || {
                    writing.file.write_all(&part.bytes)?;
                    Ok(writing)
                };
                writing = on_thread(write).await.map_err(failed)?;
            }
            next = part_in_time(&mut rest).await?;
        }
        let workers = Arc::clone(self);
        let kept = on_thread(move || {
            let path = &writing.passing.0;
            if value {
                // Whole: what it refers to stands in it.
                workers.blobs.put(&std::fs::read(path)?)
            } else {
                workers.blobs.put_file(path)
            }
        });
        kept.await.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Status::resource_exhausted(error.to_string()),
            _ => failed(error),
        })
    }
}

/// The next part of a content that is sent here.
pub(super) async fn part_in_time(
    parts: &mut (impl Stream<Item = Result<proto::NewBlob, Status>> + Unpin),
) -> Result<Option<proto::NewBlob>, Status> {
    tokio::time::timeout(PATIENCE, parts.next())
        .await
        .map_err(|_| Status::deadline_exceeded("the next part of a content did not come"))?
        .transpose()
}

/// A content that comes from a worker.
struct Writing {
    file: File,
    passing: Passing,
}

impl Writing {
    fn new(data_dir: &Path) -> io::Result<Self> {
        let passing = Passing::new(data_dir);
        let file = File::create(&passing.0)?;
        Ok(Self { file, passing })
    }
}
