//! Certificates of the server.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kapell_model::{Error, ErrorCode, Time};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, as files of PEM blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that signed it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Where a data directory holds a certificate of its own.
    pub fn own(data_dir: &Path) -> Self {
        let folder = data_dir.join("tls");
        Self {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }
}

/// A certificate of our own that ends within this is made anew.
const RENEWED_BEFORE: Duration = Duration::from_hours(30 * 24);

/// The certificate that a data directory holds for its server, made if it is not there, if it lacks one of
/// the names, or if it soon ends: for `localhost`, the loopback addresses, the address that is listened on
/// and other names.
///
/// # Errors
/// [`ErrorCode::BadRequest`] for what is no name, [`ErrorCode::DirectoryUnusable`] if it cannot be written.
pub(crate) fn self_signed(
    data_dir: &Path,
    address: SocketAddr,
    names: &[String],
    now: Time,
) -> Result<TlsFiles, Error> {
    let files = TlsFiles::own(data_dir);
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !address.ip().is_unspecified() {
        all.push(address.ip().to_string());
    }
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    let parsed: Result<Vec<ServerName<'_>>, Error> = all
        .iter()
        .map(|name| {
            ServerName::try_from(name.as_str()).map_err(|_| {
                let message = format!("`{name}` is no name that a certificate can have");
                Error::new(ErrorCode::BadRequest, message)
                    .hint("`--tls-name` takes the name of a host, or an address")
            })
        })
        .collect();
    let ends_after = Duration::from_micros(u64::try_from(now.0).unwrap_or(0)) + RENEWED_BEFORE;
    if is_for(&files, &parsed?, UnixTime::since_unix_epoch(ends_after)) {
        return Ok(files);
    }
    let made = rcgen::generate_simple_self_signed(all)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no certificate: {error}")))?;
    let write = |path: &Path, text: &str, mode| {
        let new = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    let folder = data_dir.join("tls");
    let written = fs::create_dir_all(&folder)
        .and_then(|()| write(&files.key, &made.signing_key.serialize_pem(), 0o600))
        .and_then(|()| write(&files.cert, &made.cert.pem(), 0o644));
    written.map_err(|error: std::io::Error| {
        Error::new(
            ErrorCode::DirectoryUnusable,
            format!("`{}` cannot be written: {error}", folder.display()),
        )
    })?;
    Ok(files)
}

/// True if the files hold a certificate with its key that proves each of these names at a time.
fn is_for(files: &TlsFiles, names: &[ServerName<'_>], at: UnixTime) -> bool {
    let proves = || {
        let cert = CertificateDer::from_pem_file(&files.cert).ok()?;
        acceptor(files).ok()?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.clone()).ok()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.ok()?;
        let proven = |name| {
            let proven = verifier.verify_server_cert(&cert, &[], name, &[], at);
            proven.is_ok()
        };
        names.iter().all(proven).then_some(())
    };
    proves().is_some()
}

/// What speaks TLS with this certificate.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Error> {
    let bad = |path: &Path, error: &dyn std::fmt::Display| {
        let message = format!("`{}` cannot be used for TLS: {error}", path.display());
        Error::new(ErrorCode::BadRequest, message)
            .hint("`--tls-cert` and `--tls-key` name files of PEM blocks that belong together")
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(&files.cert, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| bad(&files.cert, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_our_own_is_kept_until_it_lacks_a_name_or_ends() {
        let place = tempfile::tempdir().unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let made = |names: &[&str], now| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let files = self_signed(place.path(), address, &names, now).unwrap();
            acceptor(&files).unwrap();
            fs::read_to_string(files.cert).unwrap()
        };
        let now = Time(1_800_000_000_000_000);
        let first = made(&[], now);
        assert_eq!(made(&[], now), first);
        assert_eq!(made(&["localhost"], now), first);
        let named = made(&["kapell.example.org", "10.1.2.3"], now);
        assert_ne!(named, first);
        assert_eq!(made(&["10.1.2.3"], now), named, "it has this name too");
        // Nothing is valid at the end of time.
        assert_ne!(made(&[], Time(i64::MAX)), named);
        let last = made(&[], now);
        fs::write(place.path().join("tls/key.pem"), "no key").unwrap();
        assert_ne!(made(&[], now), last, "a key that is broken is replaced");
        let refused = self_signed(place.path(), address, &["no name".to_owned()], now);
        assert_eq!(refused.unwrap_err().code, ErrorCode::BadRequest);
    }
}
