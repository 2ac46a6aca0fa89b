//! Lists of runs. One index finds candidates in order; the filter itself says which of them are meant.
//!
//! What drives a list is chosen by what the filter names: a workflow or status whose runs are few, as
//! their counts tell, before a parent, a backfill, a label, a trigger, an error; else the workflows and statuses,
//! else all runs by their creation. Where most candidates are not meant, a search stops after
//! [`EXAMINED`] of them and says where it goes on.

use std::cmp::Reverse;

use kapell_model::{RunId, RunStatus, Time};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::merge::merge;
use super::read::{bound, run, run_id};
use crate::filter::indexed;
use crate::{RunFilter, RunPlace, RunsFound, time_in};

type Outcome<T> = rusqlite::Result<T>;

/// Candidates that one search looks at.
const EXAMINED: usize = 10_000;

/// Candidates that are read at once.
const BATCH: usize = 1_000;

pub(super) const NEWEST: &str = "SELECT created_at, id FROM runs INDEXED BY runs_by_creation
         WHERE created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const BY_STATUS: &str = "SELECT created_at, id FROM runs INDEXED BY runs_by_status
         WHERE workflow_id = ?5 AND status = ?6 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const CHILDREN: &str = "SELECT created_at, id FROM runs INDEXED BY runs_by_parent
         WHERE parent = ?5 AND status = ?6 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const BY_LABEL: &str = "SELECT created_at, id FROM run_labels
         WHERE key = ?5 AND value = ?6 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const BY_TRIGGER: &str = "SELECT created_at, id FROM runs INDEXED BY runs_by_trigger
         WHERE trigger = ?5 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const BY_TRIGGER_NAME: &str =
    "SELECT created_at, id FROM runs INDEXED BY runs_by_trigger_name
         WHERE trigger_name = ?5 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const BY_BACKFILL: &str = "SELECT created_at, id FROM runs INDEXED BY runs_by_backfill
         WHERE backfill = ?5 AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

pub(super) const WITH_ERROR: &str = "SELECT created_at, id FROM runs INDEXED BY runs_with_error
         WHERE error IS NOT NULL AND created_at >= ?1 AND (created_at, id) < (?2, ?3)
         ORDER BY created_at DESC, id DESC LIMIT ?4";

/// A run's place in a list: when it was made, and its id.
type Place = (Time, RunId);

/// Which part of a list is wanted.
#[derive(Clone, Copy)]
struct Part {
    /// Made at or after.
    since: Time,
    /// Before this place, in the order of time.
    before: Place,
}

impl Part {
    fn of(connection: &Connection, filter: &RunFilter) -> Outcome<Self> {
        let before = match filter.before {
            // No id is greater, so no run that was ever made is left out.
            None => (Time(i64::MAX), RunId(u128::MAX)),
            Some(RunPlace {
                created_at: Some(at),
                run,
            }) => (at, run),
            Some(RunPlace { run, .. }) => place(connection, run)?,
        };
        let until = filter.until.map(|until| (until, RunId(0)));
        Ok(Self {
            since: filter.since.unwrap_or(Time(i64::MIN)),
            before: until.map_or(before, |until| until.min(before)),
        })
    }

    /// What is left after the last one that was found.
    fn after(self, last: Option<Reverse<Place>>) -> Self {
        Self {
            before: last.map_or(self.before, |Reverse(last)| last),
            ..self
        }
    }
}

/// Which index finds the candidates.
enum Drive<'f> {
    Newest,
    Ranges(Vec<(i64, u8)>),
    Children(RunId, Vec<RunStatus>),
    Label(&'f str, &'f str),
    Trigger(&'f str),
    Backfill(&'f str),
    Error,
}

pub(super) fn search_runs(
    connection: &Connection,
    filter: &RunFilter,
    limit: usize,
) -> Outcome<RunsFound> {
    let mut found = RunsFound::default();
    if limit == 0 {
        return Ok(found);
    }
    let mut part = Part::of(connection, filter)?;
    let drive = Drive::of(connection, filter)?;
    let mut batch = limit.min(BATCH);
    let mut examined = 0;
    while examined < EXAMINED {
        let (places, whole) = drive.places(connection, part, batch)?;
        examined += places.len();
        for place in places {
            part.before = place;
            let row = run(connection, place.1)?;
            found.rows.extend(row.filter(|row| filter.matches(row)));
            if found.rows.len() == limit {
                found.next = Some(next(place));
                return Ok(found);
            }
        }
        if whole {
            return Ok(found);
        }
        batch = (2 * batch).min(BATCH);
    }
    found.next = Some(next(part.before));
    Ok(found)
}

fn next((created_at, run): Place) -> RunPlace {
    RunPlace {
        created_at: Some(created_at),
        run,
    }
}

fn place(connection: &Connection, id: RunId) -> Outcome<Place> {
    let made = connection
        .prepare_cached("SELECT created_at FROM runs WHERE id = ?1")?
        .query_row([id.to_bytes()], |row| row.get(0).map(Time))
        .optional()?;
    Ok((made.unwrap_or_else(|| time_in(id)), id))
}

impl<'f> Drive<'f> {
    fn of(connection: &Connection, filter: &'f RunFilter) -> Outcome<Self> {
        let mut statuses = if filter.statuses.is_empty() {
            RunStatus::ALL.to_vec()
        } else {
            filter.statuses.clone()
        };
        statuses.sort_unstable();
        statuses.dedup();
        let all = statuses.len() == RunStatus::ALL.len();
        let ranges = if filter.workflow.is_some() || !all {
            let (ranges, runs) = ranges(connection, filter, &statuses)?;
            if runs <= EXAMINED as u64 {
                return Ok(Self::Ranges(ranges));
            }
            Some(ranges)
        } else {
            None
        };
        Ok(if let Some(parent) = filter.parent {
            Self::Children(parent, statuses)
        } else if let Some(backfill) = &filter.backfill {
            Self::Backfill(backfill)
        } else if let Some((key, value)) = filter.labels.first() {
            Self::Label(key, value)
        } else if let Some(trigger) = &filter.trigger {
            Self::Trigger(trigger)
        } else if filter.error.is_some() {
            Self::Error
        } else {
            ranges.map_or(Self::Newest, Self::Ranges)
        })
    }

    /// The next candidates, and whether they are all that is left.
    fn places(
        &self,
        connection: &Connection,
        part: Part,
        batch: usize,
    ) -> Outcome<(Vec<Place>, bool)> {
        let fetch = |sql: &str, part: Part, limit: usize, of: (Key<'_>, Key<'_>)| {
            let (at, id) = part.before;
            let (since, at, id, limit) = (part.since.0, at.0, id.to_bytes(), bound(limit));
            match of {
                (Key::None, _) => places(connection, sql, (since, at, id, limit)),
                (one, Key::None) => places(connection, sql, params![since, at, id, limit, one]),
                (one, other) => places(connection, sql, params![since, at, id, limit, one, other]),
            }
        };
        let none = (Key::None, Key::None);
        let found = match self {
            Self::Newest => fetch(NEWEST, part, batch, none)?,
            Self::Error => fetch(WITH_ERROR, part, batch, none)?,
            Self::Backfill(backfill) => {
                fetch(BY_BACKFILL, part, batch, (Key::Text(backfill), Key::None))?
            }
            Self::Label(key, value) => {
                let key = (Key::Text(key), Key::Text(indexed(value)));
                fetch(BY_LABEL, part, batch, key)?
            }
            Self::Ranges(ranges) => merge(ranges, batch, |(workflow, status), last, limit| {
                let key = (Key::Number(*workflow), Key::Number(i64::from(*status)));
                fetch(BY_STATUS, part.after(last), limit, key)
            })?,
            Self::Children(parent, statuses) => merge(statuses, batch, |status, last, limit| {
                let key = (Key::Run(*parent), Key::Number(i64::from(status.number())));
                fetch(CHILDREN, part.after(last), limit, key)
            })?,
            Self::Trigger(trigger) => {
                let indexes = [BY_TRIGGER, BY_TRIGGER_NAME];
                merge(&indexes, batch, |sql, last, limit| {
                    let key = (Key::Text(trigger), Key::None);
                    fetch(sql, part.after(last), limit, key)
                })?
            }
        };
        let whole = found.len() < batch;
        let mut places: Vec<Place> = found.into_iter().map(|Reverse(place)| place).collect();
        // A trigger may be named as its kind.
        places.dedup();
        Ok((places, whole))
    }
}

/// A part of an index's key.
enum Key<'k> {
    None,
    Number(i64),
    Text(&'k str),
    Run(RunId),
}

impl rusqlite::ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::None => Ok(rusqlite::types::Null.into()),
            Self::Number(number) => Ok((*number).into()),
            Self::Text(text) => Ok((*text).into()),
            Self::Run(run) => Ok(run.to_bytes().to_vec().into()),
        }
    }
}

fn places(connection: &Connection, sql: &str, key: impl Params) -> Outcome<Vec<Reverse<Place>>> {
    let place = |row: &Row<'_>| Ok(Reverse((Time(row.get(0)?), run_id(row, 1)?)));
    connection
        .prepare_cached(sql)?
        .query_map(key, place)?
        .collect()
}

/// Workflows and statuses that have runs, which the counts tell, and how many runs those are.
fn ranges(
    connection: &Connection,
    filter: &RunFilter,
    statuses: &[RunStatus],
) -> Outcome<(Vec<(i64, u8)>, u64)> {
    let sql = match (&filter.namespace, &filter.workflow) {
        (Some(_), Some(_)) => {
            "SELECT workflow_id, status, runs FROM run_counts WHERE runs > 0 AND workflow_id =
                 (SELECT id FROM workflows WHERE namespace = ?1 AND name = ?2)"
        }
        _ => {
            "SELECT c.workflow_id, c.status, c.runs FROM run_counts c JOIN workflows w ON w.id = c.workflow_id
             WHERE c.runs > 0 AND (?1 IS NULL OR w.namespace = ?1) AND (?2 IS NULL OR w.name = ?2)"
        }
    };
    let mut counts = connection.prepare_cached(sql)?;
    let counts = counts.query_map((&filter.namespace, &filter.workflow), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, u64>(2)?))
    })?;
    let (mut ranges, mut runs) = (Vec::new(), 0);
    for count in counts {
        let (workflow, number, count): (i64, u8, u64) = count?;
        if statuses.iter().any(|status| status.number() == number) {
            ranges.push((workflow, number));
            runs += count;
        }
    }
    Ok((ranges, runs))
}
