//! Commands and flags. The help text is written here.
#![expect(clippy::doc_markdown, reason = "comments are what `--help` prints")]

mod approval;
mod backfill;
mod bulk;
mod channel;
mod debug;
mod lock;
mod server;
mod signal;
mod store;
mod trigger;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use approval::{Approvals, Approve, Reject};
pub(crate) use backfill::{Backfill, BackfillList, BackfillOne, BackfillStart, Only, Order};
pub(crate) use bulk::{Bulk, BulkVerb, Which};
pub(crate) use channel::{Channel, ChannelList, ChannelNotices, ChannelOne};
pub(crate) use debug::{
    Breakpoint, BreakpointAdd, BreakpointList, BreakpointRemove, Continue, Debug, Replay, SetParam,
    Whose,
};
pub(crate) use lock::{Lock, LockList, LockOne};
pub(crate) use server::{Audit, Server, Token, TokenCreate, TokenList, TokenRevoke};
pub(crate) use signal::{Signal, SignalList, SignalSend, SignalShow};
pub(crate) use store::{Store, StoreMove, StoreShow};
pub(crate) use trigger::{Trigger, TriggerList, TriggerOne};

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
    /// https://HOST:PORT; its token is in KAPELL_TOKEN [env: KAPELL_SERVER]
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
    /// Show the workers of a server in other processes, and let one go
    Workers(Workers),
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

/// `run`
#[derive(Args)]
pub(crate) struct Run {
    /// The workflow file, YAML or JSON
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) params: Params,
    /// The same key makes the same run: a second start follows the first
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// From 0 (whenever) to 100 (first) [default: the workflow's]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: Option<u8>,
    /// What `run.scheduled_at` is: `3d` ago, or a time like 2030-01-31T10:00:00Z [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// Parameters of a run.
#[derive(Args)]
pub(crate) struct Params {
    /// A parameter; text is read by its declared type
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) param: Vec<String>,
    /// A YAML or JSON file of parameters; what `-p` says goes before it
    #[arg(long, value_name = "FILE")]
    pub(crate) params_file: Option<PathBuf>,
}

/// Flags of commands that follow runs to their end.
#[derive(Args)]
pub(crate) struct Work {
    /// Record it only: the next `run` or `resume` does the work
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
    /// Attempts at a time in this process [env: KAPELL_SLOTS] [default: by the machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) slots: Option<u16>,
}

/// `validate`
#[derive(Args)]
pub(crate) struct Validate {
    /// Workflow files
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print the problems as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `deploy`
#[derive(Args)]
pub(crate) struct Deploy {
    /// Workflow files, or folders with them and with folders of them
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub(crate) paths: Vec<PathBuf>,
    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Delete workflows that were deployed before and are not among these; their history stays
    #[arg(long)]
    pub(crate) prune: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `start`
#[derive(Args)]
pub(crate) struct Start {
    /// The workflow's name
    pub(crate) workflow: String,
    #[command(flatten)]
    pub(crate) params: Params,
    /// Version of the workflow [default: the active one]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u32>,
    /// The same key makes the same run
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// From 0 (whenever) to 100 (first) [default: the workflow's]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: Option<u8>,
    /// What `run.scheduled_at` is: `3d` ago, or a time like 2030-01-31T10:00:00Z [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) at: Option<String>,
    /// Follow the run to its end
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow`
#[derive(Subcommand)]
pub(crate) enum Workflow {
    /// List workflows with their runs by status
    List(WorkflowList),
    /// Show a workflow as it is in force
    Show(WorkflowOne),
    /// List the versions of a workflow, newest first
    Versions(WorkflowVersions),
    /// Show what differs between two versions
    Diff(WorkflowDiff),
    /// Show who is active in a workflow's run queue and who waits
    Queue(WorkflowQueue),
    /// Make a version the active one, forward or back
    Activate(WorkflowActivate),
    /// Leave a workflow without an active version: it starts by no trigger and no name alone
    Deactivate(WorkflowOne),
    /// Start no more runs of a workflow until it is resumed: starts wait
    Pause(WorkflowSome),
    /// Let a paused workflow go on
    Resume(WorkflowSome),
    /// Override what a workflow says of its owner, its strategy and how long runs are kept
    Set(WorkflowSet),
    /// Delete a workflow; its history stays
    Delete(WorkflowOne),
}

/// `workflow list`
#[derive(Args)]
pub(crate) struct WorkflowList {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One workflow.
#[derive(Args)]
pub(crate) struct WorkflowOne {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow queue`
#[derive(Args)]
pub(crate) struct WorkflowQueue {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Only runs with this value of `strategy.key`
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// After this place: the next page
    #[arg(long, value_name = "PLACE")]
    pub(crate) after: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One workflow, or all.
#[derive(Args)]
pub(crate) struct WorkflowSome {
    /// The workflow's name
    #[arg(required_unless_present = "all")]
    pub(crate) workflow: Option<String>,
    /// All workflows
    #[arg(long, conflicts_with = "workflow")]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow versions`
#[derive(Args)]
pub(crate) struct WorkflowVersions {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Versions before this one: the next page
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u32>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow diff`
#[derive(Args)]
pub(crate) struct WorkflowDiff {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The one version [default: the active one, or the one before the other]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from: Option<u32>,
    /// The other version [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) to: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow activate`
#[derive(Args)]
pub(crate) struct WorkflowActivate {
    /// The workflow's name
    pub(crate) workflow: String,
    /// The version
    pub(crate) version: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow set`
#[derive(Args)]
pub(crate) struct WorkflowSet {
    /// The workflow's name
    pub(crate) workflow: String,
    /// Who to ask; `default` is what the definition says
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
    /// parallel, sequential, strict_sequential, first_only, last_only, serial_latest, or `default`
    #[arg(long, value_name = "MODE")]
    pub(crate) strategy: Option<String>,
    /// Active runs of one key, with `--strategy parallel`
    #[arg(long, value_name = "NUMBER", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Active runs over all keys
    #[arg(long, value_name = "NUMBER", requires = "strategy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) total: Option<u32>,
    /// How long ended runs are kept, as `30d`; `default` is what the definition says
    #[arg(long, value_name = "AGE")]
    pub(crate) keep: Option<String>,
    /// How many ended runs are kept
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_runs: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `graph`
#[derive(Args)]
pub(crate) struct Graph {
    /// A workflow file, or a run
    #[arg(value_name = "FILE|RUN")]
    pub(crate) what: String,
    /// How to draw it
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) format: GraphFormat,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How to draw a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Boxes and lines of text
    Text,
    /// A picture
    Svg,
}

/// `list`
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Runs after this place in the list: what the page before said, or a run
    #[arg(long, value_name = "PLACE")]
    pub(crate) before: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// List workflows instead, with their runs by status
    #[arg(long, conflicts_with_all = ["workflow", "status", "since", "until", "label", "trigger", "error", "parent", "namespace", "before"])]
    pub(crate) workflows: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `show`
#[derive(Args)]
pub(crate) struct Show {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// One step, with everything inside it
    pub(crate) step: Option<String>,
    /// As it was then: a time, or `10s` after the run was made
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `artifact`
#[derive(Args)]
pub(crate) struct Artifact {
    /// The run
    pub(crate) run: String,
    /// The step that gave it; an item is written `tune[3]`
    pub(crate) step: String,
    /// Its name under `artifacts: { out: … }`
    pub(crate) name: String,
    /// Where it goes [default: standard output, unless that is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `logs`
#[derive(Args)]
pub(crate) struct Logs {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// A step: its items, iterations and inner steps too
    pub(crate) step: Option<String>,
    /// Go on until the run has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// One item of the step's foreach
    #[arg(long, value_name = "NUMBER", requires = "step")]
    pub(crate) item: Option<u32>,
    /// One attempt, from 1
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES", conflicts_with = "follow")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tail: Option<u32>,
    /// Show when each line was printed
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print JSON, a line each
    #[arg(long)]
    pub(crate) json: bool,
}

/// `timeline`
#[derive(Args)]
pub(crate) struct Timeline {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// Show items of a foreach too, at most so many each
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) items: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `why`
#[derive(Args)]
pub(crate) struct Why {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// One step
    pub(crate) step: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cancel`
#[derive(Args)]
pub(crate) struct Cancel {
    /// The run
    pub(crate) run: String,
    /// Without `finally`
    #[arg(long)]
    pub(crate) now: bool,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A command on one run.
#[derive(Args)]
pub(crate) struct One {
    /// The run
    pub(crate) run: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `dismiss`
#[derive(Args)]
pub(crate) struct Dismiss {
    /// The run
    #[arg(required_unless_present = "workflow", conflicts_with = "workflow")]
    pub(crate) run: Option<String>,
    /// Whatever run blocks the queue of this workflow, also one that is not kept any more
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// With it: of this value of `strategy.key`
    #[arg(
        long,
        requires = "workflow",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) key: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `resume`
#[derive(Args)]
pub(crate) struct Resume {
    /// The run [default: everything that is unfinished; of a server, it must be named]
    pub(crate) run: Option<String>,
    /// All paused runs of a server, whoever paused them
    #[arg(long, conflicts_with = "run")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `retry`
#[derive(Args)]
pub(crate) struct Follow {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `restart`
#[derive(Args)]
pub(crate) struct Restart {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// The first step that is done again
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `skip`
#[derive(Args)]
pub(crate) struct Skip {
    /// The run
    pub(crate) run: String,
    /// The step or item: `load`, `load[3]`
    pub(crate) step: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `set-output`
#[derive(Args)]
pub(crate) struct SetOutput {
    /// The run
    pub(crate) run: String,
    /// The step or item: `load`, `load[3]`
    pub(crate) step: String,
    /// The output, as JSON
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `fork`
#[derive(Args)]
pub(crate) struct Fork {
    /// The run
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// The first step that is done again
    #[arg(long, value_name = "STEP")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) params: Params,
    /// Version of the workflow [default: the other run's]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u32>,
    /// The same key makes the same run: a second fork follows the first
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// `priority`
#[derive(Args)]
pub(crate) struct Priority {
    /// The run
    pub(crate) run: String,
    /// From 0 (whenever) to 100 (first)
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: u8,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `secret`
#[derive(Subcommand)]
pub(crate) enum Secret {
    /// Set a secret: its value is asked for, or read from standard input
    ///
    /// Steps use it as `${{ secrets.NAME }}`. A variable KAPELL_SECRET_NAME of a worker goes before it.
    Set(SetSecret),
    /// List secrets, without their values
    List(ListSecrets),
    /// Delete a secret
    Delete(DeleteSecret),
    /// Seal all secrets with a new key and forget the old one
    Rotate,
}

/// `secret set`
#[derive(Args)]
pub(crate) struct SetSecret {
    /// Its name: letters, digits and `_`
    pub(crate) name: String,
}

/// `secret list`
#[derive(Args)]
pub(crate) struct ListSecrets {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `secret delete`
#[derive(Args)]
pub(crate) struct DeleteSecret {
    /// Its name
    pub(crate) name: String,
}

/// `backup`
#[derive(Args)]
pub(crate) struct Backup {
    /// The file, a tar
    pub(crate) file: PathBuf,
    /// Leave out what steps printed
    #[arg(long)]
    pub(crate) without_logs: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `restore`
#[derive(Args)]
pub(crate) struct Restore {
    /// The file; the data directory must not be there yet
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `config`
#[derive(Args)]
pub(crate) struct ShowConfig {
    /// Print a file that names every key with its default
    #[arg(long, conflicts_with = "json")]
    pub(crate) example: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `health`
#[derive(Args)]
pub(crate) struct Health {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `doctor`
#[derive(Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `explain`
#[derive(Args)]
pub(crate) struct Explain {
    /// The code, as in `error[bad-params]` [default: list them all]
    pub(crate) code: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `completions`
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Shells that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// `kapell completions bash > /etc/bash_completion.d/kapell`
    Bash,
    /// `kapell completions zsh > ~/.zfunc/_kapell`
    Zsh,
    /// `kapell completions fish > ~/.config/fish/completions/kapell.fish`
    Fish,
}
/// `worker`
#[derive(Args)]
pub(crate) struct Worker {
    /// Queues to serve [default: every queue that no worker names]
    #[arg(long, value_name = "QUEUE", value_delimiter = ',')]
    pub(crate) queue: Vec<String>,
    /// What to say of this worker, to whoever lists them
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// What to call this worker [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Attempts at a time in this process [env: KAPELL_SLOTS] [default: by the machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) slots: Option<u16>,
    /// Seconds that running attempts get to end once it is asked to end; the rest is done elsewhere
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) grace: u32,
}

/// `workers`
#[derive(Args)]
pub(crate) struct Workers {
    /// Let workers of this name, or of this session, take nothing more and go
    #[arg(long, value_name = "WORKER")]
    pub(crate) drain: Option<String>,
    /// Seconds that what they run may take to end; the rest is done elsewhere
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "drain")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) grace: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
