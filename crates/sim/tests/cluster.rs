//! Scenarios of several nodes over one store.

use kapell_sim::scenario::Scenario;
use kapell_sim::{Sabotage, generate, play, play_broken};

/// Seeds of the test; `make sim` plays many more.
const SEEDS: u64 = 40;

/// Seeds within which a broken promise is seen.
const SOON: u64 = 160;

/// What goes wrong with several nodes.
const WORDS: &str = "
    node dies pauses torn away leaves sets part both stall failover slow lost_answer far cut drain
";

#[test]
fn seeds_pass() {
    for seed in 0..SEEDS {
        let outcome = play(&generate::cluster(seed), None);
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}

#[test]
fn the_same_scenario_goes_the_same_way() {
    for seed in 100..104 {
        let scenario = generate::cluster(seed);
        let (first, second) = (play(&scenario, None), play(&scenario, None));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.happenings, second.happenings, "seed {seed}");
    }
}

#[test]
fn scenarios_reach_every_fault() {
    let scenarios: Vec<Scenario> = (0..200).map(generate::cluster).collect();
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
    let five = scenarios
        .iter()
        .filter(|scenario| scenario.far.len() == 50)
        .filter(|scenario| scenario.cluster.as_ref().is_some_and(|of| of.count == 5));
    assert!(five.count() > 2, "too few with 5 nodes and 50 workers");
}

/// Some scenario fails by this checker; what is broken may be seen elsewhere in others.
fn is_seen_by(sabotage: Sabotage, checkers: &[&str]) {
    let sees = |seed: u64| {
        let outcome = play_broken(&generate::cluster(seed), None, Some(sabotage));
        outcome
            .failure
            .is_some_and(|failure| checkers.contains(&failure.what))
    };
    assert!((0..SOON).any(sees), "{checkers:?} never see {sabotage:?}");
}

#[test]
fn a_commit_over_shards_of_another_owner_is_seen() {
    is_seen_by(Sabotage::Fence, &["fence", "owner"]);
}

#[test]
fn a_living_node_that_is_robbed_is_seen() {
    is_seen_by(Sabotage::Robs, &["robbed"]);
}

#[test]
fn a_message_that_is_taken_twice_is_seen() {
    is_seen_by(Sabotage::Doubles, &["mail"]);
}

#[test]
fn an_attempt_that_is_handed_out_twice_is_seen() {
    is_seen_by(Sabotage::Twice, &["offer", "twice"]);
}

#[test]
fn a_worker_that_is_given_up_before_it_has_stopped_is_seen() {
    is_seen_by(Sabotage::Impatient, &["twice"]);
}

#[test]
fn a_result_that_is_acknowledged_too_early_is_seen() {
    is_seen_by(Sabotage::Hasty, &["taken"]);
}

#[test]
fn steps_that_wait_for_ever_are_seen() {
    is_seen_by(Sabotage::Deafens, &["liveness"]);
}

#[test]
fn a_request_without_an_answer_is_seen() {
    is_seen_by(Sabotage::Mute, &["unanswered"]);
}
