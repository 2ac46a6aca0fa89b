//! The worker inside a server: a [`Remote`] that somebody in the same process starts and stops.
//!
//! A thread of its own does what the server asks of it besides tasks: to go, which a drain asks as well
//! as the end of the process.
//!
//! - **Crash**: the next process of the directory says what was lost, and is told at once.
//! - **Slow store**: as at any worker; its last words wait a second for it, not longer.
//! - **Clock jump**: nothing here counts on a clock.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Event, Inner, Remote, RemoteConfig};
use crate::config::{Config, Error};

/// How long the server may take to let it in.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Inside {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    /// Starts a worker and waits until it is in a session: then the server knows what the one before it
    /// in this directory held.
    ///
    /// # Errors
    /// What a [`crate::Worker`] cannot do without; the server does not let it in.
    pub fn start(config: Config, server: RemoteConfig) -> Result<Self, Error> {
        let remote = Remote::start(config, server)?;
        match remote.next(PATIENCE) {
            Some(Event::Welcome(..)) => {}
            Some(Event::Away(why) | Event::Refused(why)) => return Err(Error::Refused(why)),
            Some(Event::Drain(_)) | None => {
                return Err(Error::Refused("it says nothing".to_owned()));
            }
        }
        let inner = Arc::clone(&remote.inner);
        let thread = std::thread::Builder::new()
            .name("kapell-inside".to_owned())
            .spawn(move || stay(remote));
        let thread = thread.map_err(|source| Error::System {
            what: "start a thread",
            source,
        })?;
        let thread = Some(thread);
        Ok(Self { inner, thread })
    }

    /// Takes nothing more, gives running attempts `grace` to end, then ends them as lost, and goes. One
    /// that goes already has no more time than that from now on.
    pub fn stop(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if self.inner.outbox.is_draining() {
            self.inner.canceller.stop(grace);
        }
        // It may have gone.
        let _ = self.inner.events.send(Event::Drain(grace));
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Works until it is to go.
fn stay(remote: Remote) {
    loop {
        let event = remote.events.lock().recv();
        match event {
            Ok(Event::Drain(grace)) => return remote.leave(grace),
            Ok(Event::Welcome(session, _)) => {
                tracing::info!(%session, "the worker inside is in a session");
            }
            Ok(Event::Away(why) | Event::Refused(why)) => {
                tracing::warn!(
                    why,
                    "the worker inside lost its session; it asks for another"
                );
            }
            // The sender is in what we hold.
            Err(_) => return,
        }
    }
}
