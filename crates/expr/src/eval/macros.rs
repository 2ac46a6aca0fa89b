//! Macros over lists and the keys of maps.

use std::sync::Arc;

use super::{Machine, combine, ops, wrong};
use crate::ast::{Macro, MacroKind, Node};
use crate::{EvalError, Value};

impl Machine<'_> {
    pub(super) fn macro_call(&mut self, call: &Macro) -> Result<Value, EvalError> {
        let items = match self.eval(&call.list)? {
            Value::List(items) => items,
            Value::Map(map) => Arc::new(map.keys().map(|key| Value::String(key.clone())).collect()),
            other => {
                return Err(wrong(
                    &format!("`{}` needs a list or a map", call.kind.name()),
                    &other,
                ));
            }
        };
        // A variable of an enclosing macro keeps its place below.
        self.locals.truncate(call.slot);
        self.locals.push(Value::Null);
        let result = match call.kind {
            MacroKind::All => self.quantify(call, &items, false),
            MacroKind::Exists => self.quantify(call, &items, true),
            MacroKind::ExistsOne => self.exists_one(call, &items),
            MacroKind::Filter => self.filter(call, &items),
            MacroKind::Map => self.map(call, &items),
            MacroKind::MinBy => self.extreme_by(call, &items, std::cmp::Ordering::Less),
            MacroKind::MaxBy => self.extreme_by(call, &items, std::cmp::Ordering::Greater),
            MacroKind::SortBy => self.sort_by(call, &items),
        };
        self.locals.truncate(call.slot);
        result
    }

    fn bind(&mut self, call: &Macro, item: &Value) -> Result<(), EvalError> {
        self.meter.step()?;
        self.locals.truncate(call.slot + 1);
        if let Some(place) = self.locals.get_mut(call.slot) {
            *place = item.clone();
        }
        Ok(())
    }

    fn holds(&mut self, condition: &Node, what: &str) -> Result<bool, EvalError> {
        match self.eval(condition)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(wrong(
                &format!("the condition of `{what}` must be a bool"),
                &other,
            )),
        }
    }

    /// `all` and `exists`: an item that decides wins over errors of others.
    fn quantify(
        &mut self,
        call: &Macro,
        items: &[Value],
        decides: bool,
    ) -> Result<Value, EvalError> {
        let mut sofar = Ok(!decides);
        for item in items {
            self.bind(call, item)?;
            let holds = self.holds(&call.body, call.kind.name());
            sofar = combine(sofar, holds, decides);
            match &sofar {
                Ok(truth) if *truth == decides => break,
                Err(EvalError::Budget(_)) => break,
                _ => {}
            }
        }
        sofar.map(Value::Bool)
    }

    fn exists_one(&mut self, call: &Macro, items: &[Value]) -> Result<Value, EvalError> {
        let mut count = 0_usize;
        for item in items {
            self.bind(call, item)?;
            if self.holds(&call.body, call.kind.name())? {
                count += 1;
            }
        }
        Ok(Value::Bool(count == 1))
    }

    fn filter(&mut self, call: &Macro, items: &[Value]) -> Result<Value, EvalError> {
        let mut kept = Vec::new();
        for item in items {
            self.bind(call, item)?;
            if self.holds(&call.body, call.kind.name())? {
                kept.push(item.clone());
            }
        }
        Ok(Value::list(kept))
    }

    fn map(&mut self, call: &Macro, items: &[Value]) -> Result<Value, EvalError> {
        let mut made = Vec::new();
        for item in items {
            self.bind(call, item)?;
            if let Some(condition) = &call.condition
                && !self.holds(condition, call.kind.name())?
            {
                continue;
            }
            made.push(self.eval(&call.body)?);
        }
        Ok(Value::list(made))
    }

    fn keys(&mut self, call: &Macro, items: &[Value]) -> Result<Vec<Value>, EvalError> {
        items
            .iter()
            .map(|item| {
                self.bind(call, item)?;
                self.eval(&call.body)
            })
            .collect()
    }

    fn extreme_by(
        &mut self,
        call: &Macro,
        items: &[Value],
        wanted: std::cmp::Ordering,
    ) -> Result<Value, EvalError> {
        let keys = self.keys(call, items)?;
        let place = ops::extreme(&mut self.meter, &keys, wanted)?;
        let name = call.kind.name();
        place
            .and_then(|place| items.get(place).cloned())
            .ok_or_else(|| EvalError::Missing(format!("`{name}` of an empty list")))
    }

    fn sort_by(&mut self, call: &Macro, items: &[Value]) -> Result<Value, EvalError> {
        let keys = self.keys(call, items)?;
        let order = ops::sorted(&mut self.meter, &keys)?;
        Ok(Value::list(
            order
                .into_iter()
                .filter_map(|place| items.get(place).cloned())
                .collect(),
        ))
    }
}
