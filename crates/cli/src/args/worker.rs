//! `kapell worker`, `kapell workers`, `kapell queues`, `kapell nodes`

use std::time::Duration;

use clap::Args;

/// `worker`
#[derive(Args)]
pub(crate) struct Worker {
    /// Queues whose work is done in this process [env: KAPELL_WORKER_QUEUES] [default: every queue that no
    /// worker names]
    #[arg(long, alias = "queue", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) queues: Vec<String>,
    /// What to say of this worker: steps may ask for it by `resources.labels` [env: KAPELL_WORKER_LABELS]
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// What this worker has to give besides cores, memory and GPUs: steps ask for it by `resources.custom`
    /// [env: KAPELL_WORKER_RESOURCES]
    #[arg(long, value_name = "NAME=AMOUNT")]
    pub(crate) resource: Vec<String>,
    /// The pool that it is one of [env: KAPELL_WORKER_POOL]
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// It may be taken away at any time: it gets only steps with `resources.spot`
    #[arg(long)]
    pub(crate) spot: bool,
    /// What to call this worker [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Attempts at a time in this process [env: KAPELL_SLOTS] [default: by the machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) slots: Option<u16>,
    /// How long running attempts get to end once it is asked to end, as 90s or 2m; the rest is done elsewhere
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::grace)]
    pub(crate) grace: Duration,
}

/// `workers`
#[derive(Args)]
pub(crate) struct Workers {
    /// Only those that serve this queue
    #[arg(long, value_name = "NAME", conflicts_with_all = ["drain", "drain_pool"])]
    pub(crate) queue: Option<String>,
    /// Only those of this pool
    #[arg(long, value_name = "NAME", conflicts_with_all = ["drain", "drain_pool"])]
    pub(crate) pool: Option<String>,
    /// Only those at this node: its id, or the beginning of it
    #[arg(long, value_name = "NODE", conflicts_with_all = ["drain", "drain_pool"])]
    pub(crate) node: Option<String>,
    /// Only those that run nothing
    #[arg(long, conflicts_with_all = ["drain", "drain_pool"])]
    pub(crate) idle: bool,
    /// Let workers of this name, or of this session, take nothing more and go
    #[arg(long, value_name = "WORKER")]
    pub(crate) drain: Option<String>,
    /// Let all workers of this pool take nothing more and go
    #[arg(long, value_name = "POOL", conflicts_with = "drain")]
    pub(crate) drain_pool: Option<String>,
    /// How long what they run may take to end, as 90s or 2m; the rest is done elsewhere
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::grace)]
    pub(crate) grace: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `queues`
#[derive(Args)]
pub(crate) struct Queues {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `nodes`
#[derive(Args)]
pub(crate) struct Nodes {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
