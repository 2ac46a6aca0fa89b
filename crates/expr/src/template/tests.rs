use crate::{
    Budget, EvalError, Fragment, MapScope, Part, Problem, Template, Text, Type, TypeScope, Value,
};

fn scope() -> MapScope {
    let blob = Value::Blob(crate::BlobRef {
        hash: "b1".into(),
        size: 9,
    });
    MapScope(
        [
            ("n".into(), Value::Int(3)),
            ("day".into(), Value::Date(jiff::civil::date(2026, 1, 31))),
            (
                "list".into(),
                Value::list(vec![Value::Int(1), Value::from("a")]),
            ),
            ("big".into(), blob),
        ]
        .into(),
    )
}

fn parse(text: &str) -> Template {
    Template::parse(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn eval(text: &str) -> Value {
    parse(text).eval(&scope(), Budget::default()).expect(text)
}

fn problem(text: &str) -> Problem {
    let mut problems = Template::parse(text).expect_err(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn exactly_one_expression_keeps_its_type() {
    assert!(matches!(eval("${{ n }}"), Value::Int(3)));
    assert!(matches!(eval("${{n}}"), Value::Int(3)));
    assert_eq!(eval(" ${{ n }}"), Value::from(" 3"));
    assert_eq!(eval("${{ n }}${{ n }}"), Value::from("33"));
}

#[test]
fn values_are_formatted_into_text() {
    assert_eq!(
        eval("d=${{ day }} l=${{ list }} x=${{ null }}"),
        Value::from("d=2026-01-31 l=[1,\"a\"] x=null")
    );
    assert_eq!(eval("é${{ n }}é"), Value::from("é3é"));
    let need = parse("a ${{ [big] }}").eval(&scope(), Budget::default());
    assert!(matches!(need, Err(EvalError::Need(_))));
}

#[test]
fn braces_inside_texts_and_maps_do_not_close() {
    assert_eq!(eval("${{ '}}' }}"), Value::from("}}"));
    assert_eq!(
        eval("${{ {'a': {'b': n}} }}").to_json().to_string(),
        r#"{"a":{"b":3}}"#
    );
    assert_eq!(
        eval("${{ {'a': {'b': n}}}}").to_json().to_string(),
        r#"{"a":{"b":3}}"#
    );
    assert_eq!(eval(r#"${{ "a\"}}" }}"#), Value::from("a\"}}"));
    assert_eq!(eval(r"${{ r'\' + '}}' }}"), Value::from(r"\}}"));
    assert_eq!(eval("${{ '''a'}}''' }}"), Value::from("a'}}"));
    assert_eq!(eval("${{ n // a comment }}"), Value::Int(3));
}

#[test]
fn a_doubled_dollar_is_literal() {
    assert_eq!(eval("a $${{ n }}"), Value::from("a ${{ n }}"));
    assert_eq!(eval("$${{ n }} ${{ n }}"), Value::from("${{ n }} 3"));
    assert_eq!(eval("$n ${n} $$ {{ }}"), Value::from("$n ${n} $$ {{ }}"));
    assert!(parse("$${{ n }}").is_literal());
}

#[test]
fn what_is_not_closed_says_so() {
    let found = problem("a ${{ n");
    assert_eq!(
        (found.span, found.message.as_str()),
        (2..5, "`${{` without its `}}`")
    );
    assert_eq!(
        problem("${{ 'a }}").hint.as_deref(),
        Some("the quote `'` that opens inside it is not closed")
    );
    assert_eq!(
        problem("${{ {'a': 1 }}").hint.as_deref(),
        Some("the brace `{` that opens inside it is not closed")
    );
    assert_eq!(
        problem("${{ f(n }}").message,
        "the expression ends too early"
    );
}

#[test]
fn problems_point_into_the_text() {
    let text = "é ${{ n }} ${{  n + }}";
    let found = problem(text);
    assert_eq!(&text[..found.span.start], "é ${{ n }} ${{  n +");
    let text = "é ${{ n }} and ${{  nope  }} ${{ m }}";
    let scope = TypeScope {
        fields: [("n".to_owned(), Type::Int)].into(),
        ..TypeScope::default()
    };
    let (found, problems) = parse(text).check(&scope);
    assert_eq!(found, Type::String);
    let places: Vec<&str> = problems
        .iter()
        .map(|problem| &text[problem.span.clone()])
        .collect();
    assert_eq!(places, ["nope", "m"]);
    let text = "${{   nope }}";
    let (_, problems) = parse(text).check(&scope);
    assert_eq!(&text[problems[0].span.clone()], "nope");
}

#[test]
fn secrets_stand_alone() {
    let Template::Text(text) = parse("Bearer ${{ secrets.token }}!${{ n }}") else {
        panic!("text")
    };
    assert_eq!(text.secrets(), ["token".into()]);
    let fragments = text.render(&scope(), Budget::default()).expect("renders");
    let expected = [
        Fragment::Text("Bearer ".into()),
        Fragment::Secret("token".into()),
        Fragment::Text("!3".into()),
    ];
    assert_eq!(fragments, expected);
    let Template::Text(whole) = parse("${{ secrets.token }}") else {
        panic!("text")
    };
    assert!(matches!(whole.parts.as_ref(), [Part::Secret(name)] if &**name == "token"));
    assert!(matches!(
        Template::Text(whole).eval(&scope(), Budget::default()),
        Err(EvalError::Failed(_))
    ));
    for text in [
        "${{ secrets.a + 'x' }}",
        "${{ secrets }}",
        "${{ secrets.a.b }}",
        "${{ [1].map(x, secrets.a) }}",
    ] {
        let found = problem(text);
        assert_eq!(&text[found.span.clone()], "secrets", "{text}");
        assert!(found.message.contains("stand alone"), "{text}");
    }
    assert!(
        parse("${{ [1].map(secrets, secrets) }}")
            .secrets()
            .is_empty()
    );
}

#[test]
fn trees_keep_literals_and_name_the_place_of_problems() {
    let value: Value =
        serde_json::from_str(r#"{"a": [1, "${{ n }}"], "b": {"c": "x"}}"#).expect("JSON");
    let template = Template::from_value(&value).expect("parses");
    assert!(!template.is_literal());
    assert_eq!(template.programs().len(), 1);
    let result = template
        .eval(&scope(), Budget::default())
        .expect("evaluates");
    assert_eq!(result.to_json().to_string(), r#"{"a":[1,3],"b":{"c":"x"}}"#);
    assert_eq!(
        serde_json::to_string(&template).expect("writes"),
        value.to_json().to_string()
    );
    let (found, _) = template.check(&TypeScope {
        open: true,
        ..TypeScope::default()
    });
    assert!(found.accepts(&result));

    let value: Value =
        serde_json::from_str(r#"{"a": [1, "${{ n + }}"], "b": "${{"}"#).expect("JSON");
    let problems = Template::from_value(&value).expect_err("two problems");
    let paths: Vec<&str> = problems.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["a[1]", "b"]);
}

#[test]
fn templates_come_back_as_written() {
    for text in [
        "${{n}}",
        "${{  n  }}",
        "a ${{ n }} $${{ b",
        "$${{",
        "${{ secrets.a }}",
        "plain",
        "",
    ] {
        let template = parse(text);
        let json = serde_json::to_string(&template).expect("writes");
        assert_eq!(json, serde_json::to_string(text).expect("writes"));
        assert_eq!(
            serde_json::from_str::<Template>(&json).expect("reads"),
            template
        );
    }
    assert_ne!(parse("${{ n }}"), parse("${{ m }}"));
}

#[test]
fn literal_dates_survive_in_binary_form() {
    let template = Template::literal(Value::Date(jiff::civil::date(2026, 1, 31)));
    let value = template.to_value();
    assert!(matches!(
        Template::from_value(&value),
        Ok(Template::Literal(Value::Date(_)))
    ));
}

#[test]
fn one_budget_covers_the_whole_tree() {
    let item = Value::from("${{ range(600).size() }}");
    let template = Template::from_value(&Value::list(vec![item; 2])).expect("parses");
    let enough = Budget {
        fuel: 2000,
        ..Budget::default()
    };
    assert!(template.eval(&scope(), enough).is_ok());
    let short = Budget {
        fuel: 1000,
        ..Budget::default()
    };
    assert!(matches!(
        template.eval(&scope(), short),
        Err(EvalError::Budget(_))
    ));
}

#[test]
fn text_is_always_text() {
    assert_eq!(Text::parse("${{ n }}").expect("parses").programs().len(), 1);
    assert!(
        matches!(Text::parse("$${{").expect("parses").parts.as_ref(), [Part::Literal(text)] if &**text == "${{")
    );
}
