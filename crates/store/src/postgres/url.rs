//! Where a database is, as users write it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, Result};

/// The schema where the URL names none.
const SCHEMA: &str = "kapell";

/// Bytes of an identifier of PostgreSQL.
const SCHEMA_BYTES: usize = 63;

/// How long connecting to one host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long what was sent may go without an answer of the other machine.
const UNANSWERED: Duration = Duration::from_secs(30);

/// A database and the schema in it: `postgres://user:password@host:port/database?schema=name`.
///
/// Over a network the connection is encrypted and the certificate of the server is checked, by the
/// authorities that browsers trust or those of the file `sslrootcert`; `sslmode=disable` does without.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: Config,
    pub(super) schema: String,
    authorities: Option<PathBuf>,
}

impl PostgresUrl {
    /// True if the text is meant to be one.
    pub fn looks_like_one(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    /// The name of the schema.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The same database, another schema.
    #[must_use]
    pub fn with_schema(&self, schema: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            ..self.clone()
        }
    }

    pub(super) fn tls(&self) -> Result<MakeRustlsConnect> {
        let roots = match &self.authorities {
            Some(file) => authorities(file)?,
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Unusable(format!("TLS cannot be used: {error}")))?;
        Ok(MakeRustlsConnect::new(
            config.with_root_certificates(roots).with_no_client_auth(),
        ))
    }
}

/// Never with the password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let mut sockets = String::new();
        for (place, host) in self.config.get_hosts().iter().enumerate() {
            match host {
                Host::Tcp(name) => {
                    let comma = if place > 0 { "," } else { "" };
                    write!(f, "{comma}{name}")?;
                    let ports = self.config.get_ports();
                    if let Some(port) = ports.get(place).or(ports.first()) {
                        write!(f, ":{port}")?;
                    }
                }
                Host::Unix(path) => sockets = format!("host={}&", path.display()),
            }
        }
        let name = self.config.get_dbname().unwrap_or_default();
        write!(f, "/{name}?{sockets}schema={}", self.schema)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PostgresUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut schema, mut mode, mut authorities) = (SCHEMA.to_owned(), None, None);
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "schema" => schema = decoded(value)?,
                "sslmode" => mode = Some(decoded(value)?),
                "sslrootcert" => authorities = Some(PathBuf::from(decoded(value)?)),
                _ => others.push(pair),
            }
        }
        if schema.is_empty() || schema.len() > SCHEMA_BYTES || schema.contains(['\0', '"']) {
            return Err(bad(&format!("`{schema}` is no name of a schema")));
        }
        let mut config: Config = format!("{base}?{}", others.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| bad(&cause(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(bad("it names no host"));
        }
        config.ssl_mode(ssl_mode(mode.as_deref(), &config)?);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        config
            .application_name("kapell")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(UNANSWERED)
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(UNANSWERED);
        Ok(Self {
            config,
            schema,
            authorities,
        })
    }
}

fn ssl_mode(mode: Option<&str>, config: &Config) -> Result<SslMode> {
    match mode {
        Some("disable") => Ok(SslMode::Disable),
        None if config.get_hosts().iter().all(is_here) => Ok(SslMode::Disable),
        Some("require" | "verify-ca" | "verify-full") | None => Ok(SslMode::Require),
        Some(other) => Err(bad(&format!(
            "`sslmode={other}` leaves open whether the connection is safe: `verify-full` or `disable`"
        ))),
    }
}

/// True if what is sent there does not leave the machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse()
                    .is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

fn authorities(file: &Path) -> Result<RootCertStore> {
    let unusable = |why: &dyn fmt::Display| {
        Error::Unusable(format!(
            "the certificates in `{}` cannot be used: {why}",
            file.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"there is none"));
    }
    Ok(roots)
}

/// What is behind `%` is two digits of a byte.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| bad(&format!("`{text}` ends in the middle of a `%`")))?);
        rest = rest.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| bad(&format!("`{text}` is no text")))
}

/// The innermost reason of an error.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn bad(why: &str) -> Error {
    Error::Unusable(format!(
        "that is no URL of a PostgreSQL database: {why}; expected postgres://user@host:5432/database?schema=kapell"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PostgresUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_says_where_and_never_with_which_password() {
        let url =
            url("postgres://ann:s%20ecret@db.example:5433/prod?schema=flows%2d1&connect_timeout=2");
        assert_eq!(
            url.to_string(),
            "postgres://ann@db.example:5433/prod?schema=flows-1"
        );
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(url.config.get_password(), Some(&b"s ecret"[..]));
        assert_eq!(
            url.config.get_connect_timeout(),
            Some(&Duration::from_secs(2))
        );
        assert_eq!(url.schema(), "flows-1");
        let socket = "postgres://ann@/prod?host=/run/postgresql&schema=kapell";
        assert_eq!(self::url(socket).to_string(), socket);
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted() {
        for (text, mode) in [
            ("postgres://a@db.example/x", SslMode::Require),
            ("postgres://a@127.0.0.1/x", SslMode::Disable),
            ("postgresql://a@localhost,db.example/x", SslMode::Require),
            ("postgres://a@/x?host=/run/postgresql", SslMode::Disable),
            (
                "postgres://a@db.example/x?sslmode=disable",
                SslMode::Disable,
            ),
            (
                "postgres://a@localhost/x?sslmode=verify-full",
                SslMode::Require,
            ),
        ] {
            assert_eq!(url(text).config.get_ssl_mode(), mode, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        for (text, why) in [
            ("postgres://a@h/x?sslmode=prefer", "leaves open"),
            ("postgres://a@h/x?schema=", "no name of a schema"),
            ("postgres://a@h/x?schema=%2", "middle of"),
            ("postgres://a@h/x?colour=red", "colour"),
            ("postgres://", "names no host"),
        ] {
            let error = text.parse::<PostgresUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
