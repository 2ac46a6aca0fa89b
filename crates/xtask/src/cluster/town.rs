//! The processes of the cluster.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kapell_store::testing::OwnServer;
use serde_json::Value;
use tempfile::TempDir;

use super::{PAUSE, SHARDS};

pub(super) const NODES: usize = 3;
const WORKERS: usize = 2;

/// One key for all nodes, which lasts as long as this.
const SECRETS_KEY: &str = "a2FwZWxsLWNsdXN0ZXIta2FwZWxsLWNsdXN0ZXItISE=";

/// A node, as it says of itself.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) shards: u64,
}

/// See the module. All of it ends when this is dropped.
pub(super) struct Town {
    // Dropped in this order.
    workers: Vec<Option<Child>>,
    nodes: Vec<Option<Child>>,
    /// None if somebody's database is used.
    _database: Option<OwnServer>,
    folder: TempDir,
    binary: PathBuf,
    ports: Vec<u16>,
    pub(super) store: String,
}

impl Town {
    /// Everything, started.
    pub(super) fn new(binary: &Path, store: Option<String>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let database = if store.is_none() {
            // It runs as somebody else where this is root.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
            let place = folder.path().join("postgres");
            let server = OwnServer::start(&place, ("127.0.0.1", port()?));
            Some(server.map_err(|why| anyhow::anyhow!("no PostgreSQL: {why}"))?)
        } else {
            None
        };
        let own = database.as_ref().map(OwnServer::url);
        let mut town = Self {
            workers: Vec::new(),
            nodes: Vec::new(),
            store: store.or(own).context("no database")?,
            _database: database,
            folder,
            binary: binary.to_owned(),
            ports: (0..NODES).map(|_| port()).collect::<Result<_>>()?,
        };
        town.nodes.resize_with(NODES, || None);
        town.workers.resize_with(WORKERS, || None);
        for number in 0..NODES {
            town.start_node(number)?;
        }
        for number in 0..WORKERS {
            town.start_worker(number)?;
        }
        Ok(town)
    }

    fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[number])
    }

    fn urls(&self) -> String {
        let urls: Vec<String> = (0..NODES).map(|number| self.url(number)).collect();
        urls.join(",")
    }

    fn command(&self, name: &str) -> Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{name}.log")))?;
        let mut command = Command::new(&self.binary);
        command
            .current_dir(self.folder.path())
            .arg("--data-dir")
            .arg(self.folder.path().join(name))
            .env_remove("KAPELL_SERVER")
            .env("KAPELL_SECRETS_KEY", SECRETS_KEY)
            .env("KAPELL_WORKER_LEASE", "5")
            .env("KAPELL_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }

    pub(super) fn start_node(&mut self, number: usize) -> Result<()> {
        let url = self.url(number);
        let listen = format!("127.0.0.1:{}", self.ports[number]);
        let mut command = self.command(&format!("node-{number}"))?;
        command.args([
            "server",
            "--listen",
            &listen,
            "--advertise",
            &url,
            "--store",
            &self.store,
        ]);
        self.nodes[number] = Some(command.spawn()?);
        Ok(())
    }

    pub(super) fn start_worker(&mut self, number: usize) -> Result<()> {
        let name = format!("worker-{number}");
        let mut command = self.command(&name)?;
        command.args([
            "worker",
            "--server",
            &self.urls(),
            "--queue",
            "default",
            "--name",
            &name,
        ]);
        self.workers[number] = Some(command.spawn()?);
        Ok(())
    }

    pub(super) fn kill_worker(&mut self, number: usize) {
        kill(&mut self.workers[number]);
    }

    /// Kills a node; how it was listed.
    pub(super) fn kill_node(&mut self, number: usize) -> Result<String> {
        let url = self.url(number);
        let nodes = self.nodes()?;
        let listed = nodes.into_iter().find(|node| node.address == url);
        kill(&mut self.nodes[number]);
        Ok(listed.with_context(|| format!("no node at {url}"))?.id)
    }

    /// A command of a person; what it prints.
    pub(super) fn kapell(&self, words: &[&str]) -> Result<String> {
        let ended = self
            .command("person")?
            .args(words)
            .args(["--server", &self.urls()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.success(),
            "kapell {}: {}",
            words.join(" "),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kapell(words)?)?)
    }

    pub(super) fn nodes(&self) -> Result<Vec<Listed>> {
        let all = self.json(&["nodes", "--json"])?;
        let all = all["nodes"].as_array().or(all.as_array()).cloned();
        let nodes = all
            .context("a list of nodes")?
            .into_iter()
            .map(|node| Listed {
                id: node["id"].as_str().unwrap_or_default().to_owned(),
                address: node["address"].as_str().unwrap_or_default().to_owned(),
                shards: node["shards"].as_u64().unwrap_or(0),
            });
        Ok(nodes.collect())
    }

    /// Waits until the nodes that run own all shards, and no others are listed.
    pub(super) fn settled(&self, patience: Duration) -> Result<()> {
        let running = self.nodes.iter().flatten().count();
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Ok(nodes) = self.nodes()
                && nodes.len() == running
                && nodes.iter().all(|node| node.shards > 0)
                && nodes.iter().map(|node| node.shards).sum::<u64>() == SHARDS
            {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        bail!("the nodes did not come to own everything; their logs are lost with this folder")
    }

    /// A worker that runs a step of the run, and which.
    pub(super) fn busy(&self, run: &str) -> Result<Option<(usize, String)>> {
        let all = self.json(&["workers", "--json"])?;
        let all = all["workers"].as_array().or(all.as_array()).cloned();
        for worker in all.unwrap_or_default() {
            let name = worker["name"].as_str().unwrap_or_default();
            let number = name
                .strip_prefix("worker-")
                .and_then(|number| number.parse().ok());
            let attempts = worker["attempts"].as_array().into_iter().flatten();
            let step = attempts
                .filter(|one| one["run"] == run)
                .find_map(|one| one["step"].as_str());
            if let (Some(number), Some(step)) = (number, step) {
                return Ok(Some((number, step.to_owned())));
            }
        }
        Ok(None)
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        self.workers
            .iter_mut()
            .chain(&mut self.nodes)
            .for_each(kill);
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
