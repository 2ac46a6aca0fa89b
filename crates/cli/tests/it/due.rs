//! Due times: started whatever happens to the server, made up for by backfills, given by hand.

use jiff::Timestamp;
use serde_json::Value;

use crate::place::Place;

const TICKING: &str = "\
workflow: ticking
triggers: [{ cron: '* * * * * *', catchup: { mode: all, max: 1000 } }]
steps: { go: { noop: } }
";

const HOURLY: &str = "\
workflow: hourly
params: { at: { type: timestamp, default: \"${{ run.scheduled_at }}\" } }
triggers: [{ cron: '0 * * * *', timezone: UTC }]
steps: { load: { set: { at: \"${{ params.at }}\" } } }
";

const ALL: [&str; 4] = ["list", "-n", "1000", "--json"];

/// Seconds and runs of the due times that have a run, in order.
fn due(page: &Value) -> Vec<(i64, String)> {
    let runs = page["runs"].as_array().unwrap().iter();
    let mut due: Vec<(i64, String)> = runs
        .map(|run| {
            let at: Timestamp = run["scheduled_at"].as_str().unwrap().parse().unwrap();
            (at.as_second(), run["run"].as_str().unwrap().to_owned())
        })
        .collect();
    due.sort();
    due
}

#[test]
fn due_times_that_a_killed_server_missed_are_made_up_for_once_each() {
    let place = Place::with("ticking.yaml", TICKING);
    place.good(&["deploy", "."]);
    let server = place.start(&["server", "--listen", "127.0.0.1:0"]);
    place.until(&ALL, |page| due(page).len() >= 2);
    server.signal(rustix::process::Signal::KILL);
    drop(server);
    let killed = due(&place.json(&ALL)).last().unwrap().0;
    // Three due times pass, and the fourth is there.
    place.until(&["trigger", "show", "ticking", "--json"], |_| {
        Timestamp::now().as_second() > killed + 3
    });
    let before = due(&place.json(&ALL));
    assert_eq!(before.last().unwrap().0, killed, "nobody starts anything");
    let again = place.start(&["server", "--listen", "127.0.0.1:0"]);
    let now = Timestamp::now().as_second();
    let page = place.until(&ALL, |page| due(page).last().unwrap().0 > now);
    let found = due(&page);
    let seconds: Vec<i64> = found.iter().map(|(second, _)| *second).collect();
    let expected: Vec<i64> = (seconds[0]..=*seconds.last().unwrap()).collect();
    assert_eq!(seconds, expected, "each once");
    for (_, run) in found
        .iter()
        .filter(|(at, _)| (killed + 1..=killed + 3).contains(at))
    {
        let record = place.json(&["show", run, "--json"]);
        assert_eq!(record["catching_up"], true, "{record}");
        assert_eq!(record["trigger_name"], "cron");
    }
    drop(again);
}

#[test]
fn a_backfill_that_is_named_as_the_next_one_would_be_takes_nothing_from_it() {
    let place = Place::with("hourly.yaml", HOURLY);
    place.good(&["deploy", "."]);
    let start = |from: &str, to: &str, more: &[&str]| {
        let mut all = vec!["backfill", "start", "hourly", "--from", from, "--to", to];
        all.extend(more);
        place.kapell(&all)
    };
    let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z");
    let named = ["--id", "cron-1", "--json"];
    assert_eq!(start(first, second, &named).status, 0);
    // The same again is the same.
    assert_eq!(start(first, second, &named).status, 0);
    let other = start(first, "2026-01-01T05:00:00Z", &named);
    assert_eq!(other.status, 2, "{}", other.all());
    assert!(other.errors.contains("is another one"), "{}", other.all());
    let unnamed = place.json(&[
        "backfill",
        "start",
        "hourly",
        "--from",
        second,
        "--to",
        "2026-01-01T05:00:00Z",
        "--json",
    ]);
    assert_ne!(unnamed["id"], "cron-1");
    assert_eq!(unnamed["total"], 3, "{unnamed}");
    let none = start("2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", &[]);
    assert!(
        none.out.contains("no due time lies in the range"),
        "{}",
        none.all()
    );
    let later = start("2100-01-01", "2100-01-02", &[]);
    assert!(
        later.out.contains("still the schedule's own"),
        "{}",
        later.all()
    );
    let shown = place.json(&["backfill", "list", "--json"]);
    assert_eq!(shown["backfills"].as_array().unwrap().len(), 4);
}

#[test]
fn a_start_may_say_which_due_time_it_is_for() {
    let place = Place::with("hourly.yaml", HOURLY);
    place.good(&["deploy", "."]);
    place.good(&["start", "hourly", "--watch", "--at", "2026-01-05T10:30:00Z"]);
    let record = place.json(&["show", "--json"]);
    assert_eq!(record["params"]["at"], "2026-01-05T10:30:00Z", "{record}");
    assert_eq!(record["scheduled_at"], "2026-01-05T10:30:00Z");
    assert_eq!(record["interval_start"], "2026-01-05T09:00:00Z");
    assert_eq!(record["interval_end"], "2026-01-05T10:00:00Z");
    let said = place.good(&["show"]).out;
    assert!(said.contains("for <when>, from <when> to <when>"), "{said}");
    place.good(&["run", "hourly.yaml", "--at", "2026-02-05T10:30:00Z"]);
    let runs = place.json(&ALL);
    assert_eq!(runs["runs"][0]["scheduled_at"], "2026-02-05T10:30:00Z");
    assert!(
        place.good(&["list"]).out.contains("for"),
        "a column of its own"
    );
    let refused = place.kapell(&["start", "hourly", "--at", "some day"]);
    assert_eq!(refused.status, 2, "{}", refused.all());
}

/// A directory in which a backfill made one run.
fn filled() -> Place {
    let place = Place::with("hourly.yaml", HOURLY);
    place.good(&["deploy", "."]);
    place.good(&[
        "backfill",
        "start",
        "hourly",
        "--watch",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-01T00:30:00Z",
    ]);
    place
}

#[test]
fn a_run_of_a_backfill_says_so() {
    let place = filled();
    let record = place.json(&["show", "--json"]);
    assert_eq!(
        (&record["backfill"], &record["trigger_name"]),
        (&"cron-1".into(), &"cron".into())
    );
    let said = place.good(&["show"]).out;
    assert!(said.contains("backfill cron-1"), "{said}");
    place.good(&["start", "hourly", "--watch"]);
    let of = |id: &str| place.json(&["list", "--backfill", id, "--json"])["runs"].clone();
    let found = of("cron-1");
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[0]["backfill"], "cron-1");
    assert_eq!(found[0]["run"], record["run"]);
    assert_eq!(of("cron-2"), serde_json::json!([]));
}

#[test]
fn the_first_version_that_asks_for_the_last_success_finds_that_of_the_version_before() {
    let place = filled();
    let before = place.json(&["show", "--json"])["run"].clone();
    let asks = HOURLY.replace("${{ params.at }}", "${{ run.last_success.id }}");
    place.write("hourly.yaml", &asks);
    place.good(&["deploy", "."]);
    place.good(&["start", "hourly", "--watch"]);
    let record = place.json(&["show", "--json"]);
    assert_eq!(record["steps"][0]["output"]["at"], before, "{record}");
}
