//! Topics that tell how runs of a workflow end, as far as somebody ever listened to them. Nearly all
//! workflows have none: their runs send nothing then, and cost nothing more.

use std::collections::BTreeSet;

use kapell_engine::{Message, topic};
use kapell_model::EntityKey;

use super::{Entity, Lane, Output};

/// See the module. It only grows, so it outlives the lane's memory.
#[derive(Debug, Default)]
pub(super) struct Heard {
    topics: BTreeSet<EntityKey>,
    /// Those that are stored were read.
    known: bool,
}

impl Heard {
    /// True once they were read.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Others may have listened since.
    pub(super) fn forget(&mut self) {
        self.known = false;
    }

    /// True if surely nobody listens to how any run ends.
    fn is_empty(&self) -> bool {
        self.known && self.topics.is_empty()
    }

    /// True if a message is of use to whom it is for: the end of a run that nobody listens to is not.
    /// Until it is known who does, topics look themselves.
    pub(super) fn wants(&mut self, to: &EntityKey, message: &Message) -> bool {
        match (to, message) {
            (EntityKey::Topic { name, .. }, Message::Subscribe(_))
                if name.starts_with(topic::FINISHED) =>
            {
                self.topics.insert(to.clone());
                true
            }
            (EntityKey::Topic { name, .. }, Message::Signal(_))
                if name.starts_with(topic::FINISHED) && self.known =>
            {
                self.topics.contains(to)
            }
            _ => true,
        }
    }
}

impl Lane {
    /// A run has ended: whoever listens is told.
    pub(super) fn finished(&mut self, key: &EntityKey) {
        if self.heard.is_empty() {
            return;
        }
        let slot = self.slots.get(key).map(|slot| &slot.entity);
        let Some(Entity::Run(run)) = slot else { return };
        if let Some((to, message)) = run.end_signal()
            && self.heard.wants(&to, &message)
        {
            self.send(key.shard(), to, message);
        }
    }

    pub(super) fn heard(&mut self, result: kapell_store::Result<Vec<EntityKey>>) {
        match result {
            Ok(topics) => {
                self.heard.topics.extend(topics);
                self.heard.known = true;
            }
            Err(error) => {
                tracing::error!(%error, "topics could not be read; trying again");
                self.read_again(Output::FindHeard);
            }
        }
    }
}
