//! Folds of histories that are written out here.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_model::spec::Spec;

use super::*;
use crate::event::{
    AttemptStarted, ByPerson, ForeachExpanded, RunCreated, RunEnded, RunReopened, RunStarted,
    UnitEnded, UnitReady, UnitRef,
};

pub(super) fn plan(text: &str) -> Plan {
    let parsed = kapell_model::parse("test.yaml", text);
    let spec: Arc<Spec> = parsed
        .spec
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    Plan::new(spec)
}

pub(super) fn unit(step: u16, item: u32) -> UnitRef {
    Place {
        scope: 0,
        step,
        item,
    }
    .into()
}

pub(super) const WHOLE: u32 = Place::NO_ITEM;

pub(super) fn at(seconds: i64, fact: Fact) -> Event {
    Event::new(Time(seconds * 1_000_000), fact)
}

pub(super) fn created() -> Event {
    at(
        0,
        Fact::RunCreated(Box::new(RunCreated {
            workflow: "w".into(),
            version: 1,
            by: "ann".into(),
            ..RunCreated::default()
        })),
    )
}

pub(super) fn opened(
    scope: u32,
    unit: Option<UnitRef>,
    kind: ScopeKind,
    graph: u32,
    iteration: u32,
) -> Fact {
    Fact::ScopeOpened(ScopeOpened {
        scope,
        unit,
        kind: kind as u32,
        graph,
        iteration,
        ..ScopeOpened::default()
    })
}

fn ready(unit: UnitRef) -> Fact {
    Fact::UnitReady(UnitReady {
        unit,
        ..UnitReady::default()
    })
}

/// An attempt that ran for a second until now.
fn attempt(unit: UnitRef, attempt: u32, good: bool, next: Next) -> Fact {
    Fact::AttemptEnded(AttemptEnded {
        unit,
        attempt,
        started: -1_000_000,
        ended: 0,
        result: u32::from(!good),
        next: next as u32,
        error: (!good).then(|| {
            Box::new(StoredError {
                kind: 1,
                message: "broken".into(),
                ..StoredError::default()
            })
        }),
        ..AttemptEnded::default()
    })
}

pub(super) fn ended(unit: UnitRef, status: StepStatus) -> Fact {
    Fact::UnitEnded(UnitEnded {
        unit,
        status: u32::from(status.number()),
        ..UnitEnded::default()
    })
}

fn fold(plan: &Plan, until: Option<i64>, events: &[Event]) -> Record {
    let mut fold = Fold::new(plan, until.map(|seconds| Time(seconds * 1_000_000)));
    for event in events {
        fold.take(event);
    }
    fold.finish()
}

const CHAIN: &str = "workflow: w\nsteps:\n  a: { noop: }\n  b: { needs: [a], noop: }\n";

/// `a` succeeds, `b` fails, the run is retried and succeeds.
fn retried() -> Vec<Event> {
    vec![
        created(),
        at(1, Fact::RunStarted(RunStarted::default())),
        at(1, opened(0, None, ScopeKind::Root, 0, 0)),
        at(1, ready(unit(0, WHOLE))),
        at(3, attempt(unit(0, WHOLE), 1, true, Next::Succeeded)),
        at(3, ready(unit(1, WHOLE))),
        at(5, attempt(unit(1, WHOLE), 1, false, Next::End)),
        at(5, ended(unit(1, WHOLE), StepStatus::Failed)),
        at(
            5,
            Fact::RunEnded(RunEnded {
                status: u32::from(RunStatus::Failed.number()),
                ..RunEnded::default()
            }),
        ),
        at(
            9,
            Fact::RunReopened(RunReopened {
                by: "ann".into(),
                ..RunReopened::default()
            }),
        ),
        at(9, ready(unit(1, WHOLE))),
        at(11, attempt(unit(1, WHOLE), 2, true, Next::Succeeded)),
        at(
            11,
            Fact::RunEnded(RunEnded {
                status: u32::from(RunStatus::Succeeded.number()),
                ..RunEnded::default()
            }),
        ),
    ]
}

#[test]
fn a_retried_run_keeps_what_succeeded_and_every_attempt() {
    let record = fold(&plan(CHAIN), None, &retried());
    assert_eq!(record.status, RunStatus::Succeeded);
    assert_eq!(record.steps[0].attempts.len(), 1);
    assert_eq!(record.steps[1].status, StepStatus::Succeeded);
    assert_eq!(record.steps[1].attempts.len(), 2);
    assert_eq!(
        record.steps[1].attempts[0].error.as_ref().unwrap().message,
        "broken"
    );
    assert_eq!(record.steps[1].needs, ["a"]);
    assert_eq!(record.notes[0].text, "retried by ann");
}

#[test]
fn a_prefix_is_the_record_of_that_moment() {
    let plan = plan(CHAIN);
    let before = fold(&plan, Some(0), &retried());
    assert_eq!(before.status, RunStatus::Queued);
    assert_eq!(before.steps.len(), 2, "steps are known before they start");
    let failed = fold(&plan, Some(8), &retried());
    assert_eq!(failed.status, RunStatus::Failed);
    assert_eq!(failed.steps[1].status, StepStatus::Failed);
    assert_eq!(failed.ended_at, Some(Time(5_000_000)));
    let again = fold(&plan, Some(9), &retried());
    assert_eq!((again.status, again.ended_at), (RunStatus::Running, None));
    assert_eq!(again.steps[1].status, StepStatus::Queued);
}

#[test]
fn an_attempt_that_was_announced_is_one_attempt() {
    let mut events = retried()[..4].to_vec();
    let started = AttemptStarted {
        unit: unit(0, WHOLE),
        attempt: 1,
        ..AttemptStarted::default()
    };
    events.push(at(2, Fact::AttemptStarted(started)));
    events.push(at(2, Fact::RunPaused(ByPerson { by: "ann".into() })));
    let plan = plan(CHAIN);
    let running = fold(&plan, None, &events);
    assert_eq!(running.steps[0].attempts[0].result, Result::Running);
    events.push(at(3, attempt(unit(0, WHOLE), 1, true, Next::Succeeded)));
    let over = fold(&plan, None, &events);
    assert_eq!(over.steps[0].attempts.len(), 1);
    assert_eq!(over.status, RunStatus::Paused);
}

fn expanded(count: u32) -> Vec<Event> {
    let expanded = ForeachExpanded {
        unit: unit(0, WHOLE),
        count,
        ..ForeachExpanded::default()
    };
    vec![
        created(),
        at(1, opened(0, None, ScopeKind::Root, 0, 0)),
        at(1, Fact::ForeachExpanded(expanded)),
    ]
}

const ITEMS: &str = "workflow: w\nsteps:\n  a: { foreach: { i: \"${{ range(10) }}\" }, noop: }\n";

#[test]
fn what_is_named_is_kept_wherever_it_stands() {
    let plan = plan(ITEMS);
    let kept = |path: &str| {
        let mut fold = Fold::new(&plan, None).with(path);
        for event in expanded(3_000) {
            fold.take(&event);
        }
        for item in 0..3_000 {
            let mut fact = attempt(unit(0, item), 1, true, Next::Succeeded);
            if let Fact::AttemptEnded(ended) = &mut fact {
                ended.output = Some(Stored::new(&Value::from(i64::from(item))));
            }
            fold.take(&at(2, fact));
        }
        let record = fold.finish();
        let items = record.steps[0].items.clone().unwrap();
        assert_eq!(items.succeeded, 3_000);
        items.shown
    };
    assert_eq!(kept("a").len(), 1_000);
    let with = kept("a[2500]");
    assert_eq!(with.len(), 1_001);
    assert_eq!(
        (with[1_000].path.as_str(), &with[1_000].output),
        ("a[2500]", &Some(Value::from(2_500)))
    );
    assert_eq!(with[1_000].attempts.len(), 1);
}

#[test]
fn a_million_items_are_counted_and_only_some_are_kept() {
    let plan = plan(ITEMS);
    let mut fold = Fold::new(&plan, None);
    for event in expanded(1_000_000) {
        fold.take(&event);
    }
    for item in 0..1_000_000 {
        if item % 50 == 7 {
            fold.take(&at(2, attempt(unit(0, item), 1, false, Next::End)));
            fold.take(&at(2, ended(unit(0, item), StepStatus::Failed)));
        } else if item % 50 == 8 {
            fold.take(&at(2, attempt(unit(0, item), 1, false, Next::Retry)));
            fold.take(&at(3, attempt(unit(0, item), 2, true, Next::Succeeded)));
        } else {
            fold.take(&at(2, attempt(unit(0, item), 1, true, Next::Succeeded)));
        }
    }
    let record = fold.finish();
    let items = record.steps[0].items.as_ref().unwrap();
    assert_eq!(
        (items.count, items.succeeded, items.failed),
        (1_000_000, 980_000, 20_000)
    );
    let first = items.shown.iter().filter(|item| item.status.good()).count();
    assert_eq!(
        first, 980,
        "of the first 1,000 all are kept, of the others those that failed"
    );
    assert_eq!(items.shown.len(), 1_000 + 10_000);
    assert_eq!(items.shown[1_000].path, "a[1007]");
}

#[test]
fn items_that_never_ran_are_told_from_those_that_failed() {
    let mut events = expanded(10);
    events.push(at(2, attempt(unit(0, 0), 1, true, Next::Succeeded)));
    events.push(at(2, attempt(unit(0, 1), 1, false, Next::End)));
    events.push(at(2, ended(unit(0, 1), StepStatus::Failed)));
    let rest = crate::event::ItemsEnded {
        unit: unit(0, WHOLE),
        from: 2,
        to: 10,
        status: u32::from(StepStatus::Skipped.number()),
    };
    events.push(at(2, Fact::ItemsEnded(rest)));
    events.push(at(2, ended(unit(0, WHOLE), StepStatus::Failed)));
    let plan = plan(ITEMS);
    let items = fold(&plan, None, &events).steps[0].items.clone().unwrap();
    assert_eq!((items.succeeded, items.failed, items.other), (1, 1, 8));
    events.push(at(3, Fact::RunReopened(RunReopened::default())));
    let items = fold(&plan, None, &events).steps[0].items.clone().unwrap();
    assert_eq!(
        (items.succeeded, items.failed, items.other),
        (1, 0, 0),
        "all but what succeeded start again"
    );
}

const LOOP: &str = "workflow: w\nsteps:\n  l:\n    loop:\n      max_iterations: 500\n      steps:\n        inner: { noop: }\n";

#[test]
fn a_long_loop_keeps_its_first_and_its_last_iterations() {
    let plan = plan(LOOP);
    let mut events = vec![created(), at(0, opened(0, None, ScopeKind::Root, 0, 0))];
    for iteration in 0..500 {
        events.push(at(
            1,
            opened(
                iteration + 1,
                Some(unit(0, WHOLE)),
                ScopeKind::Iteration,
                1,
                iteration,
            ),
        ));
        let inner = Place {
            scope: iteration + 1,
            step: 0,
            item: WHOLE,
        };
        events.push(at(2, attempt(inner.into(), 1, true, Next::Succeeded)));
    }
    let record = fold(&plan, None, &events);
    let inner: Vec<&str> = record.steps[0]
        .children
        .iter()
        .map(|step| step.path.as_str())
        .collect();
    assert_eq!(
        (inner[0], inner[49], inner[50]),
        ("l#0.inner", "l#49.inner", "l#480.inner")
    );
    assert_eq!(*inner.last().unwrap(), "l#499.inner");
    assert_eq!(record.steps[0].left_out, 430);
}

#[test]
fn the_critical_path_goes_back_from_the_last_end() {
    let text = "workflow: w\nsteps:\n  a: { noop: }\n  b: { noop: }\n  c: { needs: [a, b], noop: }\n  d: { needs: [a], noop: }\n";
    let plan = plan(text);
    let events = [
        created(),
        at(0, opened(0, None, ScopeKind::Root, 0, 0)),
        at(2, attempt(unit(0, WHOLE), 1, true, Next::Succeeded)),
        at(5, attempt(unit(1, WHOLE), 1, true, Next::Succeeded)),
        at(4, attempt(unit(3, WHOLE), 1, true, Next::Succeeded)),
        at(7, attempt(unit(2, WHOLE), 1, true, Next::Succeeded)),
    ];
    assert_eq!(critical_path(&fold(&plan, None, &events)), ["b", "c"]);
}

/// What had begun by then has run until then, not until the last event before.
#[test]
fn a_moment_is_seen_as_of_the_moment_that_was_asked_for() {
    let plan = plan(CHAIN);
    let between = fold(&plan, Some(4), &retried());
    assert_eq!(between.seen_at, Time(4_000_000));
    let last = fold(&plan, None, &retried());
    assert!(last.seen_at > between.seen_at);
}

#[test]
fn items_have_the_labels_that_their_lists_and_the_parameters_give() {
    let text = "workflow: w\nparams: { of: { type: string, default: x } }\nsteps:\n  a: { foreach: { n: [10, 20], label: \"${{ params.of }} ${{ n }} ${{ run.timezone }}\" }, noop: }\n  b: { foreach: { n: [10, 20], label: \"${{ params.of }} ${{ n }}\" }, noop: }\n";
    let plan = plan(text);
    let list = Value::list(vec![Value::Int(10), Value::Int(20)]);
    let mut fold = Fold::new(&plan, None);
    let params = Value::map([("of", Value::string("customer"))]);
    let created = RunCreated {
        params: Some(Stored::new(&params)),
        ..RunCreated::default()
    };
    fold.take(&at(0, Fact::RunCreated(Box::new(created))));
    fold.take(&at(1, opened(0, None, ScopeKind::Root, 0, 0)));
    for step in [0, 1] {
        let expanded = ForeachExpanded {
            unit: unit(step, WHOLE),
            count: 2,
            lists: vec![Stored::new(&list)],
            ..ForeachExpanded::default()
        };
        fold.take(&at(1, Fact::ForeachExpanded(expanded)));
        fold.take(&at(2, attempt(unit(step, 1), 1, true, Next::Succeeded)));
    }
    let items = fold.items("b").unwrap();
    assert_eq!(items.label(0).as_deref(), Some("customer 10"));
    assert_eq!(items.label(2), None, "there is no such item");
    assert!(fold.items("c").is_none());
    let record = fold.finish();
    let label = |step: usize| &record.steps[step].items.as_ref().unwrap().shown[0].label;
    assert_eq!(*label(0), None, "what is not known gives no half of a name");
    assert_eq!(label(1).as_deref(), Some("customer 20"));
}
