//! What one evaluation has used of its budget.

use crate::{Budget, EvalError, Value};

pub(crate) struct Meter {
    fuel: u64,
    budget: Budget,
}

impl Meter {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            fuel: budget.fuel,
            budget,
        }
    }

    /// Pays for one step.
    pub(crate) fn step(&mut self) -> Result<(), EvalError> {
        match self.fuel.checked_sub(1) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => Err(self.out_of_fuel()),
        }
    }

    /// Pays for many steps at once.
    pub(crate) fn charge(&mut self, steps: usize) -> Result<(), EvalError> {
        match u64::try_from(steps)
            .ok()
            .and_then(|steps| self.fuel.checked_sub(steps))
        {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => Err(self.out_of_fuel()),
        }
    }

    /// Pays for reading text.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.charge(bytes / 16)
    }

    /// Pays for text about to be produced, which may not be longer than a result.
    pub(crate) fn text(&mut self, bytes: usize) -> Result<(), EvalError> {
        if bytes > self.budget.size {
            return Err(self.too_big());
        }
        self.charge(bytes / 16 + 1)
    }

    /// Pays for a list about to be produced, which may not be longer than a result.
    pub(crate) fn items(&mut self, count: usize) -> Result<(), EvalError> {
        if count > self.budget.size / 2 {
            return Err(self.too_big());
        }
        self.charge(count)
    }

    /// Holds the depth of an expression to the budget.
    pub(crate) fn depth(&self, depth: usize) -> Result<(), EvalError> {
        if depth > self.budget.depth {
            return Err(self.too_deep("the expression"));
        }
        Ok(())
    }

    /// Pays for looking at every part of `value`, as formatting and hashing do. A blob inside must
    /// be loaded first.
    pub(crate) fn look_inside(&mut self, value: &Value) -> Result<(), EvalError> {
        self.inside(value, 0)
    }

    fn inside(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        self.step()?;
        self.nested(depth)?;
        match value {
            Value::String(text) => self.read(text.len()),
            Value::Bytes(bytes) => self.read(bytes.len()),
            Value::List(items) => items
                .iter()
                .try_for_each(|item| self.inside(item, depth + 1)),
            Value::Map(entries) => entries.iter().try_for_each(|(key, value)| {
                self.read(key.len())?;
                self.inside(value, depth + 1)
            }),
            Value::Blob(blob) => Err(EvalError::Need(blob.clone())),
            _ => Ok(()),
        }
    }

    /// Holds the depth of nesting of a value to the budget.
    pub(crate) fn nested(&self, depth: usize) -> Result<(), EvalError> {
        if depth > self.budget.depth {
            return Err(self.too_deep("the value"));
        }
        Ok(())
    }

    /// Holds a result to the bounds on size and depth.
    pub(crate) fn result(&self, value: &Value) -> Result<(), EvalError> {
        self.sized(value, self.budget.size, 0).map(|_| ())
    }

    /// The rest of `left` after `value`, counted as [`Value::size`] does. Stops as soon as nothing
    /// is left, for shared parts can make a small value endless.
    fn sized(&self, value: &Value, left: usize, depth: usize) -> Result<usize, EvalError> {
        self.nested(depth)?;
        let take =
            |left: usize, bytes: usize| left.checked_sub(bytes).ok_or_else(|| self.too_big());
        match value {
            Value::List(items) => items.iter().try_fold(take(left, 2)?, |left, item| {
                self.sized(item, take(left, 1)?, depth + 1)
            }),
            Value::Map(entries) => entries
                .iter()
                .try_fold(take(left, 2)?, |left, (key, value)| {
                    self.sized(value, take(left, key.len() + 4)?, depth + 1)
                }),
            scalar => take(left, scalar.size()),
        }
    }

    fn out_of_fuel(&self) -> EvalError {
        EvalError::Budget(format!(
            "the evaluation takes more than {} steps (bound: fuel)",
            self.budget.fuel
        ))
    }

    fn too_big(&self) -> EvalError {
        EvalError::Budget(format!(
            "a value is larger than {} bytes (bound: size)",
            self.budget.size
        ))
    }

    fn too_deep(&self, what: &str) -> EvalError {
        EvalError::Budget(format!(
            "{what} nests deeper than {} levels (bound: depth)",
            self.budget.depth
        ))
    }
}
