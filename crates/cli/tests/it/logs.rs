//! `kapell logs`, while a run goes on and afterwards.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::place::{Place, Started};

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

/// What a server says of itself from its start to its end.
fn server_log(format: &str, filter: Option<&str>) -> String {
    let place = Place::new();
    let mut command = place.command(&["server", "--listen", "127.0.0.1:0", "--grace", "7"]);
    command
        .env("KAPELL_LOG_FORMAT", format)
        .envs(filter.map(|filter| ("KAPELL_LOG", filter)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = Started::of(command.spawn().unwrap());
    server.until("answers at");
    server.signal(rustix::process::Signal::TERM);
    let (status, errors) = server.end();
    assert_eq!(status, 0, "{errors}");
    let mut text = place.comparable(&errors);
    for (pattern, word) in [
        (r"127\.0\.0\.1:\d+", "<address>"),
        (r#"pid([=:"]+)\d+"#, "pid$1<pid>"),
        (r#"version([=:"]+)[0-9.]+"#, "version$1<version>"),
    ] {
        let pattern = regex::Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, word).into_owned();
    }
    text
}

#[test]
fn a_server_says_at_info_that_it_starts_answers_and_ends() {
    insta::assert_snapshot!("server_log_text", server_log("text", Some("info")));
    insta::assert_snapshot!("server_log_json", server_log("json", Some("info")));
    // Whoever asks for nothing hears warnings alone.
    let quiet = server_log("text", None);
    assert!(!quiet.contains("the server"), "{quiet}");
}
