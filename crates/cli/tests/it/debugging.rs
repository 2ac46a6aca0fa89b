//! Runs that stop at steps, are looked at and changed, and go on; and runs gone through afterwards.

use crate::place::Place;

const STEPS: &str = "\
workflow: steps
params: { n: { type: int, default: 1 } }
steps:
  first: { set: { x: \"${{ params.n }}\" }, breakpoint: before }
  second:
    needs: [first]
    shell: echo it is $N
    env: { N: \"${{ steps.first.output.x + params.n }}\" }
  third: { needs: [second], set: { y: 2 } }
";

#[test]
fn a_run_is_debugged_at_a_prompt_that_a_script_can_type_at() {
    let place = Place::with("steps.yaml", STEPS);
    place.good(&["run", "steps.yaml", "--detach"]);
    let said = place.typed(
        &["debug", "last"],
        "inputs\nexpr params.n + 41\nset param n=5\nnext\ninputs\nexpr steps.first.output.x\n\
         break third after\ncontinue\noutputs\nset output {\"y\": 7}\n",
    );
    assert_eq!(said.status, 0, "{}", said.all());
    let mut rest = said.out.as_str();
    for words in [
        "stopped first before it starts",
        "set.x = 1",
        "42",
        "params.n = 5",
        "stopped second before it starts",
        "env.N = 10",
        "5",
        "third  after",
        "stopped third after it ran",
        "third = {\"y\":2}",
        "succeeded",
    ] {
        let Some(place) = rest.find(words) else {
            panic!("`{words}` does not come where it should\n{}", said.all());
        };
        rest = &rest[place + words.len()..];
    }
    assert!(
        place
            .good(&["logs", "last", "second"])
            .out
            .contains("it is 10")
    );
    let shown = place.json(&["show", "--json"]);
    assert_eq!(shown["steps"][2]["output"]["y"], 7);
}

#[test]
fn items_are_named_by_label_at_the_prompt_and_without_it() {
    let text = "\
workflow: items
steps:
  load:
    foreach: { city: [Oslo, New York, Rome], label: \"${{ city }}\" }
    steps:
      visit: { set: { of: \"${{ city }}\" }, breakpoint: before }
";
    let place = Place::with("items.yaml", text);
    place.good(&["run", "items.yaml", "--detach"]);
    let said = place.typed(
        &["debug", "last"],
        "inputs load[New York].visit\ncontinue load[Oslo]\noutputs load[Oslo].visit\n\
         set output load[New York].visit {\"of\": 7}\nat load[Paris].visit\n",
    );
    assert_eq!(said.status, 0, "{}", said.all());
    for words in [
        "set.of = \"New York\"",
        "load[0].visit = {\"of\":\"Oslo\"}",
        "stopped load[2].visit",
    ] {
        assert!(said.out.contains(words), "{words}\n{}", said.all());
    }
    let refused = "no item of `load` has the label `Paris`";
    assert!(said.errors.contains(refused), "{}", said.all());
    let set = place.json(&["show", "last", "load[New York].visit", "--json"]);
    assert_eq!(set["output"]["of"], 7);
    let on = place.good(&["continue", "last", "load", "--item", "Rome"]);
    assert!(on.out.contains("load[2] of run"), "{}", on.all());
    place.good(&["resume"]);
    let shown = place.json(&["show", "--json"]);
    assert_eq!(shown["status"], "succeeded", "{shown:#}");
}

#[test]
fn a_prompt_that_is_left_leaves_the_run_as_it_is() {
    let place = Place::with("steps.yaml", STEPS);
    place.good(&["run", "steps.yaml", "--detach"]);
    let said = place.typed(
        &["debug", "last"],
        "jump\nexpr nothing.here\nwhy\nquit\nnext\n",
    );
    assert_eq!(said.status, 0, "{}", said.all());
    assert!(
        said.errors.contains("`jump` is no command"),
        "{}",
        said.errors
    );
    assert!(said.errors.contains("`nothing.here`"), "{}", said.errors);
    assert!(
        said.out
            .contains("it stopped before it starts at a breakpoint"),
        "{}",
        said.out
    );
    assert!(said.out.contains("lets it go on"), "{}", said.out);
    let why = place.good(&["why"]).out;
    assert!(
        why.contains(
            "it stopped before it starts at a breakpoint of its definition: `kapell continue"
        ),
        "{why}"
    );
    let said = place.typed(&["debug", "last"], "continue\n");
    assert!(said.out.contains("succeeded"), "{}", said.all());
}

#[test]
fn breakpoints_of_a_workflow_stop_its_new_runs_and_those_of_a_run_it_alone() {
    let plain = STEPS.replace(", breakpoint: before", "");
    let place = Place::with("steps.yaml", &plain);
    place.good(&["deploy", "."]);
    place.good(&[
        "breakpoint",
        "add",
        "--workflow",
        "steps",
        "first",
        "--when",
        "params.n > 1",
    ]);
    place.good(&["start", "steps", "-p", "n=2"]);
    let why = place.good(&["why"]).out;
    assert!(
        why.contains("at a breakpoint that ann set, as `params.n > 1`"),
        "{why}"
    );
    let of_run = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(of_run["breakpoints"][0]["step"], "first");
    place.good(&["breakpoint", "add", "--run", "last", "third", "--after"]);
    place.good(&["breakpoint", "remove", "--run", "last", "first"]);
    let of_run = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(
        of_run["breakpoints"],
        serde_json::json!([{ "step": "third", "at": "after", "by": "ann" }])
    );
    let of_workflow = place.json(&["breakpoint", "list", "--workflow", "steps", "--json"]);
    assert_eq!(of_workflow["breakpoints"][0]["when"], "params.n > 1");
    let said = place.typed(&["debug", "last"], "continue\nclear\ncontinue\n");
    assert!(
        said.out.contains("stopped third after it ran"),
        "{}",
        said.all()
    );
    assert!(said.out.contains("succeeded"), "{}", said.all());
    // The condition does not hold for this one.
    place.good(&["start", "steps", "--watch"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
    place.good(&["breakpoint", "remove", "--workflow", "steps", "--all"]);
    for (arguments, words) in [
        (
            vec!["breakpoint", "remove", "--workflow", "steps", "first"],
            "no such breakpoint at `first`",
        ),
        (
            vec!["breakpoint", "add", "--workflow", "steps", "--when", "1 +"],
            "is no condition",
        ),
        (
            vec!["breakpoint", "add", "frist", "--workflow", "steps"],
            "did you mean `first`?",
        ),
        (
            vec!["breakpoint", "add", "--workflow", "steps", "--version", "9"],
            "no version 9",
        ),
        (vec!["show", "--at", "2020-01-01T00:00:00Z"], "was made at"),
        (
            vec!["breakpoint", "add", "--run", "last", "first"],
            "the run has ended",
        ),
        (vec!["breakpoint", "add", "first"], "--workflow"),
    ] {
        let said = place.kapell(&arguments);
        assert_eq!(said.status, 2, "{}", said.all());
        assert!(said.errors.contains(words), "{words}\n{}", said.all());
    }
}

#[test]
fn a_run_is_gone_through_moment_by_moment() {
    let plain = STEPS.replace(", breakpoint: before", "");
    let place = Place::with("steps.yaml", &plain);
    place.good(&["run", "steps.yaml"]);
    let output = place
        .command(&["replay", "last", "--json"])
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let states: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(states.len() >= 3, "{lines}");
    let first = &states[0]["steps"][1]["status"];
    assert_ne!(first, "succeeded", "{}", states[0]);
    assert_eq!(states.last().unwrap()["status"], "succeeded");
    let said = place.typed(&["replay", "last"], "l\np\nf\n0s\n2\n?\nnever\nq\n");
    assert_eq!(said.status, 0, "{}", said.all());
    let count = states.len();
    for words in [
        format!("moment 1 of {count}"),
        format!("moment {count} of {count}"),
        format!("moment {} of {count}", count - 1),
        format!("moment 2 of {count}"),
        "the next moment".to_owned(),
    ] {
        assert!(said.out.contains(&words), "{words}\n{}", said.out);
    }
    assert!(said.errors.contains("neither a time"), "{}", said.errors);
}

#[test]
fn what_stopped_goes_on_and_is_changed_without_a_prompt() {
    let place = Place::with("steps.yaml", STEPS);
    place.good(&["run", "steps.yaml", "--detach"]);
    let on = ["breakpoint", "add", "--run", "last", "--json"];
    let with = |more: &[&'static str]| [&on[..], more].concat();
    place.good(&with(&["third"]));
    let changed = place.json(&with(&["third", "--after"]));
    let held = &changed["changed"][0]["breakpoints"];
    assert_eq!(held.as_array().map(Vec::len), Some(2), "{changed}");
    place.good(&["breakpoint", "remove", "--run", "last", "third", "--after"]);
    let held = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(
        held["breakpoints"],
        serde_json::json!([{ "step": "third", "at": "before", "by": "ann" }])
    );
    let said = place.good(&["set-param", "last", "n=7"]).out;
    assert!(said.contains("params.n of run <run> is 7"), "{said}");
    let refused = place.kapell(&["set-param", "last", "n"]);
    assert!(refused.errors.contains("has no `=`"), "{}", refused.all());
    let said = place.good(&["continue", "last", "first", "--next"]).out;
    assert!(said.contains("the next step stops"), "{said}");
    let view = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(view["stepping"], true);
    place.good(&["breakpoint", "remove", "--run", "last", "--all"]);
    let view = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(view["stepping"], false);
    let refused = place.kapell(&["continue", "last", "nothing"]);
    assert_eq!(refused.status, 2, "{}", refused.all());
    place.good(&["continue"]);
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}

/// A live run goes on once the prompt is left.
#[test]
fn a_prompt_that_is_left_steps_no_more() {
    let plain = STEPS.replace(", breakpoint: before", "");
    let place = Place::with("steps.yaml", &plain);
    place.good(&["run", "steps.yaml", "--detach"]);
    let said = place.typed(&["debug", "last"], "quit\n");
    assert!(
        said.out
            .contains("before it starts, at a breakpoint at every step"),
        "{}",
        said.out
    );
    assert!(said.out.contains("`kapell continue"), "{}", said.out);
    let view = place.json(&["breakpoint", "list", "--run", "last", "--json"]);
    assert_eq!(view["stepping"], false, "{view}");
    place.good(&["continue"]);
    place.good(&["resume"]);
    assert_eq!(place.json(&["show", "--json"])["status"], "succeeded");
}

#[test]
fn breakpoints_of_every_workflow_are_one_thing_and_hold_for_those_that_come_later() {
    let plain = STEPS.replace(", breakpoint: before", "");
    let place = Place::with("steps.yaml", &plain);
    let all = |verb: &str, flags: &[&str]| {
        let flags = [&["breakpoint", verb, "--all-workflows", "--json"], flags].concat();
        place.json(&flags)
    };
    // There is no workflow at all.
    let changed = all("add", &["late"]);
    assert_eq!(changed["changed"][0]["all_workflows"], true, "{changed}");
    place.good(&["deploy", "."]);
    place.good(&["start", "steps"]);
    let changed = all("add", &["first", "--active"]);
    let changed = changed["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[0]["run"].is_string() && changed[1]["all_workflows"] == true);
    let listed = all("list", &[]);
    let steps = |listed: &serde_json::Value| {
        let all = listed["breakpoints"].as_array().unwrap().iter();
        let steps = all.map(|of| of["step"].as_str().unwrap().to_owned());
        steps.collect::<Vec<_>>()
    };
    assert_eq!(steps(&listed), ["late", "first"], "{listed}");
    let shown = place.good(&["breakpoint", "list", "--all-workflows"]).out;
    assert!(shown.contains("new runs of every workflow"), "{shown}");
    // A workflow of its own has none beside them.
    let own = place.json(&["breakpoint", "list", "--workflow", "steps", "--json"]);
    assert_eq!(steps(&own), [""; 0]);
    for name in ["by-run", "deployed"] {
        let text = format!("workflow: {name}\nsteps:\n  late: {{ noop: }}\n");
        place.write(&format!("{name}.yaml"), &text);
    }
    place.good(&["deploy", "deployed.yaml"]);
    for command in [
        &["run", "by-run.yaml", "--detach"][..],
        &["start", "deployed"],
    ] {
        place.good(command);
        let why = place.good(&["why", "last"]).out;
        assert!(why.contains("at a breakpoint that ann set"), "{why}");
    }
    let gone = all("remove", &["late"]);
    assert_eq!(steps(&gone["changed"][0]), ["first"], "{gone}");
    place.good(&["run", "deployed.yaml"]);
    let refused = place.kapell(&["breakpoint", "remove", "late", "--all-workflows"]);
    assert!(
        refused.status == 2
            && refused
                .errors
                .contains("new runs of every workflow have no such breakpoint at `late`"),
        "{}",
        refused.all()
    );
    let gone = all("remove", &["--all"]);
    assert_eq!(steps(&gone["changed"][0]), [""; 0], "{gone}");
}
