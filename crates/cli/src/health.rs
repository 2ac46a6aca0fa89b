//! `kapell health`: for supervisors.

use kapell_api::client::{Client, Target};
use kapell_api::http::SOCKET;
use kapell_model::Error;
use serde::Serialize;

use crate::args::Health;
use crate::config::Config;
use crate::printer::Printer;
use crate::{Ended, Exit};

/// How a server is, as JSON.
#[derive(Serialize)]
struct Found {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

pub(crate) fn health(health: &Health, config: &Config, printer: &mut Printer) -> Ended {
    let answer = asked(config)?.and_then(|client| client.ready());
    let ended = if answer.is_ok() {
        Exit::Success
    } else {
        Exit::Failed
    };
    let error = answer.err();
    if health.json {
        printer.json(&Found {
            ready: error.is_none(),
            code: error.as_ref().map(|error| error.code.name()),
            detail: error.map(|error| error.message),
        })?;
        return Ok(ended);
    }
    printer.plain(match error {
        None => "ready".to_owned(),
        Some(error) => format!("not ready: {}", error.message),
    })?;
    Ok(ended)
}

/// Whoever is asked: the server that the flags or the environment name, else the one that works in the
/// data directory, over its socket.
fn asked(config: &Config) -> Result<Result<Client, Error>, Error> {
    Ok(match config.server()? {
        Some(server) => Client::to(Target::Http(Box::new(server))),
        None => Client::connect(&config.data_dir.join(SOCKET)),
    })
}
