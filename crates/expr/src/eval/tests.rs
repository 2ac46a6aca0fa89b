use std::cell::RefCell;
use std::sync::Arc;

use crate::{BlobRef, Budget, EvalError, MapScope, Program, Scope, Value};

fn names() -> MapScope {
    let params = Value::map([
        ("day", Value::from("2026-01-31")),
        ("none", Value::Null),
        ("n", Value::Int(3)),
    ]);
    MapScope([("params".into(), params), ("big".into(), blob("b1"))].into())
}

fn blob(hash: &str) -> Value {
    Value::Blob(BlobRef {
        hash: hash.into(),
        size: 1 << 20,
    })
}

fn eval(source: &str) -> Result<Value, EvalError> {
    Program::parse(source)
        .expect(source)
        .eval(&names(), Budget::default())
}

fn json(source: &str) -> String {
    eval(source)
        .unwrap_or_else(|error| panic!("{source}: {error}"))
        .to_json()
        .to_string()
}

#[track_caller]
fn fails(source: &str, part: &str) {
    match eval(source) {
        Err(error) => assert!(error.to_string().contains(part), "{source}: {error}"),
        Ok(value) => panic!("{source} is {value}"),
    }
}

#[test]
fn ranges_count_up_and_down() {
    assert_eq!(json("range(4)"), "[0,1,2,3]");
    assert_eq!(json("range(2, 5)"), "[2,3,4]");
    assert_eq!(json("range(0, 10, 4)"), "[0,4,8]");
    assert_eq!(json("range(3, 0, -1)"), "[3,2,1]");
    assert_eq!(json("range(-1)"), "[]");
    fails("range(0, 3, 0)", "step");
}

#[test]
fn lists_are_summed_ordered_and_cut() {
    assert_eq!(json("[1, 2, 3].sum()"), "6");
    assert_eq!(json("[1, 2.5].sum()"), "3.5");
    assert_eq!(json("[].sum()"), "0");
    assert_eq!(
        json("[duration('1m'), duration('30s')].sum() == duration('90s')"),
        "true"
    );
    assert_eq!(json("[3, 1.5, 2].min()"), "1.5");
    assert_eq!(json("['a', 'c', 'b'].max()"), r#""c""#);
    assert_eq!(json("[3, 1, 2].sort()"), "[1,2,3]");
    assert_eq!(json("[1, 2, 1, 1.0, 3].distinct()"), "[1,2,3]");
    assert_eq!(
        json("[{'a': 1}, {'a': 1}, 'x', 2, 'x'].distinct()"),
        r#"[{"a":1},"x",2]"#
    );
    assert_eq!(json("[[1], [2, [3]], 4].flatten()"), "[1,2,[3],4]");
    assert_eq!(json("[1, 2, 3].chunk(2)"), "[[1,2],[3]]");
    assert_eq!(json("[1, 2].zip(['a', 'b'])"), r#"[[1,"a"],[2,"b"]]"#);
    assert_eq!(json("[1, 2, 3, 4].slice(1, 3)"), "[2,3]");
    fails("[].min()", "empty list");
    fails("[1, 'a'].sort()", "does not work on int and string");
    fails("[1].zip([])", "equal length");
    fails("[1].chunk(0)", "from 1");
    fails("[9223372036854775807, 1].sum()", "overflows");
}

#[test]
fn items_are_chosen_and_ordered_by_an_expression() {
    let list = "[{'n': 'a', 'v': 2}, {'n': 'b', 'v': 1}, {'n': 'c', 'v': 2}]";
    assert_eq!(json(&format!("{list}.min_by(x, x.v).n")), r#""b""#);
    assert_eq!(json(&format!("{list}.max_by(x, x.v).n")), r#""a""#);
    assert_eq!(
        json(&format!("{list}.sort_by(x, x.v).map(x, x.n)")),
        r#"["b","a","c"]"#
    );
    fails("[].max_by(x, x)", "empty list");
}

#[test]
fn coalesce_skips_what_is_missing_or_null_and_nothing_else() {
    assert_eq!(json("coalesce(params.nothing, params.none, 7)"), "7");
    assert_eq!(json("coalesce(params.n, 7)"), "3");
    assert_eq!(
        json("coalesce(params.none.deeper[2], [1][5], 'x')"),
        r#""x""#
    );
    assert_eq!(json("coalesce(null, params.none)"), "null");
    assert!(matches!(
        eval("coalesce(null, params.nothing)"),
        Err(EvalError::Missing(_))
    ));
    fails("coalesce(1 / 0, 7)", "division by zero");
    assert!(matches!(
        eval("coalesce(big.x, 7)"),
        Err(EvalError::Need(_))
    ));
}

#[test]
fn equal_values_have_equal_hashes() {
    assert_eq!(
        json("hash({'b': 1, 'a': [2]}) == hash({'a': [2.0], 'b': 1})"),
        "true"
    );
    assert_eq!(json("hash(1) == hash('1')"), "false");
    // SHA-256 of `{"a":1}`.
    let known = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";
    assert_eq!(json("hash({'a': 1})"), format!("\"{known}\""));
}

#[test]
fn json_text_becomes_a_value() {
    assert_eq!(json(r#"json('{"a": [1, 2.5, null]}').a"#), "[1,2.5,null]");
    fails("json('{')", "not JSON");
}

#[test]
fn dates_move_by_whole_days_and_are_read_in_a_zone() {
    assert_eq!(json("date(params.day) + days(1)"), r#""2026-02-01""#);
    assert_eq!(json("date('2026-03-01') - days(1)"), r#""2026-02-28""#);
    assert_eq!(json("date('2026-03-01') - date('2026-02-01')"), "28");
    assert_eq!(
        json("date('2026-02-01') + duration('48h')"),
        r#""2026-02-03""#
    );
    assert_eq!(
        json("date(timestamp('2026-01-31T23:30:00Z'), 'Europe/Berlin')"),
        r#""2026-02-01""#
    );
    assert_eq!(
        json("date('2026-07-01').at('07:00', 'Europe/Berlin')"),
        r#""2026-07-01T05:00:00Z""#
    );
    assert_eq!(json("date('2026-07-01').getDayOfWeek()"), "3");
    fails("date('2026-02-01') + duration('1h')", "whole days");
    fails("date('2026-02-30')", "not a date");
    fails("date('2026-02-01T10:00')", "not a date");
    fails("date('9999-12-31') + days(1)", "out of range");
    fails("date('2026-07-01').at('7:00', 'UTC')", "time of day");
}

#[test]
fn a_clock_change_moves_a_skipped_time_forward_and_takes_the_first_of_two() {
    assert_eq!(
        json("date('2026-03-29').at('02:30', 'Europe/Berlin')"),
        r#""2026-03-29T01:30:00Z""#
    );
    assert_eq!(
        json("date('2026-10-25').at('02:30', 'Europe/Berlin')"),
        r#""2026-10-25T00:30:00Z""#
    );
}

#[test]
fn durations_take_all_units() {
    assert_eq!(json("duration('1h30m') == duration('5400s')"), "true");
    assert_eq!(json("duration('2d') == days(2)"), "true");
    assert_eq!(
        json("timestamp('2026-01-01T00:00:00Z') + duration('1d500ms')"),
        r#""2026-01-02T00:00:00.5Z""#
    );
}

#[test]
fn a_blob_that_is_passed_on_stays_a_reference() {
    for source in [
        "big",
        "[big]",
        "{'a': big}",
        "[1, 2].map(x, big)[0]",
        "[big].filter(b, true)[0]",
        "coalesce(null, big)",
    ] {
        assert!(eval(source).is_ok(), "{source}");
    }
    assert_eq!(json("big == big"), "true");
}

#[test]
fn looking_inside_a_blob_asks_for_it() {
    for source in [
        "big.rows",
        "big[0]",
        "size(big)",
        "big.map(x, x)",
        "big + [1]",
        "[1] + big",
        "big == 3",
        "hash([big])",
        "string(big)",
        "1 in big",
        "big in [1]",
        "has(big.rows)",
        "big ? 1 : 2",
        "!big",
        "-big",
        "big && true",
        "[big].flatten()",
        "[big, 1].sort()",
        "[big].sum()",
        "[big].distinct().size() == 1 && [big, 2].distinct() == []",
        "'%s'.format([big])",
        "[big] == [3]",
        "big < 3",
        "['a', big].join()",
    ] {
        assert!(
            matches!(eval(source), Err(EvalError::Need(_))),
            "{source}: {:?}",
            eval(source)
        );
    }
}

#[test]
fn what_is_decided_without_a_blob_does_not_ask_for_it() {
    assert_eq!(json("big.ok && false"), "false");
    assert_eq!(json("false && big.ok"), "false");
    assert_eq!(json("big.ok || true"), "true");
    assert_eq!(json("[big, 3] == [big, 4]"), "false");
    assert_eq!(json("3 in [big, 3]"), "true");
    assert!(matches!(
        eval("big.ok && 1 / 0 > 1"),
        Err(EvalError::Need(_))
    ));
    assert!(matches!(
        eval("1 / 0 > 1 && big.ok"),
        Err(EvalError::Need(_))
    ));
}

#[test]
fn missing_things_are_named_with_what_is_near() {
    assert_eq!(
        eval("parms"),
        Err(EvalError::Missing("unknown name `parms`".to_owned()))
    );
    fails("params.dya", "did you mean `day`?");
    fails("params.n.x", "needs a map, not int");
    fails("[1, 2][2]", "no item 2 in a list of 2");
}

/// Answers one long path and notes what it was asked.
struct Steps(RefCell<Vec<String>>);

impl Scope for Steps {
    fn resolve(&self, path: &[Arc<str>]) -> Result<Option<(Value, usize)>, EvalError> {
        self.0.borrow_mut().push(path.join("."));
        match path {
            [a, b, c, ..] if [&**a, &**b, &**c] == ["steps", "load", "output"] => {
                Ok(Some((Value::map([("rows", Value::Int(5))]), 3)))
            }
            [a, b] if [&**a, &**b] == ["steps", "load"] => {
                Ok(Some((Value::map([("output", Value::Null)]), 2)))
            }
            _ => Err(EvalError::Missing("no such step".to_owned())),
        }
    }
}

#[test]
fn the_scope_is_asked_for_the_longest_path() {
    let steps = Steps(RefCell::default());
    let program = Program::parse("steps.load['output'].rows + 1").expect("parses");
    assert_eq!(program.eval(&steps, Budget::default()), Ok(Value::Int(6)));
    assert_eq!(*steps.0.borrow(), ["steps.load.output.rows"]);
}

#[test]
fn has_asks_for_the_whole_path_and_then_for_its_parent() {
    let steps = Steps(RefCell::default());
    let eval = |source: &str| {
        Program::parse(source)
            .expect("parses")
            .eval(&steps, Budget::default())
    };
    assert_eq!(eval("has(steps.load.output)"), Ok(Value::Bool(true)));
    assert_eq!(eval("has(steps.load.output.rows)"), Ok(Value::Bool(true)));
    assert_eq!(eval("has(steps.load.output.cols)"), Ok(Value::Bool(false)));
    assert_eq!(eval("has(steps.load.other)"), Ok(Value::Bool(false)));
    assert!(matches!(
        eval("has(steps.other.output)"),
        Err(EvalError::Missing(_))
    ));
}

#[test]
fn an_expression_deeper_than_the_budget_does_not_start() {
    let program = Program::parse("1 + (1 + (1 + 1))").expect("parses");
    let budget = Budget {
        depth: 3,
        ..Budget::default()
    };
    assert!(matches!(
        program.eval(&names(), budget),
        Err(EvalError::Budget(_))
    ));
}

#[test]
fn reading_long_text_costs_fuel() {
    let text = Value::from("a".repeat(1 << 20));
    let scope = MapScope([("text".into(), text)].into());
    let budget = Budget {
        fuel: 1000,
        ..Budget::default()
    };
    for source in [
        "text.contains('b')",
        "text + 'a'",
        "text == text",
        "text.size()",
        "text.matches('b')",
        "hash(text)",
    ] {
        let result = Program::parse(source).expect("parses").eval(&scope, budget);
        assert!(
            matches!(result, Err(EvalError::Budget(_))),
            "{source}: {result:?}"
        );
    }
}
