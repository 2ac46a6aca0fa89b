//! The top level of a file.

use super::settings::{DEFAULTS, PARAM, RETENTION, STRATEGY};
use super::signals::NOTIFY;
use super::triggers::TRIGGER;
use super::{Key, Others, Section, Shape};

pub(crate) static WORKFLOW: Section = Section {
    name: "a workflow",
    title: "workflow",
    doc: "The top level of a file. Keys that start with `x-` are ignored: a place for anchors and for tools.",
    example: "workflow: hello\nparams:\n  who: { type: string, default: world }\nsteps:\n  greet:\n    shell: echo \"hello $WHO\"\n    env: { WHO: \"${{ params.who }}\" }\n",
    others: Others::Extensions,
    keys: &[
        Key::new("workflow", Shape::Literal, "The workflow's name: letters, digits, `-`, `_` and `.`.").required(),
        Key::new("namespace", Shape::Literal, "The namespace it belongs in. Deploying it elsewhere is an error.").default("the deploy's"),
        Key::new("description", Shape::Literal, "What it is for."),
        Key::new("owner", Shape::Literal, "Who to ask."),
        Key::new("tags", Shape::OneOrMany(&Shape::Literal), "Words to find it by."),
        Key::new("labels", Shape::Map(&Shape::Text), "Set on each run; may use `params` and `run`. At most 64."),
        Key::new("timezone", Shape::Literal, "An IANA name such as `Europe/Berlin`: what `run.timezone` is.").default("UTC"),
        Key::new("priority", Shape::Int(0, 100), "From 0 (whenever) to 100 (first).").default("50"),
        Key::new("params", Shape::Map(&Shape::Section(&PARAM)), "Typed parameters, checked before a run exists. Without a default a parameter is required."),
        Key::new("env", Shape::Map(&Shape::AnyOf(&[Shape::Text, Shape::Unset])), "Environment of every step that runs on a worker. Null unsets. May hold `${{ secrets.NAME }}`."),
        Key::new("defaults", Shape::Section(&DEFAULTS), "What steps that run on a worker take where they say nothing."),
        Key::new("strategy", Shape::Section(&STRATEGY), "What a start does while other runs of the workflow are active."),
        Key::new("max_parallelism", Shape::Int(1, 1_000_000), "Attempts of one run in flight at once.").default("no bound"),
        Key::new("on_step_failure", Shape::Choice(&["finish_running", "fail_fast", "continue"]), "What a failed step does to the rest of its graph: let what runs end, cancel it too, or go on with all that does not depend on it.").default("finish_running"),
        Key::new("timeout", Shape::Duration, "From the start of the run to its end, paused time left out."),
        Key::new("deadline", Shape::Text, "When a run should have ended: `2h` after `run.scheduled_at`, `within 2h of queued`, `07:00 Europe/Berlin` (the first one after it; without a zone in the run's), or an expression over `params` and `run` for the duration or the timestamp. Missing it stops nothing: see `notify`."),
        Key::new("notify", Shape::OneOrMany(&Shape::Section(&NOTIFY)), "Who is told what became of runs."),
        Key::new("triggers", Shape::List(&Shape::Section(&TRIGGER)), "What starts runs by itself. At most 64."),
        Key::new("retention", Shape::Section(&RETENTION), "How long ended runs are kept.").default("for ever"),
        Key::new("steps", Shape::Steps, "The steps by id.").required(),
        Key::new("finally", Shape::Steps, "Steps that run however the run ended, once nothing else runs. They see every top-level step and `run.status`. A step there has 10 minutes unless it says otherwise."),
        Key::new("outputs", Shape::Map(&Shape::Value), "What a run gives back, and a parent workflow sees; may use `params`, `run` and `steps`."),
    ],
};
