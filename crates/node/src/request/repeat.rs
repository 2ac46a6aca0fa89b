//! Which requests may be asked again although they may have been done, and where each belongs.

use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_model::{EntityKey, Shard};

use super::ClientRequest;

impl ClientRequest {
    /// True if asking twice does what asking once does, and answers the same: of a request that may have been
    /// done and was not answered nobody else may be asked unless it is such a one.
    pub fn is_repeatable(&self) -> bool {
        let says = |key: &Option<String>| key.as_ref().is_some_and(|key| !key.is_empty());
        match self {
            Self::Start(start) => says(&start.idempotency_key),
            Self::Fork {
                idempotency_key, ..
            } => says(idempotency_key),
            Self::View { .. }
            | Self::ViewStep { .. }
            | Self::Evaluate { .. }
            | Self::Settle { .. } => true,
            Self::Ask { ask, .. } => is_repeatable(ask),
            // A second one may be refused for what the first did, or undo what came between.
            Self::Run { .. }
            | Self::AskTogether(_)
            | Self::Deploy { .. }
            | Self::Dismiss { .. } => false,
        }
    }

    /// The shards of what it is about, each at least once; the first is that of whoever should get all of it
    /// if it can be done at one place only.
    pub fn shards(&self) -> Vec<Shard> {
        match self {
            Self::Start(start) => {
                vec![Shard::of_workflow(&start.namespace, &start.workflow)]
            }
            Self::Run { run, .. }
            | Self::View { run }
            | Self::ViewStep { run, .. }
            | Self::Evaluate { run, .. }
            | Self::Fork { run, .. }
            | Self::Dismiss { run } => vec![run.shard()],
            Self::Ask { key, .. } => vec![key.shard()],
            Self::AskTogether(asks) | Self::Deploy { asks, .. } => {
                asks.iter().map(|(key, _)| EntityKey::shard(key)).collect()
            }
            Self::Settle { shard } => vec![*shard],
        }
    }
}

fn is_repeatable(ask: &Ask) -> bool {
    match ask {
        Ask::View | Ask::Lines(_) | Ask::Whys(_) | Ask::Signals { .. } => true,
        Ask::Notice(ask) => matches!(ask, NoticeAsk::Due { .. }),
        // Without an id each is another one.
        Ask::Deliver(signal) | Ask::Send(signal) => !signal.id.is_empty(),
        Ask::PauseTrigger { .. }
        | Ask::ResumeTrigger { .. }
        | Ask::RotateTrigger
        | Ask::Backfill(_)
        | Ask::PauseBackfill { .. }
        | Ask::ResumeBackfill { .. }
        | Ask::CancelBackfill { .. }
        | Ask::Activate(_)
        | Ask::Change(_)
        | Ask::Dismiss { .. } => false,
    }
}
