//! Ctrl-C, and going on later.

use rustix::process::Signal;

use crate::place::Place;

const SLOW: &str = "\
workflow: slow
steps:
  quick: { noop: }
  wait_for_it:
    needs: [quick]
    shell: until test -e \"$MARK\"; do sleep 0.02; done
    env: { MARK: \"${{ params.mark }}\" }
    retry: { backoff: { initial: 1ms } }
  last: { needs: [wait_for_it], noop: }
params:
  mark: { type: string }
";

fn place() -> (Place, String) {
    let place = Place::with("slow.yaml", SLOW);
    let mark = format!("mark={}", place.path("mark").display());
    (place, mark)
}

#[test]
fn the_first_ctrl_c_pauses_and_resume_goes_on() {
    let (place, mark) = place();
    let mut run = place.start(&["run", "slow.yaml", "-p", &mark]);
    run.until("quick");
    run.signal(Signal::INT);
    run.until_error("is paused");
    // What runs is let end, and nothing more starts.
    place.write("mark", "");
    let (status, errors) = run.end();
    assert_eq!(status, 130, "{errors}");
    assert!(errors.contains("to continue: kapell resume"), "{errors}");
    assert_eq!(place.json(&["show", "--json"])["status"], "paused");
    let said = place.good(&["resume"]);
    assert!(said.out.contains("succeeded in"), "{}", said.all());
    assert_eq!(place.good(&["resume"]).out, "nothing is unfinished here\n");
}

#[test]
fn the_second_ctrl_c_ends_at_once_and_nothing_is_lost() {
    let (place, mark) = place();
    let mut run = place.start(&["run", "slow.yaml", "-p", &mark]);
    run.until("quick");
    run.signal(Signal::INT);
    // Signals that are pending merge: the second is sent until the process is gone.
    while run.child.try_wait().unwrap().is_none() {
        run.signal(Signal::INT);
        std::thread::yield_now();
    }
    assert_eq!(run.end().0, 130);
    place.write("mark", "");
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}

#[test]
fn a_killed_run_goes_on_with_the_next_command() {
    let (place, mark) = place();
    let mut run = place.start(&["run", "slow.yaml", "-p", &mark]);
    run.until("quick");
    run.signal(Signal::KILL);
    run.end();
    assert_eq!(place.json(&["show", "--json"])["status"], "running");
    place.write("mark", "");
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}
