//! What runs wait for: locks, people; and what starts them: backfills, webhooks.

use std::process::Stdio;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::place::{Place, Started};
use crate::server::{Server, ask};

const LOCKED: &str = "\
workflow: locked
params: { mark: { type: string } }
steps:
  work:
    shell: until test -e \"$MARK\"; do sleep 0.02; done
    env: { MARK: \"${{ params.mark }}\" }
    locks: [{ name: warehouse, max: 1 }]
";

#[test]
fn a_lock_names_who_holds_it_and_who_waits_and_why_says_so() {
    let place = Place::with("locked.yaml", LOCKED);
    let mark = format!("mark={}", place.path("mark").display());
    let first = place.start(&["run", "locked.yaml", "-p", &mark]);
    let lock = ["lock", "show", "warehouse", "--json"];
    place.until(&["locks", "--json"], |page| {
        page["locks"][0]["holders"] == 1
    });
    place.good(&["run", "locked.yaml", "-p", &mark, "--detach"]);
    let shown = place.until(&lock, |lock| lock["waiting"] == 1);
    assert_eq!(shown["max"], 1);
    assert_eq!(shown["holding"][0]["step"], "work");
    assert_eq!(shown["holding"][0]["workflow"], "locked");
    let waits = shown["queue"][0]["run"].as_str().unwrap().to_owned();
    assert_ne!(shown["holding"][0]["run"], shown["queue"][0]["run"]);
    let why = place.good(&["why", &waits]).out;
    assert!(
        why.contains("waits for the lock `warehouse`, held by `work` of run"),
        "{why}"
    );
    let said = place.good(&["lock", "show", "warehouse"]).out;
    assert!(
        said.contains("1 at once") && said.contains("waits"),
        "{said}"
    );
    place.write("mark", "");
    assert_eq!(first.end().0, 0);
    place.good(&["resume"]);
    let said = place.good(&["locks"]).out;
    assert!(said.contains("no lock is held"), "{said}");
    let said = place.good(&["lock", "show", "warehouse"]).out;
    assert!(said.contains("nobody holds it"), "{said}");
}

const RELEASE: &str = "\
workflow: release
steps:
  ask:
    approval:
      by: [bob, eve]
      count: 2
      message: Publish it?
      input: { where: { type: string, enum: [eu, us] } }
  publish:
    needs: [ask]
    set: { where: \"${{ steps.ask.output.input.where }}\" }
";

#[test]
fn people_answer_what_a_run_asks_them_and_nobody_else_does() {
    let place = Place::with("release.yaml", RELEASE);
    place.good(&["run", "release.yaml", "--detach"]);
    assert!(
        place
            .good(&["approvals"])
            .out
            .contains("nothing waits for you")
    );
    let all = place.json(&["approvals", "--all", "--json"]);
    let question = &all["approvals"][0];
    assert_eq!(question["step"], "ask");
    assert_eq!(question["workflow"], "release");
    assert_eq!(question["approval"]["message"], "Publish it?");
    assert_eq!(
        question["approval"]["by"],
        serde_json::json!(["bob", "eve"])
    );
    let bobs = place.kapell_as("bob", &["approvals"]).out;
    for words in [
        "Publish it?",
        "0 of 2 said yes",
        "-p where=",
        "kapell approve",
    ] {
        assert!(bobs.contains(words), "{words}\n{bobs}");
    }
    let why = place.good(&["why"]).out;
    assert!(why.contains("`bob` or `eve`"), "{why}");
    let refused = |user: &str, arguments: &[&str], words: &str| {
        let said = place.kapell_as(user, arguments);
        assert_ne!(said.status, 0, "{}", said.all());
        assert!(said.errors.contains(words), "{words}\n{}", said.all());
    };
    refused("ann", &["approve", "last"], "`ann` may not answer `ask`");
    refused("bob", &["approve", "last", "-p", "where=asia"], "where");
    refused(
        "bob",
        &["approve", "last", "publish"],
        "waits for no answer",
    );
    let said = place.kapell_as("bob", &["approve", "last", "-p", "where=eu", "-c", "fine"]);
    assert!(said.out.contains("1 of 2 said yes"), "{}", said.all());
    refused(
        "bob",
        &["approve", "last", "-p", "where=eu"],
        "already said yes",
    );
    assert!(
        place
            .kapell_as("bob", &["approvals"])
            .out
            .contains("nothing")
    );
    let said = place.kapell_as("eve", &["approve", "last", "ask", "-p", "where=us"]);
    assert!(said.out.contains("ask of run"), "{}", said.all());
    place.good(&["resume"]);
    let shown = place.json(&["show", "--json"]);
    assert_eq!(shown["status"], "succeeded");
    let publish = &shown["steps"][1];
    assert_eq!(publish["output"]["where"], "us", "{publish}");
    let all = place.json(&["approvals", "--all", "--json"]);
    assert_eq!(all["approvals"], serde_json::json!([]));
    refused("eve", &["approve", "last"], "asks nobody anything");
}

#[test]
fn an_admin_ends_a_question_for_others_and_the_output_says_so() {
    let server = Server::with(Place::with("release.yaml", RELEASE), &[]);
    let place = &server.place;
    let token = |name: &str, scope: &str| {
        let made = place.json(&["token", "create", name, "--scope", scope, "--json"]);
        made["secret"].as_str().unwrap().to_owned()
    };
    let (admin, run) = (token("chief", "admin"), token("ci", "read,run"));
    let output = r#"{"approved": true, "by": "bob", "input": {"where": "eu"}}"#;
    let asked = |token: Option<&str>, arguments: &[&str]| {
        let all = [arguments, &["--detach", "--server", &server.url]].concat();
        let mut command = place.command(&all);
        let output = command.envs(token.map(|token| ("KAPELL_TOKEN", token)));
        let output = output.output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), errors)
    };
    for _ in 0..2 {
        place.good(&["run", "release.yaml", "--detach"]);
    }
    for (token, who) in [(None, "somebody"), (Some(&*run), "ci")] {
        for arguments in [
            &["set-output", "last", "ask", output][..],
            &["skip", "last", "ask"],
        ] {
            let (good, errors) = asked(token, arguments);
            assert!(
                !good && errors.contains("may not answer `ask`"),
                "{who}: {errors}"
            );
        }
    }
    // Nobody gives what the question does not allow.
    let wrong = output.replace("eu", "asia");
    let (good, errors) = asked(Some(&admin), &["set-output", "last", "ask", &wrong]);
    assert!(!good && errors.contains("where"), "{errors}");
    let (good, errors) = asked(Some(&admin), &["set-output", "last", "ask", output]);
    assert!(good, "{errors}");
    let view = place.until(&["show", "last", "--json"], |view| {
        view["status"] == "succeeded"
    });
    let given = &view["steps"][0]["output"];
    assert_eq!(given["by"], "chief", "{given}");
    assert_eq!(given["comment"], "ended by an admin who may not answer");
    assert_eq!(given["input"]["where"], "eu");
    let other = place.json(&["list", "--status", "running", "--json"]);
    let other = other["runs"][0]["run"].as_str().unwrap().to_owned();
    let (good, errors) = asked(Some(&admin), &["skip", &other, "ask"]);
    assert!(good, "{errors}");
    let view = place.json(&["show", &other, "--json"]);
    assert_eq!(view["steps"][0]["status"], "skipped", "{view}");
    // What was done is written down, soon after it was answered.
    place.until(&["audit", "--who", "chief", "--json"], |page| {
        let text = page.to_string();
        text.contains("/set-output") && text.contains("/skip")
    });
    assert_eq!(server.end(), 0);
}

#[test]
fn a_no_fails_the_step_with_its_reason() {
    let place = Place::with("release.yaml", RELEASE);
    place.good(&["run", "release.yaml", "--detach"]);
    let said = place.kapell_as("eve", &["reject", "last", "-c", "not today"]);
    assert_eq!(said.status, 0, "{}", said.all());
    place.kapell(&["resume"]);
    let why = place.kapell(&["why"]).out;
    assert!(why.contains("`eve` said no: not today"), "{why}");
}

const HOURLY: &str = "\
workflow: hourly
params: { at: { type: timestamp, default: \"${{ run.scheduled_at }}\" } }
triggers: [{ cron: '0 * * * *', timezone: UTC }]
steps: { load: { set: { at: \"${{ params.at }}\" } } }
";

#[test]
fn a_backfill_makes_a_run_for_each_due_time_and_only_the_missing_ones_again() {
    let place = Place::with("hourly.yaml", HOURLY);
    place.good(&["deploy", "."]);
    let range = ["--from", "2026-01-01", "--to", "2026-01-01T05:00:00Z"];
    let start = |more: &[&str]| {
        let mut arguments = vec!["backfill", "start", "hourly", "--watch", "--json"];
        arguments.extend(range);
        arguments.extend(more);
        place.json(&arguments)
    };
    let first = start(&["--concurrency", "2"]);
    assert_eq!(
        (&first["total"], &first["succeeded"]),
        (&5.into(), &5.into()),
        "{first}"
    );
    assert_eq!(first["status"], "ended");
    let runs = place.json(&["list", "--workflow", "hourly", "--json"]);
    assert_eq!(runs["runs"].as_array().unwrap().len(), 5);
    assert_eq!(start(&[])["total"], 0);
    assert_eq!(start(&["--only", "failed"])["total"], 0);
    let all = start(&["--only", "all", "--order", "newest", "--id", "again"]);
    assert_eq!(
        (&all["total"], &all["id"]),
        (&5.into(), &"again".into()),
        "{all}"
    );
    let said = place.good(&["backfill", "show", "hourly", "again"]).out;
    assert!(said.contains("100%") && said.contains("5 of 5"), "{said}");
    let listed = place.json(&["backfills", "--workflow", "hourly", "--json"]);
    assert_eq!(listed["backfills"].as_array().unwrap().len(), 4);
    let page = place.json(&["backfill", "list", "-n", "3", "--json"]);
    let next = page["next"].as_str().unwrap();
    let rest = place.json(&["backfill", "list", "--after", next, "--json"]);
    assert_eq!(rest["backfills"].as_array().unwrap().len(), 1);
}

#[test]
fn a_backfill_is_paused_goes_on_and_is_cancelled() {
    let slow = HOURLY.replace("set: { at: \"${{ params.at }}\" }", "shell: \"true\"");
    let place = Place::with("hourly.yaml", &slow);
    place.good(&["deploy", "."]);
    let range = ["--from", "2026-01-01", "--to", "2026-01-02"];
    let mut arguments = vec!["backfill", "start", "hourly", "--id", "day"];
    arguments.extend(range);
    let said = place.good(&arguments).out;
    assert!(said.contains("0%") && said.contains("0 of 24"), "{said}");
    let verb = |verb| place.json(&["backfill", verb, "hourly", "day", "--json"]);
    let paused = verb("pause");
    assert_eq!(
        (&paused["status"], &paused["paused_by"]),
        (&"paused".into(), &"ann".into())
    );
    assert_eq!(verb("resume")["status"], "running");
    assert_eq!(verb("cancel")["status"], "cancelled");
    for (arguments, words) in [
        (
            vec!["backfill", "show", "hourly", "none"],
            "`hourly` has no backfill `none`",
        ),
        (
            vec!["backfill", "start", "nobody", "--from", "1d"],
            "no workflow `nobody`",
        ),
        (
            vec![
                "backfill",
                "start",
                "hourly",
                "--from",
                "2026-01-02",
                "--to",
                "2026-01-01",
            ],
            "is not before",
        ),
    ] {
        let said = place.kapell(&arguments);
        assert_eq!(said.status, 2, "{}", said.all());
        assert!(said.errors.contains(words), "{words}\n{}", said.all());
    }
}

const HOOKED: &str = "\
workflow: hooked
params: { n: { type: int } }
triggers:
  - { name: open, webhook: { path: open }, with: { n: \"${{ signal.payload.n }}\" } }
  - { name: shut, webhook: { path: shut, secret: \"${{ secrets.hook }}\" }, with: { n: \"${{ signal.payload.n }}\" } }
steps: { go: { set: { n: \"${{ params.n }}\" } } }
";

fn sign(time: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"between us").unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("X-Kapell-Signature: t={time},v1={hex}")
}

#[test]
fn a_webhook_starts_a_run_once_for_each_call_that_is_what_it_says() {
    let place = Place::with("hooked.yaml", HOOKED);
    place.good(&["deploy", "."]);
    let server = Server::with(place, &[]);
    let address = server.url.split_once("//").unwrap().1;
    let path = |name| {
        let shown = server
            .place
            .json(&["trigger", "show", "hooked", name, "--json"]);
        shown["hook"]["path"].as_str().unwrap().to_owned()
    };
    let call = |path: &str, header: &str, body: &str| {
        let header = if header.is_empty() {
            String::new()
        } else {
            format!("\r\n{header}")
        };
        // As a proxy passes it on, under another name.
        let head = format!("POST {path} HTTP/1.1\r\nHost: hooks.example.org{header}");
        let (status, _, answer) = ask(address, &head, body);
        (status, answer)
    };
    let open = path("open");
    let (status, first) = call(&open, "Idempotency-Key: one", "{\"n\": 7}");
    assert_eq!(status, 200, "{first}");
    let run = first["run"].as_str().unwrap();
    let (_, again) = call(&open, "Idempotency-Key: one", "{\"n\": 7}");
    assert_eq!((&again["id"], &again["run"]), (&first["id"], &first["run"]));
    assert_eq!(
        (&first["outcome"], &again["outcome"]),
        (&"started".into(), &"duplicate".into())
    );
    let shown = server
        .place
        .until(&["show", run, "--json"], |run| run["status"] == "succeeded");
    assert_eq!(shown["params"]["n"], 7);
    let runs = || {
        let page = server
            .place
            .json(&["list", "--workflow", "hooked", "--json"]);
        page["runs"].as_array().unwrap().len()
    };
    assert_eq!(runs(), 1, "the same call is one run");
    let refused = |path: &str, header: &str, body: &str, status: u16, code: &str| {
        let (found, answer) = call(path, header, body);
        assert_eq!(
            (found, &answer["code"]),
            (status, &Value::from(code)),
            "{answer}"
        );
    };
    let elsewhere = format!("/hooks/{}/open", "0".repeat(40));
    refused(&elsewhere, "", "{}", 404, "trigger-not-found");
    refused(
        &open.replace("/open", "/other"),
        "",
        "{}",
        404,
        "trigger-not-found",
    );
    refused(&open, "", "{", 400, "bad-request");
    // Nothing that a run could be made of is not taken.
    refused(&open, "", "{\"m\": 7}", 422, "bad-params");
    refused(
        &open,
        "Idempotency-Key: two",
        "{\"n\": \"x\"}",
        422,
        "bad-params",
    );
    refused(
        &open,
        "Idempotency-Key: two",
        "{\"n\": \"x\"}",
        422,
        "bad-params",
    );
    refused(
        &open,
        "",
        &format!("\"{}\"", "x".repeat(70_000)),
        413,
        "limit-reached",
    );
    let shut = path("shut");
    // This server does not have the secret.
    refused(&shut, "", "{}", 401, "not-authenticated");
    let signed = "X-Kapell-Signature: t=1900000000,v1=00";
    refused(&shut, signed, "{}", 409, "not-allowed-now");
    // One that others know is given another address.
    server.place.good(&["trigger", "rotate", "hooked", "open"]);
    refused(&open, "", "{\"n\": 8}", 404, "trigger-not-found");
    let open = path("open");
    assert_eq!(path("shut"), shut, "no other one is");
    server.place.good(&["trigger", "pause", "hooked", "open"]);
    refused(&open, "", "{\"n\": 8}", 409, "not-allowed-now");
    assert_eq!(runs(), 1);
    assert_eq!(server.end(), 0);
}

#[test]
fn a_signed_webhook_takes_a_call_that_is_signed_now_and_no_other() {
    let place = Place::with("hooked.yaml", HOOKED);
    place.good(&["deploy", "."]);
    let mut started = {
        let mut command = place.command(&["server", "--listen", "127.0.0.1:0"]);
        command
            .env("KAPELL_SECRET_hook", "between us")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Started::of(command.spawn().unwrap())
    };
    let line = started.until("answers at");
    let url = line.split_whitespace().find(|word| word.contains("://"));
    let address = url.unwrap().split_once("//").unwrap().1.to_owned();
    let shown = place.json(&["trigger", "show", "hooked", "shut", "--json"]);
    assert_eq!(shown["hook"]["signed"], true);
    let path = shown["hook"]["path"].as_str().unwrap();
    let now = std::fs::metadata(place.path("hooked.yaml")).unwrap();
    let now = now.modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let call = |header: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\n{header}");
        let (status, _, answer) = ask(&address, &head, body);
        (status, answer)
    };
    let body = "{\"n\": 3}";
    let (status, first) = call(&sign(now, body), body);
    assert_eq!(status, 200, "{first}");
    let (status, again) = call(&sign(now, body), body);
    assert_eq!(
        (status, &again["id"]),
        (200, &first["id"]),
        "a replay is the same call"
    );
    assert_eq!(call(&sign(now, body), "{\"n\": 4}").0, 401);
    assert_eq!(call(&sign(now - 900, body), body).0, 401);
    assert_eq!(call("X-Other: 1", body).0, 401);
    place.until(&["list", "--workflow", "hooked", "--json"], |page| {
        page["runs"][0]["status"] == "succeeded"
    });
    let page = place.json(&["list", "--workflow", "hooked", "--json"]);
    assert_eq!(page["runs"].as_array().unwrap().len(), 1);
    started.signal(rustix::process::Signal::TERM);
    assert_eq!(started.end().0, 0);
}

const STRICT: &str = "\
workflow: strict
strategy: { mode: strict_sequential, key: \"${{ params.of }}\" }
params: { of: { type: string }, code: { type: string, default: '0' } }
steps: { load: { shell: exit \"$CODE\", env: { CODE: \"${{ params.code }}\" } } }
";

#[test]
fn a_blocked_queue_says_what_blocks_it_and_is_freed_by_its_key() {
    let place = Place::with("strict.yaml", STRICT);
    let failed = place.kapell(&["run", "strict.yaml", "-p", "of=a", "-p", "code=3"]);
    assert_ne!(failed.status, 0, "{}", failed.all());
    place.good(&["run", "strict.yaml", "-p", "of=a", "--detach"]);
    let queue = ["workflow", "queue", "strict", "--json"];
    let line = place.until(&queue, |queue| queue["waiting"] == 1)["lines"][0].clone();
    let blocks = line["blocked_by"].as_str().unwrap().to_owned();
    let waits = line["waiting"][0].as_str().unwrap().to_owned();
    let why = format!("the run waits: the workflow is strict_sequential and run {blocks} failed;");
    assert!(line["why"].as_str().unwrap().starts_with(&why), "{line}");
    let why = place.comparable(&why);
    for look in ["why", "show"] {
        let said = place.good(&[look, &waits]).out;
        assert!(said.contains(&why), "{said}");
    }
    let said = place.good(&["workflow", "queue", "strict"]).out;
    assert!(said.contains(&why), "{said}");
    let other = ["dismiss", "--workflow", "strict", "--key", "b"];
    assert_ne!(place.kapell(&other).status, 0);
    place.good(&["dismiss", "--workflow", "strict", "--key", "a"]);
    place.good(&["resume"]);
    let ended = place.until(&["list", "--json"], |page| {
        page["runs"][0]["status"] == "succeeded"
    });
    assert_eq!(ended["runs"][0]["run"], *waits);
}

/// What only waits does not look as if it ran.
#[test]
fn a_timeline_shows_steps_that_wait_as_waiting() {
    let text = "workflow: waits\nsteps:\n  signalled: { await: { signal: go } }\n  asked: { approval: {} }\n  held: { breakpoint: before, noop: }\n";
    let place = Place::with("waits.yaml", text);
    place.good(&["run", "waits.yaml", "--detach"]);
    let chart = place.good(&["timeline"]).out;
    for step in ["signalled", "asked", "held"] {
        let row = chart.lines().find(|line| line.contains(step)).unwrap();
        assert!(row.contains('░') && !row.contains('█'), "{chart}");
    }
    place.good(&["signal", "send", "go"]);
    place.kapell_as("bob", &["approve", "last", "asked"]);
    let chart = place.good(&["timeline"]).out;
    let row = chart.lines().find(|line| line.contains("asked")).unwrap();
    assert!(row.contains('░') && !row.contains('█'), "{chart}");
}
