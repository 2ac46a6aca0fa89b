//! `kapell signal`

use clap::{Args, Subcommand};

/// `signal`
#[derive(Subcommand)]
pub(crate) enum Signal {
    /// Send a signal: it starts runs, and runs that wait for it go on
    Send(SignalSend),
    /// List names of signals, with how many are kept and who listens
    List(SignalList),
    /// Show kept signals of a name, newest first, and who listens
    Show(SignalShow),
}

/// `signal send`
#[derive(Args)]
pub(crate) struct SignalSend {
    /// The signal's name
    pub(crate) name: String,
    /// What it says, as JSON
    #[arg(short, long, value_name = "JSON")]
    pub(crate) payload: Option<String>,
    /// What it is joined by with others; text that is JSON is read as such
    #[arg(short, long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// The same id again sends nothing
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `signal list`
#[derive(Args)]
pub(crate) struct SignalList {
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

/// `signal show`
#[derive(Args)]
pub(crate) struct SignalShow {
    /// The signals' name
    pub(crate) name: String,
    /// Signals before this number: the next page
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
