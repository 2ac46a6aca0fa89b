use std::time::Duration;

use super::lease::Lease;

#[test]
fn nothing_runs_without_a_lease() {
    let lease = Lease::default();
    assert!(!lease.allows(), "there is none yet");
    lease.begin(Duration::from_secs(30), Lease::clock());
    assert!(lease.allows());
    // What was asked for at boot is long over.
    lease.begin(Duration::from_millis(1), Duration::ZERO);
    assert!(!lease.allows());
    let beat = lease.beat();
    lease.renewed(beat);
    lease.begin(Duration::from_secs(30), Lease::clock());
    assert!(lease.allows());
    // In the server's own process.
    lease.begin(Duration::ZERO, Duration::ZERO);
    assert!(lease.allows() && lease.pause().is_none());
}
