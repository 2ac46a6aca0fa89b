//! What commands say of themselves.

use insta::assert_snapshot;

use crate::place::Place;

#[test]
fn the_first_page_names_every_command() {
    assert_snapshot!(Place::new().good(&["--help"]).out);
}

#[test]
fn each_command_says_what_its_flags_do() {
    let place = Place::new();
    let commands = [
        "run",
        "validate",
        "graph",
        "list",
        "show",
        "logs",
        "timeline",
        "why",
        "cancel",
        "pause",
        "resume",
        "retry",
        "restart",
        "skip",
        "set-output",
        "fork",
        "priority",
        "dismiss",
        "trigger list",
        "trigger show",
        "signal send",
        "signal show",
        "backfill start",
        "backfill show",
        "lock show",
        "approve",
        "reject",
        "approvals",
        "debug",
        "breakpoint add",
        "breakpoint remove",
        "replay",
        "server",
        "worker",
        "workers",
        "queues",
        "pool",
        "token create",
        "token list",
        "token revoke",
        "audit",
        "secret",
        "store status",
        "store move",
        "backup",
        "restore",
        "config",
        "schema",
        "doctor",
        "explain",
        "completions",
    ];
    let pages: Vec<String> = commands
        .iter()
        .map(|command| {
            format!(
                "$ kapell {command} -h\n{}",
                place
                    .good(&command.split(' ').chain(["-h"]).collect::<Vec<_>>())
                    .out
            )
        })
        .collect();
    assert_snapshot!(pages.join("\n"));
}

#[test]
fn a_misspelt_command_is_bad_input_with_a_suggestion() {
    let said = Place::new().kapell(&["timelin"]);
    assert_eq!(said.status, 2);
    assert!(said.errors.contains("'timeline'"), "{}", said.errors);
}

#[test]
fn completions_are_scripts_for_each_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.good(&["completions", shell]).out;
        assert!(
            script.contains("kapell") && script.contains("validate"),
            "{shell}"
        );
    }
}

#[test]
fn values_that_are_few_are_completed() {
    let script = Place::new().good(&["completions", "bash"]).out;
    for values in [
        "\"read run write admin\"",
        "\"parallel sequential strict_sequential first_only last_only serial_latest default\"",
    ] {
        assert!(script.contains(values), "{values}");
    }
}

#[test]
fn the_schema_is_json() {
    assert!(Place::new().json(&["schema"])["$schema"].is_string());
}
