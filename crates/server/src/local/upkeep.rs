//! The thread that drops what is kept no longer.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_model::spec::Retention;
use kapell_model::{Error, Shard};
use kapell_node::drive::Node;
use kapell_node::{clock, upkeep};
use kapell_store::{BlobStore, Store};

use super::no_thread;
use crate::logs::RunLogs;
use crate::register::NAMESPACE;

/// How soon after the start upkeep is done, so that short commands do none.
const FIRST_UPKEEP: Duration = Duration::from_secs(5);

/// How soon after a step that failed the next is tried.
const UPKEEP: Duration = Duration::from_mins(10);

/// Drops what is kept no longer, where work is done.
pub(super) fn start(
    store: &Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
    logs: RunLogs,
    retention: Retention,
    node: Option<Node>,
) -> Result<Option<Upkeep>, Error> {
    if node.is_none() {
        return Ok(None);
    }
    let upkeep = upkeep::Upkeep::new(Arc::clone(store), blobs, logs, NAMESPACE);
    let started = Upkeep::run(upkeep.keeping(retention), node);
    started
        .map(Some)
        .map_err(|error| no_thread("upkeep", &error))
}

/// Drops what is kept no longer, step by step. Ends when it is dropped.
pub(super) struct Upkeep {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    fn run(mut upkeep: upkeep::Upkeep, node: Option<Node>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("kapell-upkeep".to_owned())
            .spawn(move || {
                let mut pause = FIRST_UPKEEP;
                while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                    // Of several nodes one sees to what they share.
                    let mine = node.as_ref().is_none_or(|node| node.is_mine(Shard(0)));
                    if !mine {
                        pause = UPKEEP;
                        continue;
                    }
                    pause = match upkeep.step(clock::now()) {
                        Ok(pause) => Duration::try_from(pause).unwrap_or(UPKEEP),
                        Err(error) => {
                            tracing::warn!(%error, "what is kept no longer was not dropped");
                            UPKEEP
                        }
                    };
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
