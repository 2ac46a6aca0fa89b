//! Threads for work that blocks: a bounded pool that grows as it is needed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

type Errand = Box<dyn FnOnce() + Send>;

/// A pool of threads.
pub(crate) struct Pool {
    name: &'static str,
    most: usize,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    errands: VecDeque<Errand>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Pool {
    /// A pool of at most `most` threads; none is started before it is needed.
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        Self {
            name,
            most,
            state: Arc::default(),
        }
    }

    /// Runs an errand as soon as a thread is free.
    pub(crate) fn run(&self, errand: impl FnOnce() + Send + 'static) {
        let (lock, wake) = &*self.state;
        let mut state = lock.lock();
        state.errands.push_back(Box::new(errand));
        if state.idle == 0 && state.threads.len() < self.most {
            let shared = Arc::clone(&self.state);
            // With no thread at all the errand waits for the next one that can be made.
            state.threads.extend(
                Builder::new()
                    .name(self.name.into())
                    .spawn(move || work(&shared)),
            );
        }
        drop(state);
        wake.notify_one();
    }

    /// Drops waiting errands; threads end after the one they are at.
    pub(crate) fn close(&self) {
        let mut state = self.state.0.lock();
        state.closed = true;
        state.errands.clear();
        drop(state);
        self.state.1.notify_all();
    }

    /// Waits until all threads have ended.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut self.state.0.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn work(shared: &(Mutex<State>, Condvar)) {
    let (lock, wake) = shared;
    let mut state = lock.lock();
    loop {
        if let Some(errand) = state.errands.pop_front() {
            drop(state);
            errand();
            state = lock.lock();
        } else if state.closed {
            return;
        } else {
            state.idle += 1;
            wake.wait(&mut state);
            state.idle -= 1;
        }
    }
}
