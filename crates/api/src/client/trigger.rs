//! What starts runs of workflows by itself.

use super::{Client, Result, encoded, query};
use crate::http::{ByPerson, HookView, TriggerPage, TriggerQuery, TriggerView};

/// What can be asked of triggers.
pub trait TriggerCalls: Send + Sync {
    /// Triggers by workflow and name.
    fn triggers(&self, which: &TriggerQuery) -> Result<TriggerPage>;
    /// One of them.
    fn trigger(&self, workflow: &str, name: &str) -> Result<TriggerView>;
    /// It starts nothing until it is resumed.
    fn pause_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView>;
    /// It goes on from now.
    fn resume_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView>;
    /// Where a webhook is called.
    fn hook(&self, workflow: &str, name: &str) -> Result<HookView>;
    /// It is called at another address from now on.
    fn rotate_hook(&self, workflow: &str, name: &str) -> Result<HookView>;
}

fn address(workflow: &str, name: &str) -> String {
    format!(
        "/workflows/{}/triggers/{}",
        encoded(workflow),
        encoded(name)
    )
}

impl TriggerCalls for Client {
    fn triggers(&self, which: &TriggerQuery) -> Result<TriggerPage> {
        self.get(&format!("/triggers{}", query(which)))
    }

    fn trigger(&self, workflow: &str, name: &str) -> Result<TriggerView> {
        self.get(&address(workflow, name))
    }

    fn pause_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView> {
        let by = ByPerson { by: by.to_owned() };
        self.post(&format!("{}/pause", address(workflow, name)), &by)
    }

    fn resume_trigger(&self, workflow: &str, name: &str, by: &str) -> Result<TriggerView> {
        let by = ByPerson { by: by.to_owned() };
        self.post(&format!("{}/resume", address(workflow, name)), &by)
    }

    fn hook(&self, workflow: &str, name: &str) -> Result<HookView> {
        self.get(&format!("{}/hook", address(workflow, name)))
    }

    fn rotate_hook(&self, workflow: &str, name: &str) -> Result<HookView> {
        let nothing = serde_json::json!({});
        self.post(
            &format!("{}/hook/rotate", address(workflow, name)),
            &nothing,
        )
    }
}
