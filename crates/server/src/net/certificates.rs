//! When certificates hold, for whoever looks whether they do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kapell_model::{Error, ErrorCode, Time};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls::{TlsFiles, acceptor};

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Before this it does not.
    pub from: Time,
    /// After this it does not.
    pub until: Time,
}

impl TlsFiles {
    /// When the certificates that a server shows hold, if they can be used with their key.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if a file cannot be read, or they do not belong together.
    pub fn validity(&self) -> Result<Vec<Validity>, Error> {
        acceptor(self)?;
        validity(&self.cert)
    }
}

/// When the certificates of a file of PEM blocks hold, each; there is one at least.
///
/// # Errors
/// [`ErrorCode::BadRequest`] if the file or one of them cannot be read.
pub fn validity(file: &Path) -> Result<Vec<Validity>, Error> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "certificates cannot be read from `{}`: {error}",
            file.display()
        );
        Error::new(ErrorCode::BadRequest, message).hint("a file of PEM blocks is needed")
    };
    let mut all = Vec::new();
    for found in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let found = found.map_err(|error| unreadable(&error))?;
        all.push(of(&found).map_err(|error| unreadable(&error))?);
    }
    if all.is_empty() {
        return Err(unreadable(&"there are none in it"));
    }
    Ok(all)
}

/// Asks whoever verifies certificates about the beginning and the end of time: it says what it misses
/// before it looks at anything else.
fn of(certificate: &CertificateDer<'_>) -> Result<Validity, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let name = ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    let at = |seconds| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier.verify_server_cert(certificate, &[], &name, &[], at)
    };
    let until = match at(u64::MAX) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => not_after,
        Err(error) => return Err(error),
        Ok(_) => UnixTime::since_unix_epoch(Duration::MAX),
    };
    let from = match at(0) {
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => not_before,
        // One that is older than all time here holds from its beginning; what else is wrong with it is
        // for others to say.
        _ => UnixTime::since_unix_epoch(Duration::ZERO),
    };
    let time = |at: UnixTime| {
        let micros = i64::try_from(at.as_secs()).ok();
        Time(
            micros
                .and_then(|at| at.checked_mul(1_000_000))
                .unwrap_or(i64::MAX),
        )
    };
    Ok(Validity {
        from: time(from),
        until: time(until),
    })
}
