//! A PostgreSQL server of somebody's own, which may be killed and started again, and whose disk may be small.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Programs, done};

/// Stops when it is dropped.
#[derive(Debug)]
pub struct OwnServer {
    programs: Programs,
    data: PathBuf,
    log: PathBuf,
    settings: String,
    address: (String, u16),
}

impl OwnServer {
    /// Makes one in an empty or missing directory, and starts it. It listens at that address and port, and trusts
    /// whoever comes from the same network (`/24`). What it commits is synced.
    ///
    /// # Errors
    /// Why it is not there, as text: that PostgreSQL is not installed, or what its programs said.
    pub fn start(directory: &Path, (address, port): (&str, u16)) -> Result<Self, String> {
        let programs = Programs::find()?;
        fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        programs.give(directory)?;
        let server = Self {
            programs,
            data: directory.join("data"),
            log: directory.join("log"),
            settings: format!(
                "-c listen_addresses={address} -c port={port} -c unix_socket_directories='' \
                 -c max_connections=300 -c max_locks_per_transaction=256 -c max_wal_size=128MB -c min_wal_size=32MB"
            ),
            address: (address.to_owned(), port),
        };
        let data = server.data.display().to_string();
        let mut make = server.programs.run("initdb");
        done(
            make.args(["-D", &data, "-A", "trust", "-U", "postgres", "-E", "UTF8"])
                .args(["--no-locale", "--wal-segsize=4"]),
        )?;
        let access = server.data.join("pg_hba.conf");
        let trust = format!("local all all trust\nhost all all {address}/24 trust\n");
        fs::write(access, trust).map_err(|error| error.to_string())?;
        server.begin()?;
        Ok(server)
    }

    /// The URL of its database. It speaks no TLS.
    pub fn url(&self) -> String {
        let (address, port) = &self.address;
        format!("postgres://postgres@{address}:{port}/postgres?sslmode=disable")
    }

    /// Ends it as a crash would, without a word to those who are connected, and starts it again.
    ///
    /// # Errors
    /// What its programs said.
    pub fn crash(&self) -> Result<(), String> {
        self.end()?;
        self.begin()
    }

    /// Starts it again if it has ended by itself, as one whose disk is full may.
    ///
    /// # Errors
    /// What its programs said.
    pub fn revive(&self) -> Result<(), String> {
        let data = self.data.display().to_string();
        let status = done(
            self.programs
                .run("pg_ctl")
                .args(["-D", &data, "-s", "status"]),
        );
        if status.is_ok() { Ok(()) } else { self.begin() }
    }

    /// What it said last.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn begin(&self) -> Result<(), String> {
        let (data, log) = (
            self.data.display().to_string(),
            self.log.display().to_string(),
        );
        let words = [
            "-D",
            &data,
            "-w",
            "-s",
            "-l",
            &log,
            "-o",
            &self.settings,
            "start",
        ];
        done(self.programs.run("pg_ctl").args(words))
    }

    fn end(&self) -> Result<(), String> {
        let data = self.data.display().to_string();
        done(
            self.programs
                .run("pg_ctl")
                .args(["-D", &data, "-s", "-m", "immediate", "stop"]),
        )
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.end();
    }
}
