//! `kapell server`, and commands that ask it.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{HOLD, Place, Said, Started};

/// A server that answers.
pub(crate) struct Server {
    pub(crate) place: Place,
    started: Started,
    /// Scheme and address.
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn with(place: Place, flags: &[&str]) -> Self {
        let mut arguments = vec!["server"];
        if !flags.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.extend(flags);
        let mut started = place.start(&arguments);
        let line = started.until("answers at");
        let url = line.split_whitespace().find(|word| word.contains("://"));
        let url = url.unwrap().to_owned();
        Self {
            place,
            started,
            url,
        }
    }

    fn new() -> Self {
        Self::with(Place::new(), &[])
    }

    /// Runs a command against it, in another directory than its own.
    fn kapell(&self, elsewhere: &Place, arguments: &[&str]) -> Said {
        let arguments: Vec<&str> = arguments
            .iter()
            .chain(&["--server", &self.url])
            .copied()
            .collect();
        elsewhere.good(&arguments)
    }

    fn ask(&self, head: &str) -> (u16, String, Value) {
        ask(self.url.split_once("//").unwrap().1, head, "")
    }

    /// Kills it, and starts another in its place.
    pub(crate) fn killed(self) -> Self {
        self.started.signal(Signal::KILL);
        self.started.end();
        Self::with(self.place, &[])
    }

    /// Asks it to end; its exit status.
    pub(crate) fn end(self) -> i32 {
        self.started.signal(Signal::TERM);
        self.started.end().0
    }
}

/// A request whose head is given but for its last lines; status, head and body of the answer.
pub(crate) fn ask(address: &str, head: &str, body: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let host = if head.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let length = body.len();
    let text =
        format!("{head}\r\n{host}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_default();
    (status, head.to_lowercase(), body)
}

#[test]
fn commands_ask_a_server_and_it_does_the_work() {
    let server = Server::new();
    let here = Place::with(
        "add.yaml",
        "workflow: add\nsteps:\n  sum: { shell: echo sum is $A, env: { A: \"${{ params.a }}\" } }\nparams:\n  a: { type: int }\n",
    );
    let run = server.kapell(&here, &["run", "add.yaml", "-p", "a=3"]);
    assert!(run.out.contains("succeeded"), "{}", run.all());
    for (command, words) in [
        (vec!["list"], "add v1"),
        (vec!["show"], "sum"),
        (vec!["logs"], "sum is 3"),
        (vec!["timeline"], "sum"),
        (vec!["why"], "succeeded"),
        (vec!["list", "--workflows"], "add"),
    ] {
        let said = server.kapell(&here, &command);
        assert!(said.out.contains(words), "{command:?}\n{}", said.all());
    }
    assert!(!here.path(".kapell").exists(), "nothing is kept here");
    assert_eq!(server.end(), 0);
}

#[test]
fn a_server_tells_supervisors_how_it_is_and_describes_itself() {
    let server = Server::new();
    for address in ["/health/live", "/health/ready"] {
        let (status, _, body) = server.ask(&format!("GET {address} HTTP/1.1"));
        assert_eq!((status, body), (200, json!(true)), "{address}");
    }
    let (status, _, document) = server.ask("GET /api/v1/openapi.json HTTP/1.1");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let (status, head, _) = server.ask("GET /docs/api HTTP/1.1");
    assert_eq!(status, 200);
    assert!(head.contains("text/html"), "{head}");
    assert_eq!(server.end(), 0);
}

#[test]
fn a_server_that_is_asked_to_end_lets_attempts_end_first() {
    let server = Server::new();
    let here = Place::with("hold.yaml", HOLD);
    let mark = format!("mark={}", here.path("mark").display());
    let url = server.url.clone();
    let mut run = here.start(&["run", "hold.yaml", "-p", &mark, "--server", &url]);
    run.until("quick");
    server.started.signal(Signal::TERM);
    let mut started = server.started;
    started.until_error("attempts under way");
    here.write("mark", "");
    assert_eq!(started.end().0, 0);
    let runs = server.place.json(&["list", "--json"]);
    let counts = &runs["runs"][0]["counts"];
    assert_eq!(counts[0], 2, "the step that ran has ended: {runs}");
}

#[test]
fn a_server_that_ends_answers_until_attempts_have_ended_and_starts_nothing_more() {
    let server = Server::new();
    let here = Place::with("hold.yaml", HOLD);
    let mark = format!("mark={}", here.path("mark").display());
    let url = server.url.clone();
    let mut run = here.start(&["run", "hold.yaml", "-p", &mark, "--server", &url]);
    run.until("quick");
    server.started.signal(Signal::TERM);
    let address = server.url.split_once("//").unwrap().1.to_owned();
    // The signal has been heard once it is not ready any more.
    let (status, body) = loop {
        let (status, _, body) = ask(&address, "GET /health/ready HTTP/1.1", "");
        if status != 200 {
            break (status, body);
        }
    };
    assert_eq!(status, 503, "{body}");
    let (status, _, runs) = ask(&address, "GET /api/v1/runs HTTP/1.1", "");
    assert_eq!(
        (status, &runs["runs"][0]["workflow"]),
        (200, &json!("hold"))
    );
    let over_tcp = here.kapell(&["start", "hold", "-p", &mark, "--server", &url]);
    let over_socket = server.place.kapell(&["start", "hold", "-p", &mark]);
    for said in [over_tcp, over_socket] {
        assert_eq!(said.status, 1, "{}", said.all());
        assert!(
            said.errors.contains("store-unavailable") && said.errors.contains("ending"),
            "{}",
            said.all()
        );
    }
    here.write("mark", "");
    assert_eq!(server.started.end().0, 0);
    let runs = server.place.json(&["list", "--json"]);
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
}

#[test]
fn beyond_loopback_a_server_needs_tls_and_a_token() {
    let place = Place::new();
    let refused = place.kapell(&["server", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status, 1);
    assert!(
        refused.errors.contains("there is no TLS"),
        "{}",
        refused.all()
    );
    let refused = place.kapell(&["server", "--listen", "0.0.0.0:0", "--tls-self-signed"]);
    assert!(
        refused.errors.contains("there is no token"),
        "{}",
        refused.all()
    );

    let created = place.json(&["token", "create", "ann", "--scope", "read,run", "--json"]);
    let secret = created["secret"].as_str().unwrap().to_owned();
    let server = Server::with(place, &["--listen", "0.0.0.0:0", "--tls-self-signed"]);
    let port = server.url.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}");
    let ca = server
        .place
        .path(".kapell/tls/cert.pem")
        .display()
        .to_string();
    let here = Place::new();
    let mut command = here.command(&["list", "--server", &url, "--ca", &ca]);
    let said = command.output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(errors.contains("not-authenticated"), "{errors}");
    let said = command.env("KAPELL_TOKEN", &secret).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let mut untrusted = here.command(&["list", "--server", &url]);
    let said = untrusted.env("KAPELL_TOKEN", &secret).output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(errors.contains("server-unreachable"), "{errors}");
    let key = server.place.path(".kapell/tls/key.pem");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.end(), 0);
}

#[test]
fn a_token_allows_what_its_scopes_say_until_it_is_revoked() {
    let server = Server::new();
    let here = Place::new();
    let secret = |scope: &str| {
        let name = format!("with-{scope}");
        let flags = [
            "token",
            "create",
            &name,
            "--scope",
            scope,
            "--json",
            "--server",
            &server.url,
        ];
        here.json(&flags)["secret"].as_str().unwrap().to_owned()
    };
    let (read, run) = (secret("read"), secret("run"));
    assert!(read.starts_with("kapell_") && read.len() > 70, "{read}");
    let with = |head: &str, token: &str| {
        let (status, head, body) =
            server.ask(&format!("{head} HTTP/1.1\r\nAuthorization: Bearer {token}"));
        (
            status,
            head,
            body["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(with("GET /api/v1/runs", &read).0, 200);
    let (status, _, code) = with("POST /api/v1/runs", &read);
    assert_eq!((status, &*code), (403, "not-permitted"));
    let (status, _, code) = with("GET /api/v1/tokens", &run);
    assert_eq!((status, &*code), (403, "not-permitted"));
    // It may, but there is no such run.
    assert_eq!(with("POST /api/v1/runs/zzzzzzzz/cancel", &run).0, 404);
    let mut wrong = read.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == '0' { '1' } else { '0' });
    let (status, head, code) = with("GET /api/v1/runs", &wrong);
    assert_eq!((status, &*code), (401, "not-authenticated"));
    assert!(head.contains("www-authenticate: bearer"), "{head}");

    server.kapell(&here, &["token", "revoke", "with-read"]);
    assert_eq!(with("GET /api/v1/runs", &read).0, 401);
    let stored = std::fs::read(server.place.path(".kapell/kapell.db")).unwrap();
    let log = std::fs::read(server.place.path(".kapell/kapell.db-wal")).unwrap_or_default();
    let secret = run.rsplit_once('_').unwrap().1;
    for bytes in [stored, log] {
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "no secret is stored");
    }
    // The audit log is written soon after.
    let list = loop {
        let said = server.kapell(&here, &["audit"]);
        if said.out.contains("/tokens/with-read 200") {
            break said.out;
        }
    };
    assert!(
        list.contains("with-run") && list.contains("/cancel 404"),
        "{list}"
    );
    assert!(list.contains("POST /api/v1/runs 403"), "{list}");
    assert!(!list.contains("GET"), "{list}");
    assert_eq!(server.end(), 0);
}

#[test]
fn without_a_token_no_page_of_another_site_reaches_a_server_on_loopback() {
    let server = Server::new();
    let (status, ..) = server.ask("GET /api/v1/runs HTTP/1.1\r\nHost: evil.example.com");
    assert_eq!(status, 403);
    let (status, ..) = server.ask("POST /api/v1/runs HTTP/1.1\r\nOrigin: https://evil.example.com");
    assert_eq!(status, 403);
    let (status, ..) = server.ask("GET /api/v1/runs HTTP/1.1\r\nHost: localhost");
    assert_eq!(status, 200);
    assert_eq!(server.end(), 0);
}

#[test]
fn who_asks_too_fast_is_told_when_to_come_again() {
    let server = Server::with(Place::new(), &["--request-rate", "5"]);
    let refused = (0..50)
        .map(|_| server.ask("GET /api/v1/health HTTP/1.1"))
        .find(|(status, ..)| *status == 429);
    let (_, head, body) = refused.unwrap();
    assert!(head.contains("retry-after: 1"), "{head}");
    assert_eq!(body["code"], "too-many-requests");
    assert_eq!(server.end(), 0);
}
