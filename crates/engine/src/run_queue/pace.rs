//! How long runs of a workflow take, and whether its last one failed: what deadlines and news of a
//! recovery are told from. Kept only for workflows that ask for either.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::SignedDuration;
use kapell_model::{EntityKey, RunId, limits};
use serde::{Deserialize, Serialize};

use super::{Deciding, Kind, QueueEvent};
use crate::message::Message;
use crate::notice::Notice;

/// How long the next run probably takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Half of the last successes took no longer.
    pub usual: SignedDuration,
    /// Nine in ten of them took no longer.
    pub slow: SignedDuration,
}

/// What became of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The run.
    pub run: RunId,
    /// Value of `strategy.key`, or empty.
    pub key: Arc<str>,
    /// It succeeded; if not, it failed or timed out. Others say nothing.
    pub succeeded: bool,
    /// From its start to its success; none where that says nothing of others: it was retried, say.
    pub took: Option<SignedDuration>,
    /// What is told, and where, if it is the first success after a failure.
    pub recovered: Vec<(EntityKey, Notice)>,
}

/// What is kept of the runs of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paces {
    /// Microseconds that the last successes took, oldest first.
    pub(super) took: VecDeque<i64>,
    /// Lines whose last run failed.
    pub(super) failing: BTreeSet<Arc<str>>,
}

impl Paces {
    /// How long the next run probably takes; none while too little is known.
    pub(super) fn pace(&self) -> Option<Pace> {
        if self.took.len() < limits::PACES_LEAST {
            return None;
        }
        let mut sorted: Vec<i64> = self.took.iter().copied().collect();
        sorted.sort_unstable();
        // The least value that so many tenths do not exceed.
        let tenths = |tenths: usize| {
            let place = (sorted.len() * tenths).div_ceil(10).max(1) - 1;
            SignedDuration::from_micros(sorted[place])
        };
        Some(Pace {
            usual: tenths(5),
            slow: tenths(9),
        })
    }

    pub(super) fn apply(&mut self, event: &QueueEvent) {
        if event.failed {
            self.failing.insert(event.key.as_str().into());
            if self.failing.len() > limits::LAST_SUCCESSES {
                self.failing.pop_first();
            }
            return;
        }
        self.failing.remove(event.key.as_str());
        if event.took == 0 {
            return;
        }
        self.took.push_back(event.took);
        if self.took.len() > limits::PACES {
            self.took.pop_front();
        }
    }
}

impl Deciding<'_> {
    /// A run asks how long it will take.
    pub(super) fn pace_asked(&mut self, run: RunId) {
        if let Some(pace) = self.queue.paces.pace() {
            self.tell(run, Message::Pace(pace));
        }
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let recovers = outcome.succeeded && self.queue.paces.failing.contains(&outcome.key);
        // One that takes no time at all is known too.
        let took = outcome.took.map_or(0, |took| took.as_micros().max(1));
        let event = QueueEvent {
            at: self.now.0,
            kind: Kind::Outcome as u32,
            run: outcome.run.to_bytes().to_vec(),
            key: outcome.key.to_string(),
            took: i64::try_from(took).unwrap_or(i64::MAX),
            failed: !outcome.succeeded,
            ..QueueEvent::default()
        };
        self.queue.apply(&event);
        self.out.events.push(event);
        if recovers {
            let told = outcome.recovered.iter().map(|(channel, notice)| {
                (channel.clone(), Message::Notice(Box::new(notice.clone())))
            });
            self.out.messages.extend(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use kapell_expr::Value;
    use kapell_model::{Shard, Time};

    use super::super::RunQueue;
    use super::*;

    fn outcome(number: u128, seconds: Option<i64>, key: &str) -> Message {
        let channel = EntityKey::Channel {
            namespace: "default".into(),
            name: "on-call".into(),
        };
        let notice = Notice {
            id: number.to_string().into(),
            at: Time(0),
            content: Value::Null,
        };
        Message::Outcome(Box::new(Outcome {
            run: RunId::new(Time(0), Shard(1), number),
            key: key.into(),
            succeeded: seconds.is_some(),
            took: seconds.map(SignedDuration::from_secs),
            recovered: vec![(channel, notice)],
        }))
    }

    fn pace(queue: &mut RunQueue) -> Option<Pace> {
        let asked = Message::PaceAsked(RunId::default());
        let decided = queue.decide(Some(&asked), Time(9));
        match decided.messages.as_slice() {
            [] => None,
            [(_, Message::Pace(pace))] => Some(*pace),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pace_is_that_of_the_last_fifty_successes() {
        let mut queue = RunQueue::default();
        for number in 1..=4 {
            queue.decide(Some(&outcome(number, Some(1_000), "")), Time(0));
            assert_eq!(pace(&mut queue), None, "{number} say too little");
        }
        for seconds in 1..=50 {
            queue.decide(Some(&outcome(9, Some(seconds), "")), Time(0));
            queue.decide(Some(&outcome(9, None, "")), Time(0));
        }
        let expected = Pace {
            usual: SignedDuration::from_secs(25),
            slow: SignedDuration::from_secs(45),
        };
        assert_eq!(pace(&mut queue), Some(expected));
        let again = RunQueue::from_snapshot(&queue.snapshot()).unwrap();
        assert_eq!(again, queue);
    }

    #[test]
    fn only_the_first_success_after_a_failure_of_the_same_key_is_a_recovery() {
        let mut queue = RunQueue::default();
        let mut tells = |number, seconds, key: &str| {
            let decided = queue.decide(Some(&outcome(number, seconds, key)), Time(0));
            !decided.messages.is_empty()
        };
        assert!(!tells(1, Some(1), "a"));
        assert!(!tells(2, None, "a"));
        assert!(!tells(3, Some(1), "b"));
        assert!(tells(4, Some(1), "a"));
        assert!(!tells(5, Some(1), "a"));
    }
}
