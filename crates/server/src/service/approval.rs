//! What runs ask people.

use kapell_api::client::{ApprovalCalls, Result};
use kapell_api::http::{ApprovalPage, ApprovalQuery, ApprovalWaiting};
use kapell_engine::run::view;
use kapell_model::{EntityKey, RunId, Time, limits};
use kapell_store::Order;
use serde::Deserialize;

use super::{Service, page, read};
use crate::register::NAMESPACE;
use crate::rows::{self, failure};

/// The first byte of keys of runs, as [`EntityKey::to_bytes`] writes it.
const RUNS: &[u8] = &[1];

/// What a run's document says of its questions.
#[derive(Deserialize)]
struct Asking {
    namespace: String,
    workflow: String,
    version: u32,
    approvals: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    step: String,
    #[serde(default)]
    label: Option<String>,
    asked_at: Option<String>,
    approval: view::ApprovalView,
}

impl ApprovalCalls for Service {
    fn approvals(&self, which: &ApprovalQuery) -> Result<ApprovalPage> {
        let limit = page(which.limit);
        let groups: Vec<&str> = which.groups.split(',').map(str::trim).collect();
        let mut last = which.after.map(|run| EntityKey::from(run).to_bytes());
        let mut found = ApprovalPage::default();
        loop {
            let documents = self
                .store
                .documents(RUNS, last.as_deref(), Order::Forward, limits::LIST_PAGE)
                .map_err(failure)?;
            let full = documents.len() == limits::LIST_PAGE;
            for (bytes, text) in documents {
                let Some(EntityKey::Run(run)) = EntityKey::from_bytes(&bytes) else {
                    continue;
                };
                if found.approvals.len() >= limit {
                    found.next = found.approvals.last().map(|last| last.run);
                    return Ok(found);
                }
                let asking: Asking = read(&format!("run {run}"), serde_json::from_str(&text))?;
                if asking.namespace == NAMESPACE {
                    found
                        .approvals
                        .extend(questions(run, asking).filter(|question| {
                            let by = which.by.as_deref();
                            by.is_none_or(|by| question.approval.is_for(by, &groups))
                        }));
                }
                last = Some(bytes);
            }
            if !full {
                return Ok(found);
            }
        }
    }
}

fn questions(run: RunId, asking: Asking) -> impl Iterator<Item = ApprovalWaiting> {
    let Asking {
        workflow,
        version,
        approvals,
        ..
    } = asking;
    approvals.into_iter().map(move |question| ApprovalWaiting {
        run,
        workflow: workflow.clone(),
        version,
        step: question.step,
        label: question.label,
        asked_at: question
            .asked_at
            .and_then(|at| at.parse::<jiff::Timestamp>().ok())
            .map(Time::from),
        approval: rows::approval(question.approval),
    })
}
