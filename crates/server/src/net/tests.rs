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
