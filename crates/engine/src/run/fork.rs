//! What a fork keeps of the run it comes from.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::{Map, Value};
use kapell_model::spec::StepIndex;
use kapell_model::{Error, ErrorCode, StepStatus, limits};

use super::names::At;
use super::state::{Page, StepState};
use super::{Decider, Ref, Refusal, Run, Stop};
use crate::event::{self, Fork, KeptStep, RunCreated, Stored};
use crate::plan::{Plan, StepPlan};

impl Run {
    /// What a fork with this version keeps: every step that has ended well, is unchanged and does not
    /// come after `from`; and its parameters, those of the run with the `changed` ones, a map. With
    /// `text` they are text, and kept values become text again, so that all are parsed alike.
    ///
    /// # Errors
    /// [`Refusal::Reject`] if there is no such step or a kept step uses a changed parameter,
    /// [`Refusal::Need`] while pages of kept items are not in memory.
    pub fn fork(
        &self,
        plan: &Plan,
        from: &str,
        changed: &Value,
        text: bool,
    ) -> Result<(Fork, Value), Refusal> {
        let graph = plan.graph(0);
        let Some(first) = graph.by_id.get(from).copied() else {
            let error = Error::new(
                ErrorCode::StepNotFound,
                format!("there is no step `{from}` in the workflow"),
            );
            let hint = "fork from a step of the workflow itself";
            return Err(Refusal::Reject(error.hint(hint)));
        };
        let again = graph.downstream(first);
        let none = Arc::new(Map::new());
        let changed = changed.as_map().unwrap_or(&none);
        let mut kept = Vec::new();
        for step in graph
            .steps
            .iter()
            .filter(|step| !again.contains(&step.index))
        {
            let Some(place) = self.ended_as(step) else {
                continue;
            };
            uses_none(step, changed)?;
            kept.push(self.keep(place, step.index)?);
        }
        let fork = Fork {
            run: self.state.meta.id.to_bytes().to_vec(),
            from: from.to_owned(),
            kept,
        };
        let before = self.state.meta.params.as_map().unwrap_or(&none);
        let mut params: Map = before
            .iter()
            .filter(|(name, _)| {
                let mut params = plan.spec.params.iter();
                params.any(|param| param.name == **name && !param.fixed)
            })
            .map(|(name, value)| {
                let value = if text {
                    Value::string(value.text())
                } else {
                    value.clone()
                };
                (name.clone(), value)
            })
            .collect();
        params.extend(
            changed
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Ok((fork, Value::Map(params.into())))
    }

    /// Where a step of another version has ended well here, if its definition is the same.
    fn ended_as(&self, step: &StepPlan) -> Option<Place> {
        let old = self.plan.graph(0);
        let before = *old.by_id.get(&step.step.id)?;
        let place = Place {
            scope: 0,
            step: before,
            item: Place::NO_ITEM,
        };
        let status = self.state.unit(place)?.status;
        let good = status.good() || status == StepStatus::Skipped;
        let definition = |step: &StepPlan| serde_json::to_string(&*step.step).ok();
        let same = definition(&old.steps[usize::from(before)]) == definition(step);
        (good && same).then_some(place)
    }

    /// An ended step as a fork keeps it, with its place in the fork's version.
    ///
    /// # Errors
    /// [`Refusal::Need`] while pages of its items are not in memory.
    fn keep(&self, place: Place, step: StepIndex) -> Result<KeptStep, Refusal> {
        let refused = |message: &str| {
            let path = self.state.path(&self.plan, place);
            Refusal::Reject(Error::new(
                ErrorCode::NotAllowedNow,
                format!("`{path}`: {message}"),
            ))
        };
        let Some(state) = self.state.step(place.scope, place.step) else {
            return Err(refused("it has not started"));
        };
        let pages = self.pages_missing(state);
        if !pages.is_empty() {
            return Err(Refusal::Need(pages));
        }
        let names = At::scope(self, place.scope, self.state.last_at);
        let field = |name| match names.field(place, state, name) {
            Ok(value) => Ok(value.unwrap_or_default()),
            Err(error) => Err(match Stop::from(error) {
                Stop::Need(need) => Refusal::Need(vec![need]),
                Stop::Failed(message) => refused(&message),
            }),
        };
        let others = match (&state.foreach, &state.kept) {
            (Some(_), _) => Some(others(state)),
            (None, Some(kept)) => Some(
                kept.others
                    .iter()
                    .flat_map(|(first, after)| [*first, *after])
                    .collect(),
            ),
            (None, None) => None,
        };
        let items = match others {
            Some(others) => Some(event::KeptItems {
                others,
                failures: Some(Stored::new(&field("failures")?)),
            }),
            None => None,
        };
        Ok(KeptStep {
            step: u32::from(step),
            status: u32::from(state.unit.status.number()),
            output: Some(Stored::new(&field("output")?)),
            items,
        })
    }

    fn pages_missing(&self, step: &StepState) -> Vec<Ref> {
        step.foreach
            .iter()
            .flat_map(|foreach| &foreach.pages)
            .filter_map(|page| match page {
                Page::Closed(number) if !self.live.pages.contains_key(number) => {
                    Some(Ref::Page(*number))
                }
                Page::Closed(_) | Page::Open { .. } | Page::Untouched => None,
            })
            .collect()
    }
}

impl Decider<'_> {
    /// Big values that a fork keeps become blobs, as they were in the run they come from.
    pub(super) fn store_kept(&mut self, created: &mut RunCreated) {
        let kept = created.fork.iter_mut().flat_map(|fork| &mut fork.kept);
        for step in kept {
            let failures = step.items.as_mut().map(|items| &mut items.failures);
            for value in failures.into_iter().chain([&mut step.output]).flatten() {
                if value.inline.len() > limits::INLINE_OUTPUT_BYTES {
                    *value = self.stored(&value.value());
                }
            }
        }
    }
}

/// A changed parameter that a kept step uses would make its kept output a lie.
fn uses_none(step: &StepPlan, changed: &Map) -> Result<(), Refusal> {
    let text = serde_json::to_string(&*step.step).unwrap_or_default();
    let uses = |name: &str| {
        let name = format!("params.{name}");
        text.match_indices(&name).any(|(at, _)| {
            let after = text[at + name.len()..].chars().next();
            !after.is_some_and(|next| next.is_ascii_alphanumeric() || next == '_')
        })
    };
    let Some(name) = changed.keys().find(|name| uses(name)) else {
        return Ok(());
    };
    let id = &step.step.id;
    Err(Refusal::Reject(
        Error::new(
            ErrorCode::NotAllowedNow,
            format!("parameter `{name}` is used by step `{id}`, which is kept"),
        )
        .hint(format!("fork from `{id}` or a step before it")),
    ))
}

/// Stretches of items that did not succeed: of each the first, and the one after the last.
fn others(step: &StepState) -> Vec<u32> {
    let mut others: Vec<u32> = Vec::new();
    let Some(foreach) = &step.foreach else {
        return others;
    };
    for (index, page) in foreach.pages.iter().enumerate() {
        for offset in 0..foreach.page_len(index) {
            let good = match page {
                // A page is closed only when every item of it succeeded.
                Page::Closed(_) => true,
                Page::Untouched => false,
                Page::Open { units, .. } => {
                    units.get(offset).is_some_and(|unit| unit.status.good())
                }
            };
            if good {
                continue;
            }
            let item = u32::try_from(index * limits::FOREACH_PAGE + offset).unwrap_or(u32::MAX);
            match others.last_mut() {
                Some(after) if *after == item => *after = item + 1,
                _ => others.extend([item, item + 1]),
            }
        }
    }
    others
}
