//! `kapell debug`, `kapell breakpoint`, `kapell replay`

use clap::{ArgGroup, Args, Subcommand};

/// `debug`
#[derive(Args)]
pub(crate) struct Debug {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
}

/// `replay`
#[derive(Args)]
pub(crate) struct Replay {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// Print the run as it was at each moment as JSON, a line each
    #[arg(long)]
    pub(crate) json: bool,
}

/// `breakpoint`
#[derive(Subcommand)]
pub(crate) enum Breakpoint {
    /// Stop at a step, or at every step
    Add(BreakpointAdd),
    /// List breakpoints that were set beside those of the definition
    List(BreakpointList),
    /// Stop at a step no more
    Remove(BreakpointRemove),
}

/// Whose breakpoints are meant.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["run", "workflow"]))]
pub(crate) struct Whose {
    /// Of a run
    #[arg(short, long)]
    pub(crate) run: Option<String>,
    /// Of all new runs of a workflow
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Of new runs of this version alone
    #[arg(long, value_name = "NUMBER", requires = "workflow")]
    pub(crate) version: Option<u32>,
}

/// `breakpoint add`
#[derive(Args)]
#[command(group = ArgGroup::new("where").args(["before", "after", "on_failure"]))]
pub(crate) struct BreakpointAdd {
    /// The step: its id or its path [default: every step]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Stop before it starts: this is what is done where nothing is said
    #[arg(long)]
    pub(crate) before: bool,
    /// Stop before it ends, with its output there
    #[arg(long)]
    pub(crate) after: bool,
    /// Stop after its last try failed, before that counts
    #[arg(long)]
    pub(crate) on_failure: bool,
    /// Only where this expression holds, over what the step sees
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) when: Option<String>,
}

/// `breakpoint list`
#[derive(Args)]
pub(crate) struct BreakpointList {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `breakpoint remove`
#[derive(Args)]
pub(crate) struct BreakpointRemove {
    /// The step, as it was given
    #[arg(required_unless_present = "all")]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// All of them
    #[arg(long, conflicts_with = "step")]
    pub(crate) all: bool,
}
