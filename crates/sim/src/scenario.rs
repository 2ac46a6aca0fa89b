//! What happens in one simulation, as data: it can be kept in a file, and made smaller.

use kapell_model::spec::StrategyMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything that decides how a simulation goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    /// Why it is kept, for people.
    #[serde(default)]
    pub note: String,
    /// Chance inside the world: latencies, durations, outcomes.
    pub seed: u64,
    /// Definitions, as the JSON that a workflow file may be. The first of each name is registered at
    /// the beginning, others when somebody asks for it.
    pub workflows: Vec<Value>,
    /// What people ask, by time.
    pub requests: Vec<Planned<Ask>>,
    /// What goes wrong, by time.
    pub faults: Vec<Planned<Fault>>,
    /// How the world is made.
    pub knobs: Knobs,
    /// Workers in other processes.
    #[serde(default)]
    pub far: Vec<FarWorker>,
    /// Several nodes share the store; none is one node that has it alone.
    #[serde(default)]
    pub cluster: Option<Nodes>,
}

/// Nodes that share a store. They have no workers in their own processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nodes {
    /// How many.
    pub count: usize,
    /// The lease of a node, in microseconds.
    pub lease: i64,
    /// How far the clocks of their walls are apart.
    pub skew: i64,
}

/// A worker in another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FarWorker {
    /// The queues that it serves; none is every queue that no worker names.
    pub queues: Vec<String>,
    /// Attempts that it runs at once.
    pub slots: usize,
}

/// Something at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned<T> {
    /// Microseconds from the beginning.
    pub at: i64,
    /// What.
    pub what: T,
}

/// What people ask. A `dice` picks the run, step or value among those there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Make a run.
    Start {
        /// Which of the workflows.
        workflow: usize,
        /// Its parameter `n`.
        n: i64,
        /// An idempotency key.
        key: Option<u64>,
        /// Not the active version.
        #[serde(default)]
        version: Option<u32>,
        /// Which person; none is nobody who answers anything.
        #[serde(default)]
        by: Option<u64>,
    },
    /// End a run.
    Cancel {
        /// Which.
        dice: u64,
        /// Without `finally`.
        now: bool,
    },
    /// Start nothing more.
    Pause {
        /// Which.
        dice: u64,
    },
    /// Go on.
    Resume {
        /// Which.
        dice: u64,
    },
    /// Do again what failed.
    Retry {
        /// Which.
        dice: u64,
    },
    /// Do a step and all after it again.
    Restart {
        /// Which.
        dice: u64,
    },
    /// End a step by hand.
    Skip {
        /// Which.
        dice: u64,
    },
    /// Give a step an output.
    SetOutput {
        /// Which.
        dice: u64,
    },
    /// Make a run that shares a part of another.
    Fork {
        /// Which.
        dice: u64,
        /// Another parameter `n`.
        #[serde(default)]
        n: Option<i64>,
        /// Another version.
        #[serde(default)]
        version: Option<u32>,
    },
    /// Change the priority.
    Priority {
        /// Which.
        dice: u64,
    },
    /// Look.
    View {
        /// Which.
        dice: u64,
    },
    /// Free a strict queue.
    Dismiss {
        /// Which.
        dice: u64,
    },
    /// Send a signal.
    Signal {
        /// Which of five, its key, and its id if it has one of its own.
        dice: u64,
        /// Its `n`.
        n: i64,
    },
    /// Answer what a step asks, or let one go on that has stopped.
    Answer {
        /// Which, and what.
        dice: u64,
    },
    /// Set breakpoints on a run.
    Break {
        /// On which, and which.
        dice: u64,
    },
    /// Set breakpoints on all new runs of a workflow, or of a version.
    BreakAll {
        /// Which of the workflows.
        workflow: usize,
        /// Which breakpoints.
        dice: u64,
    },
    /// Change a parameter of a run that stands still.
    SetParam {
        /// Which.
        dice: u64,
        /// Its parameter `n`.
        n: i64,
    },
    /// Look at what an expression is somewhere in a run.
    Evaluate {
        /// Where, and which expression.
        dice: u64,
    },
    /// Make a version of a workflow the active one: its triggers are set.
    Activate {
        /// Which of the workflows.
        workflow: usize,
        /// Which of its versions.
        #[serde(default = "first")]
        version: u32,
    },
    /// Call a webhook; some calls are the same as one before.
    Deliver {
        /// Which, and its id if it has one of its own.
        dice: u64,
        /// Its `n`.
        n: i64,
    },
    /// Change what is not versioned of a workflow, or of all.
    Steer {
        /// Which of the workflows.
        workflow: usize,
        /// What.
        how: Steer,
    },
    /// Pause a trigger, resume it, or backfill it; or the same to a backfill.
    Trigger {
        /// Which, and what.
        dice: u64,
    },
    /// Register a definition: it becomes the active version of its workflow.
    Register {
        /// Which of the workflows.
        workflow: usize,
    },
}

/// What people change of a workflow beside its versions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// Its starts wait.
    PauseWorkflow,
    /// They go on.
    ResumeWorkflow,
    /// Those of all workflows wait.
    PauseAll,
    /// They go on.
    ResumeAll,
    /// Another strategy goes before that of its versions.
    Override {
        /// Which.
        mode: StrategyMode,
        /// Under `parallel`.
        limit: Option<u32>,
    },
    /// The strategy is that of its versions again.
    Default,
    /// No version of it is active.
    Deactivate,
    /// The first version of it is active.
    Reactivate,
    /// Nothing of it starts any more.
    Delete,
}

fn first() -> u32 {
    1
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The process dies and is started again after so many microseconds.
    Crash {
        /// Until the restart.
        down: i64,
    },
    /// The next commit is answered with an error.
    LostAnswer {
        /// What becomes of it.
        fate: Fate,
    },
    /// Another owner takes shards that are in use.
    Thief {
        /// Which.
        dice: u64,
    },
    /// No room is left for so many microseconds.
    Full {
        /// For how long.
        span: i64,
    },
    /// The store takes so many times as long.
    Slow {
        /// For how long.
        span: i64,
        /// How many times.
        factor: i64,
    },
    /// The clock is set to another time.
    Clock {
        /// Microseconds forward, or back if negative.
        jump: i64,
    },
    /// Reads fail.
    Reads {
        /// For how long.
        span: i64,
    },
    /// Every attempt of the worker dies.
    Worker,
    /// Something happens to one of several nodes.
    Node {
        /// Which.
        node: usize,
        /// What.
        what: NodeFault,
    },
    /// What nodes say to each other is lost.
    Part {
        /// What this one says.
        from: usize,
        /// To this one; none is to all.
        to: Option<usize>,
        /// And what is said to it.
        both: bool,
        /// For how long.
        span: i64,
    },
    /// The store answers nobody, and does nothing.
    Stall {
        /// For how long.
        span: i64,
    },
    /// Another server takes the store over: what is under way is done or not, and its answer lost.
    Failover {
        /// Until that serves.
        span: i64,
    },
    /// Something happens to a worker in another process, or to its connection.
    Far {
        /// Which.
        worker: usize,
        /// What.
        what: FarFault,
    },
}

/// What happens to one of several nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeFault {
    /// Its process dies, and another one is started after so many microseconds.
    Dies {
        /// Until then.
        down: i64,
    },
    /// Its process stands still.
    Pauses {
        /// For how long.
        span: i64,
        /// What its lane wanted done last is done only then.
        torn: bool,
    },
    /// It does not reach the store.
    Away {
        /// For how long.
        span: i64,
    },
    /// It gives everything away and goes; another one is started after so many microseconds.
    Leaves {
        /// Until then.
        down: i64,
    },
    /// Its clock is set to another time.
    Sets {
        /// Microseconds forward, or back if negative.
        jump: i64,
    },
}

/// What happens to a worker in another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FarFault {
    /// It dies, and is started again after so many microseconds.
    Dies {
        /// Until the restart.
        down: i64,
    },
    /// What is said is lost.
    Cut {
        /// What the worker says.
        up: bool,
        /// What the server says.
        down: bool,
        /// For how long.
        span: i64,
    },
    /// What is said takes long.
    Slow {
        /// For how long.
        span: i64,
        /// How long.
        wire: i64,
    },
    /// It is asked to go, and ends what runs within this time.
    Drain {
        /// How long it may take.
        grace: i64,
    },
}

/// What becomes of a commit whose answer is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was made.
    Landed,
    /// It is never made.
    Never,
    /// It is made after the answer, if nobody has taken the shards over by then.
    Later,
}

/// How the world is made. Times in microseconds, shares in thousandths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Knobs {
    /// The longest usual commit.
    pub commit: i64,
    /// The longest usual read.
    pub read: i64,
    /// The longest usual way between node and worker.
    pub wire: i64,
    /// The longest time in which inputs are taken before a flush.
    pub lump: i64,
    /// The longest attempt.
    pub attempt: i64,
    /// Attempts that the worker runs at once.
    pub slots: usize,
    /// Attempts in flight that start a process.
    pub process_window: usize,
    /// Attempts in flight that start nothing.
    pub light_window: usize,
    /// Idle entities leave memory after so long.
    pub idle: i64,
    /// Attempts that fail.
    pub fails: u64,
    /// Reports that come twice.
    pub repeats: u64,
    /// Attempts that do not stop when told.
    pub deaf: u64,
    /// Attempts that are lost one by one.
    pub lost: u64,
    /// Outputs that are too big to be kept inline.
    pub big: u64,
    /// Reports that come late: up to two minutes, and after later ones.
    #[serde(default)]
    pub late: u64,
    /// Inputs for which a second commit is made while one is under way; 0: as many as in real life.
    #[serde(default)]
    pub follow: usize,
}
