//! Certificates that a server shows, and those that whoever asks it trusts.

use std::path::Path;

use kapell_model::config::SERVER_TLS_SELF_SIGNED;
use kapell_model::{Error, Time};
use kapell_node::clock;
use kapell_server::local::Tls;
use kapell_server::net::{self, TlsFiles, Validity};

use super::{Check, fail, ok, warn};
use crate::args::Server;
use crate::config::Config;
use crate::{server, words};

/// Seconds before its end in which a certificate should be renewed.
const SOON: i64 = 30 * 86_400;

/// How many of the certificates of a file are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    /// A server shows a chain of them.
    All,
    /// Whoever trusts several needs the one that signed.
    One,
}

/// The certificate of a server here, if its configuration has one.
pub(super) fn shown(config: &Config) -> Option<Check> {
    const NAME: &str = "certificate";
    let (files, hint) = match server::tls(&Server::default(), &config.settings) {
        Ok(Tls::Plain) => return None,
        Ok(Tls::Files(files)) => (files, "renew it, and start the server anew"),
        Ok(Tls::SelfSigned(_)) => (
            TlsFiles::own(&config.data_dir),
            "a server makes it anew when it starts; clients must be given the new one",
        ),
        Err(error) => return Some(refused(NAME, error)),
    };
    let own = config.settings.is_on(&SERVER_TLS_SELF_SIGNED);
    if own && !files.cert.exists() {
        return Some(ok(NAME, "its own, which a server makes when it starts"));
    }
    Some(match files.validity() {
        Ok(all) => judged(NAME, (&files.cert, Needed::All), &all, hint),
        Err(error) if own => warn(NAME, error.message, hint),
        Err(error) => refused(NAME, error),
    })
}

/// Certificates that are trusted, of the file that is named.
pub(super) fn trusted(file: &Path) -> Check {
    const NAME: &str = "trusted";
    match net::validity(file) {
        Ok(all) => judged(
            NAME,
            (file, Needed::One),
            &all,
            "`--ca` or KAPELL_CA names them: take what signs the server's certificate now",
        ),
        Err(error) => refused(NAME, error),
    }
}

fn refused(name: &'static str, error: Error) -> Check {
    fail(name, error.message, error.hint.unwrap_or_default())
}

fn judged(
    name: &'static str,
    (file, needed): (&Path, Needed),
    all: &[Validity],
    hint: &str,
) -> Check {
    let now = clock::now();
    let holds = |one: &&Validity| one.from <= now && now <= one.until;
    let first = all.iter().map(|one| one.until).min().unwrap_or(now);
    let file = file.display();
    let early = all.iter().map(|one| one.from).max().unwrap_or(now);
    let bad = all.len() - all.iter().filter(holds).count();
    let found = if first < now {
        format!("`{file}` has ended: {}", words::moment(first))
    } else if early > now {
        format!("`{file}` holds from {} only", words::moment(early))
    } else {
        let days = words::count(days(now, first), "day");
        format!("`{file}` ends in {days}: {}", words::moment(first))
    };
    let unusable = match needed {
        Needed::All => bad > 0,
        Needed::One => bad == all.len(),
    };
    if unusable {
        fail(name, found, hint)
    } else if bad > 0 || first.since(now).as_secs() < SOON {
        warn(name, found, hint)
    } else {
        ok(name, found)
    }
}

fn days(now: Time, until: Time) -> u64 {
    u64::try_from(until.since(now).as_secs() / 86_400).unwrap_or(0)
}
