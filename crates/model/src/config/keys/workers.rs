//! Keys of workers, and of pools of them.

use super::{Key, Kind, key};

/// `worker.slots`
pub static WORKER_SLOTS: Key = Key {
    variable: Some("KAPELL_SLOTS"),
    flag: Some("--slots"),
    ..key(
        "worker",
        "slots",
        Kind::Count(0, 10_000),
        "0",
        "Attempts at a time. 0 is by the machine: two for each core, at least 8.",
    )
};

/// `worker.queues`
pub static WORKER_QUEUES: Key = Key {
    flag: Some("--queues"),
    ..key(
        "worker",
        "queues",
        Kind::List,
        "",
        "Queues whose work is done: these and no others. Empty is, for a worker, every queue that no worker \
         names; for a server, every queue that no worker ever named.",
    )
};

/// `worker.labels`
pub static WORKER_LABELS: Key = Key {
    flag: Some("--label"),
    ..key(
        "worker",
        "labels",
        Kind::List,
        "",
        "What is said of the worker, each as `zone=eu`: steps may ask for it by `resources.labels`.",
    )
};

/// `worker.resources`
pub static WORKER_RESOURCES: Key = Key {
    flag: Some("--resource"),
    ..key(
        "worker",
        "resources",
        Kind::List,
        "",
        "What the worker has to give besides cores, memory and GPUs, each as `license=4`: steps ask for it by \
         `resources.custom`.",
    )
};

/// `worker.pool`
pub static WORKER_POOL: Key = Key {
    flag: Some("--pool"),
    ..key(
        "worker",
        "pool",
        Kind::Text,
        "",
        "The pool that the worker is one of: `kapell workers --pool NAME` lists its workers, and whoever scales \
         them counts them by it.",
    )
};

/// `worker.cpu`
pub static WORKER_CPU: Key = key(
    "worker",
    "cpu",
    Kind::Count(0, 1_000_000),
    "0",
    "Cores that the worker gives to steps that ask for some. 0 is those of the machine; say less where several \
     workers share it.",
);

/// `worker.memory`
pub static WORKER_MEMORY: Key = key(
    "worker",
    "memory",
    Kind::Bytes,
    "0",
    "Memory that it gives to steps that ask for some, as `8Gi`. 0 is that of the machine.",
);

/// `worker.keep_failed`
pub static WORKER_KEEP_FAILED: Key = key(
    "worker",
    "keep_failed",
    Kind::Duration,
    "24h",
    "How long the directory of a failed attempt is kept, to be looked at.",
);
