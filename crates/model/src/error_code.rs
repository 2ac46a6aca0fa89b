//! Public failures: a stable code each, with what every surface answers for it.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $http:literal, $exit:literal, $retry:literal;)+) => {
        /// A stable code of a public failure. Its text never changes once released; each has a
        /// page in `docs/errors/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name,)+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as text, in kebab case.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Its page of `docs/errors/`, as Markdown.
            pub fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../../../docs/errors/", $text, ".md")),)+ }
            }

            /// The HTTP status that goes with it.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)+ }
            }

            /// The exit status of the command line: 2 for bad input, 1 for everything else.
            pub fn exit_status(self) -> u8 {
                match self { $(Self::$name => $exit,)+ }
            }

            /// True if the same request may succeed later without being changed.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retry,)+ }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

codes! {
    /// A workflow file has problems; all of them are listed with line and column.
    BadDefinition = "bad-definition", 422, 2, false;
    /// A parameter is unknown, missing, fixed, of the wrong type or outside its bounds.
    BadParams = "bad-params", 422, 2, false;
    /// An argument of the request is malformed.
    BadRequest = "bad-request", 400, 2, false;
    /// There is no such run.
    RunNotFound = "run-not-found", 404, 2, false;
    /// There is no such workflow or version.
    WorkflowNotFound = "workflow-not-found", 404, 2, false;
    /// The active version of the workflow has no such trigger.
    TriggerNotFound = "trigger-not-found", 404, 2, false;
    /// There is no such step, item or attempt in the run.
    StepNotFound = "step-not-found", 404, 2, false;
    /// There is no such worker.
    WorkerNotFound = "worker-not-found", 404, 2, false;
    /// There is no such file.
    FileNotFound = "file-not-found", 404, 2, false;
    /// The configuration has a key that is not known, or a value that the key does not take.
    BadConfig = "bad-config", 422, 2, false;
    /// There is no such secret.
    SecretNotFound = "secret-not-found", 404, 2, false;
    /// The key that seals secrets is missing, malformed, readable by others, or another one.
    BadSecretKey = "bad-secret-key", 500, 1, false;
    /// The run or step is not in a state that allows this.
    NotAllowedNow = "not-allowed-now", 409, 2, false;
    /// The idempotency key made a run already, with other parameters.
    KeyReused = "idempotency-key-reused", 409, 2, false;
    /// The question is not for whoever answers it.
    NotYours = "not-yours", 403, 2, false;
    /// The definition is valid, but uses what this version of Kapell does not run.
    NotAvailable = "not-available", 501, 2, false;
    /// A bound of the product is reached.
    LimitReached = "limit-reached", 413, 2, false;
    /// Another process holds the data directory.
    DirectoryHeld = "directory-held", 409, 1, true;
    /// The data directory cannot be used: read-only, on a network file system, or not a directory.
    DirectoryUnusable = "directory-unusable", 500, 1, false;
    /// The store was written by a newer version of Kapell.
    StoreTooNew = "store-too-new", 500, 1, false;
    /// The store holds data that cannot be read.
    StoreCorrupt = "store-corrupt", 500, 1, false;
    /// The store does not answer or refuses to write; nothing that was acknowledged is lost.
    StoreUnavailable = "store-unavailable", 503, 1, true;
    /// Another node owns what this is about, or none does at this moment.
    NotHere = "not-here", 503, 1, true;
    /// No token came with the request, or one that is unknown, revoked or expired.
    NotAuthenticated = "not-authenticated", 401, 1, false;
    /// The token does not allow this.
    NotPermitted = "not-permitted", 403, 1, false;
    /// There is no such token.
    TokenNotFound = "token-not-found", 404, 2, false;
    /// Requests come faster than the server takes them from one client.
    TooManyRequests = "too-many-requests", 429, 1, true;
    /// Nobody answers at the address of the server.
    ServerUnreachable = "server-unreachable", 503, 1, true;
    /// The disk is full.
    DiskFull = "disk-full", 507, 1, true;
    /// The run ended without success.
    RunFailed = "run-failed", 200, 1, false;
    /// Something inside Kapell broke a rule of its own. Please report it.
    Internal = "internal", 500, 1, false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.name() == text)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown error code `{text}`")))
    }
}

/// A public failure as every surface shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// What failed, with the object quoted.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// A failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
