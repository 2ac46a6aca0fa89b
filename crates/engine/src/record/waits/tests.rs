use super::super::tests::{WHOLE, at, created, ended, opened, plan, unit};
use super::*;
use crate::event::{
    ApprovalAsked, AwaitStarted, BreakPassed, BreakReached, ParamChanged, ScopeKind, SentSignal,
    SignalsSent, Stored, StoredError,
};
use kapell_api::record::Record;
use kapell_expr::Value;

const STEPS: &str = "workflow: w\nparams: { n: { type: int, default: 1 } }\nsteps:\n  a: { await: { signal: s } }\n  b: { approval: { message: x } }\n  c: { noop: }\n";

fn record(facts: Vec<(i64, Fact)>) -> Record {
    let plan = plan(STEPS);
    let mut fold = Fold::new(&plan, None);
    fold.take(&created());
    fold.take(&at(0, opened(0, None, ScopeKind::Root, 0, 0)));
    for (seconds, fact) in facts {
        fold.take(&at(seconds, fact));
    }
    fold.finish()
}

#[test]
fn what_a_step_waits_for_is_told_until_it_ends() {
    let waits = Fact::AwaitStarted(AwaitStarted {
        unit: unit(0, WHOLE),
        signal: "s".into(),
        since: 0,
        timeout: 5_000_000,
    });
    let asks = Fact::ApprovalAsked(ApprovalAsked {
        unit: unit(1, WHOLE),
        message: "Go on?".into(),
        timeout: 0,
    });
    let facts = vec![(1, waits), (1, asks)];
    let open = record(facts.clone());
    assert_eq!(open.steps[0].status, StepStatus::Waiting);
    assert_eq!(open.steps[0].waits_for.as_deref(), Some("a signal `s`"));
    assert_eq!(open.steps[0].until, Some(Time(6_000_000)));
    assert_eq!(
        open.steps[1].waits_for.as_deref(),
        Some("people to approve it: Go on?")
    );
    let over = [(2, ended(unit(0, WHOLE), StepStatus::Succeeded))];
    let over = record(facts.into_iter().chain(over).collect());
    assert_eq!(over.steps[0].waits_for, None);
}

#[test]
fn a_signal_that_was_not_sent_fails_a_step_that_had_succeeded_alone() {
    for (before, after) in [
        (StepStatus::Succeeded, StepStatus::Failed),
        (StepStatus::TimedOut, StepStatus::TimedOut),
    ] {
        let sent = Fact::SignalsSent(SignalsSent {
            unit: unit(2, WHOLE),
            sent: Vec::new(),
            error: Some(StoredError {
                message: "no payload".into(),
                ..StoredError::default()
            }),
        });
        let record = record(vec![(1, ended(unit(2, WHOLE), before)), (1, sent)]);
        assert_eq!(record.steps[2].status, after);
        assert_eq!(record.notes.len(), usize::from(before == after));
    }
    let sent = Fact::SignalsSent(SignalsSent {
        unit: unit(2, WHOLE),
        sent: vec![SentSignal {
            signal: "s".into(),
            id: "x".into(),
        }],
        error: None,
    });
    let done = ended(unit(2, WHOLE), StepStatus::Succeeded);
    assert_eq!(record(vec![(1, done), (1, sent)]).steps[2].sent, ["s"]);
}

#[test]
fn a_stop_and_what_was_changed_there_are_told() {
    let reached = Fact::BreakReached(BreakReached {
        unit: unit(2, WHOLE),
        at: BreakAt::Before as u32,
        ..BreakReached::default()
    });
    let changed = Fact::ParamChanged(ParamChanged {
        name: "n".into(),
        value: Stored::new(&Value::Int(4)),
        by: "ann".into(),
    });
    let passed = Fact::BreakPassed(BreakPassed {
        unit: unit(2, WHOLE),
        at: BreakAt::Before as u32,
        by: "ann".into(),
    });
    let stopped = record(vec![(1, reached.clone()), (2, changed.clone())]);
    assert_eq!(stopped.steps[2].status, StepStatus::Waiting);
    assert!(
        stopped.steps[2]
            .waits_for
            .as_ref()
            .unwrap()
            .contains("before it starts")
    );
    assert_eq!(stopped.params.as_map().unwrap()["n"], Value::Int(4));
    let gone = record(vec![(1, reached), (2, changed), (3, passed)]);
    assert_eq!(gone.steps[2].waits_for, None);
    assert_eq!(gone.notes.len(), 2);
}
