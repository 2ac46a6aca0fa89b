//! Scenarios of many seeds, and those that failed once.

use kapell_sim::scenario::{Fault, Scenario};
use kapell_sim::{generate, kept, play};

/// Seeds of one test, of which there are two; `make sim` plays many more.
const SEEDS: u64 = 250;

/// Keys and values of the language, requests and faults.
const WORDS: &str = "
    noop fail shell exec python set wait steps switch else loop while until next
    max_iterations on_max delay workflow foreach concurrency min_success chunk zip stop_when
    retry limit platform when backoff timeout attempt total queue locks per once idempotent
    priority not_before on_failure then finally outputs type max_parallelism on_step_failure
    strategy key debounce env if run_if all_succeeded all_done any_succeeded any_failed
    none_failed parallel sequential strict_sequential first_only last_only serial_latest
    finish_running fail_fast continue start cancel pause resume restart skip set_output fork
    view dismiss crash lost_answer thief full slow clock reads
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
