use axum::body::Body as Sent;
use http_body_util::channel::Channel;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use kapell_api::http::Problem;
use kapell_model::ErrorCode;

use super::answer::{Body, explained};

fn asked(runtime: &tokio::runtime::Runtime, body: Sent) -> Result<Body, Box<Response>> {
    runtime
        .block_on(Body::from_request(Request::new(body), &()))
        .map_err(Box::new)
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
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
