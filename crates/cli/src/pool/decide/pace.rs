//! How long workers took to come, from launch to session: the last few of them.

use std::collections::VecDeque;
use std::time::Duration;

/// Starts that are remembered.
const KEPT: usize = 20;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    last: VecDeque<Duration>,
}

impl Starts {
    /// A worker took so long.
    pub(super) fn took(&mut self, time: Duration) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(time);
    }

    /// Half of them took no longer.
    pub(super) fn middle(&self) -> Option<Duration> {
        self.of_ten(5)
    }

    /// Nine of ten took no longer.
    pub(super) fn high(&self) -> Option<Duration> {
        self.of_ten(9)
    }

    fn of_ten(&self, tenths: usize) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let place = (sorted.len() * tenths).div_ceil(10);
        sorted.get(place.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_starts() {
        let mut starts = Starts::default();
        assert_eq!(starts.high(), None);
        starts.took(Duration::from_secs(500));
        assert_eq!(starts.middle(), Some(Duration::from_secs(500)));
        for second in 1..=20 {
            starts.took(Duration::from_secs(second));
        }
        assert_eq!(starts.middle(), Some(Duration::from_secs(10)));
        assert_eq!(starts.high(), Some(Duration::from_secs(18)));
    }
}
