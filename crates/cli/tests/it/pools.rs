//! Pools of workers: they grow with the backlog and go back to nothing, whatever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::place::{Place, Started};

const ITEMS: usize = 6;

/// Steps that say that they have begun, and wait for the file `go`.
fn workflow(here: &str) -> String {
    format!(
        "\
workflow: burst
steps:
  each:
    queue: burst
    foreach: {{ n: [1, 2, 3, 4, 5, 6] }}
    env: {{ N: \"${{{{ n }}}}\" }}
    shell: |
      echo \"begun $N\" >> {here}/ledger
      until test -e {here}/go; do sleep 0.02; done
      echo \"ended $N\" >> {here}/ledger
    retry: {{ backoff: {{ initial: 1ms }} }}
"
    )
}

/// A server, and what becomes of pools there. Whatever was started ends with it.
struct World {
    place: Place,
    url: String,
    server: Option<Started>,
    pool: Option<Started>,
}

impl World {
    fn new(config: &str) -> Self {
        let place = Place::new();
        place.write("kapell.toml", config);
        let here = place.path("").display().to_string();
        place.write("burst.yaml", &workflow(&here));
        let mut command = place.command(&["server", "--listen", "127.0.0.1:0"]);
        command
            .env("KAPELL_WORKER_LEASE", "3")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut server = Started::of(command.spawn().unwrap());
        let line = server.until("answers at");
        let url = line.split_whitespace().find(|word| word.contains("://"));
        Self {
            url: url.unwrap().to_owned(),
            place,
            server: Some(server),
            pool: None,
        }
    }

    /// Starts the process of the pool.
    fn keep(&mut self) {
        let flags = ["pool", "--data-dir", "pools", "--server", &self.url];
        let mut command = self.place.command(&flags);
        command
            .env("HERE", self.place.path(""))
            .env("KAPELL", env!("CARGO_BIN_EXE_kapell"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut pool = Started::of(command.spawn().unwrap());
        pool.until("Pool burst");
        self.pool = Some(pool);
    }

    fn pool(&mut self) -> &mut Started {
        self.pool.as_mut().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.place
            .json(&[arguments, &["--json", "--server", &self.url]].concat())
    }

    /// The sessions of the pool's workers that are there, by name.
    fn sessions(&self) -> BTreeMap<String, String> {
        let list = self.json(&["workers", "--pool", "burst"]);
        let text = |worker: &Value, field: &str| worker[field].as_str().unwrap().to_owned();
        let there = list["workers"].as_array().unwrap().iter();
        there
            .filter(|worker| worker["connected"] == true)
            .map(|worker| (text(worker, "name"), text(worker, "session")))
            .collect()
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let tries = (0..3_000).take_while(|_| !holds(self));
        tries.for_each(|_| std::thread::park_timeout(std::time::Duration::from_millis(20)));
        assert!(holds(self), "{what}: {:?}", self.ledger(""));
    }

    /// What the ledger has behind this word.
    fn ledger(&self, word: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.path("ledger")).unwrap_or_default();
        let named = text.lines().filter_map(|line| line.strip_prefix(word));
        named.map(|rest| rest.trim().to_owned()).collect()
    }

    /// Starts a run; its id.
    fn run(&self) -> String {
        let started = self.json(&["run", "burst.yaml", "--detach"]);
        started["run"].as_str().unwrap().to_owned()
    }

    /// All is done, each item once, and nobody is there any more.
    fn ends(&self, run: &str) {
        self.place.write("go", "");
        let show = ["show", run, "--json", "--server", &self.url];
        let shown = self.place.until(&show, |shown| {
            shown["status"] == "succeeded" || shown["status"] == "failed"
        });
        assert_eq!(shown["status"], "succeeded", "{shown:#}");
        self.wait("all workers leave", |world| world.sessions().is_empty());
        let ended = self.ledger("ended");
        assert_eq!(ended.len(), ITEMS, "none was done twice: {ended:?}");
        assert_eq!(ended.into_iter().collect::<BTreeSet<_>>().len(), ITEMS);
    }

    /// Files with the numbers of workers' processes.
    fn pids(&self) -> Vec<PathBuf> {
        let folders = ["pools", "machines"].map(|folder| self.place.path(folder));
        let entries = folders
            .into_iter()
            .filter_map(|folder| folder.read_dir().ok());
        let paths = entries.flatten().map(|entry| entry.unwrap().path());
        paths
            .map(|path| {
                if path.is_dir() {
                    path.join("worker.pid")
                } else {
                    path
                }
            })
            .filter(|path| path.extension().is_some_and(|end| end == "pid"))
            .collect()
    }
}

fn pid(file: &PathBuf) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
}

impl Drop for World {
    fn drop(&mut self) {
        for started in [self.pool.take(), self.server.take()].into_iter().flatten() {
            started.signal(Signal::KILL);
            started.end();
        }
        for pid in self.pids().iter().filter_map(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn a_pool_of_processes_grows_with_the_backlog_and_goes_back_to_nothing_whatever_dies() {
    let mut world = World::new(
        "[pools.burst]\nmin = 0\nmax = 3\nqueues = [\"burst\"]\nevery = \"100ms\"\nquiet = \"1s\"\n",
    );
    world.keep();
    world.pool().until("burst");
    assert_eq!(world.sessions().len(), 0, "nothing is to be done");
    let run = world.run();
    world.wait("three workers begin", |world| {
        world.ledger("begun").len() == 3
    });
    assert_eq!(world.sessions().len(), 3);
    let queue = &world.json(&["queues"])["queues"][0];
    assert_eq!(
        (&queue["name"], &queue["attempts"]),
        (&"burst".into(), &6.into())
    );

    // A worker dies: what it had is done elsewhere, and another is there in its place.
    let before = world.sessions();
    let file = world.place.path("pools/burst-1/worker.pid");
    kill_process(pid(&file).unwrap(), Signal::KILL).unwrap();
    world.wait("it is replaced", |world| {
        let now = world.sessions();
        now.len() == 3 && now.get("burst-1") != before.get("burst-1")
    });
    world.wait("what it ran begins again", |world| {
        world.ledger("begun").len() >= 4
    });

    // So does the process of the pool: its workers go on, and the next one knows them.
    let before = world.sessions();
    let pool = world.pool.take().unwrap();
    pool.signal(Signal::KILL);
    pool.end();
    world.keep();
    world.pool().until("3 wanted, 3 serving");
    assert_eq!(world.sessions(), before, "neither twice nor anew");

    world.ends(&run);
    world.pool().until("0 wanted, 0 serving");
    let pool = world.pool.take().unwrap();
    pool.signal(Signal::TERM);
    assert_eq!(pool.end().0, 0);
}

/// Starts workers as processes, and keeps their numbers in files.
const SCRIPT: &str = "\
#!/bin/sh
set -e
mkdir -p \"$HERE/machines\" && cd \"$HERE/machines\"
case $KAPELL_POOL_ACTION in
start)
  test ! -e \"$HERE/full\" || { echo 'no room for a machine' >&2; exit 3; }
  \"$KAPELL\" worker --name \"$KAPELL_WORKER_NAME\" --data-dir \"../$KAPELL_WORKER_NAME\" > \"$KAPELL_WORKER_NAME.log\" 2>&1 &
  echo $! > \"$KAPELL_WORKER_NAME.pid\" ;;
stop)
  echo \"$KAPELL_WORKER_NAME\" >> stopped
  rm -f \"$KAPELL_WORKER_NAME.pid\" ;;
list)
  for file in *.pid; do
    test ! -e \"$file\" || basename \"$file\" .pid
  done ;;
esac
";

#[test]
fn a_pool_by_a_command_says_what_fails_and_goes_on_when_it_does_not() {
    let mut world = World::new(
        "[pools.burst]\nmax = 2\nslots = 2\nqueues = [\"burst\"]\nevery = \"100ms\"\nquiet = \"1s\"\ndriver = \"exec\"\ncommand = \"./machines.sh\"\n",
    );
    world.place.write("machines.sh", SCRIPT);
    let script = world.place.path("machines.sh");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.place.write("full", "");
    world.keep();
    let run = world.run();
    let failed = world.pool().until_error("no room for a machine");
    assert!(failed.contains("failed with exit status 3"), "{failed}");
    std::fs::remove_file(world.place.path("full")).unwrap();
    world.wait("both workers begin", |world| {
        world.ledger("begun").len() == 4
    });
    let list = world.json(&["workers", "--pool", "burst"]);
    for worker in list["workers"].as_array().unwrap() {
        assert_eq!(
            (&worker["slots"], &worker["queues"][0]),
            (&2.into(), &"burst".into())
        );
    }
    world.ends(&run);
    // What is left of them is cleared away.
    world.wait("both are cleared away", |world| world.pids().is_empty());
    let stopped = std::fs::read_to_string(world.place.path("machines/stopped")).unwrap();
    let stopped: BTreeSet<&str> = stopped.lines().collect();
    assert_eq!(stopped, BTreeSet::from(["burst-1", "burst-2"]));
}

#[test]
fn a_pool_that_makes_no_sense_is_refused() {
    let world = World::new("");
    let refused = |config: &str, why: &str| {
        world.place.write("kapell.toml", config);
        let said = world.place.kapell(&["pool", "--server", &world.url]);
        assert_ne!(said.status, 0);
        assert!(said.errors.contains(why), "{}", said.errors);
    };
    refused("", "there are no pools");
    refused("[pools.p]\nmax = 2\n", "serves no queue");
    refused("[pools.p]\nqueues = [\"q\"]\nmin = 2\n", "at most 1");
    refused(
        "[pools.p]\nqueues = [\"q\"]\ndriver = \"exec\"\n",
        "has no command",
    );
    refused("[pools.p]\nqueues = [\"q\"]\ngpus = 1\n", "share out GPUs");
    refused(
        "[pools.\"a/b\"]\nqueues = [\"q\"]\n",
        "is no name of a pool",
    );
    refused(
        "[pools.p]\nquiete = \"1s\"\n",
        "did you mean `pools.p.quiet`?",
    );
}
