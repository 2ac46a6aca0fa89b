//! The gRPC face of sessions. It holds no rule: it turns messages into calls and back.

use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use kapell_api::http::Scope;
use kapell_api::worker::proto::workers_server::{SERVICE_NAME, Workers as Service, WorkersServer};
use kapell_api::worker::{CHUNK_BYTES, MESSAGE_BYTES, decode, encode, proto};
use kapell_model::{Error, ErrorCode, SessionId, limits};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Workers;
use super::opening::Opened;
use super::session::{LinkEnd, ToWorker};
use crate::auth::Caller;
use crate::register::NAMESPACE;

/// How long a worker may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How long the next part of a content may take.
const PART_PATIENCE: Duration = Duration::from_mins(1);

/// Chunks of a content on their way.
const CHUNKS: usize = 4;

/// Messages made into one for a worker at most.
const MERGED: usize = 64;

/// Where workers of other processes connect: routes for the same listener as all others.
pub fn routes<S: Clone + Send + Sync + 'static>(workers: Arc<Workers>) -> axum::Router<S> {
    let service = WorkersServer::new(Face(workers))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(2 * MESSAGE_BYTES);
    // No router of tonic's: that answers all addresses.
    axum::Router::new().route_service(&format!("/{SERVICE_NAME}/{{*call}}"), service)
}

struct Face(Arc<Workers>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Face {
    type SessionStream = Answers<proto::FromServer>;
    type GetBlobStream = Answers<proto::Chunk>;

    async fn session(
        &self,
        request: Request<Streaming<proto::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        permitted(&request)?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_PATIENCE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the worker did not say hello"))??;
        let hello = first
            .and_then(|first| first.hello)
            .ok_or_else(|| Status::invalid_argument("the first message is no hello"))?;
        let opened = blocking(&self.0, move |workers| workers.hello(hello)).await?;
        let Opened {
            session,
            resumed,
            link,
            logs_taken,
            lease,
            end: LinkEnd { messages, closed },
        } = opened;
        let welcome = proto::FromServer {
            welcome: Some(proto::Welcome {
                session: session.0,
                resumed,
                lease_millis: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
                logs_taken,
            }),
            ..proto::FromServer::default()
        };
        tokio::spawn(listen(
            Arc::clone(&self.0),
            (session, link),
            inbound,
            closed,
        ));
        let messages = ReceiverStream::new(messages)
            .ready_chunks(MERGED)
            .flat_map(|messages| stream::iter(merged(messages)));
        let answers = stream::once(async { welcome }).chain(messages).map(Ok);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn secret(
        &self,
        request: Request<proto::SecretRequest>,
    ) -> Result<Response<proto::SecretAnswer>, Status> {
        permitted(&request)?;
        let request = request.into_inner();
        let name = decode::attempt(request.attempt.as_ref()).map_err(|error| malformed(&error))?;
        let session = SessionId(request.session);
        let value = blocking(&self.0, move |workers| {
            workers.secret(session, &name, &request.name)
        })
        .await?;
        Ok(Response::new(proto::SecretAnswer { value }))
    }

    async fn get_blob(
        &self,
        request: Request<proto::BlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        permitted(&request)?;
        let request = request.into_inner();
        self.known(request.session)?;
        let blob = request
            .blob
            .ok_or_else(|| Status::invalid_argument("no blob"))?;
        let blob = decode::blob(&blob).map_err(|error| malformed(&error))?;
        let (to, chunks) = mpsc::channel(CHUNKS);
        let workers = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = workers.read_blob(&blob, &to) {
                // Whoever asked may have gone.
                let _ = to.blocking_send(Err(Status::unavailable(error.to_string())));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<proto::NewBlob>>,
    ) -> Result<Response<proto::Blob>, Status> {
        permitted(&request)?;
        let mut parts = request.into_inner();
        let first = next(&mut parts)
            .await?
            .ok_or_else(|| Status::invalid_argument("a content without a first part"))?;
        self.known(first.session)?;
        let value = first.value;
        let bound = if value {
            limits::OUTPUT_BYTES
        } else {
            limits::ARTIFACT_BYTES
        };
        let (to, from) = mpsc::channel::<Vec<u8>>(CHUNKS);
        let workers = Arc::clone(&self.0);
        let kept = tokio::task::spawn_blocking(move || workers.write_blob(value, from));
        let mut size = 0_u64;
        let mut part = Some(first);
        let mut whole = true;
        while let Some(now) = part.take() {
            size += now.bytes.len() as u64;
            if size > bound {
                return Err(Status::resource_exhausted(format!(
                    "a content of more than {bound} bytes"
                )));
            }
            if to.send(now.bytes).await.is_err() {
                whole = false;
                break;
            }
            part = next(&mut parts).await?;
        }
        if whole {
            // An empty part says that this was all; without it nothing is kept.
            let _ = to.send(Vec::new()).await;
        }
        drop(to);
        let blob = kept
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(encode::blob(&blob)))
    }
}

/// Whoever gets tasks needs a token to start runs, or none where nobody needs one.
fn permitted<T>(request: &Request<T>) -> Result<(), Status> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| Status::unauthenticated("a worker needs a token here"))?;
    caller.may(Scope::Run, NAMESPACE).map_err(status)
}

impl Face {
    fn known(&self, session: u64) -> Result<(), Status> {
        if self.0.is_session(SessionId(session)) {
            Ok(())
        } else {
            Err(Status::permission_denied("there is no such session"))
        }
    }
}

async fn next(parts: &mut Streaming<proto::NewBlob>) -> Result<Option<proto::NewBlob>, Status> {
    tokio::time::timeout(PART_PATIENCE, parts.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the next part of a content did not come"))?
}

/// Hears a connection until one of both ends it.
async fn listen(
    workers: Arc<Workers>,
    (session, link): (SessionId, u64),
    mut inbound: Streaming<proto::FromWorker>,
    mut closed: oneshot::Receiver<()>,
) {
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            _ = &mut closed => break,
        };
        let Ok(Some(mut message)) = message else {
            break;
        };
        let logs = std::mem::take(&mut message.logs);
        if !logs.is_empty() {
            // Before the reports that come with them: the log is there when a step has ended.
            let (workers, number) = (Arc::clone(&workers), message.logs_number);
            let written = tokio::task::spawn_blocking(move || {
                workers.logged(session, link, number, &logs);
            });
            if written.await.is_err() {
                break;
            }
        }
        match workers.heard(session, link, message) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::error!(%error, %session, "a worker's connection is ended");
                break;
            }
        }
    }
    workers.hung_up(session, link);
}

/// Messages in order, neighbours made one where that says the same.
fn merged(messages: Vec<ToWorker>) -> Vec<proto::FromServer> {
    let mut all: Vec<proto::FromServer> = Vec::new();
    for message in messages {
        let mut new = proto::FromServer::default();
        match message {
            ToWorker::Taken(numbers) => {
                // What is taken can be said with anything.
                if let Some(last) = all.last_mut() {
                    last.taken.extend(numbers);
                    continue;
                }
                new.taken = numbers;
            }
            ToWorker::LogsTaken(number) => {
                if let Some(last) = all.last_mut() {
                    last.logs_taken = last.logs_taken.max(number);
                    continue;
                }
                new.logs_taken = number;
            }
            ToWorker::Beat(beat) => {
                if let Some(last) = all.last_mut() {
                    last.beat = last.beat.max(beat);
                    continue;
                }
                new.beat = beat;
            }
            ToWorker::Tasks(batch, tasks) => {
                all.extend(batches(batch, &tasks));
                continue;
            }
            ToWorker::Stops(names) => {
                let names = names.into_iter();
                new.stops = names
                    .map(|(run, place, offer)| encode::attempt(run, place, offer))
                    .collect();
            }
            ToWorker::Drain(grace) => {
                new.drain = Some(proto::Drain {
                    grace_millis: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
                });
            }
        }
        all.push(new);
    }
    all
}

/// A batch in messages that are not too big; the last one names it, so it has arrived with that.
fn batches(batch: u64, tasks: &[kapell_api::task::Task]) -> Vec<proto::FromServer> {
    let mut all = Vec::new();
    let mut open = proto::FromServer::default();
    let mut bytes = 0;
    for task in tasks {
        let task = encode::task(task);
        let size = encode::size(&task);
        if bytes > 0 && bytes + size > MESSAGE_BYTES / 2 {
            all.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes += size;
        open.tasks.push(task);
    }
    open.batch = batch;
    all.push(open);
    all
}

fn malformed(error: &decode::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A failure as gRPC says it; its code goes with it.
fn status(error: Error) -> Status {
    let code = match error.code {
        ErrorCode::BadRequest => Code::InvalidArgument,
        ErrorCode::NotAllowedNow | ErrorCode::NotPermitted => Code::PermissionDenied,
        ErrorCode::LimitReached => Code::ResourceExhausted,
        _ if error.code.retryable() => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.message)
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    workers: &Arc<Workers>,
    call: impl FnOnce(&Workers) -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let workers = Arc::clone(workers);
    tokio::task::spawn_blocking(move || call(&workers))
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(status)
}

impl Workers {
    /// Sends the content of a blob. Blocks.
    fn read_blob(
        &self,
        blob: &kapell_expr::BlobRef,
        to: &mpsc::Sender<Result<proto::Chunk, Status>>,
    ) -> std::io::Result<()> {
        let mut send = |bytes: &[u8]| {
            let chunk = proto::Chunk {
                bytes: bytes.to_vec().into(),
            };
            to.blocking_send(Ok(chunk)).is_ok()
        };
        if blob.size <= limits::OUTPUT_BYTES {
            let bytes = self.blobs.get(blob, limits::OUTPUT_BYTES)?;
            // Whoever goes in the middle wants no more.
            let _ = bytes.chunks(CHUNK_BYTES).all(&mut send);
            return Ok(());
        }
        let passing = Passing::new(&self.data_dir);
        self.blobs.get_file(blob, &passing.0)?;
        let mut file = std::fs::File::open(&passing.0)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 || !send(&buffer[..count]) {
                return Ok(());
            }
        }
    }

    /// Keeps a content that comes in parts, the last of them empty. Blocks.
    fn write_blob(
        &self,
        value: bool,
        mut parts: mpsc::Receiver<Vec<u8>>,
    ) -> std::io::Result<kapell_expr::BlobRef> {
        let torn = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        if value {
            let mut whole = Vec::new();
            loop {
                let part = parts.blocking_recv().ok_or_else(torn)?;
                if part.is_empty() {
                    return self.blobs.put(&whole);
                }
                whole.extend_from_slice(&part);
            }
        }
        let passing = Passing::new(&self.data_dir);
        let mut file = std::fs::File::create(&passing.0)?;
        loop {
            let part = parts.blocking_recv().ok_or_else(torn)?;
            if part.is_empty() {
                drop(file);
                return self.blobs.put_file(&passing.0);
            }
            file.write_all(&part)?;
        }
    }
}

/// A file that a content passes through; what a process leaves is cleared at the next start.
struct Passing(std::path::PathBuf);

impl Passing {
    fn new(data_dir: &std::path::Path) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(data_dir.join(format!("blobs/new/passing-{number}")))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}
