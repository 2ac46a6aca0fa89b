//! What people see of a run queue.

use kapell_expr::Value;
use kapell_model::limits;
use serde_json::json;

use super::RunQueue;

impl RunQueue {
    /// Its lines with who is active and who waits, in order: `{settings, active, waiting, lines: [{key,
    /// active: [run], waiting: [run], blocked_by, burst: {run, until}}], more}`. Of all lines at most a
    /// page of runs; `more` says whether some are left out.
    pub fn view(&self) -> Value {
        let mut room = limits::LIST_PAGE;
        let mut lines = Vec::new();
        let mut waiting = 0;
        let mut more = false;
        for (key, line) in &self.lines {
            waiting += line.waiting.len() + usize::from(line.burst.is_some());
            if room == 0 {
                more = true;
                continue;
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
            lines.push(json!({
                "key": &**key,
                "active": active,
                "waiting": waits,
                "blocked_by": line.blocked.map(|run| run.to_string()),
                "burst": line.burst.as_ref().map(|(entry, _, until)| json!({
                    "run": entry.run.to_string(),
                    "until": until.to_string(),
                })),
            }));
        }
        let view = json!({
            "settings": &self.settings,
            "active": self.active,
            "waiting": waiting,
            "lines": lines,
            "more": more,
        });
        serde_json::from_value(view).unwrap_or_default()
    }
}
