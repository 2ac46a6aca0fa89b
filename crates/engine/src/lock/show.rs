//! What people see of a lock.

use kapell_expr::Value;
use kapell_model::Time;
use serde_json::json;

use super::{Holder, Lock};

/// Holders, and requests, that a view shows.
const SHOWN: usize = 200;

impl Lock {
    /// What lists show; none while nobody holds it or waits.
    pub(super) fn document(&self) -> Option<String> {
        let idle = self.holders.is_empty() && self.waiting.is_empty();
        if idle && self.granted_at.is_empty() {
            return None;
        }
        Some(self.brief().to_string())
    }

    fn brief(&self) -> serde_json::Value {
        let oldest = self.waiting.front().map(|(_, at)| at.to_string());
        json!({
            "max": self.max,
            "per_ms": (self.period > 0).then_some(self.period / 1_000),
            "holders": self.holders.len(),
            "waiting": self.waiting.len(),
            "oldest_at": oldest,
        })
    }

    /// Everything of it: who holds it and who waits, in order, up to a bound.
    pub(super) fn shown(&self) -> Value {
        let of = |holder: &Holder, since: Option<Time>| {
            let about = self.about.get(holder);
            let since = about.map(|about| about.since).or(since);
            json!({
                "run": holder.0.to_string(),
                "step": about.map_or("", |about| &*about.path),
                "since": since.map(|at| at.to_string()),
            })
        };
        let holding: Vec<_> = self
            .holders
            .iter()
            .take(SHOWN)
            .map(|holder| of(holder, None))
            .collect();
        let queue: Vec<_> = self
            .waiting
            .iter()
            .take(SHOWN)
            .map(|(holder, at)| of(holder, Some(*at)))
            .collect();
        let mut all = self.brief();
        all["holding"] = holding.into();
        all["queue"] = queue.into();
        all["next_at"] = json!(self.wake_at().map(|at| at.to_string()));
        all["more"] = (self.holders.len() > SHOWN || self.waiting.len() > SHOWN).into();
        Value::from_json(&all)
    }
}
