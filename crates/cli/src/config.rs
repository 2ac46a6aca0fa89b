//! What the file of the configuration, the environment and the flags say. The one place that reads the
//! environment.

mod dispatch;
mod settings;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kapell_api::client::HttpServer;
use kapell_model::config as keys;
use kapell_model::spec::Retention;
use kapell_model::{Error, ErrorCode, limits};
use kapell_node::engine::topic::Keeps;
use kapell_server::notify::{self, ChannelSettings, NotifySettings, Receivers};
use kapell_server::{KeySource, Options, TracesTo};
use kapell_worker::{Capacity, HttpRules};

use crate::args::{Global, When};

pub(crate) use settings::{From, Settings};

/// Secrets of steps come from variables that begin so: `KAPELL_SECRET_TOKEN` is `secrets.TOKEN`.
const SECRET: &str = "KAPELL_SECRET_";

/// What steps inherit, beside what begins with one of [`INHERITED_STARTS`].
const INHERITED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];
const INHERITED_STARTS: [&str; 5] = ["LC_", "XDG_", "PIP_", "UV_", "PYTHON"];

/// What a command knows of its surroundings.
#[expect(clippy::struct_excessive_bools, reason = "each says something else")]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// The URL of the database that holds the store, if it is not in the data directory.
    pub(crate) store: Option<String>,
    /// The server that is asked instead, and certificates to trust.
    server: Option<String>,
    ca: Option<PathBuf>,
    /// True if the data directory is where it always is.
    pub(crate) data_dir_is_default: bool,
    /// Who runs this command.
    pub(crate) user: String,
    /// Colours on standard output.
    pub(crate) color: bool,
    /// Colours on standard error.
    pub(crate) error_color: bool,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    /// How long a worker in another process that is not heard of keeps what it runs.
    pub(crate) lease: Duration,
    http: HttpRules,
    /// Every key of the configuration.
    pub(crate) settings: Settings,
    columns: Option<usize>,
}

#[expect(clippy::disallowed_methods, reason = "this is the one module that may")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Names of variables that are for Kapell.
fn own_variables() -> Vec<String> {
    env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("KAPELL_"))
        .collect()
}

impl Config {
    /// From the flags, then the environment; and what is wrong with the environment.
    pub(crate) fn new(global: &Global) -> (Self, Option<Error>) {
        let file = global
            .config
            .clone()
            .or_else(|| variable("KAPELL_CONFIG").map(PathBuf::from));
        let (mut settings, misset) = match Settings::read(file, variable, &own_variables()) {
            Ok(settings) => (settings, None),
            Err(error) => (Settings::default(), Some(error)),
        };
        if let Some(data_dir) = &global.data_dir {
            let value = keys::Value::Text(data_dir.display().to_string());
            settings.flag(&keys::DATA_DIR, value);
        }
        if let Some(url) = &global.store {
            settings.flag(&keys::STORE, keys::Value::Text(url.clone()));
        }
        let (http, misset) = match (http_rules(&settings), misset) {
            (Ok(rules), misset) => (rules, misset),
            (Err(error), misset) => (HttpRules::default(), misset.or(Some(error))),
        };
        let plain =
            variable("NO_COLOR").is_some() || variable("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !plain,
        };
        let terminal = std::io::stdout().is_terminal();
        let config = Self {
            store: settings.some_text(&keys::STORE),
            server: global.server.clone().or_else(|| variable("KAPELL_SERVER")),
            ca: global
                .ca
                .clone()
                .or_else(|| variable("KAPELL_CA").map(PathBuf::from)),
            data_dir_is_default: settings.get(&keys::DATA_DIR).1 == From::Default,
            // A flag may name what is no text.
            data_dir: global
                .data_dir
                .clone()
                .unwrap_or_else(|| settings.text(&keys::DATA_DIR).into()),
            user: variable("USER")
                .or_else(|| variable("LOGNAME"))
                .unwrap_or_else(kapell_server::auth::own_name),
            color: color(terminal),
            error_color: color(std::io::stderr().is_terminal()),
            terminal: terminal && variable("TERM").is_none_or(|term| term != "dumb"),
            lease: lease(variable("KAPELL_WORKER_LEASE").as_deref()),
            http,
            settings,
            columns: variable("COLUMNS")
                .and_then(|columns| columns.parse().ok())
                .filter(|columns| *columns > 0),
        };
        (config, misset)
    }

    /// The server that is asked instead of a data directory, with the token for it.
    pub(crate) fn server(&self) -> Result<Option<HttpServer>, Error> {
        let Some(url) = &self.server else {
            return Ok(None);
        };
        HttpServer::new(url, variable("KAPELL_TOKEN"), self.ca.as_deref()).map(Some)
    }

    /// The address of that server as it was given: several nodes may be named.
    pub(crate) fn server_given(&self) -> Option<String> {
        self.server.clone()
    }

    /// The certificates that are trusted instead of the system's.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// True if there is something to look at.
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some() || kapell_server::local::database(&self.data_dir).exists()
    }

    /// Columns and rows to write on. They change while a command runs.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|size| size.ws_col > 0);
        let columns = size
            .map(|size| usize::from(size.ws_col))
            .or(self.columns)
            .unwrap_or(100);
        (
            columns.max(8),
            size.map_or(24, |size| usize::from(size.ws_row)).max(5),
        )
    }

    /// Columns that rows of a table may take: none but on a terminal, where they would wrap.
    pub(crate) fn table(&self) -> Option<usize> {
        (self.terminal || self.columns.is_some()).then(|| self.size().0)
    }

    /// What the worker of this process has to give.
    pub(crate) fn capacity(&self, slots: Option<u16>) -> Capacity {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let said = |key| Some(self.settings.number(key)).filter(|number| *number > 0);
        Capacity {
            cpu_millis: said(&keys::WORKER_CPU).unwrap_or(cores as u64) * 1_000,
            memory_bytes: said(&keys::WORKER_MEMORY)
                .or_else(memory)
                .unwrap_or(4 << 30),
            gpus: gpus(),
            slots: slots
                .map(usize::from)
                .or(usize::try_from(self.settings.number(&keys::WORKER_SLOTS)).ok())
                .filter(|slots| *slots > 0)
                .unwrap_or_else(|| (2 * cores).max(8)),
        }
    }

    /// Queues whose work is done in this process: as the flag says, else the configuration.
    pub(crate) fn queues(&self, flag: &[String]) -> Result<Vec<String>, Error> {
        let names = if flag.is_empty() {
            self.settings.list(&keys::WORKER_QUEUES)
        } else {
            flag.to_vec()
        };
        let is_name = |name: &String| !name.is_empty() && name.len() <= limits::NAME_CHARS;
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let message = format!("`{name}` is no name of a queue");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("as in `--queues default,gpu` or `worker.queues` of the configuration"));
        }
        Ok(names)
    }

    /// What is said of the worker of this process: as the flag says, else the configuration.
    pub(crate) fn labels(&self, flag: &[String]) -> Vec<String> {
        match flag {
            [] => self.settings.list(&keys::WORKER_LABELS),
            flag => flag.to_vec(),
        }
    }

    /// The pool of the worker of this process: as the flag says, else the configuration.
    pub(crate) fn pool(&self, flag: Option<&String>) -> Option<String> {
        let set = || self.settings.some_text(&keys::WORKER_POOL);
        flag.cloned().or_else(set)
    }

    /// What the worker of this process offers: as the flag says, else the configuration.
    pub(crate) fn resources(&self, flag: &[String]) -> Result<BTreeMap<String, u64>, Error> {
        let given = match flag {
            [] => self.settings.list(&keys::WORKER_RESOURCES),
            flag => flag.to_vec(),
        };
        amounts(&given)
    }

    /// What `http` steps may reach.
    pub(crate) fn http_rules(&self) -> HttpRules {
        self.http.clone()
    }

    /// Who may be told of runs.
    pub(crate) fn receivers(&self) -> Result<Receivers, Error> {
        let mut all = NotifySettings {
            public_url: self.settings.text(&keys::NOTIFY_PUBLIC_URL),
            channels: BTreeMap::new(),
        };
        for (channel, key, value) in self.settings.named("notify.channels") {
            let new = || ChannelSettings {
                url: String::new(),
                kind: notify::Kind::Json,
                template: None,
                headers: BTreeMap::new(),
            };
            let channel = all.channels.entry(channel.to_owned()).or_insert_with(new);
            let text = value.to_string();
            match key {
                "url" => channel.url = text,
                "kind" if text == "slack" => channel.kind = notify::Kind::Slack,
                "template" => channel.template = Some(text).filter(|text| !text.is_empty()),
                "headers" => channel.headers = headers(&text).into_iter().collect(),
                _ => {}
            }
        }
        Receivers::new(&all)
    }

    /// What a data directory is opened with.
    pub(crate) fn options(&self) -> Options {
        let settings = &self.settings;
        let given = settings.some_text(&keys::SECRETS_KEY).map(KeySource::Given);
        let file = settings.some_text(&keys::SECRETS_KEY_FILE);
        let runs = u32::try_from(settings.number(&keys::RETENTION_RUNS)).unwrap_or(u32::MAX);
        Options {
            store: self.store.clone(),
            node: None,
            blob_cache: settings.number(&keys::BLOB_CACHE),
            retention: Retention {
                age: Some(settings.span(&keys::RETENTION_AGE)).filter(|age| !age.is_zero()),
                runs: Some(runs).filter(|runs| *runs > 0),
            },
            keeps: Keeps {
                micros: i64::try_from(settings.span(&keys::SIGNALS_KEEP).as_micros())
                    .unwrap_or(i64::MAX)
                    .max(60_000_000),
                signals: usize::try_from(settings.number(&keys::SIGNALS_MAX))
                    .unwrap_or(limits::TOPIC_SIGNALS)
                    .min(limits::TOPIC_SIGNALS_MOST),
            },
            dispatch: dispatch::of(settings),
            keys: given.or(file.map(|file| KeySource::File(file.into()))),
            metrics: settings.is_on(&keys::METRICS_ENABLED),
            traces: settings
                .some_text(&keys::OTEL_ENDPOINT)
                .map(|endpoint| TracesTo {
                    endpoint,
                    headers: headers(&settings.text(&keys::OTEL_HEADERS)),
                    service_name: settings.text(&keys::OTEL_SERVICE_NAME),
                }),
        }
    }
}

/// Amounts of what workers offer.
pub(crate) fn amounts(given: &[String]) -> Result<BTreeMap<String, u64>, Error> {
    let resource = |text: &String| {
        let (name, amount) = text.split_once('=')?;
        let amount = amount.trim().parse().ok()?;
        (!name.is_empty()).then(|| (name.trim().to_owned(), amount))
    };
    let resources = given.iter().map(|text| {
        resource(text).ok_or_else(|| {
            let message = format!("`{text}` is no resource of a worker");
            Error::new(ErrorCode::BadRequest, message)
                .hint("as in `--resource license=4`, or `worker.resources` of the configuration")
        })
    });
    resources.collect()
}

/// Seconds from 2 to 3600; anything else is the default.
fn lease(text: Option<&str>) -> Duration {
    let seconds = text.and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| (2..=3_600).contains(seconds));
    seconds.map_or(limits::SESSION_LEASE, Duration::from_secs)
}

/// The program that runs.
pub(crate) fn own_program() -> Result<PathBuf, Error> {
    env::current_exe().map_err(|error| {
        let message = format!("it is not known where Kapell itself is: {error}");
        Error::new(ErrorCode::Internal, message)
    })
}

/// The name of this machine.
pub(crate) fn host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    if name.is_empty() {
        "worker".to_owned()
    } else {
        name
    }
}

fn http_rules(settings: &Settings) -> Result<HttpRules, Error> {
    let networks = |key| {
        let networks = settings.list(key).into_iter().map(|text| text.parse());
        networks
            .collect::<Result<Vec<_>, String>>()
            .map_err(|error| {
                Error::new(
                    ErrorCode::BadConfig,
                    format!("`{}`: {error}", keys::Key::path(key)),
                )
                .hint("docs/reference/config.md has examples")
            })
    };
    Ok(HttpRules {
        allow: networks(&keys::HTTP_ALLOW)?,
        deny: networks(&keys::HTTP_DENY)?,
    })
}

/// Headers as `name=value`, comma-separated.
fn headers(text: &str) -> Vec<(String, String)> {
    let parts = text.split(',').filter_map(|part| part.split_once('='));
    parts
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// Groups that a user of this machine is in, by name.
pub(crate) fn groups(user: &str) -> Vec<String> {
    let own = rustix::process::getgroups().unwrap_or_default();
    let own: Vec<u32> = own
        .into_iter()
        .chain([rustix::process::getegid()])
        .map(rustix::process::Gid::as_raw)
        .collect();
    let known = fs::read_to_string("/etc/group").unwrap_or_default();
    let named = known.lines().filter_map(|line| {
        // Name, password, number, users.
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        let mut users = fields.next().unwrap_or_default().split(',');
        (own.contains(&number) || users.any(|other| other == user)).then(|| name.to_owned())
    });
    named.collect()
}

/// Whether standard error takes colours, where there are no flags to say so.
pub(crate) fn colors_of_errors() -> bool {
    variable("NO_COLOR").is_none()
        && variable("TERM").is_none_or(|term| term != "dumb")
        && std::io::stderr().is_terminal()
}

/// What steps get of this environment.
pub(crate) fn inherited() -> Vec<(OsString, OsString)> {
    env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                INHERITED.contains(&name)
                    || INHERITED_STARTS.iter().any(|start| name.starts_with(start))
            })
        })
        .collect()
}

/// A secret of steps.
pub(crate) fn secret(name: &str) -> Option<String> {
    variable(&format!("{SECRET}{name}"))
}

/// A program in the `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Bytes of memory, or of the bound on this process's if that is less.
pub(crate) fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    let bound = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    Some((kilobytes << 10).min(bound.unwrap_or(u64::MAX)))
}

fn gpus() -> u32 {
    let devices =
        (0_u32..64).take_while(|number| Path::new(&format!("/dev/nvidia{number}")).exists());
    u32::try_from(devices.count()).unwrap_or(0)
}
