//! What is said of what went wrong: codes, pages, and where it began.

use crate::place::Place;

#[test]
fn every_error_names_its_code_and_its_page() {
    let place = Place::with("w.yaml", "workflow: w\nsteps:\n  a: { noop: }\n");
    place.write("bad.yaml", "workflow: w\nsteps:\n  a: { nop: }\n");
    for (arguments, code) in [
        (&["run"][..], "bad-request"),
        (&["list"], "run-not-found"),
        (&["runn"], "bad-request"),
        (&["run", "w.yaml", "--slots", "0"], "bad-request"),
        (&["run", "bad.yaml"], "bad-definition"),
        (&["graph", "bad.yaml"], "bad-definition"),
        (&["run", "w.yaml", "-p", "x=1"], "bad-params"),
        (&["run", "none.yaml"], "file-not-found"),
        (&["explain", "none"], "bad-request"),
    ] {
        let said = place.kapell(arguments);
        assert_eq!(said.status, 2, "{}", said.all());
        let head = format!("error[{code}]: ");
        let page = format!(" page: docs/errors/{code}.md, or `kapell explain {code}`\n");
        assert!(
            said.errors.contains(&head) && said.errors.ends_with(&page),
            "{}",
            said.errors
        );
        assert!(
            place
                .good(&["explain", code])
                .out
                .starts_with(&format!("# {code}\n")),
            "{code}"
        );
    }
    let all = place.json(&["explain", "--json"]);
    assert!(all.as_array().unwrap().len() > 15, "{all}");
}

#[test]
fn a_misset_variable_is_refused() {
    let place = Place::new();
    let output = place
        .command(&["list"])
        .env("KAPELL_SLOTS", "many")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("KAPELL_SLOTS is `many`"), "{errors}");
}

#[test]
fn all_problems_of_parameters_have_a_line_each() {
    let text =
        "workflow: w\nparams: { n: { type: int }, m: { type: int } }\nsteps:\n  a: { noop: }\n";
    let said = Place::with("w.yaml", text).kapell(&["run", "w.yaml", "-p", "n=x"]);
    let lines: Vec<&str> = said.errors.lines().collect();
    assert_eq!(
        lines[0], "error[bad-params]: `n` must be int, not `x`",
        "{}",
        said.errors
    );
    assert_eq!(lines[1], "  `m` is required: int", "{}", said.errors);
}

#[test]
fn a_file_that_is_not_there_is_told_from_one_that_is_like_it() {
    let place = Place::with("daily.yaml", "workflow: w\nsteps:\n  a: { noop: }\n");
    for name in ["dayly.yaml", "daily.yml", "Daily.yaml"] {
        let said = place.kapell(&["validate", name]);
        assert!(
            said.errors.contains("did you mean `daily.yaml`?"),
            "{}",
            said.errors
        );
    }
    let said = place.kapell(&["validate", "."]);
    assert!(
        said.errors.contains("there is `./daily.yaml`")
            || said.errors.contains("there is `daily.yaml`"),
        "{}",
        said.errors
    );
}

#[test]
fn a_failure_deep_in_runs_is_told_once_with_its_last_words() {
    let place = Place::new();
    for level in 1..=3 {
        place.write(
            &format!("l{level}.yaml"),
            &format!(
                "workflow: l{level}\nsteps:\n  call{level}: {{ workflow: l{} }}\n",
                level + 1
            ),
        );
    }
    place.write(
        "l4.yaml",
        "workflow: l4\nsteps:\n  boom: { shell: \"echo looking; echo oh no >&2; exit 3\" }\n",
    );
    let said = place.kapell(&["run", "l1.yaml"]);
    assert_eq!(said.status, 1, "{}", said.all());
    assert!(
        said.out.contains("call1 → call2 → call3 → boom failed in run <run> of l4: it ended with exit code 3: oh no\n"),
        "{}",
        said.out
    );
    assert!(said.out.contains("│ looking"), "{}", said.out);
    assert!(said.out.contains("kapell logs <run> boom"), "{}", said.out);
    let error = place.json(&["show", "--json"])["steps"][0]["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(error.matches("ended failed").count(), 1, "{error}");
    assert!(
        error.ends_with(": it ended with exit code 3: oh no"),
        "{error}"
    );
}

#[test]
fn a_failure_deep_in_groups_is_told_once() {
    let text = "workflow: w\nsteps:\n  g: { steps: { h: { steps: { i: { steps: { boom: { fail: no } } } } } } }\n";
    let place = Place::with("w.yaml", text);
    assert_eq!(place.kapell(&["run", "w.yaml"]).status, 1);
    let record = place.json(&["show", "--json"]);
    assert_eq!(
        record["steps"][0]["error"]["message"],
        "`g.h.i.boom` failed: no"
    );
}

#[test]
fn logs_are_named_only_if_something_was_printed() {
    let place = Place::with("w.yaml", "workflow: w\nsteps:\n  a: { fail: no }\n");
    let said = place.kapell(&["run", "w.yaml"]);
    assert!(
        said.out.contains("kapell retry") && !said.out.contains("kapell logs"),
        "{}",
        said.out
    );
    assert!(said.out.contains("0 succeeded, 1 failed"), "{}", said.out);
}
