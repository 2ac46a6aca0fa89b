//! Calls: the function, the number of arguments and their types.

use super::{Checker, nearest};
use crate::ast::{Call, Kind, MacroKind};
use crate::eval::Meter;
use crate::functions::{self, Function, Signature};
use crate::{Budget, Type, Value};

impl Checker<'_> {
    pub(super) fn call(&mut self, call: &Call) -> Type {
        let types: Vec<Type> = call.args.iter().map(|arg| self.node(arg)).collect();
        let Some(function) = call.function else {
            self.unknown(call);
            return Type::Any;
        };
        let forms: Vec<&Signature> = function
            .signatures
            .iter()
            .filter(|form| form.takes(call.method, types.len()))
            .collect();
        let fitting: Vec<&&Signature> = forms
            .iter()
            .filter(|form| {
                types
                    .iter()
                    .enumerate()
                    .all(|(place, given)| form.arg(place).accepts(given))
            })
            .collect();
        match fitting.as_slice() {
            [] => {
                self.misfit(call, function, &forms, &types);
                Type::Any
            }
            [first, rest @ ..] => {
                self.constant(call, function);
                let result = (first.result)(&types);
                // An argument of unknown type may fit several forms with different results.
                if rest.iter().all(|form| (form.result)(&types) == result) {
                    result
                } else {
                    Type::Any
                }
            }
        }
    }

    /// Text that is read as a time, and is none, is wrong whenever it is evaluated.
    fn constant(&mut self, call: &Call, function: &Function) {
        if !matches!(function.name, "date" | "timestamp" | "duration") {
            return;
        }
        let values = call.args.iter().map(|arg| match &arg.kind {
            Kind::Literal(value) => Some(value.clone()),
            _ => None,
        });
        let values: Option<Vec<Value>> = values.collect();
        if let (Some(values), [first, ..]) = (values, call.args.as_slice())
            && let Err(error) = (function.run)(&mut Meter::new(Budget::default()), &values)
        {
            self.problem(first.span, error.to_string(), None);
        }
    }

    fn unknown(&mut self, call: &Call) {
        let name = &call.name.text;
        let macros = MacroKind::ALL.iter().map(|(name, _)| *name);
        let known = functions::names().any(|known| known == &**name);
        let names = functions::names().chain(macros).chain(["has", "coalesce"]);
        let near = if known { None } else { nearest(name, names) };
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        let message = functions::unknown(name, call.method, call.args.len());
        self.problem(call.name.span, message, hint);
    }

    fn misfit(&mut self, call: &Call, function: &Function, forms: &[&Signature], types: &[Type]) {
        let name = function.name;
        // With one argument that fits no form, that one is to blame.
        let blamed = (0..types.len()).find(|place| {
            !forms
                .iter()
                .any(|form| form.arg(*place).accepts(&types[*place]))
        });
        let Some(place) = blamed else {
            let given: Vec<String> = types.iter().map(Type::to_string).collect();
            self.problem(
                call.name.span,
                format!("`{name}` does not work on {}", given.join(", ")),
                None,
            );
            return;
        };
        let mut wanted: Vec<&str> = forms.iter().map(|form| form.arg(place).name()).collect();
        wanted.dedup();
        let subject = if call.method && place == 0 {
            "is a method of"
        } else {
            "takes"
        };
        let message = format!(
            "`{name}` {subject} {}, this is {}",
            wanted.join(" or "),
            types[place]
        );
        self.problem(call.args[place].span, message, None);
    }
}
