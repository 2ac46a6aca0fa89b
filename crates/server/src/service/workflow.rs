//! Workflows and their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::client::{Result, WorkflowCalls};
use kapell_api::http::{
    RegisterWorkflow, Registered, Version, VersionPage, WorkflowPage, WorkflowState,
    WorkflowSummary,
};
use kapell_engine::run_queue::Settings;
use kapell_model::{Error, ErrorCode};
use kapell_node::{ClientRequest, clock};
use kapell_store::VersionRow;

use super::{Service, no_version, page};
use crate::register::{self, NAMESPACE};
use crate::rows::failure;

impl WorkflowCalls for Service {
    fn register(&self, workflow: &RegisterWorkflow) -> Result<Registered> {
        let what = |made: Option<&Registered>| match made {
            Some(made) => format!("workflow `{}`, version {}", made.workflow, made.version),
            None => format!("file `{}`", workflow.file),
        };
        self.audit.change("POST", "/workflows", what, || {
            let (row, spec) = register::checked(workflow, clock::now())?;
            let _alone = self.definitions.lock();
            self.check_locks(&[(&row.workflow, &spec)], &[])?;
            if let Some(told) = self.told_too(&row.workflow)? {
                self.ask(ClientRequest::AskTogether(vec![told]))?;
            }
            let number = self.store.register(&row).map_err(failure)?;
            if let Some(node) = &self.node {
                node.versions_changed();
            }
            Ok(Registered {
                workflow: row.workflow.to_string(),
                version: number,
            })
        })
    }

    fn workflows(&self, after: &str, limit: usize) -> Result<WorkflowPage> {
        let limit = page(limit);
        let mut found = self
            .store
            .list_workflows(NAMESPACE, after, limit + 1)
            .map_err(failure)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let mut counts: BTreeMap<Arc<str>, BTreeMap<String, u64>> = BTreeMap::new();
        for (workflow, status, count) in self.store.run_counts(NAMESPACE).map_err(failure)? {
            counts
                .entry(workflow)
                .or_default()
                .insert(status.name().to_owned(), count);
        }
        let next = found.last().filter(|_| more);
        let next = next.map(|(name, _)| name.to_string());
        let workflows = found.into_iter().map(|(name, version)| {
            Ok(WorkflowSummary {
                runs: counts.remove(&name).unwrap_or_default(),
                state: state(&self.settings(&name)?, version),
                name: name.to_string(),
                version,
            })
        });
        let workflows = workflows.collect::<Result<_>>()?;
        Ok(WorkflowPage { workflows, next })
    }

    fn version(&self, workflow: &str, number: Option<u32>) -> Result<Version> {
        let row = self.version_row(workflow, number)?;
        Ok(version(&row, row.source.to_string()))
    }

    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage> {
        if before.is_none() {
            self.known(workflow)?;
        }
        let limit = page(limit);
        let mut rows = self
            .store
            .versions(NAMESPACE, workflow, before, limit + 1)
            .map_err(failure)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().map(|row| row.version);
        Ok(VersionPage {
            next: last.filter(|_| more),
            versions: rows.iter().map(|row| version(row, String::new())).collect(),
        })
    }
}

impl Service {
    /// A version; none is the active one.
    pub(super) fn version_row(&self, workflow: &str, number: Option<u32>) -> Result<VersionRow> {
        let row = self.store.version(NAMESPACE, workflow, number);
        if let Some(row) = row.map_err(failure)? {
            return Ok(row);
        }
        self.known(workflow)?;
        if number.is_some() {
            let hint = format!("`kapell workflow versions {workflow}` lists them");
            return Err(no_version(workflow, number).hint(hint));
        }
        let message = format!("no version of workflow `{workflow}` is active");
        Err(Error::new(ErrorCode::WorkflowNotFound, message).hint(format!(
            "`kapell workflow versions {workflow}` lists them, `kapell workflow activate {workflow} NUMBER` makes one the active one"
        )))
    }

    /// Refuses a name of which nothing is known.
    pub(super) fn known(&self, workflow: &str) -> Result<()> {
        let newest = self
            .store
            .versions(NAMESPACE, workflow, None, 1)
            .map_err(failure)?;
        if newest.is_empty() {
            return Err(no_version(workflow, None));
        }
        Ok(())
    }
}

fn state(settings: &Settings, active: u32) -> WorkflowState {
    match active {
        _ if settings.deleted => WorkflowState::Deleted,
        0 => WorkflowState::Inactive,
        _ if settings.stopped() => WorkflowState::Paused,
        _ => WorkflowState::Active,
    }
}

fn version(row: &VersionRow, source: String) -> Version {
    Version {
        workflow: row.workflow.to_string(),
        version: row.version,
        hash: row.hash.to_string(),
        created_at: row.created_at,
        author: row.author.to_string(),
        source,
    }
}
