//! How a command reaches the engine: in this process, in the one that holds the data directory, or at a
//! server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kapell_api::client::{Api, Client, Target};
use kapell_model::config::WORKER_KEEP_FAILED;
use kapell_model::{Error, ErrorCode, RunId};
use kapell_node::clock;
use kapell_server::local::{self, Local, Opened, Want};
use kapell_server::notify::Senders;
use kapell_server::workers::{Hire, Leave, OwnQueues, Settings};
use kapell_worker::remote::{self, RemoteConfig};

use crate::config::{self, Config};
use crate::worker;

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To look.
    Look,
    /// To record what somebody wants.
    Record,
    /// To do the work, with so many attempts at a time.
    Work(Option<u16>),
}

/// Who does the work, if not this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The process that holds the data directory.
    Process(u32),
    /// A server.
    Server(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Server(url) => write!(f, "the server at {url}"),
        }
    }
}

/// A data directory, or a server, that can be asked.
pub(crate) struct Session {
    api: Arc<dyn Api>,
    local: Option<Box<Local>>,
    holder: Option<Holder>,
}

/// Opens the data directory for what is needed, or asks the server that the flags or the environment name.
pub(crate) fn open(config: &Config, need: Need) -> Result<Session, Error> {
    if let Some(server) = config.server()? {
        let holder = Some(Holder::Server(server.url().to_owned()));
        let client = Client::to(Target::Http(Box::new(server)))?;
        return Ok(Session {
            api: Arc::new(client),
            local: None,
            holder,
        });
    }
    if need == Need::Look && !config.has_store() {
        let hint = if config.data_dir_is_default {
            "`kapell run FILE` makes one here; `--data-dir` names another place"
        } else {
            "look at what `--data-dir` or KAPELL_DATA_DIR says"
        };
        let message = format!("there are no runs in `{}`", config.data_dir.display());
        return Err(Error::new(ErrorCode::RunNotFound, message).hint(hint));
    }
    let options = config.options();
    let want = match need {
        Need::Look => Want::Look,
        Need::Record => Want::Record,
        Need::Work(slots) => Want::Work(work(config, slots, OwnQueues::default())),
    };
    Ok(match local::open(&config.data_dir, want, &options)? {
        Opened::Here(mut local) => {
            if matches!(need, Need::Work(_)) {
                local.notify(senders(config)?)?;
            }
            local.resolve_secrets(Arc::new(config::secret));
            Session {
                api: local.api(),
                local: Some(local),
                holder: None,
            }
        }
        Opened::Elsewhere { client, pid } => Session {
            api: Arc::new(client),
            local: None,
            holder: Some(Holder::Process(pid)),
        },
    })
}

/// What notices go through: the channels of the configuration, and where they may lead.
pub(crate) fn senders(config: &Config) -> Result<Senders, Error> {
    let rules = config.http_rules();
    Ok(Senders {
        receivers: config.receivers()?,
        allowed: Arc::new(move |address| rules.allow(address)),
    })
}

/// All of the work: a worker in this process, with so many attempts at a time.
pub(crate) fn work(config: &Config, slots: Option<u16>, own: OwnQueues) -> Settings {
    let worker = kapell_worker::Config {
        data_dir: config.data_dir.clone(),
        capacity: config.capacity(slots),
        secrets: Arc::new(config::secret),
        inherit_env: config::inherited(),
        clock: clock::now,
        python: None,
        uv: None,
        keep_failed: config.settings.duration(&WORKER_KEEP_FAILED),
        http: config.http_rules(),
    };
    let queues = match &own {
        OwnQueues::Free | OwnQueues::NeverNamed => Vec::new(),
        OwnQueues::Named(names) => names.iter().map(ToString::to_string).collect(),
    };
    let labels = worker::labels(&config.labels(&[]));
    let resources = config.resources(&[]);
    let hire: Hire = Box::new(move |calls, blobs, logs_here| {
        let held = worker::hold(&worker.data_dir)?;
        let server = RemoteConfig {
            server: remote::Server::Inside {
                calls,
                blobs,
                logs_here,
            },
            name: config::host(),
            labels: labels?,
            resources: resources?,
            spot: false,
            pool: None,
            queues,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let inside = remote::Inside::start(worker, server).map_err(|error| {
            let message = format!("the worker cannot start: {error}");
            if error.source_kind() == std::io::ErrorKind::StorageFull {
                return Error::new(ErrorCode::DiskFull, message).hint("make room, then try again");
            }
            Error::new(ErrorCode::DirectoryUnusable, message)
                .hint("`kapell doctor` looks for causes")
        })?;
        let leave: Leave = Box::new(move |grace| {
            inside.stop(grace);
            drop(held);
        });
        Ok(leave)
    });
    Settings {
        own,
        secrets: Box::new(|_, name| config::secret(name)),
        lease: config.lease,
        hire: Some(hire),
    }
}

impl Session {
    /// What answers.
    pub(crate) fn api(&self) -> &dyn Api {
        &*self.api
    }

    /// Lets this process post to the channels of the configuration, if it is the one that is asked.
    pub(crate) fn know_channels(&mut self, config: &Config) -> Result<(), Error> {
        if let Some(local) = &mut self.local {
            local.know_channels(senders(config)?);
        }
        Ok(())
    }

    /// True if a server is asked, which others use too.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.holder, Some(Holder::Server(_)))
    }

    /// Who does the work, if not this process.
    pub(crate) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// The run that somebody means.
    pub(crate) fn find(&self, run: &str) -> Result<RunId, Error> {
        self.api.find(run)
    }

    /// Leaves the directory to others. Whoever looks does so before writing: a pager may hold that up
    /// for hours.
    pub(crate) fn close(self) {
        self.stop(Duration::ZERO);
    }

    /// Lets running attempts end for so long, then stops everything of this process.
    pub(crate) fn stop(self, grace: Duration) {
        if let Some(local) = self.local {
            local.stop(grace);
        }
    }
}
