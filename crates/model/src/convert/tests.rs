use std::sync::Arc;

use kapell_expr::{Object, Type, Value};

use super::convert;

fn json(text: &str) -> Value {
    Value::from_json(&serde_json::from_str(text).unwrap())
}

#[test]
fn nothing_is_coerced_but_ints_to_floats_and_iso_text() {
    assert_eq!(
        convert(&Value::Int(1), &Type::Float).unwrap().type_name(),
        "float"
    );
    assert_eq!(
        convert(&Value::from("2026-01-31"), &Type::Date)
            .unwrap()
            .type_name(),
        "date"
    );
    assert_eq!(
        convert(&Value::from("2026-01-31T12:00:00Z"), &Type::Timestamp)
            .unwrap()
            .type_name(),
        "timestamp"
    );
    assert_eq!(
        convert(&Value::from("1h30m"), &Type::Duration)
            .unwrap()
            .type_name(),
        "duration"
    );
    assert_eq!(
        convert(&Value::from("PT90S"), &Type::Duration)
            .unwrap()
            .text(),
        Value::Duration(jiff::SignedDuration::from_secs(90)).text()
    );
    for (value, ty) in [
        (Value::from("1"), Type::Int),
        (Value::from(true), Type::String),
        (Value::Float(1.0), Type::Int),
        (Value::from("soon"), Type::Date),
        (Value::Null, Type::String),
    ] {
        assert!(
            convert(&value, &ty).unwrap_err().starts_with("must be "),
            "{value:?}"
        );
    }
}

#[test]
fn a_problem_inside_is_named_by_its_path() {
    let ty = Type::parse("map<list<int>>").unwrap();
    assert_eq!(
        convert(&json(r#"{"a": [1, "x"]}"#), &ty).unwrap_err(),
        "at `a[1]` must be int, not string `x`"
    );
}

#[test]
fn declared_fields_are_all_there_and_no_others() {
    let ty = Type::Object(Arc::new(Object {
        fields: [("loss".to_owned(), Type::Float)].into(),
        ..Object::default()
    }));
    assert_eq!(
        convert(&json(r#"{"loss": 1}"#), &ty)
            .unwrap()
            .as_map()
            .unwrap()["loss"]
            .type_name(),
        "float"
    );
    assert_eq!(
        convert(&json("{}"), &ty).unwrap_err(),
        "lacks the field `loss`"
    );
    assert_eq!(
        convert(&json(r#"{"loss": 1, "x": 2}"#), &ty).unwrap_err(),
        "has the field `x`, which is not declared"
    );
}
