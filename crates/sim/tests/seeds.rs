//! Scenarios of many seeds, and those that failed once.

use kapell_sim::scenario::{Ask, FarFault, FarWorker, Fault, Planned, Scenario};
use kapell_sim::{Sabotage, generate, kept, play, play_broken};
use serde_json::{Value, json};

/// Seeds of one test, of which there are two; `make sim` plays many more.
const SEEDS: u64 = 250;

/// Keys and values of the language, requests and faults.
const WORDS: &str = "
    await approval emit breakpoint answer break signal
    noop fail shell exec python http set wait steps switch else loop while until next
    max_iterations on_max delay workflow foreach concurrency min_success chunk zip stop_when
    retry limit platform when backoff timeout attempt total queue locks per once idempotent
    priority not_before on_failure then finally outputs type max_parallelism on_step_failure
    strategy key debounce env with label labels until if run_if all_succeeded all_done any_succeeded any_failed
    none_failed parallel sequential strict_sequential first_only last_only serial_latest
    finish_running fail_fast continue start cancel pause resume restart skip set_output fork
    view dismiss steer override delete register activate trigger triggers cron every catchup jitter within pace start end timezone when
    signals match dedupe key webhook deliver paused set_param evaluate break_all allow_self input
    dies cut drain far slots crash lost_answer thief full slow clock reads
";

fn passes(name: &str, scenario: &Scenario) {
    let outcome = play(scenario, None);
    assert_eq!(outcome.failure, None, "{name}");
}

#[test]
fn scenarios_that_failed_once_pass() {
    for (name, scenario) in kept::all().unwrap() {
        passes(&name, &scenario);
    }
}

#[test]
fn seeds_pass() {
    for seed in 0..SEEDS {
        passes(&format!("seed {seed}"), &generate::scenario(seed));
    }
}

#[test]
fn more_seeds_pass() {
    for seed in SEEDS..2 * SEEDS {
        passes(&format!("seed {seed}"), &generate::scenario(seed));
    }
}

#[test]
fn the_same_scenario_goes_the_same_way() {
    for seed in 100..110 {
        let scenario = generate::scenario(seed);
        let (first, second) = (play(&scenario, None), play(&scenario, None));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.happenings, second.happenings, "seed {seed}");
    }
}

#[test]
fn another_seed_goes_another_way() {
    let (first, second) = (
        play(&generate::scenario(1), None),
        play(&generate::scenario(2), None),
    );
    assert_ne!(first.hash, second.hash);
}

#[test]
fn a_kept_scenario_is_the_same_when_read_again() {
    let scenario = generate::scenario(7);
    let text = serde_json::to_string(&scenario).unwrap();
    let again: Scenario = serde_json::from_str(&text).unwrap();
    assert_eq!(play(&scenario, None).hash, play(&again, None).hash);
}

#[test]
fn scenarios_reach_every_construct() {
    let scenarios: Vec<Scenario> = (0..400).map(generate::scenario).collect();
    let text: String = scenarios
        .iter()
        .map(|scenario| serde_json::to_string(scenario).unwrap())
        .collect();
    for word in WORDS.split_whitespace() {
        assert!(
            text.contains(&format!("\"{word}\"")),
            "no scenario has `{word}`"
        );
    }
    assert!(text.contains("\"worker\""), "no scenario kills the worker");
    let calm = scenarios
        .iter()
        .filter(|scenario| scenario.faults.is_empty())
        .count();
    assert!(
        calm > 20 && calm < 380,
        "{calm} of 400 scenarios have no faults"
    );
    let crashes = scenarios.iter().flat_map(|scenario| &scenario.faults);
    let crashes = crashes
        .filter(|fault| matches!(fault.what, Fault::Crash { .. }))
        .count();
    assert!(crashes > 100, "only {crashes} crashes");
}

/// Seeds within which a broken promise is seen.
const SOON: u64 = 150;

/// Some scenario fails, and the first that does by one of these checkers.
fn is_caught(sabotage: Sabotage, checkers: &[&str]) {
    let failure = (0..SOON)
        .find_map(|seed| play_broken(&generate::scenario(seed), None, Some(sabotage)).failure);
    let failure = failure.unwrap_or_else(|| panic!("no checker sees {sabotage:?}"));
    assert!(
        checkers.contains(&failure.what),
        "{sabotage:?} is seen by {failure:?}"
    );
}

/// Some scenario fails by this checker; what is broken may be seen elsewhere in others.
fn is_seen_by(sabotage: Sabotage, checker: &str) {
    let sees = |seed: u64| {
        let outcome = play_broken(&generate::scenario(seed), None, Some(sabotage));
        outcome
            .failure
            .is_some_and(|failure| failure.what == checker)
    };
    assert!((0..SOON).any(sees), "`{checker}` never sees {sabotage:?}");
}

#[test]
fn a_commit_that_is_said_to_be_made_is_missed() {
    is_caught(
        Sabotage::Forgets,
        &["durable", "live", "history", "offer", "queued"],
    );
}

#[test]
fn a_commit_over_shards_that_were_taken_over_is_seen() {
    is_caught(Sabotage::Fence, &["fence", "commit"]);
    is_seen_by(Sabotage::Fence, "fence");
}

#[test]
fn an_entity_that_nobody_would_wake_is_seen() {
    is_caught(Sabotage::Sleeps, &["wake"]);
}

#[test]
fn an_attempt_that_is_handed_out_twice_is_seen() {
    is_caught(Sabotage::Twice, &["offer", "twice"]);
}

#[test]
fn a_request_without_an_answer_is_seen() {
    is_caught(Sabotage::Mute, &["unanswered"]);
}

#[test]
fn a_result_that_no_attempt_gave_is_seen() {
    is_caught(Sabotage::Forges, &["outputs"]);
}

/// A run that went past its queue and is out of memory when another strategy comes.
fn overlooked() -> Scenario {
    let start =
        |at: i64| json!({ "at": at, "what": { "start": { "workflow": 0, "n": 1, "key": null } } });
    let sequential = json!({ "mode": "sequential", "limit": null });
    let steer = json!({ "steer": { "workflow": 0, "how": { "override": sequential } } });
    let mut scenario = generate::scenario(7);
    scenario.faults = Vec::new();
    scenario.knobs.idle = 1_000_000;
    scenario.workflows = vec![json!({
        "workflow": "w0",
        "params": { "n": { "type": "int" } },
        "steps": { "a": { "wait": "1h" } },
    })];
    let requests = json!([
        start(0),
        { "at": 300_000_000, "what": steer },
        start(400_000_000),
    ]);
    scenario.requests = serde_json::from_value(requests).expect("requests");
    scenario
}

#[test]
fn a_run_that_a_change_of_strategy_overlooks_is_seen() {
    passes("nothing is overlooked", &overlooked());
    let failure = play_broken(&overlooked(), None, Some(Sabotage::Overlooks)).failure;
    assert_eq!(failure.map(|failure| failure.what), Some("strategy"));
}

#[test]
fn a_panic_inside_deciding_is_seen() {
    let seen = (0..SOON).any(|seed| {
        let outcome = play_broken(&generate::scenario(seed), None, Some(Sabotage::Overflows));
        outcome.failure.is_some_and(|failure| {
            failure.what == "panic" && failure.detail.contains("quarantined")
        })
    });
    assert!(seen, "a panic inside deciding passes");
}

/// Changes every step of a definition, the inner ones too.
fn each_step(value: &mut Value, change: &dyn Fn(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            for graph in ["steps", "finally"] {
                let steps = fields.get_mut(graph).and_then(Value::as_object_mut);
                let steps = steps.into_iter().flat_map(serde_json::Map::values_mut);
                steps.filter_map(Value::as_object_mut).for_each(change);
            }
            for inner in fields.values_mut() {
                each_step(inner, change);
            }
        }
        Value::Array(list) => {
            for inner in list {
                each_step(inner, change);
            }
        }
        _ => {}
    }
}

#[test]
fn a_strategy_that_is_not_kept_is_seen() {
    let change = |definition: &mut Value| {
        if definition.get("strategy").is_some() {
            definition["strategy"] = json!({ "mode": "parallel", "limit": 1_000 });
        }
    };
    is_caught(Sabotage::Definition(change), &["strategy"]);
}

#[test]
fn too_many_attempts_of_a_run_are_seen() {
    let change = |definition: &mut Value| {
        definition["max_parallelism"] = json!(1_000);
    };
    is_caught(Sabotage::Definition(change), &["max_parallelism"]);
}

#[test]
fn items_that_are_counted_wrong_are_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if let Some(foreach) = step.get_mut("foreach") {
                foreach["min_success"] = json!("1%");
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["items"]);
}

#[test]
fn a_retry_beyond_its_budget_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if let Some(retry) = step.get_mut("retry") {
                retry["limit"] = json!(9);
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["retries"]);
}

#[test]
fn a_step_that_is_tried_again_although_it_may_not_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            step.remove("once");
            step.remove("idempotent");
        });
    };
    is_caught(Sabotage::Definition(change), &["once", "idempotent"]);
}

#[test]
fn a_step_that_starts_against_its_needs_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if step.contains_key("needs") {
                step.insert("run_if".to_owned(), json!("all_done"));
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["starts", "ends"]);
}

#[test]
fn an_attempt_without_its_locks_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            step.remove("locks");
        });
    };
    is_caught(Sabotage::Definition(change), &["lock", "live"]);
}

#[test]
fn a_failure_that_does_not_count_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            step.insert("on_failure".to_owned(), json!("continue"));
        });
    };
    is_caught(
        Sabotage::Definition(change),
        &["ends", "outcome", "finally"],
    );
}

#[test]
fn a_run_without_its_finally_is_seen() {
    let change = |definition: &mut Value| {
        if let Some(fields) = definition.as_object_mut() {
            fields.remove("finally");
        }
    };
    is_caught(Sabotage::Definition(change), &["finally"]);
}

#[test]
fn a_run_that_waits_for_a_signal_that_is_there_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if let Some(wait) = step.get_mut("await") {
                wait["match"] = json!("${{ signal.payload.n == -1 }}");
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["signals"]);
}

#[test]
fn an_approval_by_whom_nobody_asked_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if let Some(asks) = step.get_mut("approval").and_then(Value::as_object_mut) {
                asks.remove("by");
                asks.insert("allow_self".to_owned(), json!(true));
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["approval"]);
}

#[test]
fn a_due_time_that_starts_twice_is_seen() {
    is_seen_by(Sabotage::Rewinds, "due");
}

/// A world of one workflow, whose process dies in the middle.
fn interrupted(workflow: Value, requests: Vec<Planned<Ask>>) -> Scenario {
    let mut scenario = generate::scenario(0);
    scenario.far.clear();
    scenario.workflows = vec![workflow];
    let activate = Planned {
        at: 0,
        what: Ask::Activate {
            workflow: 0,
            version: 1,
        },
    };
    scenario.requests = [activate].into_iter().chain(requests).collect();
    scenario.faults = vec![Planned {
        at: 1_000_000_000,
        what: Fault::Crash { down: 1_000_000 },
    }];
    scenario
}

/// Some of the scenarios fails by this checker, and none of them does where nothing is broken.
fn is_seen_in(scenarios: &[Scenario], sabotage: Sabotage, checker: &str) {
    for scenario in scenarios {
        passes("unbroken", scenario);
    }
    let seen = |scenario| {
        let failure = play_broken(scenario, None, Some(sabotage)).failure;
        failure.map(|failure| failure.what)
    };
    let seen: Vec<_> = scenarios.iter().map(seen).collect();
    assert!(
        seen.contains(&Some(checker)),
        "`{checker}` never sees {sabotage:?}: {seen:?}"
    );
}

#[test]
fn a_due_time_that_a_backfill_leaves_out_is_seen() {
    let filled = |dice: u64| {
        let workflow = json!({
            "workflow": "w0",
            "triggers": [{ "every": "300s", "end": "2027-01-15T09:00:00Z" }],
            "steps": { "s01": { "wait": "20s" } },
        });
        let ask = Planned {
            at: 990_000_000,
            what: Ask::Trigger { dice },
        };
        interrupted(workflow, vec![ask])
    };
    let all: Vec<Scenario> = (0..200).map(filled).collect();
    is_seen_in(&all, Sabotage::Shortens, "backfill");
}

#[test]
fn a_success_that_never_was_is_seen() {
    is_seen_by(Sabotage::Invents, "last_success");
}

#[test]
fn a_breakpoint_of_all_runs_that_is_forgotten_is_seen() {
    is_seen_by(Sabotage::Forgives, "breakpoints");
}

#[test]
fn a_signal_that_starts_nothing_is_seen() {
    is_seen_by(Sabotage::Silences, "triggers");
}

#[test]
fn signals_that_are_joined_in_another_order_are_seen() {
    let key = json!("${{ signal.payload.n }}");
    let workflow = json!({
        "workflow": "w0",
        "params": { "from": { "type": "string", "default": "" } },
        "triggers": [{
            "signals": {
                "a": { "signal": "x0", "key": key },
                "b": { "signal": "x1", "key": key },
            },
            "with": { "from": "${{ signals.a.id }},${{ signals.b.id }}" },
        }],
        "steps": { "s01": { "noop": {} } },
    });
    let joined = |start: u64| {
        let signals = (0..40).map(|number| Planned {
            at: 100_000_000 + 40_000_000 * number,
            what: Ask::Signal {
                dice: start + number.unsigned_abs(),
                n: 1,
            },
        });
        interrupted(workflow.clone(), signals.collect())
    };
    let all: Vec<Scenario> = (0..8).map(|number| joined(100 * number)).collect();
    is_seen_in(&all, Sabotage::Shuffles, "triggers");
    is_seen_in(&all, Sabotage::Misplaces, "joins");
}

#[test]
fn a_call_that_makes_two_runs_is_seen() {
    is_seen_by(Sabotage::Repeats, "triggers");
}

#[test]
fn an_attempt_of_a_session_that_nobody_named_is_done_twice_and_seen() {
    // An owner dies while a far worker, whose connection is cut, has something of it.
    let workflow = json!({
        "workflow": "w0",
        "params": { "n": { "type": "int", "default": 1 } },
        "steps": {
            "s01": {
                "queue": "large",
                "foreach": { "x": "${{ range(40) }}" },
                "exec": ["work", "fails=-1"],
            },
        },
    });
    let start = Planned {
        at: 995_000_000,
        what: Ask::Start {
            workflow: 0,
            n: 1,
            key: None,
            version: None,
            by: None,
        },
    };
    let away = |seed: u64| {
        let mut scenario = interrupted(workflow.clone(), vec![start.clone()]);
        scenario.seed = seed;
        scenario.far = vec![FarWorker {
            queues: vec!["large".to_owned()],
            slots: 4,
        }];
        let cut = FarFault::Cut {
            up: true,
            down: true,
            span: 10_000_000,
        };
        let cut = Planned {
            at: 999_000_000,
            what: Fault::Far {
                worker: 0,
                what: cut,
            },
        };
        scenario.faults.insert(0, cut);
        scenario
    };
    let all: Vec<Scenario> = (0..8).map(away).collect();
    is_seen_in(&all, Sabotage::Unnamed, "twice");
}

#[test]
fn a_loss_that_is_said_before_its_worker_has_stopped_is_seen() {
    is_seen_by(Sabotage::Impatient, "twice");
}

#[test]
fn a_result_that_is_acknowledged_too_early_is_seen() {
    is_seen_by(Sabotage::Hasty, "taken");
}

#[test]
fn an_approval_by_too_few_is_seen() {
    let change = |definition: &mut Value| {
        each_step(definition, &|step| {
            if let Some(asks) = step.get_mut("approval") {
                asks["count"] = json!(1);
            }
        });
    };
    is_caught(Sabotage::Definition(change), &["approval"]);
}
