use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use kapell_api::http::RegisterWorkflow;
use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_expr::{Map, Value};
use kapell_model::{EntityKey, RunId};
use kapell_node::{Answer, ClientRequest, clock};
use kapell_store::{FileBlobs, MemoryStore, Store};
use serde_json::json;

use super::post::{agent, body, post};
use super::{Allowed, ChannelSettings, Due, Kind, NotifySettings, Receivers, Sender, Senders};
use crate::register;

fn settings(url: &str, kind: Kind, template: Option<&str>) -> NotifySettings {
    let channel = ChannelSettings {
        url: url.to_owned(),
        kind,
        template: template.map(ToOwned::to_owned),
        headers: BTreeMap::from([("authorization".to_owned(), "Bearer abc".to_owned())]),
    };
    NotifySettings {
        channels: BTreeMap::from([("on-call".to_owned(), channel)]),
        public_url: "https://kapell.example/".to_owned(),
    }
}

fn everywhere() -> Allowed {
    Arc::new(|_| true)
}

fn due() -> Due {
    let content: Map = [
        ("event", Value::string("failed")),
        ("text", Value::string("`report` failed")),
        ("workflow", Value::string("report")),
        ("run", Value::string("01run")),
        ("params", Value::map([("day", Value::string("2026-01-31"))])),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect();
    Due {
        number: 3,
        id: "01run-failed-5".to_owned(),
        at: Value::string("2026-01-31T00:00:00Z"),
        content: Value::Map(content.into()),
    }
}

fn made(kind: Kind, template: Option<&str>) -> serde_json::Value {
    let receivers = Receivers::new(&settings("https://hooks.example/x", kind, template)).unwrap();
    body(&receivers.get("on-call").unwrap(), &receivers, &due()).unwrap()
}

/// Answers one request after another, each with the next of these, and gives what came.
fn answering(answers: Vec<&'static str>) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook/secret", listener.local_addr().unwrap());
    let (came, coming) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            came.send(exchange(stream, answer)).unwrap();
        }
    });
    (url, coming)
}

fn exchange(stream: TcpStream, answer: &str) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "\r\n" {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut stream = reader.into_inner();
    stream.write_all(answer.as_bytes()).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn a_json_channel_gets_the_whole_notice() {
    let made = made(Kind::Json, None);
    assert_eq!(
        made,
        json!({
            "event": "failed", "text": "`report` failed", "workflow": "report", "run": "01run",
            "params": { "day": "2026-01-31" }, "id": "01run-failed-5",
            "at": "2026-01-31T00:00:00Z", "url": "https://kapell.example/runs/01run",
        })
    );
}

#[test]
fn a_slack_channel_gets_a_text_with_the_address_of_the_run() {
    let made = made(Kind::Slack, None);
    assert_eq!(
        made,
        json!({ "text": "`report` failed\nhttps://kapell.example/runs/01run" })
    );
}

#[test]
fn a_template_makes_the_text_or_the_whole_body() {
    let text = made(
        Kind::Slack,
        Some("${{ workflow }} of ${{ params.day }}: ${{ event }}"),
    );
    assert_eq!(text, json!({ "text": "report of 2026-01-31: failed" }));
    let text = made(Kind::Json, Some("no ${{ workflow }}"));
    assert_eq!(text["text"], "no report");
    assert_eq!(text["event"], "failed");
    let whole = made(
        Kind::Slack,
        Some("${{ {'summary': text, 'late': missed == true} }}"),
    );
    assert_eq!(
        whole,
        json!({ "summary": "`report` failed", "late": false })
    );
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_channels_name() {
    let refused = |url: &str, template| {
        let refused = Receivers::new(&settings(url, Kind::Json, template))
            .err()
            .unwrap();
        format!("{} ({})", refused.message, refused.hint.unwrap_or_default())
    };
    assert_eq!(
        refused("hooks.example", None),
        "the channel `on-call`: `hooks.example` is no address (write `https://…` or `http://…`)"
    );
    let unknown = refused("https://hooks.example", Some("${{ workflo }}"));
    assert!(
        unknown.contains("on-call") && unknown.contains("`workflow`"),
        "{unknown}"
    );
    let open = refused("https://hooks.example", Some("${{ workflow"));
    assert!(open.contains("on-call"), "{open}");
}

#[test]
fn a_channel_that_nobody_defined_is_given_up_with_the_reason() {
    let receivers = Receivers::new(&NotifySettings::default()).unwrap();
    let error = receivers.get("on-call").unwrap_err();
    assert!(error.contains("`on-call`"), "{error}");
    assert_eq!(
        receivers.get("https://hooks.example/x").unwrap().url,
        "https://hooks.example/x"
    );
    assert!(
        receivers.get("http://hooks.example/x").is_err(),
        "in clear only by the settings"
    );
}

#[test]
fn a_post_carries_the_id_of_the_notice_and_the_channels_headers() {
    let (url, coming) = answering(vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]);
    let receivers = Receivers::new(&settings(&url, Kind::Json, None)).unwrap();
    let channel = receivers.get("on-call").unwrap();
    post(&agent(everywhere()), &channel, &receivers, &due()).unwrap();
    let (head, body) = coming.recv().unwrap();
    assert!(head.starts_with("post /hook/secret "), "{head}");
    assert!(head.contains("idempotency-key: 01run-failed-5"), "{head}");
    assert!(head.contains("authorization: bearer abc"), "{head}");
    assert!(body.contains("`report` failed"), "{body}");
}

#[test]
fn what_a_receiver_answers_decides_whether_it_is_asked_again() {
    let (url, coming) = answering(vec![
        "HTTP/1.1 503 Busy\r\nretry-after: 60\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy",
        "HTTP/1.1 404 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 302 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ]);
    let receivers = Receivers::new(&settings(&url, Kind::Json, None)).unwrap();
    let channel = receivers.get("on-call").unwrap();
    let tried = || post(&agent(everywhere()), &channel, &receivers, &due()).unwrap_err();
    let busy = tried();
    assert!(!busy.hopeless);
    assert_eq!(busy.after, Some(jiff::SignedDuration::from_secs(60)));
    assert!(
        busy.error.contains("503") && busy.error.contains("busy"),
        "{}",
        busy.error
    );
    assert!(
        !busy.error.contains("secret"),
        "an address may be a secret: {}",
        busy.error
    );
    assert!(tried().hopeless, "404");
    assert!(tried().hopeless, "a redirect is not followed");
    assert_eq!(coming.iter().count(), 3);
}

#[test]
fn a_receiver_that_is_not_there_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let receivers = Receivers::new(&settings(&url, Kind::Json, None)).unwrap();
    let failure = post(
        &agent(everywhere()),
        &receivers.get("on-call").unwrap(),
        &receivers,
        &due(),
    )
    .unwrap_err();
    assert!(!failure.hopeless, "{}", failure.error);
}

/// No work is handed out: the steps of these workflows are the engine's.
struct NoWorkers;

impl kapell_node::drive::Workers for NoWorkers {
    fn offer(&self, _: Vec<kapell_api::task::Task>) {}

    fn stop(&self, _: &[(RunId, kapell_api::task::Place, kapell_model::Offer)]) {}
}

/// A node that makes runs of one workflow, and what stops it.
struct World {
    node: kapell_node::drive::Node,
    store: Arc<dyn Store>,
    threads: Option<kapell_node::drive::Threads>,
    _folder: tempfile::TempDir,
}

impl World {
    fn of(workflow: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let register = RegisterWorkflow {
            file: "w.yaml".to_owned(),
            source: workflow.to_owned(),
            bundle: None,
            by: String::new(),
        };
        store
            .register(&register::checked(&register, clock::now()).unwrap().0)
            .unwrap();
        let files = FileBlobs::open(folder.path()).unwrap();
        let prepared = kapell_node::drive::Node::prepare();
        let node = prepared.node();
        let config = kapell_node::Config {
            alone: true,
            seed: 1,
            idle_micros: 60_000_000,
            keeps: kapell_engine::topic::Keeps::default(),
            dispatch: kapell_node::DispatchSettings::default(),
        };
        let blobs = Arc::new(kapell_node::BlobFolder(files));
        let threads = prepared
            .start(config, Arc::clone(&store), blobs, Arc::new(NoWorkers))
            .unwrap();
        Self {
            node,
            store,
            threads: Some(threads),
            _folder: folder,
        }
    }

    fn run(&self) -> RunId {
        let start = kapell_node::StartRun {
            namespace: register::NAMESPACE.into(),
            workflow: "report".into(),
            version: None,
            params: Value::map([] as [(&str, Value); 0]),
            text: false,
            by: "anna".to_owned(),
            scheduled_at: None,
            priority: None,
            idempotency_key: None,
        };
        match self
            .node
            .ask_and_wait(ClientRequest::Start(Box::new(start)))
        {
            Ok(Answer::Started(run)) => run,
            other => panic!("{other:?}"),
        }
    }

    fn sender(&self, settings: &NotifySettings) -> Sender {
        let senders = Senders {
            receivers: Receivers::new(settings).unwrap(),
            allowed: everywhere(),
        };
        let (node, store) = (self.node.clone(), Arc::clone(&self.store));
        Sender::start(node, store, senders, Arc::default()).unwrap()
    }

    fn view(&self) -> serde_json::Value {
        self.view_of("on-call")
    }

    fn view_of(&self, channel: &str) -> serde_json::Value {
        let key = EntityKey::Channel {
            namespace: register::NAMESPACE.into(),
            name: channel.into(),
        };
        let ask = ClientRequest::Ask {
            key,
            ask: Ask::View,
        };
        match self.node.ask_and_wait(ask) {
            Ok(Answer::Value(view)) => view.to_json(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the channel looks so.
    fn until(&self, fine: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        for _ in 0..2_000 {
            let view = self.view();
            if fine(&view) {
                return view;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        panic!("it stays {}", self.view());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}

const REPORT: &str =
    "workflow: report\nnotify: { to: on-call, on: succeeded }\nsteps: { a: { set: { x: 1 } } }\n";

#[test]
fn what_a_run_tells_arrives_also_if_it_ended_before_anybody_delivered() {
    let ok = "HTTP/1.1 204 Fine\r\nconnection: close\r\n\r\n";
    let (url, coming) = answering(vec![ok, ok]);
    let world = World::of(REPORT);
    let first = world.run();
    world.until(|view| view["waiting"] == 1);
    let sender = world.sender(&settings(&url, Kind::Json, None));
    let (head, body) = coming.recv().unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["run"], first.to_string());
    assert_eq!(
        (&body["event"], &body["by"]),
        (&json!("succeeded"), &json!("anna"))
    );
    assert!(
        head.contains(&format!("idempotency-key: {first}-succeeded-")),
        "{head}"
    );
    let second = world.run();
    let (_, body) = coming.recv().unwrap();
    assert!(body.contains(&second.to_string()), "{body}");
    world.until(|view| view["delivered"] == 2 && view["waiting"] == 0);
    drop(sender);
}

#[test]
fn what_nobody_can_deliver_is_kept_and_can_be_sent_again() {
    let world = World::of(REPORT);
    world.run();
    let sender = world.sender(&NotifySettings::default());
    let view = world.until(|view| view["failed"].as_array().is_some_and(|all| !all.is_empty()));
    let error = view["failed"][0]["error"].as_str().unwrap();
    assert!(error.contains("no channel `on-call`"), "{error}");
    drop(sender);
    let (url, coming) = answering(vec![
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ]);
    let key = EntityKey::Channel {
        namespace: register::NAMESPACE.into(),
        name: "on-call".into(),
    };
    let ask = Ask::Notice(NoticeAsk::Again { number: 0 });
    world
        .node
        .ask_and_wait(ClientRequest::Ask { key, ask })
        .unwrap();
    let _sender = world.sender(&settings(
        &url,
        Kind::Slack,
        Some("${{ workflow }} is done"),
    ));
    let (_, body) = coming.recv().unwrap();
    assert_eq!(body, r#"{"text":"report is done"}"#);
    world.until(|view| view["delivered"] == 1 && view["failed"] == json!([]));
}

#[test]
fn a_slow_receiver_does_not_hold_up_another() {
    // Accepted by the kernel, and answered by nobody.
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let (fast, coming) = answering(vec![
        "HTTP/1.1 204 Fine\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 204 Fine\r\nconnection: close\r\n\r\n",
    ]);
    let world = World::of(
        "workflow: report\nnotify: { to: [a-slow, on-call], on: succeeded }\nsteps: { a: { set: { x: 1 } } }\n",
    );
    let mut settings = settings(&fast, Kind::Json, None);
    let slow = ChannelSettings {
        url: format!("http://{}/", slow.local_addr().unwrap()),
        kind: Kind::Json,
        template: None,
        headers: BTreeMap::new(),
    };
    settings.channels.insert("a-slow".to_owned(), slow);
    let _sender = world.sender(&settings);
    // The second one comes while the post of the first to the slow one is under way.
    for delivered in 1..=2 {
        let run = world.run();
        let (_, body) = coming.recv().unwrap();
        assert!(body.contains(&run.to_string()), "{body}");
        world.until(|view| view["delivered"] == delivered);
        assert_eq!(world.view_of("a-slow")["waiting"], delivered);
    }
}

#[test]
fn where_nobody_may_go_no_notice_goes() {
    let receivers = Receivers::new(&settings("http://169.254.169.254/", Kind::Json, None)).unwrap();
    let allowed: Allowed =
        Arc::new(|address| address != std::net::Ipv4Addr::new(169, 254, 169, 254));
    let failure = post(
        &agent(allowed),
        &receivers.get("on-call").unwrap(),
        &receivers,
        &due(),
    );
    let failure = failure.unwrap_err();
    assert!(failure.hopeless);
    assert!(
        failure.error.contains("may not be reached"),
        "{}",
        failure.error
    );
}
