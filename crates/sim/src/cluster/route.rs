//! Requests find the node that owns what they are about, as `node::drive::route` sends them.

use std::collections::BTreeMap;

use kapell_model::{Error, ErrorCode, NodeId};
use kapell_node::lane::Input;
use kapell_node::request::wire;
use kapell_node::{Answer, ClientRequest, ReplyId};

use super::{Cluster, Happening};
use crate::world::brief::brief_answer;

/// How long the owner of a request is looked for.
const PATIENCE: i64 = 15_000_000;

/// How long an answer of another node may take.
const ANSWER: i64 = 30_000_000;

/// Between two tries to find the owner.
const FIRST_PAUSE: i64 = 20_000;
const LAST_PAUSE: i64 = 1_000_000;

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    request: ClientRequest,
    /// Where the client asked, in which life of it.
    at: usize,
    life: u64,
    until: i64,
    pause: i64,
    asked_at: i64,
    /// It is a part of another one, which is answered once all are.
    part_of: Option<u64>,
    parts: usize,
}

/// Who asked a lane.
pub(super) enum From {
    /// A client of this node.
    Here(u64),
    /// Another node, on this connection, by this number.
    Node(NodeId, u64, u64),
}

impl Cluster<'_> {
    /// Somebody asks any node that is there; false if none is.
    pub(super) fn send(&mut self, request: ClientRequest) -> bool {
        let up = |at: &usize| {
            let node = &self.nodes[*at];
            node.process.is_some() && node.paused_until <= self.now
        };
        let up: Vec<usize> = (0..self.nodes.len()).filter(up).collect();
        if up.is_empty() {
            return false;
        }
        let at = *self.rng.pick(&up);
        self.checks.asked(&request);
        self.ask_from(at, request, None);
        true
    }

    fn ask_from(&mut self, at: usize, request: ClientRequest, part_of: Option<u64>) {
        self.last_ask += 1;
        let asked = Asked {
            request,
            at,
            life: self.nodes[at].life,
            until: self.now + PATIENCE,
            pause: FIRST_PAUSE,
            asked_at: self.now,
            part_of,
            parts: 0,
        };
        self.asks.insert(self.last_ask, asked);
        self.plan(0, Happening::Route(self.last_ask));
    }

    /// Asks whoever owns what a request is about.
    pub(super) fn route(&mut self, ask: u64) {
        let Some(asked) = self.asks.get(&ask) else {
            return;
        };
        let (at, request) = (asked.at, asked.request.clone());
        let Some(process) = self.nodes[at].process.as_ref() else {
            return;
        };
        let owners = request
            .shards()
            .into_iter()
            .map(|shard| process.owner(shard));
        let owners: Vec<NodeId> = owners.flatten().collect();
        let here = owners.contains(&process.id) || request.shards().is_empty();
        match owners.first().filter(|_| !here) {
            _ if here => self.ask_lane(at, request, From::Here(ask)),
            Some(owner) => {
                let owner = *owner;
                match wire::request_to_bytes(&request) {
                    Ok(bytes) => {
                        if !self.ask_node(at, owner, ask, bytes) {
                            self.again(ask);
                        }
                    }
                    Err(error) => self.answered(ask, Err(error)),
                }
            }
            None => self.again(ask),
        }
    }

    fn ask_lane(&mut self, at: usize, request: ClientRequest, from: From) {
        self.replies += 1;
        let reply = ReplyId(self.replies);
        if let Some(process) = self.process(at) {
            process.replies.insert(reply, from);
        }
        self.give_lane(at, Input::Request(reply, request));
    }

    /// Another node asks.
    pub(super) fn is_asked(
        &mut self,
        at: usize,
        (from, number, ask): (NodeId, u64, u64),
        bytes: &[u8],
    ) {
        match wire::request_from_bytes(bytes) {
            Ok(request) => self.ask_lane(at, request, From::Node(from, number, ask)),
            Err(error) => self.fail("wire", format!("a request cannot be read: {error}")),
        }
    }

    /// The lane of a node answers.
    pub(super) fn lane_replies(
        &mut self,
        at: usize,
        reply: ReplyId,
        answer: Result<Answer, Error>,
    ) {
        let from = self.process(at).and_then(|own| own.replies.remove(&reply));
        match from {
            None => self.fail(
                "answers",
                format!("an answer to {reply:?}, which nobody asked or which had one"),
            ),
            Some(From::Here(ask)) => self.replied(ask, answer),
            Some(From::Node(node, number, ask)) => match wire::answer_to_bytes(&answer) {
                Ok(bytes) => self.answer_node(at, node, (number, ask), bytes),
                Err(error) => self.fail("wire", format!("an answer cannot be said: {error}")),
            },
        }
    }

    /// Another node has answered.
    pub(super) fn is_told(
        &mut self,
        at: usize,
        (from, number, name): (NodeId, u64, u64),
        bytes: &[u8],
    ) {
        let link = self.process(at).and_then(|own| own.links.get_mut(&from));
        let link = link.filter(|link| link.number == Some(number));
        if let Some(ask) = link.and_then(|link| link.asks.remove(&name)) {
            self.replied(ask, wire::answer_from_bytes(bytes));
        }
    }

    /// Whoever was asked has answered.
    fn replied(&mut self, ask: u64, answer: Result<Answer, Error>) {
        let Some(asked) = self.asks.get_mut(&ask) else {
            return;
        };
        match answer {
            Err(error) if error.code == ErrorCode::NotHere => self.again(ask),
            Err(error)
                if matches!(asked.request, ClientRequest::Settle { .. })
                    && error.code.retryable() =>
            {
                self.again(ask);
            }
            Ok(Answer::Sent(shards)) => {
                asked.parts = shards.len();
                let at = asked.at;
                for shard in shards {
                    self.ask_from(at, ClientRequest::Settle { shard }, Some(ask));
                }
            }
            answer => self.answered(ask, answer),
        }
    }

    /// No answer comes any more, and it may have been done.
    pub(super) fn unanswered(&mut self, ask: u64) {
        let Some(asked) = self.asks.get(&ask) else {
            return;
        };
        if asked.request.is_repeatable() {
            self.again(ask);
        } else {
            let unknown = Error::new(ErrorCode::StoreUnavailable, "the outcome is unknown");
            self.answered(ask, Err(unknown));
        }
    }

    fn again(&mut self, ask: u64) {
        let now = self.now;
        let Some(asked) = self.asks.get_mut(&ask) else {
            return;
        };
        let pause = asked.pause;
        if now + pause > asked.until {
            let not_here = Error::new(ErrorCode::NotHere, "nobody owns it");
            self.answered(ask, Err(not_here));
            return;
        }
        asked.pause = (pause * 2).min(LAST_PAUSE);
        self.plan(pause, Happening::Route(ask));
    }

    /// A client is answered.
    fn answered(&mut self, ask: u64, answer: Result<Answer, Error>) {
        let Some(asked) = self.asks.remove(&ask) else {
            return;
        };
        if let Some(whole) = asked.part_of {
            // If an owner does not say so in time it is durable all the same.
            let parts = self.asks.get_mut(&whole).map(|whole| {
                whole.parts = whole.parts.saturating_sub(1);
                whole.parts
            });
            if parts == Some(0) {
                self.answered(whole, Ok(Answer::Done));
            }
            return;
        }
        self.trace(4, &[u8::from(answer.is_ok())]);
        self.note(|| match &answer {
            Ok(answer) => format!("answer to {:?}: {}", asked.request, brief_answer(answer)),
            Err(error) => format!("answer to {:?}: {}", asked.request, error.message),
        });
        match answer {
            Ok(answer) => {
                let verdict = self.checks.answered(&asked.request, &answer, &self.store);
                self.judge(verdict);
            }
            Err(error) if error.code == ErrorCode::DiskFull => {
                let verdict = self.checks.refused(&asked.request);
                self.judge(verdict);
            }
            Err(_) => {}
        }
    }

    /// A node is gone, and with it clients' connections to it.
    pub(super) fn forget_asks(&mut self, at: usize, _replies: BTreeMap<ReplyId, From>) {
        let life = self.nodes[at].life;
        self.asks
            .retain(|_, asked| asked.at != at || asked.life >= life);
    }

    /// Whoever waits for an answer longer than all patience waits for ever.
    pub(super) fn overdue(&self) -> Option<String> {
        let since = self.now - 2 * (PATIENCE + ANSWER) - 600_000_000;
        let asked = self.asks.values().find(|asked| asked.asked_at < since)?;
        Some(format!(
            "nobody answers {:?}, asked at {}",
            asked.request, asked.asked_at
        ))
    }
}
