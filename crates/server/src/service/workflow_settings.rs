//! What is said of workflows beside their versions: showing it, and changing it.

use std::sync::Arc;

use kapell_api::client::Result;
use kapell_api::http::{
    Bound, DebounceView, Paused, RetentionChange, StrategyView, WorkflowChange, WorkflowView,
};
use kapell_engine::Ask;
use kapell_engine::run_queue::{Bounds, Change, Kept, Mark, Rule, Settings};
use kapell_expr::format_duration;
use kapell_model::spec::{Retention, Spec};
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_node::ClientRequest;
use kapell_store::{Order, VersionRow};

use super::deploy::activation;
use super::{Service, read};
use crate::register::NAMESPACE;
use crate::rows::failure;

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
        match self.document(&Self::queue_key(workflow))? {
            None => Ok(Settings::default()),
            Some(text) => read(
                &format!("the settings of workflow `{workflow}`"),
                serde_json::from_str(&text),
            ),
        }
    }

    /// Every workflow of which something is said beside its versions.
    pub(super) fn each_workflow(
        &self,
        mut each: impl FnMut(&str, Settings) -> Result<()>,
    ) -> Result<()> {
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

    /// A version that exists, with its definition.
    fn registered(&self, workflow: &str, version: Option<u32>) -> Result<(VersionRow, Arc<Spec>)> {
        let row = self.version_row(workflow, version)?;
        let what = format!("version {} of `{workflow}`", row.version);
        let spec = read(&what, serde_json::from_str(&row.spec))?;
        Ok((row, Arc::new(spec)))
    }

    /// The active version, if there is one, with its definition.
    fn in_force(&self, workflow: &str) -> Result<Option<(VersionRow, Arc<Spec>)>> {
        let row = self.store.version(NAMESPACE, workflow, None);
        match row.map_err(failure)? {
            None => Ok(None),
            Some(row) => self.registered(workflow, Some(row.version)).map(Some),
        }
    }

    /// A workflow as it is in force.
    pub(super) fn shown(&self, name: &str) -> Result<WorkflowView> {
        self.known(name)?;
        let settings = self.settings(name)?;
        let active = self.in_force(name)?;
        let spec = active.as_ref().map(|(_, spec)| spec);
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
        let own = spec.map(|spec| &spec.strategy);
        let debounce = own.and_then(|strategy| strategy.debounce);
        let said = spec.map_or_else(Retention::default, |spec| spec.retention);
        let retention = settings.retention.map_or(said, |set| set.over(said));
        let overrides = [
            ("owner", settings.owner.is_some()),
            ("retention", settings.retention.is_some()),
            ("strategy", settings.strategy.is_some()),
        ];
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
            strategy: strategy(&settings, spec),
            key: own
                .and_then(|strategy| strategy.key.as_ref())
                .map(|key| key.source().to_owned()),
            debounce: debounce.map(|debounce| DebounceView {
                quiet: format_duration(debounce.quiet),
                max: debounce.max.map(format_duration),
            }),
            retention: (retention != Retention::default()).then_some(retention),
            overrides: overrides
                .into_iter()
                .filter(|(_, is_so)| *is_so)
                .map(|(name, _)| name.to_owned())
                .collect(),
            paused: settings.paused.as_ref().map(paused),
            held: settings.held.as_ref().map(paused),
            deleted: settings.deleted,
            runs,
        })
    }

    /// Changes what is not versioned, or which version is active.
    pub(super) fn changed(&self, name: &str, change: &WorkflowChange) -> Result<WorkflowView> {
        self.known(name)?;
        check(change)?;
        let _alone = self.definitions.lock();
        let mut asks = Vec::new();
        if let Some(version) = change.active {
            let (row, spec) = self.registered(name, Some(version))?;
            self.check_locks(&[(&row.workflow, &spec)], &[])?;
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
                let spec = match change.active {
                    Some(version) => Some(self.registered(name, Some(version))?.1),
                    None => self.in_force(name)?.map(|(_, spec)| spec),
                };
                let own = spec.and_then(|spec| Rule::of(&spec.strategy));
                Some(own.unwrap_or_default())
            }
        };
        let retention = match change.retention {
            None => None,
            Some(None) => Some(None),
            Some(Some(named)) => {
                let set = self.settings(name)?.retention.unwrap_or(Kept::NOTHING);
                Some(Some(kept(set, named)).filter(|set| *set != Kept::NOTHING))
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
            retention,
            deactivate: change.deactivate,
            ..Change::default()
        };
        asks.push((Self::queue_key(name), Ask::Change(Box::new(asked))));
        self.ask(ClientRequest::AskTogether(asks))?;
        if let Some(node) = &self.node {
            node.versions_changed();
        }
        self.shown(name)
    }
}

/// How long runs of a workflow are kept with what is named changed, and all else as it is.
fn kept(mut set: Kept, named: RetentionChange) -> Kept {
    if let Some(age) = named.age {
        (set.age, set.age_of_version) = match age {
            Bound::Is(age) => (age, false),
            Bound::Default => (None, true),
        };
    }
    if let Some(runs) = named.runs {
        (set.runs, set.runs_of_version) = match runs {
            Bound::Is(runs) => (runs, false),
            Bound::Default => (None, true),
        };
    }
    set
}

/// The strategy that holds for new starts.
fn strategy(settings: &Settings, spec: Option<&Arc<Spec>>) -> StrategyView {
    match (&settings.strategy, spec) {
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
    }
}

/// Refuses what no file could say.
fn check(change: &WorkflowChange) -> Result<()> {
    let refused = |message: String, hint: &str| {
        Err(Error::new(ErrorCode::BadRequest, message).hint(hint.to_owned()))
    };
    check_by(&change.by)?;
    if change.active.is_some() && change.deactivate {
        return refused(
            "a version is to be the active one, and none is".to_owned(),
            "`active` or `deactivate`, not both",
        );
    }
    if let Some(Some(strategy)) = &change.strategy {
        if strategy.limit.is_some() && !strategy.mode.takes_limit() {
            return refused(
                "`limit` is of `mode: parallel`; the other modes run one at a time".to_owned(),
                "leave it out, or take `parallel`",
            );
        }
        for (name, bound) in [("limit", strategy.limit), ("total", strategy.total)] {
            if let Some(bound) = bound.filter(|bound| !(1..=limits::AT_ONCE).contains(bound)) {
                return refused(
                    format!("`{name}` is from 1 to {}, not {bound}", limits::AT_ONCE),
                    "for no bound leave it out",
                );
            }
        }
    }
    if let Some(Some(kept)) = &change.retention {
        let runs = match kept.runs {
            Some(Bound::Is(runs)) => runs,
            Some(Bound::Default) | None => None,
        };
        if let Some(runs) = runs.filter(|runs| !(1..=limits::KEPT_RUNS).contains(runs)) {
            return refused(
                format!("`runs` is from 1 to {}, not {runs}", limits::KEPT_RUNS),
                "null is no bound",
            );
        }
        let years = |age: &jiff::SignedDuration| {
            age.is_negative() || age.as_secs() > limits::DURATION_SECONDS
        };
        if matches!(&kept.age, Some(Bound::Is(Some(age))) if years(age)) {
            return refused(
                "`age` is between nothing and 100 years".to_owned(),
                "null is no bound",
            );
        }
    }
    match &change.owner {
        Some(Some(owner)) if owner.chars().count() > limits::OWNER_CHARS => refused(
            format!("an owner has at most {} characters", limits::OWNER_CHARS),
            "a name, or an address",
        ),
        _ => Ok(()),
    }
}

pub(super) fn check_by(by: &str) -> Result<()> {
    if by.chars().count() <= limits::OWNER_CHARS {
        return Ok(());
    }
    let message = format!("`by` has at most {} characters", limits::OWNER_CHARS);
    Err(Error::new(ErrorCode::LimitReached, message).hint("the name of whoever asks"))
}
