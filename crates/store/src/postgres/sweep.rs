//! Takes away dead rows of the two tables that are small and always change, as soon as there are some.
//!
//! What ends leaves a dead row in each. The server's own vacuum comes once a minute at most, and until then
//! a few thousand ends a second would make small tables big, and all that goes through them slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::failure::Failure;
use super::session::{Connector, Dial};

/// So many dead rows are worth a sweep.
const MANY: i64 = 500;

/// After so long without dead rows there is one sweep more.
const QUIET: Duration = Duration::from_secs(3);

/// Cutting a table off at its end would need a lock that commits wait for.
const SWEEPS: [&str; 2] = [
    "VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF, SKIP_LOCKED) runs_live",
    "VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF, SKIP_LOCKED) wakes",
];

pub(super) struct Sweeper {
    dead: AtomicI64,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Sweeper {
    pub(super) fn start(connector: Connector) -> Self {
        let asked = Arc::new(Notify::new());
        let runtime = Arc::clone(connector.runtime());
        let connector = connector.with_settings("SET synchronous_commit = off");
        Self {
            dead: AtomicI64::new(0),
            task: runtime.spawn(sweeps(connector.dial(), Arc::clone(&asked))),
            asked,
        }
    }

    /// A commit has left so many rows dead.
    pub(super) fn left(&self, dead: i64) {
        if self.dead.fetch_add(dead, Relaxed) + dead >= MANY {
            self.sweep();
        }
    }

    pub(super) fn sweep(&self) {
        self.dead.store(0, Relaxed);
        self.asked.notify_one();
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sweeps(dial: Dial, asked: Arc<Notify>) {
    let mut kept: Option<Client> = None;
    let mut quiet = true;
    loop {
        if quiet {
            asked.notified().await;
            quiet = false;
        } else {
            // The server hears of dead rows up to a second after they died, and counts those too that are
            // gone by then: the last sweep comes after that.
            quiet = timeout(QUIET, asked.notified()).await.is_err();
        }
        let client = kept.take().filter(|client| !client.is_closed());
        match sweep(&dial, client).await {
            Ok(client) => kept = Some(client),
            Err(failure) => {
                tracing::warn!(error = %failure.error, "could not sweep; will try again");
            }
        }
    }
}

async fn sweep(dial: &Dial, client: Option<Client>) -> Result<Client, Failure> {
    let client = match client {
        Some(client) => client,
        None => dial.clone().connect().await?.0,
    };
    for sql in SWEEPS {
        client.batch_execute(sql).await?;
    }
    Ok(client)
}
