//! When it is said what waits for workers at this node.
//!
//! All nodes hear of it each time, so it is said at once only where somebody would wait for that: where work waits
//! that was not said to, or four times as much. All else is put off to the next tick, and said as it was at most since
//! the one before: a node that has now and then a step to do says so once, and not with each of them.

use crate::lend::Wants;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// What was said last.
    said: Wants,
    wants: Wants,
    /// What was wanted at most since the last tick.
    most: Wants,
}

impl Asking {
    /// What was said last.
    pub(super) fn said(&self) -> Wants {
        self.said.clone()
    }

    /// What waits from now on; returns what is to be said at once.
    pub(super) fn wants(&mut self, wants: Wants) -> Option<Wants> {
        more(&mut self.most, &wants);
        let is_new = wants.iter().any(|(what, waits)| {
            let said = self.said.get(what);
            said.is_none_or(|said| *waits >= said.saturating_mul(4))
        });
        self.wants = wants;
        if is_new {
            more(&mut self.said, &self.wants);
        }
        is_new.then(|| self.said())
    }

    /// What is to be said by now.
    pub(super) fn tick(&mut self) -> Option<Wants> {
        let most = std::mem::replace(&mut self.most, self.wants.clone());
        if most == self.said {
            return None;
        }
        self.said = most;
        Some(self.said())
    }
}

/// The more of each.
fn more(most: &mut Wants, wants: &Wants) {
    for (what, waits) in wants {
        let most = most.entry(what.clone()).or_insert(0);
        *most = (*most).max(*waits);
    }
}

#[cfg(test)]
mod tests;
