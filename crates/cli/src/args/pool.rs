//! `kapell pool`

use clap::Args;

/// `pool`
#[derive(Args)]
pub(crate) struct Pool {
    /// Pools of the configuration, each a section `[pools.NAME]` [default: all of them]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Print JSON: an object for each change
    #[arg(long)]
    pub(crate) json: bool,
}
