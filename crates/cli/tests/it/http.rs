//! The API of the process that holds a data directory, over its socket, byte by byte.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::place::{HOLD, Place, Started};

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

/// A process that holds a directory and answers.
struct Holder {
    place: Place,
    run: Started,
}

impl Holder {
    fn new() -> Self {
        let place = Place::with("hold.yaml", HOLD);
        let mark = format!("mark={}", place.path("mark").display());
        let mut run = place.start(&["run", "hold.yaml", "-p", &mark]);
        run.until("quick");
        Self { place, run }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.place.path(".kapell/kapell.sock")).unwrap()
    }

    fn ask(&self, method: &str, address: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        stream
            .write_all(head(method, address, body.len()).as_bytes())
            .unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        answer(stream)
    }

    /// The run may end now; its exit status.
    fn end(self) -> i32 {
        self.place.write("mark", "");
        self.run.end().0
    }
}

fn head(method: &str, address: &str, length: usize) -> String {
    format!(
        "{method} {address} HTTP/1.1\r\nHost: kapell\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

fn answer(mut stream: UnixStream) -> Answer {
    let mut bytes = Vec::new();
    // A server that has refused a body may close before it is written.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: serde_json::from_str(body).unwrap(),
    }
}

/// A problem body is whole and says the same as the status line.
fn refused(answer: &Answer, status: u16, code: &str, words: &str) {
    let body = &answer.body;
    assert_eq!(answer.status, status, "{body}");
    assert!(
        answer
            .head
            .contains("content-type: application/problem+json"),
        "{}",
        answer.head
    );
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["type"], format!("/docs/errors/{code}"), "{body}");
    assert!(
        body["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty()),
        "{body}"
    );
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(words), "{body}");
}

/// Requests, and the status, code and words of what is answered.
type Refusal = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const REFUSED: [Refusal; 22] = [
    (
        "POST",
        "/api/v1/runs",
        "{",
        400,
        "bad-request",
        "cannot be read",
    ),
    (
        "POST",
        "/api/v1/runs",
        "{\"params\": 3}",
        400,
        "bad-request",
        "workflow",
    ),
    (
        "POST",
        "/api/v1/runs/last/logs",
        "[]]",
        400,
        "bad-request",
        "is a list",
    ),
    (
        "POST",
        "/api/v1/runs/last/explode",
        "{}",
        400,
        "bad-request",
        "explode",
    ),
    (
        "POST",
        "/api/v1/runs/last/skip",
        "{}",
        400,
        "bad-request",
        "step",
    ),
    (
        "GET",
        "/api/v1/runs?limit=many",
        "",
        400,
        "bad-request",
        "limit",
    ),
    (
        "GET",
        "/api/v1/runs/last/record?at=noon",
        "",
        400,
        "bad-request",
        "at",
    ),
    (
        "GET",
        "/api/v1/workflows/hold/versions/x",
        "",
        400,
        "bad-request",
        "`x`",
    ),
    (
        "GET",
        "/api/v1/runs?stauts=failed",
        "",
        400,
        "bad-request",
        "unknown field `stauts`",
    ),
    (
        "POST",
        "/api/v1/runs",
        "{\"workflow\": \"hold\", \"idempotencyKey\": \"a\"}",
        400,
        "bad-request",
        "unknown field `idempotencyKey`",
    ),
    (
        "POST",
        "/api/v1/runs/bulk",
        "{\"filtr\": {}, \"action\": {\"action\": \"cancel\"}}",
        400,
        "bad-request",
        "unknown field `filtr`",
    ),
    (
        "POST",
        "/api/v1/runs/bulk",
        "{\"filter\": {\"workflw\": \"a\"}, \"action\": {\"action\": \"cancel\"}}",
        400,
        "bad-request",
        "unknown field `workflw`",
    ),
    (
        "POST",
        "/api/v1/runs/bulk",
        "{\"filter\": {\"workflow\": \"a\"}, \"action\": {\"action\": \"cancel\", \"nwo\": true}}",
        400,
        "bad-request",
        "unknown field `nwo`",
    ),
    (
        "POST",
        "/api/v1/runs/bulk",
        "{\"action\": {\"action\": \"cancel\"}}",
        400,
        "bad-request",
        "filter",
    ),
    (
        "POST",
        "/api/v1/runs/bulk",
        "{\"filter\": {\"status\": \",\", \"limit\": 5}, \"action\": {\"action\": \"cancel\"}}",
        400,
        "bad-request",
        "leaves no run out",
    ),
    (
        "POST",
        "/api/v1/runs/last/cancel",
        "{\"nwo\": true}",
        400,
        "bad-request",
        "unknown field `nwo`",
    ),
    (
        "POST",
        "/api/v1/runs/last/dismiss",
        "{\"now\": true}",
        400,
        "bad-request",
        "unknown field `now`",
    ),
    (
        "GET",
        "/",
        "",
        404,
        "bad-request",
        "nothing at this address",
    ),
    (
        "GET",
        "/api/v1/nothing",
        "",
        404,
        "bad-request",
        "nothing at this address",
    ),
    (
        "GET",
        "/api/v1/runs/zzzzzzzz",
        "",
        404,
        "run-not-found",
        "zzzzzzzz",
    ),
    (
        "GET",
        "/api/v1/workflows/none/versions/active",
        "",
        404,
        "workflow-not-found",
        "none",
    ),
    (
        "POST",
        "/api/v1/runs/last/retry",
        "",
        409,
        "not-allowed-now",
        "running",
    ),
];

#[test]
fn every_refusal_has_its_status_and_a_problem_body() {
    let holder = Holder::new();
    let health = holder.ask("GET", "/api/v1/health", "");
    assert_eq!(
        (health.status, &health.body["working"]),
        (200, &true.into())
    );
    for (method, address, body, status, code, words) in REFUSED {
        refused(&holder.ask(method, address, body), status, code, words);
    }
    for (method, address, allowed) in [
        ("DELETE", "/api/v1/runs", "allow: get,head,post"),
        ("PUT", "/api/v1/health", "allow: get,head"),
    ] {
        let answer = holder.ask(method, address, "");
        refused(&answer, 405, "bad-request", "other methods");
        assert!(answer.head.contains(allowed), "{}", answer.head);
    }
    assert_eq!(holder.end(), 0, "nothing of it has hurt the run");
}

#[test]
fn a_body_that_is_too_big_is_refused() {
    let holder = Holder::new();
    let length = (64 << 20) + 1;
    let mut stream = holder.connect();
    let mut writer = stream.try_clone().unwrap();
    stream
        .write_all(head("POST", "/api/v1/runs", length).as_bytes())
        .unwrap();
    let writing = std::thread::spawn(move || {
        let chunk = vec![b' '; 1 << 20];
        let mut left = length;
        // It is refused before all of it is written.
        while left > 0 && writer.write_all(&chunk[..chunk.len().min(left)]).is_ok() {
            left -= chunk.len().min(left);
        }
    });
    refused(&answer(stream), 413, "limit-reached", "too big");
    writing.join().unwrap();
    assert_eq!(holder.ask("GET", "/api/v1/health", "").status, 200);
}

#[test]
fn a_slow_client_holds_nobody_up() {
    let holder = Holder::new();
    let mut slow_head = holder.connect();
    slow_head.write_all(b"GET /api/v1/health HT").unwrap();
    let mut slow_body = holder.connect();
    slow_body
        .write_all(head("POST", "/api/v1/runs/last/logs", 2).as_bytes())
        .unwrap();
    slow_body.write_all(b"{").unwrap();
    assert_eq!(holder.ask("GET", "/api/v1/health", "").status, 200);
    slow_head
        .write_all(b"TP/1.1\r\nHost: kapell\r\nConnection: close\r\n\r\n")
        .unwrap();
    slow_body.write_all(b"}").unwrap();
    assert_eq!(answer(slow_head).status, 200);
    assert_eq!(answer(slow_body).status, 200);
    // One that never finishes does not keep the process alive.
    let mut never = holder.connect();
    never.write_all(b"GET /api").unwrap();
    assert_eq!(holder.end(), 0);
}
