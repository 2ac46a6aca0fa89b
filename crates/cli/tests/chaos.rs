//! Kill -9 of the whole process at random moments of a run of thousands of steps.
//!
//! Each step writes lines with its item and the time into one ledger, before and after it sleeps, some
//! from a grandchild in a session of its own. Afterwards history is read: every item has succeeded
//! once, and the ledger holds no line of an item that is younger than the record of its success.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use kapell_engine::event::{AttemptResult, Fact, Next};
use kapell_model::{EntityKey, RunStatus};
use kapell_store::{RunFilter, SqliteStore, Store};

const STEPS: u32 = 5_000;
const KILLS: u32 = 50;
const SLOTS: &str = "128";

const WORKFLOW: &str = r#"workflow: ledger
params:
  ledger: { type: string }
  n: { type: int }
steps:
  work:
    foreach: { item: "${{ range(params.n) }}" }
    env:
      ITEM: "${{ item }}"
      LEDGER: "${{ params.ledger }}"
      SECONDS_TO_SLEEP: "${{ (item * 7919 % 2000) / 1000.0 }}"
    shell: |
      note() { printf '%s %s %s\n' "$ITEM" "$(date +%s%6N)" "$1" >> "$LEDGER"; }
      note began
      if [ $((ITEM % 5)) -eq 0 ]; then
        setsid sh -c 'sleep "$SECONDS_TO_SLEEP"; printf "%s %s grandchild\n" "$ITEM" "$(date +%s%6N)" >> "$LEDGER"' &
        wait
      else
        sleep "$SECONDS_TO_SLEEP"
      fi
      note ended
    retry: { platform: 1000, backoff: { initial: 10ms, factor: 1, max: 10ms } }
"#;

fn kapell(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kapell"))
        .args(arguments)
        .current_dir(folder)
        .env("KAPELL_SLOTS", SLOTS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// Waits so long, on a clock that nothing here depends on.
fn wait(millis: u64) {
    let (keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(millis));
    drop(keep);
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn fifty_kills_lose_and_repeat_nothing_that_was_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger.txt");
    let files = folder.path().join("flow");
    std::fs::create_dir(&files).expect("a folder for the workflow");
    std::fs::write(files.join("ledger.yaml"), WORKFLOW).expect("the workflow is written");
    let parameters = [format!("ledger={}", ledger.display()), format!("n={STEPS}")];
    let first = [
        "run",
        "flow/ledger.yaml",
        "-p",
        &parameters[0],
        "-p",
        &parameters[1],
    ];
    let mut seed = 0x5eed_u64;
    for kill in 0..KILLS {
        let mut child = match kill {
            // The run must be recorded before the first kill, or there is nothing to resume.
            0 => kapell(folder.path(), &first),
            _ => kapell(folder.path(), &["resume"]),
        };
        let shortest = if kill == 0 { 1_000 } else { 100 };
        wait(shortest + random(&mut seed) % 1_400);
        child.kill().expect("the process is killed");
        child.wait().expect("the process is gone");
    }
    let last = kapell(folder.path(), &["resume"])
        .wait_with_output()
        .expect("the last one ends");
    assert!(
        last.status.success(),
        "{}",
        String::from_utf8_lossy(&last.stderr)
    );
    check(&folder.path().join(".kapell"), &ledger);
}

fn check(data: &Path, ledger: &Path) {
    let store = SqliteStore::open(data).expect("the store opens");
    let runs = store
        .list_runs(&RunFilter::default(), 10)
        .expect("runs are listed");
    assert_eq!(runs.len(), 1, "one run was made: {runs:?}");
    assert_eq!(runs[0].status, RunStatus::Succeeded);
    let mut succeeded: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    let mut lost = 0;
    let history = store
        .history(&EntityKey::Run(runs[0].id), 1, usize::MAX)
        .expect("history is read");
    for (_, chunk) in history {
        for event in kapell_engine::chunk::decode::<kapell_engine::event::Event>(&chunk)
            .expect("events are read")
        {
            let Some(Fact::AttemptEnded(ended)) = &event.fact else {
                continue;
            };
            if ended.result == AttemptResult::Lost as u32 {
                lost += 1;
            }
            if ended.next == Next::Succeeded as u32 {
                succeeded
                    .entry(ended.unit.item - 1)
                    .or_default()
                    .push(event.at);
            }
        }
    }
    assert_eq!(succeeded.len(), STEPS as usize, "every item has succeeded");
    let twice: Vec<_> = succeeded
        .iter()
        .filter(|(_, ends)| ends.len() != 1)
        .collect();
    assert!(
        twice.is_empty(),
        "items recorded as succeeded more than once: {twice:?}"
    );
    let text = std::fs::read_to_string(ledger).expect("the ledger is read");
    let mut lines = 0;
    for line in text.lines() {
        let mut words = line.split(' ');
        let item: u32 = words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("an item");
        let at: i64 = words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a time");
        let recorded = succeeded[&item][0];
        assert!(
            at <= recorded,
            "item {item} wrote {line:?} after its success was recorded at {recorded}"
        );
        lines += 1;
    }
    assert!(lines >= 2 * STEPS, "every item wrote its lines: {lines}");
    assert!(lost > 0, "the kills hit attempts that ran");
}
