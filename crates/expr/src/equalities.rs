//! What an expression demands to be equal, so that whoever looks for values that satisfy it can find
//! them by an index.

use std::sync::Arc;

use crate::ast::{BinaryOp, Kind, Node};
use crate::eval::Machine;
use crate::{Budget, Program, Scope, Value};

impl Program {
    /// Fields of the name `root` that must equal a value for the expression to hold: for each
    /// `root.a.b == x`, alone or joined by `&&`, the names after `root` and the value of `x` in
    /// `scope`. An `x` that itself reads `root`, or that cannot be evaluated, is left out: what is
    /// returned is necessary, not sufficient.
    pub fn equalities(
        &self,
        root: &str,
        scope: &dyn Scope,
        budget: Budget,
    ) -> Vec<(Vec<Arc<str>>, Value)> {
        let mut found = Vec::new();
        let mut walk = vec![&self.parsed().root];
        while let Some(node) = walk.pop() {
            match &node.kind {
                Kind::And(sides) => walk.extend(sides.iter().rev()),
                Kind::Binary(BinaryOp::Eq, sides) => {
                    let [left, right] = &**sides;
                    let pair = field_of(left, root)
                        .map(|path| (path, right))
                        .or_else(|| field_of(right, root).map(|path| (path, left)));
                    if let Some((path, other)) = pair
                        && !reads(other, root)
                        && let Ok(value) = Machine::new(scope, budget).part(self, other)
                    {
                        found.push((path.to_vec(), value));
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// The names after `root` of a path that begins with it and goes on.
fn field_of<'a>(node: &'a Node, root: &str) -> Option<&'a [Arc<str>]> {
    match &node.kind {
        Kind::Path(path) => match path.names.split_first() {
            Some((first, rest)) if **first == *root && !rest.is_empty() => Some(rest),
            _ => None,
        },
        _ => None,
    }
}

fn reads(node: &Node, root: &str) -> bool {
    let own = match &node.kind {
        Kind::Path(path) | Kind::HasPath(path) => {
            path.names.first().is_some_and(|name| **name == *root)
        }
        _ => false,
    };
    let mut inside = false;
    node.for_each_child(&mut |child| inside = inside || reads(child, root));
    own || inside
}

#[cfg(test)]
mod tests {
    use crate::{Budget, MapScope, Program, Value};

    fn found(source: &str) -> Vec<String> {
        let params = Value::map([("day", Value::string("monday")), ("n", Value::Int(2))]);
        let scope = MapScope([("params".into(), params)].into());
        Program::parse(source)
            .unwrap()
            .equalities("signal", &scope, Budget::default())
            .into_iter()
            .map(|(path, value)| format!("{}={}", path.join("."), value.text()))
            .collect()
    }

    #[test]
    fn equalities_joined_by_and_are_found_on_either_side() {
        assert_eq!(
            found(
                "signal.payload.day == params.day && params.n + 1 == signal.payload.n && signal.key == 'x'"
            ),
            ["payload.day=monday", "payload.n=3", "key=x"]
        );
    }

    #[test]
    fn what_is_not_necessary_is_left_out() {
        for source in [
            "signal.payload.a == 1 || signal.payload.b == 2",
            "!(signal.payload.a == 1)",
            "signal.payload.a == signal.payload.b",
            "signal.payload.a == params.missing",
            "signal.payload.a != 1",
            "params.n == 2",
            "[1].exists(x, signal.payload.a == x)",
        ] {
            assert_eq!(found(source), Vec::<String>::new(), "{source}");
        }
        assert_eq!(
            found("(signal.payload.a == 1 || signal.key == 'k') && signal.name == 'n'"),
            ["name=n"]
        );
    }
}
