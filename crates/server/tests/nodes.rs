//! Two nodes over one PostgreSQL database, each put together as a process does it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use kapell_api::http::{Deploy, RegisterWorkflow, StartRun};
use kapell_api::worker::proto::workers_client::WorkersClient;
use kapell_api::worker::{PROTOCOL, proto};
use kapell_model::{ErrorCode, RunId, RunStatus, Shard};
use kapell_server::local::{self, Listen, Local, Opened, Tls, Want};
use kapell_server::workers::Settings;
use kapell_server::{KeySource, NodeOptions, Options};
use kapell_store::testing::TestSchema;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// All nodes have one key of secrets.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct Node {
    folder: TempDir,
    local: Box<Local>,
    url: String,
}

impl Node {
    fn new(schema: &TestSchema) -> Self {
        // The port is known before anybody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = TempDir::new().unwrap();
        let options = Options {
            store: Some(schema.text()),
            keys: Some(KeySource::Given(KEY.to_owned())),
            node: Some(NodeOptions {
                address: format!("http://{address}"),
                lease: Duration::from_secs(3),
                ca: None,
            }),
            ..Options::default()
        };
        let opened = local::open(folder.path(), Want::Work(Settings::default()), &options);
        let Opened::Here(mut local) = opened.unwrap() else {
            panic!("somebody holds a new folder");
        };
        let listen = Listen {
            address,
            tls: Tls::Plain,
            insecure: false,
            require_token: false,
            request_rate: local::REQUEST_RATE,
        };
        local.listen(&listen).unwrap();
        let url = format!("http://{address}");
        Self { folder, local, url }
    }

    fn start(&self, workflow: &str) -> RunId {
        let start = StartRun {
            workflow: workflow.to_owned(),
            ..StartRun::default()
        };
        self.local.api().start(&start).unwrap().run
    }

    fn knows(&self, count: usize) {
        let api = self.local.api();
        let tries = (0..2_000).take_while(|_| api.nodes().unwrap().nodes.len() != count);
        tries.for_each(|_| std::thread::park_timeout(Duration::from_millis(10)));
        assert_eq!(api.nodes().unwrap().nodes.len(), count);
    }
}

/// A worker at a node, as it is on the wire.
struct Worker {
    runtime: Runtime,
    to: mpsc::Sender<proto::FromWorker>,
    inbound: Streaming<proto::FromServer>,
    session: u64,
    resumed: bool,
    /// What it was handed, in order.
    tasks: Vec<proto::Task>,
    received: u64,
}

impl Worker {
    fn at(node: &Node) -> Self {
        Self::says(node, proto::Hello::default())
    }

    /// The same worker connects to another node, with all that it has.
    fn moves(self, node: &Node) -> Self {
        let holds = self.tasks.iter().map(|task| proto::Holding {
            attempt: task.attempt,
            number: task.number,
            ..proto::Holding::default()
        });
        let hello = proto::Hello {
            session: self.session,
            same_process: true,
            holds: holds.collect(),
            received: self.received,
            number: 2,
            ..proto::Hello::default()
        };
        let moved = Self::says(node, hello);
        assert!(moved.resumed && moved.session == self.session);
        Self {
            tasks: self.tasks,
            received: self.received,
            ..moved
        }
    }

    fn says(node: &Node, hello: proto::Hello) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (to, messages) = mpsc::channel(64);
        let hello = proto::Hello {
            protocol: PROTOCOL,
            name: "far".to_owned(),
            slots: 100,
            ..hello
        };
        let (inbound, welcome) = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(node.url.clone()).unwrap();
            let mut client = WorkersClient::new(endpoint.connect().await.unwrap());
            let hello = proto::FromWorker {
                hello: Some(hello),
                ..proto::FromWorker::default()
            };
            to.send(hello).await.unwrap();
            let answer = client.session(ReceiverStream::new(messages)).await;
            let mut inbound = answer.unwrap().into_inner();
            let first = inbound.message().await.unwrap().unwrap();
            (inbound, first.welcome.unwrap())
        });
        Self {
            runtime,
            to,
            inbound,
            session: welcome.session,
            resumed: welcome.resumed,
            tasks: Vec::new(),
            received: 0,
        }
    }

    /// Waits until it was handed so many attempts in all.
    fn takes(&mut self, count: usize) {
        while self.tasks.len() < count {
            let message = self.runtime.block_on(self.inbound.message());
            let message = message.unwrap().unwrap();
            self.received = self.received.max(message.batch);
            self.tasks.extend(message.tasks);
        }
    }

    /// Says that all it was handed ended well, and hears that this is durable.
    fn ends_all(&mut self) {
        let reports: Vec<proto::Report> = (1..)
            .zip(&self.tasks)
            .map(|(number, task)| proto::Report {
                number,
                attempt: task.attempt,
                started_at: 1,
                ended: Some(proto::Ended {
                    at: 2,
                    usage: None,
                    outcome: Some(proto::ended::Outcome::Succeeded(Vec::new())),
                }),
            })
            .collect();
        let mut left: BTreeSet<u64> = reports.iter().map(|report| report.number).collect();
        let message = proto::FromWorker {
            reports,
            received: self.received,
            ..proto::FromWorker::default()
        };
        self.runtime.block_on(async {
            self.to.send(message).await.unwrap();
            while !left.is_empty() {
                let message = self.inbound.message().await.unwrap().unwrap();
                for number in &message.taken {
                    left.remove(number);
                }
                assert!(message.tasks.is_empty(), "nothing is handed out twice");
            }
        });
    }
}

/// Enough that each of a few nodes owns some.
const SPREAD: usize = 24;

fn deploy_steps(node: &Node) {
    let workflows = (0..SPREAD).map(|number| RegisterWorkflow {
        file: format!("{}.yaml", name(number)),
        source: format!(
            "workflow: {}\nsteps:\n  a: {{ shell: 'true' }}\n",
            name(number)
        ),
        bundle: None,
        by: String::new(),
    });
    let deploy = Deploy {
        workflows: workflows.collect(),
        by: "bob".to_owned(),
        ..Deploy::default()
    };
    node.local.api().deploy(&deploy).unwrap();
}

/// Every run has succeeded, as this node sees it.
fn all_succeed(node: &Node, runs: &[RunId]) {
    let api = node.local.api();
    for run in runs {
        let status = || api.view(*run).unwrap().summary.status;
        let tries = (0..1_000).take_while(|_| !status().ended());
        tries.for_each(|_| std::thread::park_timeout(Duration::from_millis(10)));
        assert_eq!(status(), RunStatus::Succeeded);
    }
}

#[test]
fn a_worker_at_one_node_runs_steps_of_all_and_goes_on_when_its_node_goes() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let one = Node::new(&schema);
    deploy_steps(&one);
    let two = Node::new(&schema);
    one.knows(2);
    two.knows(2);
    let mut worker = Worker::at(&one);
    let runs: Vec<RunId> = (0..SPREAD).map(|number| two.start(&name(number))).collect();
    worker.takes(SPREAD);
    worker.ends_all();
    all_succeed(&one, &runs);
    // Its node goes while it holds attempts of both.
    let runs: Vec<RunId> = (0..SPREAD).map(|number| two.start(&name(number))).collect();
    worker.tasks.clear();
    worker.takes(SPREAD);
    one.local.stop(Duration::ZERO);
    two.knows(1);
    let mut worker = worker.moves(&two);
    worker.ends_all();
    all_succeed(&two, &runs);
    drop(one.folder);
}

#[test]
fn a_node_that_joins_takes_over_runs_whose_attempts_go_on() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let one = Node::new(&schema);
    deploy_steps(&one);
    let mut worker = Worker::at(&one);
    let runs: Vec<RunId> = (0..SPREAD).map(|number| one.start(&name(number))).collect();
    worker.takes(SPREAD);
    let two = Node::new(&schema);
    one.knows(2);
    two.knows(2);
    // What moves is with its new owner once that answers for it.
    for run in &runs {
        assert!(!two.local.api().view(*run).unwrap().summary.status.ended());
    }
    worker.ends_all();
    all_succeed(&two, &runs);
    all_succeed(&one, &runs);
    // And the other way: the new one hands out to the worker of the old.
    let runs: Vec<RunId> = (0..SPREAD).map(|number| two.start(&name(number))).collect();
    worker.tasks.clear();
    worker.takes(SPREAD);
    worker.ends_all();
    all_succeed(&two, &runs);
}

fn name(number: usize) -> String {
    format!("w{number}")
}

const WORKFLOWS: usize = 8;

#[test]
fn two_nodes_share_a_database_and_one_goes() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let one = Node::new(&schema);
    let deployed = one.local.api().deploy(&Deploy {
        workflows: (0..WORKFLOWS)
            .map(|number| RegisterWorkflow {
                file: format!("{}.yaml", name(number)),
                source: format!("workflow: {}\nsteps:\n  a: {{ wait: 1h }}\n", name(number)),
                bundle: None,
                by: String::new(),
            })
            .collect(),
        by: "bob".to_owned(),
        ..Deploy::default()
    });
    assert_eq!(deployed.unwrap().changes.len(), WORKFLOWS);
    let two = Node::new(&schema);
    one.knows(2);
    two.knows(2);
    let shards: BTreeSet<Shard> = (0..WORKFLOWS)
        .map(|number| Shard::of_workflow("default", &name(number)))
        .collect();
    assert_eq!(shards.len(), WORKFLOWS, "both own some");
    let mut runs = Vec::new();
    for number in 0..WORKFLOWS {
        runs.extend([&one, &two].map(|node| node.start(&name(number))));
    }
    for run in &runs {
        for node in [&one, &two] {
            assert_eq!(node.local.api().view(*run).unwrap().summary.run, *run);
        }
    }
    // Whoever wants the database for itself is told so.
    let alone = local::open(
        TempDir::new().unwrap().path(),
        Want::Record,
        &Options {
            store: Some(schema.text()),
            ..Options::default()
        },
    );
    let refused = alone.err().map(|error| error.code);
    assert_eq!(refused, Some(ErrorCode::StoreUnavailable));
    one.local.stop(Duration::ZERO);
    two.knows(1);
    for run in runs {
        assert_eq!(two.local.api().view(run).unwrap().summary.run, run);
    }
    drop(one.folder);
}
