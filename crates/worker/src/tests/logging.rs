use super::*;
use crate::logs::AttemptLog;
use crate::mask::Masker;
use kapell_api::log::{self, Stream};
use kapell_model::limits;

#[test]
fn secrets_are_hidden_in_every_form() {
    let setup = setup();
    let script = "echo \"$T\"; printf %s \"$T\" | base64; echo s3cret%2Bvalue%2Flong; printf %s \"$L\" | tail -1; echo \"bad $T\" >&2; exit 1";
    let ended = setup.run(shell_with(script, |process| {
        process.env = vec![
            ("T".into(), Some(secret("token"))),
            ("L".into(), Some(secret("lines"))),
        ];
    }));
    assert!(
        ended.error().message.contains("bad ***"),
        "{}",
        ended.error().message
    );
    let mut lines = setup.log_text("step");
    lines.sort();
    assert_eq!(lines, ["***", "***", "***", "***", "bad ***"]);
}

#[test]
fn bytes_that_are_no_text_survive() {
    let setup = setup();
    setup
        .run(shell("printf 'a\\377b\\\\c\\rd\\nno end'"))
        .value();
    assert_eq!(setup.log_text("step"), ["a\u{fffd}b\\c\rd", "no end"]);
}

#[test]
fn gigabytes_without_a_line_end_are_cut_and_counted() {
    let setup = setup();
    setup.run(shell("head -c 1073741824 /dev/zero")).value();
    let lines = setup.log_text("step");
    assert_eq!(lines.len(), 1);
    let cut = (1 << 30) - limits::LOG_LINE_BYTES;
    assert!(
        lines[0].ends_with(&format!("{cut} bytes cut")),
        "{}",
        &lines[0][lines[0].len() - 40..]
    );
}

#[test]
fn a_secret_across_the_cut_is_not_shown_in_part() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.log");
    let mut log = AttemptLog::new(path.clone(), Arc::new(Masker::new(["topsecret"])));
    let line = [
        vec![b'x'; limits::LOG_LINE_BYTES - 4],
        b"topsecret".to_vec(),
        vec![b'y'; 100],
        b"\n".to_vec(),
    ]
    .concat();
    for part in line.chunks(1000) {
        log.feed(Time(1), Stream::Stdout, part);
    }
    log.finish(Time(1));
    assert!(!std::fs::read_to_string(path).unwrap().contains("top"));
}

#[test]
fn a_long_log_keeps_its_newest_lines() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.1.log");
    let mut log = AttemptLog::new(path.clone(), Arc::default()).bounded(10_000);
    for number in 0..2000 {
        log.feed(
            Time(number),
            Stream::Stdout,
            format!("line {number}\n").as_bytes(),
        );
    }
    log.finish(Time(0));
    let text = [log::older(&path), path]
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .concat();
    assert!(text.len() <= 11_000, "{}", text.len());
    let lines: Vec<_> = text
        .lines()
        .filter_map(|line| Line::decode(line.as_bytes()))
        .collect();
    assert_eq!(lines.last().unwrap().text, "line 1999");
    let numbers: Vec<i64> = lines.iter().map(|line| line.at.0).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn a_full_disk_for_logs_does_not_stop_the_attempt() {
    let setup = setup();
    let path = setup.log_path("step");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    assert_eq!(
        setup.run(shell("echo lost; echo '::output n=1'")).json(),
        r#"{"n":1}"#
    );
}

#[test]
fn lines_of_both_streams_keep_their_stream() {
    let setup = setup();
    setup.run(shell("echo o; echo e >&2")).value();
    for line in setup.log("step") {
        assert_eq!(
            line.stream,
            if line.text == "o" {
                Stream::Stdout
            } else {
                Stream::Stderr
            }
        );
        assert!(line.at.0 > 1_000_000_000_000_000);
    }
}
