//! Answers over HTTP/2 whose client takes nothing more of them.
//!
//! There a client says for each answer, and for all together, how much more it takes. One that says
//! nothing stalls its answers while the connection itself is well: its bytes flow, its pings are
//! answered. What an answer has left is asked for only when the client takes more, and that is what is
//! watched here. A connection with an answer that stalled for too long is ended.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes that are given at a time, so that a large answer that is one piece is watched too.
const PIECE: usize = 64 << 10;

/// The answers of one connection that wait for their client.
#[derive(Default)]
pub(super) struct Stalls(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last: u64,
    /// Since when the client took nothing of an answer.
    since: BTreeMap<u64, Instant>,
}

impl Stalls {
    /// Watches an answer.
    pub(super) fn watched(self: &Arc<Self>, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let number = {
            let mut waiting = self.0.lock();
            waiting.last += 1;
            waiting.last
        };
        let watched = Watched {
            body,
            left: Bytes::new(),
            stalls: Arc::clone(self),
            number,
        };
        watched.waits();
        Body::new(watched)
    }

    /// Returns once an answer has stalled for so long.
    pub(super) async fn too_long(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 4).await;
            let now = Instant::now();
            let waiting = self.0.lock();
            if waiting
                .since
                .values()
                .any(|since| now.duration_since(*since) >= patience)
            {
                return;
            }
        }
    }
}

/// An answer. It says that it has ended only when it is asked for more: then its client has taken all
/// before.
struct Watched {
    body: Body,
    /// What is left of a piece that was too large.
    left: Bytes,
    stalls: Arc<Stalls>,
    number: u64,
}

impl Watched {
    /// The client has to take something.
    fn waits(&self) {
        let now = Instant::now();
        self.stalls.0.lock().since.insert(self.number, now);
    }

    /// The client takes more.
    fn goes_on(&self) {
        self.stalls.0.lock().since.remove(&self.number);
    }

    fn piece(&mut self) -> Bytes {
        let size = self.left.len().min(PIECE);
        self.left.split_to(size)
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.left.is_empty() {
            this.goes_on();
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => this.left = data,
                Err(other) => {
                    this.waits();
                    return Poll::Ready(Some(Ok(other)));
                }
            }
        }
        this.waits();
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn size_hint(&self) -> SizeHint {
        let (left, body) = (self.left.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(left + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(left + upper);
        }
        hint
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.goes_on();
    }
}
