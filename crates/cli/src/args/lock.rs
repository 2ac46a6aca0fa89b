//! `kapell lock`

use clap::{Args, Subcommand};

/// `lock`
#[derive(Subcommand)]
pub(crate) enum Lock {
    /// List locks that are held or waited for, and rates that were used
    List(LockList),
    /// Show who holds a lock and who waits, in order
    Show(LockOne),
}

/// `lock list`
#[derive(Args)]
pub(crate) struct LockList {
    /// Names after this one: the next page
    #[arg(long, value_name = "NAME")]
    pub(crate) after: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `lock show`
#[derive(Args)]
pub(crate) struct LockOne {
    /// The lock's name
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
