//! Maps with known keys that workflows and steps share.

use super::{Key, Others, Section, Shape};
use crate::limits;
use crate::spec::StrategyMode;

pub(crate) static PARAM: Section = Section {
    name: "a parameter",
    title: "param",
    doc: "One typed parameter. Text from the command line is parsed to the type; nothing else is coerced.",
    example: "params:\n  day: { type: date, default: \"${{ date(run.interval.start, run.timezone) }}\" }\n  size: { type: string, enum: [small, large], default: small }\n  share: { type: float, min: 0, max: 1, default: 0.5 }\n",
    others: Others::Refused,
    keys: &[
        Key::new("type", Shape::Type, "`string int float bool date timestamp duration list<T> map<T> any file`.").required(),
        Key::new("default", Shape::Value, "The value where a start gives none; may use `run` (not its status) and other params. Evaluated once, when the run is created.").default("required"),
        Key::new("enum", Shape::List(&Shape::Value), "The only values allowed."),
        Key::new("min", Shape::Value, "The least value; of text and lists the least length."),
        Key::new("max", Shape::Value, "The greatest value; of text and lists the greatest length."),
        Key::new("pattern", Shape::Literal, "A regular expression that the whole text matches."),
        Key::new("fixed", Shape::Bool, "Cannot be overridden at a start; needs a default.").default("false"),
        Key::new("description", Shape::Literal, "What it is for."),
    ],
};

pub(crate) static DEFAULTS: Section = Section {
    name: "`defaults`",
    title: "defaults",
    doc: "What steps that run on a worker take where they say nothing. `retry`, `env` and `resources` merge key by key.",
    example: "defaults:\n  retry: { limit: 2 }\n  timeout: 30m\n",
    others: Others::Refused,
    keys: &[
        Key::new("retry", Shape::Section(&RETRY), "Tries after the first."),
        Key::new(
            "timeout",
            Shape::AnyOf(&[Shape::Dyn(&Shape::Duration), Shape::Section(&TIMEOUT)]),
            "Bounds on time.",
        ),
        Key::new("queue", Shape::Literal, "Where tasks wait for workers."),
        Key::new(
            "env",
            Shape::Map(&Shape::AnyOf(&[Shape::Text, Shape::Unset])),
            "Environment, on top of the workflow's.",
        ),
        Key::new(
            "resources",
            Shape::Section(&RESOURCES),
            "What an attempt needs of its worker.",
        ),
    ],
};

pub(crate) static STRATEGY: Section = Section {
    name: "`strategy`",
    title: "strategy",
    doc: "What a start does while other runs of the workflow are active. Every start goes through it.",
    example: "strategy: { mode: parallel, limit: 2, key: \"${{ params.customer }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new("mode", Shape::Choice(&StrategyMode::NAMES), "`parallel`: at once below the limit, else waits its turn. `sequential`: one at a time. `strict_sequential`: and a failed run blocks the queue. `first_only`: discarded while one is active. `last_only`: the newest replaces the active one. `serial_latest`: the active one is left alone, of those waiting only the newest stays.").default("parallel"),
        Key::new("limit", Shape::Int(1, 1_000_000), "Active runs of one key under `parallel`.").default("no limit"),
        Key::new("total", Shape::Int(1, 1_000_000), "Active runs over all keys.").default("no limit"),
        Key::new("key", Shape::Expression, "One queue for each value; over `params` and `run`."),
        Key::new("debounce", Shape::Section(&DEBOUNCE), "Lets a burst of starts become the last of them."),
    ],
};

pub(crate) static DEBOUNCE: Section = Section {
    name: "`debounce`",
    title: "debounce",
    doc: "Lets a burst of starts become the last of them.",
    example: "",
    others: Others::Refused,
    keys: &[
        Key::new(
            "quiet",
            Shape::Duration,
            "Starts once no other start came for so long.",
        )
        .required(),
        Key::new(
            "max",
            Shape::Duration,
            "Starts at the latest so long after the first of the burst.",
        ),
    ],
};

pub(crate) static RETENTION: Section = Section {
    name: "`retention`",
    title: "retention",
    doc: "How long ended runs are kept. A run goes when either bound is passed.",
    example: "retention: { age: 90d, runs: 1000 }\n",
    others: Others::Refused,
    keys: &[
        Key::new("age", Shape::Duration, "Since the end of the run."),
        Key::new("runs", Shape::Int(1, 1_000_000_000), "The newest so many."),
    ],
};

pub(crate) static RETRY: Section = Section {
    name: "`retry`",
    title: "retry",
    doc: "Tries after the first, by whose fault the failure was. On a group, loop or switch the whole runs again.",
    example: "retry:\n  limit: 3\n  backoff: { initial: 1s, factor: 2, max: 1m, jitter: true }\n  when: \"${{ error.exit_code != 2 }}\"\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "limit",
            Shape::Dyn(&Shape::Int(0, 10_000)),
            "After failures of the step itself: an exit code, an exception, a 4xx.",
        )
        .default("0"),
        Key::new(
            "timeout",
            Shape::Int(0, 10_000),
            "After timeouts of an attempt.",
        )
        .default("0"),
        Key::new(
            "platform",
            Shape::Int(0, 10_000),
            "After failures of the platform: a lost worker, a connection, 408, 425, 429, 5xx.",
        )
        .default("5"),
        Key::new(
            "backoff",
            Shape::Section(&BACKOFF),
            "How long to wait between tries.",
        ),
        Key::new(
            "when",
            Shape::Condition,
            "Can only refuse a retry. Sees `error` (`kind reason message exit_code http_status`) and `attempt`.",
        ),
    ],
};

pub(crate) static BACKOFF: Section = Section {
    name: "`backoff`",
    title: "backoff",
    doc: "Before retry n: `initial * factor ^ (n - 1)`, at most `max`.",
    example: "",
    others: Others::Refused,
    keys: &[
        Key::new("initial", Shape::Duration, "Before the first retry.").default("1s"),
        Key::new("factor", Shape::Number(1.0), "At least 1.").default("2"),
        Key::new("max", Shape::Duration, "The longest wait.").default("5m"),
        Key::new(
            "jitter",
            Shape::Bool,
            "Waits 50 to 100 % of it, so that many items do not come back at once.",
        )
        .default("true"),
    ],
};

pub(crate) static TIMEOUT: Section = Section {
    name: "`timeout`",
    title: "timeout",
    doc: "Which clock each bound means. A duration alone is `attempt` on a step that runs on a worker and `total` on all others.",
    example: "timeout: { attempt: 10m, total: 2h, queue: 1h }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "attempt",
            Shape::Dyn(&Shape::Duration),
            "From the start of an attempt.",
        ),
        Key::new(
            "total",
            Shape::Dyn(&Shape::Duration),
            "From when the step could start, waits and retries included.",
        ),
        Key::new(
            "queue",
            Shape::Dyn(&Shape::Duration),
            "In the queue for a worker.",
        ),
    ],
};

pub(crate) static RESOURCES: Section = Section {
    name: "`resources`",
    title: "resources",
    doc: "What an attempt needs of its worker. Expressions may use `error` and `attempt`: more memory after running out of it.",
    example: "resources: { cpu: 0.5, memory: 512Mi, custom: { license: 1 }, labels: { zone: eu } }\n",
    others: Others::Refused,
    keys: &[
        Key::new("cpu", Shape::Dyn(&Shape::Number(0.0)), "Cores."),
        Key::new(
            "memory",
            Shape::Dyn(&Shape::Size),
            "Bytes: `512Mi`, `4Gi`, `1G`, or a number.",
        ),
        Key::new("gpu", Shape::Dyn(&Shape::Int(0, 1_000)), "Devices."),
        Key::new(
            "spot",
            Shape::Bool,
            "May run on workers that can be taken away (`kapell worker --spot`), and does so rather than elsewhere. Without it none of them gets it.",
        )
        .default("false"),
        Key::new(
            "preemptions",
            Shape::Int(0, 1_000),
            "After so many attempts whose spot worker was gone the others go to workers that are none, if there are such.",
        )
        .default("2"),
        Key::new(
            "custom",
            Shape::Map(&Shape::Dyn(&Shape::Int(0, limits::RESOURCE_AMOUNT))),
            "Of what workers offer under names of yours (`kapell worker --resource license=4`). At most 16.",
        ),
        Key::new(
            "labels",
            Shape::Map(&Shape::Text),
            "Labels that the worker must have (`kapell worker --label zone=eu`). At most 16.",
        ),
        Key::new(
            "prefer",
            Shape::Map(&Shape::Text),
            "Labels of the workers that get it first, while one of them has room; of several that fit in part, the one with the most. At most 16.",
        ),
    ],
};

pub(crate) static OUTPUTS: Section = Section {
    name: "`outputs`",
    title: "outputs",
    doc: "Where the output comes from and what it must be. (On `steps` it is a map of names to values instead.)",
    example: "outputs: { file: result.json, type: { rows: int, loss: float } }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "file",
            Shape::Literal,
            "A JSON file in the attempt's directory.",
        ),
        Key::new(
            "type",
            Shape::AnyOf(&[Shape::Type, Shape::Map(&Shape::Type)]),
            "A type, or a map of field names to types. Without one the output is `any`.",
        )
        .default("any"),
    ],
};

pub(crate) static ARTIFACTS: Section = Section {
    name: "`artifacts`",
    title: "artifacts",
    doc: "Files that pass between attempts. Paths are relative to the attempt's directory, without `..`.",
    example: "artifacts:\n  in: { model.pkl: \"${{ steps.train.output.model }}\" }\n  out: { report: report.html }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "in",
            Shape::Map(&Shape::Value),
            "Path to what it is: an artifact in another step's output. A list of artifacts fills a folder, each file with its place before its name: `0-part.csv`.",
        ),
        Key::new(
            "out",
            Shape::Map(&Shape::Literal),
            "Name in the output to path.",
        ),
    ],
};

pub(crate) static LOCK: Section = Section {
    name: "a lock",
    title: "lock",
    doc: "A name held for each attempt, wherever it runs; with `per` a rate. Only on steps that run on a worker.",
    example: "locks:\n  - { name: \"customer-${{ params.customer }}\" }\n  - { name: crm-api, per: 1m, max: 60 }\n",
    others: Others::Refused,
    keys: &[
        Key::new("name", Shape::Text, "The name in the namespace.").required(),
        Key::new("max", Shape::Int(1, 1_000_000), "How many hold it at once, or how many a period. Belongs to the name: it must be the same wherever the name is used.").default("1"),
        Key::new("per", Shape::Duration, "At most `max` attempts start in each such period."),
    ],
};
