//! Brings a schema to what this program knows.

use super::failure::Failure;
use super::session::Session;
use crate::steps::{self, Step};
use crate::{Error, Result};

/// Every step there ever was, in order. The first one makes what the first six of the other dialect make.
pub(super) const STEPS: &[Step] = &[(8, include_str!("migrations/0008_init.sql"))];

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS migrations (number int PRIMARY KEY, hash text NOT NULL)";

/// Applies what is missing, all in one transaction. Of several nodes that start at once one does it, and
/// the others wait.
pub(super) fn migrate(session: &mut Session, schema: &str) -> std::result::Result<(), Failure> {
    if missing(session, schema)?.is_empty() {
        return Ok(());
    }
    session.run("SET lock_timeout = '60s'; SET statement_timeout = '10min'; BEGIN")?;
    session.query(
        "SELECT pg_advisory_xact_lock(hashtext($1 || '.migrations'))",
        &[&schema],
    )?;
    let there = session.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema])?;
    if there.is_empty() {
        session.run(&format!("CREATE SCHEMA \"{schema}\""))?;
    }
    session.run(TABLE)?;
    for (number, sql) in missing(session, schema)? {
        session.run(sql)?;
        let applied = i32::try_from(number).unwrap_or(i32::MAX);
        session.query(
            "INSERT INTO migrations (number, hash) VALUES ($1, $2)",
            &[&applied, &steps::hash(sql)],
        )?;
        tracing::debug!(number, "migrated the database");
    }
    session.run("COMMIT")
}

/// Looks without writing: the number of the last step that was applied, 0 for an empty schema.
pub(super) fn applied(session: &mut Session, schema: &str) -> std::result::Result<u32, Failure> {
    Ok(steps::applied(&recorded(session, schema)?, STEPS)?)
}

/// The newest step.
pub(super) fn newest() -> u32 {
    STEPS.last().map_or(0, |(number, _)| *number)
}

fn missing(session: &mut Session, schema: &str) -> std::result::Result<Vec<Step>, Failure> {
    let done = applied(session, schema)?;
    let missing = STEPS.iter().filter(|(number, _)| *number > done);
    Ok(missing.copied().collect())
}

fn recorded(
    session: &mut Session,
    schema: &str,
) -> std::result::Result<Vec<(u32, String)>, Failure> {
    let tables = session.query(
        "SELECT c.relname = 'migrations' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
        &[&schema],
    )?;
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    if !tables.iter().any(|row| row.get(0)) {
        return Err(foreign(schema).into());
    }
    let rows = session.query("SELECT number, hash FROM migrations ORDER BY number", &[])?;
    let step = |row: &tokio_postgres::Row| -> Result<(u32, String)> {
        let (number, hash) = (row.try_get(0), row.try_get(1));
        match (number, hash) {
            (Ok(number), Ok(hash)) => Ok((number_of(number), hash)),
            _ => Err(foreign(schema)),
        }
    };
    Ok(rows.iter().map(step).collect::<Result<_>>()?)
}

fn number_of(step: i32) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

fn foreign(schema: &str) -> Error {
    Error::Corrupt(format!("the schema `{schema}` was made by another program"))
}
