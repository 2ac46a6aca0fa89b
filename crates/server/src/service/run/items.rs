//! The history of a run, folded, and the items of a foreach in it.

use std::collections::BTreeMap;

use kapell_api::client::Result;
use kapell_api::http::{ItemPage, ItemQuery, ItemView};
use kapell_api::record::Record;
use kapell_engine::chunk;
use kapell_engine::event::Event;
use kapell_engine::record::{Fold, Items};
use kapell_expr::{BlobRef, Value};
use kapell_model::{Error, ErrorCode, Time, limits, nearest_few};
use kapell_node::perform;
use kapell_store::RunRow;

use super::super::{Service, no_version, page};
use crate::rows::failure;

/// Chunks of history read at a time.
const CHUNKS: usize = 64;

/// Bytes of lists of items that are read for their labels: items of lists beyond have none.
const LISTS: u64 = 64 << 20;

/// Labels that are said where another was asked for, and items that are looked at for them.
const NEAR: usize = 5;
const COMPARED: u32 = 100_000;

impl Service {
    /// What is made of the history of a run up to a moment, with the step or item at a path.
    pub(super) fn folded<T>(
        &self,
        row: &RunRow,
        at: Option<Time>,
        step: &str,
        made: impl FnOnce(Fold<'_>) -> T,
    ) -> Result<T> {
        let run = row.id;
        let version = self
            .store
            .version(&row.namespace, &row.workflow, Some(row.version))
            .map_err(failure)?;
        let version = version.ok_or_else(|| no_version(&row.workflow, Some(row.version)))?;
        let plan = perform::Version::read(&version).map_err(failure)?.plan;
        let mut fold = Fold::new(&plan, at).with(step);
        let mut from = 1;
        loop {
            let chunks = self
                .store
                .history(&run.into(), from, CHUNKS)
                .map_err(failure)?;
            let Some((last, _)) = chunks.last() else {
                break;
            };
            from = last + 1;
            for (seq, chunk) in &chunks {
                let events = chunk::decode::<Event>(chunk).map_err(|error| {
                    Error::new(
                        ErrorCode::StoreCorrupt,
                        format!("chunk {seq} of run {run}: {error}"),
                    )
                })?;
                for event in &events {
                    fold.take(event);
                }
            }
            if fold.is_over() {
                break;
            }
        }
        self.load_lists(&mut fold);
        Ok(made(fold))
    }

    /// Reads the lists of items that are kept as blobs. One that cannot be read leaves its items without
    /// labels: they are shown all the same.
    fn load_lists(&self, fold: &mut Fold<'_>) {
        let mut known: BTreeMap<_, Value> = BTreeMap::new();
        let mut left = LISTS;
        fold.load_lists(|blob: &BlobRef| {
            if let Some(value) = known.get(&blob.hash) {
                return Some(value.clone());
            }
            left = left.checked_sub(blob.size)?;
            let bytes = self.blobs.get(blob, limits::OUTPUT_BYTES).ok()?;
            let value = Value::from_stored(&bytes).ok()?;
            known.insert(blob.hash.clone(), value.clone());
            Some(value)
        });
    }
}

/// All of it.
pub(super) fn whole(fold: Fold<'_>) -> Record {
    fold.finish()
}

/// A page of the items of a foreach, or of those with one label.
pub(super) fn page_of(row: &RunRow, fold: &Fold<'_>, which: &ItemQuery) -> Result<ItemPage> {
    let Some(items) = fold.items(&which.step) else {
        let message = format!(
            "`{}` has no items in run {}: it is no foreach, or has not begun",
            which.step, row.id
        );
        return Err(Error::new(ErrorCode::StepNotFound, message)
            .hint("`kapell show RUN` lists the steps with their paths"));
    };
    let limit = page(which.limit);
    let all = (which.from..items.count).map(|index| ItemView {
        index,
        label: items.label(index),
    });
    let mut found: Vec<ItemView> = match &which.label {
        Some(label) => all
            .filter(|item| item.label.as_ref() == Some(label))
            .take(limit + 1)
            .collect(),
        None => all.take(limit + 1).collect(),
    };
    let next = (found.len() > limit).then(|| found.pop()).flatten();
    let near = match &which.label {
        Some(label) if found.is_empty() => near(&items, label),
        _ => Vec::new(),
    };
    Ok(ItemPage {
        count: items.count,
        labelled: items.labelled,
        items: found,
        next: next.map(|item| item.index),
        near,
    })
}

/// The labels most like one that there is not.
fn near(items: &Items<'_>, label: &str) -> Vec<String> {
    let labels = (0..items.count.min(COMPARED)).filter_map(|item| items.label(item));
    let labels: Vec<String> = labels.collect();
    let near = nearest_few(label, labels.iter().map(String::as_str), NEAR);
    near.into_iter().map(str::to_owned).collect()
}
