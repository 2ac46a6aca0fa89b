use crate::{
    Budget, MapScope, Object, Program, Type, TypeScope, Value, format_duration, parse_duration,
};
use jiff::SignedDuration;

#[test]
fn durations_are_read_in_all_forms() {
    for (text, seconds) in [
        ("10s", 10),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("-90m", -5400),
        ("PT36H", 129_600),
        ("P1DT12H", 129_600),
        ("P1W", 604_800),
        ("0", 0),
        ("3000ms", 3),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(SignedDuration::from_secs(seconds)),
            "{text}"
        );
    }
    assert_eq!(
        parse_duration("0.25s"),
        Ok(SignedDuration::from_millis(250))
    );
    assert_eq!(parse_duration("1us"), Ok(SignedDuration::from_micros(1)));
}

#[test]
fn wrong_durations_say_what_is_wrong() {
    let error = |text: &str| parse_duration(text).expect_err(text);
    assert!(error("10").contains("no unit; write `10s`"));
    assert!(error("10x").contains("unknown unit `x`"));
    assert!(error("").contains("empty"));
    assert!(error("P1Y").contains("not a duration"));
    assert!(error("1.2.3s").contains("not a duration"));
    assert!(error("99999999999d").contains("too long"));
}

#[test]
fn durations_are_written_short() {
    for text in ["1d12h", "1m30s", "500ms", "0s", "-1h", "1s1ms1us1ns"] {
        assert_eq!(format_duration(parse_duration(text).expect(text)), text);
    }
}

#[test]
fn types_are_read_and_written() {
    for text in ["int", "list<string>", "map<list<float>>", "any", "duration"] {
        assert_eq!(Type::parse(text).expect(text).to_string(), text);
    }
    assert_eq!(Type::parse("list").expect("list").to_string(), "list<any>");
    assert_eq!(
        Type::parse(" list< int > ").expect("blanks").to_string(),
        "list<int>"
    );
    assert_eq!(Type::parse("file"), Ok(Type::Any));
    assert!(
        Type::parse("sting")
            .expect_err("unknown")
            .contains("did you mean `string`?")
    );
    assert!(
        Type::parse("list<int")
            .expect_err("open")
            .contains("lacks its `>`")
    );
    assert!(Type::parse(&"list<".repeat(50)).is_err());
}

#[test]
fn an_object_accepts_maps_with_all_its_fields() {
    let mut object = Object {
        fields: [("a".to_owned(), Type::Float)].into(),
        ..Object::default()
    };
    let closed = Type::Object(object.clone().into());
    object.open = true;
    let open = Type::Object(object.into());
    let map = |keys: &[&str]| Value::map(keys.iter().map(|key| (*key, Value::Int(1))));
    assert!(closed.accepts(&map(&["a"])) && open.accepts(&map(&["a"])));
    assert!(!closed.accepts(&map(&["a", "b"])) && open.accepts(&map(&["a", "b"])));
    assert!(!closed.accepts(&map(&[])) && !open.accepts(&map(&["b"])));
    assert!(!open.accepts(&Value::map([("a", Value::from("x"))])));
}

#[test]
fn references_are_as_long_as_the_source_shows() {
    let source = "steps.load.output.rows[0].x + params['day'] + [1].map(x, x.y + params.day + z).size() + (has(a.b) ? 1 : 2)";
    let program = Program::parse(source).expect("parses");
    let found: Vec<String> = program
        .references()
        .iter()
        .map(|path| path.join("."))
        .collect();
    assert_eq!(found, ["a.b", "params.day", "steps.load.output.rows", "z"]);
}

#[test]
fn simple_sources_mean_the_same_with_and_without_the_grammar() {
    for source in [
        "params.day",
        "a[0].b[1]",
        "42",
        "'text'",
        "true",
        "null",
        "a",
    ] {
        let fast = Program::parse(source).expect(source);
        let slow = Program::parse(&format!("({source})")).expect(source);
        assert_eq!(fast.references(), slow.references());
        let shape = |program: &Program| {
            let text = format!("{:?}", program.parsed().root);
            let mut plain = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find("Span {") {
                plain.push_str(&rest[..at]);
                rest = &rest[at + rest[at..].find('}').expect("closed") + 1..];
            }
            plain + rest
        };
        assert_eq!(shape(&fast), shape(&slow), "{source}");
    }
}

#[test]
fn limits_of_the_source_are_named() {
    let message = |source: &str| {
        Program::parse(source).expect_err("refused")[0]
            .message
            .clone()
    };
    assert!(message(&"a".repeat(20_000)).contains("16384 are the most"));
    assert!(message(&format!("{}1{}", "(".repeat(97), ")".repeat(97))).contains("nests too deep"));
    assert!(message(&format!("1{}", "+1".repeat(8000))).contains("nests too deep"));
    assert!(message(&format!("a{}", "[0]".repeat(120))).contains("nests too deep"));
    assert_eq!(message("  "), "the expression is empty");
    assert!(Program::parse(&format!("a{}", " && a".repeat(3000))).is_ok());
}

#[test]
fn mistakes_in_syntax_are_explained() {
    let first = |source: &str| {
        let problem = Program::parse(source).expect_err(source).remove(0);
        (
            source[problem.span].to_owned(),
            problem.message,
            problem.hint.unwrap_or_default(),
        )
    };
    let say = |place: &str, message: &str, hint: &str| {
        (place.to_owned(), message.to_owned(), hint.to_owned())
    };
    assert_eq!(
        first("a = 3"),
        say("=", "unexpected `=`", "compare with `==`")
    );
    assert_eq!(
        first("a and b"),
        say("and", "unexpected `and`", "write `&&`")
    );
    assert_eq!(
        first("(1"),
        say("", "the expression ends too early", "add `)`")
    );
    assert_eq!(
        first("1 + loop"),
        say(
            "loop",
            "`loop` is a reserved word and cannot be a name",
            "choose another name"
        )
    );
    assert_eq!(
        first("'é' + 'abc"),
        say(
            "'",
            "this text is not closed",
            "close it with the quote it opens with"
        )
    );
    assert_eq!(
        first("5u").1,
        "unsigned integers are not part of the language"
    );
    assert_eq!(
        first("a.?b").1,
        "optional access (`?`) is not part of the language"
    );
    assert_eq!(first("{1: 2}").1, "a map key is text, not int");
    assert_eq!(
        first("99999999999999999999").1,
        "the integer does not fit in 64 bits"
    );
    assert_eq!(first("Foo{a: 1}").1, "`Foo{…}` is not part of the language");
}

#[test]
fn programs_are_shared_between_threads_and_serialise_to_their_source() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let program = Program::parse("a + 1").expect("parses");
    shared(&program);
    let json = serde_json::to_string(&program).expect("writes");
    assert_eq!(json, r#""a + 1""#);
    assert_eq!(
        serde_json::from_str::<Program>(&json).expect("reads"),
        program
    );
    assert!(serde_json::from_str::<Program>(r#""a +""#).is_err());
}

#[test]
fn a_stored_value_may_nest_as_deep_as_a_result_with_every_level_marked() {
    let deep = (0..96).fold(Value::Int(1), |inner, _| Value::map([("$date", inner)]));
    assert_eq!(Value::from_stored(&deep.to_stored()).expect("reads"), deep);
}

#[test]
fn the_deepest_expressions_evaluate_on_a_small_stack() {
    let nested = |open: &str, close: &str, count: usize| {
        format!("{}1{}", open.repeat(count), close.repeat(count))
    };
    let macros = (0..47).fold("1".to_owned(), |inner, n| format!("[1].map(v{n}, {inner})"));
    for source in [
        nested("[", "]", 95),
        nested("{'a': ", "}", 95),
        nested("(1 + ", ")", 95),
        nested("coalesce(", ")", 95),
        nested("dyn(", ")", 95),
        nested("(true ? ", " : 2)", 95),
        format!("true{}", " && true".repeat(2000)),
        macros,
    ] {
        let run = move || {
            let program = Program::parse(&source).expect("parses");
            let open = TypeScope {
                open: true,
                ..TypeScope::default()
            };
            assert_eq!(program.check(&open).1, []);
            program
                .eval(&MapScope::default(), Budget::default())
                .expect("evaluates");
        };
        let thread = std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(run)
            .expect("starts");
        thread.join().expect("ends");
    }
}
