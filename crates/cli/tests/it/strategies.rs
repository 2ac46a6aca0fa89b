//! What a start does while others are active, over the API of a real server that is killed on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use kapell_api::client::{Client, DeployCalls, HttpServer, RunCalls, Target};
use kapell_api::http::{
    Action, Deploy, Hold, QueueLine, QueueQuery, RegisterWorkflow, StartRun, WorkflowChange,
};
use kapell_expr::Value;
use kapell_model::{RunId, RunStatus};
use rustix::process::Signal;
use serde_json::json;

use crate::place::{Place, Started};

/// Looks at a thing that is about to happen.
const LOOKS: usize = 600;

/// Between two looks the server is asked to wait for the end of a run.
const PAUSE: Duration = Duration::from_millis(50);

/// A server with the workflow `w`, whose runs have names and go on until they are told how to end.
struct World {
    place: Place,
    server: Option<Started>,
    client: Client,
    runs: BTreeMap<&'static str, RunId>,
}

impl World {
    fn new(strategy: &str) -> Self {
        let place = Place::new();
        let (server, client) = boot(&place);
        let world = Self {
            place,
            server: Some(server),
            client,
            runs: BTreeMap::new(),
        };
        let source = format!(
            "workflow: w
strategy: {strategy}
params:
  end: {{ type: string }}
  key: {{ type: any, default: x }}
steps:
  work:
    shell: |
      until test -s \"$END\"; do sleep 0.02; done
      test \"$(cat \"$END\")\" = good
    env: {{ END: \"${{{{ params.end }}}}\" }}
    retry: {{ platform: 1000, backoff: {{ initial: 10ms, factor: 1 }} }}
"
        );
        let workflow = RegisterWorkflow {
            file: "w.yaml".to_owned(),
            source,
            bundle: None,
            by: String::new(),
        };
        let deploy = Deploy {
            workflows: vec![workflow],
            ..Deploy::default()
        };
        world.client.deploy(&deploy).unwrap();
        world
    }

    /// Kills the server as it stands, and starts another.
    fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.signal(Signal::KILL);
        server.end();
        let (server, client) = boot(&self.place);
        self.server = Some(server);
        self.client = client;
    }

    fn start(&mut self, name: &'static str) {
        self.start_with(name, "x");
    }

    fn start_with(&mut self, name: &'static str, key: &str) {
        let run = self.started(name, Value::from(key)).unwrap();
        self.runs.insert(name, run);
    }

    fn started(&self, name: &str, key: Value) -> kapell_api::client::Result<RunId> {
        let end = self.place.path(name).display().to_string();
        let start = StartRun {
            workflow: "w".to_owned(),
            params: Value::map([("end", Value::from(end.as_str())), ("key", key)]),
            by: "bob".to_owned(),
            ..StartRun::default()
        };
        self.client.start(&start).map(|started| started.run)
    }

    fn succeed(&self, name: &str) {
        self.place.write(name, "good");
        self.is(name, RunStatus::Succeeded);
    }

    fn fail(&self, name: &str) {
        self.place.write(name, "bad");
        self.is(name, RunStatus::Failed);
    }

    fn act(&self, name: &str, action: &Action) {
        self.client.act(self.runs[name], action).unwrap();
    }

    fn cancel(&self, name: &str) {
        let cancel = Action::Cancel {
            by: "bob".to_owned(),
            reason: String::new(),
            now: false,
        };
        self.act(name, &cancel);
        self.is(name, RunStatus::Cancelled);
    }

    /// Waits until a run is in this status; what it says of its end.
    fn is(&self, name: &str, status: RunStatus) -> String {
        let mut seen = RunStatus::Queued;
        for _ in 0..LOOKS {
            let summary = self.client.wait(self.runs[name], PAUSE).unwrap();
            if summary.status == status {
                return summary.error.unwrap_or_default();
            }
            seen = summary.status;
        }
        panic!("`{name}` is {seen:?} and never {status:?}");
    }

    fn discarded(&self, name: &str, by: &str) {
        let reason = self.is(name, RunStatus::Discarded);
        let other = self.runs[by].to_string();
        assert!(reason.contains(&other), "`{name}`: {reason}");
    }

    fn change(&self, change: &serde_json::Value) {
        let change: WorkflowChange = serde_json::from_value(change.clone()).unwrap();
        self.client.change("w", &change).unwrap();
    }

    fn lines(&self) -> Vec<QueueLine> {
        let view = self.client.queue("w", &QueueQuery::default());
        view.unwrap().lines
    }

    /// Waits until these are active and these wait, in order; nobody else may be there then.
    fn queue(&self, active: &[&str], waiting: &[&str]) {
        let name = |run: &RunId| {
            let known = self.runs.iter().find(|(_, known)| *known == run);
            known.map_or("somebody", |(name, _)| *name)
        };
        let mut seen = Default::default();
        for _ in 0..LOOKS {
            let lines = self.lines();
            let mut now: Vec<&str> = lines
                .iter()
                .flat_map(|line| &line.active)
                .map(name)
                .collect();
            now.sort_unstable();
            let then: Vec<&str> = lines
                .iter()
                .flat_map(|line| &line.waiting)
                .map(name)
                .collect();
            if now == active && then == waiting {
                return;
            }
            seen = (now, then);
            let any = self.runs.values().next_back().unwrap();
            self.client.wait(*any, PAUSE).unwrap();
        }
        panic!("{seen:?}, and never {active:?} {waiting:?}");
    }

    fn blocked_by(&self) -> Option<RunId> {
        self.lines().into_iter().find_map(|line| line.blocked_by)
    }

    fn end(self) {
        let server = self.server.unwrap();
        server.signal(Signal::TERM);
        assert_eq!(server.end().0, 0);
    }
}

fn boot(place: &Place) -> (Started, Client) {
    let mut server = place.start(&["server", "--listen", "127.0.0.1:0"]);
    let line = server.until("answers at");
    let url = line.split_whitespace().find(|word| word.contains("://"));
    let target = HttpServer::new(url.unwrap(), None, None).unwrap();
    let client = Client::to(Target::Http(Box::new(target))).unwrap();
    (server, client)
}

#[test]
fn parallel_runs_at_once_below_its_limit() {
    let mut world = World::new("{ mode: parallel, limit: 2 }");
    for name in ["a", "b", "c", "d"] {
        world.start(name);
    }
    world.queue(&["a", "b"], &["c", "d"]);
    world.kill();
    world.queue(&["a", "b"], &["c", "d"]);
    world.succeed("a");
    world.queue(&["b", "c"], &["d"]);
    world.fail("b");
    world.queue(&["c", "d"], &[]);
    world.cancel("c");
    world.succeed("d");
    world.queue(&[], &[]);
    world.end();
}

#[test]
fn sequential_goes_on_however_the_one_before_ended() {
    let mut world = World::new("{ mode: sequential }");
    for name in ["a", "b", "c", "d"] {
        world.start(name);
    }
    world.queue(&["a"], &["b", "c", "d"]);
    world.kill();
    world.queue(&["a"], &["b", "c", "d"]);
    world.fail("a");
    world.queue(&["b"], &["c", "d"]);
    world.cancel("b");
    world.queue(&["c"], &["d"]);
    // One that waits may go too, and nobody takes its place twice.
    world.cancel("d");
    world.kill();
    world.queue(&["c"], &[]);
    world.succeed("c");
    // A run that failed joins the end when it is retried.
    world.place.write("a", "good");
    world.start("e");
    let retry = Action::Retry {
        by: "bob".to_owned(),
    };
    world.act("a", &retry);
    world.queue(&["e"], &["a"]);
    world.succeed("e");
    world.is("a", RunStatus::Succeeded);
    world.end();
}

#[test]
fn a_strict_queue_is_blocked_by_a_failure_until_that_is_retried_or_dismissed() {
    let mut world = World::new("{ mode: strict_sequential }");
    for name in ["a", "b", "c", "d"] {
        world.start(name);
    }
    world.queue(&["a"], &["b", "c", "d"]);
    world.fail("a");
    world.queue(&[], &["b", "c", "d"]);
    assert_eq!(world.blocked_by(), Some(world.runs["a"]));
    world.kill();
    world.queue(&[], &["b", "c", "d"]);
    let why = world.client.view(world.runs["b"]).unwrap();
    let why = serde_json::to_string(&why).unwrap();
    assert!(why.contains("dismiss"), "{why}");
    world.place.write("a", "good");
    let retry = Action::Retry {
        by: "bob".to_owned(),
    };
    world.act("a", &retry);
    world.is("a", RunStatus::Succeeded);
    world.queue(&["b"], &["c", "d"]);
    // One that a person cancels blocks nothing.
    world.cancel("b");
    world.queue(&["c"], &["d"]);
    world.fail("c");
    world.queue(&[], &["d"]);
    world.act("c", &Action::Dismiss { by: String::new() });
    world.kill();
    world.queue(&["d"], &[]);
    assert_eq!(world.blocked_by(), None);
    world.succeed("d");
    world.end();
}

#[test]
fn first_only_discards_a_start_while_one_is_active() {
    let mut world = World::new("{ mode: first_only }");
    world.start("a");
    world.queue(&["a"], &[]);
    world.start("b");
    world.discarded("b", "a");
    world.kill();
    world.start("c");
    world.discarded("c", "a");
    world.queue(&["a"], &[]);
    world.succeed("a");
    world.start("d");
    world.queue(&["d"], &[]);
    world.succeed("d");
    world.end();
}

#[test]
fn last_only_cancels_the_active_run_for_the_newest() {
    let mut world = World::new("{ mode: last_only }");
    world.start("a");
    world.queue(&["a"], &[]);
    world.start("b");
    world.is("a", RunStatus::Cancelled);
    world.queue(&["b"], &[]);
    world.kill();
    world.queue(&["b"], &[]);
    world.start("c");
    world.is("b", RunStatus::Cancelled);
    world.succeed("c");
    world.queue(&[], &[]);
    world.end();
}

#[test]
fn serial_latest_leaves_the_active_run_alone_and_keeps_the_newest_of_the_others() {
    let mut world = World::new("{ mode: serial_latest }");
    world.start("a");
    world.queue(&["a"], &[]);
    world.start("b");
    world.queue(&["a"], &["b"]);
    world.start("c");
    world.discarded("b", "c");
    world.queue(&["a"], &["c"]);
    world.kill();
    world.start("d");
    world.discarded("c", "d");
    world.queue(&["a"], &["d"]);
    world.succeed("a");
    world.queue(&["d"], &[]);
    world.succeed("d");
    world.end();
}

#[test]
fn a_limit_is_of_each_key_and_a_total_of_all() {
    let strategy = "{ mode: parallel, limit: 1, total: 2, key: \"${{ params.key }}\" }";
    let mut world = World::new(strategy);
    for (name, key) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "three")] {
        world.start_with(name, key);
    }
    // Lines stand in the order of their keys.
    world.queue(&["a", "c"], &["b", "d"]);
    let refused = world.started("e", Value::Null).unwrap_err();
    assert!(refused.message.contains("key"), "{refused:?}");
    world.kill();
    world.queue(&["a", "c"], &["b", "d"]);
    world.succeed("a");
    // Who came first has the room that there is.
    world.queue(&["b", "c"], &["d"]);
    world.succeed("c");
    world.queue(&["b", "d"], &[]);
    let one = QueueQuery {
        key: Some("three".to_owned()),
        after: None,
    };
    let view = world.client.queue("w", &one).unwrap();
    assert_eq!(view.lines.len(), 1);
    assert_eq!(view.lines[0].active, [world.runs["d"]]);
    world.succeed("b");
    world.succeed("d");
    world.end();
}

#[test]
fn a_burst_of_starts_becomes_the_last_of_them() {
    let mut world = World::new("{ mode: sequential, debounce: { quiet: 3s } }");
    for name in ["a", "b", "c"] {
        world.start(name);
    }
    world.discarded("a", "b");
    world.discarded("b", "c");
    let burst = world.lines()[0].burst.clone().unwrap();
    assert_eq!(burst.run, world.runs["c"]);
    world.kill();
    world.queue(&["c"], &[]);
    world.succeed("c");
    world.end();
}

#[test]
fn another_strategy_counts_for_all_that_wait() {
    let mut world = World::new("{ mode: sequential }");
    for name in ["a", "b", "c", "d", "e"] {
        world.start(name);
    }
    world.queue(&["a"], &["b", "c", "d", "e"]);
    world.change(&json!({ "strategy": { "mode": "parallel", "limit": 3 } }));
    world.queue(&["a", "b", "c"], &["d", "e"]);
    world.kill();
    world.queue(&["a", "b", "c"], &["d", "e"]);
    // Back to what the definition says: those that started stay.
    world.change(&json!({ "strategy": null }));
    world.succeed("a");
    world.queue(&["b", "c"], &["d", "e"]);
    world.succeed("b");
    world.queue(&["c"], &["d", "e"]);
    world.succeed("c");
    world.queue(&["d"], &["e"]);
    world.succeed("d");
    world.succeed("e");
    world.end();
}

#[test]
fn starts_of_a_paused_workflow_wait_in_order_until_it_is_resumed() {
    let mut world = World::new("{ mode: parallel, limit: 2 }");
    world.start("a");
    world.queue(&["a"], &[]);
    world.change(&json!({ "paused": true, "by": "eve" }));
    world.start("b");
    world.start("c");
    world.queue(&["a"], &["b", "c"]);
    world.kill();
    world.queue(&["a"], &["b", "c"]);
    // What is active ends as ever.
    world.succeed("a");
    world.queue(&[], &["b", "c"]);
    let hold = |paused| Hold {
        paused,
        by: "eve".to_owned(),
    };
    world.client.hold(&hold(true)).unwrap();
    world.change(&json!({ "paused": false }));
    world.queue(&[], &["b", "c"]);
    world.kill();
    world.queue(&[], &["b", "c"]);
    world.client.hold(&hold(false)).unwrap();
    world.queue(&["b", "c"], &[]);
    world.succeed("b");
    world.succeed("c");
    world.end();
}
