//! `kapell workflow`, and files of workflows: `kapell deploy`, `kapell validate`, `kapell graph`

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use kapell_model::spec::StrategyMode;

use crate::workflow::DEFAULT;

/// `deploy`
#[derive(Args)]
pub(crate) struct Deploy {
    /// Workflow files, or folders with them and with folders of them
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub(crate) paths: Vec<PathBuf>,
    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Delete workflows that were deployed before and are not among these; their history stays
    #[arg(long)]
    pub(crate) prune: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `validate`
#[derive(Args)]
pub(crate) struct Validate {
    /// Workflow files
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print the problems as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `graph`
#[derive(Args)]
pub(crate) struct Graph {
    /// A workflow file, or a run
    #[arg(value_name = "FILE|RUN")]
    pub(crate) what: String,
    /// How to draw it
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) format: GraphFormat,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How to draw a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Boxes and lines of text
    Text,
    /// A picture
    Svg,
}

/// `workflow`
#[derive(Subcommand)]
pub(crate) enum Workflow {
    /// List workflows with their runs by status
    List(WorkflowList),
    /// Show a workflow as it is in force
    Show(WorkflowOne),
    /// List the versions of a workflow, newest first
    Versions(WorkflowVersions),
    /// Show what differs between two versions
    Diff(WorkflowDiff),
    /// Show who is active in a workflow's run queue and who waits
    Queue(WorkflowQueue),
    /// Make a version the active one, forward or back
    Activate(WorkflowActivate),
    /// Leave a workflow without an active version: it starts by no trigger and no name alone
    Deactivate(WorkflowOne),
    /// Start no more runs of a workflow until it is resumed: starts wait
    Pause(WorkflowSome),
    /// Let a paused workflow go on
    Resume(WorkflowSome),
    /// Override what a workflow says of its owner, its strategy and how long runs are kept
    Set(WorkflowSet),
    /// Delete a workflow; its history stays
    Delete(WorkflowOne),
}

/// `workflow list`
#[derive(Args)]
pub(crate) struct WorkflowList {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One workflow.
#[derive(Args)]
pub(crate) struct WorkflowOne {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow queue`
#[derive(Args)]
pub(crate) struct WorkflowQueue {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Only runs with this value of `strategy.key`
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// After this place: the next page
    #[arg(long, value_name = "PLACE")]
    pub(crate) after: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One workflow, or all.
#[derive(Args)]
pub(crate) struct WorkflowSome {
    /// The workflow's name
    #[arg(required_unless_present = "all")]
    pub(crate) workflow: Option<String>,
    /// All workflows
    #[arg(long, conflicts_with = "workflow")]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow versions`
#[derive(Args)]
pub(crate) struct WorkflowVersions {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Versions before this one: the next page
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u32>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow diff`
#[derive(Args)]
pub(crate) struct WorkflowDiff {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The one version [default: the active one, or the one before the other]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from: Option<u32>,
    /// The other version [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) to: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow activate`
#[derive(Args)]
pub(crate) struct WorkflowActivate {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The version
    pub(crate) version: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `--strategy` takes.
fn strategies() -> PossibleValuesParser {
    StrategyMode::NAMES.into_iter().chain([DEFAULT]).into()
}

/// `workflow set`
#[derive(Args)]
pub(crate) struct WorkflowSet {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Who to ask; `default` is what the definition says
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
    /// Which runs go at once; `default` is what the definition says
    #[arg(long, value_name = "MODE", value_parser = strategies())]
    pub(crate) strategy: Option<String>,
    /// Active runs of one key, with `--strategy parallel`
    #[arg(long, value_name = "NUMBER", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Active runs over all keys
    #[arg(long, value_name = "NUMBER", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) total: Option<u32>,
    /// How long ended runs are kept, as `30d`; `default` is what the definition says
    #[arg(long, value_name = "AGE")]
    pub(crate) keep: Option<String>,
    /// How many ended runs are kept; `default` is what the definition says
    #[arg(long, value_name = "NUMBER")]
    pub(crate) keep_runs: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
