//! People who are asked: who may answer, how many must, and what they fill in.

use std::collections::BTreeSet;

use kapell_api::task::Place;
use kapell_engine::event::{Event, Fact, Stored};
use kapell_engine::run::waiting::Waiting;
use kapell_engine::run::{Answer, Request};
use kapell_expr::Value;
use kapell_model::spec::{Approval, Verb};

use super::signals::verb;
use super::{Shadow, Verdict, wrong};
use crate::rng::Rng;

/// The groups that somebody is in.
fn groups(by: &str) -> &'static [&'static str] {
    if by == "p2" || by.starts_with("care") {
        &["leads"]
    } else {
        &[]
    }
}

/// What somebody says.
pub(super) fn said(by: String, step: String, approved: bool, filled: (Value, bool)) -> Request {
    let groups = groups(&by).iter().map(ToString::to_string).collect();
    Request::Answer(Answer {
        by,
        groups,
        step,
        approved,
        comment: String::new(),
        input: filled.0,
        text: filled.1,
    })
}

/// What somebody may fill in, and whether it is text.
pub(super) fn some_input(rng: &mut Rng) -> (Value, bool) {
    match rng.below(6) {
        0 => (Value::map([("amount", Value::string("7"))]), true),
        1 => (Value::map([("amount", Value::string("much"))]), true),
        2 => (Value::map([("nothing", Value::Int(1))]), false),
        3 => (Value::Null, false),
        _ => (Value::map([("amount", Value::Int(3))]), false),
    }
}

/// What a step asks for, if it asks for something.
pub(super) fn right_input(shadow: &Shadow, place: Place) -> Value {
    match verb(shadow, place) {
        Some(Verb::Approval(approval)) if !approval.input.is_empty() => {
            Value::map([("amount", Value::Int(3))])
        }
        _ => Value::Null,
    }
}

/// A step that people have answered was answered by those who may, each once, and by as many as it asks
/// for.
pub(super) fn answered_rightly(shadow: &Shadow, event: &Event) -> Verdict {
    let Some(Fact::UnitEnded(ended)) = &event.fact else {
        return Ok(());
    };
    let place = ended.unit.into();
    let Some(Waiting::Approval { given, .. }) = shadow.state.waits.get(&place) else {
        return Ok(());
    };
    let output = ended.output.as_ref().map(Stored::value).unwrap_or_default();
    let (Some(output), Some(Verb::Approval(approval))) = (output.as_map(), verb(shadow, place))
    else {
        return Ok(());
    };
    let Some(Value::Bool(approved)) = output.get("approved").filter(|_| ended.by.is_empty()) else {
        return Ok(());
    };
    let id = shadow.state.meta.id;
    let by = output.get("by").and_then(Value::as_str).unwrap_or_default();
    let people: Vec<&str> = by.split(", ").collect();
    let distinct: BTreeSet<&str> = people.iter().copied().collect();
    let wanted = if *approved {
        approval.count as usize
    } else {
        1
    };
    if distinct.len() != people.len() || people.len() < wanted {
        let detail = format!("{id} is answered by {people:?}, and {wanted} must");
        return wrong("approval", detail);
    }
    if *approved && !given.iter().all(|given| distinct.contains(&*given.by)) {
        return wrong("approval", format!("{id} forgets a yes of {given:?}"));
    }
    if let Some(who) = people.iter().find(|who| !may(shadow, approval, who)) {
        return wrong(
            "approval",
            format!("{id} is answered by `{who}`, who may not"),
        );
    }
    let input = output.get("input").and_then(Value::as_map);
    let asked = approval.input.iter().map(|param| &param.name);
    let filled = input.map(|input| input.keys().collect::<BTreeSet<_>>());
    if *approved && filled.unwrap_or_default() != asked.collect() {
        return wrong("approval", format!("{id} goes on with the input {input:?}"));
    }
    Ok(())
}

fn may(shadow: &Shadow, approval: &Approval, who: &str) -> bool {
    let is = |name: &str| name == who || groups(who).contains(&name);
    let named = approval.by.is_empty() || approval.by.iter().any(|name| is(name));
    named && (approval.allow_self || *shadow.state.meta.by != *who)
}
