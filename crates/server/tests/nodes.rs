//! Two nodes over one PostgreSQL database, each put together as a process does it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use kapell_api::http::{Deploy, RegisterWorkflow, StartRun};
use kapell_model::{ErrorCode, RunId, Shard};
use kapell_server::local::{self, Listen, Local, Opened, Tls, Want};
use kapell_server::workers::Settings;
use kapell_server::{NodeOptions, Options};
use kapell_store::testing::TestSchema;
use tempfile::TempDir;

struct Node {
    folder: TempDir,
    local: Box<Local>,
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
        Self { folder, local }
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
