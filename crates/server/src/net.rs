//! Connections: accepted, bounded, given up when they stall. One router answers on any of them.
//!
//! - **Too many** connections, of all or of one address, are closed at once.
//! - **Slow** ones lose theirs: the handshake of TLS, the head of a request, its body and every write of
//!   an answer have a time, also where HTTP/2 puts many answers into one connection; a connection that
//!   nobody uses is closed after the same time.
//! - **At the end** nothing new is accepted, and answers under way get a moment.

mod certificates;
mod patient;
mod stall;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::Version;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use kapell_model::limits;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::auth::Peer;
use patient::Patient;
use stall::Stalls;

pub use certificates::{Validity, validity};
pub use tls::TlsFiles;
pub(crate) use tls::acceptor;
pub(crate) use tls::self_signed;

/// How long a handshake, the head of a request, a stalled write, or a connection that nobody uses lasts.
const PATIENCE: Duration = Duration::from_secs(30);

/// The handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long answers under way are waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// After a connection could not be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Threads that wait for the store at once.
const BLOCKING: usize = 64;

/// Where connections come from.
pub(crate) enum Listener {
    /// The socket of the data directory.
    Unix(std::os::unix::net::UnixListener),
    /// An address.
    Tcp(std::net::TcpListener, Option<TlsAcceptor>, Trust),
}

/// Who is let in without a token at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Whoever is on this machine, where only the loopback is listened on.
    Machine,
    /// Nobody: a proxy on this machine stands for anybody.
    Nobody,
}

impl Trust {
    /// The other end of a connection that came from there, at the address where is listened.
    fn peer(self, here: Option<SocketAddr>, from: SocketAddr) -> Peer {
        let on_loopback = here.is_some_and(|here| here.ip().is_loopback());
        match self {
            Self::Machine if on_loopback && from.ip().is_loopback() => Peer::Loopback(from),
            Self::Machine | Self::Nobody => Peer::Remote(from),
        }
    }
}

/// A listener that is served by threads of its own.
pub(crate) struct Served {
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves until [`Served::close`]. `threads` handle requests.
    pub(crate) fn start(listener: Listener, router: Router, threads: usize) -> io::Result<Self> {
        let mut builder = if threads > 1 {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        } else {
            tokio::runtime::Builder::new_current_thread()
        };
        let runtime = builder
            .enable_all()
            .thread_name("kapell-http")
            .max_blocking_threads(BLOCKING)
            .build()?;
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("kapell-http".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, router, stopped)) {
                    tracing::error!(%error, "clients are not answered any more");
                }
                // Requests that still wait for a change are let go.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Accepts nothing more, gives answers under way a moment, and ends.
    pub(crate) fn close(mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

enum Accepting {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener, Option<TlsAcceptor>, Trust),
}

/// What all connections of a listener share.
struct Shared {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

async fn serve(
    listener: Listener,
    router: Router,
    mut stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let accepting = match listener {
        Listener::Unix(listener) => Accepting::Unix(tokio::net::UnixListener::from_std(listener)?),
        Listener::Tcp(listener, tls, trust) => {
            Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?, tls, trust)
        }
    };
    let shared = Arc::new(Shared {
        router,
        builder: builder(),
        places: Arc::new(Semaphore::new(limits::CONNECTIONS)),
        addresses: Mutex::default(),
    });
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            // Whoever stops us drops the other end.
            _ = stopped.changed() => break,
            accepted = accept(&accepting, &shared, &graceful) => accepted,
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(PAUSE).await;
        }
    }
    drop(accepting);
    // Who has not ended then is cut off with the runtime.
    let _ = tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await;
    Ok(())
}

async fn accept(
    accepting: &Accepting,
    shared: &Arc<Shared>,
    graceful: &GracefulShutdown,
) -> io::Result<()> {
    match accepting {
        Accepting::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            if let Some(place) = Place::take(shared, None) {
                let credentials = stream.peer_cred().ok();
                let peer = Peer::Socket {
                    pid: credentials.and_then(|credentials| credentials.pid()),
                    uid: credentials.map(|credentials| credentials.uid()),
                };
                tokio::spawn(connection(stream, peer, place, graceful.watcher()));
            }
        }
        Accepting::Tcp(listener, tls, trust) => {
            let (stream, address) = listener.accept().await?;
            // Too many: closed at once, before anything is read.
            if let Some(place) = Place::take(shared, Some(address.ip())) {
                stream.set_nodelay(true)?;
                let peer = trust.peer(listener.local_addr().ok(), address);
                let watcher = graceful.watcher();
                match tls.clone() {
                    None => drop(tokio::spawn(connection(stream, peer, place, watcher))),
                    Some(tls) => drop(tokio::spawn(async move {
                        let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                        if let Ok(Ok(stream)) = handshake.await {
                            connection(stream, peer, place, watcher).await;
                        }
                    })),
                }
            }
        }
    }
    Ok(())
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(limits::HEADERS)
        .max_buf_size(limits::HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(u32::try_from(limits::HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    builder
}

/// A connection's place among those that may be open. It is free again when this is dropped.
struct Place {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    _place: OwnedSemaphorePermit,
}

impl Place {
    fn take(shared: &Arc<Shared>, address: Option<IpAddr>) -> Option<Self> {
        let place = Arc::clone(&shared.places).try_acquire_owned().ok()?;
        if let Some(address) = address {
            let mut addresses = shared.addresses.lock();
            let open = addresses.entry(address).or_insert(0);
            if *open >= limits::CONNECTIONS_PER_ADDRESS {
                return None;
            }
            *open += 1;
        }
        Some(Self {
            shared: Arc::clone(shared),
            address,
            _place: place,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else {
            return;
        };
        let mut addresses = self.shared.addresses.lock();
        if let Some(open) = addresses.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&address);
            }
        }
    }
}

async fn connection<S>(stream: S, peer: Peer, place: Place, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = place.shared.router.clone();
    let stalls = Arc::new(Stalls::default());
    let watched = Arc::clone(&stalls);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let stalls = (request.version() == Version::HTTP_2).then(|| Arc::clone(&watched));
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(match stalls {
                Some(stalls) => answer.map(|body| stalls.watched(body)),
                None => answer,
            })
        }
    });
    let stream = TokioIo::new(Patient::new(stream, PATIENCE));
    let serving = place
        .shared
        .builder
        .serve_connection(stream, service)
        .into_owned();
    // That a client has gone, or was too slow, is of no interest.
    tokio::select! {
        _ = watcher.watch(serving) => {}
        () = stalls.too_long(PATIENCE) => {}
    }
    drop(place);
}
