//! Brings a database to the schema this program knows, step by step, forward only.

use rusqlite::{Connection, TransactionBehavior};

use super::failure::explain;
use crate::Result;
use crate::steps::{self, Step};

/// Every step there ever was, in order. One that was released never changes: its hash is recorded.
const MIGRATIONS: &[Step] = &[
    (1, include_str!("migrations/0001_init.sql")),
    (2, include_str!("migrations/0002_blob_refs.sql")),
    (3, include_str!("migrations/0003_runs_by_creation.sql")),
    (4, include_str!("migrations/0004_documents.sql")),
    (5, include_str!("migrations/0005_search.sql")),
    (6, include_str!("migrations/0006_authors.sql")),
    (7, include_str!("migrations/0007_backfill.sql")),
    (8, include_str!("migrations/0008_mail.sql")),
];

/// The newest step.
pub(super) const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// "KAPL".
const APPLICATION_ID: u32 = 0x4b41_504c;

/// Applies what is missing, each step in a transaction of its own. A database of somebody else, of
/// a newer version or with other steps is left as it is.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    migrate_with(connection, MIGRATIONS)
}

/// Looks without writing: the number of the last step that was applied, 0 for an empty database.
pub(super) fn applied(connection: &Connection) -> Result<u32> {
    applied_of(connection, MIGRATIONS)
}

fn migrate_with(connection: &mut Connection, migrations: &[(u32, &str)]) -> Result<()> {
    let done = applied_of(connection, migrations)?;
    for (number, sql) in migrations.iter().filter(|(number, _)| *number > done) {
        apply(connection, *number, sql).map_err(|error| explain(&error))?;
        tracing::debug!(number, "migrated the database");
    }
    Ok(())
}

fn apply(connection: &mut Connection, number: u32, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, hash TEXT NOT NULL) STRICT",
    )?;
    transaction.execute_batch(sql)?;
    transaction.execute(
        "INSERT INTO migrations (number, hash) VALUES (?1, ?2)",
        (number, steps::hash(sql)),
    )?;
    transaction.commit()
}

fn applied_of(connection: &Connection, migrations: &[(u32, &str)]) -> Result<u32> {
    let rows = recorded(connection).map_err(|error| explain(&error))?;
    steps::applied(&rows, migrations)
}

fn recorded(connection: &Connection) -> rusqlite::Result<Vec<(u32, String)>> {
    let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, u32>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    if tables == 0 && application == 0 {
        return Ok(Vec::new());
    }
    if application != APPLICATION_ID {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        let text = "the database was made by another program".to_owned();
        return Err(rusqlite::Error::SqliteFailure(code, Some(text)));
    }
    let mut rows = connection.prepare("SELECT number, hash FROM migrations ORDER BY number")?;
    rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection
    }

    #[test]
    fn steps_are_numbered_without_gaps() {
        let numbers: Vec<u32> = MIGRATIONS.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            numbers,
            (1..=u32::try_from(MIGRATIONS.len()).unwrap()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_database_of_any_earlier_step_is_brought_up_with_what_is_in_it() {
        for earlier in 1..MIGRATIONS.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            migrate_with(&mut connection, &MIGRATIONS[..earlier]).unwrap();
            connection
                .execute_batch(
                    "INSERT INTO workflows (id, namespace, name) VALUES (1, 'n', 'w');
                     INSERT INTO runs (id, workflow_id, version, status, created_at, started_at, ended_at,
                         parent, trigger, good, bad, known, error, labels)
                     VALUES (x'01', 1, 1, 3, 7, 7, 7, NULL, 'manual', 0, 0, 0, NULL, '{\"team\":\"a\"}')",
                )
                .unwrap();
            migrate(&mut connection).unwrap();
            assert_eq!(applied(&connection).unwrap(), NEWEST);
            let found: u32 = connection
                .query_row(
                    "SELECT count(*) FROM runs INDEXED BY runs_by_creation WHERE created_at = 7",
                    (),
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(found, 1);
            let labels: String = connection
                .query_row(
                    "SELECT key || value || created_at FROM run_labels",
                    (),
                    |row| row.get(0),
                )
                .unwrap_or_default();
            // A database that is already searched by labels holds them from its own commits.
            assert!(labels == "teama7" || earlier >= 5, "{labels}");
        }
    }

    #[test]
    fn a_migrated_database_is_left_alone() {
        let mut connection = database();
        migrate(&mut connection).unwrap();
        assert_eq!(applied(&connection).unwrap(), NEWEST);
    }

    #[test]
    fn only_missing_steps_are_applied() {
        let mut connection = database();
        let more = [MIGRATIONS, &[(NEWEST + 1, "CREATE TABLE more (a INTEGER)")]].concat();
        migrate_with(&mut connection, &more).unwrap();
        connection
            .execute("INSERT INTO more VALUES (1)", ())
            .unwrap();
        assert!(matches!(
            applied(&connection),
            Err(Error::TooNew { found, known: NEWEST }) if found == NEWEST + 1
        ));
    }

    #[test]
    fn a_step_that_fails_leaves_no_trace() {
        let mut connection = database();
        let bad = [
            MIGRATIONS,
            &[(NEWEST + 1, "CREATE TABLE more (a INTEGER); SELECT nonsense")],
        ]
        .concat();
        migrate_with(&mut connection, &bad).unwrap_err();
        assert_eq!(applied(&connection).unwrap(), NEWEST);
        connection
            .execute("INSERT INTO more VALUES (1)", ())
            .unwrap_err();
    }

    #[test]
    fn a_changed_step_is_noticed() {
        let connection = database();
        let mut changed = MIGRATIONS.to_vec();
        changed[0].1 = "CREATE TABLE other (a INTEGER)";
        assert!(matches!(
            applied_of(&connection, &changed),
            Err(Error::Corrupt(_))
        ));
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE songs (title TEXT)")
            .unwrap();
        assert!(matches!(migrate(&mut connection), Err(Error::Corrupt(_))));
    }
}
