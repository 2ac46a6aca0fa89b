//! Versions that are put in force together.

use kapell_engine::Ask;
use kapell_engine::run_queue::Activate;

use super::*;

const FILES: [&str; 3] = [
    "workflow: a\nsteps: { x: { noop: } }\n",
    "workflow: b\nsteps: { xx: { noop: } }\n",
    "workflow: c\ntriggers: [{ every: 1h }]\nsteps: { x: { noop: } }\n",
];

/// All three, which nobody knows yet.
fn deploy() -> ClientRequest {
    let mut versions = Vec::new();
    let mut asks = Vec::new();
    for file in FILES {
        let spec = kapell_model::parse("w.yaml", file).spec.unwrap();
        versions.push(VersionRow {
            version: 1,
            ..version_row(&spec, file)
        });
        let to = Activate {
            version: 1,
            triggers: spec.triggers.clone(),
            timezone: spec.timezone.clone(),
            rule: None,
        };
        let key = EntityKey::RunQueue {
            namespace: "default".into(),
            workflow: spec.workflow.clone(),
            key: "".into(),
        };
        asks.push((key, Ask::Activate(Box::new(to))));
    }
    ClientRequest::Deploy { versions, asks }
}

fn known(world: &World) -> usize {
    world.store.list_workflows("default", "", 9).unwrap().len()
}

#[test]
fn a_deploy_that_dies_with_its_commit_leaves_nothing() {
    for commits in [Commits::Hang, Commits::Vanish] {
        let mut world = World::new(&[]);
        world.commits = commits;
        let reply = world.ask(deploy());
        world.go();
        assert_eq!(known(&world), 0, "{commits:?}");
        match commits {
            Commits::Hang => assert_eq!(world.hung.len(), 1, "one commit holds all of it"),
            _ => assert!(matches!(world.answer(reply), Some(Err(_)))),
        }
        for workflow in ["a", "b", "c"] {
            let version = world.store.version("default", workflow, Some(1)).unwrap();
            assert_eq!(version, None, "{workflow}");
        }
    }
}

#[test]
fn what_is_deployed_together_is_there_together() {
    let mut world = World::new(&[]);
    let before = world.store.versions("default", "a", None, 9).unwrap();
    assert_eq!(before, []);
    let reply = world.ask(deploy());
    world.go();
    assert!(matches!(world.answer(reply), Some(Ok(Answer::Done))));
    assert_eq!(known(&world), 3);
    for workflow in ["a", "b", "c"] {
        let run = world.started(workflow);
        assert_eq!(world.store.run(run).unwrap().unwrap().version, 1);
    }
}
