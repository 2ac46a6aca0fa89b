//! The two threads of a lane that wait for the store: one commits, one reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use kapell_api::task::Blobs;
use kapell_expr::BlobRef;
use kapell_store::{Commit, Store};

use super::{Message, Workers};
use crate::clock;
use crate::lane::{Input, Output};
use crate::metrics::Metrics;
use crate::perform::{self, Plans};

/// A commit for the store.
pub(super) struct Write {
    pub(super) commit: Arc<Commit>,
    pub(super) contents: Vec<(BlobRef, Vec<u8>)>,
    pub(super) follows: bool,
}

/// Commits one after the other, and nothing on top of what failed.
pub(super) fn write(
    writes: &Receiver<Write>,
    answers: &Sender<Message>,
    (store, blobs): (&dyn Store, &dyn Blobs),
    metrics: &Metrics,
) {
    let mut failed = false;
    while let Ok(write) = writes.recv() {
        let commit = write.commit;
        let result = if failed && write.follows {
            Err(perform::follows_failed())
        } else {
            let watch = clock::Stopwatch::start();
            let result = perform::commit(store, blobs, &write.contents, &commit);
            metrics.commit.observe_duration(watch.elapsed());
            metrics
                .commit_entities
                .observe(commit.entities.len() as u64);
            failed = result.is_err();
            metrics
                .commit_failures
                .fetch_add(u64::from(failed), Ordering::Relaxed);
            result
        };
        if answers
            .send(Message::Input(Input::Committed(result)))
            .is_err()
        {
            return;
        }
    }
}

/// Reads what the lane asks for, in order.
pub(super) fn read(
    reads: &Receiver<Output>,
    answers: &Sender<Message>,
    among: Option<(&perform::Among, &dyn Workers)>,
    (store, blobs): (&dyn Store, &dyn Blobs),
) {
    let mut plans = Plans::default();
    while let Ok(output) = reads.recv() {
        if let (Output::Release(leases), Some((_, workers))) = (&output, among) {
            workers.gave(&leases.iter().map(|lease| lease.shard).collect());
        }
        let shared = among.map(|(shared, _)| shared);
        let Some(input) = perform::read(store, blobs, &mut plans, shared, output) else {
            continue;
        };
        let taken = match (&input, among) {
            (Input::Acquired(Ok(leases)), Some((_, workers))) if !leases.is_empty() => {
                workers.took(leases);
                Some((leases.clone(), workers))
            }
            _ => None,
        };
        if answers.send(Message::Input(input)).is_err() {
            return;
        }
        // What is said of shards that the lane does not own it leaves to others. Nothing that was in them is
        // read before this.
        if let Some((leases, workers)) = taken {
            workers.ask(&leases);
        }
    }
}
