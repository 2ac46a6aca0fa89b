//! What of a backlog the workers of a pool can do, and how much of them it takes.

use std::collections::BTreeMap;

use kapell_api::http::TaskNeed;
use kapell_api::task::Custom;

use super::WHOLE;

/// What one worker has.
#[derive(Clone, Debug, Default)]
pub(crate) struct One {
    /// Attempts at a time.
    pub(crate) slots: u64,
    /// Thousandths of a core; none is not known.
    pub(crate) cpu_millis: Option<u64>,
    /// Bytes; none is not known.
    pub(crate) memory_bytes: Option<u64>,
    /// Devices.
    pub(crate) gpus: u64,
    /// Of kinds that users name.
    pub(crate) custom: Custom,
    /// What it is labelled with.
    pub(crate) labels: BTreeMap<String, String>,
    /// It can be taken away at any time.
    pub(crate) spot: bool,
}

/// What waits for a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Attempts that one of its workers can do.
    pub(super) attempts: u64,
    /// Attempts that none of them can do.
    pub(super) unfit: u64,
    /// Workers that the former take, in thousandths.
    pub(super) load: u64,
    /// Something waits that a worker can do, be it without a slot.
    pub(super) some: bool,
}

pub(super) fn waits(one: &One, needs: &[TaskNeed]) -> Waits {
    let mut waits = Waits::default();
    for need in needs {
        match one.at_a_time(need) {
            0 => waits.unfit += need.attempts,
            at_a_time => {
                waits.some |= need.attempts > 0;
                if !need.light {
                    waits.attempts += need.attempts;
                    let load = need.attempts.saturating_mul(WHOLE).div_ceil(at_a_time);
                    waits.load = waits.load.saturating_add(load);
                }
            }
        }
    }
    waits
}

impl One {
    /// How many of these attempts a worker does at a time; 0 is never one.
    fn at_a_time(&self, need: &TaskNeed) -> u64 {
        let has = |(name, value): (&String, &String)| self.labels.get(name) == Some(value);
        if need.light {
            return 1;
        }
        if !need.labels.iter().all(has) || self.spot && !need.spot {
            return 0;
        }
        let each = &need.each;
        let times = |has: u64, needed: u64| has.checked_div(needed).unwrap_or(u64::MAX);
        // Of what is not known one attempt takes all.
        let maybe = |has: Option<u64>, needed: u64| times(has.unwrap_or(needed), needed);
        let custom = each.custom.iter();
        let custom = custom.map(|(name, needed)| times(self.custom.of(name), needed));
        custom
            .chain([
                self.slots.max(1),
                maybe(self.cpu_millis, each.cpu_millis),
                maybe(self.memory_bytes, each.memory_bytes),
                times(self.gpus, each.gpus.into()),
            ])
            .min()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use kapell_api::task::TaskResources;

    use super::*;

    fn one() -> One {
        One {
            slots: 4,
            cpu_millis: Some(8_000),
            memory_bytes: None,
            gpus: 1,
            custom: [("license".into(), 2)].into_iter().collect(),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            spot: false,
        }
    }

    fn need(attempts: u64, each: TaskResources) -> TaskNeed {
        TaskNeed {
            attempts,
            each,
            ..TaskNeed::default()
        }
    }

    fn load(need: TaskNeed) -> u64 {
        waits(&one(), &[need]).load
    }

    #[test]
    fn the_scarcest_of_what_they_ask_for_counts() {
        let nothing = TaskResources::default;
        assert_eq!(load(need(6, nothing())), 1_500);
        let cores = TaskResources {
            cpu_millis: 3_000,
            ..nothing()
        };
        assert_eq!(load(need(6, cores)), 3_000);
        let devices = TaskResources {
            gpus: 1,
            ..nothing()
        };
        assert_eq!(load(need(6, devices)), 6_000);
        let unknown = TaskResources {
            memory_bytes: 1 << 40,
            ..nothing()
        };
        assert_eq!(load(need(6, unknown)), 6_000);
        let licenses = TaskResources {
            custom: [("license".into(), 1)].into_iter().collect(),
            ..nothing()
        };
        assert_eq!(load(need(6, licenses)), 3_000);
    }

    #[test]
    fn what_no_worker_can_do_asks_for_none() {
        let labelled = |value: &str| TaskNeed {
            labels: [("zone".to_owned(), value.to_owned())].into(),
            ..need(2, TaskResources::default())
        };
        let large = TaskResources {
            cpu_millis: 9_000,
            ..TaskResources::default()
        };
        let other = TaskResources {
            custom: [("robot".into(), 1)].into_iter().collect(),
            ..TaskResources::default()
        };
        let all = [
            labelled("eu"),
            labelled("us"),
            need(3, large),
            need(1, other),
        ];
        let found = waits(&one(), &all);
        assert_eq!((found.attempts, found.unfit, found.load), (2, 6, 500));
        let spot = One {
            spot: true,
            ..one()
        };
        assert_eq!(waits(&spot, &[need(2, TaskResources::default())]).unfit, 2);
    }

    #[test]
    fn what_starts_nothing_needs_a_worker_and_no_slot() {
        let light = TaskNeed {
            light: true,
            ..need(9, TaskResources::default())
        };
        let found = waits(&one(), &[light]);
        assert!(found.some);
        assert_eq!((found.attempts, found.load), (0, 0));
    }
}
