//! Several servers over one database, as processes that are killed.

use std::collections::BTreeSet;
use std::net::TcpListener;

use kapell_store::testing::TestSchema;
use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Place, Started};

/// All nodes have one key of secrets.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Enough that each of two nodes owns some.
const WORKFLOWS: usize = 10;

/// A step that writes into a ledger when it begins and when it ends, and waits for the file `go` between.
fn workflow(number: usize, here: &str) -> String {
    format!(
        "\
workflow: w{number}
steps:
  far:
    queue: far
    shell: |
      echo \"begun $KAPELL_RUN_ID\" >> {here}/ledger
      until test -e {here}/go; do sleep 0.02; done
      echo \"ended $KAPELL_RUN_ID\" >> {here}/ledger
"
    )
}

/// A process that is killed with the test.
struct Process(Option<Started>);

impl Process {
    fn kill(&mut self) {
        if let Some(started) = self.0.take() {
            started.signal(Signal::KILL);
            started.end();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node with a data directory of its own.
struct Node {
    process: Process,
    url: String,
}

impl Node {
    fn new(place: &Place, name: &str, store: &str) -> Self {
        // The port is known before anybody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let url = format!("http://{address}");
        let mut command = place.command(&[
            "server",
            "--listen",
            &address,
            "--advertise",
            &url,
            "--store",
            store,
            "--data-dir",
            name,
        ]);
        command
            .env("KAPELL_WORKER_LEASE", "10")
            .env("KAPELL_SECRETS_KEY", KEY)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut started = Started::of(command.spawn().unwrap());
        started.until("answers at");
        Self {
            process: Process(Some(started)),
            url,
        }
    }

    fn knows(&self, place: &Place, count: usize) {
        let nodes = ["nodes", "--json", "--server", &self.url];
        place.until(&nodes, |shown| {
            shown["nodes"].as_array().map(Vec::len) == Some(count)
        });
    }
}

/// Runs that the ledger names after this word, each as often as it stands there.
fn ledger(place: &Place, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(place.path("ledger")).unwrap_or_default();
    let named = text.lines().filter_map(|line| line.strip_prefix(word));
    named.map(|run| run.trim().to_owned()).collect()
}

fn start_all(place: &Place, node: &Node) -> BTreeSet<String> {
    let start = |number: usize| {
        let name = format!("w{number}");
        let started = place.json(&["start", &name, "--json", "--server", &node.url]);
        started["run"].as_str().unwrap().to_owned()
    };
    (0..WORKFLOWS).map(start).collect()
}

fn wait_for(place: &Place, word: &str, count: usize) {
    let tries = (0..3_000).take_while(|_| ledger(place, word).len() < count);
    tries.for_each(|_| std::thread::park_timeout(std::time::Duration::from_millis(20)));
    assert_eq!(ledger(place, word).len(), count, "{word}");
}

#[test]
fn steps_at_workers_go_on_when_a_node_is_killed_and_none_runs_twice() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = Place::new();
    place.write("kapell.toml", "[server]\nnode_lease = \"2s\"\n");
    let here = place.path("").display().to_string();
    let store = schema.text();
    let mut one = Node::new(&place, "one", &store);
    let two = Node::new(&place, "two", &store);
    one.knows(&place, 2);
    two.knows(&place, 2);
    let both = format!("{},{}", one.url, two.url);
    let mut command = place.command(&[
        "worker",
        "--queues",
        "far",
        "--name",
        "far",
        "--data-dir",
        "far",
        "--slots",
        "16",
        "--server",
        &both,
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut worker = Started::of(command.spawn().unwrap());
    worker.until("works for");
    let _worker = Process(Some(worker));
    let mut files = vec!["deploy".to_owned()];
    for number in 0..WORKFLOWS {
        let file = format!("w{number}.yaml");
        place.write(&file, &workflow(number, &here));
        files.push(file);
    }
    files.extend(["--server".to_owned(), two.url.clone()]);
    let deploy: Vec<&str> = files.iter().map(String::as_str).collect();
    place.good(&deploy);
    let runs = start_all(&place, &two);
    wait_for(&place, "begun", WORKFLOWS);
    // The worker is at the first: all its steps go on while it finds the other.
    one.process.kill();
    two.knows(&place, 1);
    place.write("go", "");
    for run in &runs {
        let show = ["show", run, "--json", "--server", &two.url];
        let shown = place.until(&show, |shown: &Value| {
            shown["status"] == "succeeded" || shown["status"] == "failed"
        });
        assert_eq!(shown["status"], "succeeded", "{shown:#}");
    }
    for word in ["begun", "ended"] {
        let named = ledger(&place, word);
        assert_eq!(named.len(), WORKFLOWS, "each of them once: {named:?}");
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), runs);
    }
}

#[test]
fn a_server_says_why_it_cannot_join_others() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = Place::new();
    let store = schema.text();
    let _one = Node::new(&place, "one", &store);
    let join = |more: &[&str]| {
        let all = [
            &["server", "--listen", "127.0.0.1:0", "--data-dir", "two"],
            more,
        ];
        let refused = place.kapell(&all.concat());
        assert_ne!(refused.status, 0);
        refused.errors
    };
    let url = "http://127.0.0.1:1";
    for (flags, why) in [
        (
            &["--store", &store][..],
            "another Kapell works in the schema",
        ),
        (&["--advertise", url], "share the data directory of one"),
        (
            &["--advertise", "here", "--store", &store],
            "`here` is no address",
        ),
        (
            &["--advertise", url, "--store", &store],
            "another key of secrets",
        ),
    ] {
        let said = join(flags);
        assert!(said.contains(why), "{said}");
    }
}
