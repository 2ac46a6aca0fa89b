//! `kapell server`: works and answers until it is asked to end.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kapell_model::config::{
    LOG_FORMAT, SERVER_ADVERTISE, SERVER_GRACE, SERVER_INSECURE, SERVER_LISTEN, SERVER_NODE_LEASE,
    SERVER_REQUEST_RATE, SERVER_REQUIRE_TOKEN, SERVER_TLS_CERT, SERVER_TLS_KEY, SERVER_TLS_NAMES,
    SERVER_TLS_SELF_SIGNED,
};
use kapell_model::{Error, ErrorCode, limits};
use kapell_server::local::{self, Listen, Local, Opened, Tls, Want};
use kapell_server::net::TlsFiles;
use kapell_server::workers::OwnQueues;
use kapell_server::{NodeOptions, Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::args::Server;
use crate::config::{self, Config, Settings};
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit, session, words};

/// Between two tries to open a data directory whose disk is full.
const AGAIN: Duration = Duration::from_secs(2);

pub(crate) fn server(server: &Server, config: &Config, printer: &mut Printer) -> Ended {
    let mut signals = signals()?;
    let listen = listen(server, &config.settings)?;
    // To open what is big, or was left half done, may take a while.
    tracing::info!(
        data_dir = %config.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "the server starts"
    );
    let Some(mut local) = open(server, config, &mut signals, printer)? else {
        return Ok(Exit::Success);
    };
    local.notify(session::senders(config)?)?;
    local.resolve_secrets(Arc::new(config::secret));
    let scheme = if listen.tls == Tls::Plain {
        "http"
    } else {
        "https"
    };
    let address = local.listen(&listen)?;
    printer.line(
        Line::default()
            .with(BOLD, format!("Kapell answers at {scheme}://{address}"))
            .with(DIM, format!("  data in {}", config.data_dir.display())),
    )?;
    printer.line(Line::default().with(
        DIM,
        format!("the API is described at {scheme}://{address}/docs/api"),
    ))?;
    tracing::info!(%address, "the server answers");
    // Nothing else is to do here: whoever wants it to end sends a signal.
    let _ = signals.read_exact(&mut [0]);
    let grace = server
        .grace
        .unwrap_or_else(|| config.settings.duration(&SERVER_GRACE));
    // Whoever reads JSON has it from the line of the log.
    if config.settings.text(&LOG_FORMAT) != "json" {
        let note = format!(
            "ending: attempts under way have {}, a second signal ends them now",
            words::count(grace.as_secs(), "second")
        );
        printer.notes(&[Line::default().with(PLAIN, note)]);
    }
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
    let queues = config.queues(&server.queues)?;
    let options = Options {
        node: node(server, config)?,
        ..config.options()
    };
    let mut said = false;
    loop {
        let work = session::work(config, server.slots, own_queues(&queues));
        match local::open(&config.data_dir, Want::Work(work), &options) {
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
fn own_queues(names: &[String]) -> OwnQueues {
    if names.is_empty() {
        return OwnQueues::NeverNamed;
    }
    OwnQueues::Named(names.iter().map(|name| name.as_str().into()).collect())
}

/// Where and how to listen: as the flags say, else the configuration.
fn listen(server: &Server, settings: &Settings) -> Result<Listen, Error> {
    let address = server.listen.clone();
    let address = address.unwrap_or_else(|| settings.text(&SERVER_LISTEN));
    let address = address.parse().map_err(|_| {
        bad(
            format!("`{address}` is no address to listen on"),
            "an address and a port, as 127.0.0.1:7420, 0.0.0.0:7420 or [::1]:7420",
        )
    })?;
    let rate = settings.number(&SERVER_REQUEST_RATE);
    let rate = server.request_rate.or(u32::try_from(rate).ok());
    Ok(Listen {
        address,
        tls: tls(server, settings)?,
        insecure: server.insecure || settings.is_on(&SERVER_INSECURE),
        require_token: server.require_token || settings.is_on(&SERVER_REQUIRE_TOKEN),
        request_rate: rate.unwrap_or(local::REQUEST_RATE),
    })
}

/// What this server says of itself to others, if it is to share a database with them.
fn node(server: &Server, config: &Config) -> Result<Option<NodeOptions>, Error> {
    let settings = &config.settings;
    let said = server.advertise.clone();
    let Some(address) = said.or_else(|| settings.some_text(&SERVER_ADVERTISE)) else {
        return Ok(None);
    };
    if config.store.is_none() {
        return Err(bad(
            "several servers cannot share the data directory of one".to_owned(),
            "`--advertise` goes with a store in PostgreSQL: `--store postgres://…`",
        ));
    }
    let is_url = address.starts_with("http://") || address.starts_with("https://");
    if !is_url || address.len() > limits::NODE_ADDRESS_BYTES {
        return Err(bad(
            format!("`{address}` is no address of a server"),
            "a URL, as http://10.0.0.7:7420",
        ));
    }
    let lease = settings.duration(&SERVER_NODE_LEASE);
    if !(Duration::from_secs(1)..=Duration::from_mins(5)).contains(&lease) {
        return Err(bad(
            "`server.node_lease` is out of its range".to_owned(),
            "from 1s to 5m",
        ));
    }
    Ok(Some(NodeOptions {
        address,
        lease,
        ca: config.ca().map(Into::into),
    }))
}

/// Whose certificate is shown: as the flags say, else the configuration.
pub(crate) fn tls(server: &Server, settings: &Settings) -> Result<Tls, Error> {
    // What a flag says of TLS goes before all that the configuration says of it.
    let flags = server.tls_cert.is_some() || server.tls_self_signed;
    let path = |key| settings.some_text(key).map(PathBuf::from);
    let (cert, key, own) = if flags {
        let files = (server.tls_cert.clone(), server.tls_key.clone());
        (files.0, files.1, server.tls_self_signed)
    } else {
        let own = settings.is_on(&SERVER_TLS_SELF_SIGNED);
        (path(&SERVER_TLS_CERT), path(&SERVER_TLS_KEY), own)
    };
    let names = if server.tls_name.is_empty() {
        settings.list(&SERVER_TLS_NAMES)
    } else {
        server.tls_name.clone()
    };
    match (cert, key, own) {
        (Some(cert), Some(key), false) => Ok(Tls::Files(TlsFiles { cert, key })),
        (None, None, true) => Ok(Tls::SelfSigned(names)),
        (None, None, false) if server.tls_name.is_empty() => Ok(Tls::Plain),
        (None, None, false) => Err(bad(
            "`--tls-name` names a certificate that there is not".to_owned(),
            "it goes with `--tls-self-signed`",
        )),
        (Some(_), Some(_), true) => Err(bad(
            "there are two certificates: one of its own, and `server.tls_cert`".to_owned(),
            "choose one of `server.tls_self_signed` and `server.tls_cert`",
        )),
        (Some(_), None, _) | (None, Some(_), _) => Err(bad(
            "of `server.tls_cert` and `server.tls_key` there is only one".to_owned(),
            "a certificate needs its key",
        )),
    }
}

fn bad(message: String, hint: &str) -> Error {
    Error::new(ErrorCode::BadConfig, message).hint(hint)
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
