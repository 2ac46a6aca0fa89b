//! What triggers and deadlines come to.

use super::super::parse;
use crate::spec::Dyn;

fn triggers(yaml: &str) -> Vec<crate::spec::Trigger> {
    let text = format!(
        "workflow: w\ntimezone: Europe/Berlin\nsteps: {{ a: {{ noop: }} }}\ntriggers:\n{yaml}"
    );
    let parsed = parse("w.yaml", &text);
    assert!(parsed.spec.is_some(), "{:?}", parsed.diagnostics);
    parsed.spec.unwrap().triggers.clone()
}

fn schedule(trigger: &crate::spec::Trigger) -> &crate::spec::Schedule {
    match &trigger.kind {
        crate::spec::TriggerKind::Schedule(schedule) => schedule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn jitter_is_shorter_than_the_time_between_the_nearest_due_times() {
    let problem = |trigger: &str| {
        let text =
            format!("workflow: w\nsteps: {{ a: {{ noop: }} }}\ntriggers: [{{ {trigger} }}]\n");
        let found = parse("w.yaml", &text).diagnostics;
        found.into_iter().next().map(|problem| {
            assert_eq!(problem.code, "out-of-range");
            problem.hint.unwrap_or_default()
        })
    };
    let apart = |text: &str| Some(format!("{text} apart"));
    for (trigger, found) in [
        ("cron: '0 * * * *', jitter: 59m", None),
        (
            "cron: '0 * * * *', jitter: 1h",
            apart("the nearest of them are 1h"),
        ),
        // Two hours of each day are next to each other, all others far away.
        (
            "cron: '0 2,3 * * *', jitter: 2h",
            apart("the nearest of them are 1h"),
        ),
        ("cron: '0 0 1,31 * *', jitter: 23h", None),
        (
            "cron: '0 0 1,31 * *', jitter: 1d",
            apart("the nearest of them are 1d"),
        ),
        (
            "cron: '*/10 * * * * *', jitter: 10s",
            apart("the nearest of them are 10s"),
        ),
        ("cron: '@yearly', jitter: 30d", None),
        ("every: 1m, jitter: 1m", apart("they are 1m")),
        ("every: 1m, jitter: 59s", None),
    ] {
        assert_eq!(problem(trigger), found, "{trigger}");
    }
}

#[test]
fn a_trigger_is_named_after_its_kind() {
    let found = triggers(
        "  - cron: '0 2 * * *'\n  - every: 1m\n  - signal: a\n  - webhook: { path: p, secret: s }\n  - { name: b, signal: a }\n",
    );
    let names: Vec<&str> = found.iter().map(|trigger| &*trigger.name).collect();
    assert_eq!(names, ["cron", "every", "signal", "webhook", "b"]);
}

#[test]
fn a_cron_expression_is_kept_as_five_or_six_fields_with_one_space_between() {
    use crate::spec::Timing;
    let found = triggers("  - cron: ' 0  2 * *   MON '\n  - { name: b, cron: '@Daily' }\n");
    assert_eq!(
        schedule(&found[0]).timing,
        Timing::Cron("0 2 * * MON".into())
    );
    assert_eq!(schedule(&found[1]).timing, Timing::Cron("0 0 * * *".into()));
}

#[test]
fn catch_up_of_all_is_bounded_where_it_says_nothing() {
    use crate::spec::Catchup;
    let found = triggers(
        "  - { cron: '0 2 * * *', catchup: all }\n  - { every: 1s }\n  - { name: c, every: 1s, catchup: { mode: all, max: 3, within: 1d, pace: 0s } }\n",
    );
    let all = Catchup::All {
        max: crate::limits::CATCHUP,
        within: None,
        pace: None,
    };
    assert_eq!(schedule(&found[0]).catchup, all);
    assert_eq!(schedule(&found[1]).catchup, Catchup::Latest);
    let some = Catchup::All {
        max: 3,
        within: Some(jiff::SignedDuration::from_hours(24)),
        pace: None,
    };
    assert_eq!(schedule(&found[2]).catchup, some);
}

#[test]
fn a_date_without_a_zone_is_in_that_of_the_trigger() {
    let at = |text: &str| Some(crate::Time::from(text.parse::<jiff::Timestamp>().unwrap()));
    let found = triggers(
        "  - { every: 1d, start: 2026-01-31, end: 2026-01-31T12:00:00Z }\n  - { name: b, every: 1d, timezone: America/New_York, start: 2026-01-31T01:00 }\n",
    );
    assert_eq!(schedule(&found[0]).start, at("2026-01-30T23:00:00Z"));
    assert_eq!(schedule(&found[0]).end, at("2026-01-31T12:00:00Z"));
    assert_eq!(schedule(&found[1]).start, at("2026-01-31T06:00:00Z"));
}

#[test]
fn a_schedule_that_comes_rarely_is_found_quickly() {
    // February 29 that is a Monday is 28 years apart; one that never comes is looked for longest.
    let text = "workflow: w\nsteps: { a: { noop: } }\ntriggers: [{ cron: '0 0 29 2 *' }, { name: b, cron: '59 59 23 29 FEB 1#5' }]\n";
    assert!(parse("w.yaml", text).spec.is_some());
}

#[test]
fn a_literal_of_with_is_of_the_parameters_type() {
    let text = "workflow: w\nparams: { day: { type: date }, code: { type: string }, codes: { type: list<string> } }\nsteps: { a: { noop: } }\ntriggers: [{ every: 1d, with: { day: 2026-01-31, code: 0755, codes: [no, 1.10] } }]\n";
    let parsed = parse("w.yaml", text);
    assert!(parsed.spec.is_some(), "{:?}", parsed.diagnostics);
    let spec = parsed.spec.unwrap();
    let Some(kapell_expr::Template::Literal(with)) = &spec.triggers[0].with else {
        panic!("{:?}", spec.triggers[0].with);
    };
    let with = with.as_map().unwrap();
    assert!(matches!(with["day"], kapell_expr::Value::Date(_)));
    assert_eq!(with["code"].as_str(), Some("0755"));
    assert_eq!(with["codes"].text(), r#"["no","1.10"]"#);
}

fn deadline(text: &str) -> Result<Dyn<jiff::SignedDuration>, String> {
    let text = format!("workflow: w\ndeadline: {text}\nsteps: {{ a: {{ noop: }} }}\n");
    let parsed = parse("w.yaml", &text);
    if let Some(spec) = parsed.spec {
        return Ok(spec.deadline.clone().unwrap());
    }
    let first = parsed.diagnostics.into_iter().next().unwrap();
    let hint = first.hint.unwrap_or_default();
    Err(format!("{} ({hint})", first.message))
}

#[test]
fn a_deadline_is_a_duration_a_time_of_day_or_within_a_moment_of_the_run() {
    let two_hours = jiff::SignedDuration::from_hours(2);
    for text in ["2h", "within 2h", "within 2h of scheduled"] {
        assert!(
            matches!(deadline(text), Ok(Dyn::Fixed(span)) if span == two_hours),
            "{text}"
        );
    }
    for text in [
        "within 2h of queued",
        "07:00",
        "07:00 Europe/Berlin",
        "\"07:00:30 UTC\"",
    ] {
        assert!(matches!(deadline(text), Ok(Dyn::Expr(_))), "{text}");
    }
    let wrong = |text| deadline(text).unwrap_err();
    assert!(
        wrong("soon").contains("`07:00 Europe/Berlin`"),
        "{}",
        wrong("soon")
    );
    assert!(wrong("07:00 Europe/Berln").contains("did you mean `Europe/Berlin`?"));
    assert!(
        wrong("\"25:00\"").contains("not `25:00`"),
        "{}",
        wrong("\"25:00\"")
    );
    assert!(wrong("within 2h of queud").contains("did you mean `queued`?"));
    assert!(wrong("within soon of queued").contains("not `soon`"));
}
