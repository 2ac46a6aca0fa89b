//! Logs as rows.

use super::*;
use crate::{LogLines, PostgresLogs};

const RUN: RunId = RunId(77);

fn open() -> Option<(TestSchema, PostgresStore, PostgresLogs)> {
    let (schema, store) = new()?;
    let logs = PostgresLogs::open(schema.url()).unwrap();
    Some((schema, store, logs))
}

fn lines(path: &str, offset: u64, text: impl Into<Vec<u8>>) -> LogLines {
    LogLines {
        run: RUN,
        path: path.into(),
        attempt: 1,
        offset,
        text: text.into(),
    }
}

fn all(logs: &PostgresLogs, path: &str) -> String {
    let (found, _) = logs.find(RUN, Some(path), None, 9).unwrap();
    let log = found.iter().find(|log| log.path == path).unwrap();
    let (start, bytes) = logs.read(RUN, log, 0, 1 << 30).unwrap();
    assert_eq!(start + bytes.len() as u64, log.length);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_comes_twice_is_written_once_whichever_node_it_comes_to() {
    let Some((schema, _store, logs)) = open() else {
        return;
    };
    let other = PostgresLogs::open(schema.url()).unwrap();
    logs.append(&[lines("a", 0, "one\n")]).unwrap();
    other.append(&[lines("a", 0, "one\n")]).unwrap();
    other
        .append(&[lines("a", 0, "one\ntwo\n"), lines("b", 0, "else\n")])
        .unwrap();
    logs.append(&[lines("a", 4, "two\n"), lines("a", 8, "three\n")])
        .unwrap();
    assert_eq!(all(&other, "a"), "one\ntwo\nthree\n");
    assert_eq!(all(&logs, "b"), "else\n");
}

#[test]
fn what_never_came_is_said_where_it_is_missing() {
    let Some((_schema, _store, logs)) = open() else {
        return;
    };
    logs.append(&[lines("a", 10, "late\n")]).unwrap();
    logs.append(&[lines("a", 20, "")]).unwrap();
    let text = all(&logs, "a");
    let said: Vec<&str> = text
        .lines()
        .map(|line| line.split_once(" s ").map_or(line, |(_, said)| said))
        .collect();
    assert_eq!(
        said,
        [
            "10 bytes of this log were lost on their way here",
            "late",
            "5 bytes of this log were lost on their way here"
        ]
    );
}

#[test]
fn a_log_is_read_from_any_place_on() {
    let Some((_schema, _store, logs)) = open() else {
        return;
    };
    // Small chunks, and one that is cut into several.
    let mut whole = String::new();
    for number in 0..100 {
        let line = format!("line {number}\n");
        logs.append(&[lines("a", whole.len() as u64, line.clone())])
            .unwrap();
        whole += &line;
    }
    let long: Vec<String> = (0..60_000)
        .map(|number| format!("long {number}\n"))
        .collect();
    let long = long.concat();
    logs.append(&[lines("a", whole.len() as u64, long.clone())])
        .unwrap();
    whole += &long;
    let (found, _) = logs.find(RUN, None, None, 9).unwrap();
    assert_eq!(found[0].length, whole.len() as u64);
    for from in [
        0,
        3,
        7,
        500,
        2_000,
        whole.len() - 1,
        whole.len(),
        whole.len() + 9,
    ] {
        for most in [1, 100, 300_000, 10_000_000] {
            let wanted = whole.get(from..).unwrap_or("");
            let (start, bytes) = logs.read(RUN, &found[0], from as u64, most).unwrap();
            assert_eq!(start, from as u64);
            assert!(
                bytes == wanted.as_bytes()[..wanted.len().min(most)],
                "{from} {most}"
            );
        }
    }
}

#[test]
fn a_log_keeps_its_newest_part() {
    let Some((schema, _store, _)) = open() else {
        return;
    };
    let logs = PostgresLogs::keeping(schema.url(), 160_000).unwrap();
    let line = format!("{}\n", "x".repeat(999));
    for number in 0..400_u64 {
        logs.append(&[lines("a", number * 1_000, line.clone())])
            .unwrap();
    }
    let (found, _) = logs.find(RUN, None, None, 9).unwrap();
    let (start, bytes) = logs.read(RUN, &found[0], 5, 1 << 30).unwrap();
    assert_eq!(start + bytes.len() as u64, 400_000);
    assert!(
        (160_000..=172_000).contains(&bytes.len()),
        "{}",
        bytes.len()
    );
}

#[test]
fn logs_of_a_step_are_those_of_its_items_and_inner_steps() {
    let Some((_schema, _store, logs)) = open() else {
        return;
    };
    for path in ["a", "a[3]", "a.b", "a#2", "ab", "b"] {
        logs.append(&[lines(path, 0, "x\n")]).unwrap();
    }
    let again = LogLines {
        attempt: 2,
        ..lines("a", 0, "y\n")
    };
    logs.append(&[again]).unwrap();
    let paths = |step, attempt, limit| {
        let (found, all) = logs.find(RUN, step, attempt, limit).unwrap();
        let mut paths: Vec<String> = found.into_iter().map(|log| log.path).collect();
        paths.sort();
        (paths.join(" "), all)
    };
    assert_eq!(paths(Some("a"), Some(1), 99), ("a a#2 a.b a[3]".into(), 4));
    assert_eq!(paths(Some("a"), Some(2), 99), ("a".into(), 1));
    assert_eq!(paths(Some("none"), None, 99), (String::new(), 0));
    // Of more than are wanted, those that were written last.
    assert_eq!(paths(None, None, 2), ("a b".into(), 7));
    let other = logs.find(RunId(78), None, None, 9).unwrap();
    assert_eq!(other, (vec![], 0));
}

#[test]
fn days_whose_runs_are_gone_take_no_room() {
    let Some((schema, store, logs)) = open() else {
        return;
    };
    let days = || {
        let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'log_chunks'::regclass";
        schema.run(sql).unwrap().remove(0)
    };
    assert_eq!(days(), "0");
    logs.append(&[lines("a", 0, "x\n")]).unwrap();
    assert_eq!(days(), "1");
    store.tidy().unwrap();
    assert_eq!(days(), "2");
    // A log that began on a day long ago.
    let old = RunId(99);
    schema
        .run(
            "SELECT make_log_day_1(5);
             INSERT INTO logs VALUES ('\\x00000000000000000000000000000063', '\\x01', 'a', 1, 5, 2, 2, 0);
             INSERT INTO log_chunks VALUES (5, '\\x00000000000000000000000000000063', '\\x01', 0, 'z');",
        )
        .unwrap();
    store.tidy().unwrap();
    let (found, _) = logs.find(old, None, None, 9).unwrap();
    assert_eq!(logs.read(old, &found[0], 0, 9).unwrap(), (0, b"z".to_vec()));
    assert_eq!(days(), "3");
    logs.remove(old).unwrap();
    assert_eq!(logs.find(old, None, None, 9).unwrap().1, 0);
    store.tidy().unwrap();
    assert_eq!(days(), "2");
    assert_eq!(all(&logs, "a"), "x\n");
}

#[test]
fn many_nodes_append_to_the_same_logs_at_once() {
    let Some((schema, _store, _)) = open() else {
        return;
    };
    std::thread::scope(|scope| {
        for node in 0..3 {
            let schema = &schema;
            scope.spawn(move || {
                let logs = PostgresLogs::open(schema.url()).unwrap();
                for number in 0..20_u64 {
                    let mut all: Vec<LogLines> = (0..5)
                        .map(|log| lines(&format!("s{log}"), number * 2, "x\n"))
                        .collect();
                    all.rotate_left(node);
                    logs.append(&all).unwrap();
                }
            });
        }
    });
    let logs = PostgresLogs::open(schema.url()).unwrap();
    for log in 0..5 {
        assert_eq!(all(&logs, &format!("s{log}")), "x\n".repeat(20));
    }
}
