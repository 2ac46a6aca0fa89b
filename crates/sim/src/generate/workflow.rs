//! A random workflow: its settings, its graphs, and what its steps may refer to.

use kapell_model::spec::StrategyMode;
use serde_json::{Map, Value, json};

use crate::rng::Rng;

/// What an earlier step of a graph gives, so that expressions can use it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A map with `n`, `ok` and `xs`.
    Fields,
    /// A foreach.
    List,
    /// Anything else.
    Other,
}

/// Where a graph is written.
#[derive(Clone, Default)]
pub(super) struct Place {
    pub(super) depth: u32,
    pub(super) in_item: bool,
    pub(super) finally: bool,
    /// Variables of the items around.
    pub(super) vars: Vec<String>,
}

pub(super) struct Writer<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) index: usize,
    pub(super) count: usize,
    pub(super) ids: usize,
    pub(super) left: usize,
    /// It starts itself: a bound over all keys would wait for itself.
    pub(super) recursive: bool,
    /// It asks for `run.last_success`.
    pub(super) watermark: bool,
}

pub(super) type Fields = Map<String, Value>;

impl<'a> Writer<'a> {
    pub(super) fn new(rng: &'a mut Rng, index: usize, count: usize) -> Self {
        let left = 3 + rng.place(22);
        Self {
            rng,
            index,
            count,
            ids: 0,
            left,
            recursive: false,
            watermark: false,
        }
    }

    pub(super) fn workflow(mut self) -> Value {
        let mut top = Fields::new();
        top.insert("workflow".into(), json!(format!("w{}", self.index)));
        self.watermark = self.rng.chance(200);
        let mut params = json!({ "n": { "type": "int", "default": 2 }, "xs": { "type": "list<int>", "default": [1, 2, 3] } });
        if self.watermark && self.rng.chance(500) {
            params["since"] = json!({ "type": "int", "default": "${{ coalesce(run.last_success.params.n, 0) }}" });
        }
        top.insert("params".into(), params);
        if self.rng.chance(100) {
            top.insert("labels".into(), json!({ "n": "${{ params.n }}" }));
        }
        if self.rng.chance(500) {
            let policy = *self.rng.pick(&["finish_running", "fail_fast", "continue"]);
            top.insert("on_step_failure".into(), json!(policy));
        }
        if self.rng.chance(250) {
            top.insert("max_parallelism".into(), json!(self.rng.between(1, 8)));
        }
        if self.rng.chance(150) {
            top.insert(
                "timeout".into(),
                json!(format!("{}s", self.rng.magnitude(1, 1_200))),
            );
        }
        if self.rng.chance(200) {
            top.insert("priority".into(), json!(self.rng.between(0, 100)));
        }
        let (steps, seen) = self.graph(&Place::default(), &[]);
        top.insert("steps".into(), steps);
        if self.rng.chance(500) {
            let strategy = self.strategy();
            top.insert("strategy".into(), strategy);
        }
        if self.rng.chance(300) {
            self.left = self.left.max(2);
            let place = Place {
                finally: true,
                depth: 1,
                ..Place::default()
            };
            let (finally, _) = self.graph(&place, &seen);
            top.insert("finally".into(), finally);
        }
        if self.rng.chance(300)
            && let Some(last) = seen.last()
        {
            top.insert(
                "outputs".into(),
                json!({ "it": format!("${{{{ steps.{}.output }}}}", last.id) }),
            );
        }
        Value::Object(top)
    }

    pub(super) fn strategy(&mut self) -> Value {
        let mode = *self.rng.pick(&StrategyMode::NAMES);
        let mut strategy = Fields::new();
        strategy.insert("mode".into(), json!(mode));
        if mode == "parallel" && self.rng.chance(700) {
            strategy.insert("limit".into(), json!(self.rng.between(1, 3)));
        }
        if self.rng.chance(300) {
            let keys = [
                "${{ string(params.n) }}",
                "${{ string(params.n % 2) }}",
                // Some starts have no key: they are refused.
                "${{ params.n == 4 ? null : 'all' }}",
            ];
            // Runs that start themselves go down with `n`: two of them would wait for each other's
            // line, came the same key back.
            let choice = if self.recursive { 1 } else { keys.len() };
            let key = *self.rng.pick(&keys[..choice]);
            strategy.insert("key".into(), json!(key));
        }
        if self.rng.chance(200) && !self.recursive {
            strategy.insert("total".into(), json!(self.rng.between(1, 3)));
        }
        if self.rng.chance(150) {
            let mut debounce = Fields::new();
            debounce.insert(
                "quiet".into(),
                json!(format!("{}s", self.rng.between(1, 5))),
            );
            if self.rng.chance(500) {
                debounce.insert("max".into(), json!(format!("{}s", self.rng.between(5, 12))));
            }
            strategy.insert("debounce".into(), Value::Object(debounce));
        }
        Value::Object(strategy)
    }

    pub(super) fn id(&mut self) -> String {
        self.ids += 1;
        format!("s{:02}", self.ids)
    }

    /// A graph, and what the steps after it may use of it.
    pub(super) fn graph(&mut self, place: &Place, outer: &[Seen]) -> (Value, Vec<Seen>) {
        let most = if place.depth == 0 { 12 } else { 4 };
        let wanted = 1 + self.rng.place(most);
        let mut steps = Fields::new();
        let mut here: Vec<Seen> = Vec::new();
        let mut reach: Vec<Vec<usize>> = Vec::new();
        for number in 0..wanted {
            if number > 0 && self.left == 0 {
                break;
            }
            self.left = self.left.saturating_sub(1);
            let mut needs: Vec<usize> = Vec::new();
            while !here.is_empty() && self.rng.chance(550) && needs.len() < 3 {
                let need = self.rng.place(here.len());
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
            let mut seen: Vec<usize> = needs.clone();
            for need in &needs {
                seen.extend(reach[*need].iter().copied());
            }
            seen.sort_unstable();
            seen.dedup();
            let usable: Vec<Seen> = outer
                .iter()
                .cloned()
                .chain(seen.iter().map(|at| here[*at].clone()))
                .collect();
            let id = self.id();
            let (mut step, kind) = self.step(place, &usable);
            if !needs.is_empty() {
                let names: Vec<&str> = needs.iter().map(|need| here[*need].id.as_str()).collect();
                step.insert("needs".into(), json!(names));
                if self.rng.chance(300) {
                    let run_if = *self.rng.pick(&[
                        "all_succeeded",
                        "all_done",
                        "any_succeeded",
                        "any_failed",
                        "none_failed",
                    ]);
                    step.insert("run_if".into(), json!(run_if));
                }
            }
            if self.rng.chance(150) && !step.contains_key("if") {
                let condition = self.condition(&usable);
                step.insert("if".into(), json!(condition));
            }
            steps.insert(id.clone(), Value::Object(step));
            here.push(Seen { id, kind });
            reach.push(seen);
        }
        (Value::Object(steps), here)
    }

    pub(super) fn condition(&mut self, usable: &[Seen]) -> String {
        if usable.is_empty() || self.rng.chance(400) {
            return format!("${{{{ params.n > {} }}}}", self.rng.between(0, 4));
        }
        let seen = self.rng.pick(usable).clone();
        match self.rng.below(4) {
            0 if seen.kind == Kind::Fields => format!("${{{{ steps.{}.output.n > 50 }}}}", seen.id),
            1 if seen.kind == Kind::Fields => format!("${{{{ steps.{}.output.ok }}}}", seen.id),
            2 if seen.kind == Kind::List => {
                format!("${{{{ size(steps.{}.results) > 1 }}}}", seen.id)
            }
            3 if seen.kind == Kind::List => format!("${{{{ steps.{}.failures == [] }}}}", seen.id),
            _ => {
                let status = *self
                    .rng
                    .pick(&["succeeded", "failed", "skipped", "cancelled"]);
                format!("${{{{ steps.{}.status != '{status}' }}}}", seen.id)
            }
        }
    }

    pub(super) fn step(&mut self, place: &Place, usable: &[Seen]) -> (Fields, Kind) {
        let mut step = Fields::new();
        let foreach = if self.rng.chance(if place.in_item { 120 } else { 250 }) {
            Some(self.foreach(place, usable))
        } else {
            None
        };
        let mut inside = Place {
            in_item: place.in_item || foreach.is_some(),
            ..place.clone()
        };
        if let Some((Value::Object(foreach), _)) = &foreach {
            let vars = foreach.keys().filter(|name| is_variable(name));
            inside.vars.extend(vars.cloned());
        }
        let many = foreach.as_ref().is_some_and(|(_, many)| *many);
        let kind = self.verb(&mut step, &inside, usable, many);
        if let Some((mut foreach, _)) = foreach {
            if kind == Kind::Fields && self.rng.chance(200) {
                foreach["stop_when"] = json!("${{ output.n > 80 }}");
            }
            step.insert("foreach".into(), foreach);
        }
        self.signals(&mut step);
        if self.rng.chance(200) {
            let on_failure = if self.rng.chance(500) || self.left == 0 || place.depth >= 3 {
                json!("continue")
            } else {
                let inside = Place {
                    depth: place.depth + 2,
                    ..place.clone()
                };
                let (steps, _) = self.graph(&inside, usable);
                json!({ "steps": steps, "then": *self.rng.pick(&["fail", "continue"]) })
            };
            step.insert("on_failure".into(), on_failure);
        }
        let kind = if step.contains_key("foreach") {
            Kind::List
        } else {
            kind
        };
        (step, kind)
    }

    /// A foreach and whether it has so many items that its verb must be light.
    pub(super) fn foreach(&mut self, place: &Place, usable: &[Seen]) -> (Value, bool) {
        let mut foreach = Fields::new();
        // An inner foreach may not use the names of the one around it.
        let (x, y) = (format!("x{}", self.ids), format!("y{}", self.ids));
        let many = place.depth == 0 && self.index == 0 && self.rng.chance(20);
        let list = |writer: &mut Self| -> Value {
            let lists: Vec<&Seen> = usable
                .iter()
                .filter(|seen| seen.kind == Kind::List)
                .collect();
            match writer.rng.below(7) {
                6 => json!("${{ json('{\"a\": 1, \"b\": 2}') }}"),
                0 => json!("${{ params.xs }}"),
                1 => json!("${{ range(params.n) }}"),
                2 if !lists.is_empty() => {
                    let id = lists[writer.rng.place(lists.len())].id.clone();
                    json!(format!("${{{{ steps.{id}.results }}}}"))
                }
                3 => json!([]),
                4 if !place.in_item => {
                    json!(format!("${{{{ range({}) }}}}", writer.rng.between(1, 50)))
                }
                _ => {
                    let count = writer.rng.between(1, 6);
                    json!((0..count).collect::<Vec<i64>>())
                }
            }
        };
        if many {
            foreach.insert(
                x.clone(),
                json!(format!(
                    "${{{{ range({}) }}}}",
                    self.rng.between(4_090, 5_500)
                )),
            );
        } else {
            match self.rng.below(6) {
                0 => {
                    let count = self.rng.between(1, 4);
                    foreach.insert(x.clone(), json!(format!("${{{{ range({count}) }}}}")));
                    foreach.insert(
                        y.clone(),
                        json!(format!("${{{{ range({}) }}}}", self.rng.between(1, 4))),
                    );
                }
                1 => {
                    let count = self.rng.between(1, 8);
                    foreach.insert(x.clone(), json!(format!("${{{{ range({count}) }}}}")));
                    foreach.insert(y.clone(), json!(format!("${{{{ range({count}) }}}}")));
                    foreach.insert("zip".into(), json!(true));
                }
                2 => {
                    let values = list(self);
                    foreach.insert(x.clone(), values);
                    foreach.insert("chunk".into(), json!(self.rng.between(1, 4)));
                }
                _ => {
                    let values = list(self);
                    foreach.insert(x.clone(), values);
                }
            }
        }
        if self.rng.chance(350) {
            foreach.insert(
                "concurrency".into(),
                json!(self.rng.between(1, if many { 500 } else { 5 })),
            );
        }
        if self.rng.chance(300) {
            let least = if self.rng.chance(500) {
                json!(self.rng.between(1, 6))
            } else {
                json!(format!("{}%", self.rng.between(1, 99)))
            };
            foreach.insert("min_success".into(), least);
        }
        if self.rng.chance(100) {
            foreach.insert("concurrency".into(), json!("${{ params.n + 1 }}"));
        }
        if self.rng.chance(200) {
            let label = "${{ 'item ' + string(index) }}";
            foreach.insert("label".into(), json!(label));
        }
        (Value::Object(foreach), many)
    }
}

/// The variables of a foreach are an `x` or `y` and a number; all its options are longer words.
fn is_variable(name: &str) -> bool {
    let number = name.strip_prefix(['x', 'y']);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Another version of a workflow: most of its steps are the same.
pub(super) fn next_version(rng: &mut Rng, index: usize, before: &Value) -> Value {
    let mut next = before.clone();
    // Its own name stands in it once, unless it starts itself.
    let name = format!("\"w{index}\"");
    let recursive = before.to_string().matches(&name).count() > 1;
    if rng.chance(500) {
        let mut writer = Writer::new(rng, index, index + 1);
        writer.recursive = recursive;
        next["strategy"] = writer.strategy();
    }
    if let Some(steps) = next.get_mut("steps").and_then(Value::as_object_mut) {
        for step in steps.values_mut() {
            if rng.chance(300) {
                step["labels"] = json!({ "of": "another version" });
            }
        }
        if rng.chance(500) {
            steps.insert("extra".into(), json!({ "noop": {} }));
        }
    }
    next["description"] = json!("another version");
    next
}
