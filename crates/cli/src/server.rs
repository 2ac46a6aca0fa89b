//! `kapell server`: works and answers until it is asked to end.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kapell_model::{Error, ErrorCode, limits};
use kapell_server::local::{self, Listen, Local, Opened, Want};
use kapell_server::net::{self, TlsFiles};
use kapell_server::workers::OwnQueues;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::args::Server;
use crate::config::{self, Config};
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit, session, words};

/// Between two tries to open a data directory whose disk is full.
const AGAIN: Duration = Duration::from_secs(2);

pub(crate) fn server(server: &Server, config: &Config, printer: &mut Printer) -> Ended {
    let mut signals = signals()?;
    let Some(mut local) = open(server, config, &mut signals, printer)? else {
        return Ok(Exit::Success);
    };
    local.notify(session::senders(config)?)?;
    local.resolve_secrets(Arc::new(config::secret));
    let tls = match (&server.tls_cert, &server.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        }),
        _ if server.tls_self_signed => Some(net::self_signed(
            &config.data_dir,
            server.listen,
            &server.tls_name,
        )?),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = local.listen(&Listen {
        address: server.listen,
        tls,
        insecure: server.insecure,
        request_rate: server.request_rate,
    })?;
    printer.line(
        Line::default()
            .with(BOLD, format!("Kapell answers at {scheme}://{address}"))
            .with(DIM, format!("  data in {}", config.data_dir.display())),
    )?;
    printer.line(Line::default().with(
        DIM,
        format!("the API is described at {scheme}://{address}/docs/api"),
    ))?;
    tracing::info!(
        address = %address,
        data_dir = %config.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "the server answers"
    );
    // Nothing else is to do here: whoever wants it to end sends a signal.
    let _ = signals.read_exact(&mut [0]);
    let grace = Duration::from_secs(server.grace.into());
    let note = format!(
        "ending: attempts under way have {}, a second signal ends them now",
        words::count(grace.as_secs(), "second")
    );
    printer.notes(&[Line::default().with(PLAIN, note)]);
    tracing::info!(grace_seconds = grace.as_secs(), "the server ends");
    local.stop(grace);
    tracing::info!("the server has ended");
    Ok(Exit::Success)
}

/// Opens the data directory to do its work. While its disk is full that is tried again and again; none
/// if somebody wanted an end meanwhile.
fn open(
    server: &Server,
    config: &Config,
    signals: &mut UnixStream,
    printer: &mut Printer,
) -> Result<Option<Box<Local>>, Error> {
    let mut options = config.options();
    options.slots = config.capacity(server.slots).slots;
    let mut said = false;
    loop {
        let mut work = session::work(config, server.slots);
        if let Want::Work { workers, .. } = &mut work {
            workers.own = own_queues(&server.queues)?;
        }
        match local::open(&config.data_dir, work, &options) {
            Ok(Opened::Here(local)) => return Ok(Some(local)),
            Ok(Opened::Elsewhere { pid, .. }) => {
                let message = format!(
                    "process {pid} holds the data directory `{}`",
                    config.data_dir.display()
                );
                return Err(Error::new(ErrorCode::DirectoryHeld, message).hint(
                    "wait for its end or end it, or name another directory with `--data-dir`",
                ));
            }
            Err(error) if error.code == ErrorCode::DiskFull => {
                if !said {
                    printer.error(&error);
                    printer
                        .notes(&[Line::default().with(PLAIN, "trying again until there is room")]);
                    said = true;
                }
                if asked_within(signals, AGAIN)? {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// True if a signal came within so long.
fn asked_within(signals: &mut UnixStream, wait: Duration) -> Result<bool, Error> {
    let failed =
        |error: std::io::Error| Error::new(ErrorCode::Internal, format!("no signals: {error}"));
    signals.set_read_timeout(Some(wait)).map_err(failed)?;
    let asked = signals.read_exact(&mut [0]).is_ok();
    signals.set_read_timeout(None).map_err(failed)?;
    Ok(asked)
}

/// The queues of this process. One that workers named once is for them, unless it is named here too.
fn own_queues(names: &[String]) -> Result<OwnQueues, Error> {
    if names.is_empty() {
        return Ok(OwnQueues::NeverNamed);
    }
    let is_name = |name: &String| !name.is_empty() && name.len() <= limits::NAME_CHARS;
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        let message = format!("`{name}` is no name of a queue");
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("as in `--queues default,gpu`; without it, every queue that no worker named"));
    }
    let names = names.iter().map(|name| name.as_str().into());
    Ok(OwnQueues::Named(names.collect()))
}

/// Where the first signal can be read. A second one ends the process at once, with status 130.
pub(crate) fn signals() -> Result<UnixStream, Error> {
    let refused =
        |error: std::io::Error| Error::new(ErrorCode::Internal, format!("no signals: {error}"));
    let (theirs, ours) = UnixStream::pair().map_err(refused)?;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and only sets it.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
            .and_then(|_| flag::register(signal, Arc::clone(&asked)))
            .and_then(|_| low_level::pipe::register(signal, theirs.try_clone()?))
            .map_err(refused)?;
    }
    Ok(ours)
}
