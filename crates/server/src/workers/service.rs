//! The gRPC face of sessions. It holds no rule: it turns messages into calls and back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use kapell_api::http::Scope;
use kapell_api::worker::proto::workers_server::{SERVICE_NAME, Workers as Service, WorkersServer};
use kapell_api::worker::{Inside, MESSAGE_BYTES, decode, encode, proto};
use kapell_model::{Error, ErrorCode, SessionId};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt as _;

use super::Workers;
use super::contents::part_in_time;
use super::opening::{From, Opened};
use super::session::{LinkEnd, ToWorker};
use crate::auth::{Caller, Peer};
use crate::register::NAMESPACE;

/// How long a worker may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Messages made into one for a worker at most.
const MERGED: usize = 64;

/// Tasks in one message.
const TASKS: usize = 512;

/// Where workers of other processes connect: routes for the same listener as all others.
pub fn routes<S: Clone + Send + Sync + 'static>(workers: Arc<Workers>) -> axum::Router<S> {
    // No router of tonic's: that answers all addresses.
    axum::Router::new().route_service(&format!("/{SERVICE_NAME}/{{*call}}"), service(workers))
}

/// The same for the worker in this process, which needs no listener.
pub(crate) fn inside(workers: Arc<Workers>) -> Inside {
    let known = service(workers).map_request(|mut request: http::Request<Body>| {
        let caller = Caller::local(Peer::Inside);
        request.extensions_mut().insert(caller);
        request
    });
    Inside::new(known)
}

fn service(workers: Arc<Workers>) -> WorkersServer<Face> {
    WorkersServer::new(Face(workers))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(2 * MESSAGE_BYTES)
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
        let caller = permitted(&request)?.clone();
        let from = if caller.is_inside() {
            From::Inside
        } else {
            From::Outside
        };
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_PATIENCE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the worker did not say hello"))??;
        let hello = first
            .and_then(|first| first.hello)
            .ok_or_else(|| Status::invalid_argument("the first message is no hello"))?;
        let opened = blocking(&self.0, move |workers| workers.hello(hello, from)).await?;
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
                lease_millis: lease.map_or(0, |lease| {
                    u32::try_from(lease.as_millis()).unwrap_or(u32::MAX)
                }),
                logs_taken,
            }),
            ..proto::FromServer::default()
        };
        tokio::spawn(listen(
            Arc::clone(&self.0),
            (session, link),
            (inbound, caller),
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
        let blob = request
            .blob
            .ok_or_else(|| Status::invalid_argument("no blob"))?;
        let blob = decode::blob(&blob).map_err(|error| malformed(&error))?;
        let place = self.0.content_place(SessionId(request.session)).await?;
        Ok(Response::new(Box::pin(self.0.fetch(blob, place))))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<proto::NewBlob>>,
    ) -> Result<Response<proto::Blob>, Status> {
        permitted(&request)?;
        let mut parts = request.into_inner();
        let first = part_in_time(&mut parts)
            .await?
            .ok_or_else(|| Status::invalid_argument("a content without a first part"))?;
        let blob = self.0.keep(first, parts).await?;
        Ok(Response::new(encode::blob(&blob)))
    }
}

/// Whoever gets tasks needs a token to start runs, or none where nobody needs one.
fn permitted<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| Status::unauthenticated("a worker needs a token here"))?;
    caller.may(Scope::Run, NAMESPACE).map_err(status)?;
    Ok(caller)
}

/// Between two looks whether a worker's token still holds. Whose does not is heard no more: its lease ends.
const LOOK: Duration = Duration::from_secs(5);

/// Hears a connection until one of both ends it, or the worker may be here no more.
async fn listen(
    workers: Arc<Workers>,
    (session, link): (SessionId, u64),
    (mut inbound, caller): (Streaming<proto::FromWorker>, Caller),
    mut closed: oneshot::Receiver<()>,
) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            _ = &mut closed => break,
            _ = looks.tick() => {
                if caller.still_may() {
                    continue;
                }
                break;
            }
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
        let is_full = bytes + size > MESSAGE_BYTES / 2 || open.tasks.len() == TASKS;
        if bytes > 0 && is_full {
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
