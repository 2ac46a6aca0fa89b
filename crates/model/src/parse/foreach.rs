//! `foreach`: its variables before the verb is read, its options after.

use std::sync::Arc;

use kapell_expr::{Template, Type};

use super::Context;
use super::fields::Fields;
use super::scope::Scope;
use super::template::Secrets;
use crate::language;
use crate::limits;
use crate::spec::{Foreach, MinSuccess, Named};
use crate::yaml::{Entry, Node};

/// A foreach whose variables are read and whose options are not.
pub(crate) struct Variables<'n> {
    fields: Fields<'n>,
    lists: Named<Template>,
    /// Types of the variables as the items see them.
    types: Vec<(String, Type)>,
    chunk: Option<u32>,
}

/// Reads the variables of a foreach; the options come once the type of the output is known.
pub(crate) fn variables<'n>(
    cx: &mut Context<'_>,
    node: &'n Node,
    whole: &Scope<'_>,
) -> Option<Variables<'n>> {
    if node.map().is_none() && !node.is_null() && !node.is_broken() {
        cx.error_hint(
            "wrong-form",
            node.span,
            format!(
                "`foreach` is a map of variables to their lists, not {}",
                node.what()
            ),
            "name what an item is: `foreach: { item: … }`",
        );
        return None;
    }
    let fields = cx.fields(node, &language::FOREACH)?;
    let chunk = fields
        .get("chunk")
        .and_then(|node| cx.count(node, "chunk", (1, 1_000_000)));
    if fields.others().count() > limits::FOREACH_VARIABLES {
        let message = format!(
            "a foreach has at most {} variables",
            limits::FOREACH_VARIABLES
        );
        cx.error_hint("limit", fields.span, message, "go through a list of maps");
        return None;
    }
    let mut lists = Vec::new();
    let mut types = Vec::new();
    for entry in fields.others() {
        let fine = variable_fine(cx, entry, whole);
        let (template, of) = match list_of(cx, entry, whole) {
            Some((template, of)) => (Some(template), of),
            None => (None, Type::Any),
        };
        let of = if chunk.is_some() {
            Type::List(Arc::new(of))
        } else {
            of
        };
        types.push((entry.key.to_string(), of));
        lists.extend(
            template
                .filter(|_| fine)
                .map(|template| (entry.key.clone(), template)),
        );
    }
    if types.is_empty() {
        cx.error_hint(
            "no-variable",
            fields.span,
            "`foreach` has no variable",
            "name one with its list: `foreach: { item: \"${{ … }}\" }`",
        );
    }
    if let Some(entry) = fields.entry("chunk").filter(|_| types.len() > 1) {
        cx.error(
            "one-variable",
            entry.key_span,
            "`chunk` is for a foreach with one variable",
        );
    }
    if let Some(entry) = fields.entry("zip").filter(|_| types.len() == 1) {
        cx.warn(
            "no-effect",
            entry.key_span,
            "`zip` pairs several lists, and here is one",
            "remove it",
        );
    }
    Some(Variables {
        fields,
        lists,
        types,
        chunk,
    })
}

fn variable_fine(cx: &mut Context<'_>, entry: &Entry, whole: &Scope<'_>) -> bool {
    let name = &*entry.key;
    let near = language::FOREACH
        .keys
        .iter()
        .map(|key| key.name)
        .find(|key| strsim::damerau_levenshtein(key, name) <= 2 && key.len() > 4);
    if let Some(option) = near {
        cx.warn(
            "looks-like-option",
            entry.key_span,
            format!("`{name}` is read as a variable"),
            format!("did you mean the option `{option}`?"),
        );
    }
    if !cx.expression_name(name, entry.key_span, "foreach variable") {
        return false;
    }
    if whole.names_variable(name) {
        cx.error_hint(
            "repeated-id",
            entry.key_span,
            format!("`{name}` is already a variable of a foreach around this one"),
            "give the inner one another name",
        );
        return false;
    }
    true
}

/// The list of a variable and the type of its items.
fn list_of(cx: &mut Context<'_>, entry: &Entry, whole: &Scope<'_>) -> Option<(Template, Type)> {
    let (template, of) = cx.value(&entry.value, whole, Secrets::Refused)?;
    match of {
        Type::List(item) => Some((template, (*item).clone())),
        Type::Any => Some((template, Type::Any)),
        other => {
            let hint = "write `[a, b]`, or an expression that gives a list; for numbers `range(n)`";
            cx.error_hint(
                "wrong-type",
                entry.value.span,
                format!("`{}` goes through a list, and this is {other}", entry.key),
                hint,
            );
            None
        }
    }
}

impl Variables<'_> {
    /// What an item sees.
    pub(crate) fn scope<'a>(&self, whole: &Scope<'a>) -> Scope<'a> {
        whole.with(
            self.types
                .iter()
                .cloned()
                .chain([("index".to_owned(), Type::Int)]),
        )
    }

    /// What is decided once for the whole step sees: not the variables.
    pub(crate) fn outside<'a>(&self, whole: &Scope<'a>) -> Scope<'a> {
        let names = self.types.iter().map(|(name, _)| &**name);
        whole.hiding(
            names,
            "it is one item's, and this is decided once for the whole step",
        )
    }

    /// Reads the options; `output` is the type of one item's.
    pub(crate) fn finish(
        self,
        cx: &mut Context<'_>,
        whole: &Scope<'_>,
        item: &Scope<'_>,
        output: Type,
    ) -> Foreach {
        let fields = &self.fields;
        let ended = item.with([("output".to_owned(), output)]);
        Foreach {
            concurrency: fields
                .get("concurrency")
                .and_then(|node| cx.dynamic_int(node, "concurrency", whole, (1, 1_000_000))),
            min_success: fields
                .get("min_success")
                .and_then(|node| min_success(cx, node))
                .unwrap_or(MinSuccess::Share(10_000)),
            chunk: self.chunk,
            zip: fields
                .get("zip")
                .and_then(|node| cx.bool(node, "zip"))
                .unwrap_or(false),
            stop_when: fields
                .get("stop_when")
                .and_then(|node| cx.condition(node, "stop_when", &ended)),
            label: fields
                .get("label")
                .and_then(|node| cx.text(node, "label", item, Secrets::Refused)),
            vars: self.lists,
        }
    }
}

/// `8`, `90%` or `99.5%`.
fn min_success(cx: &mut Context<'_>, node: &Node) -> Option<MinSuccess> {
    let text = cx.scalar(node, "min_success")?.text.clone();
    let read = match text.strip_suffix('%') {
        None => text.parse().ok().map(MinSuccess::Count),
        Some(share) => {
            let (whole, fraction) = share.trim().split_once('.').unwrap_or((share.trim(), ""));
            let digits = !whole.is_empty()
                && fraction.len() <= 2
                && fraction.bytes().all(|byte| byte.is_ascii_digit());
            let hundredths = whole.parse::<u32>().ok().and_then(|whole| {
                Some(whole.checked_mul(100)? + format!("{fraction:0<2}").parse::<u32>().ok()?)
            });
            hundredths
                .filter(|share| digits && *share <= 10_000)
                .map(MinSuccess::Share)
        }
    };
    if read.is_none() {
        cx.error_hint(
            "wrong-type",
            node.span,
            format!("`min_success` cannot be `{text}`"),
            "write a number of items such as `8`, or a share such as `90%`",
        );
    }
    read
}
