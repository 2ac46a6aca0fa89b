use std::sync::Arc;

use super::*;
use crate::parse;
use crate::spec::Spec;

fn spec(text: &str) -> Arc<Spec> {
    let parsed = parse("w.yaml", text);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

#[test]
fn what_is_said_of_a_step_is_kept() {
    let text = "
workflow: w
deadline: 5h
notify: { to: ops }
steps: { a: { shell: x, breakpoint: before, off_peak: { from: 22:00, to: 06:00 }, fairness: k } }
";
    let spec = spec(text);
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
