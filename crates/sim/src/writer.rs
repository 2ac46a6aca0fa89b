//! The thread of a node that commits: one at a time, in order, and nothing on top of what failed.

use std::collections::VecDeque;
use std::sync::Arc;

use kapell_expr::BlobRef;
use kapell_store::Commit;

/// What goes to the store.
#[derive(Debug)]
pub(crate) struct Write {
    pub commit: Arc<Commit>,
    /// To be stored before.
    pub contents: Vec<(BlobRef, Vec<u8>)>,
    /// It is made on top of the one before.
    pub follows: bool,
}

/// What becomes of a commit that waited.
#[derive(Debug)]
pub(crate) enum Next {
    /// It goes to the store.
    Send(Write),
    /// It is refused: the one before it failed.
    Refuse,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    waiting: VecDeque<Write>,
    busy: bool,
    failed: bool,
}

impl Writer {
    /// Takes a commit.
    pub(crate) fn push(&mut self, write: Write) -> Vec<Next> {
        self.waiting.push_back(write);
        self.next()
    }

    /// The commit at the store has ended.
    pub(crate) fn ended(&mut self, failed: bool) -> Vec<Next> {
        self.busy = false;
        self.failed = failed;
        self.next()
    }

    fn next(&mut self) -> Vec<Next> {
        let mut next = Vec::new();
        while !self.busy
            && let Some(write) = self.waiting.pop_front()
        {
            if self.failed && write.follows {
                next.push(Next::Refuse);
            } else {
                self.busy = true;
                next.push(Next::Send(write));
            }
        }
        next
    }
}
