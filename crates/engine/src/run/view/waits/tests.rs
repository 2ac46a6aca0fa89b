use kapell_model::StepStatus;

use super::super::RunView;
use super::*;
use crate::run::{Input, Request, testing};

/// What is seen of the first step of a run once it has begun, and the run itself.
fn begun(text: &str) -> (Run, RunView) {
    let run = testing::begun(text, 3, Time(1));
    let view = run.view(Time(1));
    (run, view)
}

#[test]
fn a_stopped_step_shows_what_it_would_start_with_and_no_secret() {
    let (mut run, view) = begun(
        "workflow: w\nparams: { n: { type: int } }\nsteps:\n  a:\n    breakpoint: before\n    exec: [echo, \"${{ params.n }}\"]\n    env: { N: \"n is ${{ params.n }}\", KEY: \"${{ secrets.key }}\", BAD: \"${{ json('{}').x }}\" }\n",
    );
    let step = &view.steps[0];
    assert_eq!(step.status, StepStatus::Waiting);
    let stopped = step.stopped.as_ref().unwrap();
    assert_eq!((stopped.at, &stopped.output), (BreakAt::Before, &None));
    let shown = |name: &str| {
        let found = stopped.inputs.iter().find(|(other, _)| other == name);
        found.map(|(_, shown)| shown.clone()).unwrap()
    };
    assert_eq!(shown("env.N"), Ok("n is 3".into()));
    assert_eq!(shown("env.KEY"), Ok("${{ secrets.key }}".into()));
    assert!(shown("env.BAD").is_err());
    assert_eq!(shown("exec[1]"), Ok(3.into()));
    let request = Request::SetParam {
        by: "ann".to_owned(),
        name: "n".into(),
        value: Value::Int(4),
        text: false,
    };
    run.decide(Input::Request(request), Time(2)).unwrap();
    let view = run.view(Time(2));
    let stopped = view.steps[0].stopped.as_ref().unwrap();
    assert!(
        stopped
            .inputs
            .contains(&("exec[1]".to_owned(), Ok(4.into())))
    );
}

#[test]
fn a_question_is_shown_with_all_that_an_answer_needs() {
    let (_, view) = begun(
        "workflow: w\nparams: { n: { type: int } }\nsteps:\n  a:\n    approval:\n      by: [leads]\n      count: 2\n      message: \"n is ${{ params.n }}?\"\n      input: { rate: { type: float, enum: [0.5, 1.0] }, note: { type: string, default: x } }\n      timeout: 1h\n",
    );
    let asked = view.steps[0].approval.as_ref().unwrap();
    assert_eq!(asked.message, "n is 3?");
    assert_eq!((&asked.by[..], asked.count), (&["leads".to_owned()][..], 2));
    assert_eq!(asked.not_by.as_deref(), Some("ann"));
    assert_eq!(asked.until, Some(Time(3_600_000_001)));
    assert!(asked.reject_fails);
    let rate = asked
        .input
        .iter()
        .find(|input| input.name == "rate")
        .unwrap();
    assert_eq!((&*rate.ty, rate.required), ("float", true));
    assert_eq!(rate.allowed.as_ref().map(Vec::len), Some(2));
    let note = asked
        .input
        .iter()
        .find(|input| input.name == "note")
        .unwrap();
    assert!(!note.required);
}

#[test]
fn every_setting_that_is_evaluated_is_shown_at_a_stop() {
    let cases: [(&str, &str, serde_json::Value); 9] = [
        (
            "approval: { message: \"n is ${{ params.n }}?\" }",
            "approval.message",
            "n is 3?".into(),
        ),
        (
            "await: { signal: go, match: \"${{ signal.payload == params.n }}\" }",
            "await.match",
            "signal.payload == params.n".into(),
        ),
        ("wait: 5m", "wait", "5m".into()),
        (
            "switch: [{ when: \"${{ params.n > 2 }}\", steps: { x: { noop: } } }]",
            "switch[0].when",
            true.into(),
        ),
        ("fail: \"n is ${{ params.n }}\"", "fail", "n is 3".into()),
        ("if: \"${{ params.n == 3 }}\"\n    noop:", "if", true.into()),
        (
            "http: { url: \"https://x.example\", headers: { A: \"Bearer ${{ secrets.key }}\" } }",
            "http.headers.A",
            "Bearer ${{ secrets.key }}".into(),
        ),
        (
            "shell: x\n    locks: [{ name: \"c-${{ params.n }}\" }]",
            "locks[0].name",
            "c-3".into(),
        ),
        (
            "loop: { vars: { i: 0 }, while: \"${{ vars.i < 3 }}\", next: { i: \"${{ vars.i + 1 }}\" }, steps: { x: { noop: } } }",
            "loop.while",
            "vars.i < 3".into(),
        ),
    ];
    for (step, name, value) in cases {
        let (_, view) = begun(&format!(
            "workflow: w\nparams: {{ n: {{ type: int }} }}\nsteps:\n  a:\n    breakpoint: before\n    {step}\n"
        ));
        let inputs = &view.steps[0].stopped.as_ref().unwrap().inputs;
        let shown = inputs.iter().find(|(other, _)| other == name);
        let shown = shown.unwrap_or_else(|| panic!("{name}: {inputs:?}"));
        assert_eq!(shown.1, Ok(value), "{name}");
    }
}
