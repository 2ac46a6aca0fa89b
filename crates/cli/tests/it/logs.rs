//! `kapell logs`, while a run goes on and afterwards.

use std::fs;
use std::path::PathBuf;

use crate::place::Place;

const TALK: &str = "\
workflow: talk
steps:
  talk:
    shell: |
      echo one
      until test -e \"$MARK\"; do sleep 0.02; done
      printf '\\033[31mred\\033[0m\\n'
      printf '10%%\\r100%%\\n'
    env: { MARK: \"${{ params.mark }}\" }
params:
  mark: { type: string }
";

fn place() -> (Place, String) {
    let place = Place::with("talk.yaml", TALK);
    let mark = format!("mark={}", place.path("mark").display());
    (place, mark)
}

/// The file of the log of the one attempt of the one run.
fn file(place: &Place) -> PathBuf {
    let folder = place.path(".kapell/logs");
    let run = fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    run.path().join("talk.1.log")
}

#[test]
fn logs_follow_a_run_to_its_end_over_a_rotation() {
    let (place, mark) = place();
    let mut run = place.start(&["run", "talk.yaml", "-p", &mark]);
    run.until("run ");
    let mut follower = place.start(&["logs", "-f"]);
    follower.until("one");
    // As the worker does at its bound: the file is renamed, and the next lines are in a new one.
    let log = file(&place);
    let line = fs::read_to_string(&log).unwrap().replace("one", "two");
    fs::rename(&log, log.with_extension("log.old")).unwrap();
    fs::write(&log, line).unwrap();
    follower.until("two");
    place.write("mark", "");
    follower.until("100%");
    let (status, errors) = follower.end();
    assert_eq!(status, 0, "the process that it asked has ended: {errors}");
    assert_eq!(run.end().0, 0);
    let all = place.good(&["logs"]).out;
    assert_eq!(all, "talk │ one\ntalk │ two\ntalk │ red\ntalk │ 100%\n");
}

#[test]
fn following_leaves_the_directory_to_those_who_work() {
    let (place, mark) = place();
    place.good(&["run", "talk.yaml", "-p", &mark, "--detach"]);
    let mut follower = place.start(&["logs", "-f"]);
    place.write("mark", "");
    place.good(&["resume"]);
    follower.until("one");
    assert_eq!(follower.end().0, 0);
}

#[test]
fn what_is_not_there_is_told_from_what_printed_nothing() {
    let place = Place::with(
        "w.yaml",
        "workflow: w\nsteps:\n  a: { shell: \"true\" }\n  b: { foreach: { i: [1, 2] }, shell: echo x }\n",
    );
    place.good(&["run", "w.yaml"]);
    let quiet = place.good(&["logs", "last", "a"]);
    assert_eq!((&*quiet.out, &*quiet.errors), ("", "nothing was printed\n"));
    for (arguments, words) in [
        (&["a", "--attempt", "2"][..], "`a` has no attempt 2"),
        (&["a", "--item", "0"], "`a` has no items"),
        (&["b", "--item", "2"], "`b` has 2 items"),
        (&["c"], "has no step `c`"),
    ] {
        let said = place.kapell(&[&["logs", "last"], arguments].concat());
        assert_eq!(said.status, 2, "{}", said.all());
        assert!(said.errors.contains(words), "{}", said.errors);
    }
}
