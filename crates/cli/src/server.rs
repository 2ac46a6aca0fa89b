//! `kapell server`: works and answers until it is asked to end.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kapell_model::{Error, ErrorCode, limits};
use kapell_server::local::{self, Listen, Opened, Want};
use kapell_server::net::{self, TlsFiles};
use kapell_server::workers::OwnQueues;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::args::Server;
use crate::config::{self, Config};
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit, session, words};

pub(crate) fn server(server: &Server, config: &Config, printer: &mut Printer) -> Ended {
    let mut signals = signals()?;
    let mut work = session::work(config, server.slots);
    if let Want::Work { workers, .. } = &mut work {
        workers.own = own_queues(&server.queues)?;
    }
    let mut options = config.options();
    options.slots = config.capacity(server.slots).slots;
    let mut local = match local::open(&config.data_dir, work, &options)? {
        Opened::Here(mut local) => {
            local.notify(config.receivers()?)?;
            local
        }
        Opened::Elsewhere { pid, .. } => {
            let message = format!(
                "process {pid} holds the data directory `{}`",
                config.data_dir.display()
            );
            return Err(Error::new(ErrorCode::DirectoryHeld, message)
                .hint("wait for its end or end it, or name another directory with `--data-dir`"));
        }
    };
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
    // Nothing else is to do here: whoever wants it to end sends a signal.
    let _ = signals.read_exact(&mut [0]);
    let grace = Duration::from_secs(server.grace.into());
    let note = format!(
        "ending: attempts under way have {}, a second signal ends them now",
        words::count(grace.as_secs(), "second")
    );
    printer.notes(&[Line::default().with(PLAIN, note)]);
    local.stop(grace);
    Ok(Exit::Success)
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
