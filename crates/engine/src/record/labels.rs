//! The labels of items, from a history that was folded.
//!
//! The names that a label sees are here as far as the fold keeps them: item variables, parameters, what
//! `run` is from its start on, and outputs that are small enough to be shown. An item whose label asks
//! for more has none.

use std::sync::Arc;

use kapell_api::task::Place;
use kapell_expr::{BlobRef, EvalError, Scope as Names, Value};
use kapell_model::StepStatus;
use kapell_model::spec::Foreach;

use super::unit::{ItemsFold, ScopeFold, StepFold};
use super::{Fold, LISTS};
use crate::event::{ScopeKind, Stored};
use crate::label;

/// The items of one foreach.
pub struct Items<'f> {
    fold: &'f Fold<'f>,
    place: Place,
    /// How many there are.
    pub count: u32,
    /// The foreach has a `label`.
    pub labelled: bool,
}

impl Items<'_> {
    /// The label of an item, if it has one.
    pub fn label(&self, item: u32) -> Option<String> {
        if item >= self.count {
            return None;
        }
        self.fold.label(Place { item, ..self.place })
    }
}

impl Fold<'_> {
    /// The lists of a foreach, as far as there is room for them.
    pub(super) fn kept_lists(&mut self, lists: &[Stored]) -> Vec<Value> {
        let bytes: usize = lists.iter().map(|list| list.inline.len()).sum();
        if self.list_bytes + bytes > LISTS {
            return Vec::new();
        }
        self.list_bytes += bytes;
        lists.iter().map(Stored::value).collect()
    }

    /// Puts lists of items that are kept elsewhere in place, as far as `load` gives them.
    pub fn load_lists(&mut self, mut load: impl FnMut(&BlobRef) -> Option<Value>) {
        let steps = self.scopes.values_mut().flat_map(|scope| &mut scope.steps);
        let items = steps.filter_map(|step| step.items.as_mut());
        for list in items.flat_map(|items| &mut items.lists) {
            if let Value::Blob(blob) = list
                && let Some(loaded) = load(blob)
            {
                *list = loaded;
            }
        }
    }

    /// The items of the foreach at a path; none if it has none, or there is no such step.
    pub fn items(&self, path: &str) -> Option<Items<'_>> {
        let scopes = self.scopes.iter();
        let mut found = scopes.flat_map(|(number, scope)| {
            let with_items = (0..).zip(&scope.steps);
            with_items.filter_map(move |(step, of)| {
                let items = of.items.as_ref()?;
                let place = Place {
                    scope: *number,
                    step,
                    item: Place::NO_ITEM,
                };
                Some((place, items))
            })
        });
        let (place, items) = found.find(|(place, _)| self.path(*place).as_deref() == Some(path))?;
        let scope = self.scopes.get(&place.scope)?;
        let (_, foreach) = self.foreach_of(scope, place)?;
        Some(Items {
            fold: self,
            place,
            labelled: foreach.label.is_some(),
            count: u32::try_from(items.statuses.len()).unwrap_or(u32::MAX),
        })
    }

    fn path(&self, place: Place) -> Option<String> {
        let scope = self.scopes.get(&place.scope)?;
        let graph = self.plan.graphs.get(scope.graph as usize)?;
        let id = &graph.steps.get(usize::from(place.step))?.step.id;
        let above = match scope.parent {
            Some(parent) => self.path(parent)?,
            None => String::new(),
        };
        let mut path = format!("{}{id}", scope.prefix(&above));
        if place.item != Place::NO_ITEM {
            path += &format!("[{}]", place.item);
        }
        Some(path)
    }

    /// The label of an item, if it has one.
    pub(super) fn label(&self, place: Place) -> Option<String> {
        let scope = self.scopes.get(&place.scope)?;
        let (_, foreach) = self.foreach_of(scope, place)?;
        let label = label::label(foreach, place.item, &At { fold: self, place });
        label.map(|label| label.to_string())
    }

    fn foreach_of<'f>(
        &'f self,
        scope: &'f ScopeFold,
        place: Place,
    ) -> Option<(&'f ItemsFold, &'f Foreach)> {
        let graph = self.plan.graphs.get(scope.graph as usize)?;
        let plan = graph.steps.get(usize::from(place.step))?;
        let items = scope.steps.get(usize::from(place.step))?.items.as_ref()?;
        Some((items, plan.step.foreach.as_ref()?))
    }
}

/// The names that an item sees.
struct At<'f> {
    fold: &'f Fold<'f>,
    place: Place,
}

impl<'f> At<'f> {
    /// Innermost first: each scope with the unit that is inside it on the way here.
    fn chain(&self) -> impl Iterator<Item = (&'f ScopeFold, Option<Place>)> + use<'f> {
        let fold = self.fold;
        let mut next = Some((self.place.scope, Some(self.place)));
        std::iter::from_fn(move || {
            let (number, place) = next.take()?;
            let scope = fold.scopes.get(&number)?;
            next = scope
                .parent
                .map(|parent| (parent.scope, Some(parent)))
                .or_else(|| (scope.kind == ScopeKind::Finally).then_some((0, None)));
            Some((scope, place))
        })
    }

    fn variable(&self, name: &str) -> Result<Option<Value>, EvalError> {
        for (scope, place) in self.chain() {
            let Some(place) = place.filter(|place| place.item != Place::NO_ITEM) else {
                continue;
            };
            let Some((items, foreach)) = self.fold.foreach_of(scope, place) else {
                continue;
            };
            if name == "index" {
                return Ok(Some(Value::Int(i64::from(place.item))));
            }
            if let Some(variable) = foreach.vars.iter().position(|(var, _)| **var == *name) {
                return label::item_value(foreach, &items.lists, variable, place.item).map(Some);
            }
        }
        Ok(None)
    }

    fn step(&self, id: &str) -> Option<&'f StepFold> {
        self.chain().find_map(|(scope, _)| {
            let graph = self.fold.plan.graphs.get(scope.graph as usize)?;
            scope.steps.get(usize::from(*graph.by_id.get(id)?))
        })
    }
}

impl Names for At<'_> {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        let Some(root) = path.first() else {
            return Ok(None);
        };
        Ok(match &**root {
            "params" => Some((self.fold.record.params.clone(), 1)),
            "run" => Some((self.fold.named.clone(), 1)),
            "iteration" => self
                .chain()
                .find(|(scope, _)| scope.kind == ScopeKind::Iteration)
                .map(|(scope, _)| (Value::Int(i64::from(scope.iteration)), 1)),
            "steps" => {
                let step = path.get(1).and_then(|id| self.step(id));
                step.zip(path.get(2))
                    .and_then(|(step, field)| field_of(step, field))
                    .map(|value| (value, 3))
            }
            name => self.variable(name)?.map(|value| (value, 1)),
        })
    }
}

/// What is kept of a field of a step.
fn field_of(step: &StepFold, field: &str) -> Option<Value> {
    let unit = &step.unit;
    match field {
        "output" => {
            (step.items.is_none() && unit.output_bytes.is_none()).then(|| unit.output.clone())
        }
        "status" => Some(Value::string(match unit.status {
            StepStatus::Cached => StepStatus::Succeeded.name(),
            status => status.name(),
        })),
        _ => None,
    }
}
