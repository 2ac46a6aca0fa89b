//! A proxy between a store and its server that stops and cuts connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};

use tokio_postgres::config::Host;

use super::super::PostgresUrl;

/// What is done with what a client says from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It goes to the server, and what the server says to the client.
    Pass,
    /// It goes to the server, whose answer never comes: the connection is cut.
    LoseAnswer,
    /// The connection is cut, and it goes to the server when the mode changes again.
    Hold,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    clients: Mutex<Vec<TcpStream>>,
    /// Told of what the server answered to whom nobody listens to any more.
    unheard: Sender<()>,
}

pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    unheard: Receiver<()>,
}

impl Proxy {
    pub(super) fn start(url: &PostgresUrl) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, unheard) = mpsc::channel();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            clients: Mutex::default(),
            unheard: sender,
        });
        let (serving, url) = (Arc::clone(&shared), url.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                client.set_nodelay(true).unwrap();
                serving
                    .clients
                    .lock()
                    .unwrap()
                    .push(client.try_clone().unwrap());
                let (requests, answers) = (Arc::clone(&serving), Arc::clone(&serving));
                let (from, to) = connect(&url);
                let heard = client.try_clone().unwrap();
                std::thread::spawn(move || requests.forward(client, to));
                std::thread::spawn(move || answers.answer(from, heard));
            }
        });
        Self {
            port,
            shared,
            unheard,
        }
    }

    /// The same database by way of the proxy.
    pub(super) fn url(&self, url: &PostgresUrl) -> PostgresUrl {
        let text = format!(
            "postgres://{}@127.0.0.1:{}/{}?schema={}",
            url.config.get_user().unwrap(),
            self.port,
            url.config.get_dbname().unwrap(),
            url.schema()
        );
        text.parse().unwrap()
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
    }

    /// Cuts all connections.
    pub(super) fn cut(&self) {
        for client in self.shared.clients.lock().unwrap().drain(..) {
            // It may be closed already.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Waits until the server has answered to a connection that was cut.
    pub(super) fn wait_for_unheard(&self) {
        self.unheard.recv().unwrap();
    }
}

impl Shared {
    fn forward(&self, mut client: TcpStream, mut server: Box<dyn Write>) {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            let mut mode = self.mode.lock().unwrap();
            if *mode == Mode::Hold {
                client.shutdown(Shutdown::Both).unwrap();
                while *mode == Mode::Hold {
                    mode = self.changed.wait(mode).unwrap();
                }
            }
            drop(mode);
            if server.write_all(&bytes[..read]).is_err() {
                return;
            }
        }
    }

    fn answer(&self, mut server: Box<dyn Read>, mut client: TcpStream) {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(read @ 1..) = server.read(&mut bytes) {
            if *self.mode.lock().unwrap() == Mode::LoseAnswer {
                let _ = client.shutdown(Shutdown::Both);
            }
            if client.write_all(&bytes[..read]).is_err() {
                let _ = self.unheard.send(());
            }
        }
    }
}

fn connect(url: &PostgresUrl) -> (Box<dyn Read + Send>, Box<dyn Write + Send>) {
    match &url.config.get_hosts()[0] {
        Host::Unix(directory) => {
            let server = UnixStream::connect(directory.join(".s.PGSQL.5432")).unwrap();
            (Box::new(server.try_clone().unwrap()), Box::new(server))
        }
        Host::Tcp(name) => {
            let port = url.config.get_ports().first().copied().unwrap_or(5432);
            let server = TcpStream::connect((name.as_str(), port)).unwrap();
            (Box::new(server.try_clone().unwrap()), Box::new(server))
        }
    }
}
