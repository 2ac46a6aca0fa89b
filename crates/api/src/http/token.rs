//! Tokens that let clients in, and the audit log of what was changed.

use kapell_model::Time;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::schema;

/// What a token allows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To look at everything but tokens and the audit log.
    Read,
    /// To start and steer runs, to send signals and answer approvals.
    Run,
    /// To register and change workflows.
    Write,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Run, Self::Write, Self::Admin];

    /// The word users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// A token to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Who has it; no other valid token has the same name.
    pub name: String,
    /// What it allows; at least one.
    pub scopes: Vec<Scope>,
    /// Namespaces that it is for; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Until when it holds; none is until it is revoked.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub expires_at: Option<Time>,
    /// Who makes it, as they call themselves; `created_by` says too who that is to the server.
    #[serde(default)]
    pub by: String,
}

/// A token that was made. The secret is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What is known of it from now on.
    pub token: TokenView,
    /// What goes into `KAPELL_TOKEN`, or the header `Authorization: Bearer …`.
    pub secret: String,
}

/// A token, without what would let anybody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id: the part of the token between the two underscores.
    pub id: String,
    /// Who has it.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Namespaces that it is for; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// When it was made.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// Until when it holds.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub expires_at: Option<Time>,
    /// Since when it holds no more.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub revoked_at: Option<Time>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
}

/// One page of tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TokenPage {
    /// By id, those that hold no more too.
    pub tokens: Vec<TokenView>,
    /// Give it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which part of the audit log to read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Entries before this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Entries since then.
    #[serde(
        default,
        with = "crate::stamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(value_type = Option<schema::Timestamp>)]
    #[schema(value_type = Option<schema::Timestamp>)]
    pub since: Option<Time>,
    /// Entries of this one, as they are named there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Entries with this text in what was asked, or in what it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// At most so many; 0 is 100.
    #[serde(default)]
    #[param(maximum = 1_000)]
    pub limit: usize,
}

/// One page of the audit log.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Give it as `before` for the next page. A page of few that match may be short or empty with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A change that somebody made, or was not let make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Counts up; none is missing but those that were kept long enough.
    pub number: u64,
    /// When.
    #[serde(with = "crate::stamp")]
    #[schema(value_type = schema::Timestamp)]
    pub at: Time,
    /// Who: the name of a token, else the user of the server's machine by number.
    pub who: String,
    /// Id of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// From where: an address, the socket of the data directory with the process, or the process that
    /// itself worked in the data directory.
    pub from: String,
    /// What was asked: method and path.
    pub what: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// What the change was about, as far as the path does not say: names, versions, the run that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}
