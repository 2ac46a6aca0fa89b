//! What definitions mean once they are parsed: defaults filled in, text kept, places exact, bounds
//! held.

mod triggers;

use std::fmt::Write as _;

use kapell_expr::{Template, Type, Value};
use proptest::prelude::*;

use super::parse;
use crate::diagnostic::{Color, Diagnostic, render};
use crate::limits;
use crate::spec::{Dyn, MinSuccess, RunIf, Spec, Step, Verb};

fn spec(text: &str) -> std::sync::Arc<Spec> {
    let parsed = parse("w.yaml", text);
    let shown = render("w.yaml", text, &parsed.diagnostics, Color::Never);
    parsed.spec.unwrap_or_else(|| panic!("{shown}"))
}

fn problems(text: &str) -> Vec<Diagnostic> {
    let parsed = parse("w.yaml", text);
    assert!(parsed.spec.is_none() || !parsed.diagnostics.iter().any(Diagnostic::is_error));
    parsed.diagnostics
}

fn codes(text: &str) -> Vec<&'static str> {
    problems(text).iter().map(|problem| problem.code).collect()
}

fn step<'a>(spec: &'a Spec, id: &str) -> &'a Step {
    spec.graph
        .steps
        .iter()
        .find(|step| &*step.id == id)
        .unwrap()
}

fn text_of(template: &Template) -> &str {
    super::literal_text(template).unwrap()
}

#[test]
fn text_fields_keep_the_scalar_as_written() {
    let spec = spec(
        "workflow: w\nparams:\n  v: { type: string, default: 1.10 }\n  l: { type: list<string>, default: [007, no] }\n\
         steps: { a: { exec: [chmod, 0755, no, 1.10], env: { A: 0755, B: null, C: yes } } }\n",
    );
    let Some(Template::Literal(Value::String(default))) = &spec.params[0].default else {
        panic!()
    };
    assert_eq!(&**default, "1.10");
    let Some(Template::Literal(list)) = &spec.params[1].default else {
        panic!()
    };
    assert_eq!(list.to_json(), serde_json::json!(["007", "no"]));
    let Verb::Exec { argv } = &spec.graph.steps[0].verb else {
        panic!()
    };
    assert_eq!(
        argv.iter().map(text_of).collect::<Vec<_>>(),
        ["chmod", "0755", "no", "1.10"]
    );
    let env: Vec<_> = spec.graph.steps[0]
        .env
        .iter()
        .map(|(name, value)| (&**name, value.as_ref().map(text_of)))
        .collect();
    assert_eq!(env, [("A", Some("0755")), ("B", None), ("C", Some("yes"))]);
}

#[test]
fn only_true_and_false_are_booleans_in_values() {
    let spec = spec(
        "workflow: w\nsteps: { a: { shell: x, with: { a: true, b: yes, c: True, d: null, e: 1, f: 1.5, g: '1', h: 0x10 } } }\n",
    );
    let Some(Template::Literal(with)) = &spec.graph.steps[0].with else {
        panic!()
    };
    let wanted = serde_json::json!({ "a": true, "b": "yes", "c": "True", "d": null, "e": 1, "f": 1.5, "g": "1", "h": 16 });
    assert_eq!(with.to_json(), wanted);
}

#[test]
fn what_is_unsaid_is_filled_in() {
    let spec = spec(
        "workflow: w\nsteps: { a: { shell: x } }\nfinally: { f: { shell: x }, g: { steps: { h: { noop: } } } }\n",
    );
    assert_eq!((spec.priority, &*spec.timezone), (50, "UTC"));
    let step = &spec.graph.steps[0];
    assert_eq!(
        (&*step.queue, step.idempotent, step.once, step.run_if),
        ("default", true, false, RunIf::AllSucceeded)
    );
    assert!(matches!(step.retry.limit, Dyn::Fixed(0)));
    assert_eq!(
        (step.retry.timeout, step.retry.platform),
        (0, limits::PLATFORM_RETRIES)
    );
    assert!(step.timeout.attempt.is_none());
    let Verb::Shell { interpreter, .. } = &step.verb else {
        panic!()
    };
    assert_eq!(
        interpreter.iter().map(|word| &**word).collect::<Vec<_>>(),
        ["sh", "-eu"]
    );
    let finally = spec.finally.as_ref().unwrap();
    assert!(
        matches!(finally.steps[0].timeout.attempt, Some(Dyn::Fixed(span)) if span.as_secs() == 600)
    );
    assert!(
        matches!(finally.steps[1].timeout.total, Some(Dyn::Fixed(span)) if span.as_secs() == 600)
    );
}

#[test]
fn defaults_and_environment_are_merged_into_steps_on_workers() {
    let spec = spec(include_str!("../../tests/good/defaults.yaml"));
    let plain = step(&spec, "plain");
    assert!(matches!(plain.retry.limit, Dyn::Fixed(2)));
    assert!(!plain.retry.backoff.jitter && plain.retry.when.is_some());
    assert_eq!(
        (
            plain.retry.backoff.initial.as_secs(),
            plain.retry.backoff.max.as_secs()
        ),
        (1, 10)
    );
    assert!(matches!(plain.timeout.attempt, Some(Dyn::Fixed(span)) if span.as_secs() == 300));
    assert_eq!(&*plain.queue, "batch");
    let env = |step: &Step| -> Vec<(String, Option<String>)> {
        step.env
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    value.as_ref().map(|value| text_of(value).to_owned()),
                )
            })
            .collect()
    };
    let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    assert_eq!(
        env(plain),
        [
            pair("STAGE", Some("prod")),
            pair("DEBUG", Some("1")),
            pair("LEVEL", Some("info"))
        ]
    );
    let own = step(&spec, "own");
    assert!(matches!(own.retry.limit, Dyn::Fixed(5)));
    assert_eq!(
        (
            own.retry.backoff.initial.as_secs(),
            own.retry.backoff.max.as_secs()
        ),
        (5, 10)
    );
    assert_eq!(
        env(own),
        [
            pair("STAGE", Some("prod")),
            pair("DEBUG", None),
            pair("LEVEL", Some("warn"))
        ]
    );
    assert!(matches!(own.resources.cpu, Some(Dyn::Fixed(cpu)) if (cpu - 0.5).abs() < f64::EPSILON));
    assert!(matches!(own.resources.memory, Some(Dyn::Expr(_))));
    let group = step(&spec, "group");
    assert!(
        group.env.is_empty()
            && group.timeout.total.is_none()
            && matches!(group.retry.limit, Dyn::Fixed(0))
    );
}

#[test]
fn needs_are_places_in_ascending_order() {
    let spec = spec(
        "workflow: w\nsteps:\n  c: { needs: [b, a], noop: }\n  b: { noop: }\n  a: { needs: b, noop: }\n",
    );
    assert_eq!(
        spec.graph
            .steps
            .iter()
            .map(|step| step.needs.clone())
            .collect::<Vec<_>>(),
        [vec![1, 2], vec![], vec![1]]
    );
}

#[test]
fn shares_and_sizes_are_read() {
    let spec = spec(
        "workflow: w\nsteps:\n  a: { foreach: { x: [1], min_success: 99.5% }, shell: x, resources: { memory: 1.5Gi } }\n  b: { foreach: { x: [1], min_success: 8 }, shell: x, resources: { memory: 1000 } }\n",
    );
    assert_eq!(
        step(&spec, "a").foreach.as_ref().unwrap().min_success,
        MinSuccess::Share(9_950)
    );
    assert_eq!(
        step(&spec, "b").foreach.as_ref().unwrap().min_success,
        MinSuccess::Count(8)
    );
    assert!(matches!(
        step(&spec, "a").resources.memory,
        Some(Dyn::Fixed(1_610_612_736))
    ));
    assert!(matches!(
        step(&spec, "b").resources.memory,
        Some(Dyn::Fixed(1_000))
    ));
}

#[test]
fn declared_output_types_reach_expressions() {
    let text = "workflow: w\nsteps:\n  a: { shell: x, outputs: { file: o.json, type: { loss: float } } }\n  b: { needs: a, if: \"${{ steps.a.output.loss == 'x' }}\", set: { y: \"${{ steps.a.output.los }}\" } }\n";
    assert_eq!(codes(text), ["bad-expression", "unknown-name"]);
    let fine = spec(&text.replace("'x'", "1").replace(".los ", ".loss "));
    assert!(matches!(step(&fine, "a").outputs.ty, Some(Type::Object(_))));
}

#[test]
fn a_syntax_error_of_one_line_does_not_hide_the_place() {
    let found = problems("workflow: w\nsteps:\n  a: { shell: x\n  b: { noop: }\n");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].line), ("yaml", 4));
}

#[test]
fn places_are_bytes_of_the_file_and_columns_characters() {
    let text = "workflow: w\nsteps:\n  a: { shell: x, env: { É: ü, 'Ö': \"é ${{ nope }}\" } }\n";
    let found = problems(text);
    let unknown = found
        .iter()
        .find(|problem| problem.code == "unknown-name")
        .unwrap();
    assert_eq!(&text[unknown.span.clone()], "nope");
    assert_eq!((unknown.line, unknown.column), (3, 43));
}

#[test]
fn json_with_surrogate_pairs_keeps_its_text_and_places() {
    let text = "{\"workflow\": \"w\", \"steps\": {\"a\": {\"exec\": [\"\\ud83d\\ude00x\", \"\\ud83d\\ude00 ${{ nope }}\"]}}}";
    let found = problems(text);
    assert_eq!(&text[found[0].span.clone()], "nope");
    let fine = spec(&text.replace("nope", "run.id"));
    let Verb::Exec { argv } = &fine.graph.steps[0].verb else {
        panic!()
    };
    assert_eq!(text_of(&argv[0]), "😀x");
}

#[test]
fn a_problem_in_a_merged_value_is_said_once() {
    let text = "workflow: w\nx-e: &e { A: \"${{ nope }}\" }\nsteps:\n  a: { shell: x, env: *e }\n  b: { shell: x, env: { <<: *e } }\n";
    assert_eq!(codes(text), ["unknown-name"]);
}

#[test]
fn bounds_have_clear_errors() {
    let mut many = "workflow: w\nsteps:\n".to_owned();
    for place in 0..=limits::STEPS {
        let _ = writeln!(many, "  s{place}: {{ noop: }}");
    }
    assert_eq!(codes(&many), ["limit"]);

    let mut deep = "{ noop: }".to_owned();
    for level in 0..=limits::NESTING {
        deep = format!("{{ steps: {{ s{level}: {deep} }} }}");
    }
    assert_eq!(
        codes(&format!("workflow: w\nsteps: {{ top: {deep} }}\n")),
        ["limit"]
    );

    let long = format!(
        "workflow: w\nsteps: {{ a: {{ if: \"${{{{ {} true }}}}\", noop: }} }}\n",
        " ".to_owned() + &"true && ".repeat(3_000)
    );
    let found = problems(&long);
    assert!(
        found.len() == 1 && found[0].message.contains("16"),
        "{found:?}"
    );
    assert_eq!(
        codes(&format!(
            "workflow: {}\nsteps: {{ a: {{ noop: }} }}\n",
            "w".repeat(200)
        )),
        ["limit"]
    );
    assert_eq!(codes(&" ".repeat(limits::DEFINITION_BYTES + 1)), ["limit"]);
    let bad: String = (0..2_000).fold("workflow: w\n".to_owned(), |text, place| {
        text + &format!("bad{place}: 1\n")
    });
    assert_eq!(problems(&bad).len(), limits::DIAGNOSTICS + 1);
    let env = |count: usize| {
        (0..count).fold("workflow: w\nenv:\n".to_owned(), |text, place| {
            text + &format!("  V{place}: x\n")
        }) + "steps: { a: { noop: }, b: { noop: } }\n"
    };
    assert_eq!(codes(&env(limits::ENV_VARIABLES)), Vec::<&str>::new());
    assert_eq!(codes(&env(limits::ENV_VARIABLES + 1)), ["limit"]);
    let params = |count: usize| {
        (0..count).fold(
            "workflow: w\nsteps: { a: { noop: } }\nparams:\n".to_owned(),
            |text, place| text + &format!("  p{place}: {{ type: int }}\n"),
        )
    };
    assert_eq!(codes(&params(limits::PARAMS)), Vec::<&str>::new());
    assert_eq!(codes(&params(limits::PARAMS + 1)), ["limit"]);
    let variables = |count: usize| {
        (0..count).fold(String::new(), |text, place| {
            text + &format!("v{place}: [1], ")
        })
    };
    let foreach = |count: usize| {
        format!(
            "workflow: w\nsteps: {{ a: {{ foreach: {{ {} }}, noop: }} }}\n",
            variables(count)
        )
    };
    assert_eq!(
        codes(&foreach(limits::FOREACH_VARIABLES)),
        Vec::<&str>::new()
    );
    assert_eq!(codes(&foreach(limits::FOREACH_VARIABLES + 1)), ["limit"]);
    let text = format!(
        "workflow: w\nsteps: {{ a: {{ fail: \"${{{{ run.id }}}}{}\" }} }}\n",
        "x".repeat(limits::TEMPLATE_BYTES)
    );
    assert_eq!(codes(&text), ["limit"]);
    let brackets = "[".repeat(100_000);
    assert_eq!(codes(&brackets), ["yaml"]);
    let nested: String = (0..300).fold(String::new(), |text, depth| {
        text + &format!("{}a:\n", " ".repeat(depth))
    });
    assert_eq!(codes(&nested), ["limit"]);
}

#[test]
fn nesting_up_to_the_bound_is_fine() {
    let mut deep = "{ noop: }".to_owned();
    for level in 0..limits::NESTING - 1 {
        deep = format!("{{ steps: {{ s{level}: {deep} }} }}");
    }
    spec(&format!("workflow: w\nsteps: {{ top: {deep} }}\n"));
    let mut branches = "{ noop: }".to_owned();
    for level in 0..limits::NESTING - 1 {
        branches = format!("{{ switch: [{{ else: true, steps: {{ s{level}: {branches} }} }}] }}");
    }
    spec(&format!("workflow: w\nsteps: {{ top: {branches} }}\n"));
}

#[test]
fn ten_thousand_steps_in_a_chain_see_their_needs() {
    let mut text = "workflow: big\nparams: { x: { type: int, default: 1 } }\nsteps:\n".to_owned();
    for place in 0..limits::STEPS {
        let _ = write!(
            text,
            "  step_{place}:\n    shell: ./run.sh {place}\n    env: {{ X: \"${{{{ params.x + {place} }}}}\" }}\n"
        );
        if place > 0 {
            let _ = write!(
                text,
                "    needs: [step_{}]\n    with: {{ first: \"${{{{ steps.step_0.output }}}}\" }}\n",
                place - 1
            );
        }
    }
    let spec = spec(&text);
    assert_eq!(spec.graph.steps.len(), limits::STEPS);
}

const GOOD: &[&str] = &[
    include_str!("../../tests/good/taste.yaml"),
    include_str!("../../tests/good/containers.yaml"),
    include_str!("../../tests/good/anchors.yaml"),
    include_str!("../../tests/good/params.yaml"),
    include_str!("../../tests/good/minimal.json"),
];

/// Every span lies in the text on characters, and rendering holds.
fn sound(text: &str) {
    let parsed = parse("w.yaml", text);
    assert!(parsed.spec.is_some() || !parsed.diagnostics.is_empty());
    for problem in &parsed.diagnostics {
        assert!(
            problem.span.start <= problem.span.end && problem.span.end <= text.len().max(1),
            "{problem:?}"
        );
        assert!(text.is_char_boundary(problem.span.start), "{problem:?}");
    }
    assert!(
        render("w.yaml", text, &parsed.diagnostics, Color::Always).len()
            >= parsed.diagnostics.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        sound(&text);
    }

    #[test]
    fn any_yaml_like_text_is_answered(text in "([a-z]{1,6}|steps|needs|loop|vars|: |\\n  |\\n    |- |\\{|\\}|\\[|\\]|\"|'|\\$\\{\\{ |params\\.| \\}\\}|&a |\\*a|<<: |\\||>|#|!|é|,|\\\\u00|1|\\t){0,60}") {
        sound(&text);
        sound(&format!("workflow: w\nsteps:\n  a: {{ {text} }}\n"));
        sound(&format!("workflow: w\nsteps:\n  a:\n    {text}\n"));
    }

    #[test]
    fn a_damaged_definition_is_answered(
        which in 0..GOOD.len(),
        cuts in prop::collection::vec((0.0..1.0_f64, 0..12_usize, "(\\PC{0,3}|\\$\\{\\{|\\}\\}|\"|\\n|: |null|\\[|&x |\\*x)"), 1..5),
    ) {
        let mut text: Vec<char> = GOOD[which].chars().collect();
        for (at, length, with) in cuts {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short text")]
            let start = (at * text.len() as f64) as usize;
            let end = (start + length).min(text.len());
            text.splice(start..end, with.chars());
        }
        sound(&text.into_iter().collect::<String>());
    }
}

#[test]
fn many_warnings_do_not_make_a_definition_invalid() {
    use std::fmt::Write as _;
    let mut text = String::from("workflow: w\nsteps:\n");
    for step in 0..limits::DIAGNOSTICS + 100 {
        let _ = writeln!(text, "  s{step}: {{ set: {{ x: 1 }}, env: {{ A: b }} }}");
    }
    let parsed = parse("w.yaml", &text);
    assert!(parsed.spec.is_some());
    assert_eq!(parsed.diagnostics.len(), limits::DIAGNOSTICS + 1);
    assert!(parsed.diagnostics.iter().all(|found| !found.is_error()));
}

#[test]
fn what_a_step_asks_of_its_worker_is_read_and_merged_with_the_defaults() {
    let spec = spec(
        "workflow: w\ndefaults: { resources: { custom: { license: 1 }, labels: { zone: eu, disk: ssd } } }\nsteps:\n  a: { shell: x, resources: { spot: true, preemptions: 4, labels: { zone: \"${{ 'us' }}\" }, prefer: { rack: 3 } } }\n",
    );
    let own = &step(&spec, "a").resources;
    assert_eq!((own.spot, own.preemptions), (true, Some(4)));
    let names = |of: &[(std::sync::Arc<str>, Template)]| -> Vec<String> {
        let mut names: Vec<String> = of.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&own.labels), ["disk", "zone"]);
    assert_eq!(names(&own.prefer), ["rack"]);
    assert!(matches!(own.custom.as_slice(), [(name, Dyn::Fixed(1))] if &**name == "license"));
}

#[test]
fn a_mistake_in_the_text_hides_only_its_own_entry() {
    let text = "workflow: w\nsteps:\n  a: { shell: x, env: { A: b }\n  b: { needs: a, shell: x, env: { B: \"${{ steps.a.output }}\" }, bogus: 1 }\n";
    assert_eq!(codes(text), ["yaml", "unknown-key"]);
    // What follows from it is not said: `c` sees `a` through `b`, whose needs could not be read.
    let text = "workflow: w\nsteps:\n  a: { noop: }\n  b:\n    needs: a\n    shell: x: y: z\n  c: { needs: b, shell: x, env: { A: \"${{ steps.a.status }}\" } }\n";
    assert_eq!(codes(text), ["yaml"]);
}

#[test]
fn a_text_of_mistakes_alone_is_given_up() {
    use std::fmt::Write as _;
    let mut text = String::from("workflow: w\nsteps:\n");
    for step in 0..100 {
        let _ = writeln!(text, "  s{step}: {{ shell: x: [");
    }
    let found = codes(&text);
    assert!((1..50).contains(&found.len()), "{found:?}");
    assert!(found.iter().all(|code| *code == "yaml"), "{found:?}");
}

#[test]
fn what_bounds_a_lock_belongs_to_its_name() {
    let with = |one: &str, other: &str| {
        let step = |id: &str, bounds: &str| {
            format!("  {id}: {{ noop: , locks: [{{ name: db, {bounds} }}] }}\n")
        };
        let steps = step("a", one) + &step("b", other);
        codes(&format!("workflow: w\nsteps:\n{steps}"))
    };
    assert_eq!(with("max: 2, per: 1h", "max: 2, per: 60m"), [""; 0]);
    assert_eq!(with("max: 2", "max: 2, per: 1h"), ["lock-max"]);
    assert_eq!(with("max: 2, per: 1s", "max: 2, per: 1500ms"), ["lock-max"]);
    assert_eq!(with("max: 2, per: 0s", "max: 2"), ["out-of-range"]);
}

#[test]
fn a_text_that_is_a_workflow_is_told_by_its_top_level() {
    let named = |text: &str| {
        let keys = super::top_level(text).unwrap_or_default();
        keys.iter().any(|key| &**key == "workflow")
    };
    for text in [
        "workflow: a\n",
        "\"workflow\": a\n",
        "{\"x\": 1, \"workflow\": \"a\"}",
    ] {
        assert!(named(text) && super::mentions_workflow(text), "{text}");
    }
    for text in [
        "x: { workflow: a }\n",
        "x: workflow\n",
        "- workflow: a\n",
        "",
    ] {
        assert!(!named(text), "{text}");
    }
    assert!(super::mentions_workflow("x: [\nworkflow : a\n"));
    assert!(!super::mentions_workflow("a workflow is none: no key\n"));
}
