//! The workers of a server, inside it and in other processes, and what becomes of their work when they or
//! the server die.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kapell_store::testing::TestSchema;
use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Place, Said, Started};

mod inside;

/// A step that says where it runs and that it has begun, and waits for the file `go`.
const HOLD: &str = "\
workflow: hold
steps:
  far:
    queue: far
    resources: { custom: { license: 2 }, labels: { zone: eu } }
    shell: |
      echo at $PWD
      touch $HERE/begun-$KAPELL_ATTEMPT_NUMBER
      until test -e $HERE/go; do sleep 0.02; done
      echo \"{\\\"by\\\": $KAPELL_ATTEMPT_NUMBER}\" > $KAPELL_OUTPUT
    env: { HERE: \"${{ params.here }}\" }
    retry: { backoff: { initial: 1ms } }

params:
  here: { type: string }
";

/// What processes of these tests are told: a short lease, so that nobody waits long.
const LEASE: &str = "3";

/// A server and the directory of all.
struct World {
    place: Place,
    server: Option<Process>,
    url: String,
    lease: &'static str,
}

/// A process that is killed with the test.
struct Process {
    started: Option<Started>,
}

impl Process {
    fn start(command: &mut Command, until: &str) -> (Self, String) {
        let child: Child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = Started::of(child);
        let line = started.until(until);
        let started = Some(started);
        (Self { started }, line)
    }

    fn signal(&self, signal: Signal) {
        self.started.as_ref().unwrap().signal(signal);
    }

    fn until(&mut self, text: &str) -> String {
        self.started.as_mut().unwrap().until(text)
    }

    /// Dies at once.
    fn kill(mut self) {
        self.signal(Signal::KILL);
        self.started.take().unwrap().end();
    }

    /// Its exit status once it has ended by itself.
    fn end_by_itself(mut self) -> i32 {
        self.started.take().unwrap().end().0
    }

    /// Asks it to end; its exit status.
    fn end(mut self) -> i32 {
        self.signal(Signal::TERM);
        self.started.take().unwrap().end().0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            started.signal(Signal::KILL);
            started.end();
        }
    }
}

impl World {
    fn new(file: &str, text: &str) -> Self {
        Self::with_lease(file, text, LEASE)
    }

    fn with_lease(file: &str, text: &str, lease: &'static str) -> Self {
        let mut world = Self {
            place: Place::with(file, text),
            server: None,
            url: String::new(),
            lease,
        };
        world.serve("127.0.0.1:0");
        world
    }

    /// Starts the server.
    fn serve(&mut self, address: &str) {
        self.serve_with(address, &[]);
    }

    fn serve_with(&mut self, address: &str, flags: &[&str]) {
        let mut command = self.place.command(&["server", "--listen", address]);
        command
            .args(flags)
            .env("KAPELL_WORKER_LEASE", self.lease)
            .env("KAPELL_SECRET_TOKEN", "topsecret-of-the-server");
        let (server, line) = Process::start(&mut command, "answers at");
        let url = line.split_whitespace().find(|word| word.contains("://"));
        url.unwrap().clone_into(&mut self.url);
        self.server = Some(server);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let all: Vec<&str> = arguments
            .iter()
            .chain(&["--server", &self.url])
            .copied()
            .collect();
        self.place.command(&all)
    }

    fn good(&self, arguments: &[&str]) -> Said {
        let all: Vec<&str> = arguments
            .iter()
            .chain(&["--server", &self.url])
            .copied()
            .collect();
        self.place.good(&all)
    }

    /// A worker of the queue `far`, in a directory of its name.
    fn worker(&self, name: &str) -> Process {
        let mut command = self.command(&[
            "worker",
            "--queues",
            "far",
            "--name",
            name,
            "--data-dir",
            name,
            "--label",
            "zone=eu",
            "--resource",
            "license=2",
            "--slots",
            "2",
        ]);
        Process::start(&mut command, "works for").0
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// Starts a run of `hold` and waits until the step has begun.
    fn hold(&self) {
        let here = format!("here={}", self.path("").display());
        self.good(&["run", "hold.yaml", "-p", &here, "--detach"]);
        self.begun(1);
    }

    /// Waits until the try of this number has begun.
    fn begun(&self, attempt: u32) {
        let file = self.path(&format!("begun-{attempt}"));
        while !file.exists() {
            self.workers();
        }
    }

    fn go(&self) {
        std::fs::write(self.path("go"), "").unwrap();
    }

    fn workers(&self) -> Value {
        let output = self.command(&["workers", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Those of other processes.
    fn others(&self) -> Vec<Value> {
        self.listed(false)
    }

    /// Those inside the server: one, or none once it was let go.
    fn inside(&self) -> Vec<Value> {
        self.listed(true)
    }

    fn listed(&self, inside: bool) -> Vec<Value> {
        let all = self.workers()["workers"].as_array().unwrap().clone();
        let of = all.into_iter().filter(|worker| worker["inside"] == inside);
        of.collect()
    }

    /// The run once it has ended.
    fn ended(&self) -> Value {
        loop {
            let output = self.command(&["show", "last", "--json"]).output().unwrap();
            let run: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let status = run["run"]["status"]
                .as_str()
                .or(run["status"].as_str())
                .unwrap_or_default();
            if ["succeeded", "failed", "cancelled", "timed_out"].contains(&status) {
                return run;
            }
        }
    }

    /// Waits until the run has ended well.
    fn succeeds(&self) {
        let run = self.ended();
        assert!(run.to_string().contains("\"succeeded\""), "{run:#}");
    }

    /// What is recorded of a step of the run.
    fn record(&self, step: &str) -> Value {
        let output = self.command(&["show", "last", step, "--json"]).output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    }

    /// The log of the run.
    fn log(&self) -> String {
        self.good(&["logs", "last"]).out
    }
}

/// A step at a worker with a secret, a file to keep and a large output, and one that takes them.
const FAR: &str = "\
workflow: far
steps:
  far:
    queue: far
    shell: |
      echo at $PWD, token is $TOKEN
      echo words > kept.txt
      head -c 200000 /dev/zero | tr '\\0' x | sed 's/.*/{\"long\": \"&\"}/' > $KAPELL_OUTPUT
    env: { TOKEN: \"${{ secrets.TOKEN }}\" }
    artifacts: { out: { kept: kept.txt } }
  here:
    needs: [far]
    shell: echo \"here $(cat in.txt) $(wc -c < $KAPELL_INPUT)\"
    with: { long: \"${{ steps.far.output.long }}\" }
    artifacts: { in: { in.txt: \"${{ steps.far.output.kept }}\" } }
  back:
    needs: [far]
    queue: far
    shell: echo \"back $(cat in.txt) $(wc -c < $KAPELL_INPUT)\"
    with: { long: \"${{ steps.far.output.long }}\" }
    artifacts: { in: { in.txt: \"${{ steps.far.output.kept }}\" } }
";

#[test]
fn a_worker_does_the_work_of_its_queue() {
    let world = World::new("far.yaml", FAR);
    let worker = world.worker("a");
    let listed = world.good(&["workers"]).out;
    assert!(
        listed.contains("zone=eu") && listed.contains("serves far  offers 2 license"),
        "{listed}"
    );
    world.good(&["run", "far.yaml", "--detach"]);
    world.succeeds();
    let log = world.log();
    for words in [
        "at <dir>/a/work",
        "token is ***",
        "here words 200",
        "back words 200",
    ] {
        assert!(log.contains(words), "`{words}` is not in\n{log}");
    }
    assert!(!log.contains("topsecret"), "{log}");
    let kept = ["artifact", "last", "far", "kept"];
    assert_eq!(world.good(&kept).out, "words\n");
    world.good(&["artifact", "last", "far", "kept", "-o", "got.txt"]);
    assert_eq!(
        std::fs::read_to_string(world.path("got.txt")).unwrap(),
        "words\n"
    );
    let output = world.command(&["artifact", "last", "far", "long"]).output();
    let errors = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(errors.contains("it gave `kept`"), "{errors}");
    assert_eq!(worker.end(), 0);
    assert_eq!(world.others(), [] as [Value; 0]);
}

#[test]
fn what_a_worker_printed_and_kept_outlives_the_machine_of_its_server() {
    let Some(schema) = TestSchema::new() else {
        return;
    };
    let config = format!("store = \"{}\"\n", schema.text());
    let mut world = World {
        place: Place::with("far.yaml", FAR),
        server: None,
        lease: LEASE,
        url: String::new(),
    };
    world.place.write("kapell.toml", &config);
    world.serve("127.0.0.1:0");
    let worker = world.worker("a");
    world.good(&["run", "far.yaml", "--detach"]);
    world.succeeds();
    let log = world.log();
    assert!(log.contains("back words 200"), "{log}");
    assert_eq!(worker.end(), 0);
    world.server.take().unwrap().kill();
    drop(world);
    let elsewhere = Place::new();
    elsewhere.write("kapell.toml", &config);
    let log = elsewhere.good(&["logs", "last"]).out;
    for words in ["token is ***", "here words 200", "back words 200"] {
        assert!(log.contains(words), "`{words}` is not in\n{log}");
    }
    let kept = ["artifact", "last", "far", "kept"];
    assert_eq!(elsewhere.good(&kept).out, "words\n");
}

#[test]
fn a_token_that_does_not_let_it_work_ends_a_worker() {
    let place = Place::new();
    let token = |name: &str, scope: &str| {
        let output = place
            .command(&["token", "create", name, "--scope", scope])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (reads, runs) = (token("reads", "read"), token("runs", "run"));
    let mut command = place.command(&["server", "--listen", "127.0.0.1:0", "--tls-self-signed"]);
    let (_server, line) = Process::start(&mut command, "answers at");
    let url = line.split_whitespace().find(|word| word.contains("://"));
    let worker = |token: &str| {
        let arguments = [
            "worker",
            "--data-dir",
            "a",
            "--server",
            url.unwrap(),
            "--ca",
        ];
        let mut command = place.command(&arguments);
        command
            .arg(place.path(".kapell/tls/cert.pem"))
            .env("KAPELL_TOKEN", token);
        command
    };
    for token in ["kapell_no_token", &reads] {
        let output = worker(token).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("refuses this worker"), "{errors}");
    }
    let (works, _) = Process::start(&mut worker(&runs), "works for");
    assert_eq!(works.end(), 0);
}

#[test]
fn what_a_killed_worker_ran_is_done_elsewhere() {
    let world = World::new("hold.yaml", HOLD);
    let first = world.worker("a");
    world.hold();
    // What it printed goes with it unless it was sent.
    while !world.log().contains("/a/") {}
    first.kill();
    // What is said of the step until the worker's lease is over.
    while !world.good(&["why", "last"]).out.contains("its worker `a`") {}
    let second = world.worker("b");
    world.begun(2);
    world.go();
    world.succeeds();
    let log = world.log();
    assert!(log.contains("/b/") && log.contains("/a/"), "{log}");
    let record = world.record("far");
    let lost = &record["attempts"][0];
    assert_eq!(
        (&lost["result"], &lost["worker"]),
        (&"lost".into(), &"a".into()),
        "{record:#}"
    );
    assert_eq!(record["attempts"][1]["worker"], "b", "{record:#}");
    let at = |name: &str| -> jiff::Timestamp { lost[name].as_str().unwrap().parse().unwrap() };
    let took = at("ended_at").duration_since(at("started_at"));
    assert!(took.as_secs() >= 1, "it ran until its lease: {took}");
    assert_eq!(second.end(), 0);
}

#[test]
fn a_queue_stays_with_its_workers_when_the_last_has_gone() {
    let mut world = World::new("far.yaml", FAR);
    assert_eq!(world.worker("a").end(), 0);
    world.good(&["run", "far.yaml", "--detach"]);
    let waits = |world: &World| {
        // What it waits for is said once it is looked for.
        while !world
            .good(&["why", "last"])
            .out
            .contains("serves queue `far`")
        {}
    };
    waits(&world);
    let address = world.url.split_once("//").unwrap().1.to_owned();
    world.server.take().unwrap().kill();
    world.serve(&address);
    waits(&world);
    let worker = world.worker("b");
    world.succeeds();
    assert_eq!(worker.end(), 0);
    // A server that is told to serve it does.
    world.server.take().unwrap().kill();
    world.serve_with(&address, &["--queues", "default,far"]);
    world.good(&["run", "far.yaml", "--detach"]);
    world.succeeds();
}

#[test]
fn the_configuration_says_whose_work_is_done() {
    let mut world = World::new("far.yaml", FAR);
    let serves = |world: &World, variable: Option<&str>, flags: &[&str]| {
        let all = [&["worker", "--data-dir", "a", "--name", "a"], flags].concat();
        let mut command = world.command(&all);
        command.envs(variable.map(|names| ("KAPELL_WORKER_QUEUES", names)));
        let worker = Process::start(&mut command, "works for").0;
        let queues = world.others()[0]["queues"].to_string();
        assert_eq!(worker.end(), 0);
        queues
    };
    assert_eq!(serves(&world, None, &[]), "[]");
    let text = "[worker]\nqueues = [\"default\", \"far\"]\n";
    world.place.write("kapell.toml", text);
    assert_eq!(serves(&world, None, &[]), r#"["default","far"]"#);
    assert_eq!(serves(&world, Some("far, b"), &[]), r#"["b","far"]"#);
    assert_eq!(serves(&world, Some("b"), &["--queues", "c"]), r#"["c"]"#);
    // What workers named is theirs, unless the server is told to do it too: this one is.
    let address = world.url.split_once("//").unwrap().1.to_owned();
    world.server.take().unwrap().kill();
    world.serve(&address);
    world.good(&["run", "far.yaml", "--detach"]);
    world.succeeds();
    let long = "q".repeat(1_000);
    let refused = world.place.kapell(&["server", "--queues", &long]);
    assert!(
        refused.status == 2 && refused.errors.contains("is no name of a queue"),
        "{}",
        refused.all()
    );
}

#[test]
fn a_worker_that_is_killed_and_comes_back_says_what_it_lost() {
    let world = World::new("hold.yaml", HOLD);
    let first = world.worker("a");
    world.hold();
    first.kill();
    let again = world.worker("a");
    world.begun(2);
    world.go();
    world.succeeds();
    assert_eq!(again.end(), 0);
}

#[test]
fn a_worker_that_stood_still_past_its_lease_has_no_say_any_more() {
    let world = World::new("hold.yaml", HOLD);
    let mut first = world.worker("a");
    world.hold();
    first.signal(Signal::STOP);
    let second = world.worker("b");
    world.begun(2);
    world.go();
    // The try of the worker that stands still ends well meanwhile; nobody hears of it.
    world.succeeds();
    first.signal(Signal::CONT);
    first.until("works for");
    assert_eq!(world.others().len(), 2);
    let log = world.log();
    assert!(log.contains("/b/"), "{log}");
    assert_eq!(first.end(), 0);
    assert_eq!(second.end(), 0);
}

#[test]
fn a_step_goes_on_while_its_server_is_restarted() {
    let mut world = World::new("hold.yaml", HOLD);
    let mut worker = world.worker("a");
    world.hold();
    // Its worker says that it runs a moment after it does.
    while world.record("far")["attempts"][0]["worker"] != "a" {}
    assert_eq!(world.record("far")["attempts"][0]["result"], "running");
    assert!(world.good(&["show", "last"]).out.contains("at a"));
    assert!(world.good(&["timeline", "last"]).out.contains("at a"));
    let address = world.url.split_once("//").unwrap().1.to_owned();
    world.server.take().unwrap().kill();
    world.serve(&address);
    worker.until("works again");
    world.go();
    world.succeeds();
    assert!(!world.path("begun-2").exists(), "it ran once");
    assert_eq!(worker.end(), 0);
}

#[test]
fn a_queue_of_workers_that_are_gone_is_nobody_elses() {
    let world = World::new("hold.yaml", HOLD);
    let worker = world.worker("a");
    assert_eq!(worker.end(), 0);
    let queues = |world: &World| {
        let said = world.good(&["queues", "--json"]).out;
        let list: Value = serde_json::from_str(&said).unwrap();
        list["queues"].as_array().unwrap().clone()
    };
    world.good(&["run", "hold.yaml", "-p", "here=.", "--detach"]);
    let far = loop {
        let found = queues(&world).into_iter().find(|of| of["name"] == "far");
        if let Some(far) = found.filter(|far| far["waiting"] == 1) {
            break far;
        }
    };
    assert_eq!(
        (&far["workers"], &far["free_slots"]),
        (&0.into(), &0.into())
    );
    let listed = world.good(&["workers", "--queue", "far", "--json"]).out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["workers"].as_array().unwrap().len(), 0, "{listed:#}");
}

#[test]
fn a_worker_that_is_let_go_hands_back_what_it_runs() {
    let world = World::new("hold.yaml", HOLD);
    let first = world.worker("a");
    world.hold();
    let second = world.worker("b");
    let said = world
        .good(&["workers", "--drain", "a", "--grace", "0s"])
        .out;
    assert!(said.contains("goes"), "{said}");
    world.begun(2);
    world.go();
    world.succeeds();
    assert_eq!(first.end_by_itself(), 0);
    assert_eq!(second.end(), 0);
}
