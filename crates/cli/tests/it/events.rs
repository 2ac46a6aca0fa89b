//! Events that a server sends, and many runs in one call.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::place::{HOLD, Place, Started};

struct Server {
    place: Place,
    started: Started,
    address: String,
}

impl Server {
    fn new(place: Place) -> Self {
        let mut started = place.start(&["server", "--listen", "127.0.0.1:0"]);
        let line = started.until("answers at");
        let address = line.split_once("//").unwrap().1;
        let address = address.split_whitespace().next().unwrap().to_owned();
        Self {
            place,
            started,
            address,
        }
    }

    fn connect(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (address, length) = (&self.address, body.len());
        let text = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = String::new();
        self.connect("POST", path, "", body)
            .read_to_string(&mut answer)
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    fn events(&self, path: &str, last: Option<&str>) -> Events {
        let header = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let mut stream = self.connect("GET", path, &header, &Value::Null);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Events(stream)
    }

    fn deploy(&self, file: &str) {
        let url = format!("http://{}", self.address);
        self.place.good(&["deploy", file, "--server", &url]);
    }
}

struct Events(BufReader<TcpStream>);

/// An event: kind, id and data.
type Event = (String, String, Value);

impl Events {
    fn next(&mut self) -> Event {
        let (mut kind, mut id) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "the stream has ended"
            );
            if let Some(text) = line.strip_prefix("event: ") {
                text.trim_end().clone_into(&mut kind);
            } else if let Some(text) = line.strip_prefix("id: ") {
                text.trim_end().clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (kind, id, serde_json::from_str(text).unwrap());
            }
        }
    }

    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
        }
    }
}

const SHORT: &str = "workflow: short\nsteps:\n  a: { noop: }\n";

fn ended(event: &Event) -> bool {
    event.0 == "run" && event.2["status"] == "succeeded"
}

#[test]
fn subscribers_see_each_run_of_their_workflow_and_go_on_where_they_stopped() {
    let server = Server::new(Place::with("short.yaml", SHORT));
    server
        .place
        .write("other.yaml", &SHORT.replace("short", "other"));
    server.deploy("short.yaml");
    server.deploy("other.yaml");
    let mut all = server.events("/events", None);
    let mut ours = server.events("/workflows/short/events", None);
    let mut other = server.events("/workflows/other/events", None);
    let first = server.post("/runs", &json!({ "workflow": "short" }));
    for events in [&mut all, &mut ours] {
        let seen = events.until(ended);
        assert_eq!(seen.2["run"], first["run"]);
    }
    let (_, id, _) = server
        .events("/events", Some("0-0"))
        .until(|event| event.0 == "resync");
    drop(ours);
    let second = server.post("/runs", &json!({ "workflow": "short" }));
    let mut again = server.events("/workflows/short/events", Some(&id));
    let seen = again.until(|event| event.0 != "run" || ended(event));
    assert_eq!((seen.0.as_str(), &seen.2["run"]), ("run", &second["run"]));
    // Nothing of another workflow came: the first event is that of its own.
    let third = server.post("/runs", &json!({ "workflow": "other" }));
    assert_eq!(other.next().2["run"], third["run"]);
}

#[test]
fn who_follows_a_run_sees_all_of_it_first_and_then_what_changes() {
    let server = Server::new(Place::with("hold.yaml", HOLD));
    server.deploy("hold.yaml");
    let mark = server.place.path("mark").display().to_string();
    let start = json!({ "workflow": "hold", "params": { "mark": mark } });
    let run = server.post("/runs", &start);
    let path = format!("/runs/{}/events", run["run"].as_str().unwrap());
    let mut events = server.events(&path, None);
    assert_eq!(events.next().2["run"], run["run"]);
    let running = |event: &Event| {
        let steps = event.2["steps"].as_array().cloned().unwrap_or_default();
        steps
            .iter()
            .any(|step| step["path"] == "wait_for_it" && step["status"] == "running")
    };
    events.until(running);
    server.place.write("mark", "");
    events.until(ended);
}

#[test]
fn a_subscriber_that_missed_too_much_gets_every_run_that_has_not_ended() {
    let server = Server::new(Place::with("hold.yaml", HOLD));
    server.deploy("hold.yaml");
    let mark = server.place.path("mark").display().to_string();
    let start = json!({ "workflow": "hold", "params": { "mark": mark } });
    for _ in 0..2 {
        server.post("/runs/batch", &json!({ "runs": vec![&start; 600] }));
    }
    let mut events = server.events("/events", Some("0-0"));
    events.until(|event| event.0 == "resync");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1_200 {
        let (kind, _, row) = events.next();
        assert_eq!(kind, "run");
        seen.insert(row["run"].as_str().unwrap().to_owned());
    }
}

#[test]
fn the_same_key_is_the_same_request_or_refused() {
    let text = "workflow: w\nparams:\n  n: { type: int, default: 1 }\nsteps:\n  a: { noop: }\n  b: { noop: }\n";
    let server = Server::new(Place::with("w.yaml", text));
    server.deploy("w.yaml");
    let ask = |path: &str, headers: &str, body: &Value| {
        let mut answer = String::new();
        server
            .connect("POST", path, headers, body)
            .read_to_string(&mut answer)
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };
    let key = "Idempotency-Key: monday\r\n";
    let plain = json!({ "workflow": "w" });
    let first = ask("/runs", key, &plain);
    assert_eq!(first.0, 200, "{first:?}");
    assert_eq!(ask("/runs", key, &plain), first);
    let said = json!({ "workflow": "w", "idempotency_key": "monday", "params": { "n": 1 } });
    assert_eq!(ask("/runs", "", &said), first);
    let other = json!({ "workflow": "w", "idempotency_key": "monday", "params": { "n": 2 } });
    let (status, problem) = ask("/runs", "", &other);
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("idempotency-key-reused"))
    );
    let none = json!({ "workflow": "w", "idempotency_key": "" });
    assert_ne!(ask("/runs", "", &none), ask("/runs", "", &none), "no key");
    let two = ask("/runs", "Idempotency-Key: tuesday\r\n", &said);
    assert_eq!(two.0, 400, "{two:?}");

    let run = first.1["run"].as_str().unwrap();
    let fork = format!("/runs/{run}/fork");
    while ask(&fork, "Idempotency-Key: a\r\n", &json!({ "from": "b" })).0 != 200 {}
    let forked = ask(&fork, "Idempotency-Key: a\r\n", &json!({ "from": "b" }));
    assert_eq!(
        ask(&fork, "", &json!({ "from": "b", "idempotency_key": "a" })),
        forked
    );
    assert_ne!(ask(&fork, "", &json!({ "from": "b" })), forked);

    let signal = ask("/signals/s", "Idempotency-Key: one\r\n", &json!({}));
    assert_eq!(signal.1["id"], "one", "{signal:?}");
    let url = format!("http://{}", server.address);
    server
        .place
        .good(&["workflow", "delete", "w", "--server", &url]);
    assert_eq!(ask("/runs", key, &plain), first, "it was made before");
    assert_eq!(ask("/runs", "", &plain).0, 404);
}

#[test]
fn a_server_that_ends_ends_its_streams() {
    let server = Server::new(Place::with("short.yaml", SHORT));
    let mut events = server.events("/events", None);
    server.started.signal(rustix::process::Signal::TERM);
    let mut rest = String::new();
    // To the end of the stream.
    let _ = events.0.read_to_string(&mut rest);
    assert_eq!(server.started.end().0, 0);
}

#[test]
fn who_may_follow_no_more_hears_nothing_more() {
    let server = Server::new(Place::with("short.yaml", SHORT));
    server.deploy("short.yaml");
    let made = server
        .place
        .json(&["token", "create", "eve", "--scope", "read", "--json"]);
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        made["secret"].as_str().unwrap()
    );
    let follow = |path: &str| {
        let mut stream = server.connect("GET", path, &bearer, &Value::Null);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Events(stream)
    };
    let (mut all, mut of_workflow) = (follow("/events"), follow("/workflows/short/events"));
    server.post("/runs", &json!({ "workflow": "short" }));
    all.until(ended);
    of_workflow.until(ended);
    server.place.good(&["token", "revoke", "eve"]);
    server.post("/runs", &json!({ "workflow": "short" }));
    for mut events in [all, of_workflow] {
        let mut rest = String::new();
        // To the end of the stream.
        let _ = events.0.read_to_string(&mut rest);
        assert!(!rest.contains("event: run"), "{rest}");
    }
}

#[test]
fn a_batch_keeps_its_order_and_its_key() {
    let text = "workflow: line\nparams: { n: { type: int } }\nstrategy: { mode: sequential }\nsteps:\n  a: { noop: }\n";
    let server = Server::new(Place::with("line.yaml", text));
    server.deploy("line.yaml");
    let run = |n: u32, key: Option<&str>| json!({ "workflow": "line", "params": { "n": n }, "idempotency_key": key });
    let runs =
        json!({ "runs": [run(1, Some("one")), run(2, None), run(3, Some("three")), run(4, None)] });
    let made = server.post("/runs/batch", &runs);
    let ids = made["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["run"].clone());
    let url = format!("http://{}", server.address);
    let mut created: Vec<(String, String)> = Vec::new();
    for (number, id) in ids.enumerate() {
        let shown = server
            .place
            .json(&["show", id.as_str().unwrap(), "--json", "--server", &url]);
        created.push((
            shown["created_at"].as_str().unwrap().to_owned(),
            number.to_string(),
        ));
    }
    assert!(created.is_sorted(), "{created:?}");
    let keyed = || {
        let mut answer = String::new();
        let runs = json!({ "runs": [run(5, None), run(6, None)] });
        server
            .connect("POST", "/runs/batch", "Idempotency-Key: once\r\n", &runs)
            .read_to_string(&mut answer)
            .unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert_eq!(keyed(), keyed());
}

#[test]
fn one_call_starts_many_runs_and_one_acts_on_many() {
    let server = Server::new(Place::with("hold.yaml", HOLD));
    server.deploy("hold.yaml");
    let mark = server.place.path("mark").display().to_string();
    let start = json!({ "workflow": "hold", "params": { "mark": mark } });
    let mut all = vec![start; 20];
    all.push(json!({ "workflow": "hold" }));
    all.push(json!({ "workflow": "none" }));
    let made = server.post("/runs/batch", &json!({ "runs": all }));
    let made = made["runs"].as_array().unwrap();
    assert!(
        made[..20].iter().all(|made| made["run"].is_string()),
        "{made:?}"
    );
    assert_eq!(made[20]["error"]["code"], "bad-params");
    assert_eq!(made[21]["error"]["code"], "workflow-not-found");

    let bulk = |before: &Value, dry_run: bool| {
        let filter = json!({ "workflow": "hold", "limit": 15, "before": before, "status": "queued,running" });
        let action = json!({ "action": "cancel", "now": true });
        let bulk = json!({ "filter": filter, "action": action, "dry_run": dry_run });
        server.post("/runs/bulk", &bulk)
    };
    let dry = bulk(&Value::Null, true);
    assert_eq!(dry["runs"].as_array().unwrap().len(), 15);
    let first = bulk(&Value::Null, false);
    assert_eq!(first["runs"], dry["runs"], "a dry run changed nothing");
    let second = bulk(&first["next"], false);
    assert_eq!(second["runs"].as_array().unwrap().len(), 5, "{second}");
    assert!(second.get("next").is_none_or(Value::is_null), "{second}");
    let last = second["runs"][4].as_str().unwrap();
    let url = format!("http://{}", server.address);
    let ended = loop {
        let shown = server
            .place
            .json(&["show", last, "--json", "--server", &url]);
        if shown["status"] != "cancelling" {
            break shown;
        }
    };
    assert_eq!(ended["status"], "cancelled", "{ended}");
}

#[test]
fn events_of_a_workflow_that_is_not_there_are_refused() {
    let place = Place::with("w.yaml", "workflow: w\nsteps: { a: { noop: } }\n");
    let server = Server::new(place);
    let url = format!("http://{}", server.address);
    let first = |path: &str| {
        let mut line = String::new();
        let mut answer = server.connect("GET", path, "", &Value::Null);
        answer.read_line(&mut line).unwrap();
        (line, answer)
    };
    let (line, mut rest) = first("/workflows/nope/events");
    assert!(line.contains(" 404 "), "{line}");
    let mut body = String::new();
    rest.read_to_string(&mut body).unwrap();
    assert!(body.contains("workflow-not-found"), "{body}");
    server.place.good(&["deploy", "w.yaml", "--server", &url]);
    assert!(first("/workflows/w/events").0.contains(" 200 "));
    server
        .place
        .good(&["workflow", "delete", "w", "--server", &url]);
    let (line, _) = first("/workflows/w/events");
    assert!(
        line.contains(" 200 "),
        "of a deleted one what goes on is seen: {line}"
    );
}
