use std::sync::Arc;

use kapell_expr::{Map, Value};

use super::{Source, bind};
use crate::parse;
use crate::spec::Spec;

const WORKFLOW: &str = "workflow: w
params:
  day: { type: date, description: The day to load }
  next: { type: date, default: \"${{ params.day + days(1) }}\" }
  name: { type: string, default: \"${{ run.workflow }}-${{ params.next }}\" }
  size: { type: int, min: 1, max: 10, default: 5 }
  kind: { type: string, enum: [big, small], default: big }
  code: { type: string, pattern: \"[a-z]{2}\", default: de }
  tags: { type: list<string>, default: [] }
  rates: { type: list<float>, default: [1, 0.5] }
  options: { type: map<int>, default: {} }
  wait: { type: duration, default: 1h }
  flag: { type: bool, default: false }
  fixed: { type: int, default: 7, fixed: true }
  data: { type: file, default: a.csv }
steps: { a: { noop: } }
";

fn spec() -> Arc<Spec> {
    parse("w.yaml", WORKFLOW).spec.unwrap()
}

fn run() -> Value {
    Value::map([("workflow", Value::from("daily"))])
}

fn text(pairs: &[(&str, &str)]) -> Map {
    pairs
        .iter()
        .map(|(name, value)| (Arc::from(*name), Value::from(*value)))
        .collect()
}

fn problems(supplied: &Map, source: Source) -> Vec<(&'static str, String)> {
    let problems = bind(&spec(), supplied, source, &run()).unwrap_err();
    problems
        .into_iter()
        .map(|problem| (problem.code, problem.message))
        .collect()
}

#[test]
fn defaults_are_evaluated_in_the_order_of_their_needs() {
    let bound = bind(
        &spec(),
        &text(&[("day", "2026-12-31")]),
        Source::Text,
        &run(),
    )
    .unwrap();
    assert_eq!(bound["next"].text(), "2027-01-01");
    assert_eq!(bound["name"].text(), "daily-2027-01-01");
    assert_eq!(bound["rates"].as_list().unwrap()[0].type_name(), "float");
    assert_eq!(bound.len(), 13);
}

#[test]
fn text_is_parsed_to_the_type() {
    let supplied = text(&[
        ("day", "2026-01-01"),
        ("size", "3"),
        ("tags", "a, b"),
        ("rates", "[1, 2.5]"),
        ("options", "{\"x\": 1}"),
        ("wait", "5m"),
        ("flag", "true"),
        ("kind", "small"),
    ]);
    let bound = bind(&spec(), &supplied, Source::Text, &run()).unwrap();
    assert_eq!(bound["size"], Value::Int(3));
    assert_eq!(bound["tags"].text(), "[\"a\",\"b\"]");
    assert_eq!(bound["rates"].text(), "[1.0,2.5]");
    assert_eq!(bound["options"].text(), "{\"x\":1}");
    assert_eq!(bound["wait"].type_name(), "duration");
    assert_eq!(bound["flag"], Value::Bool(true));
}

#[test]
fn typed_values_are_not_coerced() {
    let mut supplied = text(&[("day", "2026-01-01"), ("size", "3")]);
    assert_eq!(
        problems(&supplied, Source::Typed),
        [("bad-param", "`size` must be int, not string `3`".to_owned())]
    );
    supplied.insert("size".into(), Value::Int(3));
    assert!(bind(&spec(), &supplied, Source::Typed, &run()).is_ok());
}

#[test]
fn all_problems_come_at_once() {
    let supplied = text(&[
        ("dya", "2026-01-01"),
        ("size", "11"),
        ("kind", "bgi"),
        ("code", "deu"),
        ("fixed", "8"),
        ("flag", "yes"),
        ("options", "{"),
        ("data", "../x"),
    ]);
    let found = problems(&supplied, Source::Text);
    let codes: Vec<&str> = found.iter().map(|(code, _)| *code).collect();
    assert_eq!(
        codes,
        [
            "bad-param",
            "bad-param",
            "unknown-param",
            "fixed-param",
            "bad-param",
            "bad-param",
            "bad-param",
            "bad-param",
            "missing-param"
        ],
        "{found:#?}"
    );
    let unknown = bind(&spec(), &supplied, Source::Text, &run()).unwrap_err();
    assert_eq!(
        unknown
            .iter()
            .find(|problem| problem.code == "unknown-param")
            .unwrap()
            .hint
            .as_deref(),
        Some("did you mean `day`?")
    );
    assert!(
        found
            .iter()
            .any(|(_, message)| message == "`size` must be at most 10, and its value is 11"),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|(_, message)| message == "`day` is required: date"),
        "{found:#?}"
    );
}

#[test]
fn a_default_that_fails_names_its_parameter() {
    let text = "workflow: w\nparams:\n  n: { type: int }\n  inverse: { type: int, default: \"${{ 10 / params.n }}\" }\nsteps: { a: { noop: } }\n";
    let spec = parse("w.yaml", text).spec.unwrap();
    let supplied = [(Arc::from("n"), Value::Int(0))].into();
    let found = bind(&spec, &supplied, Source::Typed, &run()).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].code == "bad-default" && found[0].message.contains("`inverse`"),
        "{found:?}"
    );
}

#[test]
fn parameters_have_a_bound_together() {
    let supplied = text(&[("day", "2026-01-01"), ("name", &"x".repeat(2 << 20))]);
    assert_eq!(problems(&supplied, Source::Text)[0].0, "limit");
}
