//! Commands and flags. The help text is written here.
#![expect(clippy::doc_markdown, reason = "comments are what `--help` prints")]

mod act;
mod admin;
mod approval;
mod backfill;
mod bulk;
mod channel;
mod debug;
mod lock;
mod look;
mod pool;
mod run;
mod server;
mod signal;
mod store;
mod trigger;
mod worker;
mod workflow;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use act::{
    Cancel, Dismiss, Follow, Fork, One, Priority, Restart, Resume, SetOutput, Skip,
};
pub(crate) use admin::{
    Backup, Completions, Doctor, Explain, Health, Restore, Secret, Shell, ShowConfig,
};
pub(crate) use approval::{Approvals, Approve, Reject};
pub(crate) use backfill::{Backfill, BackfillList, BackfillOne, BackfillStart, Only, Order};
pub(crate) use bulk::{Bulk, BulkVerb, Which};
pub(crate) use channel::{Channel, ChannelList, ChannelNotices, ChannelOne};
pub(crate) use debug::{
    Breakpoint, BreakpointAdd, BreakpointList, BreakpointRemove, Continue, Debug, Replay, SetParam,
    Whose,
};
pub(crate) use lock::{Lock, LockList, LockOne};
pub(crate) use look::{Artifact, List, Logs, Show, Timeline, Why};
pub(crate) use pool::Pool;
pub(crate) use run::{Params, Run, Start, Work};
pub(crate) use server::{Audit, Server, Token, TokenCreate, TokenList, TokenRevoke};
pub(crate) use signal::{Signal, SignalList, SignalSend, SignalShow};
pub(crate) use store::{Store, StoreMove, StoreShow};
pub(crate) use trigger::{Trigger, TriggerList, TriggerOne};
pub(crate) use worker::{Nodes, Queues, Worker, Workers};
pub(crate) use workflow::{
    Deploy, Graph, GraphFormat, Validate, Workflow, WorkflowDiff, WorkflowList, WorkflowOne,
    WorkflowQueue, WorkflowSet, WorkflowSome, WorkflowVersions,
};

/// Run workflows: durably, on this machine.
///
/// A workflow is a YAML file of steps. `kapell run` runs one to its end; what happens is recorded in
/// the data directory, so that a run survives a crash and can be understood, retried and continued.
#[derive(Parser)]
#[command(
    name = "kapell",
    version,
    propagate_version = false,
    max_term_width = 100
)]
#[command(
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands"
)]
#[command(after_help = "RUN is a run's id, the last 4 or more characters of it, or `last`.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args)]
pub(crate) struct Global {
    /// Where everything is kept [env: KAPELL_DATA_DIR] [default: .kapell]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// The store is in this database: postgres://USER@HOST/DATABASE?schema=NAME [env: KAPELL_STORE]
    /// [default: in the data directory]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) store: Option<String>,
    /// Ask the server at this address instead of a data directory: http://HOST:PORT or
    /// https://HOST:PORT, or several nodes of a cluster with commas between; its token is in KAPELL_TOKEN
    /// [env: KAPELL_SERVER]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) server: Option<String>,
    /// A PEM file of certificates to trust instead of the system's [env: KAPELL_CA]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// The file of the configuration [env: KAPELL_CONFIG] [default: kapell.toml, /etc/kapell/kapell.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) config: Option<PathBuf>,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub(crate) color: When,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a workflow file to its end
    Run(Run),
    /// Put workflow files in force, all or none: their triggers start runs from then on
    Deploy(Deploy),
    /// Start a run of a workflow that is registered
    Start(Start),
    /// Look at workflows, and change what is in force
    #[command(subcommand)]
    Workflow(Workflow),
    /// Look at what starts runs by itself, and pause it
    #[command(subcommand)]
    Trigger(Trigger),
    /// List triggers
    #[command(hide = true)]
    Triggers(TriggerList),
    /// Send signals, and look at those that are kept
    #[command(subcommand)]
    Signal(Signal),
    /// List names of signals
    #[command(hide = true)]
    Signals(SignalList),
    /// Make up for due times of a schedule, and see how far that is
    #[command(subcommand)]
    Backfill(Backfill),
    /// List backfills
    #[command(hide = true)]
    Backfills(BackfillList),
    /// Look at who holds named locks and who waits for them
    #[command(subcommand)]
    Lock(Lock),
    /// List locks
    #[command(hide = true)]
    Locks(LockList),
    /// See which notices wait or were given up, send them again, try a channel out
    #[command(subcommand)]
    Channel(Channel),
    /// Check a workflow file and show all its problems
    Validate(Validate),
    /// Draw a workflow, as text or SVG
    Graph(Graph),
    /// List runs, newest first
    List(List),
    /// Show a run: its steps with status, times, errors and outputs
    Show(Show),
    /// Show what steps printed
    Logs(Logs),
    /// Fetch a file that a step gave
    Artifact(Artifact),
    /// Show where the time of a run went
    Timeline(Timeline),
    /// Say what a run waits for, or why it failed
    Why(Why),
    /// Say yes to what a run asks
    Approve(Approve),
    /// Say no to what a run asks
    Reject(Reject),
    /// List what runs ask you
    Approvals(Approvals),
    /// Step through a run at a prompt: look, change, go on
    Debug(Debug),
    /// Stop runs at steps
    #[command(subcommand)]
    Breakpoint(Breakpoint),
    /// Let steps go on that stopped at breakpoints
    Continue(Continue),
    /// Change a parameter of a run while a step has stopped or the run is paused
    SetParam(SetParam),
    /// Go through the history of a run, moment by moment
    Replay(Replay),
    /// End a run: what runs is stopped, `finally` still runs
    Cancel(Cancel),
    /// Start nothing more in a run until it is resumed
    Pause(One),
    /// Continue a paused run, or everything that is unfinished
    Resume(Resume),
    /// Do again what did not succeed in a run, and go on from there
    Retry(Follow),
    /// Do a step of an ended run and everything after it again
    Restart(Restart),
    /// End a step with no output; what needs it goes on
    Skip(Skip),
    /// Give a step an output by hand; it has succeeded
    SetOutput(SetOutput),
    /// Make a new run that shares everything before a step with another
    Fork(Fork),
    /// Change the priority of a run
    Priority(Priority),
    /// Retry, cancel, pause or resume all runs that match
    Bulk(Bulk),
    /// Free a strict run queue that a failed run blocks
    Dismiss(Dismiss),
    /// Work and answer for good, until it is asked to end
    Server(Server),
    /// Do work of a server in this process, until it is asked to end
    Worker(Worker),
    /// Show the workers of all nodes: what each runs, has and wastes; let some go
    Workers(Workers),
    /// Show what waits in queues, what workers have room for, and the pools of workers
    Queues(Queues),
    /// Keep as many workers as the backlog needs: start some, let some go, until it is asked to end
    Pool(Pool),
    /// List the nodes that share the store, and what each of them owns
    Nodes(Nodes),
    /// Make, list and revoke tokens for a server
    #[command(subcommand)]
    Token(Token),
    /// Show who changed what over a connection
    Audit(Audit),
    /// Keep secrets for steps, encrypted
    #[command(subcommand)]
    Secret(Secret),
    /// Look at where the store is, bring it up to date, move it to PostgreSQL
    #[command(subcommand)]
    Store(Store),
    /// Copy the data directory to a file, while it is in use
    Backup(Backup),
    /// Make a data directory from a backup
    Restore(Restore),
    /// Show every key of the configuration, what holds here and who says so
    Config(ShowConfig),
    /// Print the JSON Schema of workflow files, for editors
    Schema,
    /// Say whether a server takes requests: exit status 1 if it does not
    Health(Health),
    /// Check this machine and the data directory
    Doctor(Doctor),
    /// Say what an error code means and what to do, or list them all
    Explain(Explain),
    /// Print a script that completes commands in a shell
    Completions(Completions),
}

/// The longest grace: a day.
const GRACE_MOST: Duration = Duration::from_hours(24);

/// A time as `90s` or `2m`; a number alone is seconds.
fn grace(text: &str) -> Result<Duration, String> {
    let span = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => Duration::try_from(kapell_expr::parse_duration(text)?)
            .map_err(|_| format!("the time `{text}` is negative"))?,
    };
    if span > GRACE_MOST {
        return Err("at most a day".to_owned());
    }
    Ok(span)
}
