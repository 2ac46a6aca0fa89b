//! What is in force, over a data directory of its own: versions, settings, what is said of all workflows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use kapell_api::client::Api;
use kapell_api::http::{
    AddBreakpoint, Breakpoint, Deploy, DeployAction, Hold, RegisterWorkflow, StrategyView,
    WorkflowBreakpoints, WorkflowChange, WorkflowState,
};
use kapell_engine::run_queue::Settings;
use kapell_model::spec::StrategyMode;
use kapell_model::{EntityKey, ErrorCode, limits};
use kapell_server::Options;
use kapell_server::local::{self, Local, Opened, Want};
use kapell_store::{Order, SqliteStore, Store};
use serde_json::json;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    local: Option<Box<Local>>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            folder: TempDir::new().unwrap(),
            local: None,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let opened = local::open(self.folder.path(), Want::Record, &Options::default());
        match opened.unwrap() {
            Opened::Here(local) => self.local = Some(local),
            Opened::Elsewhere { pid, .. } => panic!("process {pid} holds it"),
        }
    }

    fn close(&mut self) {
        self.local.take();
    }

    fn api(&self) -> Arc<dyn Api> {
        self.local.as_ref().unwrap().api()
    }

    fn deploy(&self, sources: &[&str]) -> kapell_api::client::Result<Vec<DeployAction>> {
        let plan = self.api().deploy(&Deploy {
            workflows: sources.iter().map(|source| file(source)).collect(),
            by: "bob".to_owned(),
            ..Deploy::default()
        })?;
        Ok(plan.changes.iter().map(|change| change.action).collect())
    }

    fn hold(&self, paused: bool) {
        let hold = Hold {
            paused,
            by: "eve".to_owned(),
        };
        self.api().hold(&hold).unwrap();
    }

    fn held(&self, workflow: &str) -> bool {
        self.api().workflow(workflow).unwrap().held.is_some()
    }

    fn change(&self, change: &serde_json::Value) -> kapell_api::client::Result<()> {
        let change: WorkflowChange = serde_json::from_value(change.clone()).unwrap();
        self.api().change("w", &change).map(|_| ())
    }

    fn state(&self, name: &str) -> (u32, WorkflowState) {
        let page = self.api().workflows("", 10).unwrap();
        let found = page.workflows.iter().find(|of| of.name == name).unwrap();
        (found.version, found.state)
    }
}

fn file(source: &str) -> RegisterWorkflow {
    RegisterWorkflow {
        file: "w.yaml".to_owned(),
        source: source.to_owned(),
        bundle: None,
        by: String::new(),
    }
}

const ONE: &str = "workflow: w\nsteps: { a: { noop: } }\n";
const TWO: &str = "workflow: w\nsteps: { a: { noop: }, b: { noop: } }\n";
const THREE: &str = "workflow: w\nsteps: { a: { noop: }, b: { noop: }, c: { noop: } }\n";

#[test]
fn versions_are_listed_from_the_newest_whatever_is_active() {
    let world = World::new();
    for source in [ONE, TWO, THREE] {
        world.deploy(&[source]).unwrap();
    }
    let numbers = || {
        let page = world.api().versions("w", None, 0).unwrap();
        let numbers = page.versions.iter().map(|version| version.version);
        numbers.collect::<Vec<_>>()
    };
    for (change, state) in [
        (json!({ "active": 1 }), (1, WorkflowState::Active)),
        (json!({ "paused": true }), (1, WorkflowState::Paused)),
        (json!({ "deactivate": true }), (0, WorkflowState::Inactive)),
    ] {
        world.change(&change).unwrap();
        assert_eq!(numbers(), [3, 2, 1], "{change}");
        assert_eq!(world.state("w"), state, "{change}");
    }
    let refused = world.api().version("w", None).unwrap_err();
    assert!(refused.message.contains("no version"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("workflow activate w"));
    world.api().delete("w").unwrap();
    assert_eq!(numbers(), [3, 2, 1]);
    assert_eq!(world.state("w"), (0, WorkflowState::Deleted));
    let page = world.api().versions("w", None, 2).unwrap();
    assert_eq!(page.next, Some(2));
    let rest = world.api().versions("w", page.next, 2).unwrap();
    assert_eq!(rest.versions[0].version, 1);
    assert_eq!(rest.next, None);
    assert_eq!(rest.versions[0].author, "bob");
    world.api().versions("nobody", None, 0).unwrap_err();
}

#[test]
fn going_back_to_earlier_content_makes_no_version() {
    let world = World::new();
    for source in [ONE, TWO, ONE] {
        world.deploy(&[source]).unwrap();
    }
    assert_eq!(world.state("w"), (1, WorkflowState::Active));
    let kept = world.deploy(&[ONE]).unwrap();
    assert_eq!(kept, [DeployAction::Keep]);
    assert_eq!(
        world.api().versions("w", None, 0).unwrap().versions.len(),
        2
    );
}

#[test]
fn settings_that_no_file_could_say_are_refused_and_change_nothing() {
    let world = World::new();
    world.deploy(&[ONE]).unwrap();
    let long = "x".repeat(2_000);
    for nonsense in [
        json!({ "strategy": { "mode": "sequential", "limit": 4 } }),
        json!({ "strategy": { "mode": "parallel", "limit": 0 } }),
        json!({ "strategy": { "mode": "parallel", "total": 0 } }),
        json!({ "strategy": { "mode": "parallel", "limit": 1_000_001 } }),
        json!({ "retention": { "runs": 0 } }),
        json!({ "retention": { "age": "-PT5S" } }),
        json!({ "active": 1, "deactivate": true }),
        json!({ "owner": long }),
        json!({ "paused": true, "by": long }),
    ] {
        let refused = world.change(&nonsense).unwrap_err();
        assert!(refused.hint.is_some(), "{nonsense}");
    }
    let view = world.api().workflow("w").unwrap();
    assert_eq!(view.strategy, StrategyView::default());
    assert!(view.overrides.is_empty() && view.paused.is_none());
    let good = json!({ "strategy": { "mode": "parallel", "limit": 1_000_000, "total": 1 } });
    world.change(&good).unwrap();
    assert_eq!(world.api().workflow("w").unwrap().overrides, ["strategy"]);
    // The override goes even if nothing is active.
    world.change(&json!({ "deactivate": true })).unwrap();
    world.change(&json!({ "strategy": null })).unwrap();
    let view = world.api().workflow("w").unwrap();
    assert_eq!(view.strategy.mode, StrategyMode::Parallel);
    assert!(view.overrides.is_empty());
}

#[test]
fn what_is_kept_changes_by_what_is_named_alone() {
    let world = World::new();
    let kept = || {
        let kept = world
            .api()
            .workflow("w")
            .unwrap()
            .retention
            .unwrap_or_default();
        (kept.age.map(|age| age.as_hours() / 24), kept.runs)
    };
    let own = format!("{ONE}retention: {{ age: 90d }}\n");
    world.deploy(&[&own]).unwrap();
    assert_eq!(kept(), (Some(90), None));
    world
        .change(&json!({ "retention": { "runs": 5 } }))
        .unwrap();
    assert_eq!(kept(), (Some(90), Some(5)), "the age is the definition's");
    world
        .change(&json!({ "retention": { "age": "PT720H" } }))
        .unwrap();
    assert_eq!(kept(), (Some(30), Some(5)));
    world
        .change(&json!({ "retention": { "runs": 7 } }))
        .unwrap();
    assert_eq!(kept(), (Some(30), Some(7)));
    world
        .change(&json!({ "retention": { "age": null } }))
        .unwrap();
    assert_eq!(kept(), (None, Some(7)));
    world.change(&json!({ "retention": null })).unwrap();
    assert_eq!(kept(), (Some(90), None));
}

fn locked(workflow: &str, bounds: &str) -> String {
    format!(
        "workflow: {workflow}\nsteps: {{ a: {{ noop: , locks: [{{ name: dup, {bounds} }}] }} }}\n"
    )
}

#[test]
fn a_lock_says_the_same_in_all_that_is_in_force() {
    let world = World::new();
    world.deploy(&[&locked("l1", "max: 2")]).unwrap();
    for other in ["max: 1", "max: 2, per: 1h"] {
        let refused = world.deploy(&[&locked("l2", other)]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadDefinition);
        assert!(refused.message.contains("`dup`"), "{}", refused.message);
        assert!(refused.message.contains("`l1`"), "{}", refused.message);
        let refused = world.api().register(&file(&locked("l2", other)));
        refused.unwrap_err();
    }
    assert_eq!(world.api().workflows("", 9).unwrap().workflows.len(), 1);
    world.deploy(&[&locked("l2", "max: 2")]).unwrap();
    // Together they may change, one of them alone may not.
    world.deploy(&[&locked("l1", "max: 5")]).unwrap_err();
    let both = [
        locked("l1", "max: 5, per: 1h"),
        locked("l2", "max: 5, per: 60m"),
    ];
    world.deploy(&[&both[0], &both[1]]).unwrap();
    let apart = [
        locked("l1", "max: 5, per: 1s"),
        locked("l2", "max: 5, per: 1500ms"),
    ];
    world.deploy(&[&apart[0], &apart[1]]).unwrap_err();
    // Going back to a version is putting it in force.
    let back = WorkflowChange {
        active: Some(1),
        ..WorkflowChange::default()
    };
    world.api().change("l2", &back).unwrap_err();
    // What is gone says nothing.
    world.api().delete("l1").unwrap();
    world.api().change("l2", &back).unwrap();
}

#[test]
fn a_hold_counts_for_what_comes_later() {
    let world = World::new();
    world.deploy(&[ONE]).unwrap();
    world.hold(true);
    assert!(world.held("w"));
    let other = "workflow: other\nsteps: { a: { noop: } }\n";
    let file_of = "workflow: by-file\nsteps: { a: { noop: } }\n";
    world.deploy(&[other]).unwrap();
    world.api().register(&file(file_of)).unwrap();
    for name in ["w", "other", "by-file"] {
        assert!(world.held(name), "{name}");
        assert_eq!(world.state(name), (1, WorkflowState::Paused));
    }
    assert_eq!(
        world.api().workflow("other").unwrap().held.unwrap().by,
        "eve"
    );
    world.hold(false);
    for name in ["w", "other", "by-file"] {
        assert!(!world.held(name), "{name}");
    }
    world
        .deploy(&["workflow: last\nsteps: { a: { noop: } }\n"])
        .unwrap();
    assert!(!world.held("last"));
}

#[test]
fn breakpoints_of_every_workflow_reach_each_over_a_crash_and_are_bounded() {
    let mut world = World::new();
    world.deploy(&[ONE]).unwrap();
    world.hold(true);
    let add = |world: &World, step: String| {
        let of = AddBreakpoint {
            breakpoint: Breakpoint {
                step: Some(step),
                ..Breakpoint::default()
            },
            by: "eve".to_owned(),
            ..AddBreakpoint::default()
        };
        world.api().add_breakpoint(None, &of)
    };
    for number in 0..limits::BREAKPOINTS {
        add(&world, format!("s{number}")).unwrap();
    }
    let refused = add(&world, "more".to_owned()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached);
    let of_version = WorkflowBreakpoints {
        version: Some(1),
        ..WorkflowBreakpoints::default()
    };
    let refused = world.api().set_breakpoints(None, &of_version).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadRequest);
    assert!(world.held("w"), "that is another thing said of all");
    world.hold(false);
    let there = world.api().breakpoints(None, None).unwrap().breakpoints;
    assert_eq!(there.len(), limits::BREAKPOINTS);
    world.close();
    // As it is after the first of its writes.
    let store = opened(world.folder.path());
    let text =
        json!({ "mark": null, "breaks": [{ "step": "late", "at": "before" }], "told": false });
    store
        .put_documents(&[(vec![76], Some(text.to_string()))])
        .unwrap();
    drop(store);
    let told = |world: &World| {
        let key = EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: "w".into(),
            key: "".into(),
        };
        let found = opened(world.folder.path())
            .documents(&key.to_bytes(), None, Order::Forward, 1)
            .unwrap();
        let settings: Settings = serde_json::from_str(&found[0].1).unwrap();
        let steps = settings
            .breaks_of_all
            .iter()
            .filter_map(|of| of.step.clone());
        steps.map(|step| step.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(told(&world).len(), limits::BREAKPOINTS);
    world.open();
    world.close();
    assert_eq!(told(&world), ["late"]);
}

/// The store of a directory that was let go just now: its last thread may not have ended yet.
fn opened(folder: &Path) -> SqliteStore {
    for _ in 0..100_000 {
        match SqliteStore::open(folder) {
            Err(kapell_store::Error::Held { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
    panic!("nobody lets go of {}", folder.display());
}

#[test]
fn a_hold_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let mut world = World::new();
    world.deploy(&[ONE]).unwrap();
    for (hold, is_held) in [
        (
            json!({ "mark": { "by": "eve", "at": 7 }, "told": false }),
            true,
        ),
        (json!({ "mark": null, "told": false }), false),
    ] {
        world.close();
        // As it is after the first of its writes.
        let store = opened(world.folder.path());
        let row = (vec![76], Some(hold.to_string()));
        store.put_documents(&[row]).unwrap();
        drop(store);
        world.open();
        assert_eq!(world.held("w"), is_held);
    }
}
