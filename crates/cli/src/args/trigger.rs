//! `kapell trigger`

use clap::{Args, Subcommand};

/// `trigger`
#[derive(Subcommand)]
pub(crate) enum Trigger {
    /// List triggers of active versions, with when they start something next
    List(TriggerList),
    /// Show a trigger: what it waits for and what it has done
    Show(TriggerOne),
    /// Start nothing by a trigger until it is resumed
    Pause(TriggerOne),
    /// Let a paused trigger go on from now: what was due meanwhile is for a backfill
    Resume(TriggerOne),
    /// Give a webhook another address: the one before is none any more
    Rotate(TriggerOne),
}

/// `trigger list`
#[derive(Args)]
pub(crate) struct TriggerList {
    /// Triggers of this workflow
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Triggers after this one: the next page
    #[arg(long, value_name = "WORKFLOW/TRIGGER")]
    pub(crate) after: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One trigger.
#[derive(Args)]
pub(crate) struct TriggerOne {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The trigger's name [default: the only one that the workflow has]
    pub(crate) trigger: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
