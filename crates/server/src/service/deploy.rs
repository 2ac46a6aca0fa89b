//! Putting workflows in force, and what is said of them beside their versions.

mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_api::client::{DeployCalls, Result};
use kapell_api::http::{
    Deploy, DeployAction, DeployChange, DeployPlan, Difference, Held, Hold, Paused, QueueView,
    StrategyView, VersionDiff, WorkflowChange, WorkflowView,
};
use kapell_engine::run_queue::{Activate, Bounds, Change, Mark, Rule, Settings};
use kapell_engine::{Ask, Plan};
use kapell_expr::Template;
use kapell_model::spec::{Spec, Verb};
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_node::{Answer, ClientRequest, clock};
use kapell_store::{Order, VersionRow};

use super::{Service, no_version, unexpected};
use crate::auth::about;
use crate::diff;
use crate::register::{self, NAMESPACE};
use crate::rows::failure;

/// A workflow that is to be put in force.
struct Wanted {
    row: VersionRow,
    spec: Arc<Spec>,
    change: DeployChange,
}

impl Service {
    pub(super) fn queue_key(workflow: &str) -> EntityKey {
        EntityKey::RunQueue {
            namespace: NAMESPACE.into(),
            workflow: workflow.into(),
            key: "".into(),
        }
    }

    /// What is said of a workflow beside its versions.
    pub(super) fn settings(&self, workflow: &str) -> Result<Settings> {
        let key = Self::queue_key(workflow).to_bytes();
        let found = self
            .store
            .documents(&key, None, Order::Forward, 1)
            .map_err(failure)?;
        let own = found.into_iter().find(|(found, _)| *found == key);
        match own {
            None => Ok(Settings::default()),
            Some((_, text)) => serde_json::from_str(&text).map_err(|error| {
                let what = format!("the settings of workflow `{workflow}`: {error}");
                Error::new(ErrorCode::StoreCorrupt, what)
            }),
        }
    }

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
            let (row, spec) = match register::checked(workflow, clock::now()) {
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
            to: None,
            differences: Vec::new(),
            files_differ: false,
        };
        match active {
            None if settings.active.is_none() => change.action = DeployAction::Create,
            None => {}
            Some(active) if active.hash == row.hash && in_force == Some(active.version) => {
                change.action = DeployAction::Keep;
                change.to = from;
            }
            Some(active) => {
                if active.hash == row.hash {
                    change.to = from;
                }
                change.differences = differences(&active.spec, &row.spec)?;
                change.files_differ = active.bundle != row.bundle;
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

    /// Every workflow of which something is said beside its versions.
    fn each_workflow(&self, mut each: impl FnMut(&str, Settings) -> Result<()>) -> Result<()> {
        let mut prefix = Self::queue_key("").to_bytes();
        prefix.truncate(prefix.len() - 1);
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .documents(&prefix, last.as_deref(), Order::Forward, limits::LIST_PAGE)
                .map_err(failure)?;
            let Some((key, _)) = page.last() else {
                return Ok(());
            };
            last = Some(key.clone());
            for (key, text) in &page {
                if let Some(EntityKey::RunQueue { workflow, .. }) = EntityKey::from_bytes(key) {
                    each(&workflow, serde_json::from_str(text).unwrap_or_default())?;
                }
            }
        }
    }

    fn put_in_force(&self, wanted: &mut [Wanted], left_over: &[String]) -> Result<()> {
        let mut asks = Vec::new();
        for wanted in wanted.iter_mut() {
            if wanted.change.action == DeployAction::Keep {
                continue;
            }
            let version = self.store.register(&wanted.row).map_err(failure)?;
            wanted.change.to = Some(version);
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
        self.ask(ClientRequest::AskTogether(asks))?;
        if let Some(node) = &self.node {
            node.versions_changed();
        }
        Ok(())
    }

    /// A version that exists, with its definition.
    fn registered(&self, workflow: &str, version: Option<u32>) -> Result<(VersionRow, Arc<Spec>)> {
        let row = self
            .store
            .version(NAMESPACE, workflow, version)
            .map_err(failure)?
            .ok_or_else(|| no_version(workflow, version))?;
        let spec = serde_json::from_str(&row.spec).map_err(|error| {
            let what = format!("version {} of `{workflow}`: {error}", row.version);
            Error::new(ErrorCode::StoreCorrupt, what)
        })?;
        Ok((row, Arc::new(spec)))
    }

    /// Refuses a name of which nothing is known.
    pub(super) fn known(&self, workflow: &str) -> Result<()> {
        let newest = self
            .store
            .version(NAMESPACE, workflow, Some(1))
            .map_err(failure)?;
        newest.map(|_| ()).ok_or_else(|| no_version(workflow, None))
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
        self.known(name)?;
        let settings = self.settings(name)?;
        let active = match settings.active {
            Some(0) => None,
            _ => Some(self.registered(name, None)?),
        };
        let spec = active.as_ref().map(|(_, spec)| spec);
        let strategy = match (&settings.strategy, spec) {
            (Some(bounds), _) => StrategyView {
                mode: bounds.mode,
                limit: bounds.limit,
                total: bounds.total,
            },
            (None, Some(spec)) => StrategyView {
                mode: spec.strategy.mode,
                limit: spec.strategy.limit,
                total: spec.strategy.total,
            },
            (None, None) => StrategyView::default(),
        };
        let counts = self.store.run_counts(NAMESPACE).map_err(failure)?;
        let runs = counts
            .into_iter()
            .filter(|(workflow, ..)| **workflow == *name)
            .map(|(_, status, count)| (status.name().to_owned(), count))
            .collect();
        let paused = |mark: &Mark| Paused {
            by: mark.by.clone(),
            at: Time(mark.at),
        };
        Ok(WorkflowView {
            name: name.to_owned(),
            active: active.as_ref().map(|(row, _)| row.version),
            description: spec.map_or_else(String::new, |spec| spec.description.clone()),
            owner: settings
                .owner
                .clone()
                .or_else(|| spec.map(|spec| spec.owner.clone()))
                .unwrap_or_default(),
            tags: spec.map_or_else(Vec::new, |spec| spec.tags.clone()),
            triggers: settings.triggers.iter().map(ToString::to_string).collect(),
            strategy,
            paused: settings.paused.as_ref().map(paused),
            held: settings.held.as_ref().map(paused),
            deleted: settings.deleted,
            runs,
        })
    }

    fn change(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView> {
        let path = format!("/workflows/{name}");
        let what = |_: Option<&WorkflowView>| said::change(change);
        self.audit
            .change("PATCH", &path, what, || self.change_to(name, change))
    }

    fn delete(&self, name: &str) -> Result<WorkflowView> {
        let path = format!("/workflows/{name}");
        self.audit.change(
            "DELETE",
            &path,
            |_| String::new(),
            || {
                self.known(name)?;
                let change = Change {
                    delete: true,
                    ..Change::default()
                };
                let ask = (Self::queue_key(name), Ask::Change(Box::new(change)));
                self.ask(ClientRequest::AskTogether(vec![ask]))?;
                self.workflow(name)
            },
        )
    }

    fn diff(&self, name: &str, from: u32, to: u32) -> Result<VersionDiff> {
        let version = |number| {
            self.store
                .version(NAMESPACE, name, Some(number))
                .map_err(failure)?
                .ok_or_else(|| no_version(name, Some(number)))
        };
        let (before, after) = (version(from)?, version(to)?);
        Ok(VersionDiff {
            from,
            to,
            differences: differences(&before.spec, &after.spec)?,
            files_differ: before.bundle != after.bundle,
        })
    }

    fn queue(&self, name: &str) -> Result<QueueView> {
        self.known(name)?;
        let ask = ClientRequest::Ask {
            key: Self::queue_key(name),
            ask: Ask::View,
        };
        match self.ask(ask)? {
            Answer::Value(view) => serde_json::from_value(view.to_json())
                .map_err(|error| Error::new(ErrorCode::Internal, error.to_string())),
            _ => Err(unexpected()),
        }
    }

    fn hold(&self, hold: &Hold) -> Result<Held> {
        let what = |_: Option<&Held>| if hold.paused { "paused" } else { "going on" }.to_owned();
        self.audit
            .change("POST", "/workflows/hold", what, || self.hold_all(hold))
    }
}

impl Service {
    fn put(&self, deploy: &Deploy) -> Result<DeployPlan> {
        let mut wanted = self.wanted(deploy)?;
        let left_over = if deploy.prune {
            self.left_over(&wanted)?
        } else {
            Vec::new()
        };
        check_locks(&wanted)?;
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
            });
        }
        Ok(plan)
    }

    fn change_to(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView> {
        self.known(name)?;
        let mut asks = Vec::new();
        if let Some(version) = change.active {
            let (row, spec) = self.registered(name, Some(version))?;
            asks.push(activation(&spec, &row.workflow, row.version));
        }
        let strategy = change.strategy.map(|strategy| {
            strategy.map(|strategy| Bounds {
                mode: strategy.mode,
                limit: strategy.limit,
                total: strategy.total,
            })
        });
        let rule = match strategy {
            None => None,
            Some(Some(bounds)) => Some(bounds.rule()),
            Some(None) => {
                let (_, spec) = self.registered(name, change.active)?;
                Some(Rule::of(&spec.strategy).unwrap_or_default())
            }
        };
        let paused = change
            .paused
            .map(|paused| paused.then(|| change.by.clone()));
        let asked = Change {
            paused,
            strategy,
            rule,
            owner: change.owner.clone(),
            retention: change.retention,
            deactivate: change.deactivate,
            ..Change::default()
        };
        asks.push((Self::queue_key(name), Ask::Change(Box::new(asked))));
        self.ask(ClientRequest::AskTogether(asks))?;
        if let Some(node) = &self.node {
            node.versions_changed();
        }
        self.workflow(name)
    }

    fn hold_all(&self, hold: &Hold) -> Result<Held> {
        let mut workflows = 0;
        let mut after = String::new();
        loop {
            let page = self
                .store
                .list_workflows(NAMESPACE, &after, limits::LIST_PAGE)
                .map_err(failure)?;
            let Some((last, _)) = page.last() else {
                return Ok(Held { workflows });
            };
            after = last.to_string();
            workflows += page.len() as u64;
            let asks = page.iter().map(|(name, _)| {
                let change = Change {
                    held: Some(hold.paused.then(|| hold.by.clone())),
                    ..Change::default()
                };
                (Self::queue_key(name), Ask::Change(Box::new(change)))
            });
            self.ask(ClientRequest::AskTogether(asks.collect()))?;
        }
    }
}

impl Service {
    /// What is likely not meant.
    fn warnings(&self, wanted: &[Wanted], left_over: &[String]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
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

/// The ask that makes a version the active one.
fn activation(spec: &Spec, workflow: &Arc<str>, version: u32) -> (EntityKey, Ask) {
    let to = Activate {
        version,
        triggers: spec.triggers.clone(),
        timezone: spec.timezone.clone(),
        rule: Rule::of(&spec.strategy),
    };
    (Service::queue_key(workflow), Ask::Activate(Box::new(to)))
}

fn differences(before: &str, after: &str) -> Result<Vec<Difference>> {
    let read = |text: &str| {
        serde_json::from_str(text)
            .map_err(|error| Error::new(ErrorCode::StoreCorrupt, error.to_string()))
    };
    let mut found = diff::between(&read(before)?, &read(after)?);
    found.truncate(diff::MOST);
    for difference in &mut found {
        difference.path = as_written(&difference.path);
    }
    Ok(found)
}

/// A place of the normalised definition as its author would name it: `graph.steps.load.verb.Shell.script`
/// is `steps.load.shell.script`.
fn as_written(path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut verb = false;
    for part in path.split('.') {
        match part {
            "graph" => {}
            "verb" => verb = true,
            part if verb => {
                parts.push(part.to_lowercase());
                verb = false;
            }
            part => parts.push(part.to_owned()),
        }
    }
    parts.join(".")
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

/// A lock's bound belongs to its name: two that differ are refused.
fn check_locks(wanted: &[Wanted]) -> Result<()> {
    let mut bounds: BTreeMap<Arc<str>, (u32, Option<i64>, Arc<str>)> = BTreeMap::new();
    for wanted in wanted {
        let plan = Plan::new(Arc::clone(&wanted.spec));
        let steps = plan.graphs.iter().flat_map(|graph| &graph.steps);
        for lock in steps.flat_map(|step| &step.step.locks) {
            let Template::Literal(name) = &lock.name else {
                continue;
            };
            let name: Arc<str> = name.text().into();
            let per = lock.per.map(|per| per.as_secs());
            let (max, other, workflow) = bounds
                .entry(name.clone())
                .or_insert_with(|| (lock.max, per, wanted.row.workflow.clone()));
            if (*max, *other) != (lock.max, per) {
                let message = format!(
                    "the lock `{name}` has other bounds in `{workflow}` than in `{}`",
                    wanted.row.workflow
                );
                return Err(Error::new(ErrorCode::BadDefinition, message)
                    .hint("nothing was deployed; a lock's `max` belongs to its name: give both the same, or two names"));
            }
        }
    }
    Ok(())
}
