use super::*;
use kapell_model::FailureKind;

#[test]
fn a_script_succeeds_and_its_lines_are_logged() {
    let setup = setup();
    let ended = setup.run(shell("echo out\necho err >&2\n"));
    assert!(ended.value().is_null());
    let mut lines = setup.log_text("step");
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
}

#[test]
fn the_peak_of_memory_is_the_childs_own() {
    let setup = setup();
    let large = setup.run(shell("python3 -c 'x = bytearray(96 << 20)'\n"));
    let small = setup.run(shell("exit 0\n"));
    assert!(large.usage.unwrap().memory_bytes >= 96 << 20);
    assert!(small.usage.unwrap().memory_bytes < 16 << 20);
}

#[test]
fn noop_and_fail_are_answered_within_the_offer() {
    let setup = setup();
    let (noop, fail) = (
        setup.task(Work::Noop),
        setup.task(Work::Fail {
            message: "no".into(),
        }),
    );
    let (first, second) = (noop.offer, fail.offer);
    setup.worker.offer(vec![noop, fail]);
    let batch = setup.reports.try_recv().expect("one batch, at once");
    assert_eq!(batch.len(), 2);
    *setup.early.borrow_mut() = batch;
    assert!(setup.ended(first).value().is_null());
    let error = setup.ended(second).error().clone();
    assert_eq!(
        (error.reason.as_str(), error.message.as_str()),
        ("fail", "no")
    );
}

#[test]
fn a_failed_script_tells_its_code_and_last_words() {
    let setup = setup();
    let error = setup
        .run(shell("echo first >&2\necho 'no such table' >&2\nexit 3"))
        .error()
        .clone();
    assert_eq!(
        (error.kind, error.reason.as_str(), error.exit_code),
        (FailureKind::User, "exit_code", Some(3))
    );
    assert!(
        error.message.contains("exit code 3") && error.message.contains("no such table"),
        "{}",
        error.message
    );
    assert!(!error.permanent);
}

#[test]
fn exit_code_78_is_permanent() {
    assert!(setup().run(shell("exit 78")).error().permanent);
}

#[test]
fn a_signal_is_told_by_name() {
    let error = setup().run(shell("kill -SEGV $$")).error().clone();
    assert_eq!(error.reason, "signal");
    assert!(error.message.contains("11 (SEGV)"), "{}", error.message);
}

#[test]
fn a_plain_command_fails_in_the_words_of_the_shell() {
    let error = setup().run(shell("/bin/no-such-program")).error().clone();
    assert_eq!(
        (error.reason.as_str(), error.exit_code),
        ("exit_code", Some(127))
    );
    assert!(error.message.contains("not found"), "{}", error.message);
    assert_eq!(
        setup().run(shell("/bin/false\n")).error().exit_code,
        Some(1)
    );
}

#[test]
fn a_missing_program_is_named() {
    let error = setup().run(exec(&["no-such-program", "x"])).error().clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::User, "spawn")
    );
    assert!(
        error
            .message
            .contains("`no-such-program` was not found in PATH"),
        "{}",
        error.message
    );
}

#[test]
fn what_is_no_program_is_refused_with_a_reason() {
    let setup = setup();
    let directory = setup.run(exec(&["/tmp"])).error().clone();
    assert!(
        directory.message.contains("permission denied"),
        "{}",
        directory.message
    );
    let text = setup.run(exec(&["/etc/hostname"])).error().clone();
    assert_eq!(text.reason, "spawn");
    let work = |argv: &[&str], bundle| {
        let mut process = process();
        process.bundle = Some(bundle);
        Work::Exec {
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            process: Box::new(process),
        }
    };
    let bundle = setup.bundle(&[
        ("plain", "echo hi\n", true),
        ("lost", "#!/no/interpreter\n", true),
    ]);
    let plain = setup
        .run(work(&["./plain"], bundle.clone()))
        .error()
        .clone();
    assert!(plain.message.contains("#!/bin/sh"), "{}", plain.message);
    let lost = setup.run(work(&["./lost"], bundle)).error().clone();
    assert!(
        lost.message.contains("the interpreter named in it"),
        "{}",
        lost.message
    );
}

#[test]
fn an_attempt_knows_who_it_is_and_nothing_of_the_worker() {
    let setup = setup();
    let work = shell_with(
        "env | sort > env.txt; pwd; printf '::output env=%s\\n' \"$(grep -c . env.txt)\"; cat env.txt",
        |process| {
            process.env = vec![
                ("MINE".into(), Some(SecretText::plain("yes"))),
                ("LANG".into(), None),
            ];
        },
    );
    setup.run(work).value();
    let lines = setup.log_text("step");
    for wanted in [
        "KAPELL_STEP=step",
        "KAPELL_ATTEMPT_NUMBER=1",
        "KAPELL_WORKFLOW=tests",
        "MINE=yes",
        "KAPELL_IDEMPOTENCY_KEY=idempotent",
    ] {
        assert!(
            lines.iter().any(|line| line == wanted),
            "{wanted} is missing in {lines:?}"
        );
    }
    assert!(!lines.iter().any(|line| line.starts_with("LANG=")
        || line.starts_with("CARGO")
        || line.starts_with("HOME=")));
    assert!(lines.iter().any(|line| line.starts_with("TMPDIR=")));
}

#[test]
fn arguments_and_input_arrive() {
    let setup = setup();
    let mut process = process();
    process.with.value = Value::map([("a", Value::Int(1)), ("secret", Value::Null)]);
    process.with.secrets = vec![("/secret".into(), secret("token"))];
    let work = Work::Shell {
        script: "echo \"$1-$2\" > args; cp $KAPELL_INPUT in.json; printf '{\"args\":\"%s\",\"in\":%s}' \"$(cat args)\" \"$(cat in.json)\" > $KAPELL_OUTPUT".into(),
        interpreter: vec!["sh".into(), "-eu".into()],
        args: vec!["x y".into(), "$(id)".into()],
        process: Box::new(process),
    };
    // It arrived, and outputs hide it.
    assert_eq!(
        setup.run(work).json(),
        r#"{"args":"x y-$(id)","in":{"a":1,"secret":"***"}}"#
    );
}

#[test]
fn a_missing_secret_fails_the_step() {
    let error = setup()
        .run(shell_with("true", |process| {
            process.env = vec![("T".into(), Some(secret("nope")))];
        }))
        .error()
        .clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::User, "secret")
    );
}

#[test]
fn each_attempt_gets_a_fresh_directory_with_the_bundle() {
    let setup = setup();
    let bundle = setup.bundle(&[
        ("report.sh", "#!/bin/sh\ncat data/x.txt\n", true),
        ("data/x.txt", "original\n", false),
    ]);
    let run = |script: &str| {
        setup
            .run(shell_with(script, |process| {
                process.bundle = Some(bundle.clone());
            }))
            .value();
        setup.log_text("step").pop().unwrap()
    };
    assert_eq!(run("./report.sh"), "original");
    assert_eq!(
        run("echo changed > data/x.txt; touch more; ./report.sh"),
        "changed"
    );
    assert_eq!(run("ls more 2>/dev/null || ./report.sh"), "original");
}

#[test]
fn a_timeout_is_a_failure_of_its_own_kind() {
    let setup = setup();
    let ended = setup.run(shell_with("exec sleep 60", |process| {
        process.timeout = Some(Duration::from_millis(100));
    }));
    assert_eq!(
        (ended.error().kind, ended.error().reason.as_str()),
        (FailureKind::Timeout, "timeout")
    );
    assert!(ended.took < Duration::from_secs(5));
}

#[test]
fn a_child_that_ignores_term_is_killed_after_its_grace() {
    let setup = setup();
    let mark = setup.dir.path().join("ready");
    let offer = setup.offer(shell(&format!(
        "trap '' TERM; echo $$ > {}; while :; do sleep 60; done",
        mark.display()
    )));
    let pid = wait_for_file(&mark);
    setup.cancel(offer);
    let ended = setup.ended(offer);
    assert!(matches!(ended.outcome, Outcome::Cancelled));
    assert!(ended.took >= Duration::from_millis(200));
    wait_until_dead(&pid);
}

#[test]
fn a_cancelled_child_may_clean_up() {
    let setup = setup();
    let (ready, cleaned) = (
        setup.dir.path().join("ready"),
        setup.dir.path().join("cleaned"),
    );
    let script = format!(
        "trap 'echo yes > {}; exit 0' TERM; echo > {}; while :; do sleep 0.01 || :; done",
        cleaned.display(),
        ready.display()
    );
    let offer = setup.offer(shell_with(&script, |process| {
        process.grace = Duration::from_secs(20);
    }));
    wait_for_file(&ready);
    setup.cancel(offer);
    assert!(matches!(setup.ended(offer).outcome, Outcome::Cancelled));
    assert_eq!(wait_for_file(&cleaned), "yes\n");
}

#[test]
fn tasks_wait_for_capacity_in_order_and_can_be_cancelled_there() {
    let setup = setup_with(|config| config.capacity.slots = 1, Containment::Cgroups);
    let first = setup.offer(shell("exec sleep 60"));
    let second = setup.offer(shell("true"));
    let third = setup.offer(shell("true"));
    assert_eq!(setup.worker.usage().slots, 0);
    setup.cancel(second);
    assert!(matches!(setup.ended(second).outcome, Outcome::Cancelled));
    setup.cancel(first);
    assert!(matches!(setup.ended(first).outcome, Outcome::Cancelled));
    setup.ended(third).value();
    assert_eq!(setup.worker.usage().slots, 1);
}

#[test]
fn what_never_fits_fails_at_once() {
    let error = setup()
        .run(shell_with("true", |process| process.resources.gpus = 3))
        .error()
        .clone();
    assert!(
        error.permanent
            && error
                .message
                .ends_with("asks for 3 GPUs, and this worker has 2"),
        "{}",
        error.message
    );
}

#[test]
fn devices_are_handed_out_one_by_one() {
    let setup = setup();
    let ready = setup.dir.path().join("ready");
    let hold = format!(
        "echo $CUDA_VISIBLE_DEVICES > {}; exec sleep 60",
        ready.display()
    );
    let first = setup.offer(shell_with(&hold, |process| process.resources.gpus = 1));
    let device = wait_for_file(&ready);
    setup
        .run(shell_with("echo $CUDA_VISIBLE_DEVICES", |process| {
            process.resources.gpus = 1;
        }))
        .value();
    let mut both = [
        device.trim().to_owned(),
        setup.log_text("step").pop().unwrap(),
    ];
    both.sort();
    assert_eq!(both, ["0", "1"]);
    setup.cancel(first);
    setup.ended(first);
}

#[test]
fn memory_over_the_bound_is_out_of_memory() {
    let work = |script| shell_with(script, |process| process.resources.memory_bytes = 48 << 20);
    let setup = setup();
    let error = setup
        .run(work(
            "exec python3 -c 'x = bytearray(200 << 20); print(len(x))'",
        ))
        .error()
        .clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::User, "oom"),
        "{error:?}"
    );
    let usage = setup.run(work("true")).usage.unwrap();
    assert!(
        usage.memory_bytes > 0 && usage.memory_bytes <= 48 << 20,
        "{usage:?}"
    );
}

#[test]
fn a_long_attempt_reports_its_start_once() {
    let setup = setup();
    let offer = setup.offer(shell("exec sleep 1.3"));
    setup.wait(|report| {
        (report.offer == offer && matches!(report.event, TaskEvent::Started { .. })).then_some(())
    });
    setup.ended(offer).value();
    assert!(setup.early.borrow().is_empty());
}

#[test]
fn a_failed_attempts_directory_is_kept_and_a_good_ones_is_not() {
    let setup = setup();
    setup.run(shell("echo evidence > file; exit 1")).error();
    setup.run(shell("echo gone > file")).value();
    let dir = setup.dir.path().to_owned();
    setup.worker.stop(Duration::ZERO);
    let kept: Vec<PathBuf> = std::fs::read_dir(dir.join("work/failed"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        std::fs::read_to_string(kept[0].join("files/file")).unwrap(),
        "evidence\n"
    );
    assert!(
        std::fs::read_to_string(kept[0].join("script"))
            .unwrap()
            .contains("evidence")
    );
}

#[test]
fn stopping_lets_attempts_end_and_reports_the_rest_lost() {
    let setup = setup_with(|config| config.capacity.slots = 1, Containment::Cgroups);
    let ready = setup.dir.path().join("ready");
    let running = setup.offer(shell(&format!("echo > {}; exec sleep 60", ready.display())));
    let waiting = setup.offer(shell("true"));
    wait_for_file(&ready);
    let Setup {
        worker,
        reports,
        early,
        ..
    } = setup;
    worker.stop(Duration::from_millis(50));
    let all: Vec<Report> = early
        .into_inner()
        .into_iter()
        .chain(reports.into_iter().flatten())
        .collect();
    for offer in [running, waiting] {
        assert!(all.iter().any(|report| report.offer == offer
            && matches!(
                &report.event,
                TaskEvent::Ended {
                    outcome: Outcome::Lost { .. },
                    ..
                }
            )));
    }
}

#[test]
fn an_environment_that_cannot_be_is_a_users_failure() {
    let setup = setup();
    let error = setup
        .run(shell_with("true", |process| {
            process.env = vec![("A=B".into(), Some(SecretText::plain("x")))];
        }))
        .error()
        .clone();
    assert_eq!(error.reason, "spawn");
    let long = "x".repeat(4 << 20);
    let error = setup
        .run(shell_with("true", |process| {
            process.env = vec![("LONG".into(), Some(SecretText::plain(long.as_str())))];
        }))
        .error()
        .clone();
    assert!(error.message.contains("too long"), "{}", error.message);
}
