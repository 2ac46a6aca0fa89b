use std::sync::Arc;

use super::*;

fn wants(priority: u8, waits: u32) -> Wants {
    [((Arc::from("default"), priority), waits)]
        .into_iter()
        .collect()
}

#[test]
fn what_waits_that_was_not_said_is_said_at_once() {
    let mut asking = Asking::default();
    assert_eq!(asking.wants(wants(50, 1)), Some(wants(50, 1)));
    assert_eq!(
        asking.wants(wants(50, 2)),
        None,
        "it was said that some does"
    );
    assert_eq!(asking.wants(wants(50, 4)), Some(wants(50, 4)));
    let urgent = asking.wants(wants(90, 1)).unwrap();
    assert!(urgent.contains_key(&(Arc::from("default"), 90)));
}

#[test]
fn that_less_waits_is_said_when_it_lasts() {
    let mut asking = Asking::default();
    asking.wants(wants(50, 8));
    for _ in 0..10 {
        assert_eq!(asking.wants(Wants::new()), None);
        assert_eq!(asking.wants(wants(50, 8)), None);
        assert_eq!(asking.wants(Wants::new()), None);
        assert_eq!(asking.tick(), None, "some did since the tick before");
        asking.wants(wants(50, 8));
    }
    asking.wants(wants(50, 2));
    assert_eq!(asking.tick(), None);
    assert_eq!(asking.tick(), Some(wants(50, 2)));
    asking.wants(Wants::new());
    assert_eq!(asking.tick(), None);
    assert_eq!(asking.tick(), Some(Wants::new()));
    assert_eq!(asking.tick(), None);
}

#[test]
fn that_a_little_more_waits_is_said_with_the_next_tick() {
    let mut asking = Asking::default();
    asking.wants(wants(50, 8));
    asking.wants(wants(50, 16));
    assert_eq!(asking.tick(), Some(wants(50, 16)));
}
