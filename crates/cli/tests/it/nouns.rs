//! Triggers and signals: looked at, paused, sent.

use crate::place::Place;

const TIMED: &str = "\
workflow: timed
triggers:
  - { name: nightly, cron: '0 2 * * *', timezone: Europe/Berlin }
  - { name: landed, signal: orders-landed }
  - { name: pushed, webhook: { path: push } }
steps: { go: { noop: } }
";

fn deployed() -> Place {
    let place = Place::with("timed.yaml", TIMED);
    place.write(
        "other.yaml",
        "workflow: other\ntriggers: [{ every: 1h }]\nsteps: { go: { noop: } }\n",
    );
    place.good(&["deploy", "."]);
    place
}

#[test]
fn triggers_are_listed_with_what_they_wait_for_page_by_page() {
    let place = deployed();
    let said = place.good(&["triggers"]).out;
    for words in [
        "cron 0 2 * * *",
        "every 1h",
        "signal orders-landed",
        "webhook push",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let first = place.json(&["trigger", "list", "-n", "2", "--json"]);
    let next = first["next"].as_str().unwrap().to_owned();
    let second = place.json(&["trigger", "list", "-n", "2", "--after", &next, "--json"]);
    let names: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|page| page["triggers"].as_array().unwrap())
        .map(|of| format!("{} {}", of["workflow"], of["name"]).replace('"', ""))
        .collect();
    assert_eq!(
        names,
        [
            "other every",
            "timed landed",
            "timed nightly",
            "timed pushed"
        ]
    );
    assert!(second["next"].is_null());
    let own = place.json(&["triggers", "--workflow", "other", "--json"]);
    assert_eq!(own["triggers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_paused_trigger_says_who_paused_it_until_it_is_resumed() {
    let place = deployed();
    let shown = place.json(&["trigger", "show", "timed", "nightly", "--json"]);
    assert!(shown["next_at"].is_string(), "{shown}");
    assert_eq!(shown["timezone"], "Europe/Berlin");
    let said = place.good(&["trigger", "pause", "timed", "nightly"]).out;
    assert!(said.contains("paused by ann"), "{said}");
    let shown = place.json(&["trigger", "show", "timed", "nightly", "--json"]);
    assert_eq!(shown["paused_by"], "ann");
    assert!(shown["next_at"].is_null(), "{shown}");
    place.good(&["trigger", "resume", "timed", "nightly"]);
    let shown = place.json(&["trigger", "show", "timed", "nightly", "--json"]);
    assert!(shown["next_at"].is_string(), "{shown}");
}

#[test]
fn a_trigger_that_nobody_can_mean_is_refused_with_a_hint() {
    let place = deployed();
    for (arguments, words) in [
        (
            ["trigger", "show", "timed", "hourly"].as_slice(),
            "`timed` has no trigger `hourly`",
        ),
        (
            &["trigger", "show", "timed"],
            "name one of landed, nightly, pushed",
        ),
        (&["trigger", "pause", "nobody"], "`nobody` has no triggers"),
        (
            &["trigger", "list", "--after", "x"],
            "`x` is no place in the list",
        ),
    ] {
        let said = place.kapell(arguments);
        assert_eq!(said.status, 2, "{}", said.all());
        assert!(said.errors.contains(words), "{}", said.errors);
    }
    // The only one of a workflow needs no name.
    let shown = place.json(&["trigger", "show", "other", "--json"]);
    assert_eq!(shown["name"], "every");
}

#[test]
fn a_webhook_has_an_address_that_stays_and_that_nothing_else_has() {
    let place = deployed();
    let hook = |name| place.json(&["trigger", "show", "timed", name, "--json"])["hook"].clone();
    let first = hook("pushed");
    let path = first["path"].as_str().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    assert_eq!((parts[1], parts[3]), ("hooks", "push"), "{path}");
    assert!(parts[2].len() >= 32, "{path}");
    assert_eq!(first["signed"], false);
    assert_eq!(hook("pushed"), first);
    assert!(hook("nightly").is_null());
    let said = place.good(&["trigger", "show", "timed", "pushed"]).out;
    assert!(said.contains("/hooks/") && said.contains("/push"), "{said}");
}

#[test]
fn a_signal_is_kept_once_and_shown() {
    let place = Place::new();
    let send = [
        "signal",
        "send",
        "orders-landed",
        "--payload",
        "{\"table\": \"orders\"}",
        "--key",
        "eu",
        "--id",
        "one",
        "--json",
    ];
    let first = place.json(&send);
    assert_eq!(first["id"], "one");
    assert_eq!(first["known"], false);
    let again = place.json(&send);
    assert_eq!(again["known"], true);
    assert_eq!(again["sent_at"], first["sent_at"]);
    place.good(&["signal", "send", "orders-landed", "--payload", "7"]);
    let shown = place.json(&["signal", "show", "orders-landed", "--json"]);
    assert_eq!(shown["signals"], 2);
    let kept = shown["kept"].as_array().unwrap();
    assert_eq!(kept[0]["payload"], 7);
    assert_eq!(kept[1]["payload"]["table"], "orders");
    assert_eq!(kept[1]["key"], "eu");
    assert_eq!(kept[1]["by"], "ann");
    let page = place.json(&["signal", "show", "orders-landed", "-n", "1", "--json"]);
    let before = page["next"].to_string();
    let rest = place.json(&[
        "signal",
        "show",
        "orders-landed",
        "--before",
        &before,
        "--json",
    ]);
    assert_eq!(rest["kept"].as_array().unwrap().len(), 1);
    assert_eq!(rest["kept"][0]["id"], "one");
    let topics = place.json(&["signals", "--json"]);
    assert_eq!(topics["topics"][0]["name"], "orders-landed");
    assert_eq!(topics["topics"][0]["received"], 2);
}

#[test]
fn as_many_signals_are_kept_as_the_configuration_says() {
    let place = Place::with("kapell.toml", "[signals]\nmax = 2\n");
    for number in ["1", "2", "3"] {
        place.good(&["signal", "send", "landed", "--payload", number]);
    }
    let kept = |place: &Place| {
        let shown = place.json(&["signal", "show", "landed", "--json"]);
        let kept = shown["kept"].as_array().unwrap().iter();
        kept.map(|kept| kept["payload"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&place), [3, 2]);
    place.write("kapell.toml", "[signals]\nmax = 3\n");
    place.good(&["signal", "send", "landed", "--payload", "4"]);
    assert_eq!(kept(&place), [4, 3, 2]);
    let mut none = place.command(&["signal", "send", "landed", "--payload", "5"]);
    let refused = none.env("KAPELL_SIGNALS_MAX", "0").output().unwrap();
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.contains("KAPELL_SIGNALS_MAX"), "{errors}");
    assert_eq!(kept(&place), [4, 3, 2]);
}

#[test]
fn a_signal_that_cannot_be_is_refused() {
    let place = Place::new();
    let big = format!("\"{}\"", "x".repeat(70_000));
    for (name, payload, words) in [
        ("orders landed", "1", "cannot name a signal"),
        ("workflow.a.succeeded", "1", "cannot be sent"),
        ("orders", "{", "the payload is not JSON"),
        ("orders", big.as_str(), "is larger than 65536 bytes"),
    ] {
        let said = place.kapell(&["signal", "send", name, "--payload", payload]);
        assert_eq!(said.status, 2, "{}", said.all());
        assert!(said.errors.contains(words), "{}", said.errors);
    }
}

#[test]
fn where_nobody_works_it_is_said_how_somebody_does() {
    let place = Place::with("w.yaml", "workflow: w\nsteps: { a: { noop: } }\n");
    place.good(&["run", "w.yaml"]);
    let said = place.good(&["workers"]).out;
    assert!(said.contains("`kapell server` starts one"), "{said}");
    assert!(said.contains("`kapell worker --server URL`"), "{said}");
}
