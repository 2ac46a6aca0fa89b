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
    assert!(
        !place.path(".kapell/tls").exists(),
        "nothing was made for it"
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
fn a_proxy_on_the_same_machine_gives_nobody_more_than_a_token_does() {
    let server = Server::new();
    for header in [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "Forwarded: for=203.0.113.9",
        "Via: 1.1 proxy",
        "X-Real-IP: 203.0.113.9",
    ] {
        let (status, _, body) = server.ask(&format!("GET /api/v1/runs HTTP/1.1\r\n{header}"));
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("not-permitted")),
            "{header}"
        );
    }
    assert_eq!(server.end(), 0);

    for flag in ["--insecure", "--require-token"] {
        let place = Place::new();
        let refused = place.kapell(&["server", "--listen", "127.0.0.1:0", flag]);
        assert_eq!(refused.status, 1);
        assert!(
            refused.errors.contains("there is none"),
            "{}",
            refused.all()
        );
        let made = place.json(&["token", "create", "ann", "--scope", "read", "--json"]);
        let token = made["secret"].as_str().unwrap().to_owned();
        let server = Server::with(place, &[flag]);
        let new = "POST /api/v1/tokens HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9";
        assert_eq!(server.ask(new).0, 401, "{flag}");
        assert_eq!(server.ask("GET /api/v1/runs HTTP/1.1").0, 401, "{flag}");
        let shown = format!("Authorization: Bearer {token}\r\nX-Forwarded-For: 203.0.113.9");
        assert_eq!(
            server
                .ask(&format!("GET /api/v1/runs HTTP/1.1\r\n{shown}"))
                .0,
            200
        );
        // Supervisors ask without one.
        assert_eq!(server.ask("GET /health/ready HTTP/1.1").0, 200);
        // The socket of the data directory lets its owner in.
        server.place.good(&["list"]);
        assert_eq!(server.end(), 0);
    }
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

#[test]
fn every_change_is_in_the_audit_log_however_it_was_made() {
    let place = Place::with("noop.yaml", "workflow: noop\nsteps:\n  one: { noop: }\n");
    place.good(&["deploy", "noop.yaml"]);
    assert_eq!(
        place
            .typed(&["secret", "set", "token"], "topsecret\n")
            .status,
        0
    );
    place.good(&["token", "create", "ci", "--scope", "read,run"]);
    place.good(&["workflow", "pause", "noop"]);
    place.good(&["workflow", "resume", "noop"]);
    place.good(&["run", "noop.yaml"]);
    assert_eq!(place.kapell(&["token", "revoke", "nobody"]).status, 2);
    let entries = |flags: &[&str]| {
        let all = place.json(&[&["audit", "--json"], flags].concat());
        let all = all["entries"].as_array().unwrap().clone();
        all.iter()
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                assert_eq!(text("who"), kapell_server::auth::own_name());
                assert!(text("from").starts_with("process "));
                format!("{} {} {}", text("what"), entry["status"], text("about"))
            })
            .collect::<Vec<_>>()
    };
    let all = entries(&[]).join("\n");
    for wanted in [
        "POST /api/v1/deploy 200 workflow `noop`, version 1",
        "PUT /api/v1/secrets/token 200",
        "POST /api/v1/tokens 200 token `ci` with read,run",
        "PATCH /api/v1/workflows/noop 200 paused",
        "PATCH /api/v1/workflows/noop 200 going on",
        "POST /api/v1/workflows 200 workflow `noop`, version ",
        "POST /api/v1/runs 200 workflow `noop`, run ",
        "DELETE /api/v1/tokens/nobody 404",
    ] {
        assert!(all.contains(wanted), "{wanted} is not in\n{all}");
    }
    assert!(!all.contains("topsecret"), "{all}");
    assert_eq!(entries(&["--what", "TOKENS"]).len(), 2);
    assert_eq!(entries(&["--who", "somebody else"]).len(), 0);
    assert_eq!(entries(&["--since", "1h", "-n", "3"]).len(), 3);
    let shown = place.good(&["audit", "--what", "secrets"]).out;
    assert!(shown.contains("PUT /api/v1/secrets/token 200"), "{shown}");

    // A token is made by whoever the connection says, not by whoever the body says.
    let server = Server::with(place, &[]);
    let address = server.url.split_once("//").unwrap().1;
    let new = r#"{"name": "mine", "scopes": ["read"], "by": "the boss"}"#;
    let (status, _, made) = ask(address, "POST /api/v1/tokens HTTP/1.1", new);
    assert_eq!(
        (status, &made["token"]["created_by"]),
        (200, &json!("somebody on this machine (the boss)"))
    );
    let list = server.place.good(&["token", "list"]).out;
    assert!(list.contains("made by somebody on this machine"), "{list}");
    assert_eq!(server.end(), 0);
}

#[test]
fn the_configuration_says_where_and_how_a_server_listens() {
    let place = Place::with(
        "kapell.toml",
        "[server]\nlisten = \"127.0.0.1:0\"\ntls_self_signed = true\ntls_names = [\"kapell.example.org\"]\nrequire_token = true\ngrace = \"1s\"\n",
    );
    place.good(&["token", "create", "ann", "--scope", "read"]);
    let mut started = place.start(&["server"]);
    let line = started.until("answers at");
    assert!(line.contains("https://127.0.0.1:"), "{line}");
    started.signal(Signal::TERM);
    assert_eq!(started.end().0, 0);
    assert!(place.path(".kapell/tls/cert.pem").exists());
    let set = |variable: &str, value: &str| {
        let mut command = place.command(&["server"]);
        let output = command.env(variable, value).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), errors)
    };
    let (status, errors) = set("KAPELL_SERVER_LISTEN", "everywhere");
    assert!(
        status == 2 && errors.contains("`everywhere` is no address"),
        "{errors}"
    );
    let (status, errors) = set("KAPELL_SERVER_TLS_CERT", "cert.pem");
    assert!(status == 2 && errors.contains("only one"), "{errors}");
    let (status, errors) = set("KAPELL_SERVER_REQUEST_RATE", "0");
    assert!(
        status == 2 && errors.contains("KAPELL_SERVER_REQUEST_RATE"),
        "{errors}"
    );
    // A flag goes before all that: this one is refused for what it says.
    let refused = place.kapell(&["server", "--tls-cert", "no.pem", "--tls-key", "no.key"]);
    assert!(refused.errors.contains("no.pem"), "{}", refused.all());
}

#[test]
fn a_backup_is_taken_from_a_server_and_only_its_own_machine_restores_it() {
    let server = Server::new();
    let here = Place::with(
        "noop.yaml",
        "workflow: noop\nsteps:\n  one: { shell: echo said }\n",
    );
    server.kapell(&here, &["run", "noop.yaml"]);
    let url = server.url.clone();
    let made = here.json(&["backup", "all.tar", "--json", "--server", &url]);
    assert_eq!(
        (&made["file"], &made["logs"]),
        (&json!("all.tar"), &json!(1)),
        "{made}"
    );
    let again = here.kapell(&["backup", "all.tar", "--server", &url]);
    assert_eq!(again.status, 2, "{}", again.all());
    let less = here.json(&[
        "backup",
        "less.tar",
        "--without-logs",
        "--json",
        "--server",
        &url,
    ]);
    assert_eq!(less["logs"], 0, "{less}");
    let refused = here.kapell(&[
        "restore",
        "all.tar",
        "--data-dir",
        "other",
        "--server",
        &url,
    ]);
    assert_eq!(refused.status, 2, "{}", refused.all());
    assert!(refused.errors.contains("cannot be restored from here"));
    let restored = here.json(&["restore", "all.tar", "--data-dir", "other", "--json"]);
    assert_eq!(restored["logs"], 1, "{restored}");
    let list = here.json(&["list", "--json", "--data-dir", "other"]);
    assert_eq!(list["runs"][0]["status"], "succeeded");
    let audit = server.kapell(&here, &["audit", "--what", "backup"]).out;
    assert!(audit.contains("GET /api/v1/backup 200"), "{audit}");
    // Who is not an admin takes nothing.
    let made = here.json(&[
        "token", "create", "ci", "--scope", "write", "--json", "--server", &url,
    ]);
    let token = made["secret"].as_str().unwrap();
    let (status, _, body) = server.ask(&format!(
        "GET /api/v1/backup HTTP/1.1\r\nAuthorization: Bearer {token}"
    ));
    assert_eq!((status, &body["code"]), (403, &json!("not-permitted")));
    assert_eq!(server.end(), 0);
}

#[test]
fn doctor_and_health_ask_the_server_that_is_meant() {
    let server = Server::new();
    let here = Place::new();
    let checks = here.json(&["doctor", "--json", "--server", &server.url]);
    let verdict = |name: &str| {
        let all = checks.as_array().unwrap();
        let found = all.iter().find(|check| check["name"] == name);
        found.map(|check| check["verdict"].as_str().unwrap().to_owned())
    };
    for name in ["server", "version", "clocks"] {
        assert_eq!(verdict(name).as_deref(), Some("ok"), "{checks}");
    }
    // Nobody is on the way within a machine.
    assert_eq!(verdict("encryption"), None, "{checks}");
    assert_eq!(verdict("data directory"), None, "{checks}");
    assert_eq!(server.kapell(&here, &["health"]).out, "ready\n");
    // In the data directory itself, over its socket.
    assert_eq!(
        server.place.json(&["health", "--json"]),
        json!({ "ready": true })
    );
    let url = server.url.clone();
    let Server { place, started, .. } = server;
    started.signal(Signal::TERM);
    assert_eq!(started.end().0, 0);
    let gone = place.kapell(&["health"]);
    assert!(
        gone.status == 1 && gone.out.contains("not ready"),
        "{}",
        gone.all()
    );
    let gone = here.kapell(&["health", "--json", "--server", &url]);
    assert!(
        gone.status == 1 && gone.out.contains("server-unreachable"),
        "{}",
        gone.all()
    );
    let gone = here.kapell(&["doctor", "--server", &url]);
    assert_eq!(gone.status, 1, "{}", gone.all());
}
