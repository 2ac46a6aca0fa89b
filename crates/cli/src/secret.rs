//! `kapell secret`
//!
//! A value comes from a terminal without being shown, or from standard input; never from an argument,
//! which every process of the machine could read.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use kapell_api::http::{SecretPage, SetSecret};
use kapell_model::{Error, ErrorCode, limits};
use kapell_node::clock;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::args::Secret;
use crate::config::Config;
use crate::list::ago;
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit};

pub(crate) fn secret(secret: &Secret, config: &Config, printer: &mut Printer) -> Ended {
    match secret {
        Secret::Set(set) => self::set(&set.name, config, printer),
        Secret::List(list) => self::list(list.json, config, printer),
        Secret::Delete(delete) => {
            let session = session::open(config, Need::Record)?;
            session.api().delete_secret(&delete.name)?;
            session.stop(Duration::ZERO);
            printer.plain(format!("the secret `{}` is gone", delete.name))?;
            Ok(Exit::Success)
        }
        Secret::Rotate => {
            let session = session::open(config, Need::Record)?;
            let rotated = session.api().rotate_secrets()?;
            session.stop(Duration::ZERO);
            printer.plain(format!(
                "sealed again with the key {}: {}",
                rotated.key,
                crate::words::count(rotated.secrets as u64, "secret")
            ))?;
            Ok(Exit::Success)
        }
    }
}

fn set(name: &str, config: &Config, printer: &mut Printer) -> Ended {
    let value = if std::io::stdin().is_terminal() {
        typed(name, printer)?
    } else {
        piped()?
    };
    let session = session::open(config, Need::Record)?;
    let by = config.user.clone();
    session.api().set_secret(name, &SetSecret { value, by })?;
    session.stop(Duration::ZERO);
    printer.plain(format!("the secret `{name}` is set"))?;
    Ok(Exit::Success)
}

fn list(json: bool, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let mut all = SecretPage::default();
    loop {
        let after = all.next.take().unwrap_or_default();
        let page = session.api().secrets(&after, limits::LIST_PAGE)?;
        all.secrets.extend(page.secrets);
        all.next = page.next;
        if all.next.is_none() {
            break;
        }
    }
    session.close();
    if json {
        printer.json(&all)?;
        return Ok(Exit::Success);
    }
    if all.secrets.is_empty() {
        printer.plain("no secrets: `kapell secret set NAME` sets one")?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    let lengths = all.secrets.iter().map(|secret| secret.name.len());
    let names = lengths.max().unwrap_or(0);
    let rows = all.secrets.iter().map(|secret| {
        let mut line = Line::default().with(BOLD, &secret.name);
        line.pad(names + 2);
        line.push(PLAIN, ago(secret.set_at, now));
        line.pad(names + 24);
        line.with(DIM, format!("by {}", secret.by))
    });
    printer.lines(&rows.collect::<Vec<_>>())?;
    Ok(Exit::Success)
}

fn bad(what: &str) -> Error {
    Error::new(ErrorCode::BadRequest, what).hint("`kapell secret set NAME < FILE` reads a file")
}

/// What comes on standard input, without the line break at its end.
fn piped() -> Result<String, Error> {
    let mut value = String::new();
    let most = limits::SECRET_BYTES as u64 + 2;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_string(&mut value)
        .map_err(|error| bad(&format!("the value cannot be read: {error}")))?;
    let line = value.strip_suffix('\n').unwrap_or(&value);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A line that is typed without being shown.
fn typed(name: &str, printer: &mut Printer) -> Result<String, Error> {
    printer.error_text(&format!("value of `{name}`, which is not shown: "));
    let unseen = Unseen::begin().map_err(|error| bad(&format!("no way to hide it: {error}")))?;
    let mut bytes = Vec::new();
    for byte in std::io::stdin().lock().bytes() {
        match byte.map_err(|error| bad(&format!("the value cannot be read: {error}")))? {
            b'\n' | b'\r' | 4 => break,
            3 => return Err(bad("nothing was set")),
            8 | 127 => {
                // A whole character, as it was typed.
                while bytes.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            byte if bytes.len() <= limits::SECRET_BYTES => bytes.push(byte),
            _ => return Err(bad("the value is too long to be typed")),
        }
    }
    drop(unseen);
    printer.error_text("\n");
    String::from_utf8(bytes).map_err(|_| bad("the value is no text in UTF-8"))
}

/// The terminal shows nothing and gives every key at once, until this is dropped.
struct Unseen(Termios);

impl Unseen {
    fn begin() -> rustix::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut unseen = before.clone();
        let shown = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        unseen.local_modes.remove(shown);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &unseen)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // Nothing is left to try if this fails.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
