//! What an attempt needs of its worker.

use kapell_expr::{Template, Type};

use super::Context;
use super::scope::Scope;
use super::template::Secrets;
use crate::language;
use crate::limits;
use crate::spec::{Dyn, Named, Resources};
use crate::yaml::{Entry, Node};

impl Context<'_> {
    pub(crate) fn resources(&mut self, node: &Node, failed: &Scope<'_>) -> Resources {
        let Some(fields) = self.fields(node, &language::RESOURCES) else {
            return Resources::default();
        };
        let cpu = fields.get("cpu").and_then(|node| {
            self.dynamic(
                node,
                "cpu",
                failed,
                &[Type::Int, Type::Float],
                |cx, node| cx.number(node, "cpu", 0.0),
            )
        });
        let memory = fields.get("memory").and_then(|node| {
            self.dynamic(
                node,
                "memory",
                failed,
                &[Type::Int, Type::String],
                |cx, node| cx.size(node, "memory"),
            )
        });
        Resources {
            cpu,
            memory,
            gpu: fields
                .get("gpu")
                .and_then(|node| self.dynamic_int(node, "gpu", failed, (0, 1_000))),
            spot: fields
                .get("spot")
                .and_then(|node| self.bool(node, "spot"))
                .unwrap_or(false),
            preemptions: fields
                .get("preemptions")
                .and_then(|node| self.count(node, "preemptions", (0, 1_000))),
            custom: fields
                .get("custom")
                .map(|node| self.custom(node, failed))
                .unwrap_or_default(),
            labels: fields
                .get("labels")
                .map(|node| self.worker_labels(node, "labels", failed))
                .unwrap_or_default(),
            prefer: fields
                .get("prefer")
                .map(|node| self.worker_labels(node, "prefer", failed))
                .unwrap_or_default(),
        }
    }

    fn custom(&mut self, node: &Node, scope: &Scope<'_>) -> Named<Dyn<i64>> {
        let entries = self.few(node, "custom");
        let mut custom = Vec::with_capacity(entries.len());
        for entry in entries {
            let named = self.plain_name(&entry.key, entry.key_span, "resource");
            let amount = self.dynamic_int(
                &entry.value,
                &entry.key,
                scope,
                (0, limits::RESOURCE_AMOUNT),
            );
            custom.extend(
                amount
                    .filter(|_| named)
                    .map(|amount| (entry.key.clone(), amount)),
            );
        }
        custom
    }

    fn worker_labels(&mut self, node: &Node, what: &str, scope: &Scope<'_>) -> Named<Template> {
        let entries = self.few(node, what);
        self.named_texts(entries, scope, Secrets::Refused, |cx, entry| {
            cx.plain_name(&entry.key, entry.key_span, "label")
        })
    }

    /// The entries of a map in `resources`, none if there are too many.
    fn few<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        let entries = self.entries(node, &format!("`{what}`"));
        if entries.len() <= limits::RESOURCE_NAMES {
            return entries;
        }
        self.error(
            "limit",
            node.span,
            format!("`{what}` names at most {}", limits::RESOURCE_NAMES),
        );
        &[]
    }
}
