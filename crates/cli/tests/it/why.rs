//! `kapell why`: a sentence for each thing that a run waits for, with the names.

use crate::place::Place;
use crate::server::Server;

/// A run, what is done to it, and what `why` says of it then.
struct Case {
    /// Its definition; the name is the one of the file.
    name: &'static str,
    text: &'static str,
    /// Commands on the run once it has begun.
    then: &'static [&'static [&'static str]],
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "turn",
        text: "steps:\n  f: { foreach: { i: [1, 2, 3], concurrency: 1 }, shell: sleep 1000 }\n",
        then: &[],
        says: &[
            "0 of 3 items have ended, 1 runs; 2 wait for their turn, 1 at a time (`concurrency`)",
        ],
    },
    Case {
        name: "parallel",
        text: "max_parallelism: 1\nsteps:\n  a: { shell: sleep 1000 }\n  b: { shell: sleep 1000 }\n",
        then: &[],
        says: &["waits for one of the run's 1 attempts in flight to end (`max_parallelism`)"],
    },
    Case {
        name: "locked",
        text: "steps:\n  f: { foreach: { i: [1, 2, 3] }, shell: sleep 1000, locks: [{ name: warehouse }] }\n",
        then: &[],
        says: &[
            "1 runs; 2 wait for the lock `warehouse`, held by `f[0]` of run",
            "of `locked`",
        ],
    },
    Case {
        name: "rated",
        text: "steps:\n  f: { foreach: { i: [1, 2] }, shell: sleep 1000, locks: [{ name: api, per: 1h }] }\n",
        then: &[],
        says: &["1 waits for the rate `api`, which lets the next one start at"],
    },
    Case {
        name: "retried",
        text: "steps:\n  f: { foreach: { i: [1, 2] }, shell: \"exit 3\", retry: { limit: 1, backoff: { initial: 20m } } }\n  g: { shell: \"exit 4\", retry: { limit: 1, backoff: { initial: 20m } } }\n",
        then: &[],
        says: &[
            "2 wait for their next try, the first at",
            "waits for try 2 at",
            "after: it ended with exit code 4",
        ],
    },
    Case {
        name: "timed",
        text: "steps:\n  f: { foreach: { i: [1, 2] }, wait: 1h }\n  g: { shell: x, not_before: \"2199-01-01T00:00:00Z\" }\n",
        then: &[],
        says: &[
            "0 run; 2 wait for their time, the first at",
            "g  waits for its `not_before`, <when>",
        ],
    },
    Case {
        name: "labelled",
        text: "steps:\n  a: { shell: x, resources: { labels: { zone: mars } } }\n  b: { shell: x, resources: { custom: { license: 3 } } }\n",
        then: &[],
        says: &[
            "a  waits for a worker in queue `default` with the label `zone=mars`: none there has the label `zone=mars`",
            "b  waits for a worker in queue `default` that has 3 `license`; the closest there",
        ],
    },
    Case {
        name: "nightly",
        text: "steps:\n  a: { shell: x, not_before: \"2199-01-01T12:00:00Z\", off_peak: { from: \"03:00\", to: \"04:00\" } }\n",
        then: &[],
        says: &["a  waits for its quiet hours (03:00 to 04:00 in UTC), <when>"],
    },
    Case {
        name: "signalled",
        text: "steps:\n  f: { foreach: { i: [1, 2] }, await: { signal: go } }\n  g: { await: { signal: stop } }\n",
        then: &[],
        says: &[
            "2 wait for a signal `go` each",
            "waits for a signal `stop`, sent since",
        ],
    },
    Case {
        name: "asked",
        text: "steps:\n  f: { foreach: { i: [1, 2] }, approval: {} }\n  g: { approval: { by: [leads] } }\n",
        then: &[],
        says: &[
            "2 wait for people to approve them",
            "`leads` to approve it, but not `ann`",
            "`kapell approve <run> g`",
        ],
    },
    Case {
        name: "calling",
        text: "steps:\n  call: { workflow: asked }\n",
        then: &[],
        says: &["of `asked` to end, in which `f` waits for people to approve them"],
    },
    Case {
        name: "hearing",
        text: "steps:\n  ask: { approval: { by: [leads] } }\n",
        then: &[],
        says: &["`kapell approve <run> ask`"],
    },
    // The command is about the run and the step that ask, not about those that wait for them.
    Case {
        name: "passing",
        text: "steps:\n  call: { workflow: hearing }\n",
        then: &[],
        says: &[
            "of `hearing` to end, in which `ask` waits for `leads` to approve it, but not `ann`, who started the run: `kapell approve ",
            " ask`",
        ],
    },
    Case {
        name: "calling-many",
        text: "steps:\n  call: { foreach: { i: [1, 2] }, workflow: hearing }\n",
        then: &[],
        says: &[
            "0 of 2 items have ended, 2 run; 1 waits for run",
            "of `hearing` to end, in which `ask` waits for `leads` to approve it",
        ],
    },
    Case {
        name: "in-line",
        text: "strategy: { mode: sequential }\nsteps:\n  g: { await: { signal: never } }\n",
        then: &[],
        says: &["waits for a signal `never`"],
    },
    Case {
        name: "calling-a-line",
        text: "steps:\n  call: { workflow: in-line }\n",
        then: &[],
        says: &["of `in-line` to end, which waits for its turn: "],
    },
    Case {
        name: "calling-and-stopped",
        text: "steps:\n  call: { workflow: nothing, breakpoint: after }\n",
        then: &[],
        says: &[
            "it stopped after it ran at a breakpoint of its definition: `kapell continue <run> call`",
        ],
    },
    Case {
        name: "resting",
        text: "steps:\n  g: { await: { signal: never } }\n",
        then: &[&["pause"]],
        says: &[
            "the run waits for somebody to resume it: ann paused it at",
            "`kapell resume <run>`",
        ],
    },
    Case {
        name: "stopped",
        text: "steps:\n  a: { breakpoint: on_failure, shell: \"exit 5\" }\n  b: { breakpoint: \"${{ json('{}').x }}\", noop: }\n",
        then: &[],
        says: &[
            "it stopped after it failed (it ended with exit code 5) at a breakpoint of its definition: `kapell continue <run> a`",
            "whose condition `json('{}').x` cannot be evaluated",
        ],
    },
    Case {
        name: "bursting",
        text: "strategy: { debounce: { quiet: 1h } }\nsteps:\n  a: { noop: }\n",
        then: &[],
        says: &["the run waits for"],
    },
];

#[test]
fn every_reason_to_wait_is_said_in_one_sentence_with_its_names() {
    let place = Place::new();
    for case in CASES {
        let text = format!("workflow: {}\n{}", case.name, case.text);
        place.write(&format!("flows/{}.yaml", case.name), &text);
    }
    let server = Server::with(place, &["--slots", "64"]);
    let place = &server.place;
    let on = |arguments: &[&str]| {
        let arguments = [arguments, &["--server", &server.url]].concat();
        place.good(&arguments).out
    };
    on(&["deploy", "flows"]);
    place.write(
        "nothing.yaml",
        "workflow: nothing\nsteps:\n  a: { noop: }\n",
    );
    on(&["deploy", "nothing.yaml"]);
    for case in CASES {
        on(&["start", case.name]);
        for command in case.then {
            on(&[command, &["last"][..]].concat());
        }
        // What comes of a start comes after it; a thousand looks are enough for that.
        let mut said = String::new();
        let is_said = (0..1_000).any(|_| {
            said = on(&["why", "last"]);
            case.says.iter().all(|words| said.contains(words))
        });
        assert!(is_said, "{}: {:?}\n{said}", case.name, case.says);
    }
}

#[test]
fn why_of_one_item_is_about_it_whether_it_waits_or_has_ended() {
    let flow = "workflow: items\nsteps:\n  f: { foreach: { i: [1, 2] }, await: { signal: go, match: \"${{ signal.payload == i }}\" } }\n";
    let place = Place::with("items.yaml", flow);
    place.good(&["run", "items.yaml", "--detach"]);
    let said = place.good(&["why", "last", "f[1]"]).out;
    assert!(said.contains("waits for a signal `go`"), "{said}");
    let refused = place.kapell(&["why", "last", "f[2]"]);
    assert!(
        refused.errors.contains("has no step `f[2]`"),
        "{}",
        refused.all()
    );
    place.good(&["cancel", "last"]);
    let said = place.good(&["why", "last", "f[0]"]).out;
    assert!(said.contains("was cancelled"), "{said}");
}

#[test]
fn why_of_a_failed_run_is_json_with_the_failure_its_code_and_what_to_do() {
    let flow = "workflow: broken\nsteps:\n  a: { shell: \"echo words; exit 3\" }\n  b: { needs: a, noop: }\n";
    let place = Place::with("broken.yaml", flow);
    place.kapell(&["run", "broken.yaml"]);
    let why = place.json(&["why", "last", "--json"]);
    assert_eq!(why.as_array().map(Vec::len), Some(1), "{why}");
    let why = &why[0];
    assert_eq!(
        (&why["step"], &why["status"]),
        (&"a".into(), &"failed".into())
    );
    assert_eq!(why["code"], "exit_code");
    assert_eq!(why["error"]["exit_code"], 3);
    assert_eq!(why["log"][0], "words");
    assert!(
        why["hint"].as_str().unwrap().starts_with("kapell retry"),
        "{why}"
    );
}

/// What steps wait for is in the text of the past too.
#[test]
fn a_moment_of_the_past_says_what_steps_waited_for_and_since_when() {
    let flow = "workflow: waits\nsteps:\n  g: { await: { signal: go } }\n";
    let place = Place::with("waits.yaml", flow);
    place.good(&["run", "waits.yaml", "--detach"]);
    let made = place.json(&["show", "--json"])["created_at"].clone();
    let then = place.json(&["show", "--at", "1h", "--json"]);
    assert!(then["seen_at"].as_str() > made.as_str(), "{then}");
    for arguments in [&["show"][..], &["show", "--at", "1h"]] {
        let said = place.good(arguments).out;
        assert!(said.contains("waits for a signal `go`"), "{said}");
    }
    let said = place.typed(&["replay"], "l\nq\n").out;
    assert!(said.contains("waits for a signal `go`"), "{said}");
}
