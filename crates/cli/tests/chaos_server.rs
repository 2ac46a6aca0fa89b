//! Kill -9 of a server and of its worker at random moments, fifty times, while a schedule, signals, locks,
//! approvals and run queues are at work and a client notes what was acknowledged to it. Then count.

mod ledger;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use kapell_api::client::TriggerCalls;

use ledger::{Patient, ask_for_everything, random, wait};

const KILLS: u32 = 50;

/// A server and a worker on one directory.
struct World {
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
    worker: Option<Child>,
}

impl World {
    fn new(folder: &Path) -> Self {
        ledger::write_flows(&folder.join("flows"));
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port is free")
            .port();
        let mut world = Self {
            folder: folder.to_owned(),
            port,
            server: None,
            worker: None,
        };
        world.start_server();
        world.start_worker();
        world
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn kapell(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kapell"));
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env_remove("KAPELL_SERVER")
            .env("KAPELL_WORKER_LEASE", "3")
            .env("USER", "ann")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn start_server(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let server = self.kapell(&["server", "--listen", &listen]).spawn();
        self.server = Some(server.expect("the server starts"));
    }

    fn start_worker(&mut self) {
        let url = self.url();
        let words = [
            "worker", "--server", &url, "--queue", "far", "--name", "far",
        ];
        let worker = self.kapell(&words).args(["--data-dir", "far"]).spawn();
        self.worker = Some(worker.expect("the worker starts"));
    }

    fn kill(child: &mut Option<Child>) {
        if let Some(mut child) = child.take() {
            child.kill().expect("a process is killed");
            child.wait().expect("a process is gone");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        Self::kill(&mut self.worker);
        Self::kill(&mut self.server);
    }
}

#[test]
fn fifty_kills_of_server_and_worker_break_no_promise() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(folder.path());
    let here = folder.path().display().to_string();
    let url = world.url();
    // Everything is in force before the first death.
    let mut patient = Patient::new(&url, None);
    patient.good(|client| client.triggers(&kapell_api::http::TriggerQuery::default()));
    let deployed = world
        .kapell(&["deploy", "flows", "--server", &url])
        .status();
    assert!(deployed.expect("a deploy ends").success());
    let stop = AtomicBool::new(false);
    let ledger = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_for_everything(Patient::new(&url, None), &here, &stop));
        let mut seed = 0x5eed_u64;
        for _ in 0..KILLS {
            wait(150 + random(&mut seed) % 1_300);
            if random(&mut seed).is_multiple_of(3) {
                World::kill(&mut world.worker);
                world.start_worker();
            } else {
                World::kill(&mut world.server);
                wait(random(&mut seed) % 400);
                world.start_server();
            }
            if client.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the client goes on over all deaths")
    });
    ledger::settle(&mut patient, &ledger, folder.path());
}
