//! What a fork keeps of the run it comes from.

use kapell_api::task::Place;
use kapell_model::spec::StepIndex;
use kapell_model::{Error, ErrorCode, limits};

use super::names::At;
use super::state::{Page, StepState};
use super::{Decider, Ref, Refusal, Run, Stop};
use crate::event::{self, KeptStep, RunCreated, Stored};

impl Run {
    /// An ended step as a fork keeps it, with its place in the fork's version.
    ///
    /// # Errors
    /// [`Refusal::Need`] while pages of its items are not in memory.
    pub fn keep(&self, place: Place, step: StepIndex) -> Result<KeptStep, Refusal> {
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
