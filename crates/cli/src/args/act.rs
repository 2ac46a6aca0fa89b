//! Steering runs: `kapell cancel`, `pause`, `resume`, `retry` and the like

use clap::Args;

use super::{Params, Work};

/// `cancel`
#[derive(Args)]
pub(crate) struct Cancel {
    /// The run
    pub(crate) run: String,
    /// Without `finally`
    #[arg(long)]
    pub(crate) now: bool,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A command on one run.
#[derive(Args)]
pub(crate) struct One {
    /// The run
    pub(crate) run: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `dismiss`
#[derive(Args)]
pub(crate) struct Dismiss {
    /// The run
    #[arg(required_unless_present = "workflow", conflicts_with = "workflow")]
    pub(crate) run: Option<String>,
    /// Whatever run blocks the queue of this workflow, also one that is not kept any more
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// With it: of this value of `strategy.key`
    #[arg(
        long,
        requires = "workflow",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) key: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `resume`
#[derive(Args)]
pub(crate) struct Resume {
    /// The run [default: everything that is unfinished; of a server, it must be named]
    pub(crate) run: Option<String>,
    /// All paused runs of a server, whoever paused them
    #[arg(long, conflicts_with = "run")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `retry`
#[derive(Args)]
pub(crate) struct Follow {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `restart`
#[derive(Args)]
pub(crate) struct Restart {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// The first step that is done again
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `skip`
#[derive(Args)]
pub(crate) struct Skip {
    /// The run
    pub(crate) run: String,
    /// The step or item: `load`, `load[3]`
    pub(crate) step: String,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM")]
    pub(crate) item: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `set-output`
#[derive(Args)]
pub(crate) struct SetOutput {
    /// The run
    pub(crate) run: String,
    /// The step or item: `load`, `load[3]`
    pub(crate) step: String,
    /// The output, as JSON
    pub(crate) output: String,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM")]
    pub(crate) item: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `fork`
#[derive(Args)]
pub(crate) struct Fork {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// The first step that is done again
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) params: Params,
    /// Version of the workflow [default: the other run's]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u32>,
    /// The same key makes the same run: a second fork follows the first
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `priority`
#[derive(Args)]
pub(crate) struct Priority {
    /// The run
    pub(crate) run: String,
    /// From 0 (whenever) to 100 (first)
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: u8,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
