//! `kapell artifact`

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use kapell_model::{Error, ErrorCode};

use crate::args::Artifact;
use crate::config::Config;
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, item, words};

pub(crate) fn artifact(of: &Artifact, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let run = session.find(&of.run)?;
    let step = item::path(session.api(), run, &of.step, of.item.as_deref())?;
    let mut fetch = |to: &mut dyn Write| session.api().artifact(run, &step, &of.name, to);
    match &of.output {
        Some(path) => {
            let bytes = to_file(path, &mut fetch)?;
            let size = words::bytes(bytes);
            printer.plain(format!("{size} written to {}", path.display()))?;
        }
        None if io::stdout().is_terminal() => {
            let message = "a file is not shown on a terminal";
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("`-o FILE` says where it goes, or let it go into a pipe"));
        }
        None => {
            printer.bytes(|out| {
                fetch(out)?;
                out.flush().map_err(unwritten)
            })?;
        }
    }
    session.close();
    Ok(Exit::Success)
}

fn unwritten(error: io::Error) -> Error {
    let message = format!("the output cannot be written: {error}");
    Error::new(ErrorCode::Internal, message)
}

/// Writes a file whole, or not at all.
fn to_file(
    path: &Path,
    fetch: &mut dyn FnMut(&mut dyn Write) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let failed = |error: io::Error| {
        let message = format!("`{}` cannot be written: {error}", path.display());
        Error::new(ErrorCode::BadRequest, message)
    };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let mut file = BufWriter::new(File::create(part).map_err(failed)?);
    let written = fetch(&mut file).and_then(|bytes| {
        file.flush().map_err(failed)?;
        fs::rename(part, path).map_err(failed)?;
        Ok(bytes)
    });
    if written.is_err() {
        // What there is of it is of no use.
        let _ = fs::remove_file(part);
    }
    written
}
