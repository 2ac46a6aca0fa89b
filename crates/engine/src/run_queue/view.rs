//! What people see of a run queue.

use std::ops::Bound;
use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{RunId, limits};
use serde_json::json;

use super::{Line, RunQueue};

/// Which lines of a run queue to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinesAsk {
    /// That of this value of `strategy.key` alone.
    pub key: Option<Arc<str>>,
    /// After this run of this line: `next` of the page before.
    pub after: Option<(Arc<str>, RunId)>,
}

impl RunQueue {
    /// Its lines with who is active and who waits, in order: `{settings, active, waiting, lines: [{key,
    /// active: [run], waiting: [run], blocked_by, burst: {run, until}}], more, next: {key, run}}`. Of all
    /// lines at most a page of runs; `next` says where to go on. `active` and `waiting` count the runs of
    /// all lines.
    pub fn view(&self, which: &LinesAsk) -> Value {
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
            let names = |runs: Vec<RunId>| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
            lines.push(json!({
                "key": &**key,
                "active": names(active),
                "waiting": names(waiting),
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
        let waits = |line: &Line| line.waiting.len() + usize::from(line.burst.is_some());
        let next = last.filter(|_| more);
        let view = json!({
            "settings": &self.settings,
            "active": self.active,
            "waiting": self.lines.values().map(waits).sum::<usize>(),
            "lines": lines,
            "more": more,
            "next": next.map(|(key, run)| json!({ "key": &**key, "run": run.to_string() })),
        });
        serde_json::from_value(view).unwrap_or_default()
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
            queue.lines.insert((*key).into(), line);
        }
        let mut seen = Vec::new();
        let mut ask = LinesAsk::default();
        loop {
            let page: serde_json::Value = queue.view(&ask).to_json();
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
        let page: serde_json::Value = queue.view(&one).to_json();
        assert_eq!(page["lines"].as_array().unwrap().len(), 1);
        assert!(page["next"].is_null());
    }
}
