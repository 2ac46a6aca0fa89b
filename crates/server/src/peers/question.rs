//! What servers of one cluster ask each other, beside what nodes do for each other: what each of them alone knows,
//! as which workers are at it.
//!
//! A question is JSON in which kinds and fields may be added. A node of a release before, which knows of none,
//! answers that it does not.
//!
//! - **Crash** or **slow node**: whoever asked goes on without its answer after [`PATIENCE`], and says so.
//! - **Slow store**, **clock jump**: nothing here waits for the store; patience counts on a clock that does not
//!   jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::Duration;

use kapell_api::http::{StepWorker, WorkerView};
use kapell_model::{Error, ErrorCode, NodeId, RunId, limits};
use kapell_node::clock;
use kapell_node::metrics::Backlog;
use serde::{Deserialize, Serialize};

use super::Nodes;
use crate::workers::Whom;

/// How long other nodes have to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Which workers are at you?
    Workers,
    /// Let these workers go; which are they?
    Drain {
        /// Which.
        whom: Whom,
        /// How long what they run may take to end.
        grace_ms: u64,
    },
    /// What waits in queues, of the runs that you own?
    Backlog,
    /// Leave this queue to workers that name it.
    Keep(String),
    /// Which workers at you run steps of this run?
    WhoRuns(RunId),
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// These workers.
    Workers(Vec<WorkerView>),
    /// This waits.
    Backlog(Vec<Backlog>),
    /// These steps, by path, run at these workers.
    Running(BTreeMap<String, RunsAt>),
    /// It is done.
    Done,
}

/// A worker that runs a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunsAt {
    /// It.
    #[serde(flatten)]
    pub(crate) worker: StepWorker,
    /// What the step waits for, if it is not heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<String>,
}

/// Answers questions. It may wait.
pub(crate) type Answers = Box<dyn Fn(Question) -> Result<Told, Error> + Send + Sync>;

impl Nodes {
    /// Questions of other servers are answered so. Once, at the start.
    pub(crate) fn answer_with(&self, answers: Answers) {
        // Whoever says it twice keeps the first.
        let _ = self.answers.set(answers);
    }

    /// Asks all other nodes at once: what they told, and which did not answer.
    pub(crate) fn ask_all(&self, question: &Question) -> (Vec<(NodeId, Told)>, Vec<NodeId>) {
        self.ask_all_within(question, PATIENCE)
    }

    /// The same, with the time that they have to answer.
    pub(crate) fn ask_all_within(
        &self,
        question: &Question,
        patience: Duration,
    ) -> (Vec<(NodeId, Told)>, Vec<NodeId>) {
        let others = self.others();
        let Ok(bytes) = serde_json::to_vec(question) else {
            return (Vec::new(), others);
        };
        let (send, answers) = mpsc::channel();
        let mut waits: BTreeSet<NodeId> = BTreeSet::new();
        for node in others {
            waits.insert(node);
            let Some(link) = self.link(node) else {
                continue;
            };
            let send = send.clone();
            // Whoever asked may have gone.
            let answered = move |answer| drop(send.send((node, answer)));
            link.question(bytes.clone(), Box::new(answered));
        }
        drop(send);
        let until = clock::steady() + patience;
        let mut told = Vec::new();
        loop {
            let left = until.saturating_duration_since(clock::steady());
            let Ok((node, answer)) = answers.recv_timeout(left) else {
                break;
            };
            let answer = answer.ok().and_then(|bytes| read(node, &bytes));
            if let Some(answer) = answer {
                waits.remove(&node);
                told.push((node, answer));
            }
        }
        (told, waits.into_iter().collect())
    }

    /// The answer to a question of another server, as bytes.
    pub(super) fn answer_question(&self, question: &[u8]) -> Vec<u8> {
        let answer = match (serde_json::from_slice(question), self.answers.get()) {
            (Ok(question), Some(answers)) => answers(question),
            (Err(error), _) => Err(Error::new(
                ErrorCode::NotAvailable,
                format!("another node asks what is not known here: {error}"),
            )),
            (Ok(_), None) => Err(Error::new(
                ErrorCode::StoreUnavailable,
                "the node is starting",
            )),
        };
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        if bytes.len() <= limits::NODE_MESSAGE_BYTES {
            return bytes;
        }
        let message = format!("the answer has {} bytes", bytes.len());
        let error = Error::new(ErrorCode::LimitReached, message);
        serde_json::to_vec(&Err::<Told, _>(error)).unwrap_or_default()
    }
}

fn read(node: NodeId, bytes: &[u8]) -> Option<Told> {
    let answer: Result<Result<Told, Error>, _> = serde_json::from_slice(bytes);
    match answer {
        Ok(Ok(told)) => Some(told),
        Ok(Err(error)) => {
            tracing::warn!(%node, %error, "another node does not say what it was asked");
            None
        }
        Err(error) => {
            tracing::warn!(%node, %error, "what another node says cannot be read");
            None
        }
    }
}
