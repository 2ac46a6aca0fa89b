//! Ctrl-C: the first asks, the second ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kapell_model::{Error, ErrorCode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Set once somebody wants this process to end.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. A second signal ends the process at once, with status 130.
    pub(crate) fn listen() -> Result<Self, Error> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset and only sets it.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| Error::new(ErrorCode::Internal, format!("no signals: {error}")))?;
        }
        Ok(Self(asked))
    }

    /// True once asked.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends the process if it is still there then: with a full disk or a stuck one nothing can be recorded,
/// a pause neither. What was committed is safe, as at any other end.
pub(crate) fn end_within(patience: Duration) -> Result<(), Error> {
    let end = move || {
        std::thread::park_timeout(patience);
        crate::printer::last_words(
            "\n‖ the pause could not be recorded, so the run is left as it is: nothing is lost\n  to continue: kapell resume\n",
        );
        signal_hook::low_level::exit(130);
    };
    std::thread::Builder::new()
        .name("patience".to_owned())
        .spawn(end)
        .map(|_| ())
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no thread: {error}")))
}
