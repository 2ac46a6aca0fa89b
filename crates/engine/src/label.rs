//! The names of a foreach's items for people: in errors, lists and what is asked for by name.
//!
//! Invariants
//! - A label follows from the run's version and inputs alone, so it is rendered when it is asked for
//!   and stored nowhere: an item that nobody looks at costs nothing.
//! - It is never longer than a name.

use std::sync::Arc;

use kapell_expr::{Budget, EvalError, Scope as Names, Value};
use kapell_model::limits;
use kapell_model::spec::Foreach;

/// The label of an item over the names that it sees: its `label`, else the only variable's value if
/// that is a number, a date or text. None if it has none of these, one that is longer than a name, or
/// one that says no more than its index.
pub(crate) fn label(foreach: &Foreach, item: u32, names: &dyn Names) -> Option<Arc<str>> {
    let value = match &foreach.label {
        Some(label) => label.eval(names, Budget::default()).ok()?,
        None if foreach.vars.len() == 1 => {
            let (value, _) = names.resolve(&[foreach.vars[0].0.clone()]).ok()??;
            let short = matches!(
                value,
                Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Date(_)
            );
            short.then_some(value)?
        }
        None => return None,
    };
    let text = value.scalar_text()?;
    let fits = !text.is_empty() && text.len() <= limits::NAME_CHARS;
    (fits && *text != item.to_string()).then(|| text.into())
}

/// The value of one variable for one item, from lists that are in memory: several multiply, the last
/// goes fastest.
pub(crate) fn item_value(
    foreach: &Foreach,
    lists: &[Value],
    variable: usize,
    item: u32,
) -> Result<Value, EvalError> {
    let len = |list: &Value| list.as_list().map_or(0, |items| items.len());
    let item = item as usize;
    let Some(list) = lists.get(variable).and_then(Value::as_list) else {
        return Err(EvalError::Failed(
            "the items of the foreach are gone".to_owned(),
        ));
    };
    if let Some(chunk) = foreach.chunk {
        let from = item * chunk as usize;
        let to = (from + chunk as usize).min(list.len());
        return Ok(Value::list(list.get(from..to).unwrap_or_default().to_vec()));
    }
    let place = if foreach.zip {
        item
    } else {
        let after: usize = lists[variable + 1..].iter().map(len).product();
        item / after.max(1) % list.len().max(1)
    };
    list.get(place)
        .cloned()
        .ok_or_else(|| EvalError::Missing(format!("there is no item {item}")))
}
