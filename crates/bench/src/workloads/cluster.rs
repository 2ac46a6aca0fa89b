//! Several nodes, `kapell server` processes, over one PostgreSQL that syncs as one in use does.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kapell_api::client::{Client, HttpServer, NodeCalls, RunCalls, Target};
use kapell_api::http::StartRun;
use kapell_expr::Value;
use kapell_store::testing::TestSchema;

use super::api::{deploy, start_of, succeeded};
use super::{Figures, figures, per_second};
use crate::kapell::{Kapell, binary};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long others wait for a node: what is given to a server where nothing else is said.
const LEASE: Duration = Duration::from_secs(5);

/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(30);

/// Shards that somebody must own.
const SHARDS: usize = 4_096;

/// Workflows whose steps are done at the same time, so that each node owns some.
const WORKFLOWS: usize = 16;

/// One key for all nodes, which lasts as long as this.
const SECRETS_KEY: &str = "a2FwZWxsLWJlbmNobWFyay1rYXBlbGwtYmVuY2hrZXk=";

/// Nodes over a database of their own.
struct Cluster {
    nodes: Vec<(Kapell, String)>,
    schema: TestSchema,
}

impl Cluster {
    /// So many nodes, all of which own their part.
    fn start(dir: &Path, nodes: usize) -> Result<Self> {
        let schema = TestSchema::durable().context("there is no PostgreSQL")?;
        let mut cluster = Self {
            nodes: Vec::new(),
            schema,
        };
        for number in 0..nodes {
            let node = cluster.node(&dir.join(format!("node-{number}")))?;
            cluster.nodes.push(node);
        }
        cluster.settled()?;
        Ok(cluster)
    }

    fn node(&self, dir: &Path) -> Result<(Kapell, String)> {
        std::fs::create_dir_all(dir)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let url = format!("http://{address}");
        let child = Command::new(binary()?)
            .args(["server", "--listen", &address, "--advertise", &url])
            .args(["--store", &self.schema.text()])
            .current_dir(dir)
            .env("KAPELL_SECRETS_KEY", SECRETS_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((Kapell::of(child), url))
    }

    /// A client of the last node.
    fn client(&self) -> Result<Client> {
        let (_, url) = self.nodes.last().context("there is no node")?;
        let since = Instant::now();
        loop {
            let server = HttpServer::new(url, None, None)?;
            match Client::to(Target::Http(Box::new(server))) {
                Ok(client) => return Ok(client),
                Err(error) if since.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until these nodes, and no others, own all shards.
    fn settled(&self) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            // While one is away a request may fail.
            if let Ok(list) = self.client().and_then(|client| Ok(client.nodes()?)) {
                let owned: usize = list.nodes.iter().map(|node| node.shards).sum();
                let all = list.nodes.iter().all(|node| node.shards > 0);
                if list.nodes.len() == self.nodes.len() && owned == SHARDS && all {
                    return Ok(());
                }
            }
            std::thread::sleep(PAUSE);
        }
        anyhow::bail!("the nodes do not own all shards")
    }

    /// Seconds of CPU that all nodes have used.
    fn cpu(&self) -> Result<f64> {
        self.nodes.iter().map(|(node, _)| node.cpu()).sum()
    }

    /// Transactions that the database has done, which are statements where each has one of its own.
    fn statements(&self) -> Result<f64> {
        // What connections have counted is seen a second later.
        let sql = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database";
        let found = self.schema.run(sql)?;
        let number = found.first().context("the database counts nothing")?;
        Ok(number.parse()?)
    }
}

/// Microseconds of CPU of all nodes a step, which are seconds a million steps, where `nodes` of them share the
/// steps of several workflows; and how many steps a second.
pub(crate) fn cost(dir: &Path, nodes: usize, n: usize) -> Result<Figures> {
    let cluster = Cluster::start(dir, nodes)?;
    let client = cluster.client()?;
    let text = |number| {
        format!(
            "workflow: fanout-{number}\nparams:\n  n: {{ type: int }}\nsteps:\n  work:\n    foreach: {{ i: \"${{{{ range(params.n) }}}}\" }}\n    noop: {{}}\n"
        )
    };
    deploy(&client, (0..WORKFLOWS).map(text))?;
    let items = i64::try_from(n / WORKFLOWS)?;
    let (before, since) = (cluster.cpu()?, Instant::now());
    for number in 0..WORKFLOWS {
        client.start(&StartRun {
            params: Value::map([("n", Value::Int(items))]),
            ..start_of(&format!("fanout-{number}"))
        })?;
    }
    for number in 0..WORKFLOWS {
        succeeded(&client, &format!("fanout-{number}"), 1)?;
    }
    let rate = per_second(n, since);
    let micros = (cluster.cpu()? - before) * 1e6 / n as f64;
    Ok(figures(micros).with("rate", rate))
}

/// Percent of one core that three nodes use which have nothing to do, all together, and statements a second.
pub(crate) fn idle(dir: &Path, nodes: usize) -> Result<Figures> {
    let cluster = Cluster::start(dir, nodes)?;
    std::thread::sleep(Duration::from_secs(5));
    let (cpu, statements, since) = (cluster.cpu()?, cluster.statements()?, Instant::now());
    std::thread::sleep(IDLE);
    let seconds = since.elapsed().as_secs_f64();
    let used = (cluster.cpu()? - cpu) / seconds * 100.0;
    let statements = (cluster.statements()? - statements) / seconds;
    Ok(figures(used).with("statements", statements))
}

/// Seconds beyond the lease until all shards of a node that was killed have another owner.
pub(crate) fn takeover(dir: &Path, nodes: usize) -> Result<Figures> {
    ensure!(nodes > 1, "nobody would take over");
    let mut cluster = Cluster::start(dir, nodes)?;
    let killed = cluster.nodes.remove(0);
    drop(killed);
    let since = Instant::now();
    cluster.settled()?;
    let took = since.elapsed().as_secs_f64();
    Ok(figures(took - LEASE.as_secs_f64()).with("seconds", took))
}
