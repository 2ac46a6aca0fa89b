use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use axum::body::Body;
use axum::http::Request;
use kapell_store::MemoryStore;
use tower::ServiceExt;

use super::*;
use crate::{KeySource, Options, Secrets, http};

fn service(options: Options) -> Arc<Service> {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let blobs = kapell_store::FileBlobs::open(folder.path()).unwrap();
    let secrets = Secrets::new(store.clone(), KeySource::Given(String::new()));
    Arc::new(Service::new(
        folder.path(),
        store,
        Arc::new(kapell_node::BlobFolder(blobs)),
        None,
        false,
        Arc::new(secrets),
        &options,
    ))
}

fn peer() -> crate::auth::Peer {
    crate::auth::Peer::Socket {
        pid: None,
        uid: None,
    }
}

/// Asks without a socket.
fn get(service: &Arc<Service>, path: &str) -> (StatusCode, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let request = Request::get(path)
            .extension(peer())
            .body(Body::empty())
            .unwrap();
        let answer = http::router(Arc::clone(service), 1_000)
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    })
}

fn on() -> Options {
    Options {
        metrics: true,
        ..Options::default()
    }
}

#[test]
fn names_follow_the_rule() {
    let units = [
        "seconds", "bytes", "info", "slots", "runs", "attempts", "entities", "requests", "fds",
        "full", "waiting", "up", "cores", "gpus",
    ];
    let mut seen = BTreeSet::new();
    for (name, kind, _, help) in FAMILIES {
        assert!(seen.insert(name), "{name} is there twice");
        assert!(help.ends_with('.'), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        let last = name.rsplit('_').next().unwrap();
        assert!(
            *kind == Kind::Counter || units.contains(&last),
            "{name} has no unit"
        );
    }
}

#[test]
fn requests_are_counted_by_route_and_code() {
    let service = service(on());
    get(&service, "/api/v1/health");
    get(&service, "/api/v1/runs?limit=1");
    get(&service, "/api/v1/runs?limit=x");
    get(&service, "/nowhere/1");
    get(&service, "/nowhere/2");
    let (status, page) = get(&service, "/metrics");
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"kapell_http_requests_total{method="GET",path="/api/v1/health",code="200"} 1"#,
        r#"kapell_http_requests_total{method="GET",path="/api/v1/runs",code="200"} 1"#,
        r#"kapell_http_requests_total{method="GET",path="/api/v1/runs",code="400"} 1"#,
        r#"kapell_http_requests_total{method="GET",path="(none)",code="404"} 2"#,
        r#"kapell_http_request_duration_seconds_count{method="GET",path="/api/v1/runs"} 2"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}

#[test]
fn nothing_answers_where_nobody_wants_metrics() {
    let service = service(Options::default());
    assert_eq!(get(&service, "/metrics").0, StatusCode::NOT_FOUND);
}

#[test]
fn labels_are_escaped() {
    let mut text = Text::default();
    text.family("kapell_queue_waiting_attempts");
    text.sample(&[("queue", "a\"b\\c\nd")], 1.5);
    let page = text.finish();
    let last = page.lines().last().unwrap();
    assert_eq!(
        last,
        r#"kapell_queue_waiting_attempts{queue="a\"b\\c\nd"} 1.5"#
    );
}

#[allow(
    clippy::disallowed_methods,
    reason = "where tests run is said by the environment"
)]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Prometheus' own checker, where it is installed, has nothing to say of a page.
#[test]
fn prometheus_takes_the_page() {
    let service = service(on());
    get(&service, "/api/v1/runs");
    let (_, page) = get(&service, "/metrics");
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checker = match checker {
        Ok(checker) => checker,
        Err(error) if in_ci() => panic!("promtool, which CI needs: {error}"),
        Err(error) => {
            eprintln!(
                "skipped: no promtool (on Debian and Ubuntu in the package prometheus): {error}"
            );
            return;
        }
    };
    checker
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let said = checker.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}\n{page}");
}

#[test]
fn a_stranger_needs_a_token() {
    let service = service(on());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let stranger = crate::auth::Peer::Remote("192.0.2.1:9".parse().unwrap());
    let request = Request::get("/metrics")
        .extension(stranger)
        .body(Body::empty());
    let answer = http::router(service, 1_000).oneshot(request.unwrap());
    let status = runtime.block_on(answer).unwrap().status();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
