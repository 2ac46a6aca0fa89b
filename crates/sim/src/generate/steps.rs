//! Random steps: every verb, with what it may carry.

use serde_json::{Value, json};

use super::workflow::{Fields, Kind, Place, Seen, Writer};

impl Writer<'_> {
    pub(super) fn verb(
        &mut self,
        step: &mut Fields,
        place: &Place,
        usable: &[Seen],
        many: bool,
    ) -> Kind {
        if many {
            if self.rng.chance(700) {
                step.insert("noop".into(), Value::Null);
                return Kind::Other;
            }
            return self.task(step, place, usable);
        }
        let deep = place.depth >= 3 || self.left == 0;
        match self.rng.below(23) {
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
                let mut values = json!({ "n": "${{ params.n * 7 }}", "ok": true, "xs": "${{ range(params.n) }}" });
                if let Some(given) = self.given(place, usable) {
                    values["given"] = json!(given);
                }
                if self.watermark {
                    values["last"] = json!("${{ run.last_success }}");
                }
                step.insert("set".into(), values);
                Kind::Fields
            }
            11 => {
                let span = self.rng.magnitude(1, 60);
                let wait = if self.rng.chance(700) {
                    json!(format!("{span}s"))
                } else {
                    json!({ "until": format!("${{{{ run.created_at + duration('{span}s') }}}}") })
                };
                step.insert("wait".into(), wait);
                Kind::Other
            }
            20 => self.awaits(step),
            21 => self.asks_people(step),
            12..=14 if !deep => self.group(step, place, usable),
            15 if !deep => self.switch(step, place, usable),
            16 | 17 if !deep => self.cycle(step, place, usable),
            18 | 19 if place.depth < 2 => self.child(step, place, usable),
            _ => self.task(step, place, usable),
        }
    }

    fn awaits(&mut self, step: &mut Fields) -> Kind {
        let finished = format!("workflow.w{}.succeeded", self.count - 1);
        let name = match self.rng.below(4) {
            3 => finished,
            number => format!("t{number}"),
        };
        let mut wait = Fields::new();
        wait.insert("signal".into(), json!(name));
        let matches = [
            "${{ signal.payload.n == params.n }}",
            "${{ signal.payload.n >= params.n && signal.payload.ok == true }}",
            "${{ signal.payload.ok }}",
        ];
        if self.rng.chance(600) {
            let matches = *self.rng.pick(&matches);
            wait.insert("match".into(), json!(matches));
        }
        if self.rng.chance(300) {
            let since = "${{ run.created_at - duration('1m') }}";
            wait.insert("since".into(), json!(since));
        }
        if self.rng.chance(600) {
            let span = self.rng.magnitude(1, 300);
            wait.insert("timeout".into(), json!(format!("{span}s")));
        }
        step.insert("await".into(), Value::Object(wait));
        Kind::Other
    }

    fn asks_people(&mut self, step: &mut Fields) -> Kind {
        let mut ask = json!({ "count": self.rng.between(1, 2), "message": "n is ${{ params.n }}" });
        if self.rng.chance(500) {
            ask["by"] = json!(["p0", "p1", "leads"]);
        }
        if self.rng.chance(500) {
            ask["timeout"] = json!(format!("{}s", self.rng.magnitude(1, 300)));
        }
        if self.rng.chance(300) {
            ask["on_reject"] = json!("continue");
        }
        if self.rng.chance(300) {
            ask["allow_self"] = json!(true);
        }
        if self.rng.chance(300) {
            ask["input"] = json!({ "amount": { "type": "int", "max": 5 } });
            if self.rng.chance(500) {
                ask["input"]["why"] = json!({ "type": "string", "default": "because" });
            }
        }
        step.insert("approval".into(), ask);
        Kind::Other
    }

    /// Signals that any step sends, and where it stops.
    pub(super) fn signals(&mut self, step: &mut Fields) {
        if self.rng.chance(120) {
            let payloads = [
                "${{ {'n': params.n, 'ok': true} }}",
                "${{ {'n': params.n, 'of': output} }}",
                "${{ json('{}').n }}",
            ];
            let choice = if self.rng.chance(700) {
                1
            } else {
                payloads.len()
            };
            let payload = *self.rng.pick(&payloads[..choice]);
            let when = *self.rng.pick(&["succeeded", "failed", "done"]);
            let name = format!("t{}", self.rng.below(3));
            let mut emit = json!({ "signal": name, "payload": payload, "when": when });
            if self.rng.chance(400) {
                emit["key"] = json!("${{ params.n % 2 }}");
            }
            step.insert("emit".into(), json!([emit]));
        }
        if self.rng.chance(40) {
            let stops = ["before", "after", "on_failure", "${{ params.n > 2 }}"];
            let stop = *self.rng.pick(&stops);
            step.insert("breakpoint".into(), json!(stop));
        }
    }

    /// An expression over what is there: an item, or what another step gave.
    fn given(&mut self, place: &Place, usable: &[Seen]) -> Option<String> {
        if !place.vars.is_empty() && self.rng.chance(500) {
            let name = self.rng.pick(&place.vars).clone();
            return Some(format!("${{{{ {name} }}}}"));
        }
        if usable.is_empty() {
            return None;
        }
        let seen = self.rng.pick(usable).clone();
        let field = match seen.kind {
            Kind::List => *self.rng.pick(&["output", "results", "failures", "error"]),
            Kind::Fields | Kind::Other => *self.rng.pick(&["output", "error", "attempts"]),
        };
        Some(format!("${{{{ steps.{}.{field} }}}}", seen.id))
    }

    pub(super) fn container_options(&mut self, step: &mut Fields) {
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

    pub(super) fn group(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
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

    pub(super) fn switch(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
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

    pub(super) fn cycle(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        let inside = Place {
            depth: place.depth + 1,
            ..place.clone()
        };
        let (steps, seen) = self.graph(&inside, usable);
        let mut cycle = Fields::new();
        let mut next = json!({ "i": "${{ vars.i + 1 }}" });
        if let Some(last) = seen.last().filter(|_| self.rng.chance(400)) {
            next["last"] = json!(format!("${{{{ steps.{}.output }}}}", last.id));
        }
        cycle.insert("vars".into(), json!({ "i": 0, "last": null }));
        cycle.insert("next".into(), next);
        let turns = self.rng.between(0, 4);
        if self.rng.chance(500) {
            cycle.insert(
                "while".into(),
                json!(format!("${{{{ vars.i < {turns} }}}}")),
            );
        } else {
            let mut until = format!("vars.i >= {turns}");
            if let Some(last) = seen.last().filter(|_| self.rng.chance(300)) {
                until = format!("{until} || steps.{}.status == 'succeeded'", last.id);
            }
            cycle.insert("until".into(), json!(format!("${{{{ {until} }}}}")));
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

    pub(super) fn child(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        let recursive = self.rng.chance(150) && !place.in_item;
        if !recursive && self.index + 1 >= self.count {
            return self.task(step, place, usable);
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

    pub(super) fn task(&mut self, step: &mut Fields, place: &Place, usable: &[Seen]) -> Kind {
        if self.rng.chance(60) {
            let request = json!({ "url": "https://models.internal/${{ params.n }}", "json": { "n": "${{ params.n }}" } });
            step.insert("http".into(), request);
            self.task_options(step, place);
            return Kind::Other;
        }
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
        if self.rng.chance(300) {
            let mut env = json!({ "N": "${{ params.n }}" });
            if let Some(given) = self.given(place, usable) {
                env["GIVEN"] = json!(format!("given {given}"));
            }
            step.insert("env".into(), env);
        }
        if self.rng.chance(150)
            && let Some(given) = self.given(place, usable)
        {
            step.insert("with".into(), json!({ "given": given }));
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

    pub(super) fn task_options(&mut self, step: &mut Fields, place: &Place) {
        if self.rng.chance(350) {
            let mut retry = Fields::new();
            let limit = if self.rng.chance(850) {
                json!(self.rng.between(0, 3))
            } else {
                json!("${{ params.n }}")
            };
            retry.insert("limit".into(), limit);
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
                    let span = self.rng.magnitude(1, 120);
                    let span = if self.rng.chance(850) {
                        format!("{span}s")
                    } else {
                        format!("${{{{ duration('{span}s') }}}}")
                    };
                    timeout.insert(clock.into(), json!(span));
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
            let priority = if self.rng.chance(700) {
                json!(self.rng.between(0, 100))
            } else {
                json!("${{ params.n * 10 }}")
            };
            step.insert("priority".into(), priority);
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
    pub(super) fn locks(&mut self, step: &mut Fields) {
        let all = [
            json!({ "name": "one" }),
            json!({ "name": "three", "max": 3 }),
            json!({ "name": "n-${{ params.n }}", "max": 2 }),
            json!({ "name": "${{ params.n > 2 ? 'many' : 'few' }}-${{ params.n % 2 }}" }),
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
