//! What a commit writes, as columns: one array for each, and one statement for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::{EntityKey, RunId, Shard, Time};
use tokio_postgres::types::ToSql;

use super::keys::{self, Key};
use crate::check::drops_entity;
use crate::filter::{indexed, labels};
use crate::refs::{self, Hash};
use crate::{Commit, Document, EntityWrite, Lease, Mail, Mark, RunRow, VersionRow};

/// Slots of the kept counts: neighbours among shards, which one lane has, write the same.
const SLOTS: u16 = 16;

/// The slot of what deletes runs.
pub(super) const DELETED: i32 = 16;

/// Values of one statement, in its order.
#[derive(Default)]
pub(super) struct Columns<'c>(Vec<Box<dyn ToSql + Sync + 'c>>);

impl<'c> Columns<'c> {
    pub(super) fn value(&mut self, value: impl ToSql + Sync + 'c) {
        self.0.push(Box::new(value));
    }

    /// A column as an array; NULL if there is nothing in it.
    pub(super) fn column<T: ToSql + Sync + 'c>(&mut self, values: impl IntoIterator<Item = T>) {
        let values: Vec<T> = values.into_iter().collect();
        self.value((!values.is_empty()).then_some(values));
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|value| &**value as _).collect()
    }
}

/// A call of a function with so many values.
pub(super) fn call(function: &str, values: usize) -> String {
    let places: Vec<String> = (1..=values).map(|place| format!("${place}")).collect();
    format!("SELECT {function}({})", places.join(", "))
}

/// Row numbers of workflows, by namespace and name.
pub(super) type WorkflowIds = BTreeMap<(Arc<str>, Arc<str>), i32>;

/// One write of an entity, with what is made of its key.
struct Write<'c> {
    key: Key,
    /// Where its history lies.
    period: i32,
    of: &'c EntityWrite,
}

/// A commit in the order of `commit_1`. `ids` has all its workflows; `period` says where the history of
/// an entity lies.
pub(super) fn columns<'c>(
    commit: &'c Commit,
    ids: &WorkflowIds,
    period: impl Fn(&EntityKey) -> i32,
) -> Columns<'c> {
    let mut columns = Columns::default();
    fence(&mut columns, &commit.shards);
    let writes: Vec<Write<'c>> = commit
        .entities
        .iter()
        .map(|of| Write {
            key: Key::of(&of.key),
            period: period(&of.key),
            of,
        })
        .collect();
    chunks(&mut columns, &writes);
    wakes(&mut columns, &writes);
    pages(&mut columns, &writes);
    snapshots(&mut columns, &writes);
    let slot = commit.shards.first().map_or(0, |lease| {
        i32::from(lease.shard.0 / (kapell_model::SHARDS / SLOTS))
    });
    runs(&mut columns, &commit.runs, ids, slot);
    documents(&mut columns, &commit.documents);
    versions(&mut columns, &commit.versions, ids);
    // The last word on a workflow holds.
    let active: BTreeMap<i32, i64> = commit
        .activated
        .iter()
        .map(|(namespace, name, version)| (id(ids, namespace, name), i64::from(*version)))
        .collect();
    columns.column(active.keys().copied());
    columns.column(active.values().copied());
    mail(&mut columns, &commit.mail, &commit.marks);
    columns
}

fn mail<'c>(columns: &mut Columns<'c>, mail: &'c [Mail], marks: &[Mark]) {
    let shard = |shard: Shard| i32::from(shard.0);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    columns.column(mail.iter().map(|mail| shard(mail.to.shard())));
    columns.column(mail.iter().map(|mail| shard(mail.from)));
    columns.column(mail.iter().map(|mail| number(mail.number)));
    columns.column(mail.iter().map(|mail| mail.to.to_bytes()));
    columns.column(mail.iter().map(|mail| mail.message.as_slice()));
    columns.column(marks.iter().map(|mark| shard(mark.to)));
    columns.column(marks.iter().map(|mark| shard(mark.from)));
    columns.column(marks.iter().map(|mark| number(mark.number)));
}

fn id(ids: &WorkflowIds, namespace: &Arc<str>, name: &Arc<str>) -> i32 {
    // No row has it, so whatever names it is refused.
    *ids.get(&(namespace.clone(), name.clone())).unwrap_or(&0)
}

fn fence(columns: &mut Columns<'_>, shards: &[Lease]) {
    // A number that is too big is nobody's.
    let number = |number: u64| i64::try_from(number).unwrap_or(-1);
    // Without shards there is nothing to pass.
    columns.value(
        shards
            .iter()
            .map(|held| i32::from(held.shard.0))
            .collect::<Vec<_>>(),
    );
    columns.value(
        shards
            .iter()
            .map(|held| number(held.epoch))
            .collect::<Vec<_>>(),
    );
    columns.value(
        shards
            .iter()
            .map(|held| number(held.seq))
            .collect::<Vec<_>>(),
    );
}

/// A place in a history, which was checked.
fn seq(write: &EntityWrite) -> i64 {
    i64::try_from(write.seq).unwrap_or(i64::MAX)
}

fn chunks<'c>(columns: &mut Columns<'c>, writes: &[Write<'c>]) {
    let appended = || {
        let writes = writes.iter();
        writes.filter(|write| !write.of.chunk.is_empty() && !write.of.forget)
    };
    columns.column(appended().map(|write| write.period));
    columns.column(appended().map(|write| write.key.indexed.clone()));
    columns.column(appended().map(|write| seq(write.of)));
    columns.column(appended().map(|write| write.of.chunk.as_slice()));
    let refers: Vec<(Vec<u8>, Hash, i64)> = appended()
        .flat_map(|write| {
            let hashes = refs::hashes_in(&write.of.chunk).into_iter();
            hashes.map(|hash| (write.key.indexed.clone(), hash, seq(write.of)))
        })
        .collect();
    columns.column(refers.iter().map(|(entity, _, _)| entity.clone()));
    columns.column(refers.iter().map(|(_, hash, _)| hash.to_vec()));
    columns.column(refers.iter().map(|(_, _, seq)| *seq));
}

fn wakes<'c>(columns: &mut Columns<'c>, writes: &[Write<'c>]) {
    let awake = || {
        let writes = writes.iter();
        writes.filter_map(|write| {
            write
                .of
                .wake_at
                .map(|at| (&write.key, at.max(Time::ZERO).0))
        })
    };
    columns.column(awake().map(|(key, _)| key.indexed.clone()));
    columns.column(awake().map(|(_, at)| at));
    columns.column(awake().map(|(key, _)| key.whole.clone()));
    let asleep = writes.iter().filter(|write| write.of.wake_at.is_none());
    columns.column(asleep.map(|write| write.key.indexed.clone()));
}

fn pages<'c>(columns: &mut Columns<'c>, writes: &[Write<'c>]) {
    let pages = || {
        writes.iter().flat_map(|write| {
            let pages = write.of.pages.iter();
            pages.map(|(number, content)| (&write.key.indexed, *number, content.as_slice()))
        })
    };
    columns.column(pages().map(|(entity, _, _)| entity.clone()));
    columns.column(pages().map(|(_, number, _)| i64::from(number)));
    columns.column(pages().map(|(_, _, content)| content));
    let refers: Vec<(Vec<u8>, Hash)> = pages()
        .flat_map(|(entity, _, content)| {
            let hashes = refs::hashes_in(content).into_iter();
            hashes.map(|hash| (entity.clone(), hash))
        })
        .collect();
    columns.column(refers.iter().map(|(entity, _)| entity.clone()));
    columns.column(refers.iter().map(|(_, hash)| hash.to_vec()));
}

fn snapshots<'c>(columns: &mut Columns<'c>, writes: &[Write<'c>]) {
    let states = || {
        let writes = writes.iter().filter(|write| !drops_entity(write.of));
        writes.filter_map(|write| Some((write, write.of.snapshot.as_deref()?)))
    };
    columns.column(states().map(|(write, _)| write.key.indexed.clone()));
    columns.column(states().map(|(write, _)| seq(write.of)));
    columns.column(states().map(|(_, state)| state));
    let forgets = || states().filter(|(write, _)| write.of.forget);
    columns.column(forgets().map(|(write, _)| write.key.indexed.clone()));
    columns.column(forgets().map(|(write, _)| write.period));
    columns.column(forgets().map(|(write, _)| seq(write.of)));
    let kept: Vec<(Vec<u8>, Hash)> = forgets()
        .flat_map(|(write, state)| {
            let hashes = refs::hashes_in(state).into_iter();
            hashes.map(|hash| (write.key.indexed.clone(), hash))
        })
        .collect();
    columns.column(kept.iter().map(|(entity, _)| entity.clone()));
    columns.column(kept.iter().map(|(_, hash)| hash.to_vec()));
    let dropped = || writes.iter().filter(|write| drops_entity(write.of));
    columns.column(dropped().map(|write| write.key.indexed.clone()));
    columns.column(dropped().map(|write| write.period));
}

fn runs<'c>(columns: &mut Columns<'c>, rows: &'c [RunRow], ids: &WorkflowIds, slot: i32) {
    let count = |row: &RunRow, place: usize| i64::try_from(row.counts[place]).unwrap_or(i64::MAX);
    columns.value(slot);
    columns.column(rows.iter().map(|row| row.id.to_bytes().to_vec()));
    columns.column(
        rows.iter()
            .map(|row| id(ids, &row.namespace, &row.workflow)),
    );
    columns.column(rows.iter().map(|row| i32::from(row.status.number())));
    columns.column(rows.iter().map(|row| i64::from(row.version)));
    columns.column(rows.iter().map(|row| row.created_at.0));
    columns.column(rows.iter().map(|row| row.started_at.map(|at| at.0)));
    columns.column(rows.iter().map(|row| row.ended_at.map(|at| at.0)));
    columns.column(rows.iter().map(|row| count(row, 0)));
    columns.column(rows.iter().map(|row| count(row, 1)));
    columns.column(rows.iter().map(|row| count(row, 2)));
    columns.column(rows.iter().map(|row| row.scheduled_at.map(|at| at.0)));
    columns.column(
        rows.iter()
            .map(|row| row.parent.map(|id| id.to_bytes().to_vec())),
    );
    columns.column(rows.iter().map(|row| row.trigger.as_bytes()));
    columns.column(
        rows.iter()
            .map(|row| row.trigger_name.as_ref().map(|name| name.as_bytes())),
    );
    columns.column(
        rows.iter()
            .map(|row| row.backfill.as_ref().map(|id| id.as_bytes())),
    );
    columns.column(
        rows.iter()
            .map(|row| row.error.as_ref().map(String::as_bytes)),
    );
    columns.column(rows.iter().map(|row| row.labels.as_bytes()));
    let labelled: Vec<(RunId, Vec<u8>, Vec<u8>, i64)> = rows
        .iter()
        .flat_map(|row| {
            let labels = labels(&row.labels).into_iter();
            labels.map(|(key, value)| {
                let value = indexed(&value).as_bytes().to_vec();
                (row.id, keys::label(&key), value, row.created_at.0)
            })
        })
        .collect();
    columns.column(labelled.iter().map(|(id, _, _, _)| id.to_bytes().to_vec()));
    columns.column(labelled.iter().map(|(_, key, _, _)| key.clone()));
    columns.column(labelled.iter().map(|(_, _, value, _)| value.clone()));
    columns.column(labelled.iter().map(|(_, _, _, created)| *created));
}

/// Documents in the order of `documents_1`, by key: the last word on one holds.
pub(super) fn documents<'c>(columns: &mut Columns<'c>, documents: &'c [Document]) {
    let last: BTreeMap<&[u8], Option<&[u8]>> = documents
        .iter()
        .map(|(key, body)| (key.as_slice(), body.as_ref().map(String::as_bytes)))
        .collect();
    let key = |key: &[u8]| Key::new(key.to_vec());
    let kept = || last.iter().filter_map(|(key, body)| Some((*key, (*body)?)));
    columns.column(kept().map(|(of, _)| key(of).indexed));
    columns.column(kept().map(|(_, body)| body));
    columns.column(kept().map(|(of, _)| key(of).whole));
    let gone = last.iter().filter(|(_, body)| body.is_none());
    columns.column(gone.map(|(of, _)| key(of).indexed));
}

fn versions<'c>(columns: &mut Columns<'c>, rows: &'c [VersionRow], ids: &WorkflowIds) {
    columns.column(
        rows.iter()
            .map(|row| id(ids, &row.namespace, &row.workflow)),
    );
    columns.column(rows.iter().map(|row| i64::from(row.version)));
    for text in [
        |row: &'c VersionRow| row.hash.as_bytes(),
        |row: &'c VersionRow| row.spec.as_bytes(),
        |row: &'c VersionRow| row.source.as_bytes(),
    ] {
        columns.column(rows.iter().map(text));
    }
    columns.column(
        rows.iter()
            .map(|row| row.bundle.as_ref().map(|bundle| bundle.as_bytes())),
    );
    columns.column(rows.iter().map(|row| row.created_at.0));
    columns.column(rows.iter().map(|row| row.author.as_bytes()));
    columns.column(rows.iter().map(|row| refers(row).concat()));
}

/// Hashes in the bundle of a version.
pub(super) fn refers(row: &VersionRow) -> Vec<Hash> {
    let bundle = row.bundle.as_deref().unwrap_or_default();
    refs::hashes_in(bundle.as_bytes()).into_iter().collect()
}
