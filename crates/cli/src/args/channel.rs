//! `kapell channel`

use clap::{Args, Subcommand};

/// `channel`
#[derive(Subcommand)]
pub(crate) enum Channel {
    /// List channels in which notices wait or were given up
    List(ChannelList),
    /// Show the notices that wait, with their last error and next try, and those that were given up
    Show(ChannelOne),
    /// Post a notice that is no run's now, to see whether it arrives
    Test(ChannelOne),
    /// Send notices now that wait or were given up
    Again(ChannelNotices),
    /// Forget notices that were given up
    Forget(ChannelNotices),
}

/// `channel list`
#[derive(Args)]
pub(crate) struct ChannelList {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `channel show`, `channel test`
#[derive(Args)]
pub(crate) struct ChannelOne {
    /// The channel's name in the configuration, or an address
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `channel again`, `channel forget`
#[derive(Args)]
pub(crate) struct ChannelNotices {
    /// The channel's name in the configuration, or an address
    pub(crate) name: String,
    /// Numbers of notices, as `channel show` has them; none is all of them
    pub(crate) numbers: Vec<u64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
