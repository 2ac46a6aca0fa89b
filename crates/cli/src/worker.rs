//! `kapell worker`: does work of a server in this process.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kapell_api::client::Target;
use kapell_model::config::WORKER_KEEP_FAILED;
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use kapell_worker::remote::{Event, Remote, RemoteConfig, Server};

use crate::args::Worker;
use crate::config::{self, Config};
use crate::paint::{BOLD, DIM, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::{Ended, Exit, server, words};

/// Where a worker keeps what it works on, if nobody says where.
const FOLDER: &str = ".kapell-worker";

/// Between two looks for signals.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn worker(worker: &Worker, config: &Config, printer: &mut Printer) -> Ended {
    let Some(server) = config.server()? else {
        let message = "it is not said which server to work for";
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`--server` or KAPELL_SERVER names the address of a `kapell server`"));
    };
    let url = server.url().to_owned();
    let remote = RemoteConfig {
        server: Server::At(Target::Http(Box::new(server))),
        name: worker.name.clone().unwrap_or_else(config::host),
        labels: labels(&config.labels(&worker.label))?,
        resources: config.resources(&worker.resource)?,
        spot: worker.spot,
        pool: config.pool(worker.pool.as_ref()),
        queues: config.queues(&worker.queues)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut signals = server::signals()?;
    signals
        .set_nonblocking(true)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no signals: {error}")))?;
    let name = remote.name.clone();
    let remote = start(worker, config, remote)?;
    let (grace, exit) = serve(&remote, &mut signals, (&name, &url), worker.grace, printer)?;
    remote.leave(grace);
    Ok(exit)
}

/// Listens until it is to go: how long what runs may take then, and how it ends.
fn serve(
    remote: &Remote,
    signals: &mut impl Read,
    (name, url): (&str, &str),
    grace: Duration,
    printer: &mut Printer,
) -> Result<(Duration, Exit), Error> {
    let mut welcome = false;
    loop {
        if signals.read_exact(&mut [0]).is_ok() {
            let note = format!(
                "ending: attempts under way have {}, a second signal ends them now",
                words::count(grace.as_secs(), "second")
            );
            printer.notes(&[Line::default().with(PLAIN, note)]);
            return Ok((grace, Exit::Success));
        }
        let note = match remote.next(LOOK) {
            None => continue,
            Some(Event::Welcome(session, again)) => {
                welcome = true;
                let word = if again { "works again" } else { "works" };
                printer.line(
                    Line::default()
                        .with(BOLD, format!("Worker {name} {word} for {url}"))
                        .with(DIM, format!("  session {session}")),
                )?;
                continue;
            }
            Some(Event::Away(why)) => {
                format!("the server at {url} cannot be reached: {why}; trying again")
            }
            // Whoever was in once may be let in again: its token, say, was made anew.
            Some(Event::Refused(why)) if welcome => {
                format!("the server at {url} refuses: {why}; trying again")
            }
            Some(Event::Refused(why)) => {
                let message = format!("the server at {url} refuses this worker: {why}");
                return Err(Error::new(ErrorCode::NotPermitted, message)
                    .hint("look at KAPELL_TOKEN and the flags; a token needs the scope `run`"));
            }
            Some(Event::Drain(grace)) => {
                let note = format!(
                    "the server lets it go: attempts under way have {}",
                    words::count(grace.as_secs(), "second")
                );
                printer.notes(&[Line::default().with(PLAIN, note)]);
                return Ok((grace, Exit::Success));
            }
        };
        printer.notes(&[Line::default().with(YELLOW, note)]);
    }
}

fn start(worker: &Worker, config: &Config, remote: RemoteConfig) -> Result<Remote, Error> {
    let data_dir = if config.data_dir_is_default {
        PathBuf::from(FOLDER)
    } else {
        config.data_dir.clone()
    };
    let own = kapell_worker::Config {
        data_dir: data_dir.clone(),
        capacity: config.capacity(worker.slots),
        secrets: Arc::new(config::secret),
        inherit_env: config::inherited(),
        clock: clock::now,
        python: None,
        uv: None,
        keep_failed: config.settings.duration(&WORKER_KEEP_FAILED),
        http: config.http_rules(),
    };
    let unusable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "the worker cannot start in `{}`: {error}",
            data_dir.display()
        );
        Error::new(ErrorCode::DirectoryUnusable, message)
            .hint("`--data-dir` names another directory; each worker needs one of its own")
    };
    let held = hold(&data_dir)?;
    // Until this process ends.
    std::mem::forget(held);
    Remote::start(own, remote).map_err(|error| unusable(&error))
}

/// One worker at a time in a directory, be it that of a server or of `kapell worker`: what another one
/// works on looks like what a dead one left.
pub(crate) fn hold(data_dir: &Path) -> Result<File, Error> {
    let unusable = |what: String, hint: &str| {
        Error::new(ErrorCode::DirectoryUnusable, what).hint(hint.to_owned())
    };
    let opened = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .and_then(|()| {
            File::options()
                .create(true)
                .append(true)
                .open(data_dir.join("worker.lock"))
        });
    let file = opened.map_err(|error| {
        let what = format!("`{}` cannot be written: {error}", data_dir.display());
        unusable(what, "`--data-dir` names another directory")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(unusable(
            format!("another worker works in `{}`", data_dir.display()),
            "each worker needs a directory of its own, and so does a server: `--data-dir` names one",
        )),
        Err(TryLockError::Error(error)) => Err(unusable(
            format!("`{}` cannot be locked: {error}", data_dir.display()),
            "`--data-dir` names another directory",
        )),
    }
}

pub(crate) fn labels(given: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let label = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(
            Error::new(ErrorCode::BadRequest, format!("`{text}` is no label"))
                .hint("a label looks like zone=eu"),
        ),
    };
    given.iter().map(label).collect()
}
