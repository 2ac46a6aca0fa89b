//! The table of all keys.

use super::{Key, Kind};

mod workers;

pub use workers::*;

/// A key whose variable and flag are those of its name, and none.
const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default,
        variable: None,
        flag: None,
        doc,
    }
}

/// `data_dir`
pub static DATA_DIR: Key = Key {
    flag: Some("--data-dir"),
    ..key(
        "",
        "data_dir",
        Kind::Path,
        ".kapell",
        "Where everything is kept: the store, blobs, logs. One process works in it at a time.",
    )
};

/// `store`
pub static STORE: Key = Key {
    flag: Some("--store"),
    ..key(
        "",
        "store",
        Kind::Secret,
        "",
        "Where the store is: the URL of a PostgreSQL database, as \
         `postgres://kapell@db.example/prod?schema=kapell`, which holds blobs and logs too. Nothing is files in \
         the data directory. A password is better given by the variable.",
    )
};

/// `blob_cache`
pub static BLOB_CACHE: Key = key(
    "",
    "blob_cache",
    Kind::Bytes,
    "4Gi",
    "How much of blobs a server over PostgreSQL keeps in its data directory, so that what is read again is not \
     read from the database; what was not read for longest goes. 0 is none.",
);

/// `dispatch.order`
pub static DISPATCH_ORDER: Key = key(
    "dispatch",
    "order",
    Kind::Choice(&["fair", "round-robin", "age"]),
    "fair",
    "Whose work is granted next among that of one queue and priority. `fair`: namespaces share by weight, \
     and in each its runs share; counted are attempts. `round-robin`: runs take turns, whosever they are. \
     `age`: the oldest run.",
);

/// `dispatch.aging`
pub static DISPATCH_AGING: Key = key(
    "dispatch",
    "aging",
    Kind::Duration,
    "1m",
    "Work of a priority of which none is granted rises by one priority each time that long, so that it is \
     not kept waiting for ever. 0 is never.",
);

/// `dispatch.namespaces.*.weight`
pub static NAMESPACE_WEIGHT: Key = key(
    "dispatch.namespaces.*",
    "weight",
    Kind::Count(1, 1_000),
    "1",
    "How many attempts the namespace of this name has granted for one of a namespace with weight 1, while \
     work of both waits with one priority in one queue.",
);

/// `dispatch.namespaces.*.steps`
pub static NAMESPACE_STEPS: Key = key(
    "dispatch.namespaces.*",
    "steps",
    Kind::Count(0, 1_000_000),
    "1000000",
    "How many attempts of the namespace that start a process or a request may be in flight at once. Without it there is no \
     bound.",
);

/// `dispatch.namespaces.*.cpu`
pub static NAMESPACE_CPU: Key = key(
    "dispatch.namespaces.*",
    "cpu",
    Kind::Count(0, 1_000_000),
    "1000000",
    "How many cores the attempts of the namespace that are in flight may ask for together. Without it there is no bound.",
);

/// `dispatch.namespaces.*.gpu`
pub static NAMESPACE_GPU: Key = key(
    "dispatch.namespaces.*",
    "gpu",
    Kind::Count(0, 1_000_000),
    "1000000",
    "How many GPUs they may ask for together. Without it there is no bound.",
);

/// `retention.age`
pub static RETENTION_AGE: Key = key(
    "retention",
    "age",
    Kind::Duration,
    "0s",
    "How long ended runs are kept, with their logs, where neither the workflow's file nor its settings \
     say anything. 0 is for ever.",
);

/// `retention.runs`
pub static RETENTION_RUNS: Key = key(
    "retention",
    "runs",
    Kind::Count(0, 1_000_000_000),
    "0",
    "How many ended runs of a workflow are kept, the last ones, where neither its file nor its settings \
     say anything. 0 is all.",
);

/// `signals.keep`
pub static SIGNALS_KEEP: Key = key(
    "signals",
    "keep",
    Kind::Duration,
    "7d",
    "How long a signal is kept for those that ask for it later, at least a minute. A topic takes a new \
     setting when it is used next.",
);

/// `signals.max`
pub static SIGNALS_MAX: Key = key(
    "signals",
    "max",
    Kind::Count(1, 1_000_000),
    "100000",
    "How many signals of one name are kept, the last ones. More than 64 MiB of them are not, whatever \
     is set.",
);

/// `secrets.key_file`
pub static SECRETS_KEY_FILE: Key = key(
    "secrets",
    "key_file",
    Kind::Path,
    "",
    "The file of the keys that seal secrets, for its owner alone. Empty is `secret.key` in the data \
     directory, which is made with the first secret. A backup does not hold it.",
);

/// `secrets.key`
pub static SECRETS_KEY: Key = key(
    "secrets",
    "key",
    Kind::Secret,
    "",
    "The keys themselves instead of a file: 32 bytes in base64 each, comma-separated; the first seals, \
     all open. Better given as a variable than written in a file.",
);

/// `log.filter`
pub static LOG_FILTER: Key = Key {
    variable: Some("KAPELL_LOG"),
    ..key(
        "log",
        "filter",
        Kind::Text,
        "",
        "What Kapell says of itself on standard error: `warn`, `info`, `debug`, `trace`, or by part, as \
         `info,kapell_store=debug`. Empty is `warn` for a server and a worker, and errors alone for other commands.",
    )
};

/// `log.format`
pub static LOG_FORMAT: Key = key(
    "log",
    "format",
    Kind::Choice(&["text", "json"]),
    "text",
    "The form of that log: lines for people, or one JSON object each.",
);

/// `metrics.enabled`
pub static METRICS_ENABLED: Key = key(
    "metrics",
    "enabled",
    Kind::Bool,
    "true",
    "Whether `/metrics` answers, in the form of Prometheus.",
);

/// `otel.endpoint`
pub static OTEL_ENDPOINT: Key = Key {
    variable: Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
    ..key(
        "otel",
        "endpoint",
        Kind::Text,
        "",
        "Where traces are sent by OTLP over HTTP, as `http://localhost:4318`; `/v1/traces` is added. A \
         run is a trace, an attempt a span. Empty sends none.",
    )
};

/// `otel.headers`
pub static OTEL_HEADERS: Key = Key {
    variable: Some("OTEL_EXPORTER_OTLP_HEADERS"),
    ..key(
        "otel",
        "headers",
        Kind::Secret,
        "",
        "Headers that go with traces, as `name=value`, comma-separated.",
    )
};

/// `otel.service_name`
pub static OTEL_SERVICE_NAME: Key = Key {
    variable: Some("OTEL_SERVICE_NAME"),
    ..key(
        "otel",
        "service_name",
        Kind::Text,
        "kapell",
        "The name of this Kapell in traces.",
    )
};

/// `http.allow`
pub static HTTP_ALLOW: Key = key(
    "http",
    "allow",
    Kind::List,
    "",
    "Addresses that `http` steps may reach although they are refused otherwise: networks as \
     `169.254.169.254/32`. Refused are link-local addresses, where clouds keep their metadata, and \
     unspecified ones.",
);

/// `http.deny`
pub static HTTP_DENY: Key = key(
    "http",
    "deny",
    Kind::List,
    "",
    "More networks that `http` steps may not reach, as `10.0.0.0/8`, `127.0.0.0/8`, `::1/128`.",
);

/// `notify.public_url`
pub static NOTIFY_PUBLIC_URL: Key = key(
    "notify",
    "public_url",
    Kind::Text,
    "",
    "What addresses of pages of runs begin with in notices, as people reach this server. Empty is none.",
);

/// `notify.channels.*.url`
pub static CHANNEL_URL: Key = key(
    "notify.channels.*",
    "url",
    Kind::Secret,
    "",
    "Where notices of the channel of this name are posted. A workflow names the channel in `notify`.",
);

/// `notify.channels.*.kind`
pub static CHANNEL_KIND: Key = key(
    "notify.channels.*",
    "kind",
    Kind::Choice(&["json", "slack"]),
    "json",
    "What is posted: the notice as JSON, or a text in the form that Slack and others take.",
);

/// `notify.channels.*.template`
pub static CHANNEL_TEMPLATE: Key = key(
    "notify.channels.*",
    "template",
    Kind::Text,
    "",
    "The text, or with one expression alone the whole body, over the fields of a notice. Empty is one \
     that says what happened.",
);

/// `notify.channels.*.headers`
pub static CHANNEL_HEADERS: Key = key(
    "notify.channels.*",
    "headers",
    Kind::Secret,
    "",
    "Headers that go with each post, as `name=value`, comma-separated.",
);

/// `server.listen`
pub static SERVER_LISTEN: Key = Key {
    flag: Some("--listen"),
    ..key(
        "server",
        "listen",
        Kind::Text,
        "127.0.0.1:7420",
        "Where `kapell server` listens: an address and a port. Beyond loopback, TLS and tokens are needed.",
    )
};

/// `server.tls_cert`
pub static SERVER_TLS_CERT: Key = Key {
    flag: Some("--tls-cert"),
    ..key(
        "server",
        "tls_cert",
        Kind::Path,
        "",
        "The certificate of the server, a PEM file, with those that signed it. Empty is none.",
    )
};

/// `server.tls_key`
pub static SERVER_TLS_KEY: Key = Key {
    flag: Some("--tls-key"),
    ..key(
        "server",
        "tls_key",
        Kind::Path,
        "",
        "The key of that certificate, a PEM file.",
    )
};

/// `server.tls_self_signed`
pub static SERVER_TLS_SELF_SIGNED: Key = Key {
    flag: Some("--tls-self-signed"),
    ..key(
        "server",
        "tls_self_signed",
        Kind::Bool,
        "false",
        "Speaks TLS with a certificate of its own, made in the data directory: `tls/cert.pem`.",
    )
};

/// `server.tls_names`
pub static SERVER_TLS_NAMES: Key = Key {
    flag: Some("--tls-name"),
    ..key(
        "server",
        "tls_names",
        Kind::List,
        "",
        "More names and addresses in that certificate, beside localhost and where is listened. With one \
         that it lacks it is made anew.",
    )
};

/// `server.insecure`
pub static SERVER_INSECURE: Key = Key {
    flag: Some("--insecure"),
    ..key(
        "server",
        "insecure",
        Kind::Bool,
        "false",
        "Listens without TLS, also beyond loopback: only behind a proxy that speaks it. Everybody needs \
         a token then.",
    )
};

/// `server.require_token`
pub static SERVER_REQUIRE_TOKEN: Key = Key {
    flag: Some("--require-token"),
    ..key(
        "server",
        "require_token",
        Kind::Bool,
        "false",
        "Asks everybody for a token, on loopback too. The socket of the data directory lets its owner in.",
    )
};

/// `server.request_rate`
pub static SERVER_REQUEST_RATE: Key = Key {
    flag: Some("--request-rate"),
    ..key(
        "server",
        "request_rate",
        Kind::Count(1, 10_000_000),
        "20000",
        "Requests that one client may send a second.",
    )
};

/// `server.grace`
pub static SERVER_GRACE: Key = Key {
    flag: Some("--grace"),
    ..key(
        "server",
        "grace",
        Kind::Duration,
        "30s",
        "How long running attempts get to end once the server is asked to end.",
    )
};

/// `server.advertise`
pub static SERVER_ADVERTISE: Key = Key {
    flag: Some("--advertise"),
    ..key(
        "server",
        "advertise",
        Kind::Text,
        "",
        "Where other nodes, clients and workers reach this server, as a URL. With it several servers work over one PostgreSQL database; a server without it works there alone.",
    )
};

/// `server.node_lease`
pub static SERVER_NODE_LEASE: Key = key(
    "server",
    "node_lease",
    Kind::Duration,
    "5s",
    "How long other nodes of a cluster wait for one that is not heard of before they take over what it owns: from 1 s to 5 min.",
);

/// Every key, in the order of the pages.
pub static KEYS: &[&Key] = &[
    &DATA_DIR,
    &STORE,
    &BLOB_CACHE,
    &SERVER_LISTEN,
    &SERVER_TLS_CERT,
    &SERVER_TLS_KEY,
    &SERVER_TLS_SELF_SIGNED,
    &SERVER_TLS_NAMES,
    &SERVER_INSECURE,
    &SERVER_REQUIRE_TOKEN,
    &SERVER_REQUEST_RATE,
    &SERVER_GRACE,
    &SERVER_ADVERTISE,
    &SERVER_NODE_LEASE,
    &WORKER_SLOTS,
    &WORKER_QUEUES,
    &WORKER_LABELS,
    &WORKER_RESOURCES,
    &WORKER_POOL,
    &WORKER_CPU,
    &WORKER_MEMORY,
    &WORKER_KEEP_FAILED,
    &POOL_MIN,
    &POOL_MAX,
    &POOL_QUEUES,
    &POOL_DRIVER,
    &POOL_COMMAND,
    &POOL_SLOTS,
    &POOL_CPU,
    &POOL_MEMORY,
    &POOL_GPUS,
    &POOL_RESOURCES,
    &POOL_LABELS,
    &POOL_SPOT,
    &POOL_EVERY,
    &POOL_QUIET,
    &POOL_START_TIMEOUT,
    &POOL_GRACE,
    &DISPATCH_ORDER,
    &DISPATCH_AGING,
    &NAMESPACE_WEIGHT,
    &NAMESPACE_STEPS,
    &NAMESPACE_CPU,
    &NAMESPACE_GPU,
    &RETENTION_AGE,
    &RETENTION_RUNS,
    &SIGNALS_KEEP,
    &SIGNALS_MAX,
    &SECRETS_KEY_FILE,
    &SECRETS_KEY,
    &LOG_FILTER,
    &LOG_FORMAT,
    &METRICS_ENABLED,
    &OTEL_ENDPOINT,
    &OTEL_HEADERS,
    &OTEL_SERVICE_NAME,
    &HTTP_ALLOW,
    &HTTP_DENY,
    &NOTIFY_PUBLIC_URL,
    &CHANNEL_URL,
    &CHANNEL_KIND,
    &CHANNEL_TEMPLATE,
    &CHANNEL_HEADERS,
];
