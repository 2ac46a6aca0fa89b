//! `kapell store`

use clap::{Args, Subcommand};

/// `store`
#[derive(Subcommand)]
pub(crate) enum Store {
    /// Show where the store is, how big it is and whether its schema is up to date
    Status(StoreShow),
    /// Make the store, or bring its schema up to date; whatever opens it does that too
    Migrate(StoreShow),
    /// Move the store of the data directory to a PostgreSQL database, compared before it counts
    Move(StoreMove),
}

/// `store status`, `store migrate`
#[derive(Args)]
pub(crate) struct StoreShow {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `store move`
#[derive(Args)]
pub(crate) struct StoreMove {
    /// Where to: postgres://USER@HOST/DATABASE?schema=NAME, a schema in which nothing is yet
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
