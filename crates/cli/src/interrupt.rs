//! Ctrl-C: the first asks, the second ends.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kapell_model::{Error, ErrorCode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level;

use crate::printer;

/// From the first signal until a process that cannot come to its end is left as it is.
const PATIENCE: Duration = Duration::from_secs(15);

/// Set once somebody wants this process to end.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. A second signal ends the process at once, with status 130.
    pub(crate) fn listen() -> Result<Self, Error> {
        let refused =
            |error: std::io::Error| Error::new(ErrorCode::Internal, format!("no signals: {error}"));
        let asked = Arc::new(AtomicBool::new(false));
        let (theirs, ours) = UnixStream::pair().map_err(refused)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset and only sets it.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .and_then(|_| low_level::pipe::register(signal, theirs.try_clone()?))
                .map_err(refused)?;
        }
        std::thread::Builder::new()
            .name("patience".to_owned())
            .spawn(move || leave_after(ours))
            .map_err(refused)?;
        Ok(Self(asked))
    }

    /// True once asked.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// With a full disk nothing can be recorded or shown, and nobody looks at the flag: some time after the
/// first signal the process ends without. What was committed is safe, as at any other end.
fn leave_after(mut signals: UnixStream) {
    if signals.read_exact(&mut [0]).is_err() {
        return;
    }
    let (_open, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(PATIENCE);
    printer::last_words(
        "\nthe store takes nothing, so the process ends without its answer; what was recorded is safe\n  to continue: kapell resume\n",
    );
    low_level::exit(130);
}
