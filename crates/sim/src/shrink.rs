//! Making a failing scenario smaller, as long as it fails in the same way.

use serde_json::Value;

use crate::scenario::Scenario;
use crate::world::{Failure, play};

/// Plays at most.
const PLAYS: u32 = 600;

struct Shrinker {
    best: Scenario,
    failure: Failure,
    plays: u32,
}

/// The smallest scenario found that fails by the same checker.
pub fn shrink(scenario: &Scenario, failure: &Failure) -> (Scenario, Failure) {
    let mut shrinker = Shrinker {
        best: scenario.clone(),
        failure: failure.clone(),
        plays: 0,
    };
    loop {
        let before = size(&shrinker.best);
        shrinker.faults();
        shrinker.requests();
        shrinker.workflows();
        shrinker.knobs();
        if size(&shrinker.best) >= before || shrinker.plays >= PLAYS {
            return (shrinker.best, shrinker.failure);
        }
    }
}

fn size(scenario: &Scenario) -> usize {
    serde_json::to_string(scenario).map_or(0, |text| text.len())
}

impl Shrinker {
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        if self.plays >= PLAYS {
            return false;
        }
        let mut smaller = self.best.clone();
        change(&mut smaller);
        self.plays += 1;
        let outcome = play(&smaller, None);
        match outcome.failure {
            Some(failure) if failure.what == self.failure.what => {
                self.best = smaller;
                self.failure = failure;
                true
            }
            _ => false,
        }
    }

    fn faults(&mut self) {
        let mut chunk = self.best.faults.len().max(1);
        while chunk > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let to = (from + chunk).min(self.best.faults.len());
                if !self.attempt(|scenario| drop(scenario.faults.drain(from..to))) {
                    from += chunk;
                }
            }
            chunk /= 2;
        }
    }

    fn requests(&mut self) {
        let mut chunk = self.best.requests.len().max(1);
        while chunk > 0 {
            let mut from = 0;
            while from < self.best.requests.len() {
                let to = (from + chunk).min(self.best.requests.len());
                if !self.attempt(|scenario| drop(scenario.requests.drain(from..to))) {
                    from += chunk;
                }
            }
            chunk /= 2;
        }
    }

    fn workflows(&mut self) {
        for index in 0..self.best.workflows.len() {
            let mut skipped = 0;
            loop {
                let mut paths = Vec::new();
                collect(&self.best.workflows[index], &mut Vec::new(), &mut paths);
                let Some(path) = paths.get(skipped).cloned() else {
                    break;
                };
                if !self.attempt(|scenario| cut(&mut scenario.workflows[index], &path)) {
                    skipped += 1;
                }
                if self.plays >= PLAYS {
                    return;
                }
            }
        }
    }

    fn knobs(&mut self) {
        self.attempt(|scenario| scenario.far.clear());
        self.attempt(|scenario| scenario.knobs.lump = 0);
        self.attempt(|scenario| scenario.knobs.repeats = 0);
        self.attempt(|scenario| scenario.knobs.deaf = 0);
        self.attempt(|scenario| scenario.knobs.late = 0);
        self.attempt(|scenario| scenario.knobs.lost = 0);
        self.attempt(|scenario| scenario.knobs.big = 0);
        self.attempt(|scenario| scenario.knobs.fails = 0);
        self.attempt(|scenario| scenario.knobs.follow = 0);
    }
}

/// Places of a definition that may be left out, the big ones first.
fn collect(value: &Value, path: &mut Vec<String>, into: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for name in fields.keys() {
                path.push(name.clone());
                if name != "workflow" || path.len() > 1 {
                    into.push(path.clone());
                }
                path.pop();
            }
            for (name, inner) in fields {
                path.push(name.clone());
                collect(inner, path, into);
                path.pop();
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                path.push(index.to_string());
                into.push(path.clone());
                collect(inner, path, into);
                path.pop();
            }
        }
        _ => {}
    }
}

fn cut(value: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match value {
        Value::Object(fields) if rest.is_empty() => {
            fields.remove(first);
            // A step that is gone is needed no more.
            for other in fields.values_mut() {
                forget(other, first);
            }
        }
        Value::Object(fields) => {
            if let Some(inner) = fields.get_mut(first) {
                cut(inner, rest);
            }
        }
        Value::Array(list) => {
            let Ok(index) = first.parse::<usize>() else {
                return;
            };
            if rest.is_empty() && index < list.len() {
                list.remove(index);
            } else if let Some(inner) = list.get_mut(index) {
                cut(inner, rest);
            }
        }
        _ => {}
    }
}

fn forget(step: &mut Value, id: &str) {
    let Some(fields) = step.as_object_mut() else {
        return;
    };
    let mut empty = false;
    if let Some(needs) = fields.get_mut("needs").and_then(Value::as_array_mut) {
        needs.retain(|need| need != id);
        empty = needs.is_empty();
    }
    if empty {
        fields.remove("needs");
    }
}
