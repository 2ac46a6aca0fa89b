//! Labels of the items of a foreach, wherever a person meets an item.

use crate::place::Place;
use crate::server::Server;

const CUSTOMERS: &str = "\
workflow: customers
on_step_failure: continue
steps:
  load:
    foreach:
      customer: [{ id: acme, ok: true }, { id: globex, ok: false }, { id: twin, ok: true }, { id: twin, ok: true }, { id: 4711, ok: true }]
      label: \"${{ customer.id }}\"
      min_success: 1
    shell: echo of \"$ID\"; $OK
    env: { ID: \"${{ customer.id }}\", OK: \"${{ customer.ok }}\" }
  plain: { foreach: { n: \"${{ range(3) }}\" }, noop: }
  regions:
    foreach: { region: [eu, us] }
    steps:
      days: { set: { of: [mon, tue] } }
      day:
        needs: days
        foreach: { day: \"${{ steps.days.output.of }}\", label: \"${{ region + ' ' + day }}\" }
        shell: echo \"$DAY\"
        env: { DAY: \"${{ day }}\" }
";

fn ran() -> Place {
    let place = Place::with("customers.yaml", CUSTOMERS);
    place.good(&["run", "customers.yaml"]);
    place
}

#[test]
fn items_that_ended_are_shown_with_their_labels() {
    let place = ran();
    let shown = place.good(&["show", "last", "load"]).out;
    for words in ["[0] (acme)", "[1] (globex)", "[4] (4711)"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let whole = place.good(&["show"]).out;
    assert!(whole.contains("[1] (globex)"), "{whole}");
    let chart = place.good(&["timeline", "--items", "2"]).out;
    assert!(chart.contains("load[1] (globex)"), "{chart}");
    let rows = place.json(&["timeline", "--items", "2", "--json"]);
    let of = |path: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["path"] == path).unwrap()["label"].clone()
    };
    assert_eq!(of("load[1]"), "globex");
    assert_eq!(of("load"), serde_json::Value::Null);
    assert_eq!(of("plain[1]"), serde_json::Value::Null, "its index says it");
    let record = place.json(&["show", "--json"]);
    let region = &record["steps"][2]["items"]["shown"][1];
    assert_eq!(region["label"], "us");
    let day = &region["children"][1]["items"]["shown"][0];
    assert_eq!(
        (&day["path"], &day["label"]),
        (&"regions[1].day[0]".into(), &"us mon".into())
    );
}

#[test]
fn logs_name_items_and_take_their_labels() {
    let place = ran();
    let all = place.good(&["logs", "last", "load"]).out;
    assert!(all.contains("load[1] (globex) "), "{all}");
    let one = place.good(&["logs", "last", "load", "--item", "acme"]).out;
    assert_eq!(one, "load[0] (acme) │ of acme\n");
    let one = place.good(&["logs", "last", "load", "--item", "1"]).out;
    assert_eq!(one, "load[1] (globex) │ of globex\n");
    let one = place.good(&["logs", "last", "load", "--item", "4711"]).out;
    assert_eq!(one, "load[4] (4711) │ of 4711\n", "there is no such index");
    let inner = place.good(&["logs", "last", "regions[1].day", "--item", "us tue"]);
    assert_eq!(inner.out, "regions[1].day[1] (us tue) │ tue\n");
    let line = place.good(&["logs", "last", "load[1]", "--json"]).out;
    assert!(line.contains("\"label\":\"globex\""), "{line}");
}

#[test]
fn a_label_of_no_item_or_of_several_is_refused_with_what_there_is() {
    let place = ran();
    let refused = |arguments: &[&str], words: &[&str]| {
        let said = place.kapell(arguments);
        assert_ne!(said.status, 0, "{}", said.all());
        for words in words {
            assert!(said.errors.contains(words), "{words}\n{}", said.all());
        }
    };
    refused(
        &["logs", "last", "load", "--item", "globx"],
        &[
            "no item of `load` has the label `globx`",
            "labels like it are `globex`",
        ],
    );
    refused(
        &["show", "last", "load", "--item", "twin"],
        &[
            "several items of `load` have the label `twin`",
            "by its index: 2, 3",
        ],
    );
    refused(
        &["why", "last", "load", "--item", "7"],
        &["`load` has 5 items: there is no item 7"],
    );
    refused(
        &["logs", "last", "nothing", "--item", "7"],
        &["`nothing`", "has no items"],
    );
}

#[test]
fn an_item_that_succeeded_is_found_wherever_it_stands() {
    let text = "\
workflow: many
steps:
  one:
    foreach: { n: \"${{ range(1500) }}\", label: \"no. ${{ n }}\" }
    set: { twice: \"${{ n * 2 }}\" }
  turns: { loop: { until: \"${{ iteration == 99 }}\", steps: { turn: { set: { at: \"${{ iteration }}\" } } } } }
";
    let place = Place::with("many.yaml", text);
    place.good(&["run", "many.yaml"]);
    for of in [&["one[1400]"][..], &["one", "--item", "no. 1400"]] {
        let shown = place.json(&[&["show", "last", "--json"], of].concat());
        assert_eq!(shown["output"]["twice"], 2_800, "{shown:#}");
        let why = place.good(&[&["why", "last"], of].concat()).out;
        assert!(why.contains("one[1400] (no. 1400)"), "{why}");
        assert!(why.contains("succeeded"), "{why}");
    }
    let turn = place.json(&["show", "last", "turns#60.turn", "--json"]);
    assert_eq!(turn["output"]["at"], 60);
    let none = place.kapell(&["show", "last", "one[1500]"]);
    assert!(
        none.errors.contains("has no step `one[1500]`"),
        "{}",
        none.all()
    );
}

#[test]
fn what_takes_an_item_takes_its_label() {
    let text = "\
workflow: asks
steps:
  ask:
    foreach: { place: [eu, us, asia], label: \"region ${{ place }}\" }
    approval: { allow_self: true, message: \"Open ${{ place }}?\" }
  hold:
    foreach: { place: [eu, us], label: \"region ${{ place }}\" }
    await: { signal: never }
";
    let place = Place::with("asks.yaml", text);
    let server = Server::with(place, &[]);
    let place = &server.place;
    let on = |arguments: &[&str]| {
        let arguments = [arguments, &["--server", &server.url]].concat();
        place.good(&arguments).out
    };
    on(&["deploy", "asks.yaml"]);
    on(&["start", "asks"]);
    place.until(
        &["approvals", "--all", "--json", "--server", &server.url],
        |page| {
            page["approvals"]
                .as_array()
                .is_some_and(|all| all.len() == 3)
        },
    );
    let page = place.json(&["approvals", "--all", "--json", "--server", &server.url]);
    assert_eq!(page["approvals"][1]["label"], "region us");
    let listed = on(&["approvals", "--all"]);
    assert!(listed.contains("ask[1] (region us)"), "{listed}");
    let why = on(&["why", "last"]);
    assert!(why.contains("ask[2] (region asia)"), "{why}");
    let why = on(&["why", "last", "ask", "--item", "region asia"]);
    assert!(
        why.contains("ask[2] (region asia)") && !why.contains("ask[1]"),
        "{why}"
    );
    on(&["approve", "last", "ask", "--item", "region us"]);
    on(&["reject", "last", "ask", "--item", "region asia"]);
    on(&["skip", "last", "hold", "--item", "region us", "--detach"]);
    on(&[
        "set-output",
        "last",
        "hold",
        "--item",
        "region eu",
        "7",
        "--detach",
    ]);
    let record = place.until(
        &["show", "last", "--json", "--server", &server.url],
        |run| run["steps"][1]["items"]["shown"][0]["status"] == "succeeded",
    );
    let status =
        |step: usize, item: usize| &record["steps"][step]["items"]["shown"][item]["status"];
    assert_eq!(status(0, 1), "succeeded");
    assert_eq!(status(0, 2), "failed");
    assert_eq!(status(1, 1), "skipped");
    assert_eq!(status(1, 0), "succeeded");
}

/// Their list is a blob, and labels may be too long, or no text for a terminal.
#[test]
fn labels_of_many_items_are_found_and_shown_safely() {
    let long = "x".repeat(129);
    let text = format!(
        "\
workflow: many
steps:
  load:
    foreach: {{ n: \"${{{{ range(30000) }}}}\", label: \"${{{{ n == 1 ? 'bad\\\\r\\\\u001b[2Jend' : n == 2 ? '{long}' : 'customer ' + string(n) }}}}\" }}
    noop:
"
    );
    let place = Place::with("many.yaml", &text);
    place.good(&["run", "many.yaml"]);
    place.good(&["logs", "last", "load", "--item", "customer 29999"]);
    let none = place.kapell(&["logs", "last", "load", "--item", "customer 30000"]);
    assert!(
        none.errors.contains("labels like it are `customer 3000`"),
        "{}",
        none.all()
    );
    let shown = place.good(&["show", "last", "load"]).out;
    assert!(shown.contains("(customer 3)"), "{shown}");
    assert!(shown.contains("[1] (bad\u{fffd}\u{fffd}[2Jend)"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(!shown.contains("xxxx"), "one that is too long is none");
}
