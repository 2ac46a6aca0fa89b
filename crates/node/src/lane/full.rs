//! A store without room: what is asked is refused, what is under way waits and is tried again.
//!
//! The first write that finds no room was not made, so all memory is dropped, as after any commit that
//! did not land, and clients that waited for it are refused. From then on requests are refused as they
//! come: one that was refused never takes effect. Each second shards are acquired anew, which is a
//! write; once that has found room, reports of workers and what fell due are decided again. There is
//! room once such a commit has landed, or when nothing was left to be written.

use kapell_model::{Error, ErrorCode};

use super::{Lane, Output, ReplyId};

/// What clients are told.
pub(super) fn refusal() -> Error {
    Error::new(
        ErrorCode::DiskFull,
        "the disk is full: nothing new is taken, and nothing was changed",
    )
    .hint("make room, then ask again; what is under way goes on by itself then")
}

impl Lane {
    /// True while the store has no room: requests are refused.
    pub fn store_is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// True if the lane may end: nothing is under way, or what is cannot be written.
    pub fn may_stop(&self) -> bool {
        self.is_quiet() || self.store_is_full() && self.committing.is_empty()
    }

    pub(super) fn refuse_for_room(&mut self, reply: ReplyId) {
        self.out.push(Output::Reply(reply, Err(refusal())));
    }

    /// A write found no room and was not made.
    pub(super) fn no_room(&mut self, error: &str) {
        if self.full_since.is_none() {
            tracing::error!(%error, "the disk is full: requests are refused; trying again each second");
            self.full_since = Some(self.now);
        }
        for (reply, _) in std::mem::take(&mut self.requests) {
            self.refuse_for_room(reply);
        }
    }

    /// A write found room.
    pub(super) fn has_room(&mut self) {
        if let Some(since) = self.full_since.take() {
            let seconds = self.now.since(since).as_secs();
            tracing::info!(seconds, "the disk has room again");
        }
    }

    /// Without anything to write, shards that were acquired anew say that there is room.
    pub(super) fn look_for_room(&mut self) {
        if self.store_is_full() && self.holds == 0 && self.is_quiet() {
            self.has_room();
        }
    }
}
