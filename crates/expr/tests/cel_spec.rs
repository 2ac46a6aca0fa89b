//! The simple tests of the CEL specification that the language claims; `CEL.md` lists them.

use kapell_expr::{Budget, MapScope, Program, Type, TypeScope, Value};

const CASES: &str = include_str!("cel_cases.txt");

fn scope() -> MapScope {
    let nested = Value::map([("b", Value::map([("c", Value::from("yeah"))]))]);
    let values = Value::map([
        ("x", Value::Int(123)),
        ("y", Value::map([("name", Value::Int(1024))])),
        ("s", Value::from("abc")),
        ("a", nested),
        ("n", Value::Null),
    ]);
    MapScope((**values.as_map().expect("a map")).clone())
}

/// What came out, in the words of the cases, with the type where JSON cannot tell.
fn outcome(source: &str) -> String {
    let Ok(program) = Program::parse(source) else {
        return "problem".to_owned();
    };
    match program.eval(&scope(), Budget::default()) {
        Ok(value) => format!("{} {}", value.type_name(), value.to_json()),
        Err(_) => "error".to_owned(),
    }
}

fn expected(text: &str) -> String {
    if matches!(text, "error" | "problem") {
        return text.to_owned();
    }
    let value: Value = serde_json::from_str(text).expect("the case is JSON");
    format!("{} {}", value.type_name(), value.to_json())
}

fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let mut section = "";
    CASES.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix("## ") {
            section = name;
        }
        let (source, expected) = line.rsplit_once(" => ")?;
        (!line.starts_with('#')).then_some((section, source, expected))
    })
}

#[test]
fn every_case_has_its_outcome() {
    let wrong: Vec<String> = cases()
        .filter(|(_, source, text)| outcome(source) != expected(text))
        .map(|(section, source, text)| {
            format!("{section}: {source} => {text}, not {}", outcome(source))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases().count() > 400);
}

#[test]
fn cases_with_a_value_pass_the_check_with_the_type_of_their_value() {
    let open = TypeScope {
        open: true,
        ..TypeScope::default()
    };
    for (section, source, text) in cases() {
        if matches!(text, "error" | "problem") {
            continue;
        }
        let program = Program::parse(source).expect("cases with a value parse");
        let (found, problems) = program.check(&open);
        // A function that does not exist is a problem even where evaluation never reaches it.
        let problems: Vec<_> = problems
            .iter()
            .filter(|p| !p.message.contains("f_unknown"))
            .collect();
        assert!(problems.is_empty(), "{section}: {source}: {problems:?}");
        let value = program
            .eval(&scope(), Budget::default())
            .expect("cases with a value evaluate");
        assert!(
            found.accepts(&value),
            "{section}: {source}: {value} is not {found}"
        );
    }
}

#[test]
fn wrong_types_are_found_before_anything_runs() {
    let scope = TypeScope {
        fields: [("x".to_owned(), Type::Int), ("s".to_owned(), Type::String)].into(),
        ..TypeScope::default()
    };
    for source in [
        "x + s",
        "x < s",
        "x == s",
        "s && true",
        "!x",
        "x.size()",
        "s[0]",
        "s % 2",
        "-s",
        "x in s",
    ] {
        let (_, problems) = Program::parse(source).expect("parses").check(&scope);
        assert_eq!(problems.len(), 1, "{source}: {problems:?}");
    }
}
