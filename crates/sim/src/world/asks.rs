//! What people ask, and what they are answered.

use kapell_node::lane::Input;
use kapell_node::{Answer, ClientRequest, ReplyId};

use super::brief::brief_answer;
use super::{Asked, Happening, World};
use crate::asks::Asker;
use crate::scenario::Ask;

impl World<'_> {
    pub(super) fn ask(&mut self, ask: &Ask) {
        if self.lane.is_none() {
            self.plan(1_000_000, Happening::AskAgain(ask.clone()));
            return;
        }
        if let Ask::Register { workflow } = *ask {
            match self.register(workflow) {
                Ok(()) => self.give_lane(Input::VersionsChanged),
                Err(error) => self.fail("generator", error),
            }
            return;
        }
        let asker = Asker {
            checks: &self.checks,
            workflows: &self.scenario.workflows,
            wall: self.wall(),
            by: format!("sim-{}", self.replies + 1),
        };
        if let Some(request) = asker.request(ask) {
            self.send(request);
        }
    }

    pub(super) fn send(&mut self, request: ClientRequest) {
        self.checks.asked(&request);
        if self.comes_twice(&request) {
            self.give(request.clone());
        }
        self.give(request);
    }

    fn give(&mut self, request: ClientRequest) {
        self.replies += 1;
        let reply = ReplyId(self.replies);
        self.asked.insert(
            reply,
            Asked {
                request: request.clone(),
                at: self.now,
            },
        );
        self.give_lane(Input::Request(reply, request));
    }

    pub(super) fn answered(&mut self, reply: ReplyId, answer: Result<Answer, kapell_model::Error>) {
        let Some(asked) = self.asked.remove(&reply) else {
            self.fail(
                "answers",
                format!("an answer to {reply:?}, which nobody asked or which had one"),
            );
            return;
        };
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
            Err(error) if error.code == kapell_model::ErrorCode::DiskFull => {
                let verdict = self.checks.refused(&asked.request);
                self.judge(verdict);
            }
            Err(_) => {}
        }
    }
}
