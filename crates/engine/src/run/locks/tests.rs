use kapell_model::{RunStatus, Time};

use super::super::testing::{begun, settle};
use super::super::{Input, Run};
use super::*;

const LOCKED: &str = "workflow: w\nparams: { n: { type: int } }\nsteps:\n  a: { shell: x, retry: { limit: 3 }, locks: [{ name: db }] }\n  b: { needs: a, shell: x }\n";

fn refused(run: &mut Run, name: &str, why: LockRefusal) -> Result<(), Refusal> {
    let place = Place {
        scope: 0,
        step: 0,
        item: Place::NO_ITEM,
    };
    let name = name.into();
    run.decide(Input::LockRefused { place, name, why }, Time(2))?;
    settle(run, Time(2));
    Ok(())
}

#[test]
fn a_step_whose_lock_takes_no_more_that_wait_fails_and_says_so() {
    for (why, reason, words) in [
        (
            LockRefusal::Full,
            "too_many_wait",
            "100000 steps already wait for the lock `db`",
        ),
        (LockRefusal::OtherKind, "lock", "others use `db` as a lock"),
    ] {
        let mut run = begun(LOCKED, 1, Time(1));
        // An answer of a lock that it does not wait for concerns nobody.
        assert!(matches!(
            refused(&mut run, "other", why),
            Err(Refusal::Stale)
        ));
        refused(&mut run, "db", why).unwrap();
        let view = run.view(Time(2));
        assert_eq!(view.status, RunStatus::Failed);
        let steps: Vec<_> = view.steps.iter().map(|step| step.status).collect();
        assert_eq!(steps, [StepStatus::Failed, StepStatus::UpstreamFailed]);
        let error = view.steps[0].error.as_ref().unwrap();
        assert_eq!(&*error.reason, reason);
        assert!(error.message.contains(words), "{}", error.message);
        assert!(run.state.locks.is_empty(), "it waits for none any more");
        // A lock that was granted after all is not its any more.
        assert!(matches!(refused(&mut run, "db", why), Err(Refusal::Stale)));
    }
}
