//! What people see of a run queue.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::spec::StrategyMode;
use kapell_model::{RunId, limits};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hold::held;
use super::{Entry, Line, RunQueue};

/// Active runs that are named.
const NAMED: usize = 3;

/// Which lines of a run queue to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesAsk {
    /// That of this value of `strategy.key` alone.
    pub key: Option<Arc<str>>,
    /// After this run of this line: `next` of the page before.
    pub after: Option<(Arc<str>, RunId)>,
}

impl RunQueue {
    /// Its lines with who is active and who waits, in order: `{settings, active, waiting, lines: [{key,
    /// active: [run], waiting: [run], why, blocked_by, burst: {run, until}}], discarded: [{run, reason,
    /// at}], more, next: {key, run}}`. `why` is why the first that waits does not start. Of all lines at
    /// most a page of runs; `next` says where to go on. `active` and `waiting` count the runs of all lines.
    pub fn view(&self, workflow: &str, which: &LinesAsk) -> Value {
        let mut room = limits::LIST_PAGE;
        let mut lines = Vec::new();
        let mut last = None;
        let mut more = false;
        let first = which.after.as_ref().map(|(key, _)| key.clone());
        let from = first.map_or(Bound::Unbounded, Bound::Included);
        let wanted = self
            .lines
            .range((from, Bound::Unbounded))
            .filter(|(key, _)| which.key.as_ref().is_none_or(|wanted| wanted == *key));
        for (key, line) in wanted {
            let after = which.after.as_ref().filter(|(of, _)| of == key);
            let (mut active, mut waiting) = line.left(after.map(|(_, run)| *run));
            if after.is_some() && active.is_empty() && waiting.is_empty() {
                continue;
            }
            if room == 0 {
                more = true;
                break;
            }
            more = active.len() + waiting.len() > room;
            active.truncate(room);
            waiting.truncate(room - active.len());
            let burst = line.burst.as_ref().map(|(entry, _, _)| entry.run);
            let shown = waiting.last().or(active.last()).copied();
            last = shown.or(burst).or(line.blocked).map(|run| (key, run));
            // A line takes room even if only its burst is shown.
            room -= (active.len() + waiting.len()).max(1);
            let first = line.waiting.front().map(|entry| entry.run);
            let names = |runs: Vec<RunId>| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
            lines.push(json!({
                "key": &**key,
                "active": names(active),
                "waiting": names(waiting),
                "why": first.and_then(|run| self.why(workflow, run)),
                "blocked_by": line.blocked.map(|run| run.to_string()),
                "burst": line.burst.as_ref().map(|(entry, _, until)| json!({
                    "run": entry.run.to_string(),
                    "until": until.to_string(),
                })),
            }));
            if more {
                break;
            }
        }
        let next = last.filter(|_| more);
        let discards = self.discards.iter().rev();
        let wanted = |key: &Arc<str>| which.key.as_ref().is_none_or(|wanted| wanted == key);
        let discarded = discards
            .filter(|discard| wanted(&discard.key))
            .map(|discard| {
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
            "next": next.map(|(key, run)| json!({ "key": &**key, "run": run.to_string() })),
        });
        serde_json::from_value(view).unwrap_or_default()
    }

    /// Why a run waits here, as a sentence that says what helps; none if it does not.
    pub fn why(&self, workflow: &str, run: RunId) -> Option<String> {
        self.whys(workflow, &[run]).pop().map(|(_, why)| why)
    }

    /// The same of several: those that wait here, each line of them looked through once.
    pub fn whys(&self, workflow: &str, runs: &[RunId]) -> Vec<(RunId, String)> {
        let mut wanted: BTreeMap<&Arc<str>, BTreeSet<RunId>> = BTreeMap::new();
        for run in runs {
            if let Some(key) = self.runs.get(run) {
                wanted.entry(key).or_default().insert(*run);
            }
        }
        let mut found = Vec::new();
        for (key, mut runs) in wanted {
            let Some(line) = self.lines.get(key) else {
                continue;
            };
            if let Some((entry, _, until)) = &line.burst
                && runs.remove(&entry.run)
            {
                let why = format!(
                    "the run waits for a burst of starts to be over, at the latest at {until}"
                );
                found.push((entry.run, why));
            }
            for (place, entry) in line.waiting.iter().enumerate() {
                if runs.is_empty() {
                    break;
                }
                if runs.remove(&entry.run) {
                    found.push((entry.run, self.why_at(workflow, line, (place, entry))));
                }
            }
        }
        found
    }

    /// Why a run that stands at a place of a line does not start.
    fn why_at(&self, workflow: &str, line: &Line, (place, entry): (usize, &Entry)) -> String {
        let stopped = self.settings.why(workflow);
        let held = || {
            let backfill = entry.backfill.as_deref().unwrap_or_default();
            held(&self.holds, entry).map(|hold| hold.why(workflow, backfill))
        };
        stopped
            .or_else(held)
            .or_else(|| line.why_blocked(entry))
            .unwrap_or_else(|| {
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
                format!(
                    "the run waits for its turn{of_key}: {what}{named}, {place} waiting before it"
                )
            })
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

impl Line {
    /// Who is active and who waits, without those up to a run. One that is gone since was among those
    /// who are active.
    fn left(&self, after: Option<RunId>) -> (Vec<RunId>, Vec<RunId>) {
        let waiting = self.waiting.iter().map(|entry| entry.run);
        let Some(after) = after else {
            return (self.active.iter().copied().collect(), waiting.collect());
        };
        if let Some(place) = self.waiting.iter().position(|entry| entry.run == after) {
            (Vec::new(), waiting.skip(place + 1).collect())
        } else {
            let active = self
                .active
                .range((Bound::Excluded(after), Bound::Unbounded));
            (active.copied().collect(), waiting.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use kapell_model::{Shard, Time};

    use super::*;
    use crate::run_queue::Entry;

    fn run(number: u128) -> RunId {
        RunId::new(Time(1), Shard(1), number)
    }

    #[test]
    fn pages_of_a_queue_name_each_run_once() {
        let mut queue = RunQueue::default();
        for (place, key) in ["a", "b", "c"].iter().enumerate() {
            let mut line = Line::default();
            let first = 10_000 * place as u128;
            line.active.extend((first..first + 3).map(run));
            line.waiting
                .extend((first + 3..first + 700).map(|number| Entry {
                    run: run(number),
                    ..Entry::default()
                }));
            let runs = line.active.iter().copied();
            let runs = runs.chain(line.waiting.iter().map(|entry| entry.run));
            queue.runs.extend(runs.map(|run| (run, Arc::from(*key))));
            queue.active += 3;
            queue.lines.insert((*key).into(), line);
        }
        let mut seen = Vec::new();
        let mut ask = LinesAsk::default();
        loop {
            let page: serde_json::Value = queue.view("w", &ask).to_json();
            for line in page["lines"].as_array().unwrap() {
                let runs = ["active", "waiting"].map(|of| line[of].as_array().unwrap().clone());
                seen.extend(runs.concat());
            }
            assert_eq!(page["waiting"], 3 * 697);
            let next = &page["next"];
            assert_eq!(page["more"], !next.is_null());
            if next.is_null() {
                break;
            }
            let after = next["run"].as_str().unwrap().parse().unwrap();
            ask.after = Some((next["key"].as_str().unwrap().into(), after));
        }
        assert_eq!(seen.len(), 3 * 700);
        seen.sort_by_key(ToString::to_string);
        seen.dedup();
        assert_eq!(seen.len(), 3 * 700);
        let one = LinesAsk {
            key: Some("b".into()),
            after: None,
        };
        let page: serde_json::Value = queue.view("w", &one).to_json();
        assert_eq!(page["lines"].as_array().unwrap().len(), 1);
        assert!(page["next"].is_null());
    }
}
