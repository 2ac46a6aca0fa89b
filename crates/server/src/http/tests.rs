use std::time::Duration;

use axum::body::Body as Sent;
use futures_util::StreamExt as _;
use http_body_util::channel::Channel;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use kapell_api::http::Problem;
use kapell_model::ErrorCode;

use super::answer::{Body, Content, explained, unbroken};

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn asked(runtime: &tokio::runtime::Runtime, body: Sent) -> Result<Body, Box<Response>> {
    runtime
        .block_on(Body::from_request(Request::new(body), &()))
        .map_err(Box::new)
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let runtime = paused();
    // Whoever holds the other end never writes, and never ends.
    let (_sender, never) = Channel::<Bytes>::new(1);
    let refused = asked(&runtime, Sent::new(never)).unwrap_err();
    assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
    let answer = runtime.block_on(explained(*refused));
    let body = runtime
        .block_on(axum::body::to_bytes(answer.into_body(), 1 << 20))
        .unwrap();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!((problem.status, problem.code), (408, ErrorCode::BadRequest));
    assert!(problem.detail.contains("60 seconds"), "{}", problem.detail);
    assert_eq!(&asked(&runtime, Sent::from("x")).unwrap().0[..], b"x");
}

#[test]
fn a_panic_is_a_problem_body_and_not_the_end() {
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let router = axum::Router::new()
        .route("/", get(broken))
        .layer(from_fn(unbroken));
    let runtime = paused();
    for _ in 0..2 {
        let request = Request::new(Sent::empty());
        let answer = runtime.block_on(router.clone().oneshot(request)).unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = runtime
            .block_on(axum::body::to_bytes(answer.into_body(), 1 << 20))
            .unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem.status, problem.code), (500, ErrorCode::Internal));
    }
}

#[test]
fn a_misspelt_field_is_named_with_the_one_that_was_meant() {
    use super::answer::Failure;
    use kapell_api::http::{BulkAction, StartRun};
    let failed = |failure: Failure| (failure.0.message, failure.0.hint.unwrap_or_default());
    let body = Body(
        Bytes::from(r#"{"workflow":"a","idempotencyKey":"k"}"#),
        None,
    );
    let (message, hint) = failed(body.read::<StartRun>().unwrap_err());
    assert!(message.contains("`idempotencyKey`"), "{message}");
    assert_eq!(hint, "did you mean `idempotency_key`?");
    let body = Body(
        Bytes::from(r#"{"filtr":{},"action":{"action":"retry"}}"#),
        Some("ops".to_owned()),
    );
    let (_, hint) = failed(body.read::<BulkAction>().unwrap_err());
    assert_eq!(hint, "did you mean `filter`?");
}

#[test]
fn a_body_is_an_object_and_says_who_asks_where_nothing_else_does() {
    use kapell_api::http::StartRun;
    let read = |text: &'static str, name: Option<&str>| {
        let body = Body(Bytes::from(text), name.map(str::to_owned));
        let read = body.read::<StartRun>();
        read.map(|start| start.by)
            .map_err(|failure| failure.0.message)
    };
    for (text, name) in [(r#"["w",null,{}]"#, None), (" [1]", Some("ops"))] {
        let refused = read(text, name).unwrap_err();
        assert!(refused.contains("is a list"), "{refused}");
    }
    let by = |text, name| read(text, name).unwrap();
    assert_eq!(by(r#"{"workflow":"w"}"#, None), "somebody on this machine");
    assert_eq!(by(r#" {"workflow":"w","by":"me"}"#, None), "me");
    assert_eq!(by(r#"{"workflow":"w","by":"me"}"#, Some("ops")), "ops");
    let empty = read("{ }", None).unwrap_err();
    assert!(empty.contains("missing field `workflow`"), "{empty}");
}

/// A body of so many parts of 64 KiB, with a pause before each.
fn slow(parts: usize, pause: Duration) -> Sent {
    let parts = futures_util::stream::iter(0..parts).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; 64 << 10]))
    });
    Sent::from_stream(parts)
}

#[test]
fn a_blob_may_take_long_if_it_gets_on() {
    let come = |body: Sent| {
        let runtime = paused();
        let read = runtime.block_on(Content::from_request(Request::new(body), &()));
        read.map(|content| content.0.len())
            .map_err(|refused| refused.status())
    };
    let minutes = come(slow(300, Duration::from_secs(1)));
    assert_eq!(minutes, Ok(300 * (64 << 10)), "five minutes");
    let late = come(slow(2, Duration::from_secs(61)));
    assert_eq!(late, Err(StatusCode::REQUEST_TIMEOUT), "a part is late");
    let trickle = come(slow(100, Duration::from_secs(10)));
    assert_eq!(trickle, Err(StatusCode::REQUEST_TIMEOUT), "it trickles");
}

#[test]
fn the_audit_log_holds_whole_characters_of_a_long_address() {
    use crate::auth::{Caller, Peer};
    let caller = Caller::local(Peer::Remote(([192, 0, 2, 7], 1).into()));
    // One byte, then characters of two: the bound lies inside of one.
    let path = format!("/{}", "\u{e9}".repeat(600));
    let mut request = Request::new(Sent::empty());
    *request.uri_mut() = axum::http::Uri::from_maybe_shared(path.into_bytes()).unwrap();
    let what = super::gate::entry(&caller, &request).what;
    assert_eq!(what.len(), "GET ".len() + 1_023, "{what}");
}
