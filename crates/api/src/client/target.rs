//! Who is asked: the socket of a data directory, or a server at an address.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use kapell_model::{Error, ErrorCode};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Result;
use crate::http::BASE;

/// A connection that requests go over, one after another.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// How long it may take to connect, the handshake of TLS included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The same at one of several addresses: a machine that is off says nothing.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);

/// Addresses of one cluster that a client knows.
const ADDRESSES: usize = 32;

/// The header in which a node of a cluster says where all of them are, with commas between.
pub const NODES_HEADER: &str = "kapell-nodes";

/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who is asked.
#[derive(Clone)]
pub enum Target {
    /// The process that holds the data directory of this socket.
    Socket(PathBuf),
    /// A server.
    Http(Box<HttpServer>),
}

/// A server at an address, or one of several that are nodes of one cluster: whoever answers is as good as any
/// other, so the next one is tried where nobody does.
#[derive(Clone)]
pub struct HttpServer {
    /// As it was given, for messages.
    url: String,
    tls: Option<Arc<ClientConfig>>,
    token: Option<String>,
    addresses: Arc<Mutex<Addresses>>,
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    secure: bool,
    host: String,
    port: u16,
}

/// All addresses that are known.
struct Addresses {
    /// Those that were given, then those that nodes told of.
    all: Vec<Address>,
    given: usize,
    /// The one that answered last.
    at: usize,
}

impl Address {
    fn read(url: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(
                ErrorCode::BadRequest,
                format!("`{url}` is no address of a server: {why}"),
            )
            .hint("an address looks like http://127.0.0.1:7420 or https://kapell.example.com")
        };
        let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("it begins with neither `http://` nor `https://`")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it has a path"));
        }
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(bad("it names a user; a token goes into KAPELL_TOKEN"));
        }
        Ok(Self {
            secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl HttpServer {
    /// A server at `http://host:port` or `https://host:port`, or at one of several such addresses with commas
    /// between, whose certificate the system trusts or one of the file `ca` (PEM) has signed. The token is sent
    /// with every request.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] for what is no such address or token, [`ErrorCode::FileNotFound`] if
    /// certificates cannot be read.
    pub fn new(url: &str, token: Option<String>, ca: Option<&Path>) -> Result<Self> {
        let all = url.split(',').map(|url| Address::read(url.trim()));
        let all = all.collect::<Result<Vec<_>>>()?;
        if all.len() > ADDRESSES {
            let message = format!("{} addresses of a server are given", all.len());
            return Err(Error::new(ErrorCode::LimitReached, message).hint(format!(
                "at most {ADDRESSES}: each node tells of the others"
            )));
        }
        if token.as_ref().is_some_and(|token| {
            token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic())
        }) {
            return Err(Error::new(
                ErrorCode::BadRequest,
                "the token holds characters that no token has",
            )
            .hint("`kapell token create` prints tokens; look for a line end in KAPELL_TOKEN"));
        }
        let secure = all.iter().any(|address| address.secure);
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            tls: secure.then(|| trust(ca)).transpose()?,
            token,
            addresses: Arc::new(Mutex::new(Addresses {
                given: all.len(),
                all,
                at: 0,
            })),
        })
    }

    /// Its address, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes what a node says of where others are ([`NODES_HEADER`]). Where all that was given is encrypted,
    /// nothing else is believed.
    pub fn learn(&self, said: &str) {
        let mut known = self.addresses.lock();
        let given = known.given;
        let encrypted = known.all[..given].iter().all(|address| address.secure);
        let current = known.all[known.at].clone();
        known.all.truncate(given);
        for address in said
            .split(',')
            .filter_map(|url| Address::read(url.trim()).ok())
        {
            let usable = if address.secure {
                self.tls.is_some()
            } else {
                !encrypted
            };
            if usable && !known.all.contains(&address) && known.all.len() < ADDRESSES {
                known.all.push(address);
            }
        }
        let at = known.all.iter().position(|address| *address == current);
        known.at = at.unwrap_or(0);
    }

    /// True if there is somebody else to ask than who was asked last: from now on that one is.
    pub(super) fn next(&self) -> bool {
        let mut known = self.addresses.lock();
        known.at = (known.at + 1) % known.all.len();
        known.all.len() > 1
    }

    fn authority(&self) -> String {
        let known = self.addresses.lock();
        known.all[known.at].authority()
    }

    /// All that is known, in the order in which they are tried.
    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<String> {
        let known = self.addresses.lock();
        known.all.iter().map(Address::authority).collect()
    }

    async fn wire(&self) -> std::io::Result<Box<dyn Wire>> {
        let (all, at) = {
            let known = self.addresses.lock();
            (known.all.clone(), known.at)
        };
        let mut last = None;
        for place in 0..all.len() {
            let address = &all[(at + place) % all.len()];
            let connected = if all.len() == 1 {
                self.connect(address).await
            } else {
                let soon = tokio::time::timeout(ADDRESS_PATIENCE, self.connect(address));
                soon.await.unwrap_or_else(|late| Err(late.into()))
            };
            match connected {
                Ok(wire) => {
                    let mut known = self.addresses.lock();
                    if let Some(at) = known.all.iter().position(|known| known == address) {
                        known.at = at;
                    }
                    return Ok(wire);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
    }

    async fn connect(&self, address: &Address) -> std::io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = self.tls.as_ref().filter(|_| address.secure) else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(tls));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// A connection, whatever it goes over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What is trusted: certificates of a file, or those of the system.
fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let system = || {
        SYSTEM_ROOTS
            .map(Path::new)
            .into_iter()
            .find(|file| file.exists())
    };
    let Some(file) = ca.or_else(system) else {
        return Err(Error::new(
            ErrorCode::FileNotFound,
            "this system has no file of certificates to trust",
        )
        .hint("name one with `--ca` or KAPELL_CA"));
    };
    let unreadable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "certificates cannot be read from `{}`: {error}",
            file.display()
        );
        Error::new(ErrorCode::FileNotFound, message).hint("a file of PEM blocks is needed")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        // A system's file may hold some that are too old to be read.
        if let Err(error) = roots.add(certificate)
            && ca.is_some()
        {
            return Err(unreadable(&error));
        }
    }
    if roots.is_empty() {
        return Err(unreadable(&"there are none in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn over<S>(stream: S) -> std::io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Whether requests are taken.
pub(super) const READY: &str = "/health/ready";

impl Target {
    /// A connection over which nothing was said yet.
    pub async fn wire(&self) -> std::io::Result<Box<dyn Wire>> {
        match self {
            Self::Socket(socket) => {
                let (path, _directory) = short(socket)?;
                Ok(Box::new(UnixStream::connect(&path).await?))
            }
            Self::Http(server) => server.wire().await,
        }
    }

    /// The token that is shown there.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Socket(_) => None,
            Self::Http(server) => server.token.as_deref(),
        }
    }

    /// Takes what a node says of where others are.
    pub fn learn(&self, said: &str) {
        match self {
            Self::Socket(_) => {}
            Self::Http(server) => server.learn(said),
        }
    }

    /// True if there is somebody else to ask: from now on that one is.
    pub(super) fn next(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            Self::Http(server) => server.next(),
        }
    }

    pub(super) async fn open(&self) -> Result<Connection> {
        let open = async { over(self.wire().await?).await };
        match tokio::time::timeout(CONNECT_PATIENCE, open).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&"it does not answer")),
        }
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &str,
    ) -> Result<Request<Full<Bytes>>> {
        let (host, token) = match self {
            Self::Socket(_) => ("kapell".to_owned(), None),
            Self::Http(server) => (server.authority(), server.token.as_ref()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(match path {
                // What supervisors ask stands beside the API.
                READY => READY.to_owned(),
                path => format!("{BASE}{path}"),
            })
            .header(HOST, host)
            .header(CONTENT_TYPE, kind);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request
            .body(Full::new(body))
            .map_err(|error| Error::new(ErrorCode::BadRequest, error.to_string()))
    }

    /// Nobody answers there.
    pub(super) fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        match self {
            Self::Socket(socket) => Error::new(
                ErrorCode::StoreUnavailable,
                format!("nobody answers at `{}`: {error}", socket.display()),
            )
            .hint("the process that holds the data directory may just have ended: try again"),
            Self::Http(server) => {
                let (url, error) = (&server.url, error.to_string());
                let (message, hint) = if error.contains("certificate") {
                    (
                        format!("the server at `{url}` cannot be trusted: {error}"),
                        "`--ca FILE` or KAPELL_CA names the certificate to trust, such as the server's own of `--tls-self-signed`",
                    )
                } else if error.contains("invalid HTTP version") {
                    (
                        format!("`{url}` does not speak plain HTTP: {error}"),
                        "a server with a certificate is at `https://…`",
                    )
                } else {
                    (
                        format!("nobody answers at `{url}`: {error}"),
                        "`kapell server` must run there; `--server` or KAPELL_SERVER names the address",
                    )
                };
                Error::new(ErrorCode::ServerUnreachable, message).hint(hint)
            }
        }
    }
}

/// Bytes of an address of a Unix socket.
const ADDRESS_BYTES: usize = 100;

/// A path to a socket that is short enough for its address: through the open directory if need be.
/// The directory stays open as long as what is returned lives.
pub fn short(socket: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    if socket.as_os_str().len() <= ADDRESS_BYTES {
        return Ok((socket.to_owned(), None));
    }
    let directory = std::fs::File::open(socket.parent().unwrap_or(Path::new(".")))?;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(socket.file_name().unwrap_or_default());
    Ok((path, Some(directory)))
}
