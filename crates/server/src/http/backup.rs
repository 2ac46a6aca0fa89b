//! A backup, as it is made.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::Failure;
use crate::{Service, backup};

/// Pieces that wait for whoever reads: writing waits for them.
const PIECES: usize = 4;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(make_backup))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BackupQuery {
    /// Leave out what steps printed.
    #[serde(default)]
    without_logs: bool,
}

/// Make a backup
///
/// A tar file: the store as it was at one moment, what it refers to, and what steps printed. The key of
/// secrets is not in it. `kapell restore` makes a data directory of it. One is made at a time.
#[utoipa::path(
    get, path = "/backup", tag = "server", security(("token" = ["admin"])),
    params(BackupQuery),
    responses((
        status = 200, description = "The file, as it is made", body = Vec<u8>,
        content_type = "application/x-tar",
    ))
)]
async fn make_backup(
    State(service): Shared,
    Query(query): Query<BackupQuery>,
) -> Result<Response, Failure> {
    let (send, mut receive) = mpsc::channel(PIECES);
    let made = tokio::task::spawn_blocking(move || {
        if service.options.store.is_some() {
            let _ = send.blocking_send(Err(backup::of_postgres()));
            return;
        }
        let Some(_alone) = service.backing_up.try_lock() else {
            let error = Error::new(ErrorCode::NotAllowedNow, "a backup is being made already");
            let _ = send.blocking_send(Err(error.hint("try again when it is done")));
            return;
        };
        let to = Pieces(send.clone());
        let made = backup::stream(&service.data_dir, !query.without_logs, clock::now(), to);
        if let Err(error) = made {
            tracing::warn!(%error, "a backup was not made");
            // Whoever reads may have gone.
            let _ = send.blocking_send(Err(error));
        }
    });
    // A failure before the first piece is answered as one; a later one cuts the answer off.
    let first = if let Some(piece) = receive.recv().await {
        piece?
    } else {
        let gone = |error: tokio::task::JoinError| error.to_string();
        let why = made
            .await
            .map_or_else(gone, |()| "nothing was written".to_owned());
        return Err(Error::new(ErrorCode::Internal, why).into());
    };
    let rest = ReceiverStream::new(receive)
        .map(|piece: Result<Bytes, Error>| piece.map_err(|error| io::Error::other(error.message)));
    let all = stream::iter([Ok(first)]).chain(rest);
    let kind = [(header::CONTENT_TYPE, "application/x-tar")];
    Ok((kind, Body::from_stream(all)).into_response())
}

/// What is written, in pieces as they come.
struct Pieces(mpsc::Sender<Result<Bytes, Error>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
