//! What names mean at a place of a run.

use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{EvalError, Map, Scope as Names, Value};
use kapell_model::{StepStatus, Time, limits};

use super::Run;
use super::state::{KeptItems, Page, RunError, Scope, StepState};
use crate::event::ScopeKind;
use crate::label;

/// The names in scope of a unit, or of a graph as a whole.
pub(crate) struct At<'a> {
    pub run: &'a Run,
    /// The innermost scope.
    pub scope: u32,
    /// The unit whose item variables are seen; a step that is `Place::NO_ITEM` sees none of its own.
    pub place: Option<Place>,
    /// Names of the moment: `error`, `attempt`, `output`.
    pub extra: Map,
    pub now: Time,
}

impl<'a> At<'a> {
    /// The names a unit sees.
    pub(crate) fn unit(run: &'a Run, place: Place, now: Time) -> Self {
        Self {
            run,
            scope: place.scope,
            place: Some(place),
            extra: Map::new(),
            now,
        }
    }

    /// The names seen inside a scope by what is about the scope as a whole.
    pub(crate) fn scope(run: &'a Run, scope: u32, now: Time) -> Self {
        Self {
            run,
            scope,
            place: None,
            extra: Map::new(),
            now,
        }
    }

    /// The same with another name.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// Innermost first: each scope with the unit that is inside it on the way here.
    fn chain(&self) -> impl Iterator<Item = (u32, &'a Scope, Option<Place>)> + use<'a> {
        let state = &self.run.state;
        let mut next = Some((self.scope, self.place));
        std::iter::from_fn(move || {
            let (number, place) = next.take()?;
            let scope = &**state.scopes.get(&number)?;
            next = scope
                .parent
                .map(|parent| (parent.scope, Some(parent)))
                .or_else(|| (scope.kind == ScopeKind::Finally).then_some((0, None)));
            Some((number, scope, place))
        })
    }

    fn step_value(
        &self,
        id: &str,
        field: Option<&str>,
    ) -> Result<Option<(Value, usize)>, EvalError> {
        for (number, scope, place) in self.chain() {
            if let Some(found) = self.step_in(number, scope, id) {
                return self.field_of(found, field).map(Some);
            }
            // A handler also sees what is inside the unit that failed: its graph stays until it ends.
            if scope.kind == ScopeKind::Handler
                && let Some(inner) = self.failed_inside(number)
                && let Some(inside) = self.run.state.scopes.get(&inner)
                && let Some(found) = self.step_in(inner, inside, id)
            {
                return self.field_of(found, field).map(Some);
            }
            let _ = place;
        }
        Ok(None)
    }

    fn failed_inside(&self, handler: u32) -> Option<u32> {
        let parent = self.run.state.scopes.get(&handler)?.parent?;
        self.run
            .state
            .scopes
            .iter()
            .find(|(number, scope)| **number != handler && scope.parent == Some(parent))
            .map(|(number, _)| *number)
    }

    fn step_in(&self, number: u32, scope: &'a Scope, id: &str) -> Option<(Place, &'a StepState)> {
        let graph = self.run.plan.graphs.get(scope.graph as usize)?;
        let index = *graph.by_id.get(id)?;
        let place = Place {
            scope: number,
            step: index,
            item: Place::NO_ITEM,
        };
        Some((place, scope.steps.get(usize::from(index))?))
    }

    fn field_of(
        &self,
        (place, step): (Place, &StepState),
        field: Option<&str>,
    ) -> Result<(Value, usize), EvalError> {
        let Some(field) = field else {
            let mut fields = Map::new();
            for name in ["output", "status", "attempts", "error", "cached"] {
                fields.insert(
                    name.into(),
                    self.field(place, step, name)?.unwrap_or_default(),
                );
            }
            return Ok((Value::Map(Arc::new(fields)), 2));
        };
        match self.field(place, step, field)? {
            Some(value) => Ok((value, 3)),
            None => Err(EvalError::Missing(format!("a step has no field `{field}`"))),
        }
    }

    /// A field of a step; none if steps have no such field.
    pub(super) fn field(
        &self,
        place: Place,
        step: &StepState,
        field: &str,
    ) -> Result<Option<Value>, EvalError> {
        let unit = &step.unit;
        Ok(Some(match field {
            "output" => match (&step.foreach, unit.output.is_null()) {
                (Some(_), true) => self.items(place, step, Items::Outputs)?,
                _ => unit.output.clone(),
            },
            "results" => self.items(place, step, Items::Results)?,
            "failures" => self.items(place, step, Items::Failures)?,
            "status" => Value::string(match unit.status {
                StepStatus::Cached => StepStatus::Succeeded.name(),
                status => status.name(),
            }),
            "cached" => Value::Bool(unit.status == StepStatus::Cached),
            "attempts" => Value::Int(i64::from(unit.attempts)),
            "error" => unit.error.as_deref().map_or(Value::Null, error_value),
            _ => return Ok(None),
        }))
    }

    /// The outputs, results or failures of all items. Every page must be in memory.
    fn items(&self, place: Place, step: &StepState, what: Items) -> Result<Value, EvalError> {
        let Some(foreach) = &step.foreach else {
            return match &step.kept {
                Some(kept) => self.kept_items(kept, &step.unit.output, what),
                None => Ok(Value::list(Vec::new())),
            };
        };
        let mut list = Vec::new();
        for (index, page) in foreach.pages.iter().enumerate() {
            let from = index * limits::FOREACH_PAGE;
            let len = foreach.page_len(index);
            let loaded;
            let units = match page {
                Page::Open { units, .. } => Some(units),
                Page::Untouched => None,
                Page::Closed(number) => {
                    loaded = self.run.live.page(*number)?;
                    Some(&*loaded)
                }
            };
            for offset in 0..len {
                let unit = units.and_then(|units| units.get(offset));
                let good = unit.is_some_and(|unit| unit.status.good());
                match what {
                    Items::Outputs => list.push(match unit {
                        Some(unit) if good => unit.output.clone(),
                        _ => Value::Null,
                    }),
                    Items::Results if good => list.extend(unit.map(|unit| unit.output.clone())),
                    Items::Failures => {
                        if let Some(unit) = unit
                            && unit.status.bad()
                        {
                            let item = u32::try_from(from + offset).unwrap_or(u32::MAX);
                            list.push(self.failure(Place { item, ..place }, unit.error.as_deref()));
                        }
                    }
                    Items::Results => {}
                }
            }
        }
        Ok(Value::list(list))
    }

    /// Those of a foreach that a fork has kept.
    fn kept_items(
        &self,
        kept: &KeptItems,
        output: &Value,
        what: Items,
    ) -> Result<Value, EvalError> {
        match what {
            Items::Outputs => Ok(output.clone()),
            Items::Failures => Ok(kept.failures.clone()),
            Items::Results => {
                let output = self.run.live.loaded(output)?;
                let Some(outputs) = output.as_list() else {
                    return Ok(output);
                };
                let mut list = Vec::with_capacity(outputs.len());
                let mut from = 0;
                for (first, after) in kept.others.iter().chain(&[(u32::MAX, u32::MAX)]) {
                    let until = (*first as usize).min(outputs.len());
                    list.extend_from_slice(outputs.get(from..until).unwrap_or_default());
                    from = *after as usize;
                }
                Ok(Value::list(list))
            }
        }
    }

    fn failure(&self, place: Place, error: Option<&TaskError>) -> Value {
        Value::map([
            ("index", Value::Int(i64::from(place.item))),
            ("label", Value::String(self.run.label(place, self.now))),
            ("error", error.map_or(Value::Null, error_value)),
        ])
    }

    fn item_variable(&self, name: &str) -> Result<Option<Value>, EvalError> {
        for (_, scope, place) in self.chain() {
            let Some(place) = place.filter(|place| place.item != Place::NO_ITEM) else {
                continue;
            };
            let Some(state) = scope.steps.get(usize::from(place.step)) else {
                continue;
            };
            let Some(step) = self.run.state.plan_step(&self.run.plan, place) else {
                continue;
            };
            let (Some(items), Some(foreach)) = (&state.foreach, &step.step.foreach) else {
                continue;
            };
            if name == "index" {
                return Ok(Some(Value::Int(i64::from(place.item))));
            }
            if let Some(variable) = foreach.vars.iter().position(|(var, _)| **var == *name) {
                let lists = items.lists.iter();
                let lists = lists.map(|list| self.run.live.loaded(list));
                let lists: Vec<Value> = lists.collect::<Result<_, _>>()?;
                return label::item_value(foreach, &lists, variable, place.item).map(Some);
            }
        }
        Ok(None)
    }

    /// Everything of `run`.
    pub(super) fn run_value(&self) -> Value {
        Value::map(
            RUN_FIELDS
                .iter()
                .map(|name| (name, self.run_field(name).unwrap_or_default())),
        )
    }

    /// `run.interval.start`.
    pub(super) fn interval_start(&self) -> Time {
        let interval = self.run_field("interval").unwrap_or_default();
        match interval.as_map().and_then(|interval| interval.get("start")) {
            Some(Value::Timestamp(at)) => (*at).into(),
            _ => self.run.state.meta.scheduled_at,
        }
    }

    fn run_field(&self, field: &str) -> Option<Value> {
        let state = &self.run.state;
        let meta = &state.meta;
        let text = |text: &Arc<str>| Value::String(text.clone());
        let time = |at: Time| Value::Timestamp(at.timestamp());
        Some(match field {
            "id" => Value::string(meta.id.to_string()),
            "workflow" => text(&meta.workflow),
            "version" => Value::Int(i64::from(meta.version)),
            "namespace" => text(&meta.namespace),
            "status" => Value::string(state.outcome.unwrap_or(state.status).name()),
            "scheduled_at" => time(meta.scheduled_at),
            "created_at" => time(meta.created_at),
            "interval" => Value::map([
                ("start", time(meta.interval.0)),
                ("end", time(meta.interval.1)),
            ]),
            "timezone" => text(&meta.timezone),
            "trigger" => Value::map([
                ("kind", text(&meta.trigger)),
                ("name", text(&meta.trigger_name)),
                ("by", text(&meta.by)),
            ]),
            "error" => state.error.as_deref().map_or(Value::Null, run_error_value),
            "labels" => meta.labels.clone(),
            "parent" => meta
                .parent
                .map_or(Value::Null, |parent| Value::string(parent.run.to_string())),
            "forked_from" => meta
                .forked_from
                .map_or(Value::Null, |run| Value::string(run.to_string())),
            "last_success" => meta.last_success.clone(),
            // Served by later work: there is no page of a run yet.
            "url" => Value::Null,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy)]
enum Items {
    Outputs,
    Results,
    Failures,
}

const RUN_FIELDS: [&str; 16] = [
    "id",
    "workflow",
    "version",
    "namespace",
    "status",
    "scheduled_at",
    "created_at",
    "interval",
    "timezone",
    "trigger",
    "error",
    "url",
    "labels",
    "parent",
    "forked_from",
    "last_success",
];

/// An error as expressions see it.
pub(crate) fn error_value(error: &TaskError) -> Value {
    Value::map([
        ("kind", Value::string(error.kind.name())),
        ("reason", Value::string(&error.reason)),
        ("message", Value::string(&error.message)),
        (
            "exit_code",
            error
                .exit_code
                .map_or(Value::Null, |code| Value::Int(i64::from(code))),
        ),
        (
            "http_status",
            error
                .http_status
                .map_or(Value::Null, |code| Value::Int(i64::from(code))),
        ),
    ])
}

pub(crate) fn run_error_value(error: &RunError) -> Value {
    Value::map([
        ("step", Value::string(&error.step)),
        ("kind", Value::string(error.error.kind.name())),
        ("reason", Value::string(&error.error.reason)),
        ("message", Value::string(&error.error.message)),
    ])
}

impl Names for At<'_> {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        let Some(root) = path.first() else {
            return Ok(None);
        };
        if let Some(value) = self.extra.get(root) {
            return Ok(Some((value.clone(), 1)));
        }
        match &**root {
            "params" => Ok(Some((self.run.state.meta.params.clone(), 1))),
            "steps" => match path.get(1) {
                Some(id) => self.step_value(id, path.get(2).map(|field| &**field)),
                None => Ok(None),
            },
            "run" => match path.get(1) {
                Some(field) => Ok(self.run_field(field).map(|value| (value, 2))),
                None => Ok(Some((self.run_value(), 1))),
            },
            "vars" => Ok(self
                .chain()
                .find(|(_, scope, _)| scope.kind == ScopeKind::Iteration)
                .map(|(_, scope, _)| (scope.vars.clone(), 1))),
            "iteration" => Ok(self
                .chain()
                .find(|(_, scope, _)| scope.kind == ScopeKind::Iteration)
                .map(|(_, scope, _)| (Value::Int(i64::from(scope.iteration)), 1))),
            "error" => Ok(self
                .chain()
                .find(|(_, scope, _)| scope.kind == ScopeKind::Handler)
                .map(|(_, scope, _)| {
                    let error = scope
                        .parent
                        .and_then(|parent| self.run.state.unit(parent))
                        .and_then(|unit| unit.error.as_deref());
                    (error.map_or(Value::Null, error_value), 1)
                })),
            name => Ok(self.item_variable(name)?.map(|value| (value, 1))),
        }
    }
}

impl Run {
    /// The name of an item for people, or its index if it has none.
    pub fn label(&self, place: Place, now: Time) -> Arc<str> {
        self.own_label(place, now)
            .unwrap_or_else(|| place.item.to_string().into())
    }

    /// The name of an item for people; none for what is no item, for an item without a name, and while
    /// what it is made of is not in memory.
    pub fn own_label(&self, place: Place, now: Time) -> Option<Arc<str>> {
        if place.item == Place::NO_ITEM {
            return None;
        }
        let step = self.state.plan_step(&self.plan, place)?;
        let foreach = step.step.foreach.as_ref()?;
        label::label(foreach, place.item, &At::unit(self, place, now))
    }
}
