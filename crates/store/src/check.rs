//! What every store demands of a commit before it looks at what is stored.

use std::collections::HashSet;

use kapell_model::{SHARDS, Shard, limits};

use crate::{Commit, Document, EntityWrite, Error, Result, VersionRow};

/// Bytes of the key of a document: all names that an entity's key holds fit.
pub(crate) const DOCUMENT_KEY_BYTES: usize = 16 << 10;

/// Refuses a commit that no state of the store could take: shards out of order, a write outside
/// the named shards (it would not be fenced), two writes of one entity, a bad place.
pub(crate) fn check_commit(commit: &Commit) -> Result<()> {
    let named = NamedShards::of(commit)?;
    for write in &commit.entities {
        named.contain(write.key.shard())?;
        check_entity(write)?;
    }
    for row in &commit.runs {
        named.contain(row.id.shard())?;
        if row
            .counts
            .iter()
            .any(|count| i64::try_from(*count).is_err())
        {
            return Err(Error::Invalid(format!(
                "a count of run {} is out of range",
                row.id
            )));
        }
    }
    if !strictly_ascending(commit.entities.iter().map(|write| &write.key)) {
        let mut seen = HashSet::with_capacity(commit.entities.len());
        if let Some(twice) = commit
            .entities
            .iter()
            .find(|write| !seen.insert(&write.key))
        {
            return Err(Error::Invalid(format!(
                "two writes of {:?} in one commit",
                twice.key
            )));
        }
    }
    if !strictly_ascending(commit.runs.iter().map(|row| row.id)) {
        let mut seen = HashSet::with_capacity(commit.runs.len());
        if let Some(twice) = commit.runs.iter().find(|row| !seen.insert(row.id)) {
            return Err(Error::Invalid(format!(
                "two rows of run {} in one commit",
                twice.id
            )));
        }
    }
    for mail in &commit.mail {
        named.contain(mail.from)?;
        if i64::try_from(mail.number).is_err() {
            return Err(Error::Invalid(format!(
                "a message with the number {}",
                mail.number
            )));
        }
    }
    for mark in &commit.marks {
        named.contain(mark.to)?;
    }
    check_documents(&commit.documents)
}

/// Refuses documents without a key, and those that are too big.
pub(crate) fn check_documents(documents: &[Document]) -> Result<()> {
    for (key, body) in documents {
        let bytes = body.as_ref().map_or(0, String::len);
        if key.is_empty() || key.len() > DOCUMENT_KEY_BYTES || bytes > limits::DOCUMENT_BYTES {
            return Err(Error::Invalid(format!(
                "a document of {bytes} bytes with a key of {}: at most {}, and a key of 1 to {DOCUMENT_KEY_BYTES}",
                key.len(),
                limits::DOCUMENT_BYTES
            )));
        }
    }
    Ok(())
}

/// The least key that is greater than all that start so.
pub(crate) fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // No key is as long.
    vec![u8::MAX; DOCUMENT_KEY_BYTES + 1]
}

/// Refuses shards that are out of range or named twice.
pub(crate) fn check_shards(shards: &[Shard]) -> Result<()> {
    let mut seen = HashSet::with_capacity(shards.len());
    match shards
        .iter()
        .find(|shard| shard.0 >= SHARDS || !seen.insert(shard.0))
    {
        Some(bad) => Err(Error::Invalid(format!(
            "shard {} is out of range or named twice",
            bad.0
        ))),
        None => Ok(()),
    }
}

/// The refusal of a version whose number or content is not free.
pub(crate) fn version_taken(row: &VersionRow) -> Error {
    Error::Invalid(format!(
        "version {} of `{}` is not the next one, or its content is registered",
        row.version, row.workflow
    ))
}

/// True if the write leaves nothing of its entity: it forgets, and the state that stays is empty.
pub(crate) fn drops_entity(write: &EntityWrite) -> bool {
    write.forget && write.snapshot.as_ref().is_some_and(Vec::is_empty)
}

fn check_entity(write: &EntityWrite) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::Invalid(format!(
            "{why}: {:?} at {}",
            write.key, write.seq
        )))
    };
    let chunk_or_state = !write.chunk.is_empty() || write.snapshot.is_some();
    if i64::try_from(write.seq).is_err() || (write.seq == 0 && chunk_or_state) {
        return refuse("a place in a history is 1 or more");
    }
    if write.forget && write.snapshot.is_none() {
        return refuse("forgetting needs a snapshot");
    }
    if drops_entity(write) && (write.wake_at.is_some() || !write.pages.is_empty()) {
        return refuse("an entity that is dropped has no wake time and no pages");
    }
    let mut pages = HashSet::new();
    if write.pages.len() > 1 && !write.pages.iter().all(|(number, _)| pages.insert(number)) {
        return refuse("one page is written twice");
    }
    Ok(())
}

fn strictly_ascending<T: PartialOrd>(items: impl Iterator<Item = T> + Clone) -> bool {
    items
        .clone()
        .zip(items.skip(1))
        .all(|(one, next)| one < next)
}

/// The shards a commit names, one bit each: it is asked once for every write.
struct NamedShards([u64; SHARDS as usize / 64]);

impl NamedShards {
    fn of(commit: &Commit) -> Result<Self> {
        let mut named = Self([0; SHARDS as usize / 64]);
        if !strictly_ascending(commit.shards.iter().map(|lease| lease.shard)) {
            return Err(Error::Invalid(
                "the shards of a commit are not in order".to_owned(),
            ));
        }
        for lease in &commit.shards {
            let (word, bit) = Self::place(lease.shard);
            let Some(word) = named.0.get_mut(word) else {
                return Err(Error::Invalid(format!(
                    "shard {} is out of range",
                    lease.shard.0
                )));
            };
            *word |= bit;
        }
        Ok(named)
    }

    fn contain(&self, shard: Shard) -> Result<()> {
        let (word, bit) = Self::place(shard);
        if self.0.get(word).is_some_and(|word| word & bit != 0) {
            Ok(())
        } else {
            Err(Error::Invalid(format!(
                "the commit writes to shard {}, which it does not name",
                shard.0
            )))
        }
    }

    fn place(shard: Shard) -> (usize, u64) {
        (usize::from(shard.0 / 64), 1 << (shard.0 % 64))
    }
}
