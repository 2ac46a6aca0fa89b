use std::sync::Arc;

use super::*;
use crate::parse;

fn spec(text: &str) -> Arc<Spec> {
    let parsed = parse("w.yaml", text);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

const SIGNALS: &str = "
workflow: w
steps:
  first: { await: { signal: s } }
  group:
    steps:
      inner: { noop: , emit: { signal: t } }
      cycle: { loop: { on_max: succeed, steps: { deep: { await: { signal: u }, emit: { signal: v } } } } }
  either: { switch: [{ else: true, steps: { taken: { await: { signal: s } } } }] }
  failing: { shell: x, on_failure: { steps: { undo: { noop: , emit: { signal: undone } } } } }
finally: { last: { noop: , emit: { signal: done } } }
";

#[test]
fn what_is_not_run_is_found_in_every_graph() {
    let found: Vec<String> = spec(SIGNALS)
        .not_yet()
        .iter()
        .map(|found| format!("{} {}", found.what, found.step))
        .collect();
    assert_eq!(
        found,
        [
            "await first",
            "emit group.inner",
            "await group.cycle.deep",
            "emit group.cycle.deep",
            "await either.taken",
            "emit failing.undo",
            "emit last",
        ]
    );
}

#[test]
fn what_is_not_run_is_refused_by_name() {
    let error = spec(SIGNALS).runnable().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotAvailable);
    assert_eq!(
        error.message,
        "`w` is valid, but this version of Kapell does not run `await` of the step `first`, \
         `emit` of the step `group.inner`, `await` of the step `group.cycle.deep`, 4 more"
    );
}

#[test]
fn what_only_has_no_effect_runs() {
    let text = "
workflow: w
deadline: 5h
notify: { to: ops }
steps: { a: { shell: x, breakpoint: before, off_peak: { from: 22:00, to: 06:00 }, fairness: k } }
";
    let spec = spec(text);
    assert_eq!(spec.not_yet(), []);
    assert!(spec.runnable().is_ok());
    let step = &spec.graph.steps[0];
    assert!(matches!(step.breakpoint, Some(Breakpoint::Before)));
    assert_eq!(
        step.fairness.as_ref().map(|fairness| fairness.weight),
        Some(1)
    );
    let on: Vec<NotifyOn> = spec
        .notify
        .iter()
        .flat_map(|notify| notify.on.clone())
        .collect();
    assert_eq!(
        on,
        [NotifyOn::Failed, NotifyOn::TimedOut, NotifyOn::Deadline]
    );
}

/// A version stored before these keys were known reads, and is written as it was: its hash stays.
#[test]
fn an_older_stored_version_reads_and_keeps_its_text() {
    let stored = include_str!("tests/older.json").trim_end();
    let read: Spec = serde_json::from_str(stored).unwrap();
    assert_eq!(read.graph.steps.len(), 2);
    assert_eq!(serde_json::to_string(&read).unwrap(), stored);
}
