//! What waits becomes part of the open batch: mail, reports, requests.

use kapell_model::{Error, limits};

use super::{Lane, ToEntity, fork, start};
use crate::request::{Answer, ClientRequest, ReplyId};

/// Inputs taken at a time.
const TURN: usize = 256;

/// Requests in one batch.
const REQUESTS: usize = 1_024;

/// Reports that may be taken before a request that waits, and then between two requests.
const BEFORE_REQUEST: usize = 1_024;
const BETWEEN_REQUESTS: usize = 16;

impl Lane {
    /// True if the open batch takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.open.inputs >= limits::COMMIT_INPUTS || self.open.bytes >= limits::COMMIT_BYTES
    }

    /// True if inputs wait that the open batch takes.
    pub(super) fn has_waiting(&self) -> bool {
        let requests = !self.requests.is_empty() && self.open.requests < REQUESTS;
        (requests || !self.reports.is_empty() || self.post.is_waiting())
            && !self.recovering
            && !self.broken
            && !self.is_full()
    }

    /// Takes some of what waits and fits the open batch: reports first, so that work under way ends
    /// and leaves memory before new work comes, but not for ever. The rest is taken with the next tick, at once, so that
    /// a commit that ends meanwhile is followed by the next.
    pub(super) fn take_waiting(&mut self) {
        self.take_mail();
        let end = self.open.inputs + TURN;
        while self.open.inputs < end && self.has_waiting() {
            let before = self.open.inputs;
            let asked = !self.requests.is_empty() && self.open.requests < REQUESTS;
            let first = asked && self.passed >= BEFORE_REQUEST;
            if let Some(reports) = self.reports.front_mut().filter(|_| !first) {
                match reports.front().map(|report| report.run) {
                    Some(run) => self.reports_of(run, end),
                    None => drop(self.reports.pop_front()),
                }
                self.passed += self.open.inputs - before;
            } else if let Some((reply, request)) = self.requests.pop_front() {
                self.open.inputs += 1;
                self.open.requests += 1;
                self.passed = self.passed.saturating_sub(BETWEEN_REQUESTS);
                self.request(reply, request);
            }
            if self.requests.is_empty() {
                self.passed = 0;
            }
            self.run_again();
        }
    }

    pub(super) fn request(&mut self, reply: ReplyId, request: ClientRequest) {
        match request {
            ClientRequest::Start(start) => {
                self.start(start::Making::from_client(reply, *start));
            }
            ClientRequest::Run { run, request } => {
                self.submit(run.into(), ToEntity::Request(reply, request), false);
            }
            ClientRequest::View { run } => self.submit(run.into(), ToEntity::View(reply), false),
            ClientRequest::ViewStep { run, step } => {
                self.submit(run.into(), ToEntity::ViewStep(reply, step), false);
            }
            ClientRequest::Evaluate {
                run,
                step,
                expression,
            } => self.submit(
                run.into(),
                ToEntity::Evaluate(reply, step, expression),
                false,
            ),
            ClientRequest::Fork {
                run,
                from,
                params,
                text,
                version,
                by,
                idempotency_key,
            } => {
                let forking = fork::Forking {
                    id: fork::Forking::id(run, idempotency_key.as_deref()),
                    from,
                    params,
                    text,
                    version,
                    by,
                };
                self.submit(run.into(), ToEntity::Fork(reply, Box::new(forking)), false);
            }
            ClientRequest::Ask { key, ask } => {
                self.submit(key, ToEntity::Ask(Some(reply), ask), false);
            }
            ClientRequest::AskTogether(asks) => self.ask_together(reply, Vec::new(), asks),
            ClientRequest::Deploy { versions, asks } => self.ask_together(reply, versions, asks),
            ClientRequest::Dismiss { run } => {
                self.submit(run.into(), ToEntity::Dismiss(reply), false);
            }
            ClientRequest::Settle { shard } => self.settle(reply, shard),
        }
    }

    pub(super) fn reply(&mut self, reply: ReplyId, answer: Result<Answer, Error>) {
        self.open.replies.push((reply, answer));
    }
}
