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

/// `pools.*.min`
pub static POOL_MIN: Key = key(
    "pools.*",
    "min",
    Kind::Count(0, 1_000),
    "0",
    "Workers that `kapell pool` always keeps in the pool of this name.",
);

/// `pools.*.max`
pub static POOL_MAX: Key = key(
    "pools.*",
    "max",
    Kind::Count(1, 1_000),
    "1",
    "Workers that are in it at most, those that are leaving too.",
);

/// `pools.*.queues`
pub static POOL_QUEUES: Key = key(
    "pools.*",
    "queues",
    Kind::List,
    "",
    "Queues that its workers serve, and whose backlog says how many are needed. A pool needs one.",
);

/// `pools.*.driver`
pub static POOL_DRIVER: Key = key(
    "pools.*",
    "driver",
    Kind::Choice(&["process", "exec"]),
    "process",
    "What starts its workers. `process`: they are processes of the machine of `kapell pool`. `exec`: a command of yours.",
);

/// `pools.*.command`
pub static POOL_COMMAND: Key = key(
    "pools.*",
    "command",
    Kind::Text,
    "",
    "The command of `exec`, run by `sh -c` with what it is to do in KAPELL_POOL_ACTION: `start`, `stop` or `list`.",
);

/// `pools.*.slots`
pub static POOL_SLOTS: Key = key(
    "pools.*",
    "slots",
    Kind::Count(1, 10_000),
    "1",
    "Attempts at a time of one worker.",
);

/// `pools.*.cpu`
pub static POOL_CPU: Key = key(
    "pools.*",
    "cpu",
    Kind::Count(0, 1_000_000),
    "0",
    "Cores of one worker. 0 is, for `process`, those of the machine by `max`, at least one; for `exec` it is not known, and \
     an attempt that asks for cores has a worker to itself in the count.",
);

/// `pools.*.memory`
pub static POOL_MEMORY: Key = key(
    "pools.*",
    "memory",
    Kind::Bytes,
    "0",
    "Memory of one worker, as `8Gi`. 0 as for `cpu`.",
);

/// `pools.*.gpus`
pub static POOL_GPUS: Key = key(
    "pools.*",
    "gpus",
    Kind::Count(0, 64),
    "0",
    "GPUs of one worker, for `exec`: processes of one machine do not share them out.",
);

/// `pools.*.resources`
pub static POOL_RESOURCES: Key = key(
    "pools.*",
    "resources",
    Kind::List,
    "",
    "What one worker has besides, each as `license=4`.",
);

/// `pools.*.labels`
pub static POOL_LABELS: Key = key(
    "pools.*",
    "labels",
    Kind::List,
    "",
    "What is said of its workers, each as `zone=eu`. Work that asks for other labels is no work of the pool.",
);

/// `pools.*.spot`
pub static POOL_SPOT: Key = key(
    "pools.*",
    "spot",
    Kind::Bool,
    "false",
    "Its workers can be taken away at any time: only steps with `resources.spot` get there.",
);

/// `pools.*.every`
pub static POOL_EVERY: Key = key(
    "pools.*",
    "every",
    Kind::Duration,
    "5s",
    "How often the backlog is looked at, from 100ms to 10m.",
);

/// `pools.*.quiet`
pub static POOL_QUIET: Key = key(
    "pools.*",
    "quiet",
    Kind::Duration,
    "2m",
    "How long fewer workers must have been enough before some are let go. Never less than workers take to come.",
);

/// `pools.*.start_timeout`
pub static POOL_START_TIMEOUT: Key = key(
    "pools.*",
    "start_timeout",
    Kind::Duration,
    "5m",
    "How long a worker may take to come. Then it is cleared away, and another is started after a pause.",
);

/// `pools.*.grace`
pub static POOL_GRACE: Key = key(
    "pools.*",
    "grace",
    Kind::Duration,
    "10m",
    "How long what a worker runs may take to end when it is let go, 24h at most; the rest is done elsewhere.",
);
