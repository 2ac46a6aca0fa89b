//! What answers other nodes. It holds no rule: it turns frames into calls and back.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use kapell_api::nodes::KEY_HEADER;
use kapell_api::nodes::proto::frame::Kind;
use kapell_api::nodes::proto::nodes_server::{NodesServer, SERVICE_NAME};
use kapell_api::nodes::proto::{Answer, Ask, Frame, Hello, Welcome, nodes_server};
use kapell_model::{Error, ErrorCode, NodeId, limits};
use kapell_node::request::wire;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::link::FRAME_BYTES;
use super::{Nodes, words};

/// How long a node may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);

/// Where other nodes connect: routes for the same listener as all others.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(nodes: Arc<Nodes>) -> axum::Router<S> {
    let service = NodesServer::new(Face(nodes))
        .max_decoding_message_size(FRAME_BYTES)
        .max_encoding_message_size(FRAME_BYTES);
    // No router of tonic's: that answers all addresses.
    axum::Router::new().route_service(&format!("/{SERVICE_NAME}/{{*call}}"), service)
}

struct Face(Arc<Nodes>);

/// Frames on their way out, each with its place among those that are under way.
pub(super) type Out = mpsc::UnboundedSender<(Frame, OwnedSemaphorePermit)>;

#[tonic::async_trait]
impl nodes_server::Nodes for Face {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        self.permitted(&request).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_PATIENCE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the node did not say hello"))??;
        let Some(Kind::Hello(hello)) = first.and_then(|first| first.kind) else {
            return Err(Status::invalid_argument("the first frame is no hello"));
        };
        let Hello { to, from, .. } = hello;
        if to != self.0.me.0 {
            // A node that started anew at the address of one that is gone.
            return Err(Status::failed_precondition(
                "another node is at this address",
            ));
        }
        let from = NodeId(from);
        tracing::info!(node = %from, "another node has come to ask");
        // What it could not say while there was no link it means now.
        self.0.node.rang();
        self.0.node.versions_changed_elsewhere();
        let (out, frames) = mpsc::unbounded_channel();
        tokio::spawn(listen(Arc::clone(&self.0), from, inbound, out));
        let welcome = Frame {
            kind: Some(Kind::Welcome(Welcome {})),
        };
        let frames = UnboundedReceiverStream::new(frames).map(|(frame, _place)| frame);
        let frames = stream::once(async { welcome }).chain(frames).map(Ok);
        Ok(Response::new(Box::pin(frames)))
    }
}

impl Face {
    /// Only nodes know the key.
    async fn permitted<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let refused = || Status::unauthenticated("only nodes of this cluster are answered here");
        let shown = request.metadata().get(KEY_HEADER).ok_or_else(refused)?;
        let (shown, secret) = (shown.as_bytes().to_vec(), Arc::clone(&self.0.secret));
        let fits = tokio::task::spawn_blocking(move || secret.fits(&shown)).await;
        if fits.unwrap_or(false) {
            Ok(())
        } else {
            Err(refused())
        }
    }
}

/// Hears a node until the connection ends.
async fn listen(nodes: Arc<Nodes>, from: NodeId, mut inbound: Streaming<Frame>, out: Out) {
    let relaying = nodes.relaying.get().and_then(Weak::upgrade);
    let relaying = relaying.map(|relaying| (relaying.comes(from), relaying));
    let places = Arc::new(Semaphore::new(limits::NODE_REQUESTS));
    let mut follower = None;
    while let Ok(Some(frame)) = inbound.message().await {
        match frame.kind {
            Some(Kind::Ask(ask)) => {
                // Whoever keeps to the bound never waits here.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                answer(&nodes, ask, place, out.clone());
            }
            Some(Kind::Follow(follow)) => {
                nodes
                    .follow
                    .follower(&mut follower, follow.on.then(|| out.clone()));
            }
            Some(Kind::Work(work)) => {
                let Some((number, relaying)) = &relaying else {
                    continue;
                };
                match words::decoded(work) {
                    // What a later version says as well.
                    Ok(None) => {}
                    Ok(Some(word)) => {
                        if !relaying.hear((from, *number), word) {
                            // A newer connection of the same node counts.
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::error!(node = %from, %error, "the connection of a node is ended");
                        break;
                    }
                }
            }
            Some(Kind::Rang(_)) => nodes.node.rang(),
            Some(Kind::VersionsChanged(_)) => nodes.node.versions_changed_elsewhere(),
            // What a later version says as well, or what nobody who asks says.
            Some(Kind::Hello(_) | Kind::Welcome(_) | Kind::Answer(_) | Kind::Changed(_)) | None => {
            }
        }
    }
    nodes.follow.follower(&mut follower, None);
}

/// Does what is asked, here alone.
fn answer(nodes: &Arc<Nodes>, ask: Ask, place: OwnedSemaphorePermit, out: Out) {
    let number = ask.number;
    if !ask.question.is_empty() {
        let nodes = Arc::clone(nodes);
        // It may look at the store.
        tokio::task::spawn_blocking(move || {
            let answer = nodes.answer_question(&ask.question);
            send(number, answer, place, &out);
        });
        return;
    }
    let request = match wire::request_from_bytes(&ask.request) {
        Ok(request) => request,
        Err(error) => {
            say(number, &Err(error), place, &out);
            return;
        }
    };
    nodes.node.ask_lane(
        request,
        Box::new(move |answer| say(number, &answer, place, &out)),
    );
}

fn say(
    number: u64,
    answer: &Result<kapell_node::Answer, Error>,
    place: OwnedSemaphorePermit,
    out: &Out,
) {
    let bytes = wire::answer_to_bytes(answer);
    let bytes = bytes.and_then(|bytes| match bytes.len() {
        0..=limits::NODE_MESSAGE_BYTES => Ok(bytes),
        size => Err(too_big(size)),
    });
    let bytes = match bytes {
        Ok(bytes) => bytes,
        // An error is small and can be written.
        Err(error) => wire::answer_to_bytes(&Err(error)).unwrap_or_default(),
    };
    send(number, bytes, place, out);
}

fn send(number: u64, bytes: Vec<u8>, place: OwnedSemaphorePermit, out: &Out) {
    let answer = Kind::Answer(Answer {
        number,
        answer: bytes.into(),
    });
    let frame = Frame { kind: Some(answer) };
    // Whoever asked may have gone.
    let _ = out.send((frame, place));
}

fn too_big(size: usize) -> Error {
    let message = format!("the answer has {size} bytes on its way from the node that has it");
    Error::new(ErrorCode::LimitReached, message).hint(format!(
        "at most {}: ask for less of it, or the node itself: `kapell nodes`",
        limits::NODE_MESSAGE_BYTES
    ))
}
