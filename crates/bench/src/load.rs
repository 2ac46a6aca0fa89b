//! Requests over plain connections: what a client of any language sends, at next to no cost of its own, so
//! that the server is what is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kapell_api::http::BASE;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A connection that is kept.
pub(crate) struct Connection {
    input: BufReader<TcpStream>,
    output: TcpStream,
    /// The last answer's body.
    body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let output = TcpStream::connect(server)?;
        output.set_nodelay(true)?;
        output.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            input: BufReader::with_capacity(64 << 10, output.try_clone()?),
            output,
            body: Vec::new(),
        })
    }

    /// The body of the answer to a request, which must be one of success.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.output.write_all(request)?;
        let status = self.line()?;
        let mut length = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        self.body
            .resize(length.context("an answer without a length")?, 0);
        self.input.read_exact(&mut self.body)?;
        ensure!(
            status.starts_with("HTTP/1.1 200 "),
            "{status}: {}",
            String::from_utf8_lossy(&self.body)
        );
        Ok(&self.body)
    }

    /// The next line of an answer, without its end.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("the server hung up");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Asks for a stream; what is sent is read line by line.
    pub(crate) fn stream(&mut self, path: &str) -> Result<()> {
        self.output.write_all(&get(path))?;
        let status = self.line()?;
        ensure!(status.starts_with("HTTP/1.1 200 "), "{status}");
        while !self.line()?.is_empty() {}
        Ok(())
    }
}

/// A request for what is at a path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A request with a body, below the API's address.
pub(crate) fn post(path: &str, body: &impl serde::Serialize) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(body)?;
    let head = format!(
        "POST {BASE}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(&body);
    Ok(request)
}

/// Answers a second where a number of connections send the same request `n` times in all.
pub(crate) fn rate(
    server: SocketAddr,
    connections: usize,
    n: usize,
    request: &[u8],
) -> Result<f64> {
    let all = (0..connections)
        .map(|_| Connection::open(server))
        .collect::<Result<Vec<_>>>()?;
    let sent = AtomicUsize::new(0);
    let since = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .into_iter()
            .map(|mut connection| {
                let sent = &sent;
                scope.spawn(move || -> Result<()> {
                    while sent.fetch_add(1, Ordering::Relaxed) < n {
                        connection.ask(request)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| bail!("a connection's thread panicked"))
        })
    })?;
    Ok(n as f64 / since.elapsed().as_secs_f64())
}
