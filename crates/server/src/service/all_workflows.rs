//! What is said of all workflows at once: that they are paused, and where their new runs stop.
//!
//! It is one document, written first. The settings of each workflow, which its run queue and its triggers
//! go by, follow it; one that is new gets it with its first version, and a start finishes what a crash left
//! half done.

use kapell_api::client::Result;
use kapell_api::http::{Held, Hold};
use kapell_engine::Ask;
use kapell_engine::run::Break;
use kapell_engine::run_queue::{Change, Mark};
use kapell_model::{EntityKey, Error, ErrorCode, limits};
use kapell_node::{ClientRequest, clock};
use kapell_store::Order;
use serde::{Deserialize, Serialize};

use super::workflow_settings::check_by;
use super::{Service, read};
use crate::register::NAMESPACE;
use crate::rows::failure;

/// The key of the document.
const OF_ALL: &[u8] = &[76];

/// What is said of all workflows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OfAll {
    /// Who paused them, and when; none: they go on.
    mark: Option<Mark>,
    /// Breakpoints that each new run has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) breaks: Vec<Break>,
    /// All that there were then have been told.
    told: bool,
}

impl OfAll {
    /// Tells a workflow.
    fn ask(&self, workflow: &str) -> (EntityKey, Ask) {
        let change = Change {
            held: Some(self.mark.clone()),
            breaks_of_all: Some(self.breaks.clone()),
            ..Change::default()
        };
        (Service::queue_key(workflow), Ask::Change(Box::new(change)))
    }
}

impl Service {
    /// What is said of all workflows now.
    pub(super) fn of_all(&self) -> Result<OfAll> {
        let found = self.store.documents(OF_ALL, None, Order::Forward, 1);
        match found.map_err(failure)?.first() {
            Some((_, text)) => read("what holds for all workflows", serde_json::from_str(text)),
            None => Ok(OfAll {
                mark: None,
                breaks: Vec::new(),
                told: true,
            }),
        }
    }

    fn write_of_all(&self, of_all: &OfAll) -> Result<()> {
        let nothing = of_all.mark.is_none() && of_all.breaks.is_empty() && of_all.told;
        let text = serde_json::to_string(of_all);
        let text = text.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        let row = (OF_ALL.to_vec(), Some(text).filter(|_| !nothing));
        self.store.put_documents(&[row]).map_err(failure)
    }

    /// What a workflow that gets a version is told if it does not know what holds for all.
    pub(super) fn told_too(&self, workflow: &str) -> Result<Option<(EntityKey, Ask)>> {
        let of_all = self.of_all()?;
        let settings = self.settings(workflow)?;
        let knows = settings.held == of_all.mark && settings.breaks_of_all == of_all.breaks;
        Ok((!knows).then(|| of_all.ask(workflow)))
    }

    /// Pauses all workflows, or lets them go on.
    pub(super) fn hold_all(&self, hold: &Hold) -> Result<Held> {
        check_by(&hold.by)?;
        let mark = hold.paused.then(|| Mark {
            by: hold.by.clone(),
            at: clock::now().0,
        });
        self.change_all(|of_all| {
            of_all.mark = mark;
            Ok(())
        })
    }

    /// Changes what is said of all workflows, and tells each of them.
    pub(super) fn change_all(&self, change: impl FnOnce(&mut OfAll) -> Result<()>) -> Result<Held> {
        let _alone = self.definitions.lock();
        let mut of_all = self.of_all()?;
        change(&mut of_all)?;
        of_all.told = false;
        self.write_of_all(&of_all)?;
        self.tell_all(of_all)
    }

    /// Finishes what a process that ended left half done.
    pub(crate) fn finish_telling(&self) -> Result<()> {
        let of_all = self.of_all()?;
        if self.node.is_some() && !of_all.told {
            self.tell_all(of_all)?;
        }
        Ok(())
    }

    fn tell_all(&self, of_all: OfAll) -> Result<Held> {
        let mut workflows = 0;
        let mut after = String::new();
        loop {
            let page = self
                .store
                .list_workflows(NAMESPACE, &after, limits::LIST_PAGE)
                .map_err(failure)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = last.to_string();
            workflows += page.len() as u64;
            let asks = page.iter().map(|(name, _)| of_all.ask(name));
            self.ask(ClientRequest::AskTogether(asks.collect()))?;
        }
        self.write_of_all(&OfAll {
            told: true,
            ..of_all
        })?;
        Ok(Held { workflows })
    }
}
