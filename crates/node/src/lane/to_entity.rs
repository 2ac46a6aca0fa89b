//! What is given to one entity.

use kapell_api::task::{Outcome, Report, TaskEvent};
use kapell_engine::{Ask, Message, Request, Run};
use kapell_model::{EntityKey, RunStatus};

use super::{fork, start};
use crate::request::ReplyId;

/// An input to one entity.
#[derive(Clone, Debug)]
pub(super) enum ToEntity {
    /// A report, request or wake for a run.
    Run(Box<kapell_engine::Input>),
    /// A message from another entity.
    Message(Box<Message>),
    /// A client's request: the answer goes to it.
    Request(ReplyId, Request),
    /// A client looks.
    View(ReplyId),
    /// A client looks at one step or item.
    ViewStep(ReplyId, String),
    /// A client evaluates an expression over what a step sees.
    Evaluate(ReplyId, String, String),
    /// A run is made here.
    Create(Box<start::Making>),
    /// A fork of this run is to be made.
    Fork(ReplyId, Box<fork::Forking>),
    /// The strict queue of this run is to be freed.
    Dismiss(ReplyId),
    /// Somebody asks an entity that is no run: the answer goes to it.
    Ask(Option<ReplyId>, Ask),
    /// Workers have said what they hold.
    Join,
    /// Time has passed, or nothing in particular.
    Wake,
    /// This entity is in memory now: the input goes on to the one that it is for.
    Then(EntityKey, Box<ToEntity>),
}

impl ToEntity {
    /// The client that waits for its answer.
    pub(super) fn reply(&self) -> Option<ReplyId> {
        match self {
            Self::Request(reply, _)
            | Self::View(reply)
            | Self::ViewStep(reply, _)
            | Self::Evaluate(reply, ..)
            | Self::Fork(reply, _)
            | Self::Dismiss(reply) => Some(*reply),
            Self::Ask(reply, _) => *reply,
            Self::Create(making) => making.reply(),
            Self::Then(_, input) => input.reply(),
            Self::Run(_) | Self::Message(_) | Self::Join | Self::Wake => None,
        }
    }

    /// What a worker reports, if it is that.
    pub(super) fn report(&self) -> Option<&Report> {
        match self {
            Self::Run(input) => match &**input {
                kapell_engine::Input::Report(report) => Some(report),
                _ => None,
            },
            _ => None,
        }
    }

    /// True if a worker reports that an attempt is lost.
    pub(super) fn is_loss(&self) -> bool {
        self.report().is_some_and(|report| {
            matches!(
                report.event,
                TaskEvent::Ended {
                    outcome: Outcome::Lost { .. },
                    ..
                }
            )
        })
    }
}

/// The run queue that must be in memory before a run takes this input.
pub(super) fn looks_at_queue(run: &Run, input: &ToEntity) -> Option<EntityKey> {
    let looks = match input {
        ToEntity::Dismiss(_)
        | ToEntity::Request(_, Request::Retry { .. } | Request::Restart { .. }) => true,
        ToEntity::View(_) => run.state.status == RunStatus::Queued,
        _ => false,
    };
    looks.then(|| run.state.run_queue())
}
