//! Pages over files that are written here.

use std::fs::{self, File};
use std::io::Write;

use kapell_api::log::{self, Stream};
use kapell_model::{Shard, Time};
use tempfile::TempDir;

use super::*;

struct Logs {
    folder: TempDir,
    run: RunId,
}

impl Logs {
    fn new() -> Self {
        let logs = Self {
            folder: TempDir::new().unwrap(),
            run: RunId::new(Time(1), Shard(1), 7),
        };
        fs::create_dir(logs.folder.path().join(logs.run.to_string())).unwrap();
        logs
    }

    fn file(&self, path: &str) -> PathBuf {
        log::file(self.folder.path(), self.run, path, 1)
    }

    fn print(&self, path: &str, at: i64, text: &str) {
        let mut line = Vec::new();
        Line::encode(Time(at), Stream::Stdout, text.as_bytes(), &mut line);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.file(path))
            .unwrap();
        file.write_all(&line).unwrap();
    }

    fn page(&self, step: Option<&str>, cursor: LogCursor, limit: usize) -> LogPage {
        let query = LogQuery {
            step: step.map(str::to_owned),
            attempt: None,
            cursor,
            limit,
        };
        let logs = RunLogs::new(self.folder.path().to_owned(), None);
        logs.read(self.run, &query).unwrap()
    }
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.lines
        .iter()
        .map(|line| line.line.text.as_str())
        .collect()
}

#[test]
fn lines_of_many_steps_come_in_order_of_time_page_by_page() {
    let logs = Logs::new();
    for at in 0..100 {
        logs.print(if at % 3 == 0 { "a" } else { "b" }, at, &at.to_string());
    }
    let mut cursor = LogCursor::new();
    let mut all = Vec::new();
    loop {
        let page = logs.page(None, cursor, 7);
        all.extend(page.lines.iter().map(|line| line.line.at.0));
        cursor = page.cursor;
        if !page.more {
            break;
        }
    }
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_step_has_the_logs_of_its_items_and_of_what_is_inside_it() {
    let logs = Logs::new();
    for path in [
        "load",
        "load[3]",
        "load.inner",
        "load#2.inner",
        "loader",
        "reload",
    ] {
        logs.print(path, 1, path);
    }
    let page = logs.page(Some("load"), LogCursor::new(), 0);
    assert_eq!(
        texts(&page),
        ["load", "load#2.inner", "load.inner", "load[3]"]
    );
}

#[test]
fn what_is_printed_later_follows_even_over_a_rotation() {
    let logs = Logs::new();
    logs.print("a", 1, "one");
    let first = logs.page(None, LogCursor::new(), 0);
    logs.print("a", 2, "two");
    fs::rename(logs.file("a"), log::older(&logs.file("a"))).unwrap();
    logs.print("a", 3, "three");
    assert_eq!(texts(&logs.page(None, first.cursor, 0)), ["two", "three"]);
    assert_eq!(
        texts(&logs.page(None, LogCursor::new(), 0)),
        ["one", "two", "three"]
    );
}

#[test]
fn a_line_that_is_still_being_written_waits_for_its_end() {
    let logs = Logs::new();
    logs.print("a", 1, "whole");
    let mut file = File::options().append(true).open(logs.file("a")).unwrap();
    file.write_all(b"2 o to").unwrap();
    let page = logs.page(None, LogCursor::new(), 0);
    assert_eq!(texts(&page), ["whole"]);
    file.write_all(b"rn\n").unwrap();
    assert_eq!(texts(&logs.page(None, page.cursor, 0)), ["torn"]);
}
