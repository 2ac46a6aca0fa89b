//! What holds for any input.

use std::sync::Arc;

use kapell_expr::{
    BlobRef, Budget, EvalError, MapScope, Program, Scope, Template, Type, TypeScope, Value,
    format_duration, parse_duration,
};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        "\\PC{0,12}".prop_map(Value::from),
        "[$a{} ']{0,8}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into())),
        (1i64..3_000_000).prop_map(|day| Value::Date(
            jiff::civil::date(1, 1, 1)
                .checked_add(jiff::Span::new().days(day))
                .expect("in range")
        )),
        (-60_000_000_000_i64..250_000_000_000, 0i32..1_000_000_000)
            .prop_map(|(s, n)| Value::Timestamp(jiff::Timestamp::new(s, n).expect("in range"))),
        (-300_000_000_000_i64..300_000_000_000, 0i32..1_000_000_000)
            .prop_map(|(s, n)| Value::Duration(jiff::SignedDuration::new(s, n))),
        any::<u64>().prop_map(|size| Value::Blob(BlobRef {
            hash: "ab".into(),
            size
        })),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            proptest::collection::vec(("[$a-z]{0,5}|\\$date|\\$map", inner), 0..4)
                .prop_map(Value::map),
        ]
    })
}

/// Equal with types: the language's equality lets 1 equal 1.0 and NaN differ from itself.
fn same(left: &Value, right: &Value) -> bool {
    format!("{left:?}") == format!("{right:?}")
}

/// Expressions of numbers, texts and lists, most of them well-typed.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-9i64..99).prop_map(|n| n.to_string()),
        Just("9223372036854775807".to_owned()),
        Just("2.5".to_owned()),
        Just("'ab'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("i".to_owned()),
        Just("f".to_owned()),
        Just("t".to_owned()),
        Just("l".to_owned()),
        Just("any".to_owned()),
        Just("m.a".to_owned()),
        Just("duration('90s')".to_owned()),
        Just("date('2026-01-31')".to_owned()),
        Just("timestamp('2026-01-31T00:00:00Z')".to_owned()),
        Just("days(2)".to_owned()),
    ];
    leaf.prop_recursive(4, 40, 3, |inner| {
        let ops = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", "in", "&&", "||",
        ]);
        let calls = prop::sample::select(vec![
            "sum()",
            "min()",
            "sort()",
            "distinct()",
            "flatten()",
            "size()",
            "reverse()",
            "chunk(2)",
            "zip(l)",
            "map(x, x + 1)",
            "filter(x, x > 1)",
            "all(x, x > 0)",
            "exists(x, x == 2)",
            "sort_by(x, -x)",
            "min_by(x, x)",
            "join(',')",
            "split('a')",
            "getFullYear()",
            "upperAscii()",
        ]);
        let functions = prop::sample::select(vec![
            "int", "float", "string", "size", "hash", "dyn", "-", "!", "math.abs", "range", "json",
            "date",
        ]);
        prop_oneof![
            (inner.clone(), ops, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), calls).prop_map(|(a, call)| format!("({a}).{call}")),
            (functions, inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            proptest::collection::vec(inner, 0..4)
                .prop_map(|items| format!("[{}]", items.join(", "))),
        ]
    })
}

fn types() -> TypeScope {
    let list = Type::List(Arc::new(Type::Int));
    let map = Type::Map(Arc::new(Type::Int));
    let fields = [
        ("i", Type::Int),
        ("f", Type::Float),
        ("t", Type::String),
        ("l", list),
        ("m", map),
        ("any", Type::Any),
    ];
    TypeScope {
        fields: fields
            .into_iter()
            .map(|(name, found)| (name.to_owned(), found))
            .collect(),
        ..TypeScope::default()
    }
}

fn names(any: Value) -> MapScope {
    let values = Value::map([
        ("i", Value::Int(3)),
        ("f", Value::Float(1.5)),
        ("t", Value::from("tea")),
        ("l", Value::list(vec![Value::Int(2), Value::Int(1)])),
        ("m", Value::map([("a", Value::Int(7))])),
        ("any", any),
    ]);
    MapScope((**values.as_map().expect("a map")).clone())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_source_makes_the_parser_panic(source in "\\PC{0,60}") {
        if let Err(problems) = Program::parse(&source) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(source.get(problem.span.clone()).is_some(), "{problem:?}");
            }
        }
    }

    #[test]
    fn no_sequence_of_tokens_makes_the_parser_panic(
        tokens in proptest::collection::vec(prop::sample::select(vec![
            "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "+", "-", "!", "&&", "||", "==", "in", "a", "has",
            "map", "all", "'é'", "'", "\"", "1", "1.5", "0x", "u", "//", "\n", "x", "loop", "null", "`", "\\", " ",
            "coalesce", "r'", "math.", "e",
        ]), 0..24),
    ) {
        let source = tokens.concat();
        match Program::parse(&source) {
            Ok(program) => {
                let (_, problems) = program.check(&types());
                for problem in problems {
                    prop_assert!(source.get(problem.span.clone()).is_some(), "{problem:?}");
                }
                let _ = program.eval(&names(Value::Null), Budget::default());
            }
            Err(problems) => for problem in problems {
                prop_assert!(source.get(problem.span.clone()).is_some(), "{problem:?}");
            },
        }
    }

    #[test]
    fn no_text_makes_templates_panic_and_what_parses_comes_back(text in "([$}{a.'\" ]|\\$\\{\\{|\\}\\}|secrets\\.x){0,12}") {
        match Template::parse(&text) {
            Ok(template) => {
                let json = serde_json::to_string(&template).expect("serialises");
                let back: Template = serde_json::from_str(&json).expect("deserialises");
                prop_assert_eq!(&back, &template);
                if !template.is_literal() {
                    prop_assert_eq!(serde_json::to_value(&template).expect("serialises"), serde_json::Value::from(text));
                }
            }
            Err(problems) => for problem in problems {
                prop_assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            },
        }
    }

    #[test]
    fn literals_survive_being_written_as_templates(value in value()) {
        let template = Template::literal(value.clone());
        let back = Template::from_value(&template.to_value()).expect("parses");
        prop_assert!(same(back.as_literal().expect("a literal"), &value));
    }

    #[test]
    fn values_survive_being_stored(value in value()) {
        let back = Value::from_stored(&value.to_stored()).expect("reads");
        prop_assert!(same(&back, &value), "{back:?}");
    }

    #[test]
    fn a_value_is_of_its_own_type(value in value()) {
        prop_assert!(Type::of(&value).accepts(&value));
    }

    #[test]
    fn an_accepted_expression_yields_its_type_or_an_error(source in expression(), any in value()) {
        let program = Program::parse(&source).expect("well-formed");
        let (found, problems) = program.check(&types());
        let result = program.eval(&names(any), Budget::default());
        if let (true, Ok(value)) = (problems.is_empty(), result) {
            prop_assert!(found.accepts(&value), "{source}: {value:?} is not {found}");
        }
    }

    #[test]
    fn evaluation_is_deterministic_and_keeps_to_its_fuel(source in expression(), fuel in 0u64..200) {
        let program = Program::parse(&source).expect("well-formed");
        let budget = Budget { fuel, ..Budget::default() };
        let first = program.eval(&names(Value::Null), budget);
        let second = program.eval(&names(Value::Null), budget);
        prop_assert_eq!(format!("{first:?}"), format!("{second:?}"));
        // What a small budget can do, a large one does too, with the same result.
        if let Ok(value) = first {
            let again = program.eval(&names(Value::Null), Budget::default());
            prop_assert!(again.is_ok_and(|again| same(&again, &value)));
        }
    }

    #[test]
    fn durations_survive_being_written(seconds in -300_000_000_000_i64..300_000_000_000, nanos in 0i32..1_000_000_000) {
        let span = jiff::SignedDuration::new(seconds, nanos);
        prop_assert_eq!(parse_duration(&format_duration(span)), Ok(span));
        prop_assert_eq!(parse_duration(&span.to_string()), Ok(span));
    }

    #[test]
    fn no_text_makes_duration_parsing_panic(text in "[-+0-9.msuhdPTWDé]{0,40}") {
        let _ = parse_duration(&text);
    }
}

/// A scope that is as wide as a test wants.
struct Wide(Value);

impl Scope for Wide {
    fn resolve(&self, _: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        Ok(Some((self.0.clone(), 1)))
    }
}

#[test]
fn evaluation_that_would_take_too_long_ends_with_the_bound_it_met() {
    let growing = (0..28).fold("[0, 0]".to_owned(), |inner, n| {
        format!("[{inner}].map(v{n}, [v{n}, v{n}])[0]")
    });
    let text = (0..28).fold("'aaaaaaaa'".to_owned(), |inner, n| {
        format!("[{inner}].map(v{n}, v{n} + v{n})[0]")
    });
    for (source, bound) in [
        ("range(1000000000000)".to_owned(), "size"),
        ("range(9000000).map(a, range(9000000))".to_owned(), "fuel"),
        ("range(1000).map(a, range(1000).map(b, range(1000).map(c, a + b + c)))".to_owned(), "fuel"),
        ("range(-9223372036854775807, 9223372036854775807)".to_owned(), "size"),
        (growing, "size"),
        (text, "size"),
        ("range(100000).map(i, range(1000)).flatten().size()".to_owned(), "fuel"),
        ("range(100000).map(i, 'a').join('').split('').map(i, range(100000).map(j, 'a').join(''))".to_owned(), "fuel"),
        ("range(1000).map(i, range(1000)).map(l, hash(range(1000).map(i, l)))".to_owned(), "fuel"),
        ("range(1001).map(i, '%.1000f').join('').format(range(1001)).split('').map(c, range(1000000))".to_owned(), "fuel"),
    ] {
        let program = Program::parse(&source).expect("parses");
        let Err(EvalError::Budget(message)) = program.eval(&MapScope::default(), Budget::default()) else {
            panic!("{source} ends without meeting its budget");
        };
        assert!(message.contains(&format!("bound: {bound}")), "{source}: {message}");
    }
}

#[test]
fn the_result_is_held_to_size_and_depth() {
    let program = Program::parse("x").expect("parses");
    let deep = (0..200).fold(Value::Null, |inner, _| Value::list(vec![inner]));
    let Err(EvalError::Budget(message)) = program.eval(&Wide(deep), Budget::default()) else {
        panic!("too deep")
    };
    assert!(message.contains("bound: depth"), "{message}");
    let small = Budget {
        size: 100,
        ..Budget::default()
    };
    let wide = Value::from("a".repeat(200));
    let Err(EvalError::Budget(message)) = program.eval(&Wide(wide), small) else {
        panic!("too large")
    };
    assert!(message.contains("bound: size"), "{message}");
}
