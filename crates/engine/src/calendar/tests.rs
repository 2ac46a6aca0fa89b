//! Against the IANA data of a spring and an autumn in three zones, one of which moves by half an hour.

use std::collections::BTreeSet;

use jiff::ToSpan;
use proptest::prelude::*;

use super::*;

const BERLIN: &str = "Europe/Berlin";
const NEW_YORK: &str = "America/New_York";
const LORD_HOWE: &str = "Australia/Lord_Howe";

fn schedule(timing: Timing) -> Schedule {
    Schedule {
        timing,
        timezone: None,
        catchup: kapell_model::spec::Catchup::Latest,
        jitter: None,
        start: None,
        end: None,
    }
}

fn cron(text: &str, zone: &str) -> Calendar {
    Calendar::new(&schedule(Timing::Cron(text.into())), zone).unwrap()
}

fn at(text: &str) -> Time {
    text.parse::<Timestamp>().unwrap().into()
}

/// Due times from the local midnight that a day begins with until the one that ends the next, as the
/// wall clock and offset show them.
fn days(calendar: &Calendar, day: &str) -> Vec<String> {
    let day: jiff::civil::Date = day.parse().unwrap();
    let zone = calendar.zone.clone();
    let begin: Time = day.to_zoned(zone.clone()).unwrap().timestamp().into();
    let end = day.checked_add(2.days()).unwrap().to_zoned(zone).unwrap();
    let end = Time(Time::from(end.timestamp()).0 - 1);
    let found = calendar.first(Time(begin.0 - 1), end, 10_000);
    assert_eq!(calendar.last(Time(begin.0 - 1), end, 10_000), found);
    let labels = found.iter().map(|due| calendar.label(*due));
    labels.collect()
}

#[test]
fn a_fixed_hour_that_is_skipped_runs_right_after() {
    assert_eq!(
        days(&cron("30 2 * * *", BERLIN), "2026-03-28"),
        ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00"]
    );
    assert_eq!(
        days(&cron("30 2 * * *", NEW_YORK), "2026-03-07"),
        ["2026-03-07T02:30:00-05:00", "2026-03-08T03:00:00-04:00"]
    );
    // Half an hour is skipped: from 02:00 to 02:30.
    assert_eq!(
        days(&cron("15 2 * * *", LORD_HOWE), "2026-10-03"),
        ["2026-10-03T02:15:00+10:30", "2026-10-04T02:30:00+11:00"]
    );
    assert_eq!(
        days(&cron("45 2 * * *", LORD_HOWE), "2026-10-03"),
        ["2026-10-03T02:45:00+10:30", "2026-10-04T02:45:00+11:00"]
    );
}

#[test]
fn a_fixed_hour_that_is_repeated_runs_once() {
    assert_eq!(
        days(&cron("30 2 * * *", BERLIN), "2026-10-24"),
        ["2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00"]
    );
    assert_eq!(
        days(&cron("30 1 * * *", NEW_YORK), "2026-10-31"),
        ["2026-10-31T01:30:00-04:00", "2026-11-01T01:30:00-04:00"]
    );
    // Half an hour is repeated: from 01:30 to 02:00.
    assert_eq!(
        days(&cron("45 1 * * *", LORD_HOWE), "2026-04-04"),
        ["2026-04-04T01:45:00+11:00", "2026-04-05T01:45:00+11:00"]
    );
}

#[test]
fn several_due_times_that_are_skipped_are_one() {
    assert_eq!(
        days(&cron("0,20,40 2,3 * * *", BERLIN), "2026-03-29")[..4],
        [
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:20:00+02:00",
            "2026-03-29T03:40:00+02:00",
            "2026-03-30T02:00:00+02:00"
        ]
    );
}

#[test]
fn every_hour_follows_elapsed_time() {
    let spring = days(&cron("0 * * * *", BERLIN), "2026-03-29");
    assert_eq!(
        spring[1..3],
        ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"]
    );
    assert_eq!(spring.len(), 23 + 24);
    let autumn = days(&cron("0 * * * *", NEW_YORK), "2026-11-01");
    assert_eq!(
        autumn[1..4],
        [
            "2026-11-01T01:00:00-04:00",
            "2026-11-01T01:00:00-05:00",
            "2026-11-01T02:00:00-05:00"
        ]
    );
    assert_eq!(autumn.len(), 25 + 24);
    let half = days(&cron("*/15 * * * *", LORD_HOWE), "2026-04-05");
    assert_eq!(
        half[6..10],
        [
            "2026-04-05T01:30:00+11:00",
            "2026-04-05T01:45:00+11:00",
            "2026-04-05T01:30:00+10:30",
            "2026-04-05T01:45:00+10:30"
        ]
    );
    assert_eq!(half.len(), 24 * 4 + 2 + 24 * 4);
    let half = days(&cron("*/15 * * * *", LORD_HOWE), "2026-10-04");
    assert_eq!(
        half[7..9],
        ["2026-10-04T01:45:00+10:30", "2026-10-04T02:30:00+11:00"]
    );
}

#[test]
fn every_second_hour_is_due_whenever_the_clock_shows_it() {
    assert_eq!(
        days(&cron("0 */2 * * *", BERLIN), "2026-10-25")[..4],
        [
            "2026-10-25T00:00:00+02:00",
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T04:00:00+01:00"
        ]
    );
    assert_eq!(
        days(&cron("0 */2 * * *", BERLIN), "2026-03-29")[..2],
        ["2026-03-29T00:00:00+01:00", "2026-03-29T04:00:00+02:00"]
    );
}

#[test]
fn seconds_come_first_and_names_are_read() {
    let calendar = cron("30 0 6 * * MON", "UTC");
    assert_eq!(
        calendar.next(at("2026-01-01T00:00:00Z")),
        Some(at("2026-01-05T06:00:30Z"))
    );
    assert_eq!(
        cron("@daily", "UTC").next(at("2026-01-01T00:00:00Z")),
        Some(at("2026-01-02T00:00:00Z"))
    );
}

#[test]
fn a_date_that_never_comes_is_never_due() {
    let calendar = cron("0 0 30 2 *", BERLIN);
    assert_eq!(calendar.next(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(calendar.previous(at("2026-01-01T00:00:00Z")), None);
    let calendar = cron("0 * 30 2 *", BERLIN);
    assert_eq!(calendar.next(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(calendar.previous(at("2026-01-01T00:00:00Z")), None);
}

#[test]
fn every_counts_from_the_start_else_from_1970() {
    let every = |hours| schedule(Timing::Every(SignedDuration::from_hours(hours)));
    let calendar = Calendar::new(&every(7), BERLIN).unwrap();
    let due = calendar.next(at("2026-03-29T00:00:00Z")).unwrap();
    assert_eq!(due.0 % (7 * 3_600_000_000), 0);
    let start = at("2026-03-28T10:30:00Z");
    let started = Schedule {
        start: Some(start),
        end: Some(at("2026-03-30T10:30:00Z")),
        ..every(24)
    };
    let calendar = Calendar::new(&started, BERLIN).unwrap();
    let found = calendar.first(Time::ZERO, at("2027-01-01T00:00:00Z"), 10);
    assert_eq!(found, [start, at("2026-03-29T10:30:00Z")]);
    assert_eq!(
        calendar.previous(at("2027-01-01T00:00:00Z")),
        Some(found[1])
    );
    assert_eq!(calendar.previous(start), None);
    assert_eq!(
        calendar.interval(start),
        (at("2026-03-27T10:30:00Z"), start)
    );
    assert_eq!(calendar.last_interval(at("2026-03-28T10:29:59Z")), None);
    assert_eq!(calendar.last_interval(found[1]), Some((start, found[1])));
}

#[test]
fn start_and_end_bound_a_cron() {
    let bounded = Schedule {
        start: Some(at("2026-05-02T06:00:00Z")),
        end: Some(at("2026-05-04T06:00:00Z")),
        ..schedule(Timing::Cron("0 6 * * *".into()))
    };
    let calendar = Calendar::new(&bounded, "UTC").unwrap();
    let found = calendar.first(Time::ZERO, at("2027-01-01T00:00:00Z"), 10);
    assert_eq!(
        found,
        [at("2026-05-02T06:00:00Z"), at("2026-05-03T06:00:00Z")]
    );
    assert_eq!(
        calendar.last(Time::ZERO, at("2027-01-01T00:00:00Z"), 1),
        found[1..]
    );
}

#[test]
fn what_cannot_be_read_is_quoted() {
    let error = Calendar::new(&schedule(Timing::Cron("0 25 * * *".into())), BERLIN).unwrap_err();
    assert!(error.contains("`0 25 * * *`"), "{error}");
    let error = Calendar::new(&schedule(Timing::Cron("0 0 0 1 1 * 2026".into())), BERLIN);
    assert!(error.is_err());
    let error =
        Calendar::new(&schedule(Timing::Cron("0 2 * * *".into())), "Mars/Base").unwrap_err();
    assert!(error.contains("`Mars/Base`"), "{error}");
}

/// Instants of a minute around a change of the clock, by looking at each of them.
fn by_looking(text: &str, zone: &str, from: Time, minutes: i64) -> Vec<Time> {
    let zone = TimeZone::get(zone).unwrap();
    let cron: Cron = text.parse().unwrap();
    let fixed = !goes_by_elapsed_time(text);
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last: Option<DateTime> = None;
    for minute in 0..=minutes {
        let now = Time(from.0 + minute * 60_000_000);
        let local = now.timestamp().to_zoned(zone.clone());
        let wall = local.datetime();
        let shown = cron.is_time_matching(&local).unwrap();
        if fixed {
            // Wall clock times that were passed over since the minute before.
            let mut skipped = false;
            if let Some(last) = last {
                let mut passed = last.checked_add(1.minute()).unwrap();
                while passed < wall {
                    skipped |= cron.is_time_matching(&passed).unwrap();
                    passed = passed.checked_add(1.minute()).unwrap();
                }
            }
            if skipped || shown && !seen.contains(&wall) {
                found.push(now);
            }
            seen.insert(wall);
        } else {
            found.extend(shown.then_some(now));
        }
        last = Some(wall);
    }
    found
}

fn expressions() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        Just("*".to_owned()),
        (1_u32..40).prop_map(|step| format!("*/{step}")),
        (0_u32..60).prop_map(|minute| minute.to_string()),
        Just("0,30,45".to_owned()),
    ];
    let hour = prop_oneof![
        Just("*".to_owned()),
        (1_u32..6).prop_map(|step| format!("*/{step}")),
        (0_u32..5).prop_map(|hour| hour.to_string()),
        Just("1-3".to_owned()),
    ];
    (minute, hour).prop_map(|(minute, hour)| format!("{minute} {hour} * * *"))
}

fn changes() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![
        Just((BERLIN, "2026-03-28T12:00:00Z")),
        Just((BERLIN, "2026-10-24T12:00:00Z")),
        Just((NEW_YORK, "2026-03-07T12:00:00Z")),
        Just((NEW_YORK, "2026-10-31T12:00:00Z")),
        Just((LORD_HOWE, "2026-04-04T03:00:00Z")),
        Just((LORD_HOWE, "2026-10-03T03:00:00Z")),
    ]
}

proptest! {
    #[test]
    fn due_times_are_those_that_looking_at_the_clock_finds(
        text in expressions(),
        (zone, from) in changes(),
    ) {
        let (from, minutes) = (at(from), 30 * 60);
        let calendar = cron(&text, zone);
        let until = Time(from.0 + minutes * 60_000_000);
        let found = calendar.first(Time(from.0 - 1), until, 10_000);
        prop_assert_eq!(&found, &by_looking(&text, zone, from, minutes));
        prop_assert_eq!(&found, &calendar.last(Time(from.0 - 1), until, 10_000));
    }

    #[test]
    fn next_and_previous_fit_together(
        text in expressions(),
        (zone, from) in changes(),
        offset in 0_i64..108_000_000_000,
    ) {
        let calendar = cron(&text, zone);
        let now = Time(at(from).0 + offset);
        let next = calendar.next(now).unwrap();
        let previous = calendar.previous(now).unwrap();
        prop_assert!(previous < now && now < next);
        prop_assert_eq!(calendar.previous(Time(next.0 + 1)), Some(next));
        prop_assert_eq!(calendar.next(Time(next.0 - 1)), Some(next));
        // Between the one before and the one after there is at most now itself.
        let between = calendar.next(previous).unwrap();
        prop_assert!(between == next || between == now);
    }

    #[test]
    fn what_was_found_before_changes_nothing(
        text in expressions(),
        (zone, from) in changes(),
        asks in prop::collection::vec((any::<bool>(), 0_i64..108_000), 1..40),
    ) {
        let calendar = cron(&text, zone);
        for (next, seconds) in asks {
            // Near what was found before: the due times themselves, and what is just beside them.
            let asked = Time(at(from).0 + seconds * 1_000_000);
            let found = if next { calendar.next(asked) } else { calendar.previous(asked) }.unwrap();
            for at in [asked.0, found.0 - 1, found.0, found.0 + 1, i64::midpoint(asked.0, found.0)] {
                let fresh = calendar.clone();
                prop_assert_eq!(calendar.next(Time(at)), fresh.next(Time(at)));
                let fresh = calendar.clone();
                prop_assert_eq!(calendar.previous(Time(at)), fresh.previous(Time(at)));
            }
        }
    }

    #[test]
    fn every_is_strictly_after_and_even(
        period in 1_i64..1_000_000_000_000,
        start in prop_oneof![Just(None), (0_i64..2_000_000_000_000_000).prop_map(Some)],
        now in 0_i64..2_000_000_000_000_000,
    ) {
        let every = Schedule {
            start: start.map(Time),
            ..schedule(Timing::Every(SignedDuration::from_micros(period)))
        };
        let calendar = Calendar::new(&every, "UTC").unwrap();
        let next = calendar.next(Time(now)).unwrap();
        prop_assert!(next.0 > now);
        prop_assert_eq!((next.0 - start.unwrap_or(0)).rem_euclid(period), 0);
        prop_assert!(next.0 - now <= period || start.is_some_and(|start| next.0 == start));
        prop_assert_eq!(calendar.previous(Time(next.0 + 1)), Some(next));
    }
}

fn hours(from: &str, to: &str, zone: &str) -> Hours {
    let off_peak = kapell_model::spec::OffPeak {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        timezone: Some(zone.into()),
    };
    Hours::new(&off_peak, "UTC").unwrap()
}

#[test]
fn hours_over_midnight_begin_each_evening() {
    let night = hours("22:00", "06:00", BERLIN);
    let opening = |text: &str| night.opening(at(text));
    assert_eq!(
        opening("2026-01-10T20:59:59Z"),
        Some(at("2026-01-10T21:00:00Z"))
    );
    assert_eq!(opening("2026-01-10T21:00:00Z"), None);
    assert_eq!(opening("2026-01-11T04:59:59Z"), None);
    assert_eq!(
        opening("2026-01-11T05:00:00Z"),
        Some(at("2026-01-11T21:00:00Z"))
    );
    // In summer an hour earlier.
    assert_eq!(
        opening("2026-07-10T19:00:00Z"),
        Some(at("2026-07-10T20:00:00Z"))
    );
}

#[test]
fn hours_of_which_a_change_of_the_clock_leaves_nothing_begin_on_the_next_day() {
    let early = hours("02:10", "02:50", BERLIN);
    assert_eq!(
        early.opening(at("2026-03-29T00:00:00Z")),
        Some(at("2026-03-30T00:10:00Z"))
    );
    let half = hours("02:30", "03:30", BERLIN);
    assert_eq!(
        half.opening(at("2026-03-29T00:59:59Z")),
        Some(at("2026-03-29T01:00:00Z"))
    );
    assert_eq!(half.opening(at("2026-03-29T01:29:59Z")), None);
}
