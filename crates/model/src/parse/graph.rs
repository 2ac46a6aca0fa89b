//! A graph: ids, needs, cycles, and its steps read in the order of their needs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::limits;
use crate::spec::{Graph, StepIndex};
use crate::yaml::{Entry, Kind, Node, Span};

use super::Context;
use super::scope::{GraphView, Scope};
use super::step::Around;

/// Reads the steps of a graph.
pub(crate) fn read(
    cx: &mut Context<'_>,
    node: &Node,
    scope: &Scope<'_>,
    around: &Around<'_>,
) -> (Graph, GraphView) {
    let entries = cx.entries(node, "`steps`");
    if entries.is_empty() && matches!(node.kind, Kind::Map(_)) {
        cx.error_hint(
            "no-steps",
            node.span,
            "there are no steps",
            "for a step that does nothing use `noop:`",
        );
    }
    let places: HashMap<&str, usize> = entries
        .iter()
        .enumerate()
        .map(|(place, entry)| (&*entry.key, place))
        .collect();
    let mut needs = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        check_id(cx, entry, scope);
        needs.push(read_needs(cx, entry, place, &places, scope));
    }
    let order = order(cx, entries, &needs);
    let ids = entries.iter().map(|entry| entry.key.clone()).collect();
    let view = GraphView::new(ids, &needs, &order);

    let mut steps: Vec<_> = entries.iter().map(|_| None).collect();
    for place in order {
        let seen = scope.before(&view, place);
        if let Some((mut step, of)) = super::step::read(cx, &entries[place], &seen, around) {
            let mut indices: Vec<StepIndex> = needs[place]
                .iter()
                .filter_map(|need| StepIndex::try_from(*need).ok())
                .collect();
            indices.sort_unstable();
            step.needs = indices;
            view.set_type(place, of);
            steps[place] = Some(Arc::new(step));
        }
    }
    (
        Graph {
            steps: steps.into_iter().flatten().collect(),
        },
        view,
    )
}

fn check_id(cx: &mut Context<'_>, entry: &Entry, scope: &Scope<'_>) {
    if cx.expression_name(&entry.key, entry.key_span, "step") && scope.encloses(&entry.key) {
        cx.error_hint(
            "repeated-id",
            entry.key_span,
            format!("`{}` is already a step of an enclosing graph", entry.key),
            "give the inner step another id, so that `steps.…` means one of them",
        );
    }
}

fn read_needs(
    cx: &mut Context<'_>,
    entry: &Entry,
    place: usize,
    places: &HashMap<&str, usize>,
    scope: &Scope<'_>,
) -> Vec<usize> {
    let field = entry
        .value
        .map()
        .unwrap_or_default()
        .iter()
        .find(|field| &*field.key == "needs");
    let Some(node) = field.map(|field| &field.value) else {
        return Vec::new();
    };
    let mut named = Vec::new();
    for item in cx.one_or_many(node, "`needs`") {
        if let Some(id) = cx.literal(
            item,
            "needs",
            "the order of steps is fixed; use `if` to decide whether one runs",
        ) {
            named.push((id, item.span));
        }
    }
    let mut needs = Vec::with_capacity(named.len());
    for (id, span) in cx.without_repeats(named, "needs") {
        match places.get(&*id) {
            Some(need) if *need == place => {
                cx.error("needs-itself", span, format!("`{id}` needs itself"));
            }
            Some(need) => needs.push(*need),
            None => unknown_need(cx, &id, span, &entry.key, places, scope),
        }
    }
    needs
}

fn unknown_need(
    cx: &mut Context<'_>,
    id: &Arc<str>,
    span: Span,
    step: &str,
    places: &HashMap<&str, usize>,
    scope: &Scope<'_>,
) {
    let message = format!("`{step}` needs `{id}`, and there is no such step in its graph");
    let hint = if scope.encloses(id) {
        format!(
            "`{id}` is in an enclosing graph: put it into the `needs` of the step around `{step}`"
        )
    } else if let Some(container) = cx.inner.get(id) {
        format!("`{id}` is inside `{container}`: need `{container}`")
    } else {
        // Sorted, so that the suggestion does not hang on the order of a hash map.
        let mut known: Vec<&str> = places.keys().copied().collect();
        known.sort_unstable();
        match cx.nearest(id, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`needs` names steps beside this one".to_owned(),
        }
    };
    cx.error_hint("unknown-need", span, message, hint);
}

/// The steps in an order in which each comes after its needs. Cycles are reported, then broken.
fn order(cx: &mut Context<'_>, entries: &[Entry], needs: &[Vec<usize>]) -> Vec<usize> {
    let mut dependants = vec![Vec::new(); needs.len()];
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (step, needed) in needs.iter().enumerate() {
        for need in needed {
            dependants[*need].push(step);
        }
    }
    let mut ready: VecDeque<usize> = (0..needs.len())
        .filter(|step| missing[*step] == 0)
        .collect();
    let mut done = vec![false; needs.len()];
    let mut order = Vec::with_capacity(needs.len());
    let mut first_left = 0;
    loop {
        while let Some(step) = ready.pop_front() {
            if std::mem::replace(&mut done[step], true) {
                continue;
            }
            order.push(step);
            for dependant in &dependants[step] {
                missing[*dependant] = missing[*dependant].saturating_sub(1);
                if missing[*dependant] == 0 && !done[*dependant] {
                    ready.push_back(*dependant);
                }
            }
        }
        while first_left < done.len() && done[first_left] {
            first_left += 1;
        }
        if first_left == done.len() {
            return order;
        }
        let cycle = find_cycle(first_left, needs, &done);
        report_cycle(cx, entries, &cycle);
        ready.extend(cycle);
    }
}

/// A cycle among the steps not yet done, from one that waits for it. Each such step has a need that
/// is not done either.
fn find_cycle(start: usize, needs: &[Vec<usize>], done: &[bool]) -> Vec<usize> {
    let mut path = vec![start];
    let mut seen: HashSet<usize> = HashSet::from([start]);
    let mut at = start;
    while let Some(need) = needs[at].iter().copied().find(|need| !done[*need]) {
        if !seen.insert(need) {
            let from = path.iter().position(|step| *step == need).unwrap_or(0);
            return path.split_off(from);
        }
        path.push(need);
        at = need;
    }
    path
}

/// How many steps of a cycle a message names.
const CYCLE_SHOWN: usize = 20;

fn report_cycle(cx: &mut Context<'_>, entries: &[Entry], cycle: &[usize]) {
    let first = cycle
        .iter()
        .enumerate()
        .min_by_key(|(_, step)| **step)
        .map_or(0, |(at, _)| at);
    let mut names: Vec<&str> = cycle[first..]
        .iter()
        .chain(&cycle[..first])
        .map(|step| &*entries[*step].key)
        .collect();
    if names.len() > CYCLE_SHOWN {
        names.truncate(CYCLE_SHOWN);
        names.push("…");
    }
    names.push(&entries[cycle[first]].key);
    cx.error_hint(
        "cycle",
        entries[cycle[first]].key_span,
        format!("steps need each other in a circle: {}", names.join(" -> ")),
        "remove one of these `needs`; to repeat steps use `loop`",
    );
}

/// Walks all graphs before anything is read: notes where inner steps are, counts steps and depth.
/// False if there are too many to go on.
pub(crate) fn survey(cx: &mut Context<'_>, graphs: &[&Node]) -> bool {
    let mut steps = 0;
    let none = Arc::from("");
    graphs
        .iter()
        .all(|node| survey_graph(cx, node, &none, 0, &mut steps))
}

fn survey_graph(
    cx: &mut Context<'_>,
    node: &Node,
    container: &Arc<str>,
    depth: usize,
    steps: &mut usize,
) -> bool {
    for entry in node.map().unwrap_or_default() {
        *steps += 1;
        if *steps > limits::STEPS {
            cx.error_hint(
                "limit",
                entry.key_span,
                format!(
                    "a definition has at most {} steps, inner ones included",
                    limits::STEPS
                ),
                "use `foreach` for many like steps, or a workflow of its own for a part",
            );
            return false;
        }
        if depth > limits::NESTING {
            cx.error_hint(
                "limit",
                entry.key_span,
                format!(
                    "groups, loops and switches nest at most {} deep",
                    limits::NESTING
                ),
                "move the inner part to a workflow of its own",
            );
            return false;
        }
        if !container.is_empty() {
            cx.inner.insert(entry.key.clone(), container.clone());
        }
        for inner in inner_graphs(&entry.value) {
            if !survey_graph(cx, inner, &entry.key, depth + 1, steps) {
                return false;
            }
        }
    }
    true
}

/// The graphs that a step holds.
fn inner_graphs(step: &Node) -> Vec<&Node> {
    let mut graphs = Vec::new();
    for entry in step.map().unwrap_or_default() {
        match &*entry.key {
            "steps" => graphs.push(&entry.value),
            "loop" | "on_failure" => graphs.extend(steps_of(&entry.value)),
            "switch" => {
                if let Kind::List(branches) = &entry.value.kind {
                    graphs.extend(branches.iter().filter_map(steps_of));
                }
            }
            _ => {}
        }
    }
    graphs
}

fn steps_of(node: &Node) -> Option<&Node> {
    node.map()?
        .iter()
        .find(|entry| &*entry.key == "steps")
        .map(|entry| &entry.value)
}
