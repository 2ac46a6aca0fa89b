//! Lists of runs. One index finds candidates in order; the filter itself says which of them are meant.
//!
//! What drives a list is chosen as in the embedded store: a workflow or status whose runs are few, as their
//! counts tell, before a parent, a backfill, a label, a trigger, an error; else the workflows and statuses, else all
//! runs by their creation. Where most candidates are not meant, a search stops after [`EXAMINED`] of them
//! and says where it goes on.

use kapell_model::{RunId, RunStatus, Time};
use tokio_postgres::types::ToSql;

use super::failure::Failure;
use super::keys;
use super::read::{Outcome, ROW, bound, get, of_workflows, run_row};
use super::session::Session;
use crate::filter::indexed;
use crate::{RunFilter, RunPlace, RunRow, RunsFound, time_in};

/// Candidates that one search looks at.
const EXAMINED: usize = 10_000;

/// Candidates that are read at once.
const BATCH: usize = 1_000;

/// Ranges that are merged; where there are more, all runs are looked at.
const RANGES: usize = 1_000;

/// The part of a list that is wanted: of the values of each statement the first four.
const PART: &str =
    "created_at >= $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4";

/// Which index finds the candidates.
#[derive(Clone, Copy)]
pub(super) enum Drive {
    Newest,
    Ranges,
    Children,
    Backfill,
    Label,
    Trigger,
    Error,
}

impl Drive {
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] = [
        Self::Newest,
        Self::Ranges,
        Self::Children,
        Self::Backfill,
        Self::Label,
        Self::Trigger,
        Self::Error,
    ];

    /// The statement, whose values are those of the part and two of the drive's own.
    pub(super) fn sql(self) -> String {
        let from = match self {
            Self::Newest => format!("(SELECT * FROM runs WHERE {PART})"),
            Self::Error => format!("(SELECT * FROM runs WHERE error IS NOT NULL AND {PART})"),
            Self::Ranges => format!(
                "(SELECT f.* FROM unnest($5::int[], $6::int[]) AS n (workflow, status) CROSS JOIN LATERAL
                    (SELECT * FROM runs WHERE workflow = n.workflow AND status = n.status AND {PART}) f)"
            ),
            Self::Children => format!(
                "(SELECT f.* FROM unnest($6::int[]) AS n (status) CROSS JOIN LATERAL
                    (SELECT * FROM runs WHERE parent = $5 AND status = n.status AND {PART}) f)"
            ),
            Self::Backfill => format!("(SELECT * FROM runs WHERE backfill = $5 AND {PART})"),
            // A trigger may be named as its kind.
            Self::Trigger => format!(
                "((SELECT * FROM runs WHERE trigger = $5 AND {PART}) UNION ALL
                    (SELECT * FROM runs WHERE trigger_name = $5 AND trigger <> $5 AND {PART}))"
            ),
            Self::Label => format!(
                "(SELECT r.* FROM (SELECT id FROM run_labels WHERE key = $5 AND value = $6 AND {PART}) l
                    JOIN runs r ON r.id = l.id)"
            ),
        };
        format!(
            "SELECT {ROW} FROM {from} r JOIN workflows w ON w.id = r.workflow
             ORDER BY r.created_at DESC, r.id DESC LIMIT $4"
        )
    }
}

/// A run's place in a list: when it was made, and its id.
type Place = (Time, RunId);

/// A drive with its own values.
struct Search {
    drive: Drive,
    values: Vec<Box<dyn ToSql + Sync>>,
    since: Time,
    before: Place,
}

pub(super) fn search_runs(
    session: &mut Session,
    filter: &RunFilter,
    limit: usize,
) -> Outcome<RunsFound> {
    if limit == 0 {
        return Ok(RunsFound::default());
    }
    // All statements see one state: a run that moves on meanwhile is neither missed nor listed twice.
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let found = Search::of(session, filter).and_then(|search| search.run(session, filter, limit));
    let ended = session.run("COMMIT");
    let found = found.map_err(|failure| Failure {
        // It may still be in its transaction.
        breaks: failure.breaks || ended.is_err(),
        ..failure
    })?;
    ended?;
    Ok(found)
}

impl Search {
    fn of(session: &mut Session, filter: &RunFilter) -> Outcome<Self> {
        let before = match filter.before {
            // No id is greater, so no run that was ever made is left out.
            None => (Time(i64::MAX), RunId(u128::MAX)),
            Some(RunPlace {
                created_at: Some(at),
                run,
            }) => (at, run),
            Some(RunPlace { run, .. }) => place(session, run)?,
        };
        let until = filter.until.map(|until| (until, RunId(0)));
        let (drive, values) = drive(session, filter)?;
        Ok(Self {
            drive,
            values,
            since: filter.since.unwrap_or(Time(i64::MIN)),
            before: until.map_or(before, |until| until.min(before)),
        })
    }

    fn run(
        mut self,
        session: &mut Session,
        filter: &RunFilter,
        limit: usize,
    ) -> Outcome<RunsFound> {
        let mut found = RunsFound::default();
        let mut batch = limit.min(BATCH);
        let mut examined = 0;
        while examined < EXAMINED {
            let candidates = self.candidates(session, batch)?;
            let whole = candidates.len() < batch;
            examined += candidates.len();
            for row in candidates {
                self.before = (row.created_at, row.id);
                if !filter.matches(&row) {
                    continue;
                }
                let place = RunPlace::of(&row);
                found.rows.push(row);
                if found.rows.len() == limit {
                    found.next = Some(place);
                    return Ok(found);
                }
            }
            if whole {
                return Ok(found);
            }
            batch = (2 * batch).min(BATCH);
        }
        found.next = Some(RunPlace {
            created_at: Some(self.before.0),
            run: self.before.1,
        });
        Ok(found)
    }

    fn candidates(&self, session: &mut Session, batch: usize) -> Outcome<Vec<RunRow>> {
        let (at, id) = (self.before.0.0, self.before.1.to_bytes());
        let (id, limit) = (id.as_slice(), bound(batch));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&self.since.0, &at, &id, &limit];
        params.extend(
            self.values
                .iter()
                .map(|value| &**value as &(dyn ToSql + Sync)),
        );
        let rows = session.query(&self.drive.sql(), &params)?;
        rows.iter().map(run_row).collect()
    }
}

fn place(session: &mut Session, id: RunId) -> Outcome<Place> {
    let sql = "SELECT created_at FROM runs WHERE id = $1";
    let rows = session.query(sql, &[&id.to_bytes().as_slice()])?;
    let made = rows.first().map(|row| get(row, 0).map(Time)).transpose()?;
    Ok((made.unwrap_or_else(|| time_in(id)), id))
}

type Driven = (Drive, Vec<Box<dyn ToSql + Sync>>);

fn drive(session: &mut Session, filter: &RunFilter) -> Outcome<Driven> {
    let mut statuses = if filter.statuses.is_empty() {
        RunStatus::ALL.to_vec()
    } else {
        filter.statuses.clone()
    };
    statuses.sort_unstable();
    statuses.dedup();
    let statuses: Vec<i32> = statuses
        .iter()
        .map(|status| i32::from(status.number()))
        .collect();
    let mut ranges = None;
    if filter.workflow.is_some() || statuses.len() < RunStatus::ALL.len() {
        let (found, runs) = self::ranges(session, filter, &statuses)?;
        if runs <= bound(EXAMINED) {
            return Ok(found);
        }
        ranges = Some(found);
    }
    Ok(if let Some(parent) = filter.parent {
        let parent = parent.to_bytes().to_vec();
        (Drive::Children, vec![Box::new(parent), Box::new(statuses)])
    } else if let Some(backfill) = &filter.backfill {
        (
            Drive::Backfill,
            vec![Box::new(backfill.as_bytes().to_vec())],
        )
    } else if let Some((key, value)) = filter.labels.first() {
        let value = indexed(value).as_bytes().to_vec();
        (
            Drive::Label,
            vec![Box::new(keys::label(key)), Box::new(value)],
        )
    } else if let Some(trigger) = &filter.trigger {
        (Drive::Trigger, vec![Box::new(trigger.as_bytes().to_vec())])
    } else if filter.error.is_some() {
        (Drive::Error, Vec::new())
    } else {
        ranges.unwrap_or((Drive::Newest, Vec::new()))
    })
}

/// Workflows and statuses that have runs, which the counts tell, and how many runs those are.
fn ranges(session: &mut Session, filter: &RunFilter, statuses: &[i32]) -> Outcome<(Driven, i64)> {
    let namespace = filter.namespace.as_ref().map(|name| name.as_bytes());
    let name = filter.workflow.as_ref().map(|name| name.as_bytes());
    let sql = format!(
        "SELECT c.workflow, c.status, sum(c.runs)::bigint FROM workflows w JOIN run_counts c ON c.workflow = w.id
         WHERE {} AND c.status = ANY ($3)
         GROUP BY c.workflow, c.status HAVING sum(c.runs) > 0",
        of_workflows(namespace, name)
    );
    let rows = session.query(&sql, &[&namespace, &name, &statuses])?;
    let (mut workflows, mut of, mut runs) = (Vec::<i32>::new(), Vec::<i32>::new(), 0);
    for row in &rows {
        workflows.push(get(row, 0)?);
        of.push(get(row, 1)?);
        runs += get::<i64>(row, 2)?;
    }
    if rows.len() > RANGES {
        return Ok(((Drive::Newest, Vec::new()), i64::MAX));
    }
    Ok((
        (Drive::Ranges, vec![Box::new(workflows), Box::new(of)]),
        runs,
    ))
}
