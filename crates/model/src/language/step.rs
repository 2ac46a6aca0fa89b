//! A step: its verbs, then what any step may carry.

use super::settings::{ARTIFACTS, LOCK, OUTPUTS, RESOURCES, RETRY, TIMEOUT};
use super::signals::{AWAIT, EMIT, FAIRNESS, OFF_PEAK};
use super::triggers::APPROVAL;
use super::{Key, Others, Section, Shape};

pub(crate) static STEP: Section = Section {
    name: "a step",
    title: "step",
    doc: "One step. It has exactly one verb, the key that says what it does. Its id matches `[A-Za-z_][A-Za-z0-9_]*` and may not repeat one of an enclosing graph.",
    example: "steps:\n  load:\n    shell: ./load.sh\n    outputs: { file: rows.json }\n  check:\n    needs: load\n    if: \"${{ size(steps.load.output) > 0 }}\"\n    python: { file: check.py, function: check }\n    with: { rows: \"${{ steps.load.output }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new("shell", Shape::AnyOf(&[Shape::Literal, Shape::Section(&SHELL)]), "A script through `sh -eu`, on a worker. Its text is literal: pass values by `env` or `args`.").verb(),
        Key::new("exec", Shape::List(&Shape::Text), "A program and its arguments, without a shell, on a worker. The code after `-c` or `-e` of a shell or interpreter is literal.").verb(),
        Key::new("python", Shape::Section(&PYTHON), "A Python function in a warm process on a worker; the output is what it returns. `with` is passed by parameter name.").verb(),
        Key::new("http", Shape::Section(&HTTP), "An HTTP request from a worker; the output is `{status, headers, body}`.").verb(),
        Key::new("workflow", Shape::AnyOf(&[Shape::Literal, Shape::Section(&WORKFLOW_CALL)]), "A run of another workflow: `name`, `name@3`, or a map. Inputs in `with`. The output is the child's outputs plus `run_id`.").verb(),
        Key::new("steps", Shape::Steps, "A group: an inner graph. The output is its `outputs`, else a map of the inner steps' outputs by id.").verb(),
        Key::new("switch", Shape::List(&Shape::Section(&BRANCH)), "The first branch that holds. The output is the taken branch's outputs by step id, plus `branch`, its place from 0; null if none holds.").verb(),
        Key::new("loop", Shape::Section(&LOOP), "A bounded cycle. The output is the last vars plus `iterations`.").verb(),
        Key::new("wait", Shape::AnyOf(&[Shape::Dyn(&Shape::Duration), Shape::Section(&WAIT)]), "Waits a duration, or until a time. No worker is held.").verb(),
        Key::new("await", Shape::Section(&AWAIT), "Waits for a signal, without a worker; the output is the signal.").verb(),
        Key::new("approval", Shape::Section(&APPROVAL), "Waits for people to say yes or no, without a worker; the output is the answer.").verb(),
        Key::new("set", Shape::Map(&Shape::Value), "Computes values; the output is the map of them. No worker is used.").verb(),
        Key::new("noop", Shape::Empty, "Nothing.").verb(),
        Key::new("fail", Shape::AnyOf(&[Shape::Text, Shape::Section(&FAIL)]), "Fails with a message.").verb(),
        Key::later("sql", "A statement with bind parameters on a named connection.").verb(),
        Key::later("container", "A container, followed to its end.").verb(),
        Key::later("kubernetes", "A Kubernetes job, followed to its end.").verb(),
        Key::later("slurm", "A Slurm job, followed to its end.").verb(),
        Key::later("spark", "A Spark application, followed to its end.").verb(),
        Key::later("ray", "A Ray job, followed to its end.").verb(),
        Key::later("wasm", "A WASI module in a sandbox.").verb(),
        Key::new("description", Shape::Literal, "What it is for."),
        Key::new("needs", Shape::OneOrMany(&Shape::Literal), "Steps of the same graph that must have ended before it starts. It sees their outputs, and those of the steps they need."),
        Key::new("run_if", Shape::Choice(&["all_succeeded", "all_done", "any_succeeded", "any_failed", "none_failed"]), "What its needs must have come to. All of them wait until every need has ended.").default("all_succeeded"),
        Key::new("if", Shape::Condition, "False skips the step."),
        Key::new("foreach", Shape::Section(&FOREACH), "Runs the verb once an item."),
        Key::new("with", Shape::Map(&Shape::Value), "Inputs: of a Python function by parameter name, of a workflow by parameter, for processes a JSON file at `$KAPELL_INPUT`. May hold `${{ secrets.NAME }}` where a worker runs it."),
        Key::new("env", Shape::Map(&Shape::AnyOf(&[Shape::Text, Shape::Unset])), "Environment of the attempt. Null unsets. May hold `${{ secrets.NAME }}`."),
        Key::new("outputs", Shape::AnyOf(&[Shape::Section(&OUTPUTS), Shape::Map(&Shape::Value)]), "Where the output comes from and what it must be; on `steps` the group's output by name."),
        Key::new("artifacts", Shape::Section(&ARTIFACTS), "Files in and out."),
        Key::new("retry", Shape::Section(&RETRY), "Tries after the first."),
        Key::new("timeout", Shape::AnyOf(&[Shape::Dyn(&Shape::Duration), Shape::Section(&TIMEOUT)]), "Bounds on its time."),
        Key::new("queue", Shape::Literal, "Where its tasks wait for workers.").default("default"),
        Key::new("resources", Shape::Section(&RESOURCES), "What an attempt needs of its worker."),
        Key::new("priority", Shape::Dyn(&Shape::Int(0, 100)), "From 0 (whenever) to 100 (first).").default("the run's"),
        Key::new("not_before", Shape::Text, "Does not start before this instant: a timestamp, a date, or text of one."),
        Key::new("locks", Shape::List(&Shape::Section(&LOCK)), "Names held for each attempt. At most 16."),
        Key::new("on_failure", Shape::AnyOf(&[Shape::Choice(&["continue"]), Shape::Section(&HANDLER)]), "`continue`: the run is not failed by it. A map: steps that run first."),
        Key::new("idempotent", Shape::Bool, "False: never repeated once an attempt may have begun.").default("true"),
        Key::new("once", Shape::Bool, "True: never handed out twice.").default("false"),
        Key::new("emit", Shape::OneOrMany(&Shape::Section(&EMIT)), "Signals sent when the step ends. At most 16."),
        Key::new("fairness", Shape::AnyOf(&[Shape::Text, Shape::Section(&FAIRNESS)]), "Shares its queue fairly between keys, within its namespace and priority. Of a foreach each item has its own."),
        Key::new("off_peak", Shape::Section(&OFF_PEAK), "Starts in the quiet hours, and waits for them."),
        Key::new("breakpoint", Shape::AnyOf(&[Shape::Choice(&["before", "after", "on_failure"]), Shape::Condition]), "Stops the run before or after the step, once it has failed, or before it if a condition holds, until a person lets it go on."),
        Key::new("labels", Shape::Map(&Shape::Text), "Shown with the step."),
        Key::later("cache", "Keeps results of equal work."),
    ],
};

pub(crate) static SHELL: Section = Section {
    name: "`shell`",
    title: "shell",
    doc: "A script with its interpreter and arguments.",
    example: "shell:\n  script: echo \"$1\"\n  interpreter: [bash, -euo, pipefail]\n  args: [\"${{ params.name }}\"]\n",
    others: Others::Refused,
    keys: &[
        Key::new("script", Shape::Literal, "The script, literal.").required(),
        Key::new(
            "interpreter",
            Shape::OneOrMany(&Shape::Literal),
            "Program and options before the script's path.",
        )
        .default("[sh, -eu]"),
        Key::new("args", Shape::List(&Shape::Text), "`$1` and so on."),
    ],
};

pub(crate) static PYTHON: Section = Section {
    name: "`python`",
    title: "python",
    doc: "Where the function is: exactly one of `file`, `module` and `code`.",
    example: "python: { file: train.py, function: fit, requirements: [scikit-learn] }\nwith: { lr: 0.1 }\n",
    others: Others::Refused,
    keys: &[
        Key::new("file", Shape::Literal, "A file of the bundle."),
        Key::new("module", Shape::Literal, "An importable module."),
        Key::new("code", Shape::Literal, "Inline code, literal."),
        Key::new("function", Shape::Literal, "The function's name.").default("main"),
        Key::new(
            "requirements",
            Shape::OneOrMany(&Shape::Literal),
            "Packages as pip names them.",
        ),
        Key::new(
            "concurrency",
            Shape::Int(1, 1_000),
            "Tasks that one process may run at a time.",
        )
        .default("1"),
        Key::later("notebook", "A notebook."),
    ],
};

pub(crate) static HTTP: Section = Section {
    name: "`http`",
    title: "http",
    doc: "An HTTP request. An idempotency key is sent with it.",
    example: "http:\n  method: POST\n  url: \"https://api.internal/orders/${{ params.order }}\"\n  headers: { X-Key: \"${{ secrets.api_key }}\" }\n  json: { paid: true }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "method",
            Shape::Choice(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
            "The method.",
        )
        .default("GET, or POST with a body"),
        Key::new(
            "url",
            Shape::Text,
            "Expressions inside longer text are percent-encoded; a whole value is taken as is.",
        )
        .required(),
        Key::new("query", Shape::Map(&Shape::Value), "Query parameters."),
        Key::new(
            "headers",
            Shape::Map(&Shape::Text),
            "May hold `${{ secrets.NAME }}`.",
        ),
        Key::new("json", Shape::Value, "A JSON body."),
        Key::new("body", Shape::Text, "A text body."),
        Key::new("auth", Shape::Section(&AUTH), "Credentials."),
    ],
};

pub(crate) static AUTH: Section = Section {
    name: "`auth`",
    title: "auth",
    doc: "Credentials of a request: `bearer`, or `user` and `password`. May hold `${{ secrets.NAME }}`.",
    example: "",
    others: Others::Refused,
    keys: &[
        Key::new("bearer", Shape::Text, "A bearer token."),
        Key::new("user", Shape::Text, "User name."),
        Key::new("password", Shape::Text, "Password."),
    ],
};

pub(crate) static WORKFLOW_CALL: Section = Section {
    name: "`workflow`",
    title: "workflow-call",
    doc: "Which workflow a step runs.",
    example: "workflow: { name: load-region, version: 3 }\nwith: { region: eu }\n",
    others: Others::Refused,
    keys: &[
        Key::new("name", Shape::Literal, "Its name.").required(),
        Key::new("version", Shape::Int(1, 4_294_967_295), "Its version.")
            .default("the active one when the child starts"),
        Key::new(
            "wait",
            Shape::Bool,
            "False: succeeds as soon as the child exists.",
        )
        .default("true"),
    ],
};

pub(crate) static BRANCH: Section = Section {
    name: "a branch",
    title: "branch",
    doc: "One branch of a switch.",
    example: "switch:\n  - when: \"${{ params.size > 100 }}\"\n    steps: { big: { shell: ./big.sh } }\n  - else: true\n    steps: { small: { shell: ./small.sh } }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "when",
            Shape::Condition,
            "Taken if it holds and none before it did.",
        ),
        Key::new(
            "else",
            Shape::Bool,
            "`true` on the last branch: taken if no other is.",
        ),
        Key::new("steps", Shape::Steps, "What it runs.").required(),
    ],
};

pub(crate) static LOOP: Section = Section {
    name: "`loop`",
    title: "loop",
    doc: "A bounded cycle: `while` is tested before each iteration, `until` after it. Inner steps see `vars` and `iteration` (from 0).",
    example: "loop:\n  vars: { page: 1 }\n  until: \"${{ steps.fetch.output.last }}\"\n  next: { page: \"${{ vars.page + 1 }}\" }\n  steps:\n    fetch: { python: { file: api.py, function: fetch }, with: { page: \"${{ vars.page }}\" } }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "vars",
            Shape::Map(&Shape::Value),
            "Variables with their first values, evaluated outside the loop.",
        ),
        Key::new(
            "while",
            Shape::Condition,
            "Goes on while it holds. Not together with `until`.",
        ),
        Key::new(
            "until",
            Shape::Condition,
            "Ends once it holds; sees the inner steps. Not together with `while`.",
        ),
        Key::new(
            "next",
            Shape::Map(&Shape::Value),
            "New values after each iteration; sees the inner steps. Vars that it omits keep their value.",
        ),
        Key::new(
            "max_iterations",
            Shape::Int(1, 1_000_000),
            "Reaching it fails the step.",
        )
        .default("1000"),
        Key::new(
            "on_max",
            Shape::Choice(&["fail", "succeed"]),
            "What reaching `max_iterations` means.",
        )
        .default("fail"),
        Key::new("delay", Shape::Dyn(&Shape::Duration), "Between iterations."),
        Key::new("steps", Shape::Steps, "What each iteration runs.").required(),
    ],
};

pub(crate) static WAIT: Section = Section {
    name: "`wait`",
    title: "wait",
    doc: "How long: exactly one of the two.",
    example: "wait: { until: \"${{ run.scheduled_at + duration('6h') }}\" }\n",
    others: Others::Refused,
    keys: &[
        Key::new(
            "for",
            Shape::Dyn(&Shape::Duration),
            "From when the step could start.",
        ),
        Key::new(
            "until",
            Shape::Text,
            "A timestamp, a date, or text of one; one that is past ends at once.",
        ),
    ],
};

pub(crate) static FAIL: Section = Section {
    name: "`fail`",
    title: "fail",
    doc: "A deliberate failure.",
    example: "",
    others: Others::Refused,
    keys: &[Key::new("message", Shape::Text, "The error's message.").required()],
};

pub(crate) static HANDLER: Section = Section {
    name: "`on_failure`",
    title: "on-failure",
    doc: "Steps that run once, after the last attempt failed. They see `error` and, of a container, its inner steps.",
    example: "on_failure:\n  steps: { undo: { shell: ./undo.sh } }\n  then: continue\n",
    others: Others::Refused,
    keys: &[
        Key::new("steps", Shape::Steps, "What it runs.").required(),
        Key::new(
            "then",
            Shape::Choice(&["fail", "continue"]),
            "What the failure does afterwards.",
        )
        .default("fail"),
    ],
};

pub(crate) static FOREACH: Section = Section {
    name: "`foreach`",
    title: "foreach",
    doc: "Lists to go through, by the name of the variable that holds an item, and options. Several variables multiply, the last one fastest. Items also see `index`.",
    example: "foreach: { region: [eu, us], day: \"${{ params.days }}\", concurrency: 8, min_success: 90% }\n",
    others: Others::Names(&Shape::Value),
    keys: &[
        Key::new(
            "concurrency",
            Shape::Dyn(&Shape::Int(1, 1_000_000)),
            "Items in flight at once.",
        )
        .default("no bound"),
        Key::new(
            "min_success",
            Shape::Share,
            "How many must succeed: a count, or a share such as `90%`.",
        )
        .default("100%"),
        Key::new(
            "chunk",
            Shape::Int(1, 1_000_000),
            "The one variable is a list of up to so many, and that list is the item.",
        ),
        Key::new(
            "zip",
            Shape::Bool,
            "Pairs the lists, which are equally long, instead of multiplying them.",
        )
        .default("false"),
        Key::new(
            "stop_when",
            Shape::Condition,
            "Checked at each success with `output` in scope; true skips the rest.",
        ),
        Key::new(
            "label",
            Shape::Text,
            "Names an item in logs and on the command line.",
        ),
    ],
};
