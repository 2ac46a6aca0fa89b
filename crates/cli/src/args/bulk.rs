//! `kapell bulk`, and the flags that say which runs are meant.
#![expect(clippy::doc_markdown, reason = "comments are what `--help` prints")]

use clap::{Args, ValueEnum};

/// Which runs. All conditions hold at once.
#[derive(Args, Default)]
pub(crate) struct Which {
    /// Runs of this workflow
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Runs in one of these statuses: queued, running, paused, cancelling, succeeded, failed,
    /// timed_out, cancelled, discarded
    #[arg(short, long, value_name = "STATUS", value_delimiter = ',')]
    pub(crate) status: Vec<String>,
    /// Runs made since: `2h`, `3d`, or a time like 2030-01-31T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Runs made before: as `--since`
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<String>,
    /// Runs with this label; several must all be there
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Runs made by this trigger, or by triggers of this kind: manual, workflow, fork, schedule,
    /// signal, webhook, backfill
    #[arg(long, value_name = "NAME")]
    pub(crate) trigger: Option<String>,
    /// Runs made by the backfill with this id
    #[arg(long, value_name = "ID")]
    pub(crate) backfill: Option<String>,
    /// Runs with this text in their error
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Runs that this run made
    #[arg(long, value_name = "RUN")]
    pub(crate) parent: Option<String>,
    /// Runs of this namespace [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// What is done to each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BulkVerb {
    /// Do again what did not succeed
    Retry,
    /// End it: what runs is stopped, `finally` still runs
    Cancel,
    /// Start nothing more in it until it is resumed
    Pause,
    /// Continue it after a pause
    Resume,
}

/// `bulk`
#[derive(Args)]
pub(crate) struct Bulk {
    /// What to do
    pub(crate) action: BulkVerb,
    #[command(flatten)]
    pub(crate) which: Which,
    /// All runs to which it can be done, where nothing else says which
    #[arg(long)]
    pub(crate) all: bool,
    /// Why, for `cancel`
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// Only say which runs are meant
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Bulk {
    /// To all runs to which it can be done.
    pub(crate) fn all(action: BulkVerb, json: bool) -> Self {
        Self {
            action,
            which: Which::default(),
            all: true,
            reason: String::new(),
            dry_run: false,
            json,
        }
    }
}
