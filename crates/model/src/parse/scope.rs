//! Which names an expression sees, and their types.
//!
//! A scope is a chain: each graph, foreach, loop and handler adds to the one around it. The type of
//! `steps` is made for each expression from the ids that it names, never from all that it could see.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kapell_expr::{Object, Program, Type, TypeScope};

use super::Context;

/// The names at one place.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    /// All names but `steps`, those of outer scopes included.
    names: Arc<Object>,
    sees: Sees<'a>,
}

/// The steps that a scope adds.
#[derive(Clone, Copy)]
enum Sees<'a> {
    Nothing,
    /// Every step of a graph.
    All(&'a GraphView),
    /// What one step of a graph sees of it.
    Before(&'a GraphView, usize),
}

/// The ids of a graph, what each sees, and the types of those already read.
pub(crate) struct GraphView {
    pub(crate) ids: Vec<Arc<str>>,
    pub(crate) places: HashMap<Arc<str>, usize>,
    /// For each step the set of steps before it, a bit each.
    before: Vec<Vec<u64>>,
    types: RefCell<Vec<Type>>,
}

/// What a name in `steps` comes to.
enum Found {
    Seen(Type),
    Hidden(String),
    Unknown,
}

impl GraphView {
    /// A view with `before` worked out from `needs`, which are walked in `order`.
    pub(crate) fn new(ids: Vec<Arc<str>>, needs: &[Vec<usize>], order: &[usize]) -> Self {
        let words = ids.len().div_ceil(64);
        let mut before = vec![Vec::new(); ids.len()];
        for step in order {
            let mut seen = if needs[*step].is_empty() {
                Vec::new()
            } else {
                vec![0_u64; words]
            };
            for need in &needs[*step] {
                seen[need / 64] |= 1 << (need % 64);
                for (word, more) in seen.iter_mut().zip(&before[*need]) {
                    *word |= more;
                }
            }
            before[*step] = seen;
        }
        let places = ids
            .iter()
            .enumerate()
            .map(|(place, id)| (id.clone(), place))
            .collect();
        let types = RefCell::new(vec![Type::Any; ids.len()]);
        Self {
            ids,
            places,
            before,
            types,
        }
    }

    fn precedes(&self, earlier: usize, later: usize) -> bool {
        self.before[later]
            .get(earlier / 64)
            .is_some_and(|word| word >> (earlier % 64) & 1 == 1)
    }

    /// Sets what `steps.<id>` is for those who read it later.
    pub(crate) fn set_type(&self, place: usize, of: Type) {
        self.types.borrow_mut()[place] = of;
    }

    /// The type of `steps.<id>.output`.
    pub(crate) fn output(&self, place: usize) -> Type {
        match &self.types.borrow()[place] {
            Type::Object(object) => object.fields.get("output").cloned().unwrap_or(Type::Any),
            _ => Type::Any,
        }
    }
}

impl Scope<'_> {
    /// The scope outside all steps.
    pub(crate) fn top(names: Object) -> Self {
        Self {
            outer: None,
            names: Arc::new(names),
            sees: Sees::Nothing,
        }
    }

    /// The same with more names, or with names that mean something else.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = (String, Type)>) -> Self {
        let mut names = Object::clone(&self.names);
        for (name, of) in more {
            names.hidden.remove(&name);
            names.fields.insert(name, of);
        }
        Self {
            outer: self.outer,
            names: Arc::new(names),
            sees: self.sees,
        }
    }

    /// The same without some names, and why.
    pub(crate) fn hiding<'n>(&self, hidden: impl Iterator<Item = &'n str>, why: &str) -> Self {
        let mut names = Object::clone(&self.names);
        for name in hidden {
            names.fields.remove(name);
            names.hidden.insert(name.to_owned(), why.to_owned());
        }
        Self {
            outer: self.outer,
            names: Arc::new(names),
            sees: self.sees,
        }
    }

    /// What a step sees of its graph on top of this scope.
    pub(crate) fn before<'b>(&'b self, graph: &'b GraphView, place: usize) -> Scope<'b> {
        Scope {
            outer: Some(self),
            names: self.names.clone(),
            sees: Sees::Before(graph, place),
        }
    }

    /// Every step of a graph on top of this scope.
    pub(crate) fn all<'b>(&'b self, graph: &'b GraphView) -> Scope<'b> {
        Scope {
            outer: Some(self),
            names: self.names.clone(),
            sees: Sees::All(graph),
        }
    }

    fn chain(&self) -> impl Iterator<Item = &Scope<'_>> {
        std::iter::successors(Some(self), |scope| scope.outer)
    }

    fn graphs(&self) -> impl Iterator<Item = &GraphView> {
        self.chain().filter_map(|scope| match scope.sees {
            Sees::Nothing => None,
            Sees::All(graph) | Sees::Before(graph, _) => Some(graph),
        })
    }

    /// Whether an enclosing graph has a step of this id.
    pub(crate) fn encloses(&self, id: &str) -> bool {
        self.graphs().any(|graph| graph.places.contains_key(id))
    }

    /// Whether `name` is a foreach variable around here.
    pub(crate) fn names_variable(&self, name: &str) -> bool {
        self.names.fields.contains_key(name)
    }

    fn find(&self, id: &str) -> Found {
        for scope in self.chain() {
            let (graph, seen, from) = match scope.sees {
                Sees::Nothing => continue,
                Sees::All(graph) => (graph, true, None),
                Sees::Before(graph, from) => {
                    let seen = graph
                        .places
                        .get(id)
                        .is_some_and(|place| graph.precedes(*place, from));
                    (graph, seen, Some(from))
                }
            };
            let Some(place) = graph.places.get(id) else {
                continue;
            };
            if seen {
                return Found::Seen(graph.types.borrow()[*place].clone());
            }
            if let Some(from) = from {
                return Found::Hidden(unseen(graph, *place, from));
            }
        }
        Found::Unknown
    }

    /// The names for the expressions of one text: of all names those that they use, or every one if
    /// they use an unknown one, so that the checker can suggest.
    pub(crate) fn types_for(&self, cx: &mut Context<'_>, programs: &[&Program]) -> TypeScope {
        let mut names = Object::default();
        let mut steps = Object {
            name: "steps".to_owned(),
            ..Object::default()
        };
        let steps_known = self.graphs().next().is_some();
        for path in programs.iter().flat_map(|program| program.references()) {
            let root = &*path[0];
            if root == "steps" && steps_known {
                if let Some(id) = path.get(1) {
                    self.add_step(cx, &mut steps, id);
                } else {
                    let hint = "name the step, as in `steps.load.output`";
                    names.hidden.insert(root.to_owned(), hint.to_owned());
                }
            } else if let Some(of) = self.names.fields.get(root) {
                names.fields.insert(root.to_owned(), of.clone());
            } else if let Some(hint) = self.names.hidden.get(root) {
                names.hidden.insert(root.to_owned(), hint.clone());
            } else if cx.may_suggest() {
                names.fields.extend(self.names.fields.clone());
            }
        }
        if steps_known && !names.hidden.contains_key("steps") {
            names
                .fields
                .insert("steps".to_owned(), Type::Object(Arc::new(steps)));
        }
        names
    }

    fn add_step(&self, cx: &mut Context<'_>, steps: &mut Object, id: &str) {
        match self.find(id) {
            Found::Seen(of) => {
                steps.fields.insert(id.to_owned(), of);
            }
            Found::Hidden(hint) => {
                steps.hidden.insert(id.to_owned(), hint);
            }
            Found::Unknown => {
                if let Some(container) = cx.inner.get(id) {
                    let hint = format!(
                        "`{id}` is inside `{container}`, and from outside only `{container}` is seen"
                    );
                    steps.hidden.insert(id.to_owned(), hint);
                    return;
                }
                // The checker suggests what is nearest of the names that it is given.
                let known: Vec<&Arc<str>> = self.graphs().flat_map(|graph| &graph.ids).collect();
                if let Some(near) = cx.nearest(id, known.iter().map(|id| &***id)) {
                    steps.fields.insert(near.to_owned(), Type::Any);
                }
            }
        }
    }
}

/// Why one step does not see another of its graph.
fn unseen(graph: &GraphView, place: usize, from: usize) -> String {
    let (id, reader) = (&graph.ids[place], &graph.ids[from]);
    if place == from {
        return "a step does not see its own result".to_owned();
    }
    if graph.precedes(from, place) {
        return format!("`{id}` runs after `{reader}`");
    }
    format!("add `{id}` to the `needs` of `{reader}`")
}

/// A map type with these fields.
pub(crate) fn object(
    name: &str,
    fields: impl IntoIterator<Item = (impl Into<String>, Type)>,
) -> Object {
    Object {
        name: name.to_owned(),
        fields: fields
            .into_iter()
            .map(|(name, of)| (name.into(), of))
            .collect(),
        ..Object::default()
    }
}

/// The type of a map with these fields.
pub(crate) fn object_type(
    name: &str,
    fields: impl IntoIterator<Item = (impl Into<String>, Type)>,
) -> Type {
    Type::Object(Arc::new(object(name, fields)))
}

/// Whether `run.status` means something yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunIs {
    /// Not thought of yet: something due or sent may start it.
    Due,
    /// Being created: defaults, labels, strategy.
    New,
    /// Under way.
    Started,
}

/// The names outside all steps, and hints for those that mean something elsewhere.
pub(crate) fn top_names(params: Type, run: RunIs) -> Object {
    let hidden = [
        (
            "secrets",
            "a secret may only be used in `env`, `http.headers`, `http.auth`, `webhook.secret` and the `with` of steps on a worker",
        ),
        ("vars", "`vars` are those of the loop around a step"),
        ("iteration", "`iteration` is only known inside a loop"),
        ("index", "`index` is only known for the items of a foreach"),
        (
            "error",
            "`error` is only known in `retry.when`, `resources`, the steps of `on_failure`, and `emit` unless it is sent `when: succeeded`",
        ),
        (
            "attempt",
            "`attempt` is only known in `retry.when` and `resources`",
        ),
        (
            "output",
            "`output` is only known in `stop_when` and `emit`; elsewhere it is `steps.<id>.output`",
        ),
        (
            "signal",
            "`signal` is only known in triggers and in the `match` of an `await`, whose result is `steps.<id>.output`",
        ),
        ("signals", "`signals` is only known in a trigger"),
        ("steps", "no step has run yet when this is evaluated"),
        (
            "env",
            "write the value where it comes from: `params.…` or `steps.….output`",
        ),
        ("inputs", "parameters are `params.<name>`"),
    ];
    Object {
        name: String::new(),
        fields: BTreeMap::from([
            ("params".to_owned(), params),
            ("run".to_owned(), run_type(run)),
        ]),
        hidden: hidden
            .map(|(name, hint)| (name.to_owned(), hint.to_owned()))
            .into(),
        open: false,
    }
}

fn run_type(run: RunIs) -> Type {
    let interval = object_type(
        "run.interval",
        [("start", Type::Timestamp), ("end", Type::Timestamp)],
    );
    let trigger = object_type(
        "run.trigger",
        [
            ("kind", Type::String),
            ("name", Type::Any),
            ("by", Type::Any),
        ],
    );
    let mut of = object(
        "run",
        [
            ("id", Type::String),
            ("workflow", Type::String),
            ("version", Type::Int),
            ("namespace", Type::String),
            ("scheduled_at", Type::Timestamp),
            ("created_at", Type::Timestamp),
            ("interval", interval),
            ("timezone", Type::String),
            ("trigger", trigger),
            ("url", Type::Any),
            ("labels", Type::Map(Arc::new(Type::String))),
            ("parent", Type::Any),
            ("forked_from", Type::Any),
            // Null in a first run, so its fields are only known when it runs.
            ("last_success", Type::Any),
        ],
    );
    match run {
        RunIs::Started => {
            of.fields.insert("status".to_owned(), Type::String);
            of.fields.insert("error".to_owned(), Type::Any);
        }
        RunIs::Due => {
            for name in DUE_HIDES {
                of.fields.remove(name);
                let why = "it is not known before the run exists".to_owned();
                of.hidden.insert(name.to_owned(), why);
            }
        }
        RunIs::New => {
            for name in ["status", "error"] {
                of.hidden.insert(
                    name.to_owned(),
                    "it is not known before the run exists".to_owned(),
                );
            }
        }
    }
    Type::Object(Arc::new(of))
}

/// What a trigger does not see of the run that it may start.
const DUE_HIDES: [&str; 9] = [
    "id",
    "version",
    "status",
    "error",
    "url",
    "labels",
    "parent",
    "forked_from",
    "last_success",
];

/// The names of a trigger's expressions, with those of what starts a run by it.
pub(crate) fn trigger_names(started_by: &[(String, Type)]) -> Object {
    let mut names = top_names(Type::Any, RunIs::Due);
    names.fields.remove("params");
    let hidden = [
        ("params", "`with` is what gives them their values"),
        ("signal", "this trigger is not started by one signal"),
        (
            "signals",
            "only a trigger with `signals` has them, by their aliases",
        ),
    ];
    for (name, why) in hidden {
        names.hidden.insert(name.to_owned(), why.to_owned());
    }
    for (name, of) in started_by {
        names.hidden.remove(name);
        names.fields.insert(name.clone(), of.clone());
    }
    names
}

/// What `error` is. Its fields are null where they do not apply.
pub(crate) fn error_type() -> Type {
    object_type(
        "error",
        [
            ("kind", Type::String),
            ("reason", Type::Any),
            ("message", Type::String),
            ("exit_code", Type::Any),
            ("http_status", Type::Any),
            ("step", Type::Any),
        ],
    )
}

/// What `steps.<id>` is, from the type of one output and whether it goes through a list.
pub(crate) fn step_type(id: &str, output: Type, foreach: bool) -> Type {
    let name = format!("steps.{id}");
    let mut of = object(
        &name,
        [
            ("status", Type::String),
            ("attempts", Type::Int),
            ("cached", Type::Bool),
            ("error", Type::Any),
        ],
    );
    if foreach {
        let failure = object_type(
            "a failure",
            [
                ("index", Type::Int),
                ("label", Type::Any),
                ("error", error_type()),
            ],
        );
        of.fields
            .insert("results".to_owned(), Type::List(Arc::new(output.clone())));
        of.fields
            .insert("failures".to_owned(), Type::List(Arc::new(failure)));
        of.fields
            .insert("output".to_owned(), Type::List(Arc::new(output)));
    } else {
        for name in ["results", "failures"] {
            of.hidden
                .insert(name.to_owned(), "only a foreach has it".to_owned());
        }
        of.fields.insert("output".to_owned(), output);
    }
    Type::Object(Arc::new(of))
}
