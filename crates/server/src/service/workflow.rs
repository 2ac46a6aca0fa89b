//! Workflows and their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::client::{Result, WorkflowCalls};
use kapell_api::http::{
    RegisterWorkflow, Registered, Version, VersionPage, WorkflowPage, WorkflowSummary,
};
use kapell_node::clock;
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
            let row = register::row(workflow, clock::now())?;
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
        let workflows = found
            .into_iter()
            .map(|(name, version)| WorkflowSummary {
                runs: counts.remove(&name).unwrap_or_default(),
                name: name.to_string(),
                version,
            })
            .collect();
        Ok(WorkflowPage { workflows, next })
    }

    fn version(&self, workflow: &str, number: Option<u32>) -> Result<Version> {
        let row = self
            .store
            .version(NAMESPACE, workflow, number)
            .map_err(failure)?;
        let row = row.ok_or_else(|| no_version(workflow, number))?;
        Ok(version(&row, row.source.to_string()))
    }

    fn versions(&self, workflow: &str, before: Option<u32>, limit: usize) -> Result<VersionPage> {
        let newest = match before {
            Some(before) => before.saturating_sub(1),
            None => self.version(workflow, None)?.version,
        };
        let mut found = VersionPage::default();
        for number in (1..=newest).rev() {
            if found.versions.len() == page(limit) {
                found.next = Some(number + 1);
                break;
            }
            if let Some(row) = self
                .store
                .version(NAMESPACE, workflow, Some(number))
                .map_err(failure)?
            {
                found.versions.push(version(&row, String::new()));
            }
        }
        Ok(found)
    }
}

fn version(row: &VersionRow, source: String) -> Version {
    Version {
        workflow: row.workflow.to_string(),
        version: row.version,
        hash: row.hash.to_string(),
        created_at: row.created_at,
        source,
    }
}
