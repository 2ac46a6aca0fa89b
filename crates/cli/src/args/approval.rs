//! `kapell approve`, `kapell reject`, `kapell approvals`

use clap::Args;

use super::Params;

/// `approve`
#[derive(Args)]
pub(crate) struct Approve {
    /// The run
    pub(crate) run: String,
    /// The step or item [default: the only one that asks]
    pub(crate) step: Option<String>,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// What you say with it
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
    #[command(flatten)]
    pub(crate) input: Params,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `reject`
#[derive(Args)]
pub(crate) struct Reject {
    /// The run
    pub(crate) run: String,
    /// The step or item [default: the only one that asks]
    pub(crate) step: Option<String>,
    /// One item of its foreach: the index, or the label
    #[arg(long, value_name = "ITEM", requires = "step")]
    pub(crate) item: Option<String>,
    /// Why, for whoever looks later
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `approvals`
#[derive(Args)]
pub(crate) struct Approvals {
    /// Those that others are asked too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Those of runs after this one: the next page
    #[arg(long, value_name = "RUN")]
    pub(crate) after: Option<String>,
    /// At most so many, but always all of one run
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
