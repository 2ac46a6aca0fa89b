//! What clients ask of a node. A node that does not own what a request is about sends it to the one that
//! does: `wire` is how both look on the way, `drive::route` finds the way.

use std::sync::Arc;

use kapell_engine::run::view::RunView;
use kapell_engine::{Ask, Request};
use kapell_expr::Value;
use kapell_model::{EntityKey, RunId, Shard};
use kapell_store::VersionRow;
use serde::{Deserialize, Serialize};

mod repeat;
#[cfg(test)]
mod tests;
pub mod wire;

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Make a run.
    Start(Box<StartRun>),
    /// Do something to a run.
    Run {
        /// Which.
        run: RunId,
        /// What.
        request: Request,
    },
    /// Look at a run.
    View {
        /// Which.
        run: RunId,
    },
    /// Look at one step or item of a run: the view has that one, or none if there is no such place
    /// in memory.
    ViewStep {
        /// Which.
        run: RunId,
        /// Path of the step or item.
        step: String,
    },
    /// Evaluate an expression over what a step of a run sees.
    Evaluate {
        /// Which.
        run: RunId,
        /// Path of the step or item; empty is the run as a whole.
        step: String,
        /// The expression, without `${{` and `}}`.
        expression: String,
    },
    /// Make a run that shares everything before a step with another.
    Fork {
        /// The other.
        run: RunId,
        /// The first step that is done again.
        from: String,
        /// Parameters that change.
        #[serde(with = "kapell_expr::stored")]
        params: Value,
        /// Parameters are text to be parsed.
        text: bool,
        /// Version; none keeps the other's.
        version: Option<u32>,
        /// Who.
        by: String,
        /// The same key makes the same run.
        idempotency_key: Option<String>,
    },
    /// Ask an entity that is no run.
    Ask {
        /// Which.
        key: EntityKey,
        /// What.
        ask: Ask,
    },
    /// Ask several entities that are no runs, in one commit: what none of them refuses.
    AskTogether(Vec<(EntityKey, Ask)>),
    /// Register versions, and ask entities that are no runs to go by them, in one commit.
    Deploy {
        /// The versions, with the numbers that they get.
        versions: Vec<VersionRow>,
        /// What is asked of whom.
        asks: Vec<(EntityKey, Ask)>,
    },
    /// Free a strict run queue that a failed run blocks.
    Dismiss {
        /// The run that blocks it.
        run: RunId,
    },
    /// Answered once every message that waited for this shard when this came is taken, and that is durable.
    Settle {
        /// Which.
        shard: Shard,
    },
}

/// What a run is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartRun {
    /// Namespace of the workflow.
    pub namespace: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version; none is the active one.
    pub version: Option<u32>,
    /// Parameters by name.
    #[serde(with = "kapell_expr::stored")]
    pub params: Value,
    /// Parameters are text to be parsed by their types, as from a command line.
    pub text: bool,
    /// Who asks.
    pub by: String,
    /// Its due time, if it stands for one.
    pub scheduled_at: Option<kapell_model::Time>,
    /// 0 to 100; none takes the workflow's.
    pub priority: Option<u8>,
    /// The same key makes the same run.
    pub idempotency_key: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The run was made, or was there already.
    Started(RunId),
    /// It was done.
    Done,
    /// It was done here, and is on its way to these shards, which other nodes own: [`ClientRequest::Settle`]
    /// says when it has arrived.
    Sent(Vec<Shard>),
    /// What an entity that is no run answers.
    Value(#[serde(with = "kapell_expr::stored")] Value),
    /// Where the run stands.
    View(Box<RunView>),
}
