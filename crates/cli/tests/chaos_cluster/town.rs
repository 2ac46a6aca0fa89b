//! A database on a small disk, nodes and workers, each a process on a machine of its own.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kapell_store::testing::OwnServer;

use crate::net::Net;

pub(crate) const NODES: usize = 3;
pub(crate) const WORKERS: usize = 4;

const PORT: u16 = 7420;

/// One key for all nodes.
const SECRETS_KEY: &str = "a2FwZWxsLWNoYW9zLWtlbGwta2FwZWxsLWNoYW9zISE=";

/// See the module.
pub(crate) struct Town {
    // Dropped in this order: who asks, who is asked, what they are asked over.
    workers: Vec<Option<Child>>,
    nodes: Vec<Option<Child>>,
    pub(crate) database: OwnServer,
    disk: Disk,
    pub(crate) net: Net,
    pub(crate) folder: PathBuf,
    pub(crate) token: String,
}

impl Town {
    /// Everything, started; the reason, where this machine cannot have it.
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        let net = Net::new(NODES + WORKERS)?;
        let disk = Disk::new(&folder.join("disk"), "1g")?;
        let address = net.database().to_string();
        let database = OwnServer::start(&disk.0.join("postgres"), (&address, 5432))?;
        let mut town = Self {
            workers: (0..WORKERS).map(|_| None).collect(),
            nodes: (0..NODES).map(|_| None).collect(),
            database,
            disk,
            net,
            folder: folder.to_owned(),
            token: String::new(),
        };
        let made = town
            .kapell(Command::new(env!("CARGO_BIN_EXE_kapell")), "first")
            .args(["token", "create", "ann", "--scope", "admin", "--store"])
            .arg(town.database.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        let made = made.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&made.stdout);
        let token = said
            .split_whitespace()
            .find(|word| word.starts_with("kapell_"));
        let why = || {
            format!(
                "no token was made: {}",
                String::from_utf8_lossy(&made.stderr)
            )
        };
        token.ok_or_else(why)?.clone_into(&mut town.token);
        for number in 0..NODES {
            town.start_node(number);
        }
        for number in 0..WORKERS {
            town.start_worker(number);
        }
        Ok(town)
    }

    /// The addresses of all nodes.
    pub(crate) fn urls(&self) -> String {
        let urls = (0..NODES).map(|number| url(self.net.machine(number)));
        urls.collect::<Vec<_>>().join(",")
    }

    fn kapell(&self, mut command: Command, name: &str) -> Command {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.log")));
        command
            .current_dir(&self.folder)
            .env_remove("KAPELL_SERVER")
            .env("KAPELL_TOKEN", &self.token)
            .env("KAPELL_SECRETS_KEY", SECRETS_KEY)
            .env("KAPELL_WORKER_LEASE", "3")
            .env("KAPELL_LOG", "info")
            .env("USER", "ann")
            .arg("--data-dir")
            .arg(self.folder.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
        command
    }

    fn on(&self, machine: usize, name: &str) -> Command {
        let command = self.net.command(machine, env!("CARGO_BIN_EXE_kapell"));
        self.kapell(command, name)
    }

    pub(crate) fn start_node(&mut self, number: usize) {
        let address = self.net.machine(number);
        let mut command = self.on(number, &format!("node-{number}"));
        let listen = format!("{address}:{PORT}");
        command.args(["server", "--insecure", "--slots", "2", "--listen", &listen]);
        command.args([
            "--advertise",
            &url(address),
            "--store",
            &self.database.url(),
        ]);
        self.nodes[number] = Some(command.spawn().expect("a node starts"));
    }

    pub(crate) fn start_worker(&mut self, number: usize) {
        let name = format!("worker-{number}");
        let mut command = self.on(NODES + number, &name);
        command.args(["worker", "--server", &self.urls(), "--queue", "far"]);
        command.args(["--name", &name, "--slots", "2"]);
        self.workers[number] = Some(command.spawn().expect("a worker starts"));
    }

    pub(crate) fn kill_node(&mut self, number: usize) {
        kill(&mut self.nodes[number]);
    }

    pub(crate) fn kill_worker(&mut self, number: usize) {
        kill(&mut self.workers[number]);
    }

    /// Says to a node what a signal says.
    pub(crate) fn tell_node(&self, number: usize, signal: &str) {
        if let Some(node) = &self.nodes[number] {
            let told = Command::new("kill")
                .args([signal, &node.id().to_string()])
                .status();
            assert!(
                told.expect("kill is there").success(),
                "{signal} to node {number}"
            );
        }
    }

    /// Waits until a node that was asked to end has ended.
    pub(crate) fn node_ends(&mut self, number: usize) {
        if let Some(mut node) = self.nodes[number].take() {
            let ended = node.wait().expect("a node ends");
            assert!(ended.success(), "a node that was asked to end: {ended}");
        }
    }

    /// Takes all the room that the database has, or gives it back.
    pub(crate) fn fill(&self, full: bool) {
        let ballast = self.disk.0.join("ballast");
        if !full {
            fs::remove_file(ballast).expect("the ballast goes");
            self.database.revive().expect("the database starts again");
            return;
        }
        let mut ballast = File::create(ballast).expect("the ballast is made");
        for bytes in [1 << 20, 4 << 10, 1] {
            while ballast.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    /// Deploys the workflows, as a person would.
    pub(crate) fn deploy(&self) {
        for _ in 0..100 {
            let mut command = self.kapell(Command::new(env!("CARGO_BIN_EXE_kapell")), "deploy");
            let ended = command
                .args(["deploy", "flows", "--server", &self.urls()])
                .status();
            if ended.expect("a deploy ends").success() {
                return;
            }
            crate::ledger::wait(200);
        }
        panic!("nothing was deployed");
    }

    /// The last lines of every process, for who looks for a reason.
    pub(crate) fn logs(&self) -> String {
        let names = (0..NODES).map(|number| format!("node-{number}"));
        let names = names.chain((0..WORKERS).map(|number| format!("worker-{number}")));
        let mut all = String::new();
        for name in names {
            let log =
                fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            all.push_str(&format!("--- {name}\n{}\n", last.join("\n")));
        }
        all
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let processes = self.workers.iter_mut().chain(&mut self.nodes);
        processes.for_each(kill);
    }
}

fn url(address: Ipv4Addr) -> String {
    format!("http://{address}:{PORT}")
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A small file system in memory, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path, size: &str) -> Result<Self, String> {
        fs::create_dir(path).map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "kapell-chaos"])
            .arg(path)
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !mount.status.success() {
            return Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned());
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
