//! The `kapell` command.
//!
//! Start reading at [`args`], every command and its flags; then `run`, the longest of them, and
//! `session`, how a command reaches the engine. One file a command.
//!
//! Invariants
//! - `config` alone reads the environment, `printer` alone writes to the terminal.
//! - What may be done is decided by whoever answers `kapell_api::client::Api`; commands ask and show.
//! - Exit status: 0 success, 1 a failed run or a failure, 2 bad input, 130 interrupted.

mod act;
mod approve;
mod args;
mod artifact;
mod audit;
mod backfill;
mod backup;
mod breakpoint;
mod bulk;
mod bundle;
mod channel;
mod completions;
mod config;
mod debug;
mod definition;
mod deploy;
mod doctor;
mod explain;
mod failure;
mod folder;
mod follow;
mod graph;
mod health;
mod ignore;
mod interrupt;
mod item;
mod list;
mod lock;
mod log_line;
mod logs;
mod node;
mod paint;
mod params;
mod pool;
mod printer;
mod progress;
mod queue;
mod replay;
mod run;
mod schema;
mod secret;
mod server;
mod session;
mod show;
mod show_config;
mod signal;
mod start;
mod store;
mod timeline;
mod token;
mod tree;
mod trigger;
mod validate;
mod why;
mod words;
mod worker;
mod workers;
mod workflow;

use std::process::ExitCode;

use clap::Parser;
use kapell_model::Error;

use crate::args::{Arguments, Command};
use crate::config::Config;
use crate::printer::Printer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command ended.
type Ended = Result<Exit, Error>;

/// The exit status of a command that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Success,
    /// A run ended without success, a check did not pass.
    Failed,
    /// The input is bad; it was said why.
    BadInput,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Interrupted => 130,
        })
    }
}

/// Exit status of a command whose reader had gone: what a shell gives for a program that a closed pipe ends.
const PIPE_CLOSED: u8 = 141;

fn main() -> ExitCode {
    without_huge_pages();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            printer::misused(&error);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (config, misset) = Config::new(&arguments.global);
    let mut printer = Printer::new(&config);
    if let Some(error) = misset {
        printer.error(&error);
        return ExitCode::from(error.code.exit_status());
    }
    printer::log_to_stderr(&config, least_said(&arguments.command));
    let ended = dispatch(arguments.command, &config, &mut printer);
    match ended {
        Ok(exit) => exit.into(),
        // Whoever reads the output has seen enough. How it would have ended nobody knows: as a shell says of a
        // program that ended so.
        Err(_) if printer.is_closed() => ExitCode::from(PIPE_CLOSED),
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.code.exit_status())
        }
    }
}

/// Huge pages make an idle server take half as much memory again, and nothing that was measured faster. What
/// it starts may use them (`kapell_worker`'s spawner).
fn without_huge_pages() {
    // A kernel that knows no such thing has nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// What is said without being asked for: a process that works for good has nobody at its side to whom it
/// could say it otherwise.
fn least_said(command: &Command) -> tracing::Level {
    match command {
        Command::Server(_) | Command::Worker(_) => tracing::Level::WARN,
        _ => tracing::Level::ERROR,
    }
}

fn dispatch(command: Command, config: &Config, printer: &mut Printer) -> Ended {
    match command {
        Command::Run(run) => run::run(&run, config, printer),
        Command::Deploy(deploy) => deploy::deploy(&deploy, config, printer),
        Command::Start(start) => start::start(&start, config, printer),
        Command::Workflow(workflow) => workflow::workflow(&workflow, config, printer),
        Command::Trigger(command) => trigger::trigger(&command, config, printer),
        Command::Triggers(which) => trigger::all(&which, config, printer),
        Command::Signal(command) => signal::signal(&command, config, printer),
        Command::Signals(which) => signal::all(&which, config, printer),
        Command::Backfill(command) => backfill::backfill(&command, config, printer),
        Command::Backfills(which) => backfill::all(&which, config, printer),
        Command::Channel(command) => channel::channel(&command, config, printer),
        Command::Lock(command) => lock::lock(&command, config, printer),
        Command::Locks(which) => lock::all(&which, config, printer),
        Command::Approve(approve) => approve::approve(&approve, config, printer),
        Command::Reject(reject) => approve::reject(&reject, config, printer),
        Command::Approvals(which) => approve::approvals(&which, config, printer),
        Command::Debug(debug) => debug::debug(&debug, config, printer),
        Command::Continue(which) => breakpoint::go_on(&which, config, printer),
        Command::SetParam(set) => breakpoint::set_param(&set, config, printer),
        Command::Breakpoint(command) => breakpoint::breakpoint(&command, config, printer),
        Command::Replay(replay) => replay::replay(&replay, config, printer),
        Command::Validate(validate) => validate::validate(&validate, printer),
        Command::Graph(graph) => graph::graph(&graph, config, printer),
        Command::List(list) => list::list(&list, config, printer),
        Command::Show(show) => show::show(&show, config, printer),
        Command::Artifact(of) => artifact::artifact(&of, config, printer),
        Command::Logs(logs) => logs::logs(&logs, config, printer),
        Command::Timeline(timeline) => timeline::timeline(&timeline, config, printer),
        Command::Why(why) => why::why(&why, config, printer),
        Command::Cancel(cancel) => act::cancel(&cancel, config, printer),
        Command::Pause(pause) => act::pause(&pause, config, printer),
        Command::Resume(resume) => act::resume(&resume, config, printer),
        Command::Retry(retry) => act::retry(&retry, config, printer),
        Command::Restart(restart) => act::restart(&restart, config, printer),
        Command::Skip(skip) => act::skip(&skip, config, printer),
        Command::SetOutput(set) => act::set_output(&set, config, printer),
        Command::Fork(fork) => act::fork(&fork, config, printer),
        Command::Priority(priority) => act::priority(&priority, config, printer),
        Command::Bulk(bulk) => bulk::bulk(&bulk, config, printer),
        Command::Dismiss(dismiss) => act::dismiss(&dismiss, config, printer),
        Command::Server(server) => server::server(&server, config, printer),
        Command::Worker(worker) => worker::worker(&worker, config, printer),
        Command::Workers(workers) => workers::workers(&workers, config, printer),
        Command::Queues(queues) => queue::queues(&queues, config, printer),
        Command::Pool(pool) => pool::pool(&pool, config, printer),
        Command::Nodes(nodes) => node::nodes(&nodes, config, printer),
        Command::Token(token) => token::token(&token, config, printer),
        Command::Audit(audit) => audit::audit(&audit, config, printer),
        Command::Store(command) => store::store(&command, config, printer),
        Command::Backup(args) => backup::backup(&args, config, printer),
        Command::Restore(args) => backup::restore(&args, config, printer),
        Command::Secret(secret) => secret::secret(&secret, config, printer),
        Command::Config(show) => show_config::show(&show, config, printer),
        Command::Schema => schema::schema(printer),
        Command::Health(health) => health::health(&health, config, printer),
        Command::Doctor(doctor) => doctor::doctor(&doctor, config, printer),
        Command::Explain(explain) => explain::explain(&explain, printer),
        Command::Completions(completions) => completions::completions(&completions, printer),
    }
}
