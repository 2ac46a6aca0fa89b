//! What a change was about, for the audit log. A request over a connection has its entry, to which whoever
//! makes the change adds what the address does not say; a change that is asked for in this process has
//! none, and makes one.

use std::sync::Arc;

use kapell_api::http::{AuditEntry, BASE};
use kapell_model::Error;
use kapell_node::clock;
use parking_lot::Mutex;

use super::{Audit, own_name};

/// Bytes of it that are kept.
const ABOUT_BYTES: usize = 1_024;

tokio::task_local! {
    static ABOUT: About;
}

/// What is said of the change that a request makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct About(Arc<Mutex<String>>);

impl About {
    /// Runs the handler of a request whose entry this is for.
    pub(crate) async fn within<T>(self, handler: impl Future<Output = T>) -> T {
        ABOUT.scope(self, handler).await
    }

    /// What was said.
    pub(crate) fn said(&self) -> Option<String> {
        Some(std::mem::take(&mut *self.0.lock())).filter(|said| !said.is_empty())
    }

    fn add(&self, text: &str) {
        let mut said = self.0.lock();
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.push_str(text);
        let end = said.floor_char_boundary(ABOUT_BYTES);
        said.truncate(end);
    }
}

/// Says what the request that is answered is about. Nothing happens where there is no request.
pub(crate) fn about(text: impl FnOnce() -> String) {
    // No request: whoever asks says it otherwise.
    let _ = ABOUT.try_with(|said| said.add(&text()));
}

/// Work for another thread that belongs to the same request.
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let said = ABOUT.try_with(Clone::clone).ok();
    move || match said {
        Some(said) => ABOUT.sync_scope(said, work),
        None => work(),
    }
}

/// Whom the log names for something: whoever it is, and what they call themselves.
pub(crate) fn attributed(who: String, says: &str) -> String {
    if says.is_empty() || says == who {
        who
    } else {
        format!("{who} ({says})")
    }
}

impl Audit {
    /// Makes a change. What it is about is added to the entry of the request that asks for it; one that
    /// is asked for in this process gets its entry here.
    ///
    /// # Errors
    /// Those of the change; `store-unavailable` if the log has no room.
    pub(crate) fn change<T>(
        &self,
        method: &str,
        path: &str,
        what: impl FnOnce(Option<&T>) -> String,
        change: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if ABOUT.try_with(|_| ()).is_ok() {
            let made = change();
            about(|| what(made.as_ref().ok()));
            return made;
        }
        let room = self.room()?;
        let at = clock::now();
        let made = change();
        let said = what(made.as_ref().ok());
        let entry = AuditEntry {
            number: 0,
            at,
            who: own_name(),
            token: None,
            from: format!("process {}", std::process::id()),
            what: format!("{method} {BASE}{path}"),
            status: made
                .as_ref()
                .map_or_else(|error| error.code.http_status(), |_| 200),
            about: Some(said).filter(|said| !said.is_empty()),
        };
        self.record(entry, Some(room));
        made
    }
}
