//! Putting workflows in force. What is said of them beside their versions is in `workflow_settings`.

mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::client::{DeployCalls, Result};
use kapell_api::http::{
    Deploy, DeployAction, DeployChange, DeployPlan, Difference, Dismissal, FileDifference, Held,
    Hold, QueueQuery, QueueView, VersionDiff, WorkflowChange, WorkflowView,
};
use kapell_api::task::Bundle;
use kapell_engine::run_queue::{Activate, Change, LinesAsk, Rule};
use kapell_engine::{Ask, Plan};
use kapell_expr::BlobRef;
use kapell_model::spec::{Spec, Verb};
use kapell_model::{EntityKey, Error, ErrorCode, RunId, limits};
use kapell_node::{ClientRequest, clock};
use kapell_store::VersionRow;

mod locks;

use super::Service;
use crate::auth::about;
use crate::diff;
use crate::register::{self, NAMESPACE};
use crate::rows::failure;

/// Between the run and the key of a place in a run queue.
const PLACE: char = '.';

/// A workflow that is to be put in force.
struct Wanted {
    row: VersionRow,
    spec: Arc<Spec>,
    change: DeployChange,
}

impl Service {
    /// What a deploy would do to each of its workflows.
    fn wanted(&self, deploy: &Deploy) -> Result<Vec<Wanted>> {
        if deploy.workflows.len() > limits::DEPLOY {
            let message = format!(
                "{} workflows are more than one deploy takes",
                deploy.workflows.len()
            );
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint(format!("deploy at most {} at a time", limits::DEPLOY)));
        }
        let mut problems = Vec::new();
        let mut wanted: BTreeMap<Arc<str>, (String, Wanted)> = BTreeMap::new();
        for workflow in &deploy.workflows {
            let (mut row, spec) = match register::checked(workflow, clock::now()) {
                Ok(checked) => checked,
                Err(error) => {
                    problems.push(error.message);
                    continue;
                }
            };
            if let Some(other) = spec.namespace.as_ref().filter(|of| ***of != *NAMESPACE) {
                problems.push(format!(
                    "`{}` is of namespace `{other}`, and this is `{NAMESPACE}`",
                    workflow.file
                ));
                continue;
            }
            if row.author.is_empty() {
                row.author = deploy.by.as_str().into();
            }
            let change = self.change_of(&row)?;
            let name = row.workflow.clone();
            let before = wanted.insert(
                name.clone(),
                (workflow.file.clone(), Wanted { row, spec, change }),
            );
            if let Some((file, _)) = before {
                problems.push(format!(
                    "`{file}` and `{}` are both the workflow `{name}`",
                    workflow.file
                ));
            }
        }
        if !problems.is_empty() {
            return Err(
                Error::new(ErrorCode::BadDefinition, problems.join("\n")).hint(
                    "nothing was deployed; `kapell validate FILE` shows all problems of a file",
                ),
            );
        }
        Ok(wanted.into_values().map(|(_, wanted)| wanted).collect())
    }

    /// What becomes of one workflow.
    fn change_of(&self, row: &VersionRow) -> Result<DeployChange> {
        let workflow = row.workflow.to_string();
        let settings = self.settings(&workflow)?;
        let (same, _) = self.numbers(row)?;
        let active = self
            .store
            .version(NAMESPACE, &workflow, None)
            .map_err(failure)?;
        let in_force = settings.active.filter(|version| *version > 0);
        let from = active.as_ref().map(|row| row.version);
        let mut change = DeployChange {
            workflow,
            action: DeployAction::Update,
            from,
            to: same,
            differences: Vec::new(),
            files_differ: false,
            files: Vec::new(),
        };
        match active {
            None if settings.active.is_none() => change.action = DeployAction::Create,
            None => {}
            Some(active) if active.hash == row.hash && in_force == Some(active.version) => {
                change.action = DeployAction::Keep;
            }
            Some(active) => {
                change.differences = differences(&active.source, &row.source);
                change.files_differ = active.bundle != row.bundle;
                change.files = self.files(&active, row);
            }
        }
        Ok(change)
    }

    /// Workflows that were deployed before and are not wanted any more.
    fn left_over(&self, wanted: &[Wanted]) -> Result<Vec<String>> {
        let names: BTreeSet<&str> = wanted.iter().map(|wanted| &*wanted.row.workflow).collect();
        let mut found = Vec::new();
        self.each_workflow(|name, settings| {
            if settings.active.is_some_and(|version| version > 0) && !names.contains(name) {
                found.push(name.to_owned());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// All of it in one commit: versions that are new, which of them are active, and what is deleted.
    fn put_in_force(&self, wanted: &mut [Wanted], left_over: &[String]) -> Result<()> {
        let mut versions = Vec::new();
        let mut asks = Vec::new();
        for wanted in wanted.iter_mut() {
            if wanted.change.action == DeployAction::Keep {
                continue;
            }
            let version = match self.numbers(&wanted.row)? {
                (Some(known), _) => known,
                (None, newest) => {
                    versions.push(VersionRow {
                        version: newest + 1,
                        ..wanted.row.clone()
                    });
                    newest + 1
                }
            };
            wanted.change.to = Some(version);
            asks.extend(self.told_too(&wanted.row.workflow)?);
            asks.push(activation(&wanted.spec, &wanted.row.workflow, version));
        }
        for workflow in left_over {
            let change = Change {
                delete: true,
                ..Change::default()
            };
            asks.push((Self::queue_key(workflow), Ask::Change(Box::new(change))));
        }
        if asks.is_empty() {
            return Ok(());
        }
        self.ask(ClientRequest::Deploy { versions, asks })?;
        if let Some(node) = &self.node {
            node.versions_changed();
        }
        Ok(())
    }

    /// The number of the version with this content, if there is one, and that of the newest.
    fn numbers(&self, row: &VersionRow) -> Result<(Option<u32>, u32)> {
        self.store
            .version_numbers(&row.namespace, &row.workflow, &row.hash)
            .map_err(failure)
    }

    /// Which files that go with two versions differ. Those of a list that is gone are not named.
    fn files(&self, before: &VersionRow, after: &VersionRow) -> Vec<FileDifference> {
        let list = |row: &VersionRow| {
            let Some(text) = &row.bundle else {
                return Some(Bundle::default());
            };
            let blob: BlobRef = serde_json::from_str(text).ok()?;
            let bytes = self.blobs.get(&blob, limits::BUNDLE_LIST_BYTES).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        match (before.bundle == after.bundle, list(before), list(after)) {
            (false, Some(before), Some(after)) => diff::files(&before, &after),
            _ => Vec::new(),
        }
    }
}

impl DeployCalls for Service {
    fn deploy(&self, deploy: &Deploy) -> Result<DeployPlan> {
        if deploy.dry_run {
            about(|| "a dry run: nothing was changed".to_owned());
            return self.put(deploy);
        }
        let what = |plan: Option<&DeployPlan>| plan.map_or_else(String::new, said::plan);
        self.audit
            .change("POST", "/deploy", what, || self.put(deploy))
    }

    fn workflow(&self, name: &str) -> Result<WorkflowView> {
        self.shown(name)
    }

    fn change(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView> {
        let path = format!("/workflows/{name}");
        let what = |_: Option<&WorkflowView>| said::change(change);
        self.audit
            .change("PATCH", &path, what, || self.changed(name, change))
    }

    fn delete(&self, name: &str) -> Result<WorkflowView> {
        let path = format!("/workflows/{name}");
        let nothing = |_: Option<&WorkflowView>| String::new();
        self.audit.change("DELETE", &path, nothing, || {
            self.known(name)?;
            let change = Change {
                delete: true,
                ..Change::default()
            };
            let _alone = self.definitions.lock();
            let ask = (Self::queue_key(name), Ask::Change(Box::new(change)));
            self.ask(ClientRequest::AskTogether(vec![ask]))?;
            self.shown(name)
        })
    }

    fn diff(&self, name: &str, from: u32, to: u32) -> Result<VersionDiff> {
        let version = |number| self.version_row(name, Some(number));
        let (before, after) = (version(from)?, version(to)?);
        Ok(VersionDiff {
            from,
            to,
            differences: differences(&before.source, &after.source),
            files_differ: before.bundle != after.bundle,
            files: self.files(&before, &after),
        })
    }

    fn queue(&self, name: &str, query: &QueueQuery) -> Result<QueueView> {
        self.known(name)?;
        let which = LinesAsk {
            key: query.key.as_deref().map(Into::into),
            after: query.after.as_deref().map(place).transpose()?,
        };
        let view = self.ask_small(Self::queue_key(name), Ask::Lines(which))?;
        let mut view = view.to_json();
        if let Some(fields) = view.as_object_mut()
            && let Some(next) = fields.remove("next").filter(|next| !next.is_null())
        {
            let text = |field: &str| next[field].as_str().unwrap_or_default().to_owned();
            let next = format!("{}{PLACE}{}", text("run"), text("key"));
            fields.insert("next".to_owned(), next.into());
        }
        super::read("a run queue", serde_json::from_value(view))
    }

    fn dismiss(&self, name: &str, dismissal: &Dismissal) -> Result<QueueView> {
        self.known(name)?;
        let dismiss = Ask::Dismiss {
            key: dismissal.key.as_str().into(),
            by: dismissal.by.clone(),
        };
        let path = format!("/workflows/{name}/queue/dismiss");
        let what = |_: Option<&kapell_expr::Value>| format!("key `{}`", dismissal.key);
        self.audit.change("POST", &path, what, || {
            self.ask_small(Self::queue_key(name), dismiss)
        })?;
        self.queue(name, &QueueQuery::default())
    }

    fn hold(&self, hold: &Hold) -> Result<Held> {
        let what = |_: Option<&Held>| if hold.paused { "paused" } else { "going on" }.to_owned();
        self.audit
            .change("POST", "/workflows/hold", what, || self.hold_all(hold))
    }
}

impl Service {
    fn put(&self, deploy: &Deploy) -> Result<DeployPlan> {
        let _alone = self.definitions.lock();
        let mut wanted = self.wanted(deploy)?;
        let left_over = if deploy.prune {
            self.left_over(&wanted)?
        } else {
            Vec::new()
        };
        let specs = wanted.iter().map(|of| (&of.row.workflow, &of.spec));
        self.check_locks(&specs.collect::<Vec<_>>(), &left_over)?;
        let mut plan = DeployPlan {
            warnings: self.warnings(&wanted, &left_over)?,
            ..DeployPlan::default()
        };
        if !deploy.dry_run {
            self.put_in_force(&mut wanted, &left_over)?;
            plan.applied = true;
        }
        plan.changes = wanted.into_iter().map(|wanted| wanted.change).collect();
        for workflow in left_over {
            plan.changes.push(DeployChange {
                workflow,
                action: DeployAction::Delete,
                from: None,
                to: None,
                differences: Vec::new(),
                files_differ: false,
                files: Vec::new(),
            });
        }
        Ok(plan)
    }
}

impl Service {
    /// What is likely not meant.
    /// Who is to be told and cannot be, where it is known who can.
    fn unknown_channels(&self, wanted: &[Wanted]) -> Vec<String> {
        let Some(senders) = self.senders.get() else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        for one in wanted {
            let to: BTreeSet<&Arc<str>> = one
                .spec
                .notify
                .iter()
                .flat_map(|notify| &notify.to)
                .collect();
            for channel in to {
                if !senders.receivers.know(channel) {
                    warnings.push(format!(
                        "`{}` tells `{channel}`, and the server's settings have no such channel: its notices will \
                         not arrive",
                        one.row.workflow
                    ));
                }
            }
        }
        warnings
    }

    fn warnings(&self, wanted: &[Wanted], left_over: &[String]) -> Result<Vec<String>> {
        let mut warnings = self.unknown_channels(wanted);
        let names: BTreeSet<&str> = wanted.iter().map(|wanted| &*wanted.row.workflow).collect();
        for wanted in wanted {
            for called in calls(&wanted.spec) {
                let gone = left_over.iter().any(|name| **name == *called);
                let there = names.contains(&*called)
                    || self
                        .store
                        .version(NAMESPACE, &called, None)
                        .map_err(failure)?
                        .is_some();
                if gone || !there {
                    warnings.push(format!(
                        "`{}` starts the workflow `{called}`, which is not there",
                        wanted.row.workflow
                    ));
                }
            }
        }
        Ok(warnings)
    }
}

/// A place in a run queue as clients give it back.
fn place(text: &str) -> Result<(Arc<str>, RunId)> {
    let parts = text.split_once(PLACE);
    let place = parts.and_then(|(run, key)| Some((key.into(), run.parse().ok()?)));
    place.ok_or_else(|| {
        let message = format!("`{text}` is no place in a run queue");
        Error::new(ErrorCode::BadRequest, message).hint("`next` of the page before is one")
    })
}

/// The ask that makes a version the active one.
pub(super) fn activation(spec: &Spec, workflow: &Arc<str>, version: u32) -> (EntityKey, Ask) {
    let to = Activate {
        version,
        triggers: spec.triggers.clone(),
        timezone: spec.timezone.clone(),
        rule: Rule::of(&spec.strategy),
    };
    (Service::queue_key(workflow), Ask::Activate(Box::new(to)))
}

/// What differs between two definitions, as their authors wrote them.
fn differences(before: &str, after: &str) -> Vec<Difference> {
    let (before, after) = (kapell_model::written(before), kapell_model::written(after));
    let mut found = diff::between(&before, &after);
    found.truncate(diff::MOST);
    found
}

/// Workflows that steps start.
fn calls(spec: &Arc<Spec>) -> BTreeSet<Arc<str>> {
    let plan = Plan::new(Arc::clone(spec));
    let steps = plan.graphs.iter().flat_map(|graph| &graph.steps);
    steps
        .filter_map(|step| match &step.step.verb {
            Verb::Workflow { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}
