//! Commands and flags of a server and of who may ask it.
#![expect(clippy::doc_markdown, reason = "comments are what `--help` prints")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use kapell_api::http::Scope;

/// `server`
#[derive(Args, Default)]
pub(crate) struct Server {
    /// Where to listen; beyond loopback, TLS and tokens are needed [default: 127.0.0.1:7420]
    ///
    /// This and what follows can stand in the configuration too, under `[server]`: a flag goes before it.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate of its own, made in the data directory; clients trust it by
    /// `--ca DIR/tls/cert.pem`
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) tls_self_signed: bool,
    /// Another name in that certificate, beside localhost
    #[arg(long, value_name = "NAME", conflicts_with = "tls_cert")]
    pub(crate) tls_name: Vec<String>,
    /// Listen without TLS, also beyond loopback: only behind a proxy that speaks it. Everybody needs a
    /// token then
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Ask everybody for a token, on loopback too
    #[arg(long)]
    pub(crate) require_token: bool,
    /// Requests that one client may send a second [default: 20000]
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) request_rate: Option<u32>,
    /// Attempts at a time in this process [env: KAPELL_SLOTS] [default: by the machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) slots: Option<u16>,
    /// Queues whose work is done in this process [env: KAPELL_WORKER_QUEUES] [default: every queue that no
    /// worker ever named]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) queues: Vec<String>,
    /// Where other nodes, clients and workers reach this server; with it several work over one PostgreSQL
    /// database
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,
    /// How long running attempts get to end once it is asked to end, as 90s or 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = super::grace)]
    pub(crate) grace: Option<Duration>,
}

/// `token`
#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is printed this once
    Create(TokenCreate),
    /// List tokens, those that hold no more too
    List(TokenList),
    /// End a token
    Revoke(TokenRevoke),
}

/// `token create`
#[derive(Args)]
pub(crate) struct TokenCreate {
    /// Who gets it
    pub(crate) name: String,
    /// What it allows
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', required = true)]
    #[arg(value_parser = Scope::ALL.map(Scope::name))]
    pub(crate) scope: Vec<String>,
    /// A namespace that it is for [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Vec<String>,
    /// Until when it holds: `90d`, or a time like 2030-01-31T10:00:00Z [default: until it is revoked]
    #[arg(long, value_name = "WHEN")]
    pub(crate) expires: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `token list`
#[derive(Args)]
pub(crate) struct TokenList {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `token revoke`
#[derive(Args)]
pub(crate) struct TokenRevoke {
    /// Its id, or the name of a valid one
    pub(crate) token: String,
}

/// `audit`
#[derive(Args)]
pub(crate) struct Audit {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Entries before this number: the next page, `next` of the JSON
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
    /// Changes since: `2h`, `3d`, or a time like 2030-01-31T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Changes by this one: the name of a token, or `user 1000`
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
    /// Changes with this text in what was asked or what it was about
    #[arg(long, value_name = "TEXT")]
    pub(crate) what: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
