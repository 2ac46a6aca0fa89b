use axum::body::{Bytes, HttpBody as _};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// A connection that is served, and when that is over.
fn served(router: Router, room: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = duplex(room);
    let shared = Arc::new(Shared {
        router,
        builder: builder(),
        places: Arc::new(Semaphore::new(1)),
        addresses: Mutex::default(),
    });
    let place = Place::take(&shared, None).unwrap();
    let peer = Peer::Remote(([192, 0, 2, 7], 1).into());
    let graceful = GracefulShutdown::new();
    let watcher = graceful.watcher();
    let serving = tokio::spawn(async move {
        connection(theirs, peer, place, watcher).await;
        // Gone, it would end the connection.
        drop(graceful);
    });
    (ours, serving)
}

#[test]
fn connections_that_say_nothing_or_stop_half_way_are_closed() {
    for said in ["", "P", "PRI * HTT", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        runtime().block_on(async {
            let (mut ours, serving) = served(Router::new(), 1 << 16);
            ours.write_all(said.as_bytes()).await.unwrap();
            // Time flies while all wait: a connection that is held would end this only at the bound.
            let over = tokio::time::timeout(4 * PATIENCE, serving).await;
            assert!(over.is_ok(), "`{said}` is held");
        });
    }
}

#[test]
fn a_connection_that_nobody_uses_is_closed_and_one_that_is_used_is_not() {
    runtime().block_on(async {
        let router = Router::new().route("/", get(async || "yes"));
        let (mut ours, serving) = served(router, 1 << 16);
        for _ in 0..5 {
            ours.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 15];
            ours.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            tokio::time::sleep(PATIENCE * 2 / 3).await;
            let mut rest = vec![0; 1 << 12];
            assert!(ours.read(&mut rest).await.unwrap() > 0);
        }
        assert!(!serving.is_finished());
        tokio::time::timeout(2 * PATIENCE, serving)
            .await
            .unwrap()
            .unwrap();
    });
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    runtime().block_on(async {
        let router = Router::new().route("/", get(async || vec![b'x'; 1 << 20]));
        let (mut ours, serving) = served(router, 1 << 10);
        ours.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let over = tokio::time::timeout(4 * PATIENCE, serving).await;
        assert!(over.is_ok(), "the answer is held");
    });
}

/// The frames of HTTP/2 with which a client begins that takes nothing of any answer, and asks for `/`.
fn takes_nothing() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Settings: the window of every stream is 0.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    // Headers that end the request: GET, http, /, and an authority.
    bytes.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'x']);
    bytes
}

/// Answers every ping, until the server ends the connection.
async fn answer_pings(ours: &mut DuplexStream) {
    loop {
        let mut head = [0; 9];
        if ours.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if ours.read_exact(&mut payload).await.is_err() {
            return;
        }
        let (kind, acknowledges) = (head[3], head[4] & 1 == 1);
        let mut answer = match kind {
            4 if !acknowledges => vec![0, 0, 0, 4, 1, 0, 0, 0, 0],
            6 if !acknowledges => vec![0, 0, 8, 6, 1, 0, 0, 0, 0],
            _ => continue,
        };
        if kind == 6 {
            answer.extend(payload);
        }
        if ours.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[test]
fn an_answer_that_nobody_takes_ends_its_connection_though_pings_are_answered() {
    for size in [1, 1 << 20] {
        runtime().block_on(async {
            let router = Router::new().route("/", get(async move || vec![b'x'; size]));
            let (mut ours, serving) = served(router, 1 << 16);
            ours.write_all(&takes_nothing()).await.unwrap();
            let over = tokio::time::timeout(4 * PATIENCE, async {
                answer_pings(&mut ours).await;
                serving.await
            });
            assert!(over.await.is_ok(), "the answer is held");
        });
    }
}

#[test]
fn an_answer_that_waits_for_what_it_tells_stalls_nobody() {
    runtime().block_on(async {
        let never = || async {
            let silence = futures_util::stream::pending::<Result<Bytes, Infallible>>();
            axum::body::Body::from_stream(silence)
        };
        let router = Router::new().route("/", get(never));
        let (mut ours, serving) = served(router, 1 << 16);
        let mut hello = takes_nothing();
        // The same, but with a window.
        hello[24 + 9 + 4] = 1;
        ours.write_all(&hello).await.unwrap();
        let over = tokio::time::timeout(4 * PATIENCE, async {
            answer_pings(&mut ours).await;
            serving.await
        });
        assert!(over.await.is_err(), "a silent stream was given up");
    });
}

#[test]
fn a_large_answer_comes_whole_in_pieces() {
    runtime().block_on(async {
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
        let watched = Arc::new(Stalls::default()).watched(text.clone().into());
        assert_eq!(watched.size_hint().exact(), Some(300_000));
        let got = axum::body::to_bytes(watched, usize::MAX).await.unwrap();
        assert_eq!(got, text);
    });
}

#[test]
fn one_address_has_its_bound_of_connections_and_closing_frees_a_place() {
    let shared = Arc::new(Shared {
        router: Router::new(),
        builder: builder(),
        places: Arc::new(Semaphore::new(limits::CONNECTIONS)),
        addresses: Mutex::default(),
    });
    let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let mut open: Vec<Place> = (0..limits::CONNECTIONS_PER_ADDRESS)
        .map(|_| Place::take(&shared, Some(one)).unwrap())
        .collect();
    assert!(Place::take(&shared, Some(one)).is_none());
    assert!(Place::take(&shared, Some(other)).is_some());
    open.pop();
    open.push(Place::take(&shared, Some(one)).unwrap());
    assert!(Place::take(&shared, Some(one)).is_none());
    open.clear();
    assert!(shared.addresses.lock().is_empty());
    let all: Vec<_> = (0..limits::CONNECTIONS)
        .map(|_| Place::take(&shared, None))
        .collect();
    assert!(all.iter().all(Option::is_some));
    assert!(Place::take(&shared, None).is_none());
}

#[test]
fn the_loopback_is_trusted_only_where_it_alone_is_listened_on_and_no_proxy_stands_there() {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let client = address("127.0.0.1:5000");
    let is_here = |trust: Trust, here: Option<&str>, from| {
        matches!(trust.peer(here.map(address), from), Peer::Loopback(_))
    };
    assert!(is_here(Trust::Machine, Some("127.0.0.1:7420"), client));
    assert!(is_here(
        Trust::Machine,
        Some("[::1]:7420"),
        address("[::1]:9")
    ));
    assert!(!is_here(Trust::Machine, Some("0.0.0.0:7420"), client));
    assert!(!is_here(Trust::Machine, None, client));
    assert!(!is_here(
        Trust::Machine,
        Some("127.0.0.1:7420"),
        address("192.0.2.7:9")
    ));
    assert!(!is_here(Trust::Nobody, Some("127.0.0.1:7420"), client));
}
