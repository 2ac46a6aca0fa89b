//! Verbs with inner graphs, and foreach.

use std::sync::Arc;

use kapell_expr::{Object, Template, Type};

use crate::language;
use crate::limits;
use crate::spec::{Branch, Foreach, Loop, MinSuccess, Named, Verb};
use crate::yaml::{Entry, Kind, Node};

use super::Context;
use super::fields::Fields;
use super::graph;
use super::names;
use super::scope::{Scope, object, object_type};
use super::step::{Around, Did};
use super::template::Secrets;

/// Named values and the type of the map they make.
pub(crate) fn outputs(
    cx: &mut Context<'_>,
    node: &Node,
    what: &str,
    scope: &Scope<'_>,
) -> (Named<Template>, Type) {
    let mut values = Vec::new();
    let mut types = Vec::new();
    for entry in cx.entries(node, what) {
        let fine = cx.expression_name(&entry.key, entry.key_span, "value");
        let (template, of) = match cx.value(&entry.value, scope, Secrets::Refused) {
            Some((template, of)) => (Some(template), of),
            None => (None, Type::Any),
        };
        types.push((entry.key.to_string(), of));
        values.extend(
            template
                .filter(|_| fine)
                .map(|template| (entry.key.clone(), template)),
        );
    }
    (values, object_type("the output", types))
}

/// `steps`: a group.
pub(crate) fn group(
    cx: &mut Context<'_>,
    node: &Node,
    step: &Fields<'_>,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Did {
    let (graph, view) = graph::read(cx, node, item, around);
    let (outputs, output) = if let Some(node) = step.get("outputs") {
        outputs(cx, node, "`outputs` of a group", &item.all(&view))
    } else {
        let types = view
            .ids
            .iter()
            .enumerate()
            .map(|(place, id)| (id.to_string(), view.output(place)));
        (Vec::new(), object_type("the output", types))
    };
    Did {
        verb: Verb::Steps { graph, outputs },
        output,
        inner: step.get("foreach").is_none().then_some(view),
    }
}

/// `switch`: the first branch that holds.
pub(crate) fn switch(
    cx: &mut Context<'_>,
    node: &Node,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Did {
    let items = cx.items(node, "`switch`");
    if items.is_empty() && matches!(node.kind, Kind::List(_)) {
        cx.error("wrong-form", node.span, "`switch` has no branches");
    }
    let mut branches = Vec::with_capacity(items.len());
    for (place, branch) in items.iter().enumerate() {
        branches.extend(read_branch(
            cx,
            branch,
            place + 1 == items.len(),
            item,
            around,
        ));
    }
    let output = Object {
        open: true,
        ..object("the branch's output", [("branch", Type::Any)])
    };
    Did {
        verb: Verb::Switch { branches },
        output: Type::Object(Arc::new(output)),
        inner: None,
    }
}

fn read_branch(
    cx: &mut Context<'_>,
    node: &Node,
    last: bool,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Option<Branch> {
    let fields = cx.fields(node, &language::BRANCH)?;
    let when = fields
        .get("when")
        .and_then(|node| cx.condition(node, "when", item));
    match (fields.entry("when"), fields.entry("else")) {
        (Some(_), None) => {}
        (None, Some(otherwise)) => {
            if cx.bool(&otherwise.value, "else") == Some(false) {
                cx.error_hint(
                    "wrong-type",
                    otherwise.value.span,
                    "`else` is `true`",
                    "use `when` for a condition",
                );
            }
            if !last {
                cx.error_hint(
                    "else-not-last",
                    otherwise.key_span,
                    "branches behind `else` are never taken",
                    "move it to the end",
                );
            }
        }
        (Some(_), Some(otherwise)) => {
            cx.error_hint(
                "one-of",
                otherwise.key_span,
                "a branch has `when` or `else`, not both",
                "remove one of them",
            );
        }
        (None, None) => {
            cx.error_hint(
                "one-of",
                fields.span,
                "a branch needs `when`",
                "or `else: true` on the last one",
            );
        }
    }
    let graph = graph::read(cx, fields.get("steps")?, item, around).0;
    Some(Branch { when, graph })
}

/// `loop`: a bounded cycle.
pub(crate) fn cycle(
    cx: &mut Context<'_>,
    node: &Node,
    item: &Scope<'_>,
    around: &Around<'_>,
) -> Option<Did> {
    let fields = cx.fields(node, &language::LOOP)?;
    let next_entries = fields
        .get("next")
        .map_or(&[][..], |node| cx.entries(node, "`next`"));
    let (vars, types) = loop_vars(cx, &fields, item, next_entries);
    let vars_type = object_type("vars", types.clone());
    let inside = item.with([
        ("vars".to_owned(), vars_type),
        ("iteration".to_owned(), Type::Int),
    ]);
    let (graph, view) = match fields.get("steps") {
        Some(node) => graph::read(cx, node, &inside, around),
        None => return None,
    };
    let after = inside.all(&view);
    let mut next = Vec::with_capacity(next_entries.len());
    for entry in next_entries {
        if !vars.iter().any(|(name, _)| *name == entry.key) {
            unknown_var(cx, entry, &vars);
        }
        next.extend(
            cx.value(&entry.value, &after, Secrets::Refused)
                .map(|(template, _)| (entry.key.clone(), template)),
        );
    }
    if let (Some(_), Some(until)) = (fields.get("while"), fields.entry("until")) {
        cx.error_hint(
            "one-of",
            until.key_span,
            "a loop has `while` or `until`, not both",
            "join them: `while: \"${{ … && !(…) }}\"`",
        );
    }
    let most = (1, limits::LOOP_ITERATIONS);
    let ends = [("fail", false), ("succeed", true)];
    let read = Loop {
        while_: fields
            .get("while")
            .and_then(|node| cx.condition(node, "while", &inside)),
        until: fields
            .get("until")
            .and_then(|node| cx.condition(node, "until", &after)),
        next,
        max_iterations: fields
            .get("max_iterations")
            .and_then(|node| cx.count(node, "max_iterations", most))
            .unwrap_or(limits::LOOP_ITERATIONS_DEFAULT),
        on_max_succeed: fields
            .get("on_max")
            .and_then(|node| cx.choice(node, "on_max", &ends))
            .unwrap_or(false),
        delay: fields
            .get("delay")
            .and_then(|node| cx.dynamic_duration(node, "delay", &inside)),
        vars,
        graph,
    };
    let mut output = types;
    output.push(("iterations".to_owned(), Type::Int));
    Some(Did {
        verb: Verb::Loop(Box::new(read)),
        output: object_type("the loop's output", output),
        inner: Some(view),
    })
}

/// First values and types. A var that `next` sets may become anything: its type is not known before
/// the inner steps are read.
fn loop_vars(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    outside: &Scope<'_>,
    next: &[Entry],
) -> (Named<Template>, Vec<(String, Type)>) {
    let mut vars = Vec::new();
    let mut types = Vec::new();
    for entry in fields
        .get("vars")
        .map_or(&[][..], |node| cx.entries(node, "`vars`"))
    {
        let mut fine = cx.expression_name(&entry.key, entry.key_span, "loop variable");
        if &*entry.key == "iterations" {
            cx.error(
                "reserved-name",
                entry.key_span,
                "`iterations` is added to the output of every loop",
            );
            fine = false;
        }
        let value = cx.value(&entry.value, outside, Secrets::Refused);
        let stays = next.iter().all(|other| other.key != entry.key);
        let of = value.as_ref().map_or(Type::Any, |(_, of)| of.clone());
        types.push((entry.key.to_string(), if stays { of } else { Type::Any }));
        vars.extend(
            value
                .filter(|_| fine)
                .map(|(template, _)| (entry.key.clone(), template)),
        );
    }
    (vars, types)
}

fn unknown_var(cx: &mut Context<'_>, entry: &Entry, vars: &Named<Template>) {
    let near = cx.nearest(&entry.key, vars.iter().map(|(name, _)| &**name));
    let hint = near.map_or_else(
        || format!("give it a first value: `vars: {{ {}: … }}`", entry.key),
        |near| format!("did you mean `{near}`?"),
    );
    cx.error_hint(
        "unknown-name",
        entry.key_span,
        format!("`next` sets `{}`, which is not in `vars`", entry.key),
        hint,
    );
}

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
    if names::SCOPE.contains(&name) {
        cx.error_hint(
            "reserved-name",
            entry.key_span,
            format!(
                "`{name}` cannot name a foreach variable: it means something in every expression"
            ),
            "choose a name that says what an item is",
        );
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
    cx.expression_name(name, entry.key_span, "foreach variable")
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
