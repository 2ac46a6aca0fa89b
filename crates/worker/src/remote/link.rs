//! The way to a server.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use kapell_api::client::Target;
use kapell_api::worker::proto::workers_client::WorkersClient;
use kapell_api::worker::{CHUNK_BYTES, MESSAGE_BYTES};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::Server;

/// How long a connection may take to be made.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection on which nothing comes is asked whether it still is one so often.
const ALIVE: Duration = Duration::from_secs(10);

/// Shows a token with every call.
#[derive(Clone, Debug)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What carries calls to a server: a connection, or nothing but its own process.
type Carrier = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// Calls a server.
pub(crate) type Caller = WorkersClient<InterceptedService<Carrier, Token>>;

/// Connects.
pub(crate) async fn connect(server: &Server) -> Result<Caller, String> {
    let (carrier, token) = match server {
        Server::Inside { calls, .. } => {
            let calls = calls.clone().map_err(|never| match never {});
            (Carrier::new(calls), None)
        }
        Server::At(target) => {
            let channel = channel(target)
                .await?
                .map_err(|error| Status::from_error(Box::new(error)));
            (Carrier::new(channel), target.token())
        }
    };
    let token = token
        .map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>())
        .transpose()
        .map_err(|_| "the token has characters that no header may have".to_owned())?;
    Ok(WorkersClient::with_interceptor(carrier, Token(token))
        .max_decoding_message_size(2 * MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES))
}

async fn channel(server: &Target) -> Result<Channel, String> {
    let window = u32::try_from(8 * CHUNK_BYTES).unwrap_or(u32::MAX);
    let endpoint = Endpoint::from_static("http://kapell")
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window)
        .initial_connection_window_size(2 * window);
    let server = server.clone();
    let connector = tower::service_fn(move |_| {
        let server = server.clone();
        async move { server.wire().await.map(TokioIo::new) }
    });
    tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| format!("no connection within {} seconds", PATIENCE.as_secs()))?
        .map_err(|error| cause(&error))
}

/// What is behind an error that says little by itself.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
