//! Topics: what a node does for them.

use super::World;
use kapell_engine::message::Signal;
use kapell_engine::topic::Topic;
use kapell_engine::{Ask, Small, SmallInput};
use kapell_expr::Value;
use kapell_model::{EntityKey, Time};
use std::sync::Arc;

/// A topic, and what its facts make of a fresh one.
pub(super) type Both = (Topic, Topic);

impl World {
    /// Somebody sends a signal.
    pub(super) fn send(&mut self, name: &str, id: &str, payload: &Value) {
        let signal = Signal {
            id: id.into(),
            name: name.into(),
            key: Value::Null,
            payload: payload.clone(),
            sent_at: Time::ZERO,
            hops: 0,
            by: "ann".into(),
        };
        self.topic(&name.into(), SmallInput::Ask(Ask::Send(Box::new(signal))));
    }

    pub(super) fn topic(&mut self, name: &Arc<str>, input: SmallInput) {
        let key = EntityKey::Topic {
            namespace: "default".into(),
            name: name.clone(),
        };
        let (topic, replayed) = self.topics.entry(name.clone()).or_default();
        let decided = Small::decide(topic, &key, input, self.now);
        let Ok(decided) = decided else { return };
        if replayed.replay(&decided.chunk).is_ok() && !decided.chunk.is_empty() {
            self.chunks.push((format!("topic {name}"), decided.chunk));
        }
        self.messages.extend(decided.messages);
    }

    /// A topic that has more to tell. That old signals are dropped is no event of a scenario.
    pub(super) fn due_topic(&self) -> Option<Arc<str>> {
        let due = |topic: &Topic| topic.wake_at().is_some_and(|at| at <= self.now);
        let mut topics = self.topics.iter();
        topics
            .find(|(_, (topic, _))| due(topic))
            .map(|(name, _)| name.clone())
    }
}
