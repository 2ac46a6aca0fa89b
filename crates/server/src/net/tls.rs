//! Certificates of the server.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kapell_model::{Error, ErrorCode};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, as files of PEM blocks.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, then those that signed it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The certificate that a data directory holds for its server, made if it is not there: for `localhost`,
/// the loopback addresses and the address that is listened on.
///
/// # Errors
/// [`ErrorCode::DirectoryUnusable`] if it cannot be written.
pub fn self_signed(
    data_dir: &Path,
    address: SocketAddr,
    names: &[String],
) -> Result<TlsFiles, Error> {
    let folder = data_dir.join("tls");
    let files = TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !address.ip().is_unspecified() {
        all.push(address.ip().to_string());
    }
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    let made = rcgen::generate_simple_self_signed(all)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no certificate: {error}")))?;
    let write = || {
        fs::create_dir_all(&folder)?;
        let mut key = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&files.key)?;
        key.write_all(made.signing_key.serialize_pem().as_bytes())?;
        fs::write(&files.cert, made.cert.pem())
    };
    write().map_err(|error: std::io::Error| {
        Error::new(
            ErrorCode::DirectoryUnusable,
            format!("`{}` cannot be written: {error}", folder.display()),
        )
    })?;
    Ok(files)
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
