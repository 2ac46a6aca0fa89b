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

/// A worker of the queue `far` in the pool `p` at one node.
fn worker_at(place: &Place, name: &str, node: &Node) -> Process {
    let mut command = place.command(&[
        "worker",
        "--queues",
        "far",
        "--pool",
        "p",
        "--name",
        name,
        "--data-dir",
        name,
        "--slots",
        "8",
        "--server",
        &node.url,
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut worker = Started::of(command.spawn().unwrap());
    worker.until("works for");
    Process(Some(worker))
}

/// The workers that a node lists, by these flags.
fn listed(place: &Place, node: &Node, flags: &[&str]) -> Vec<(String, String, u64)> {
    let all = [&["workers", "--json", "--server", &node.url], flags].concat();
    let list = place.json(&all);
    assert!(list["unanswered"].is_null(), "{list:#}");
    let of = |worker: &Value| {
        let text = |field: &str| worker[field].as_str().unwrap().to_owned();
        (
            text("name"),
            text("node"),
            worker["count"].as_u64().unwrap(),
        )
    };
    list["workers"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn each_node_knows_the_workers_and_queues_of_all_and_lets_workers_of_others_go() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let place = Place::new();
    let here = place.path("").display().to_string();
    let store = schema.text();
    let one = Node::new(&place, "one", &store);
    let two = Node::new(&place, "two", &store);
    one.knows(&place, 2);
    two.knows(&place, 2);
    let _first = worker_at(&place, "first", &one);
    let mut second = worker_at(&place, "second", &two);
    let of_pool = ["--pool", "p"];
    let names = |list: &[(String, String, u64)]| -> Vec<String> {
        list.iter().map(|of| of.0.clone()).collect()
    };
    let at_one = listed(&place, &one, &of_pool);
    assert_eq!(at_one, listed(&place, &two, &of_pool));
    assert_eq!(names(&at_one), ["first", "second"]);
    assert_ne!(at_one[0].1, at_one[1].1, "each is at its own node");
    let at = listed(&place, &one, &["--queue", "far", "--node", &at_one[1].1]);
    assert_eq!(names(&at), ["second"]);
    let mut files = vec!["deploy".to_owned()];
    for number in 0..WORKFLOWS {
        let file = format!("w{number}.yaml");
        place.write(&file, &workflow(number, &here));
        files.push(file);
    }
    files.extend(["--server".to_owned(), two.url.clone()]);
    let deploy: Vec<&str> = files.iter().map(String::as_str).collect();
    place.good(&deploy);
    let runs = start_all(&place, &one);
    wait_for(&place, "begun", WORKFLOWS);
    for node in [&one, &two] {
        let busy: u64 = listed(&place, node, &of_pool).iter().map(|of| of.2).sum();
        assert_eq!(busy, WORKFLOWS as u64);
        assert_eq!(listed(&place, node, &["--pool", "p", "--idle"]).len(), 0);
        let queues = place.json(&["queues", "--json", "--server", &node.url]);
        let far = &queues["queues"].as_array().unwrap()[0];
        assert_eq!(far["name"], "far", "{queues:#}");
        assert_eq!(far["in_flight"], WORKFLOWS, "{queues:#}");
        assert_eq!(far["attempts"], WORKFLOWS, "{queues:#}");
        assert_eq!(far["slots"], 16, "{queues:#}");
        let pool = &queues["pools"].as_array().unwrap()[0];
        assert_eq!(
            (&pool["workers"], &pool["free_slots"]),
            (&2.into(), &6.into())
        );
    }
    // Whichever node is asked, and wherever the worker is.
    for run in &runs {
        for node in [&one, &two] {
            let show = ["show", run, "--json", "--server", &node.url];
            let shown = place.json(&show);
            let worker = &shown["steps"][0]["attempts"][0]["worker"];
            assert!(worker == "first" || worker == "second", "{shown:#}");
            let name = worker.as_str().unwrap();
            let why = place.good(&["why", run, "--server", &node.url]).out;
            assert!(why.contains(&format!("`{name}`")), "{why}");
        }
    }
    let drain = [
        "workers", "--drain", "second", "--json", "--server", &one.url,
    ];
    let drained = place.json(&drain);
    assert_eq!(drained["workers"][0]["name"], "second", "{drained:#}");
    assert_eq!(drained["workers"][0]["draining"], true);
    place.write("go", "");
    let (status, ..) = second.0.take().unwrap().end();
    assert_eq!(status, 0, "it has gone by itself");
    for run in &runs {
        let show = ["show", run, "--json", "--server", &two.url];
        place.until(&show, |shown: &Value| shown["status"] == "succeeded");
    }
    assert_eq!(
        ledger(&place, "ended").len(),
        WORKFLOWS,
        "each of them once"
    );
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
