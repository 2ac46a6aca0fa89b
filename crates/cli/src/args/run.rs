//! `kapell run`, `kapell start`, and what parameters and work they take

use std::path::PathBuf;

use clap::Args;

/// `run`
#[derive(Args)]
pub(crate) struct Run {
    /// The workflow file, YAML or JSON
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) params: Params,
    /// The same key makes the same run: a second start follows the first
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// From 0 (whenever) to 100 (first) [default: the workflow's]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: Option<u8>,
    /// What `run.scheduled_at` is: `3d` ago, or a time like 2030-01-31T10:00:00Z [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// Parameters of a run.
#[derive(Args)]
pub(crate) struct Params {
    /// A parameter; text is read by its declared type
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) param: Vec<String>,
    /// A YAML or JSON file of parameters; what `-p` says goes before it
    #[arg(long, value_name = "FILE")]
    pub(crate) params_file: Option<PathBuf>,
}

/// Flags of commands that follow runs to their end.
#[derive(Args)]
pub(crate) struct Work {
    /// Record it only: the next `run` or `resume` does the work
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
    /// Attempts at a time in this process [env: KAPELL_SLOTS] [default: by the machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) slots: Option<u16>,
}

/// `start`
#[derive(Args)]
pub(crate) struct Start {
    /// The workflow's name
    pub(crate) workflow: String,
    #[command(flatten)]
    pub(crate) params: Params,
    /// Version of the workflow [default: the active one]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u32>,
    /// The same key makes the same run
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// From 0 (whenever) to 100 (first) [default: the workflow's]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: Option<u8>,
    /// What `run.scheduled_at` is: `3d` ago, or a time like 2030-01-31T10:00:00Z [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) at: Option<String>,
    /// Follow the run to its end
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}
