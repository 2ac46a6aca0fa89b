//! A person's decision.

use std::sync::Arc;

use kapell_expr::{Template, Type};

use crate::language;
use crate::limits;
use crate::spec::{Approval, OnReject, Param};
use crate::yaml::Node;

use super::Context;
use super::fields::Fields;
use super::params;
use super::scope::{Scope, object_type};
use super::template::Secrets;

impl Context<'_> {
    /// `approval`, and the type of its output.
    pub(crate) fn approval(&mut self, node: &Node, item: &Scope<'_>) -> Option<(Approval, Type)> {
        let fields = self.fields(node, &language::APPROVAL)?;
        let (input, input_type) = fields
            .get("input")
            .map_or_else(|| (Vec::new(), no_input()), |node| self.input(node));
        let by = self.answering(&fields);
        let message = fields
            .get("message")
            .and_then(|node| self.text(node, "message", item, Secrets::Refused));
        let words = [("fail", OnReject::Fail), ("continue", OnReject::Continue)];
        let approval = Approval {
            by,
            count: fields
                .get("count")
                .and_then(|node| self.count(node, "count", (1, limits::APPROVALS)))
                .unwrap_or(1),
            message,
            input,
            timeout: fields
                .get("timeout")
                .and_then(|node| self.step_timeout(node, "timeout", item)),
            allow_self: fields
                .get("allow_self")
                .and_then(|node| self.bool(node, "allow_self"))
                .unwrap_or(false),
            on_reject: fields
                .get("on_reject")
                .and_then(|node| self.choice(node, "on_reject", &words))
                .unwrap_or_default(),
        };
        let output = object_type(
            "the answer",
            [
                ("approved", Type::Bool),
                // A name, or several with commas between them.
                ("by", Type::String),
                ("at", Type::Timestamp),
                ("comment", Type::String),
                ("input", input_type),
            ],
        );
        Some((approval, output))
    }

    /// What is filled in: parameters whose defaults are literal.
    fn input(&mut self, node: &Node) -> (Vec<Param>, Type) {
        let (input, of) = params::read(self, node);
        for param in &input {
            if !matches!(param.default, None | Some(Template::Literal(_))) {
                let default = node
                    .map()
                    .and_then(|entries| entries.iter().find(|entry| entry.key == param.name))
                    .and_then(|entry| entry.value.map())
                    .and_then(|keys| keys.iter().find(|key| &*key.key == "default"));
                let span = default.map_or(node.span, |default| default.value.span);
                self.error_hint(
                    "literal-only",
                    span,
                    format!(
                        "the default of the input `{}` takes no expressions",
                        param.name
                    ),
                    "show what is known in `message`",
                );
            }
        }
        // Nobody sees a run's parameters here, so the type has another name.
        let of = match of {
            Type::Object(object) => object_type("input", object.fields.clone()),
            of => of,
        };
        (input, of)
    }

    /// `by`: users and groups.
    fn answering(&mut self, fields: &Fields<'_>) -> Vec<Arc<str>> {
        let Some(node) = fields.get("by") else {
            return Vec::new();
        };
        let mut by = Vec::new();
        let items = self.one_or_many(node, "`by`");
        for item in items {
            let fixed = "who may answer is fixed; a group may change";
            let Some(name) = self.literal(item, "by", fixed) else {
                continue;
            };
            // Users may be known by their address.
            let plain = name.replacen('@', ".", 1);
            if self.plain_name(&plain, item.span, "person or group") {
                by.push((name, item.span));
            }
        }
        if items.is_empty() && node.scalar().is_none() && !node.is_broken() {
            self.error_hint(
                "wrong-form",
                node.span,
                "`by` names nobody",
                "leave it out if everybody who may act on the run may answer",
            );
        }
        self.without_repeats(by, "by")
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }
}

fn no_input() -> Type {
    object_type("input", std::iter::empty::<(String, Type)>())
}
