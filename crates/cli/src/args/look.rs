//! Looking at runs: `kapell list`, `show`, `logs`, `artifact`, `timeline`, `why`

use std::path::PathBuf;

use clap::Args;

use super::Which;

/// `list`
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Runs after this place in the list: what the page before said, or a run
    #[arg(long, value_name = "PLACE")]
    pub(crate) before: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// List workflows instead, with their runs by status
    #[arg(long, conflicts_with_all = ["workflow", "status", "since", "until", "label", "trigger", "error", "parent", "namespace", "before"])]
    pub(crate) workflows: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `show`
#[derive(Args)]
pub(crate) struct Show {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// One step, with everything inside it
    pub(crate) step: Option<String>,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// As it was then: a time, or `10s` after the run was made
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `artifact`
#[derive(Args)]
pub(crate) struct Artifact {
    /// The run
    pub(crate) run: String,
    /// The step that gave it; an item is written `tune[3]`
    pub(crate) step: String,
    /// Its name under `artifacts: { out: … }`
    pub(crate) name: String,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM")]
    pub(crate) item: Option<String>,
    /// Where it goes [default: standard output, unless that is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `logs`
#[derive(Args)]
pub(crate) struct Logs {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// A step: its items, iterations and inner steps too
    pub(crate) step: Option<String>,
    /// Go on until the run has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// One attempt, from 1
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES", conflicts_with = "follow")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tail: Option<u32>,
    /// Show when each line was printed
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print JSON, a line each
    #[arg(long)]
    pub(crate) json: bool,
}

/// `timeline`
#[derive(Args)]
pub(crate) struct Timeline {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// Show items of a foreach too, at most so many each
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) items: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `why`
#[derive(Args)]
pub(crate) struct Why {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// One step
    pub(crate) step: Option<String>,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
