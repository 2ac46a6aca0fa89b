//! What people see of a run queue.

use kapell_expr::Value;
use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, limits};
use serde_json::json;

use super::{Entry, Line, RunQueue};

/// Active runs that are named.
const NAMED: usize = 3;

impl RunQueue {
    /// Its lines with who is active and who waits, in order: `{settings, active, waiting, lines: [{key,
    /// active: [run], waiting: [run], why, blocked_by, burst: {run, until}}], discarded: [{run, reason,
    /// at}], more}`. `why` is why the first that waits does not start. Of all lines at most a page of
    /// runs; `more` says whether some are left out.
    pub fn view(&self, workflow: &str) -> Value {
        let mut room = limits::LIST_PAGE;
        let mut lines = Vec::new();
        let mut more = false;
        for (key, line) in &self.lines {
            if room == 0 {
                more = true;
                break;
            }
            let active: Vec<String> = line
                .active
                .iter()
                .take(room)
                .map(ToString::to_string)
                .collect();
            room -= active.len();
            let waits: Vec<String> = line
                .waiting
                .iter()
                .take(room)
                .map(|entry| entry.run.to_string())
                .collect();
            room -= waits.len();
            more |= active.len() < line.active.len() || waits.len() < line.waiting.len();
            let first = line.waiting.front().map(|entry| entry.run);
            lines.push(json!({
                "key": &**key,
                "active": active,
                "waiting": waits,
                "why": first.and_then(|run| self.why(workflow, run)),
                "blocked_by": line.blocked.map(|run| run.to_string()),
                "burst": line.burst.as_ref().map(|(entry, _, until)| json!({
                    "run": entry.run.to_string(),
                    "until": until.to_string(),
                })),
            }));
        }
        let discarded = self.discards.iter().rev().map(|discard| {
            json!({
                "run": discard.run.to_string(),
                "reason": &*discard.reason,
                "at": discard.at.to_string(),
            })
        });
        let view = json!({
            "settings": &self.settings,
            "active": self.active,
            "waiting": self.runs.len() - self.active as usize,
            "lines": lines,
            "discarded": discarded.collect::<Vec<_>>(),
            "more": more,
        });
        serde_json::from_value(view).unwrap_or_default()
    }

    /// Why a run waits here, as a sentence that says what helps; none if it does not.
    pub fn why(&self, workflow: &str, run: RunId) -> Option<String> {
        let line = self.lines.get(self.runs.get(&run)?)?;
        if let Some((_, _, until)) = line.burst.as_ref().filter(|(entry, _, _)| entry.run == run) {
            return Some(format!(
                "the run waits for a burst of starts to be over, at the latest at {until}"
            ));
        }
        let place = line.waiting.iter().position(|entry| entry.run == run)?;
        let entry = line.waiting.get(place)?;
        let stopped = self.settings.why(workflow);
        Some(stopped.or_else(|| line.why_blocked(entry)).unwrap_or_else(|| {
            let of_key = match &*entry.key {
                "" => String::new(),
                key => format!(" of key `{key}`"),
            };
            let (active, what) = self.why_full(line, entry);
            let named: Vec<String> = active.iter().map(ToString::to_string).collect();
            let named = match named.len() {
                0 => String::new(),
                _ => format!(" ({})", named.join(", ")),
            };
            format!("the run waits for its turn{of_key}: {what}{named}, {place} waiting before it")
        }))
    }

    /// Some runs that keep one from starting, and how many there are of how many.
    fn why_full(&self, line: &Line, entry: &Entry) -> (Vec<RunId>, String) {
        let some = |line: &Line| line.active.iter().copied().take(NAMED).collect();
        let of = |active: usize, most: u32| match most {
            0 => format!("{active} active"),
            most => format!("{active} of at most {most} active"),
        };
        let (limit, total) = (entry.rule.limit, entry.rule.total);
        let own = line.active.len();
        if total > 0 && self.active >= total && !(limit > 0 && own >= limit as usize) {
            // Where they stand: in other lines too, of which not all are looked through.
            let lines = self.lines.values().take(limits::LIST_PAGE);
            let active = lines.flat_map(|line| line.active.iter().copied());
            let what = of(self.active as usize, total) + " over all keys";
            return (active.take(NAMED).collect(), what);
        }
        (some(line), of(own, limit))
    }
}

impl Line {
    fn why_blocked(&self, entry: &Entry) -> Option<String> {
        let blocked = self.blocked.filter(|run| *run != entry.run)?;
        if entry.rule.mode != StrategyMode::StrictSequential {
            return None;
        }
        let how = if self.timed_out {
            "timed out"
        } else {
            "failed"
        };
        Some(format!(
            "the run waits: the workflow is strict_sequential and run {blocked} {how}; `kapell retry \
             {blocked}` or `kapell dismiss {blocked}` lets it go on"
        ))
    }
}
