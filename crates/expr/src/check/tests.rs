use std::sync::Arc;

use crate::{Object, Problem, Program, Type, TypeScope};

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    Type::Object(Arc::new(Object {
        name: name.to_owned(),
        fields: fields
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.clone()))
            .collect(),
        ..Object::default()
    }))
}

fn scope() -> TypeScope {
    let strings = Type::List(Arc::new(Type::String));
    let params = object(
        "params",
        &[
            ("day", Type::Date),
            ("regions", strings),
            ("n", Type::Int),
            ("ok", Type::Bool),
        ],
    );
    let load = object(
        "steps.load",
        &[("output", Type::Any), ("status", Type::String)],
    );
    let mut steps = Object {
        name: "steps".to_owned(),
        ..Object::default()
    };
    steps.fields.insert("load".to_owned(), load);
    steps
        .hidden
        .insert("train".to_owned(), "add `train` to `needs`".to_owned());
    let open = Object {
        name: "run".to_owned(),
        open: true,
        ..Object::default()
    };
    TypeScope {
        fields: [
            ("params".to_owned(), params),
            ("steps".to_owned(), Type::Object(Arc::new(steps))),
            ("run".to_owned(), Type::Object(Arc::new(open))),
        ]
        .into(),
        ..TypeScope::default()
    }
}

fn check(source: &str) -> (Type, Vec<Problem>) {
    Program::parse(source).expect(source).check(&scope())
}

/// The only problem: the text it points at, what it says, its hint.
#[track_caller]
fn problem(source: &str) -> (String, String, String) {
    let (_, problems) = check(source);
    let [problem] = problems.as_slice() else {
        panic!("{source}: {problems:?}")
    };
    let place = source[problem.span.clone()].to_owned();
    (
        place,
        problem.message.clone(),
        problem.hint.clone().unwrap_or_default(),
    )
}

#[track_caller]
fn is(source: &str, expected: &str) {
    let (found, problems) = check(source);
    assert_eq!(problems, [], "{source}");
    assert_eq!(found.to_string(), expected, "{source}");
}

#[test]
fn unknown_names_are_shown_with_the_nearest() {
    let say = |place: &str, message: &str, hint: &str| {
        (place.to_owned(), message.to_owned(), hint.to_owned())
    };
    assert_eq!(
        problem("1 + parms.n"),
        say("parms", "unknown name `parms`", "did you mean `params`?")
    );
    assert_eq!(
        problem("params.dey"),
        say("dey", "`dey` is not in `params`", "did you mean `day`?")
    );
    assert_eq!(
        problem("params['dey']"),
        say("'dey'", "`dey` is not in `params`", "did you mean `day`?")
    );
    assert_eq!(
        problem("steps.load.result"),
        say(
            "result",
            "`result` is not in `steps.load`",
            "there is `output`, `status`"
        )
    );
    assert_eq!(
        problem("steps.train.output"),
        say(
            "train",
            "`steps.train` cannot be used here",
            "add `train` to `needs`"
        )
    );
    assert_eq!(problem("parms.map(x, x)").0, "parms");
}

#[test]
fn unknown_functions_are_shown_with_the_nearest() {
    let (place, message, hint) = problem("params.regions.sizes()");
    assert_eq!(
        (place.as_str(), message.as_str()),
        ("sizes", "unknown function `sizes`")
    );
    assert_eq!(hint, "did you mean `size`?");
    assert_eq!(problem("coalese(1, 2)").2, "did you mean `coalesce`?");
    assert_eq!(
        problem("range()").1,
        "`range` takes 1 or 2 or 3 arguments, not 0"
    );
    assert_eq!(problem("sum([1])").1, "`sum` is a method: `x.sum(…)`");
    assert_eq!(
        problem("'a'.hash()").1,
        "`hash` is a function, not a method: `hash(…)`"
    );
}

#[test]
fn wrong_arguments_are_pointed_at() {
    assert_eq!(
        problem("range('a')"),
        (
            "'a'".into(),
            "`range` takes int, this is string".into(),
            String::new()
        )
    );
    assert_eq!(
        problem("params.n.startsWith('a')").1,
        "`startsWith` is a method of string, this is int"
    );
    assert_eq!(problem("params.day.at(7, 'UTC')").0, "7");
    assert_eq!(problem("[params.regions].sort()").0, "[params.regions]");
    assert_eq!(problem("params.regions.sort_by(x, [x])").0, "[x]");
}

#[test]
fn wrong_operands_are_refused_with_what_to_write() {
    assert_eq!(problem("'a' + params.n").2, "convert it: `string(…)`");
    assert_eq!(problem("params.day + 1").2, "write `days(…)`");
    assert_eq!(
        problem("params.day == '2026-01-31'").2,
        "convert the text: `date(…)`"
    );
    assert_eq!(problem("params.n && params.ok").0, "params.n");
    assert_eq!(
        problem("params.n ? 1 : 2").1,
        "`?` needs a bool, this is int"
    );
    assert_eq!(
        problem("params.regions.all(x, x)").1,
        "`all` needs a bool, this is string"
    );
    assert_eq!(problem("1 in params.regions").0, "params.regions");
    assert_eq!(problem("params.n.map(x, x)").0, "params.n");
}

#[test]
fn results_have_types() {
    is("params.n + 1", "int");
    is("params.n + 1.5", "float");
    is("params.day - params.day", "int");
    is("params.day + days(1)", "date");
    is("params.regions.map(r, r.size())", "list<int>");
    is("params.regions.filter(r, r != 'eu')", "list<string>");
    is("params.regions.chunk(2)", "list<list<string>>");
    is("params.regions.zip(range(3))", "list<list<any>>");
    is("params.regions.max_by(r, size(r))", "string");
    is("params.ok ? 1 : 2.5", "float");
    is("params.ok ? 1 : 'a'", "any");
    is("steps.load.output.anything[3].more", "any");
    is("run.anything", "any");
    is("coalesce(null, params.n)", "int");
    is("{'a': params.n}.a", "int");
    is("[{'a': 1}, {'a': 2, 'b': 3}].map(x, x.a)", "list<int>");
    is("has(run.trigger.name)", "bool");
}

#[test]
fn coalesce_and_has_do_not_excuse_a_name_that_cannot_exist() {
    assert_eq!(problem("coalesce(params.dey, 1)").0, "dey");
    assert_eq!(problem("has(params.dey)").0, "dey");
    is("coalesce(steps.load.output.x, 1)", "any");
}

#[test]
fn variables_hide_names_of_the_scope() {
    is("params.regions.map(params, params.size())", "list<int>");
    is("[1].map(x, ['a'].map(y, x))", "list<list<int>>");
    assert_eq!(problem("[1].map(x, x) == [x]").0, "x");
}

#[test]
fn all_problems_are_found_at_once() {
    let (_, problems) = check("params.a + params.b + nope() + 'x'.size(3)");
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn a_condition_must_be_bool() {
    let condition = |source: &str| {
        Program::parse(source)
            .expect(source)
            .check_condition(&scope())
    };
    assert_eq!(condition("params.ok"), []);
    assert_eq!(condition("steps.load.output"), []);
    assert_eq!(
        condition("params.n")[0].message,
        "a condition must be bool, this is int"
    );
}

#[test]
fn literal_text_that_is_no_time_is_found_before_anything_runs() {
    let (place, message, _) = problem("date('2026-13-01')");
    assert_eq!(place, "'2026-13-01'");
    assert!(message.contains("is not a date"), "{message}");
    let (place, _, _) = problem("params.day.at('07:00', 'UTC') + duration('1x')");
    assert_eq!(place, "'1x'");
    let (place, _, _) = problem("timestamp('now')");
    assert_eq!(place, "'now'");
    is("date('2026-01-31') + days(1)", "date");
    is("date(string(params.n))", "date");
}
