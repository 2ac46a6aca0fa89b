//! Random scenarios: workflows over every construct of the language, people, faults.

use serde_json::{Map, Value, json};

use crate::rng::Rng;
use crate::scenario::{Ask, Fate, Fault, Knobs, Planned, Scenario};

const SECOND: i64 = 1_000_000;

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let count = 1 + rng.place(4);
    let workflows = (0..count)
        .map(|index| Writer::new(&mut rng, index, count).workflow())
        .collect();
    let span = rng.magnitude(20 * SECOND, 1_800 * SECOND);
    let requests = requests(&mut rng, span, count);
    let faults = if rng.chance(250) {
        Vec::new()
    } else {
        faults(&mut rng, span)
    };
    Scenario {
        note: String::new(),
        seed: rng.bits(),
        workflows,
        requests,
        faults,
        knobs: knobs(&mut rng),
    }
}

fn knobs(rng: &mut Rng) -> Knobs {
    Knobs {
        commit: rng.magnitude(100, 200_000),
        read: rng.magnitude(10, 50_000),
        wire: rng.magnitude(10, 5_000),
        lump: if rng.chance(500) {
            0
        } else {
            rng.magnitude(100, 20_000)
        },
        attempt: rng.magnitude(100_000, 60 * SECOND),
        slots: 1 + rng.place(32),
        process_window: 1 + rng.place(200),
        light_window: 1 + rng.place(4_000),
        idle: rng.magnitude(SECOND, 600 * SECOND),
        fails: *rng.pick(&[0, 50, 150, 400]),
        repeats: *rng.pick(&[0, 50, 300]),
        deaf: *rng.pick(&[0, 0, 100]),
        lost: *rng.pick(&[0, 0, 20, 100]),
        big: *rng.pick(&[0, 0, 50, 300]),
    }
}

fn requests(rng: &mut Rng, span: i64, workflows: usize) -> Vec<Planned<Ask>> {
    let mut list = Vec::new();
    let starts = 1 + rng.place(12);
    for _ in 0..starts {
        let key = rng.chance(200).then(|| rng.below(4));
        let start = Ask::Start {
            workflow: rng.place(workflows),
            n: rng.between(0, 4),
            key,
        };
        let burst = if rng.chance(200) { 4 } else { 1 };
        let at = rng.between(0, span);
        for turn in 0..burst {
            list.push(Planned {
                at: at + turn * rng.between(0, SECOND),
                what: start.clone(),
            });
        }
    }
    let others = if rng.chance(300) { 0 } else { rng.place(24) };
    for _ in 0..others {
        let dice = rng.bits();
        let what = match rng.below(13) {
            0 | 1 => Ask::Cancel {
                dice,
                now: rng.chance(300),
            },
            2 => Ask::Pause { dice },
            3 => Ask::Resume { dice },
            4 | 5 => Ask::Retry { dice },
            6 => Ask::Restart { dice },
            7 => Ask::Skip { dice },
            8 => Ask::SetOutput { dice },
            9 => Ask::Fork { dice },
            10 => Ask::Priority { dice },
            11 => Ask::Dismiss { dice },
            _ => Ask::View { dice },
        };
        list.push(Planned {
            at: rng.between(0, span),
            what,
        });
    }
    list.sort_by_key(|planned| planned.at);
    list
}

fn faults(rng: &mut Rng, span: i64) -> Vec<Planned<Fault>> {
    let count = rng.magnitude(1, 24);
    let mut list = Vec::new();
    for _ in 0..count {
        let what = match rng.below(12) {
            0..=2 => Fault::Crash {
                down: rng.magnitude(1_000, 60 * SECOND),
            },
            3 | 4 => Fault::LostAnswer {
                fate: *rng.pick(&[Fate::Landed, Fate::Never, Fate::Later]),
            },
            5 | 6 => Fault::Thief { dice: rng.bits() },
            7 => Fault::Full {
                span: rng.magnitude(SECOND, 60 * SECOND),
            },
            8 => Fault::Slow {
                span: rng.magnitude(SECOND, 60 * SECOND),
                factor: rng.magnitude(2, 1_000),
            },
            9 => {
                let jump = rng.magnitude(1_000, 3_600 * SECOND);
                Fault::Clock {
                    jump: if rng.chance(500) { jump } else { -jump },
                }
            }
            10 => Fault::Reads {
                span: rng.magnitude(100_000, 30 * SECOND),
            },
            _ => Fault::Worker,
        };
        list.push(Planned {
            at: rng.between(0, span),
            what,
        });
    }
    list.sort_by_key(|planned| planned.at);
    list
}

/// What an earlier step of a graph gives, so that expressions can use it.
#[derive(Clone)]
struct Seen {
    id: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A map with `n`, `ok` and `xs`.
    Fields,
    /// A foreach.
    List,
    /// Anything else.
    Other,
}

/// Where a graph is written.
#[derive(Clone, Default)]
struct Place {
    depth: u32,
    in_item: bool,
    finally: bool,
}

struct Writer<'a> {
    rng: &'a mut Rng,
    index: usize,
    count: usize,
    ids: usize,
    left: usize,
    /// It starts itself: a bound over all keys would wait for itself.
    recursive: bool,
}

type Fields = Map<String, Value>;

impl<'a> Writer<'a> {
    fn new(rng: &'a mut Rng, index: usize, count: usize) -> Self {
        let left = 3 + rng.place(22);
        Self {
            rng,
            index,
            count,
            ids: 0,
            left,
            recursive: false,
        }
    }

    fn workflow(mut self) -> Value {
        let mut top = Fields::new();
        top.insert("workflow".into(), json!(format!("w{}", self.index)));
        top.insert(
            "params".into(),
            json!({ "n": { "type": "int", "default": 2 }, "xs": { "type": "list<int>", "default": [1, 2, 3] } }),
        );
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

    fn strategy(&mut self) -> Value {
        let mode = *self.rng.pick(&[
            "parallel",
            "sequential",
            "strict_sequential",
            "first_only",
            "last_only",
            "serial_latest",
        ]);
        let mut strategy = Fields::new();
        strategy.insert("mode".into(), json!(mode));
        if mode == "parallel" {
            strategy.insert("limit".into(), json!(self.rng.between(1, 3)));
        }
        if self.rng.chance(300) {
            strategy.insert("key".into(), json!("${{ string(params.n) }}"));
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

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("s{:02}", self.ids)
    }

    /// A graph, and what the steps after it may use of it.
    fn graph(&mut self, place: &Place, outer: &[Seen]) -> (Value, Vec<Seen>) {
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

    fn condition(&mut self, usable: &[Seen]) -> String {
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

    fn step(&mut self, place: &Place, usable: &[Seen]) -> (Fields, Kind) {
        let mut step = Fields::new();
        let foreach = if self.rng.chance(if place.in_item { 120 } else { 250 }) {
            Some(self.foreach(place, usable))
        } else {
            None
        };
        let inside = Place {
            in_item: place.in_item || foreach.is_some(),
            ..place.clone()
        };
        let many = foreach.as_ref().is_some_and(|(_, many)| *many);
        let kind = self.verb(&mut step, &inside, usable, many);
        if let Some((mut foreach, _)) = foreach {
            if kind == Kind::Fields && self.rng.chance(200) {
                foreach["stop_when"] = json!("${{ output.n > 80 }}");
            }
            step.insert("foreach".into(), foreach);
        }
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
    fn foreach(&mut self, place: &Place, usable: &[Seen]) -> (Value, bool) {
        let mut foreach = Fields::new();
        // An inner foreach may not use the names of the one around it.
        let (x, y) = (format!("x{}", self.ids), format!("y{}", self.ids));
        let many = place.depth == 0 && self.index == 0 && self.rng.chance(20);
        let list = |writer: &mut Self| -> Value {
            let lists: Vec<&Seen> = usable
                .iter()
                .filter(|seen| seen.kind == Kind::List)
                .collect();
            match writer.rng.below(6) {
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
        (Value::Object(foreach), many)
    }

    fn verb(&mut self, step: &mut Fields, place: &Place, usable: &[Seen], many: bool) -> Kind {
        if many {
            if self.rng.chance(700) {
                step.insert("noop".into(), Value::Null);
                return Kind::Other;
            }
            return self.task(step, place);
        }
        let deep = place.depth >= 3 || self.left == 0;
        match self.rng.below(20) {
            7 | 8 => {
                step.insert("noop".into(), json!({}));
                self.task_options(step, place);
                Kind::Other
            }
            9 => {
                step.insert("fail".into(), json!("on purpose"));
                self.task_options(step, place);
                if self.rng.chance(500) {
                    step.insert("if".into(), json!("${{ params.n > 2 }}"));
                }
                Kind::Other
            }
            10 => {
                step.insert("set".into(), json!({ "n": "${{ params.n * 7 }}", "ok": true, "xs": "${{ range(params.n) }}" }));
                Kind::Fields
            }
            11 => {
                let span = self.rng.magnitude(1, 60);
                step.insert("wait".into(), json!(format!("{span}s")));
                Kind::Other
            }
            12..=14 if !deep => self.group(step, place, usable),
            15 if !deep => self.switch(step, place, usable),
            16 | 17 if !deep => self.cycle(step, place, usable),
            18 | 19 if place.depth < 2 => self.child(step, place),
            _ => self.task(step, place),
        }
    }

    fn container_options(&mut self, step: &mut Fields) {
        if self.rng.chance(200) {
            let limit = self.rng.between(1, 2);
            step.insert(
                "retry".into(),
                json!({ "limit": limit, "backoff": { "initial": "1s", "max": "10s" } }),
            );
        }
        if self.rng.chance(150) {
            step.insert(
                "timeout".into(),
                json!(format!("{}s", self.rng.magnitude(1, 300))),
            );
        }
    }

    fn group(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        let inside = Place {
            depth: place.depth + 1,
            ..place.clone()
        };
        let (steps, seen) = self.graph(&inside, usable);
        step.insert("steps".into(), steps);
        if self.rng.chance(400)
            && let Some(last) = seen.last()
        {
            step.insert(
                "outputs".into(),
                json!({ "it": format!("${{{{ steps.{}.output }}}}", last.id) }),
            );
        }
        self.container_options(step);
        Kind::Other
    }

    fn switch(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        let inside = Place {
            depth: place.depth + 1,
            ..place.clone()
        };
        let mut branches = Vec::new();
        for _ in 0..=self.rng.place(2) {
            let when = self.condition(usable);
            let (steps, _) = self.graph(&inside, usable);
            branches.push(json!({ "when": when, "steps": steps }));
        }
        if self.rng.chance(600) {
            let (steps, _) = self.graph(&inside, usable);
            branches.push(json!({ "else": true, "steps": steps }));
        }
        step.insert("switch".into(), json!(branches));
        self.container_options(step);
        Kind::Other
    }

    fn cycle(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        let inside = Place {
            depth: place.depth + 1,
            ..place.clone()
        };
        let (steps, _) = self.graph(&inside, usable);
        let mut cycle = Fields::new();
        cycle.insert("vars".into(), json!({ "i": 0 }));
        cycle.insert("next".into(), json!({ "i": "${{ vars.i + 1 }}" }));
        let turns = self.rng.between(0, 4);
        if self.rng.chance(500) {
            cycle.insert(
                "while".into(),
                json!(format!("${{{{ vars.i < {turns} }}}}")),
            );
        } else {
            cycle.insert(
                "until".into(),
                json!(format!("${{{{ vars.i >= {turns} }}}}")),
            );
        }
        if self.rng.chance(400) {
            cycle.insert("max_iterations".into(), json!(self.rng.between(1, 4)));
            if self.rng.chance(500) {
                cycle.insert("on_max".into(), json!("succeed"));
            }
        }
        if self.rng.chance(300) {
            cycle.insert(
                "delay".into(),
                json!(format!("{}s", self.rng.between(1, 20))),
            );
        }
        cycle.insert("steps".into(), steps);
        step.insert("loop".into(), Value::Object(cycle));
        self.container_options(step);
        Kind::Other
    }

    fn child(&mut self, step: &mut Fields, place: &Place) -> Kind {
        let recursive = self.rng.chance(150) && !place.in_item;
        if !recursive && self.index + 1 >= self.count {
            return self.task(step, place);
        }
        if recursive {
            self.recursive = true;
            step.insert("if".into(), json!("${{ params.n > 0 }}"));
            step.insert("with".into(), json!({ "n": "${{ params.n - 1 }}" }));
        } else {
            step.insert("with".into(), json!({ "n": self.rng.between(0, 3) }));
        }
        let child = if recursive {
            self.index
        } else {
            self.index + 1 + self.rng.place(self.count - self.index - 1)
        };
        let name = format!("w{child}");
        let call = if self.rng.chance(200) {
            json!({ "name": name, "wait": false })
        } else {
            json!(name)
        };
        let waits = call.is_string();
        step.insert("workflow".into(), call);
        if waits {
            self.container_options(step);
        }
        Kind::Other
    }

    fn task(&mut self, step: &mut Fields, place: &Place) -> Kind {
        let fails = if self.rng.chance(300) {
            self.rng.between(100, 900)
        } else {
            -1
        };
        let text = format!("work fails={fails}");
        match self.rng.below(6) {
            0 => {
                step.insert("exec".into(), json!(["work", format!("fails={fails}")]));
            }
            1 => {
                step.insert("python".into(), json!({ "code": text, "function": "main" }));
            }
            _ => {
                step.insert("shell".into(), json!(text));
            }
        }
        if self.rng.chance(200) {
            step.insert("env".into(), json!({ "N": "${{ params.n }}" }));
        }
        if self.rng.chance(100) {
            step.insert(
                "outputs".into(),
                json!({ "type": { "n": "int", "ok": "bool", "xs": "list<int>" } }),
            );
        }
        self.task_options(step, place);
        Kind::Fields
    }

    fn task_options(&mut self, step: &mut Fields, place: &Place) {
        if self.rng.chance(350) {
            let mut retry = Fields::new();
            retry.insert("limit".into(), json!(self.rng.between(0, 3)));
            if self.rng.chance(300) {
                retry.insert("timeout".into(), json!(self.rng.between(0, 2)));
            }
            if self.rng.chance(300) {
                retry.insert("platform".into(), json!(self.rng.between(0, 3)));
            }
            if self.rng.chance(300) {
                retry.insert("when".into(), json!("${{ error.exit_code != 3 }}"));
            }
            retry.insert(
                "backoff".into(),
                json!({ "initial": format!("{}ms", self.rng.magnitude(10, 5_000)), "max": "20s" }),
            );
            step.insert("retry".into(), Value::Object(retry));
        }
        if self.rng.chance(200) {
            let mut timeout = Fields::new();
            for clock in ["attempt", "total", "queue"] {
                if self.rng.chance(400) {
                    timeout.insert(
                        clock.into(),
                        json!(format!("{}s", self.rng.magnitude(1, 120))),
                    );
                }
            }
            if !timeout.is_empty() {
                step.insert("timeout".into(), Value::Object(timeout));
            }
        }
        if self.rng.chance(150) && !place.finally {
            self.locks(step);
        }
        let careful = match (self.rng.chance(60), self.rng.chance(60)) {
            (true, _) => Some(("once", true)),
            (false, true) => Some(("idempotent", false)),
            (false, false) => None,
        };
        if let Some((key, value)) = careful {
            step.insert(key.into(), json!(value));
            step.remove("retry");
        }
        if self.rng.chance(100) {
            step.insert("priority".into(), json!(self.rng.between(0, 100)));
        }
        if self.rng.chance(50) {
            let after = self.rng.magnitude(1, 60);
            step.insert(
                "not_before".into(),
                json!(format!("${{{{ run.created_at + duration('{after}s') }}}}")),
            );
        }
        if self.rng.chance(100) {
            step.insert("queue".into(), json!(*self.rng.pick(&["small", "large"])));
        }
    }

    /// A name has the same bound wherever it is used.
    fn locks(&mut self, step: &mut Fields) {
        let all = [
            json!({ "name": "one" }),
            json!({ "name": "three", "max": 3 }),
            json!({ "name": "n-${{ params.n }}", "max": 2 }),
            json!({ "name": "rate", "per": "10s", "max": 5 }),
            json!({ "name": "slow-rate", "per": "7s", "max": 1 }),
        ];
        let mut locks = vec![self.rng.pick(&all).clone()];
        if self.rng.chance(300) {
            let other = self.rng.pick(&all).clone();
            if other != locks[0] {
                locks.push(other);
            }
        }
        step.insert("locks".into(), json!(locks));
    }
}
