use super::*;
use crate::logs::AttemptLog;
use crate::mask::Masker;
use kapell_api::log::{self, Line, LogOf, LogSink, Stream};
use parking_lot::Mutex;

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

/// What was appended, one part after another, and how many attempts ended.
#[derive(Default)]
struct Kept(Mutex<(Vec<u8>, usize)>);

impl LogSink for Kept {
    fn append(&self, of: LogOf<'_>, offset: u64, text: &[u8]) {
        let mut kept = self.0.lock();
        assert_eq!(of, (RUN, "step", 1));
        assert_eq!(offset, kept.0.len() as u64, "parts follow each other");
        kept.0.extend_from_slice(text);
    }

    fn ended(&self) {
        self.0.lock().1 += 1;
    }
}

#[test]
fn lines_go_where_the_server_keeps_them_and_to_no_file() {
    let kept = Arc::new(Kept::default());
    let to = Arc::clone(&kept);
    let setup = setup_with(|config| config.logs = Some(to), Containment::Cgroups);
    let script =
        "for i in $(seq 2000); do echo line $i; done; echo \"$T\"; echo no end | tr -d '\\n'";
    let ended = setup.run(shell_with(script, |process| {
        process.env = vec![("T".into(), Some(secret("token")))];
    }));
    ended.value();
    let (text, ends) = kept.0.lock().clone();
    let lines = text.split(|byte| *byte == b'\n').filter_map(Line::decode);
    let lines: Vec<String> = lines.map(|line| line.text).collect();
    assert_eq!(lines.len(), 2_002);
    assert_eq!(lines[1_999..], ["line 2000", "***", "no end"]);
    assert!(ends > 0, "whoever waits for its lines is told");
    assert!(!log::file(&setup.dir.path().join("logs"), RUN, "step", 1).exists());
}
