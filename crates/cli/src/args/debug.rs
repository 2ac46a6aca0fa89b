//! `kapell debug`, `kapell breakpoint`, `kapell continue`, `kapell set-param`, `kapell replay`

use clap::{ArgGroup, Args, Subcommand};
use kapell_api::http::BreakAt;

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

/// `continue`
#[derive(Args)]
pub(crate) struct Continue {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// The step [default: every one that stopped]
    pub(crate) step: Option<String>,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// Stop at the step that comes next
    #[arg(long)]
    pub(crate) next: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `set-param`
#[derive(Args)]
pub(crate) struct SetParam {
    /// The run
    pub(crate) run: String,
    /// The parameter and its value, read by its type
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) param: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose breakpoints are meant.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["run", "workflow", "all_workflows"]))]
pub(crate) struct Whose {
    /// Of a run
    #[arg(short, long)]
    pub(crate) run: Option<String>,
    /// Of all new runs of a workflow
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Of all new runs of every workflow, those that come later too
    #[arg(long)]
    pub(crate) all_workflows: bool,
    /// Of new runs of this version alone
    #[arg(long, value_name = "NUMBER", requires = "workflow", conflicts_with_all = ["run", "all_workflows"])]
    pub(crate) version: Option<u32>,
}

/// Where steps stop.
#[derive(Args)]
#[command(group = ArgGroup::new("where").args(["before", "after", "on_failure"]))]
pub(crate) struct Stops {
    /// Before it starts
    #[arg(long)]
    pub(crate) before: bool,
    /// Before it ends, with its output there
    #[arg(long)]
    pub(crate) after: bool,
    /// After its last try failed, before that counts
    #[arg(long)]
    pub(crate) on_failure: bool,
}

impl Stops {
    /// Where, if it is said.
    pub(crate) fn at(&self) -> Option<BreakAt> {
        if self.on_failure {
            Some(BreakAt::OnFailure)
        } else if self.after {
            Some(BreakAt::After)
        } else {
            self.before.then_some(BreakAt::Before)
        }
    }
}

/// `breakpoint add`
#[derive(Args)]
pub(crate) struct BreakpointAdd {
    /// The step: its id or its path [default: every step]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) stops: Stops,
    /// Only where this expression holds, over what the step sees
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) when: Option<String>,
    /// Of the runs that are active now too
    #[arg(long, conflicts_with = "run")]
    pub(crate) active: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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
    /// The step, as it was given; `*` is what stops at every step
    #[arg(required_unless_present = "all")]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// All of them; a run that is stepped through is so no more
    #[arg(long, conflicts_with = "step")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) stops: Stops,
    /// Of the runs that are active now too
    #[arg(long, conflicts_with = "run")]
    pub(crate) active: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
