//! What of a worker was used over its last hour, as its home saw it.
//!
//! The home looks at its workers once a second; what it saw counts for the time since it looked last. Sums are kept
//! a minute each, the last sixty of them. A time in which nobody looked (the machine was suspended, the process was
//! frozen) is no part of it.
//!
//! - **Crash** of the home, or a worker that comes to another: it begins anew, and says since when.
//! - **Clock jump**: times count on a clock that does not jump.

use std::collections::VecDeque;
use std::time::Duration;

use kapell_api::http::WorkerWaste;
use kapell_api::task::TaskResources;

/// Minutes that are kept.
const MINUTES: usize = 60;

/// The longest time that one look counts for.
const LONGEST: Duration = Duration::from_secs(5);

/// What of a worker is taken, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Taken {
    /// Attempts that it runs, at most as many as it has slots.
    pub(crate) slots: u32,
    /// What they asked for.
    pub(crate) resources: TaskResources,
}

/// Sums of one minute, each the product of an amount and of milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    number: u64,
    millis: u64,
    slots: u128,
    cpu: u128,
    memory: u128,
    gpus: u128,
    /// Of attempts that ended and had asked for cores: core-milliseconds asked for, and used.
    cpu_asked: u64,
    cpu_used: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    minutes: VecDeque<Minute>,
    /// When it was looked at last.
    looked: Option<Duration>,
}

impl Usage {
    /// This much is taken now. `now` is any clock that goes on.
    pub(crate) fn look(&mut self, now: Duration, taken: &Taken) {
        let since = self
            .looked
            .replace(now)
            .map_or(Duration::ZERO, |looked| now.saturating_sub(looked));
        if since > LONGEST {
            return;
        }
        let millis = u64::try_from(since.as_millis()).unwrap_or(0);
        let minute = self.minute(now);
        let product = |amount: u64| u128::from(amount) * u128::from(millis);
        minute.millis += millis;
        minute.slots += product(taken.slots.into());
        minute.cpu += product(taken.resources.cpu_millis);
        minute.memory += product(taken.resources.memory_bytes);
        minute.gpus += product(taken.resources.gpus.into());
    }

    /// An attempt ended that had asked for so many core-milliseconds, and used so many.
    pub(crate) fn ended(&mut self, now: Duration, asked: u64, used: u64) {
        let minute = self.minute(now);
        minute.cpu_asked = minute.cpu_asked.saturating_add(asked);
        minute.cpu_used = minute.cpu_used.saturating_add(used);
    }

    fn minute(&mut self, now: Duration) -> &mut Minute {
        let number = now.as_secs() / 60;
        if self
            .minutes
            .back()
            .is_none_or(|minute| minute.number < number)
        {
            self.minutes.push_back(Minute {
                number,
                ..Minute::default()
            });
        }
        while self.minutes.len() > MINUTES
            || self
                .minutes
                .front()
                .is_some_and(|minute| minute.number + MINUTES as u64 <= number)
        {
            self.minutes.pop_front();
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last]
    }

    /// What a worker with this capacity had and nobody took; none before there was a second look.
    pub(crate) fn waste(&self, slots: u32, capacity: &TaskResources) -> Option<WorkerWaste> {
        let sum = |of: fn(&Minute) -> u128| self.minutes.iter().map(of).sum::<u128>();
        let millis = sum(|minute| minute.millis.into());
        let idle = |taken: u128, all: u64| {
            let all = u128::from(all) * millis;
            (all > 0).then(|| share(all.saturating_sub(taken), all))
        };
        let total = |of: fn(&Minute) -> u64| self.minutes.iter().map(of).sum::<u64>();
        Some(WorkerWaste {
            over_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            slots: idle(sum(|minute| minute.slots), slots.into())?,
            cpu: idle(sum(|minute| minute.cpu), capacity.cpu_millis),
            memory: idle(sum(|minute| minute.memory), capacity.memory_bytes),
            gpus: idle(sum(|minute| minute.gpus), capacity.gpus.into()),
            cpu_asked_ms: total(|minute| minute.cpu_asked),
            cpu_used_ms: total(|minute| minute.cpu_used),
        })
    }
}

/// A share, in thousandths that are told apart.
fn share(part: u128, all: u128) -> f64 {
    let thousandths = u32::try_from(part * 1_000 / all.max(1)).unwrap_or(1_000);
    f64::from(thousandths.min(1_000)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: TaskResources = TaskResources {
        cpu_millis: 4_000,
        memory_bytes: 0,
        gpus: 2,
        custom: kapell_api::task::Custom::NONE,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn taken(slots: u32, cpu_millis: u64) -> Taken {
        Taken {
            slots,
            resources: TaskResources {
                cpu_millis,
                ..TaskResources::default()
            },
        }
    }

    #[test]
    fn before_a_second_look_nothing_is_known() {
        let mut usage = Usage::default();
        assert!(usage.waste(2, &CAPACITY).is_none());
        usage.look(at(10), &taken(2, 0));
        assert!(usage.waste(2, &CAPACITY).is_none());
    }

    #[test]
    fn what_nobody_took_is_wasted() {
        let mut usage = Usage::default();
        for second in 0..=100 {
            let busy = if second <= 25 { 2 } else { 0 };
            usage.look(at(second), &taken(busy, 1_000));
        }
        let waste = usage.waste(2, &CAPACITY).unwrap();
        assert_eq!(waste.over_ms, 100_000);
        assert!((waste.slots - 0.75).abs() < 1e-9, "{waste:?}");
        assert_eq!(waste.cpu, Some(0.75));
        assert_eq!(waste.gpus, Some(1.0));
        // It has none to waste.
        assert_eq!(waste.memory, None);
    }

    #[test]
    fn only_the_last_hour_counts_and_only_what_was_seen() {
        let mut usage = Usage::default();
        for second in 0..7_200 {
            usage.look(at(second), &taken(u32::from(second < 3_600), 0));
        }
        let waste = usage.waste(1, &CAPACITY).unwrap();
        assert!((waste.slots - 1.0).abs() < 1e-9, "{waste:?}");
        assert!(waste.over_ms <= 3_600_000, "{waste:?}");
        // A machine that was suspended for half a minute has seen nothing.
        let before = waste.over_ms;
        usage.look(at(7_230), &taken(1, 0));
        assert_eq!(usage.waste(1, &CAPACITY).unwrap().over_ms, before);
    }

    #[test]
    fn cores_asked_for_and_used_are_those_of_attempts_that_ended() {
        let mut usage = Usage::default();
        usage.look(at(0), &taken(1, 0));
        usage.look(at(1), &taken(1, 0));
        usage.ended(at(1), 2_000, 500);
        usage.ended(at(2), 1_000, 250);
        let waste = usage.waste(1, &CAPACITY).unwrap();
        assert_eq!((waste.cpu_asked_ms, waste.cpu_used_ms), (3_000, 750));
    }
}
