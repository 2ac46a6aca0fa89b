//! Signals, and what tells people or spreads load.

use super::{Key, Others, Section, Shape};

pub(crate) static AWAIT: Section = Section {
    name: "`await`",
    title: "await",
    doc: "Waits for a signal and takes the newest one that matches; it stays there for others. The output is the signal: `{id, name, key, payload, sent_at}`.",
    example: "await:\n  signal: orders-landed\n  match: \"${{ signal.payload.customer == params.customer }}\"\n  timeout: 6h\n",
    others: Others::Refused,
    keys: &[
        Key::new("signal", Shape::Literal, "The signal's name: letters, digits, `-`, `_` and `.`.").required(),
        Key::new("match", Shape::Condition, "Which of them: `signal` and all that the step sees is in scope. A field that the signal lacks is no match.").default("every one"),
        Key::new("since", Shape::Text, "Signals sent before it do not count: a timestamp, a date, or text of one.").default("`run.interval.start`"),
        Key::new("timeout", Shape::Dyn(&Shape::Duration), "From when the step could start; late is `timed_out`.").default("no bound"),
    ],
};

pub(crate) static EMIT: Section = Section {
    name: "`emit`",
    title: "emit",
    doc: "A signal sent when the step ends, after its last try. Expressions may also use `output`, the step's own, and unless `when` is `succeeded` also `error`, which is null after success.",
    example: "emit:\n  signal: model-published\n  key: \"${{ params.customer }}\"\n  payload: { day: \"${{ run.scheduled_at }}\", rows: \"${{ output.rows }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new("signal", Shape::Literal, "The signal's name: letters, digits, `-`, `_` and `.`. Names that start with `workflow.` are sent by Kapell itself.").required(),
        Key::new("payload", Shape::Value, "What it says: `signal.payload`.").default("null"),
        Key::new("key", Shape::Text, "What signals are joined and told apart by: `signal.key`."),
        Key::new("id", Shape::Text, "What makes it the same signal: while one with this id is kept, another with it is not sent, from whatever run. At most 256 bytes.").default("one of its own"),
        Key::new("when", Shape::Choice(&["succeeded", "failed", "done"]), "`succeeded`: also if cached. `failed`: also if timed out. `done`: both.").default("succeeded"),
    ],
};

pub(crate) static NOTIFY: Section = Section {
    name: "`notify`",
    title: "notify",
    doc: "Who is told what became of runs.",
    example: "notify: { to: on-call, on: [failed, deadline] }\n",
    others: Others::Refused,
    keys: &[
        Key::new("to", Shape::OneOrMany(&Shape::Literal), "The name of a channel of the server's settings, which is where secrets belong, or an `https://` address that is sent the notice as JSON. E-mail addresses are kept, and nothing is sent to them by this version.").required(),
        Key::new("on", Shape::OneOrMany(&Shape::Choice(&["started", "succeeded", "failed", "timed_out", "cancelled", "discarded", "deadline", "recovered", "approval"])), "What is told: that a run started, how it ended, that it missed its `deadline` or probably will, that it succeeded after a failure, or that people are asked.").default("[failed, timed_out, deadline]"),
    ],
};

pub(crate) static OFF_PEAK: Section = Section {
    name: "`off_peak`",
    title: "off-peak",
    doc: "The quiet hours of each day. An attempt starts inside them, and else waits for the next; what has started goes on.",
    example: "off_peak: { from: \"22:00\", to: \"06:00\", timezone: Europe/Berlin }\n",
    others: Others::Refused,
    keys: &[
        Key::new("from", Shape::Literal, "A time of day: `22:00`.").required(),
        Key::new(
            "to",
            Shape::Literal,
            "A time of day, on the next day if it is not after `from`.",
        )
        .required(),
        Key::new(
            "timezone",
            Shape::Literal,
            "An IANA name such as `Europe/Berlin`.",
        )
        .default("the workflow's"),
    ],
};

pub(crate) static FAIRNESS: Section = Section {
    name: "`fairness`",
    title: "fairness",
    doc: "Tasks of one priority and namespace in a queue are taken in turn from each key, whatever run they are of, so that a burst of one key does not hold up the others. A key alone is short for `{ key }`.",
    example: "fairness: { key: \"${{ params.customer }}\", weight: 2 }\n",
    others: Others::Refused,
    keys: &[
        Key::new("key", Shape::Text, "What the queue is shared between.").required(),
        Key::new(
            "weight",
            Shape::Int(1, 1_000),
            "How many tasks of this key for one of a key with weight 1.",
        )
        .default("1"),
    ],
};
