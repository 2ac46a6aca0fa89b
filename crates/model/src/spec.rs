//! What a workflow file means: the normalised definition that runs keep for life.
//!
//! `parse` makes it; everything here is data. It is stored as JSON with every default filled in, so
//! that a later release reads it as it was meant. New fields must have a serde default that keeps
//! the old meaning, and must not be written where they have it: the hash of a version is over this
//! JSON, and a file that did not change must not become a new version.

mod approval;
mod bounds;
mod later;
mod trigger;

pub use approval::{Approval, OnReject};
pub use bounds::{Debounce, LockBounds, LockUse, Retention, Strategy, StrategyMode};
pub use later::{Await, Breakpoint, Emit, EmitWhen, Fairness, Notify, NotifyOn, OffPeak};
pub use trigger::{
    Catchup, Schedule, SignalSource, SignalTrigger, Timing, Trigger, TriggerKind, Webhook,
};

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::{Program, Template, Type, Value};
use serde::{Deserialize, Serialize};

/// A name and what belongs to it, in the order written.
pub type Named<T> = Vec<(Arc<str>, T)>;

/// The place of a step in its [`Graph`].
pub type StepIndex = u16;

/// A workflow definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The namespace the file asks for; none takes the deploy's.
    pub namespace: Option<Arc<str>>,
    /// Free text.
    pub description: String,
    /// Who to ask.
    pub owner: String,
    /// Words to find the workflow by.
    pub tags: Vec<String>,
    /// Set on each run; over `params` and `run`.
    pub labels: Named<Template>,
    /// IANA name.
    pub timezone: Arc<str>,
    /// 0 (whenever) to 100 (first).
    pub priority: u8,
    /// Parameters in the order written.
    pub params: Vec<Param>,
    /// What a start does while other runs are active.
    pub strategy: Strategy,
    /// Attempts of one run in flight at once; none is no bound.
    pub max_parallelism: Option<u32>,
    /// What the failure of a step does to the rest of its graph.
    pub on_step_failure: FailurePolicy,
    /// From the start of the run to its end, paused time left out.
    pub timeout: Option<SignedDuration>,
    /// When a run should have ended: after `run.scheduled_at`, or an expression over `params` and
    /// `run` that gives such a duration or a timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Dyn<SignedDuration>>,
    /// Who is told what became of runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
    /// What starts runs by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// `retention`, how long ended runs are kept.
    pub retention: Retention,
    /// The steps.
    pub graph: Graph,
    /// Runs however the run ended.
    pub finally: Option<Graph>,
    /// The run's outputs; over `params`, `run` and `steps`.
    pub outputs: Named<Template>,
}

/// A typed parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Param {
    /// Its name in expressions.
    pub name: Arc<str>,
    /// Its type.
    pub ty: Type,
    /// A `file` parameter: text that names a file of the bundle.
    pub file: bool,
    /// Without one the parameter is required. Over `run` and other params.
    pub default: Option<Template>,
    /// The only values allowed.
    pub allowed: Option<Vec<Value>>,
    /// The least value, or the least length of text and lists.
    pub min: Option<Value>,
    /// The greatest value, or the greatest length of text and lists.
    pub max: Option<Value>,
    /// A regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// Cannot be overridden at a start.
    pub fixed: bool,
    /// Free text.
    pub description: String,
}

/// Steps and their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Graph {
    /// In the order written. `needs` of each name places in this list and make no cycle.
    pub steps: Vec<Arc<Step>>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its id, unique in its graph and all that enclose it.
    pub id: Arc<str>,
    /// Free text.
    pub description: String,
    /// The steps of the same graph that it waits for, ascending.
    pub needs: Vec<StepIndex>,
    /// What those must have come to.
    pub run_if: RunIf,
    /// `if`: false skips the step.
    pub condition: Option<Program>,
    /// Runs the verb once an item.
    pub foreach: Option<Foreach>,
    /// What it does.
    pub verb: Verb,
    /// The inputs: always a map of templates. Worker verbs may hold secrets in it.
    pub with: Option<Template>,
    /// Environment, workflow's and defaults' merged in. `None` unsets.
    pub env: Named<Option<Template>>,
    /// Where the output comes from and what it must be.
    pub outputs: Outputs,
    /// Files in and out.
    pub artifacts: Artifacts,
    /// Tries after the first.
    pub retry: Retry,
    /// Bounds on its time.
    pub timeout: Timeouts,
    /// Where its tasks wait for workers.
    pub queue: Arc<str>,
    /// What an attempt needs of its worker.
    pub resources: Resources,
    /// 0 to 100; none takes the run's.
    pub priority: Option<Dyn<i64>>,
    /// Does not start before this instant (timestamp, date or text of one).
    pub not_before: Option<Template>,
    /// Names held for each attempt, in name order.
    pub locks: Vec<LockUse>,
    /// What its failure does.
    pub on_failure: OnFailure,
    /// False: never repeated once an attempt may have begun.
    pub idempotent: bool,
    /// True: never handed out twice.
    pub once: bool,
    /// Shown with the step.
    pub labels: Named<Template>,
    /// Signals sent in the commit that ends the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emit: Vec<Emit>,
    /// Where a person lets the run go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakpoint: Option<Breakpoint>,
    /// The hours in which it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_peak: Option<OffPeak>,
    /// What its queue is shared between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
}

/// A setting that is a literal or an expression over the step's names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Dyn<T> {
    /// A literal, already checked.
    Fixed(T),
    /// Evaluated when the attempt is granted, then checked like the literal.
    Expr(Program),
}

/// What the ends of a step's needs must be for it to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunIf {
    /// Every need succeeded.
    #[default]
    AllSucceeded,
    /// Every need ended, however.
    AllDone,
    /// At least one need succeeded.
    AnySucceeded,
    /// At least one need failed.
    AnyFailed,
    /// No need failed; skipped ones count as fine.
    NoneFailed,
}

/// What a failed step does to the rest of its graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Nothing more starts; what runs may end.
    #[default]
    FinishRunning,
    /// Nothing more starts and what runs is cancelled.
    FailFast,
    /// Everything that does not depend on it goes on.
    Continue,
}

/// What a step's own failure does, before the graph's policy is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum OnFailure {
    /// The graph's policy decides.
    #[default]
    Policy,
    /// Dependants see `failed`; the graph is not failed by it.
    Continue,
    /// A graph runs once after the last attempt.
    Handle {
        /// The graph; sees `error`.
        graph: Graph,
        /// True for `then: continue`.
        then_continue: bool,
    },
}

/// A list to go through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Foreach {
    /// Variables with their lists, in the order written: the last goes fastest.
    pub vars: Named<Template>,
    /// Items in flight at once; none is no bound.
    pub concurrency: Option<Dyn<i64>>,
    /// How many must succeed.
    pub min_success: MinSuccess,
    /// The one variable is a list of up to so many.
    pub chunk: Option<u32>,
    /// Pairs the lists instead of multiplying them.
    pub zip: bool,
    /// Checked at each success with `output` in scope; true skips the rest.
    pub stop_when: Option<Program>,
    /// Names an item.
    pub label: Option<Template>,
}

/// How many items must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum MinSuccess {
    /// A number of items.
    Count(u32),
    /// Hundredths of a percent of all items, rounded up to a whole item: 10,000 is every item.
    Share(u32),
}

/// What a step does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Verb {
    /// A script through an interpreter, on a worker.
    Shell {
        /// The script, literal.
        script: Arc<str>,
        /// The argv before the script file's path, `["sh", "-eu"]` unless said.
        interpreter: Vec<Arc<str>>,
        /// `$1…`.
        args: Vec<Template>,
    },
    /// An argv, no shell, on a worker.
    Exec {
        /// Program and arguments.
        argv: Vec<Template>,
    },
    /// A Python function in a warm host process.
    Python {
        /// Where the function is.
        source: PythonSource,
        /// Its name.
        function: Arc<str>,
        /// Requirement specifiers as pip takes them.
        requirements: Vec<Arc<str>>,
        /// Tasks one host process may run at a time.
        concurrency: u32,
    },
    /// An HTTP request, from a worker.
    Http(Box<Http>),
    /// A run of another workflow.
    Workflow {
        /// Its name.
        name: Arc<str>,
        /// Its version; none is the active one when the child starts.
        version: Option<u32>,
        /// False: succeeds as soon as the child is made.
        wait: bool,
    },
    /// A group.
    Steps {
        /// The inner graph.
        graph: Graph,
        /// The output; empty is a map of every inner step's.
        outputs: Named<Template>,
    },
    /// The first branch that holds.
    Switch {
        /// In order; `when: None` is `else`, the last.
        branches: Vec<Branch>,
    },
    /// A bounded cycle.
    Loop(Box<Loop>),
    /// Waits a time.
    Wait(Wait),
    /// Waits for a signal.
    Await(Box<Await>),
    /// Waits for people.
    Approval(Box<Approval>),
    /// Computes a map in the engine.
    Set {
        /// Names and values.
        values: Named<Template>,
    },
    /// Nothing, on a worker.
    Noop,
    /// A deliberate failure, on a worker.
    Fail {
        /// The error's message.
        message: Template,
    },
}

impl Verb {
    /// The graphs inside: one of a group or loop, one for each branch of a switch.
    pub fn graphs(&self) -> Vec<&Graph> {
        match self {
            Self::Steps { graph, .. } => vec![graph],
            Self::Loop(cycle) => vec![&cycle.graph],
            Self::Switch { branches } => branches.iter().map(|branch| &branch.graph).collect(),
            Self::Shell { .. }
            | Self::Exec { .. }
            | Self::Python { .. }
            | Self::Http(_)
            | Self::Workflow { .. }
            | Self::Wait(_)
            | Self::Await(_)
            | Self::Approval(_)
            | Self::Set { .. }
            | Self::Noop
            | Self::Fail { .. } => Vec::new(),
        }
    }
}

/// Where a Python function is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PythonSource {
    /// A file of the bundle.
    File(Arc<str>),
    /// An importable module.
    Module(Arc<str>),
    /// Inline code, literal.
    Code(Arc<str>),
}

/// An HTTP request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Http {
    /// Upper case.
    pub method: Arc<str>,
    /// Values of expressions inside longer text are percent-encoded.
    pub url: Template,
    /// Query parameters: a map template.
    pub query: Option<Template>,
    /// Headers; may hold secrets.
    pub headers: Named<Template>,
    /// A JSON body.
    pub json: Option<Template>,
    /// A text body.
    pub body: Option<Template>,
    /// Credentials; may hold secrets.
    pub auth: Option<HttpAuth>,
}

/// Credentials of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum HttpAuth {
    /// A bearer token.
    Bearer(Template),
    /// User and password.
    Basic {
        /// User name.
        user: Template,
        /// Password.
        password: Template,
    },
}

/// One branch of a switch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// The condition; none is `else`.
    pub when: Option<Program>,
    /// What it runs.
    pub graph: Graph,
}

/// A bounded cycle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loop {
    /// Variables with their first values, evaluated outside the loop.
    pub vars: Named<Template>,
    /// Tested before each iteration.
    pub while_: Option<Program>,
    /// Tested after each iteration; true ends it.
    pub until: Option<Program>,
    /// New values after each iteration; what it omits stays.
    pub next: Named<Template>,
    /// Reaching it ends the loop.
    pub max_iterations: u32,
    /// True: reaching it is success.
    pub on_max_succeed: bool,
    /// Between iterations.
    pub delay: Option<Dyn<SignedDuration>>,
    /// The inner graph.
    pub graph: Graph,
}

/// How long a `wait` waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Wait {
    /// A duration from when the step could start.
    For(Dyn<SignedDuration>),
    /// Until an instant (timestamp, date or text of one); one that is past ends at once.
    Until(Template),
}

/// Where a step's output comes from and what it must be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outputs {
    /// A JSON file in the attempt's directory.
    pub file: Option<Arc<str>>,
    /// What the output must be; none is `any`.
    pub ty: Option<Type>,
}

/// Files that pass between attempts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Artifacts {
    /// Path in the attempt's directory -> what it comes from (`steps.x.output.name`).
    pub inputs: Named<Template>,
    /// Name in the output -> path in the attempt's directory.
    pub outputs: Named<Arc<str>>,
}

/// Tries after the first, by whose fault it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// After the user's failures.
    pub limit: Dyn<i64>,
    /// After timeouts.
    pub timeout: u32,
    /// After the platform's failures.
    pub platform: u32,
    /// How long to wait between tries.
    pub backoff: Backoff,
    /// False refuses a retry; over `error` and `attempt`.
    pub when: Option<Program>,
}

/// `initial * factor ^ (retry - 1)`, at most `max`; with jitter a deterministic 50 to 100 % of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the first retry.
    pub initial: SignedDuration,
    /// At least 1.
    pub factor: f64,
    /// The longest wait.
    pub max: SignedDuration,
    /// Spreads retries of many items.
    pub jitter: bool,
}

/// Bounds on a step's time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the start of an attempt.
    pub attempt: Option<Dyn<SignedDuration>>,
    /// From when the step could start, waits and retries included.
    pub total: Option<Dyn<SignedDuration>>,
    /// In the queue for a worker.
    pub queue: Option<Dyn<SignedDuration>>,
}

/// What an attempt needs of its worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Cores.
    pub cpu: Option<Dyn<f64>>,
    /// Bytes.
    pub memory: Option<Dyn<i64>>,
    /// Devices.
    pub gpu: Option<Dyn<i64>>,
    /// May run on capacity that can be taken away.
    pub spot: bool,
    /// After so many times that it was taken away an attempt goes elsewhere, where there is such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptions: Option<u32>,
    /// Of kinds that users name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom: Named<Dyn<i64>>,
    /// What the worker is labelled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Named<Template>,
    /// What the worker is labelled with if one that has room is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Named<Template>,
}
