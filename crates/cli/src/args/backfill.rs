//! `kapell backfill`

use clap::{Args, Subcommand, ValueEnum};

/// `backfill`
#[derive(Subcommand)]
pub(crate) enum Backfill {
    /// Make a run for each due time of a schedule in a range
    Start(BackfillStart),
    /// List backfills with how far they are
    List(BackfillList),
    /// Show how far a backfill is
    Show(BackfillOne),
    /// Start nothing more of a backfill until it is resumed
    Pause(BackfillOne),
    /// Let a backfill go on; one that a failed run blocks goes on without it
    Resume(BackfillOne),
    /// End a backfill: its runs are cancelled
    Cancel(BackfillOne),
}

/// `backfill start`
#[derive(Args)]
pub(crate) struct BackfillStart {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The schedule [default: the only one that the workflow has]
    #[arg(long, value_name = "TRIGGER")]
    pub(crate) trigger: Option<String>,
    /// The first instant: 2030-01-31, 2030-01-31T10:00:00Z, or `7d` before now
    #[arg(long, value_name = "WHEN")]
    pub(crate) from: String,
    /// The first instant that does not belong to it any more [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) to: Option<String>,
    /// Which due times
    #[arg(long, value_name = "WHICH", default_value = "missing")]
    pub(crate) only: Only,
    /// Which goes first
    #[arg(long, value_name = "ORDER", default_value = "oldest")]
    pub(crate) order: Order,
    /// Runs at a time
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: u32,
    /// The same id is the same backfill: a second start shows the first
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Follow it to its end
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which due times a backfill makes up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// Those without a run that succeeded or is under way
    Missing,
    /// Those with a run that failed, and none that succeeded
    Failed,
    /// All
    All,
}

/// Which due time of a backfill goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The oldest
    #[value(alias = "oldest_first")]
    Oldest,
    /// The newest
    #[value(alias = "newest_first")]
    Newest,
}

/// `backfill list`
#[derive(Args)]
pub(crate) struct BackfillList {
    /// Backfills of this workflow
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Backfills after this one: the next page
    #[arg(long, value_name = "WORKFLOW/ID")]
    pub(crate) after: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One backfill.
#[derive(Args)]
pub(crate) struct BackfillOne {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The backfill's id
    pub(crate) id: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
