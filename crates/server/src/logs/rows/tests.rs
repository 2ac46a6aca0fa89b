//! Lines that are gathered and written, here and at another node.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use kapell_api::http::{LogCursor, LogPage};
use kapell_api::log::{Line, Stream};
use kapell_model::Time;
use kapell_node::upkeep::DropLogs;
use kapell_store::PostgresStore;
use kapell_store::testing::TestSchema;

use super::super::RunLogs;
use super::*;

const RUN: RunId = RunId(5);

fn line(at: i64, text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    Line::encode(Time(at), Stream::Stdout, text.as_bytes(), &mut line);
    line
}

/// The folder of a node and its logs.
type Node = (tempfile::TempDir, RunLogs);

/// Two nodes over one database, each with a folder of its own.
fn nodes() -> Option<(TestSchema, PostgresStore, [Node; 2])> {
    let schema = TestSchema::new()?;
    let store = PostgresStore::open(schema.url()).unwrap();
    let nodes = [0, 1].map(|_| {
        let rows = RowLogs::start(PostgresLogs::open(schema.url()).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let logs = RunLogs::new(folder.path().to_owned(), Some(Arc::new(rows)));
        (folder, logs)
    });
    Some((schema, store, nodes))
}

/// Prints whole logs of attempts as they would come.
#[derive(Default)]
struct Printer(HashMap<(String, u32), u64>);

impl Printer {
    fn print(&mut self, logs: &RunLogs, path: &str, attempt: u32, line: &[u8]) {
        let offset = self.0.entry((path.to_owned(), attempt)).or_default();
        let rows = logs.rows().unwrap();
        rows.append((RUN, path, attempt), *offset, line);
        *offset += line.len() as u64;
    }
}

fn texts(page: &LogPage) -> Vec<String> {
    let lines = page.lines.iter();
    lines
        .map(|line| format!("{}.{} {}", line.path, line.attempt, line.line.text))
        .collect()
}

/// Pages of so many lines until there are no more.
fn all(logs: &RunLogs, cursor: &mut LogCursor, limit: usize) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let query = LogQuery {
            cursor: std::mem::take(cursor),
            limit,
            ..LogQuery::default()
        };
        let page = logs.read(RUN, &query).unwrap();
        all.extend(texts(&page));
        *cursor = page.cursor;
        if !page.more {
            return all;
        }
    }
}

#[test]
fn what_one_node_wrote_is_read_at_another_after_its_death() {
    let Some((_schema, _store, [(_one, here), (_other, there)])) = nodes() else {
        return;
    };
    let mut printer = Printer::default();
    let mut wanted = Vec::new();
    for at in 0..200 {
        let (path, attempt) = if at % 3 == 0 { ("a", 1) } else { ("b[2]", 2) };
        printer.print(&here, path, attempt, &line(at, &at.to_string()));
        wanted.push(format!("{path}.{attempt} {at}"));
    }
    here.rows().unwrap().flush();
    drop(here);
    for limit in [0, 7] {
        assert_eq!(all(&there, &mut LogCursor::new(), limit), wanted);
    }
    let query = LogQuery {
        step: Some("b".into()),
        attempt: Some(2),
        limit: 2,
        ..LogQuery::default()
    };
    let page = there.read(RUN, &query).unwrap();
    assert_eq!(texts(&page), ["b[2].2 1", "b[2].2 2"]);
    there.drop_logs(RUN).unwrap();
    assert!(all(&there, &mut LogCursor::new(), 0).is_empty());
}

#[test]
fn what_is_printed_later_follows_wherever_it_is_read() {
    let Some((_schema, _store, [(_one, here), (folder, there)])) = nodes() else {
        return;
    };
    let (mut printer, mut cursor) = (Printer::default(), LogCursor::new());
    // What was printed before the store was moved is a file.
    let old = kapell_api::log::file(folder.path(), RUN, "a", 1);
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    std::fs::write(&old, line(1, "before")).unwrap();
    assert_eq!(all(&there, &mut cursor, 0), ["a.1 before"]);
    for number in 2..20 {
        printer.print(&here, "a", 2, &line(number, &number.to_string()));
        // Whoever reads where it is printed sees it at once.
        let mut from_start = LogCursor::new();
        assert_eq!(
            all(&here, &mut from_start, 0).last().unwrap(),
            &format!("a.2 {number}")
        );
        assert_eq!(all(&there, &mut cursor, 0), [format!("a.2 {number}")]);
    }
}

#[test]
fn lines_are_written_by_themselves_and_the_rest_at_the_end() {
    let Some((_schema, _store, [(_one, here), (_other, there)])) = nodes() else {
        return;
    };
    let mut printer = Printer::default();
    printer.print(&here, "a", 1, &line(1, "one"));
    let (told, written) = mpsc::channel();
    here.rows().unwrap().then(move || told.send(()).unwrap());
    written.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(all(&there, &mut LogCursor::new(), 0), ["a.1 one"]);
    printer.print(&here, "a", 1, &line(2, "two"));
    here.rows().unwrap().close();
    assert_eq!(
        all(&there, &mut LogCursor::new(), 0),
        ["a.1 one", "a.1 two"]
    );
}

#[test]
fn a_database_that_is_away_loses_what_is_too_much_and_says_so() {
    let shared = Arc::<Shared>::default();
    let (away, tries) = (AtomicBool::new(true), AtomicUsize::new(0));
    let kept = Mutex::new(Vec::<LogLines>::new());
    let name = |path: &str| (RUN, Arc::from(path), 1);
    let add = |path: &str, offset: u64, text: &[u8]| {
        shared.state.lock().append(name(path), offset, text);
        shared.wake.notify_one();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write(&shared, |lines| {
                tries.fetch_add(1, SeqCst);
                if away.load(SeqCst) {
                    return Err(kapell_store::Error::Unavailable("away".into()));
                }
                kept.lock().extend_from_slice(lines);
                Ok(())
            });
        });
        let part = vec![b'x'; limits::LOG_BUFFER_BYTES / 2];
        let half = part.len() as u64;
        add("a", 0, &part);
        while tries.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        add("a", half, &part);
        // There is no more room.
        add("a", 2 * half, b"lost\n");
        add("b", 0, b"lost too\n");
        assert_eq!(shared.state.lock().bytes, limits::LOG_BUFFER_BYTES);
        away.store(false, SeqCst);
        shared.state.lock().stopping = true;
        shared.wake.notify_one();
    });
    let kept = kept.into_inner();
    let of = |path: &str| {
        let lines = kept.iter().filter(|lines| &*lines.path == path);
        lines
            .map(|lines| (lines.offset, lines.text.len()))
            .collect::<Vec<_>>()
    };
    let whole = limits::LOG_BUFFER_BYTES as u64;
    // In one piece or two, then word of what is missing behind it.
    let (last, pieces) = of("a")
        .split_last()
        .map(|(last, rest)| (*last, rest.to_vec()))
        .unwrap();
    assert_eq!(last, (whole + 5, 0));
    let mut end = 0;
    for (offset, length) in pieces {
        assert_eq!(offset, end);
        end += length as u64;
    }
    assert_eq!(end, whole);
    assert_eq!(of("b"), [(9, 0)]);
    assert_eq!(shared.state.lock().bytes, 0);
}
