//! What starts runs by itself, and what people are asked: maps with known keys.

use super::settings::PARAM;
use super::{Key, Others, Section, Shape};

pub(crate) static TRIGGER: Section = Section {
    name: "a trigger",
    title: "trigger",
    doc: "What starts runs of the workflow by itself. Its name is its identity over versions. A parameter without a default must be given in `with`.",
    example: "triggers:\n  - cron: \"0 2 * * *\"\n    timezone: Europe/Berlin\n    catchup: { mode: all, max: 100, within: 7d }\n  - signal: orders-landed\n    match: \"${{ signal.payload.table == 'orders' }}\"\n    with: { customer: \"${{ signal.payload.customer }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new("cron", Shape::Literal, "Due times: minute, hour, day of the month, month, day of the week, with seconds before them if there are six. `L`, `W` and `#` mean what they mean in Quartz; of two restricted days either will do. `@hourly @daily @weekly @monthly @yearly` are short for it.").verb(),
        Key::new("every", Shape::Duration, "Due times so far apart, at least `1s`, counted from `start`, else from 1970, in elapsed time.").verb(),
        Key::new("signal", Shape::Literal, "The name of a signal; each one that matches starts a run. `workflow.<name>.succeeded` and `workflow.<name>.failed` are sent when a run ends.").verb(),
        Key::new("signals", Shape::Map(&Shape::Section(&SIGNAL_SOURCE)), "Signals by alias, which start one run together once there is one of each with an equal key. At least 2, at most 16.").verb(),
        Key::new("webhook", Shape::AnyOf(&[Shape::Literal, Shape::Section(&WEBHOOK)]), "A request from outside; its body is `signal.payload`. A path alone is short for `{ path }`.").verb(),
        Key::new("name", Shape::Literal, "What it is called: letters, digits, `-`, `_` and `.`. Two of a kind must be named.").default("its kind: `cron`, `every`, …"),
        Key::new("with", Shape::Map(&Shape::Value), "Parameters of the runs that it starts. `run` is in scope (`workflow namespace scheduled_at created_at interval timezone trigger`), and what started it: `signal`, or `signals.<alias>`."),
        Key::new("when", Shape::Condition, "Starts nothing if it is false; over the same."),
        Key::new("paused", Shape::Bool, "True: it starts nothing until it is resumed.").default("false"),
        Key::new("timezone", Shape::Literal, "Of `cron` and `every`: an IANA name such as `Europe/Berlin`; what `run.timezone` is.").default("the workflow's"),
        Key::new("catchup", Shape::AnyOf(&[Shape::Choice(&["latest", "none", "all"]), Shape::Section(&CATCHUP)]), "Of `cron` and `every`: what becomes of due times at which nothing could start.").default("latest"),
        Key::new("jitter", Shape::Duration, "Of `cron` and `every`: starts are late by a part of this, always the same one for the same trigger. Shorter than the time between two due times; of a `cron` the nearest two of the first 100 from the year 2000 on count, by the wall clock.").default("0s"),
        Key::new("start", Shape::Literal, "Of `cron` and `every`: no due time before it. A timestamp, or a date or time in the time zone."),
        Key::new("end", Shape::Literal, "Of `cron` and `every`: no due time at or after it."),
        Key::new("match", Shape::Condition, "Of `signal`: which of them, over `signal`. A field that the signal lacks is no match.").default("every one"),
        Key::new("within", Shape::Duration, "Of `signals`: how far apart they may have been sent.").default("as long as they are kept"),
        Key::new("dedupe", Shape::Text, "Of `signal`, `signals` and `webhook`: of signals for which this is equal one starts a run, over what started it.").default("each starts one"),
    ],
};

pub(crate) static CATCHUP: Section = Section {
    name: "`catchup`",
    title: "catchup",
    doc: "What becomes of due times at which nothing could start: because no server ran, say. Those of a pause are not made up for: backfill them.",
    example: "",
    others: Others::Refused,
    keys: &[
        Key::new(
            "mode",
            Shape::Choice(&["latest", "none", "all"]),
            "`latest`: the newest is made up for. `none`: none is. `all`: all are, oldest first.",
        )
        .required(),
        Key::new(
            "max",
            Shape::Int(1, 10_000),
            "Of `all`: at most so many, the newest.",
        )
        .default("10,000"),
        Key::new("within", Shape::Duration, "Of `all`: none that is older.").default("however old"),
        Key::new(
            "pace",
            Shape::Duration,
            "Of `all`: at least so long between two of them.",
        )
        .default("at once"),
    ],
};

pub(crate) static SIGNAL_SOURCE: Section = Section {
    name: "a signal of `signals`",
    title: "signal-source",
    doc: "One of the signals that start a run together: the oldest unused one of each with an equal key.",
    example: "triggers:\n  - signals:\n      orders: { signal: orders-landed, key: \"${{ signal.payload.day }}\" }\n      rates: { signal: rates-landed, key: \"${{ signal.payload.day }}\" }\n    within: 24h\n    with: { customer: \"${{ signals.orders.payload.customer }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new("signal", Shape::Literal, "The signal's name.").required(),
        Key::new("match", Shape::Condition, "Which of them, over `signal`.").default("every one"),
        Key::new("key", Shape::Text, "What it is joined by, over `signal`.")
            .default("`signal.key`"),
    ],
};

pub(crate) static WEBHOOK: Section = Section {
    name: "`webhook`",
    title: "webhook",
    doc: "A request from outside that starts a run.",
    example: "triggers:\n  - webhook: { path: orders, secret: \"${{ secrets.orders_hook }}\" }\n    dedupe: \"${{ signal.payload.id }}\"\n    with: { customer: \"${{ signal.payload.customer }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "path",
            Shape::Literal,
            "The last part of its address: letters, digits, `-`, `_` and `.`.",
        )
        .required(),
        Key::new(
            "secret",
            Shape::Text,
            "What bodies are signed with (HMAC-SHA256). May hold `${{ secrets.NAME }}`.",
        )
        .default("whoever knows the address may call it"),
    ],
};

pub(crate) static APPROVAL: Section = Section {
    name: "`approval`",
    title: "approval",
    doc: "Waits until people have said yes, or one has said no. The output is `{approved, by, at, comment, input}`.",
    example: "approval:\n  by: [ml-leads, anna@example.com]\n  message: \"Publish for ${{ params.customer }}?\"\n  input: { share: { type: float, min: 0, max: 1, default: 0.1 } }\n  timeout: 1d\n",
    others: Others::Refused,
    keys: &[
        Key::new("by", Shape::OneOrMany(&Shape::Literal), "Users and groups that may answer.").default("everybody who may act on the run"),
        Key::new("count", Shape::Int(1, 100), "How many different people must say yes. One no is enough.").default("1"),
        Key::new("message", Shape::Text, "What they are asked."),
        Key::new("input", Shape::Map(&Shape::Section(&PARAM)), "What they fill in, typed as parameters are: `output.input.<name>`. Defaults are fixed."),
        Key::new("timeout", Shape::Dyn(&Shape::Duration), "From when the step could start; late is `timed_out`.").default("no bound"),
        Key::new("allow_self", Shape::Bool, "True: whoever started the run may answer too.").default("false"),
        Key::new("on_reject", Shape::Choice(&["fail", "continue"]), "What a no does. `fail`: the step fails as `rejected`, and is never retried. `continue`: it succeeds with `approved: false`.").default("fail"),
    ],
};
