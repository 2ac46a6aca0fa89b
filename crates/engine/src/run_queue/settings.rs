//! What is said of a workflow beside its versions: which of them is active, whether it starts, by which
//! rule. Kept by its run queue, which every start passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use kapell_model::spec::{Retention, Strategy, Trigger};
use kapell_model::{EntityKey, Time, limits};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Deciding, Kind, QueueEvent, Rule, mode_number};
use crate::message::{Message, TriggerSet};
use crate::run::{Break, Breaks};

/// Properties of a workflow that are not versioned. Written as JSON: a field that is not there has its
/// default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The active version: none if none was ever activated, 0 if it was deactivated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,
    /// Its triggers, as the active version says.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub triggers: BTreeSet<Arc<str>>,
    /// Its runs wait, and its triggers start none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Mark>,
    /// All workflows of its namespace are paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Mark>,
    /// Goes before what its versions say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Bounds>,
    /// Goes before what its versions say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Goes before what its versions say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Kept>,
    /// Breakpoints that each new run has beside those of its definition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<Break>,
    /// Nothing of it starts any more; what ran is kept as long as its retention says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Those of new runs of one version, beside these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub breaks_of: BTreeMap<u32, Vec<Break>>,
    /// Those of new runs of every workflow of its namespace, before these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks_of_all: Vec<Break>,
}

/// How long ended runs are kept, in place of what versions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// By age since the end.
    pub age: Option<SignedDuration>,
    /// The newest so many.
    pub runs: Option<u32>,
    /// The age is what versions say all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub age_of_version: bool,
    /// And the number of runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub runs_of_version: bool,
}

impl Kept {
    /// Nothing in place of what versions say.
    pub const NOTHING: Self = Self {
        age: None,
        runs: None,
        age_of_version: true,
        runs_of_version: true,
    };

    /// What holds where a version says this.
    pub fn over(self, version: Retention) -> Retention {
        Retention {
            age: if self.age_of_version {
                version.age
            } else {
                self.age
            },
            runs: if self.runs_of_version {
                version.runs
            } else {
                self.runs
            },
        }
    }
}

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Who.
    pub by: String,
    /// Microseconds since 1970.
    pub at: i64,
}

/// A strategy without what only a definition can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The rule.
    pub mode: kapell_model::spec::StrategyMode,
    /// Active runs of one key under `parallel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Active runs over all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
}

impl Bounds {
    /// What the run queue goes by.
    pub fn rule(&self) -> Rule {
        let strategy = Strategy {
            mode: self.mode,
            limit: self.limit,
            total: self.total,
            ..Strategy::default()
        };
        Rule::of(&strategy).unwrap_or_default()
    }
}

/// A version is to be the active one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Activate {
    /// Which.
    pub version: u32,
    /// What it says starts runs by itself.
    pub triggers: Vec<Trigger>,
    /// IANA name of its time zone.
    pub timezone: Arc<str>,
    /// What it says of starts while others are active.
    pub rule: Option<Rule>,
}

/// A change of what is not versioned. None of a field leaves it as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Pause it, or let it go on: by whom.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub paused: Option<Option<String>>,
    /// Who paused the whole namespace and when, or that nobody does any more.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub held: Option<Option<Mark>>,
    /// All breakpoints that new runs of every workflow of its namespace have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaks_of_all: Option<Vec<Break>>,
    /// Override the strategy, or no longer.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Option<Bounds>>,
    /// With it: the rule that counts for what waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Override the owner, or no longer.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub owner: Option<Option<String>>,
    /// Override the retention, or no longer.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub retention: Option<Option<Kept>>,
    /// All breakpoints that new runs have beside those of their definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaks: Option<Vec<Break>>,
    /// The same for one version, in place of those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaks_of: Option<(u32, Vec<Break>)>,
    /// One more breakpoint of new runs: of one version, or of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_break: Option<(Option<u32>, Break)>,
    /// Breakpoints of new runs that go: of one version, or of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_breaks: Option<(Option<u32>, Breaks)>,
    /// No version is active any more.
    pub deactivate: bool,
    /// Nothing of it starts any more.
    pub delete: bool,
}

/// A field that is there was said, also if what it says is that there is none.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl Settings {
    /// True if nothing may start now.
    pub fn stopped(&self) -> bool {
        self.paused.is_some() || self.held.is_some()
    }

    /// The rule in force for a start whose version says this one.
    pub fn rule(&self, version: Option<Rule>) -> Rule {
        let own = version.unwrap_or_default();
        match &self.strategy {
            // A burst is collected by what the definition says of it.
            Some(bounds) => Rule {
                quiet: own.quiet,
                longest: own.longest,
                ..bounds.rule()
            },
            None => own,
        }
    }

    /// The breakpoints of a run of this version that is made now.
    pub fn breakpoints(&self, version: u32) -> Vec<Break> {
        let of = self.breaks_of.get(&version).into_iter().flatten();
        let all = self.breaks_of_all.iter().chain(&self.breaks).chain(of);
        all.take(limits::BREAKPOINTS).cloned().collect()
    }

    /// The breakpoints of new runs of one version, or of all.
    fn breaks_of(&mut self, version: Option<u32>) -> &mut Vec<Break> {
        match version {
            None => &mut self.breaks,
            Some(version) => self.breaks_of.entry(version).or_default(),
        }
    }

    /// Why nothing of this workflow starts, and what helps, for people.
    pub(super) fn why(&self, workflow: &str) -> Option<String> {
        let said = |paused: &str, mark: &Mark, resume: &str| {
            let (by, at) = (&mark.by, Time(mark.at));
            format!("the run waits: {paused} by {by} at {at}; `{resume}` lets it start")
        };
        match (&self.paused, &self.held) {
            (Some(mark), _) => Some(said(
                "its workflow was paused",
                mark,
                &format!("kapell workflow resume {workflow}"),
            )),
            (None, Some(mark)) => Some(said(
                "all workflows were paused",
                mark,
                "kapell workflow resume --all",
            )),
            (None, None) => None,
        }
    }
}

impl Deciding<'_> {
    /// Makes a version the active one, and tells its triggers.
    pub(super) fn activate(&mut self, (namespace, workflow): (&Arc<str>, &Arc<str>), to: Activate) {
        let before = self.queue.settings.clone();
        let triggers: BTreeSet<Arc<str>> = to
            .triggers
            .iter()
            .map(|trigger| trigger.name.clone())
            .collect();
        let settings = Settings {
            active: Some(to.version),
            triggers: triggers.clone(),
            deleted: false,
            ..before.clone()
        };
        let key = |name: &Arc<str>| EntityKey::Trigger {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            name: name.clone(),
        };
        for name in before.triggers.difference(&triggers) {
            self.out.messages.push((key(name), Message::TriggerRemoved));
        }
        for trigger in to.triggers {
            let to_key = key(&trigger.name);
            let set = TriggerSet {
                version: to.version,
                trigger,
                timezone: to.timezone.clone(),
                workflow_paused: before.stopped(),
            };
            self.out
                .messages
                .push((to_key, Message::TriggerSet(Box::new(set))));
        }
        let active = (namespace.clone(), workflow.clone(), to.version);
        self.out.activated.push(active);
        let rule = settings.rule(to.rule);
        self.set(settings, Some(rule));
    }

    /// Changes what is not versioned.
    pub(super) fn change(&mut self, (namespace, workflow): (&Arc<str>, &Arc<str>), change: Change) {
        let before = self.queue.settings.clone();
        let mut settings = before.clone();
        let at = self.now.0;
        let mark = |by: Option<String>| by.map(|by| Mark { by, at });
        if let Some(by) = change.paused {
            settings.paused = mark(by);
        }
        if let Some(held) = change.held {
            settings.held = held;
        }
        if let Some(breaks) = change.breaks_of_all {
            settings.breaks_of_all = breaks;
        }
        if let Some(owner) = change.owner {
            settings.owner = owner;
        }
        if let Some(retention) = change.retention {
            settings.retention = retention;
        }
        if let Some(breaks) = change.breaks {
            settings.breaks = breaks;
        }
        if let Some((version, breaks)) = change.breaks_of {
            settings.breaks_of.insert(version, breaks);
        }
        if let Some((version, of)) = change.add_break {
            // Whoever asks has counted them: where two ask at once, the last one is one too many.
            let _ = Breaks::add(settings.breaks_of(version), of);
        }
        if let Some((version, gone)) = change.remove_breaks {
            settings.breaks_of(version).retain(|of| !gone.has(of));
        }
        settings.breaks_of.retain(|_, breaks| !breaks.is_empty());
        if let Some(strategy) = change.strategy {
            settings.strategy = strategy;
        }
        let key = |name: &Arc<str>| EntityKey::Trigger {
            namespace: namespace.clone(),
            workflow: workflow.clone(),
            name: name.clone(),
        };
        if change.deactivate || change.delete {
            settings.active = Some(0);
            settings.deleted |= change.delete;
            for name in std::mem::take(&mut settings.triggers) {
                self.out
                    .messages
                    .push((key(&name), Message::TriggerRemoved));
            }
            let none = (namespace.clone(), workflow.clone(), 0);
            self.out.activated.push(none);
        }
        if settings.stopped() != before.stopped() {
            for name in &settings.triggers {
                let message = Message::WorkflowPaused(settings.stopped());
                self.out.messages.push((key(name), message));
            }
        }
        self.set(settings, change.rule);
    }

    fn set(&mut self, settings: Settings, rule: Option<Rule>) {
        if settings == self.queue.settings && rule.is_none() {
            return;
        }
        let of = rule.unwrap_or_default();
        let event = QueueEvent {
            at: self.now.0,
            kind: Kind::Set as u32,
            // Text, numbers and lists of them: nothing that JSON could refuse.
            settings: serde_json::to_vec(&settings).unwrap_or_default(),
            rules: rule.is_some(),
            mode: mode_number(of.mode),
            limit: of.limit,
            total: of.total,
            quiet: of.quiet,
            longest: of.longest,
            ..QueueEvent::default()
        };
        self.queue.apply(&event);
        self.out.events.push(event);
        if let Some(rule) = rule {
            self.ruled_anew(rule);
        }
    }
}

#[cfg(test)]
mod tests;
