//! A PostgreSQL server for tests, and a schema of its own for each of them.
//!
//! The first test that needs one starts a private server: a data directory of its own, reached by a socket
//! alone, without syncs. All tests of the tree use it, whatever process they run in, and each holds a lock
//! meanwhile; when nobody has held it for a while the server is stopped and removed by a watcher.
//! `KAPELL_TEST_POSTGRES` names another server instead.

pub mod half;
mod own;

use std::fs::{self, File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub use own::OwnServer;

pub use crate::postgres::RawTable;
use crate::postgres::run_sql;
use crate::{PostgresUrl, Result};

/// Names the server to use instead of a private one.
const SERVER: &str = "KAPELL_TEST_POSTGRES";

/// Stops the server when nobody has held the lock, which is its argument, for half a minute.
const WATCHER: &str = r#"while :; do
    flock -x "$0" true; sleep 30
    flock -n -x "$0" sh -c "$1" && exit
done"#;

/// A schema that goes when this is dropped.
#[derive(Debug)]
pub struct TestSchema {
    url: PostgresUrl,
}

/// What a server has written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes of its log, of all schemas.
    pub wal: u64,
    /// Rows of the schema that were written or written anew.
    pub rows: u64,
    /// Bytes of its tables and indexes.
    pub bytes: u64,
}

impl TestSchema {
    /// An empty one; none, with the reason on standard error, where there is no server and none can be
    /// started.
    ///
    /// # Panics
    /// In CI, which has PostgreSQL.
    pub fn new() -> Option<Self> {
        static SERVER: OnceLock<std::result::Result<Server, String>> = OnceLock::new();
        Self::on(SERVER.get_or_init(|| Server::find(Syncs::Never)))
    }

    /// One on a server that syncs what it commits, to measure.
    ///
    /// # Panics
    /// As [`TestSchema::new`].
    pub fn durable() -> Option<Self> {
        static SERVER: OnceLock<std::result::Result<Server, String>> = OnceLock::new();
        Self::on(SERVER.get_or_init(|| Server::find(Syncs::Always)))
    }

    #[allow(clippy::print_stderr, reason = "a test says why it is skipped")]
    fn on(server: &std::result::Result<Server, String>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = match server {
            Ok(server) => server,
            Err(why) => {
                assert!(!in_ci(), "no PostgreSQL, which CI needs: {why}");
                eprintln!("skipped: no PostgreSQL 15 or later ({why})");
                return None;
            }
        };
        let number = NUMBER.fetch_add(1, Relaxed);
        let schema = Self {
            url: server
                .url
                .with_schema(&format!("t{}_{number}", std::process::id())),
        };
        // A test that was killed may have left one of the same name.
        schema.drop_it().expect("the server of the tests answers");
        Some(schema)
    }

    /// Where it is.
    pub fn url(&self) -> &PostgresUrl {
        &self.url
    }

    /// The URL as text.
    pub fn text(&self) -> String {
        self.url.to_string()
    }

    /// Runs statements in it, past all that a store does, and gives the first column of what the last one
    /// finds, as text.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn run(&self, sql: &str) -> Result<Vec<String>> {
        run_sql(&self.url, sql)
    }

    /// A table of bytes that is written past all that a store does.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn raw_table(&self) -> Result<RawTable> {
        self.run("DROP TABLE IF EXISTS raw; CREATE TABLE raw (id bigint PRIMARY KEY, bytes bytea NOT NULL)")?;
        RawTable::open(&self.url)
    }

    /// Rows of the schema that are dead and still there.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn dead_rows(&self) -> Result<u64> {
        let sql = format!(
            "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE schemaname = '{}'",
            self.url.schema()
        );
        let found = self.run(&sql)?;
        Ok(found
            .first()
            .and_then(|dead| dead.parse().ok())
            .unwrap_or(0))
    }

    /// What the server has written in all, and the schema holds.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn written(&self) -> Result<Written> {
        let schema = self.url.schema();
        let ask = |what: &str| -> Result<u64> {
            let found = self.run(&format!("SELECT {what}"))?;
            let number = found.first().and_then(|number| number.parse().ok());
            Ok(number.unwrap_or(0))
        };
        let of_tables = |sum: &str| {
            ask(&format!(
                "coalesce(sum({sum}), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = '{schema}'"
            ))
        };
        Ok(Written {
            wal: ask("(pg_current_wal_insert_lsn() - '0/0')::bigint")?,
            rows: of_tables("n_tup_ins + n_tup_upd")?,
            bytes: of_tables("pg_total_relation_size(relid)")?,
        })
    }

    fn drop_it(&self) -> Result<()> {
        let sql = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.url.schema());
        self.run(&sql).map(drop)
    }
}

impl Drop for TestSchema {
    fn drop(&mut self) {
        // It goes with the server at the latest.
        let _ = self.drop_it();
    }
}

/// Whether a server waits until what it commits is on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Never,
    Always,
}

struct Server {
    url: PostgresUrl,
    /// Shared by all who use a private server.
    _in_use: Option<File>,
}

impl Server {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests are told by their environment"
    )]
    fn find(syncs: Syncs) -> std::result::Result<Self, String> {
        if let Ok(text) = std::env::var(SERVER) {
            let url = text.parse().map_err(|error| format!("{SERVER}: {error}"))?;
            return Ok(Self { url, _in_use: None });
        }
        let place = Place::new(Programs::find()?, syncs)?;
        let in_use = place.lock("users")?;
        in_use.lock_shared().map_err(|error| error.to_string())?;
        let starting = place.lock("start")?;
        starting.lock().map_err(|error| error.to_string())?;
        if !place.answers() {
            place.start()?;
        }
        let url = format!(
            "postgres://postgres@/postgres?host={}",
            place.directory.display()
        );
        Ok(Self {
            url: url.parse().map_err(|error| format!("{url}: {error}"))?,
            _in_use: Some(in_use),
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by their environment"
)]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Where the server's programs are: those of the newest version.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(version, bin)| *version >= 15 && bin.join("initdb").exists())
        .collect();
    found.sort_unstable();
    let elsewhere = [
        "/usr/local/bin",
        "/usr/local/pgsql/bin",
        "/usr/bin",
        "/opt/homebrew/bin",
    ];
    let elsewhere = elsewhere.map(PathBuf::from).into_iter();
    let newest = found.pop().map(|(_, bin)| bin);
    newest.or_else(|| {
        elsewhere
            .into_iter()
            .find(|bin| bin.join("initdb").exists())
    })
}

/// The programs of a server.
#[derive(Debug)]
struct Programs {
    directory: PathBuf,
    /// Root may not run a server: `postgres` does it.
    as_root: bool,
}

impl Programs {
    fn find() -> std::result::Result<Self, String> {
        Ok(Self {
            directory: programs().ok_or("it is not installed")?,
            as_root: rustix::process::geteuid().is_root(),
        })
    }

    /// Lets whoever runs the server write into a directory.
    fn give(&self, directory: &Path) -> std::result::Result<(), String> {
        if self.as_root {
            let directory = directory.display().to_string();
            done(Command::new("chown").args(["postgres", &directory]))?;
        }
        Ok(())
    }

    fn run(&self, name: &str) -> Command {
        let program = self.directory.join(name);
        let mut command = if self.as_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(Path::new("/"));
        command
    }
}

/// The directory of a private server.
struct Place {
    directory: PathBuf,
    programs: Programs,
    syncs: Syncs,
}

impl Place {
    fn new(programs: Programs, syncs: Syncs) -> std::result::Result<Self, String> {
        let user = rustix::process::geteuid();
        let tree = blake3::hash(env!("CARGO_MANIFEST_DIR").as_bytes()).to_hex();
        let kind = if syncs == Syncs::Always {
            "durable-"
        } else {
            ""
        };
        let name = format!("kapell-postgres-{kind}{}-{}", user.as_raw(), &tree[..8]);
        let place = Self {
            directory: std::env::temp_dir().join(name),
            programs,
            syncs,
        };
        fs::create_dir_all(&place.directory).map_err(|error| error.to_string())?;
        place.programs.give(&place.directory)?;
        Ok(place)
    }

    fn lock(&self, name: &str) -> std::result::Result<File, String> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        file.open(self.directory.join(name))
            .map_err(|error| error.to_string())
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.directory.join(".s.PGSQL.5432")).is_ok()
    }

    fn start(&self) -> std::result::Result<(), String> {
        let (directory, data) = (self.directory.display(), self.directory.join("data"));
        // What a server left that was killed is of no use to anybody.
        let _ = fs::remove_dir_all(&data);
        let data = data.display().to_string();
        done(self.programs.run("initdb").args(["-D", &data]).args([
            "-A",
            "trust",
            "-N",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--no-locale",
        ]))?;
        let kind = match self.syncs {
            Syncs::Never => "-c fsync=off -c full_page_writes=off",
            Syncs::Always => "-c shared_buffers=512MB -c max_wal_size=4GB",
        };
        let settings = format!(
            "-c listen_addresses='' -c unix_socket_directories='{directory}' {kind} \
             -c max_connections=300 -c max_locks_per_transaction=256"
        );
        let log = format!("{directory}/data/log");
        let mut start = self.programs.run("pg_ctl");
        done(start.args([
            "-D", &data, "-w", "-s", "-l", &log, "-o", &settings, "start",
        ]))?;
        self.watch(&data)
    }

    /// Leaves a watcher behind, which stops the server when nobody uses it any more.
    fn watch(&self, data: &str) -> std::result::Result<(), String> {
        let stop = self.programs.run("pg_ctl");
        let words = std::iter::once(stop.get_program()).chain(stop.get_args());
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let stop = format!(
            "{} -D '{data}' -m immediate -s stop; rm -rf '{data}'",
            words.join(" ")
        );
        let lock = self.directory.join("users");
        done(
            Command::new("setsid")
                .args(["-f", "sh", "-c", WATCHER])
                .arg(lock)
                .arg(stop),
        )
    }
}

/// Runs a program to its end.
fn done(command: &mut Command) -> std::result::Result<(), String> {
    let name = format!("{command:?}");
    let ended = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    ended
        .success()
        .then_some(())
        .ok_or(format!("{name} failed: {ended}"))
}
