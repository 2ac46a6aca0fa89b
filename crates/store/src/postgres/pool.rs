//! Connections of one kind: at most so many, made at need and kept.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::failure::Failure;
use super::session::{Connector, Session};
use crate::{Error, Result};

/// How often what is done again is done again because of a deadlock.
const DEADLOCKS: u32 = 5;

/// How long a connection is waited for when all are in use.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often somebody looks at what a connection gave: once, or a second time where the first was on a
/// connection that had been broken since it was last used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tries {
    /// It may have changed something.
    Once,
    /// It only reads.
    Again,
}

pub(super) struct Pool {
    connector: Connector,
    most: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Session>,
    in_use: usize,
}

impl Pool {
    pub(super) fn new(connector: Connector, most: usize) -> Self {
        Self {
            connector,
            most,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Does something with a connection. One that failed is not used again.
    pub(super) fn with<T>(
        &self,
        tries: Tries,
        work: impl FnMut(&mut Session) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.with_failure(tries, work)
            .map_err(|failure| failure.error)
    }

    /// As [`Pool::with`], for whoever wants to know more of a failure.
    pub(super) fn with_failure<T>(
        &self,
        tries: Tries,
        mut work: impl FnMut(&mut Session) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        let mut place = self.place()?;
        let mut used = place.session.is_some();
        let mut deadlocks = 0;
        loop {
            let session = match &mut place.session {
                Some(session) => session,
                none => none.insert(self.connector.connect()?),
            };
            let outcome = work(session);
            let Err(failure) = outcome else {
                return outcome;
            };
            if failure.is_deadlock() && tries == Tries::Again && deadlocks < DEADLOCKS {
                // The other one has what it waited for by now.
                deadlocks += 1;
                continue;
            }
            if failure.breaks || session.is_closed() {
                place.session = None;
                // The others broke with it: a server that was restarted breaks all.
                self.close();
                if used && tries == Tries::Again {
                    used = false;
                    continue;
                }
            }
            return Err(failure);
        }
    }

    /// Closes what is idle.
    pub(super) fn close(&self) {
        let idle = std::mem::take(&mut self.state.lock().idle);
        drop(idle);
    }

    fn place(&self) -> std::result::Result<Place<'_>, Failure> {
        let mut state = self.state.lock();
        while state.in_use >= self.most {
            if self.freed.wait_for(&mut state, PATIENCE).timed_out() {
                let why = "all connections to PostgreSQL are in use".to_owned();
                return Err(Error::Unavailable(why).into());
            }
        }
        state.in_use += 1;
        let session = state.idle.pop().filter(|session| !session.is_closed());
        Ok(Place {
            pool: self,
            session,
        })
    }
}

/// The right to one connection.
struct Place<'p> {
    pool: &'p Pool,
    session: Option<Session>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.in_use -= 1;
        state.idle.extend(self.session.take());
        self.pool.freed.notify_one();
    }
}
