//! Moves the embedded store of a data directory to PostgreSQL: all of it, compared before it counts.
//!
//! Tables are copied in one transaction, read back in it, and compared by the sum of the hashes of their
//! rows. Only if every one is the same the transaction is committed, and then the old database gets another
//! name, so that nobody goes on with it by mistake.

use std::fs;
use std::path::Path;

use kapell_model::limits;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::failure::Failure;
use super::keys::{self, Key};
use super::session::Session;
use super::{lock, read};
use crate::sqlite::LookError;
use crate::{
    Error, FileBlobs, PostgresBlobs, PostgresStore, PostgresUrl, Result, SqliteStore, refs,
};

/// What the database is called that was moved.
pub const MOVED_DATABASE: &str = "kapell.db.moved";

/// What the folder of its blobs is called then.
pub const MOVED_BLOBS: &str = "blobs.moved";

/// Rows, and bytes in them, that are written at once.
const ROWS: usize = 1_000;
const BYTES: usize = 4 << 20;

/// What was moved of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedTable {
    /// Its name.
    pub name: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// A table of both stores. The first columns are in both, with the same names.
struct Table {
    name: &'static str,
    /// What is read of the old one.
    from: &'static str,
    /// Columns of the new one with their types: `b`ytes, `n`umbers, and `t`ruths.
    columns: &'static [(&'static str, char)],
    /// What becomes of a row as it was read.
    change: fn(Vec<Value>) -> Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    None,
    Number(i64),
    Bytes(Vec<u8>),
}

const TABLES: &[Table] = &[
    Table {
        name: "shards",
        from: "SELECT id, epoch, seq FROM shards",
        columns: &[("id", 'n'), ("epoch", 'n'), ("seq", 'n')],
        change: |row| row,
    },
    Table {
        name: "history",
        from: "SELECT entity, seq, chunk, 0 FROM history",
        columns: &[("entity", 'b'), ("seq", 'n'), ("chunk", 'b'), ("period", 'n')],
        change: by_key,
    },
    Table {
        name: "snapshots",
        from: "SELECT entity, seq, state FROM snapshots",
        columns: &[("entity", 'b'), ("seq", 'n'), ("state", 'b')],
        change: by_key,
    },
    Table {
        name: "pages",
        from: "SELECT entity, number, content FROM pages",
        columns: &[("entity", 'b'), ("number", 'n'), ("content", 'b')],
        change: by_key,
    },
    Table {
        name: "wakes",
        from: "SELECT entity, wake_at FROM wakes",
        columns: &[("entity", 'b'), ("wake_at", 'n'), ("whole", 'b')],
        change: by_whole_key,
    },
    Table {
        name: "workflows",
        from: "SELECT id, namespace, name, active, newest, deployed FROM workflows",
        columns: &[
            ("id", 'n'),
            ("namespace", 'b'),
            ("name", 'b'),
            ("active", 'n'),
            ("newest", 'n'),
            ("deployed", 't'),
        ],
        change: |row| row,
    },
    Table {
        name: "versions",
        from: "SELECT workflow_id, version, hash, spec, source, bundle, created_at, author FROM versions",
        columns: &[
            ("workflow", 'n'),
            ("version", 'n'),
            ("hash", 'b'),
            ("spec", 'b'),
            ("source", 'b'),
            ("bundle", 'b'),
            ("created_at", 'n'),
            ("author", 'b'),
        ],
        change: |row| row,
    },
    Table {
        name: "runs",
        from: "SELECT id, status >= 5, workflow_id, status, version, created_at, started_at, ended_at, good, bad,
                   known, scheduled_at, parent, trigger, trigger_name, backfill, error, labels
                   FROM runs",
        columns: &[
            ("id", 'b'),
            ("ended", 't'),
            ("workflow", 'n'),
            ("status", 'n'),
            ("version", 'n'),
            ("created_at", 'n'),
            ("started_at", 'n'),
            ("ended_at", 'n'),
            ("good", 'n'),
            ("bad", 'n'),
            ("known", 'n'),
            ("scheduled_at", 'n'),
            ("parent", 'b'),
            ("trigger", 'b'),
            ("trigger_name", 'b'),
            ("backfill", 'b'),
            ("error", 'b'),
            ("labels", 'b'),
        ],
        change: |row| row,
    },
    Table {
        name: "run_labels",
        from: "SELECT key, value, created_at, id FROM run_labels",
        columns: &[("key", 'b'), ("value", 'b'), ("created_at", 'n'), ("id", 'b')],
        change: by_label,
    },
    Table {
        name: "run_counts",
        from: "SELECT workflow_id, status, 0, runs FROM run_counts",
        columns: &[("workflow", 'n'), ("status", 'n'), ("slot", 'n'), ("runs", 'n')],
        change: |row| row,
    },
    Table {
        name: "documents",
        from: "SELECT key, body FROM documents",
        columns: &[("key", 'b'), ("body", 'b'), ("whole", 'b')],
        change: by_whole_key,
    },
    Table {
        name: "mail",
        from: "SELECT to_shard, from_shard, number, entity, message FROM mail",
        columns: &[
            ("to_shard", 'n'),
            ("from_shard", 'n'),
            ("number", 'n'),
            ("entity", 'b'),
            ("message", 'b'),
        ],
        change: |row| row,
    },
    Table {
        name: "blob_refs",
        from: "SELECT entity, hash, 0 FROM blob_refs",
        columns: &[("entity", 'b'), ("hash", 'b'), ("seq", 'n')],
        change: by_key,
    },
];

/// Moves the store of a data directory to a schema in which nothing is yet. `moving` is told of each table
/// before it is copied.
///
/// # Errors
/// [`Error::Held`] if the data directory is in use; [`Error::Invalid`] if there is something in the schema;
/// [`Error::Corrupt`] if what was copied is not what was there; and those of opening either store. Then
/// everything is as it was, but for a schema with nothing in it but blobs, which may be moved to again.
pub fn move_store(
    directory: &Path,
    to: &PostgresUrl,
    mut moving: impl FnMut(&'static str),
) -> Result<Vec<MovedTable>> {
    let database = directory.join("kapell.db");
    if !database.is_file() {
        let message = format!("there is no database in `{}`", directory.display());
        return Err(Error::Unusable(message));
    }
    let old = SqliteStore::open(directory)?;
    drop(PostgresStore::open(to)?);
    let mut session = lock(to, "pg_advisory_lock")?;
    check_unused(&mut session).map_err(|failure| failure.error)?;
    moving("blobs");
    let files = FileBlobs::open(directory).map_err(unreadable)?;
    let rows = copy_blobs(&files, &PostgresBlobs::open(to)?)?;
    let mut moved = vec![MovedTable {
        name: "blobs",
        rows,
    }];
    moved.extend(old.look(|connection| copy_all(connection, &mut session, &mut moving))?);
    // Its log is brought into it as it is closed.
    drop(old);
    for (from, to) in [("kapell.db", MOVED_DATABASE), ("blobs", MOVED_BLOBS)] {
        let from = directory.join(from);
        fs::rename(&from, directory.join(to)).map_err(|error| {
            Error::Unusable(format!(
                "all was moved, but what was there could not be renamed ({error}): remove `{}`",
                from.display()
            ))
        })?;
    }
    Ok(moved)
}

/// Copies all blobs, each read back and compared; how many there are. They come before what refers to them,
/// and if that does not come they are found again the next time.
fn copy_blobs(from: &FileBlobs, to: &PostgresBlobs) -> Result<u64> {
    let blobs = from.all().map_err(unreadable)?;
    let most = limits::OUTPUT_BYTES;
    let too_large = blobs.iter().filter(|blob| blob.size > most);
    let mut too_large = too_large.map(|blob| blob.size);
    if let Some(first) = too_large.next() {
        let message = format!(
            "{} contents are larger than the {most} bytes that a store in PostgreSQL takes, the first has {first}: \
             delete the runs that made them, and try again a day later, when they are gone",
            1 + too_large.count()
        );
        return Err(Error::Unusable(message));
    }
    for blob in &blobs {
        let path = from.file(blob).map_err(unreadable)?;
        let put = to.put_moved(&path, blob).and_then(|()| to.verify(blob));
        put.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::Corrupt(error.to_string()),
            _ => unreadable(error),
        })?;
    }
    for (holder, held) in from.holds().map_err(unreadable)? {
        to.hold(&holder, &held).map_err(unreadable)?;
    }
    Ok(u64::try_from(blobs.len()).unwrap_or(u64::MAX))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Unavailable(format!("blobs: {error}"))
}

/// Refuses a schema in which there is something.
fn check_unused(new: &mut Session) -> std::result::Result<(), Failure> {
    let used =
        "SELECT EXISTS (SELECT 1 FROM shards WHERE epoch > 0) OR EXISTS (SELECT 1 FROM workflows)
        OR EXISTS (SELECT 1 FROM documents)";
    let used = new.query(used, &[])?;
    if used.first().is_none_or(|row| row.get(0)) {
        let message = "there is something in the schema already: name one that is new".to_owned();
        return Err(Error::Invalid(message).into());
    }
    Ok(())
}

impl From<Failure> for LookError {
    fn from(failure: Failure) -> Self {
        failure.error.into()
    }
}

type Copied<T> = std::result::Result<T, LookError>;

fn copy_all(
    old: &Connection,
    new: &mut Session,
    moving: &mut impl FnMut(&'static str),
) -> Copied<Vec<MovedTable>> {
    new.run("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; BEGIN")?;
    // All history comes to the place of what has no day, also that of a clock that was ahead.
    new.run("UPDATE periods SET period = period + 1; DELETE FROM shards")?;
    let mut moved = Vec::new();
    for table in TABLES {
        moving(table.name);
        let copied = copy(old, new, table)?;
        let found = look_at(new, table)?;
        if found != copied {
            let message = format!(
                "the table `{}` is not as it was: nothing was moved",
                table.name
            );
            return Err(Error::Corrupt(message).into());
        }
        moved.push(MovedTable {
            name: table.name,
            rows: copied.rows,
        });
    }
    new.run(
        "INSERT INTO shards (id, epoch, seq) SELECT id, 0, 0 FROM generate_series(0, 4095) id ON CONFLICT DO NOTHING;
         SELECT setval(pg_get_serial_sequence('workflows', 'id'), 1 + (SELECT coalesce(max(id), 0) FROM workflows));
         COMMIT",
    )?;
    Ok(moved)
}

/// How many rows there are, and the sum of their hashes, whatever their order.
#[derive(Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hashes: [u64; 4],
}

impl Sum {
    fn add(&mut self, row: &[Value]) {
        let mut hasher = blake3::Hasher::new();
        for value in row {
            match value {
                Value::None => hasher.update(b"-"),
                Value::Number(number) => hasher.update(b"n").update(&number.to_be_bytes()),
                Value::Bytes(bytes) => {
                    let length = u64::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
                    hasher.update(b"b").update(&length).update(bytes)
                }
            };
        }
        self.rows += 1;
        let hash = hasher.finalize();
        for (sum, part) in self.hashes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let part = part
                .iter()
                .fold(0, |part, byte| part << 8 | u64::from(*byte));
            *sum = sum.wrapping_add(part);
        }
    }
}

fn copy(old: &Connection, new: &mut Session, table: &Table) -> Copied<Sum> {
    let (mut sum, mut batch, mut bytes) = (Sum::default(), Vec::new(), 0);
    let mut rows = old.prepare(table.from)?;
    let columns = rows.column_count();
    let mut rows = rows.query(())?;
    while let Some(found) = rows.next()? {
        let mut row = Vec::with_capacity(table.columns.len());
        for column in 0..columns {
            row.push(match found.get_ref(column)? {
                ValueRef::Integer(number) => Value::Number(number),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
                ValueRef::Null | ValueRef::Real(_) => Value::None,
            });
        }
        let row = (table.change)(row);
        sum.add(&row);
        bytes += row.iter().map(Value::length).sum::<usize>();
        batch.push(row);
        if batch.len() >= ROWS || bytes >= BYTES {
            insert(new, table, &batch)?;
            batch.clear();
            bytes = 0;
        }
    }
    insert(new, table, &batch)?;
    Ok(sum)
}

impl Value {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::None | Self::Number(_) => 0,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::None | Self::Bytes(_) => None,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::None | Self::Number(_) => None,
        }
    }
}

fn insert(
    new: &mut Session,
    table: &Table,
    rows: &[Vec<Value>],
) -> std::result::Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = || table.columns.iter().enumerate();
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<String> = columns()
        .map(|(place, (_, kind))| match kind {
            't' => format!("n.c{place} <> 0"),
            _ => format!("n.c{place}"),
        })
        .collect();
    let arrays: Vec<String> = columns()
        .map(|(place, (_, kind))| {
            let kind = if *kind == 'b' { "bytea" } else { "bigint" };
            format!("${}::{kind}[]", place + 1)
        })
        .collect();
    let given: Vec<String> = columns().map(|(place, _)| format!("c{place}")).collect();
    let sql = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({}) AS n ({})",
        table.name,
        names.join(", "),
        values.join(", "),
        arrays.join(", "),
        given.join(", ")
    );
    let arrays: Vec<Box<dyn ToSql + Sync + '_>> = columns()
        .map(|(place, (_, kind))| -> Box<dyn ToSql + Sync + '_> {
            let column = rows
                .iter()
                .map(move |row| row.get(place).unwrap_or(&Value::None));
            if *kind == 'b' {
                Box::new(column.map(Value::bytes).collect::<Vec<_>>())
            } else {
                Box::new(column.map(Value::number).collect::<Vec<_>>())
            }
        })
        .collect();
    let arrays: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| &**array as _).collect();
    new.query(&sql, &arrays)?;
    if table.name == "pages" {
        insert_page_refs(new, rows)?;
    }
    Ok(())
}

/// What stands in pages, which the old store looks for when it is asked.
fn insert_page_refs(new: &mut Session, pages: &[Vec<Value>]) -> std::result::Result<(), Failure> {
    let (mut entities, mut hashes) = (Vec::new(), Vec::new());
    for page in pages {
        let (Some(entity), Some(content)) = (page[0].bytes(), page[2].bytes()) else {
            continue;
        };
        for hash in refs::hashes_in(content) {
            entities.push(entity);
            hashes.push(hash);
        }
    }
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    let sql = "INSERT INTO page_refs SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING";
    new.query(sql, &[&entities, &hashes]).map(drop)
}

/// Reads a table back.
fn look_at(new: &mut Session, table: &Table) -> std::result::Result<Sum, Failure> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| match kind {
            'b' => (*name).to_owned(),
            'n' => format!("{name}::bigint"),
            _ => format!("{name}::int::bigint"),
        })
        .collect();
    new.run(&format!(
        "DECLARE {0}_copied NO SCROLL CURSOR FOR SELECT {1} FROM {0}",
        table.name,
        columns.join(", ")
    ))?;
    // One that is prepared gives the same columns for ever.
    let fetch = format!("FETCH 200 FROM {}_copied", table.name);
    let mut sum = Sum::default();
    loop {
        let rows = new.query(&fetch, &[])?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            sum.add(&row_of(row, table)?);
        }
    }
    new.run(&format!("CLOSE {}_copied", table.name))?;
    Ok(sum)
}

fn row_of(row: &Row, table: &Table) -> std::result::Result<Vec<Value>, Failure> {
    let columns = table.columns.iter().enumerate();
    let values = columns.map(|(place, (_, kind))| {
        Ok(if *kind == 'b' {
            let bytes: Option<Vec<u8>> = read::get(row, place)?;
            bytes.map_or(Value::None, Value::Bytes)
        } else {
            let number: Option<i64> = read::get(row, place)?;
            number.map_or(Value::None, Value::Number)
        })
    });
    values.collect()
}

/// The first value is a key.
fn by_key(mut row: Vec<Value>) -> Vec<Value> {
    if let Some(Value::Bytes(key)) = row.first_mut() {
        *key = Key::new(std::mem::take(key)).indexed;
    }
    row
}

/// The first value is a key, which is kept whole behind the others if it is too long for an index.
fn by_whole_key(mut row: Vec<Value>) -> Vec<Value> {
    let mut whole = Value::None;
    if let Some(Value::Bytes(bytes)) = row.first_mut() {
        let key = Key::new(std::mem::take(bytes));
        *bytes = key.indexed;
        whole = key.whole.map_or(Value::None, Value::Bytes);
    }
    row.push(whole);
    row
}

/// The first value is the name of a label.
fn by_label(mut row: Vec<Value>) -> Vec<Value> {
    if let Some(Value::Bytes(name)) = row.first_mut() {
        let text = String::from_utf8_lossy(name).into_owned();
        *name = keys::label(&text);
    }
    row
}
