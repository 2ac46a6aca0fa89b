//! What starts runs of workflows by itself.

use kapell_api::client::{Result, TriggerCalls};
use kapell_api::http::{HookOutcome, HookTaken, HookView, TriggerPage, TriggerQuery, TriggerView};
use kapell_engine::Ask;
use kapell_model::{EntityKey, Error, ErrorCode, RunId};
use kapell_store::Order;

use super::{Service, page, read};
use crate::hooks::{self, Call};
use crate::register::NAMESPACE;
use crate::rows::failure;

/// Between a workflow and a trigger in `next` of a page: no name has it.
const BETWEEN: char = '/';

fn key(workflow: &str, name: &str) -> EntityKey {
    EntityKey::Trigger {
        namespace: NAMESPACE.into(),
        workflow: workflow.into(),
        name: name.into(),
    }
}

/// A trigger as its document, or its own answer, says.
fn view(key: &EntityKey, document: serde_json::Result<TriggerView>) -> Result<TriggerView> {
    let EntityKey::Trigger { workflow, name, .. } = key else {
        return Err(super::unexpected());
    };
    let mut view = read(&format!("the trigger `{name}` of `{workflow}`"), document)?;
    (view.workflow, view.name) = (workflow.to_string(), name.to_string());
    Ok(view)
}

pub(super) fn unknown(workflow: &str, name: &str) -> Error {
    let message = format!("`{workflow}` has no trigger `{name}`");
    Error::new(ErrorCode::TriggerNotFound, message).hint(
        "`kapell triggers` lists them; a removed one belonged to a version before the active one",
    )
}

/// The refusal of a call that no run can be made of.
fn unusable(name: &str, why: &str) -> Error {
    let message = if why.is_empty() {
        format!("the call of the webhook `{name}` starts no run")
    } else {
        format!("the call of the webhook `{name}` starts no run: {why}")
    };
    Error::new(ErrorCode::BadParams, message)
        .hint("the body is `signal.payload`, of which `with` of the trigger makes the parameters")
}

impl Service {
    fn set_trigger(&self, workflow: &str, name: &str, verb: &str, ask: Ask) -> Result<TriggerView> {
        let path = format!("/workflows/{workflow}/triggers/{name}/{verb}");
        self.audit.change(
            "POST",
            &path,
            |_| String::new(),
            || {
                let key = key(workflow, name);
                let answer = self.ask_small(key.clone(), ask)?;
                view(&key, serde_json::from_value(answer.to_json()))
            },
        )
    }

    /// Somebody calls a webhook.
    pub(crate) fn call_hook(&self, token: &str, path: &str, call: &Call) -> Result<HookTaken> {
        let hook = self.hooks.find(NAMESPACE, token, path)?;
        let signal = self.hooks.check(&hook, call)?;
        let id = signal.id.to_string();
        let key = key(&hook.workflow, &hook.name);
        let answer = match self.ask_small(key.clone(), Ask::Deliver(Box::new(signal))) {
            Ok(answer) => answer.to_json(),
            // It was removed after its address was found.
            Err(error) if error.code == ErrorCode::TriggerNotFound => {
                return Err(hooks::nothing_here());
            }
            Err(error) => return Err(error),
        };
        let run = answer["run"].as_str().and_then(|run| run.parse().ok());
        let outcome = match (answer["outcome"].as_str(), run) {
            (Some("started"), Some(run)) => {
                self.check_started(&hook.name, &key, run)?;
                HookOutcome::Started
            }
            (Some("duplicate"), _) => HookOutcome::Duplicate,
            (Some("declined"), _) => HookOutcome::Declined,
            _ => {
                let why = answer["error"].as_str().unwrap_or_default();
                return Err(unusable(&hook.name, why));
            }
        };
        Ok(HookTaken { id, outcome, run })
    }

    /// A start that is refused makes no run in the commit that takes the call: the trigger says why.
    fn check_started(&self, name: &str, key: &EntityKey, run: RunId) -> Result<()> {
        if self.store.run(run).map_err(failure)?.is_some() {
            return Ok(());
        }
        let document = self.document(key)?;
        let view = document.and_then(|text| serde_json::from_str::<TriggerView>(&text).ok());
        let problem = view.and_then(|view| view.problem);
        let problem = problem.filter(|problem| problem.run == Some(run));
        Err(unusable(
            name,
            problem.as_ref().map_or("", |problem| &problem.message),
        ))
    }
}

impl TriggerCalls for Service {
    fn triggers(&self, which: &TriggerQuery) -> Result<TriggerPage> {
        let limit = page(which.limit);
        let mut prefix = key(which.workflow.as_deref().unwrap_or_default(), "").to_bytes();
        if which.workflow.is_none() {
            // Of all workflows: without the byte before the name.
            prefix.truncate(prefix.len() - 1);
        }
        let after = match &which.after {
            None => None,
            Some(after) => {
                let (workflow, name) = after.split_once(BETWEEN).ok_or_else(|| {
                    let message = format!("`{after}` is no place in the list of triggers");
                    Error::new(ErrorCode::BadRequest, message)
                        .hint("give `next` of the page before as `after`")
                })?;
                Some(key(workflow, name).to_bytes())
            }
        };
        let found = self
            .store
            .documents(&prefix, after.as_deref(), Order::Forward, limit + 1)
            .map_err(failure)?;
        let more = found.len() > limit;
        let mut triggers = Vec::with_capacity(found.len().min(limit));
        for (bytes, text) in found.iter().take(limit) {
            if let Some(key) = EntityKey::from_bytes(bytes) {
                triggers.push(view(&key, serde_json::from_str(text))?);
            }
        }
        let next = triggers.last().filter(|_| more);
        let next = next.map(|last| format!("{}{BETWEEN}{}", last.workflow, last.name));
        Ok(TriggerPage { triggers, next })
    }

    fn trigger(&self, workflow: &str, name: &str) -> Result<TriggerView> {
        let key = key(workflow, name);
        let text = self
            .document(&key)?
            .ok_or_else(|| unknown(workflow, name))?;
        view(&key, serde_json::from_str(&text))
    }

    fn pause_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView> {
        let by = by.to_owned();
        self.set_trigger(workflow, name, "pause", Ask::PauseTrigger { by })
    }

    fn resume_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView> {
        let by = by.to_owned();
        self.set_trigger(workflow, name, "resume", Ask::ResumeTrigger { by })
    }

    fn hook(&self, workflow: &str, name: &str) -> Result<HookView> {
        let trigger = self.trigger(workflow, name)?;
        let Some(path) = &trigger.on.path else {
            let message = format!("the trigger `{name}` of `{workflow}` is no webhook");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint("one with `webhook:` in the workflow file has an address"));
        };
        let hook = self
            .hooks
            .read(NAMESPACE, workflow, name, trigger.version)?
            .ok_or_else(|| unknown(workflow, name))?;
        Ok(HookView {
            path: (self.hooks).address(NAMESPACE, (workflow, name), trigger.address, path)?,
            signed: hook.secret.is_some(),
        })
    }

    fn rotate_hook(&self, workflow: &str, name: &str) -> Result<HookView> {
        self.set_trigger(workflow, name, "rotate", Ask::RotateTrigger)?;
        self.hooks.look_again();
        self.hook(workflow, name)
    }
}
