//! Plays scenarios: those kept, then those of new seeds. A failing one is made smaller and kept.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use kapell_sim::cluster::grow;
use kapell_sim::scenario::Scenario;
use kapell_sim::{generate, kept, play, shrink};

/// Every so many seeds are played twice, and must go the same way.
const TWICE: u64 = 16;

/// Simulates the node on virtual time, with everything that can go wrong.
#[derive(Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Seeds of several nodes, not of one.
    #[arg(long)]
    cluster: bool,
    /// Counts what clusters of one to twenty nodes do, with so many workers to a node.
    #[arg(long)]
    grow: Option<usize>,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this kept scenario.
    #[arg(long)]
    file: Option<std::path::PathBuf>,
    /// Says everything that happens.
    #[arg(long)]
    trace: bool,
    /// Says what the seed does, as data.
    #[arg(long)]
    show: bool,
    /// Does not make a failing scenario smaller.
    #[arg(long)]
    no_shrink: bool,
    /// Failing seeds after which it stops.
    #[arg(long, default_value_t = 10)]
    failures: u64,
}

struct Player {
    arguments: Arguments,
    passed: u64,
    failed: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(workers) = arguments.grow {
        return grows(workers);
    }
    let mut player = Player {
        arguments,
        passed: 0,
        failed: 0,
    };
    player.all()?;
    say(&format!(
        "{} passed, {} failed",
        player.passed, player.failed
    ))?;
    Ok(if player.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Prints counts of clusters, with so many workers to a node.
fn grows(workers: usize) -> anyhow::Result<ExitCode> {
    for nodes in [1, 5, 10, 20] {
        let steps = nodes * workers * grow::STEPS;
        say(&format!(
            "{nodes} nodes, {} workers, {steps} steps",
            nodes * workers
        ))?;
        let parts = grow::grow(nodes, nodes * workers);
        let parts = parts.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        for part in parts {
            let counts = &part.counts;
            let (commits, shards, takes) = (part.commits, counts.shards, counts.takes);
            let (name, offers) = (part.name, counts.offers);
            say(&format!(
                "  {name}: {commits} commits, {offers} attempts, {shards} shards taken in {takes}"
            ))?;
            let last = counts.last_offer_at / 1_000;
            say(&format!("    the last attempt was handed out at {last} ms"))?;
            for (kind, (words, names)) in &counts.words {
                say(&format!("    {kind}: {words} words, {names} names"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Player {
    fn all(&mut self) -> anyhow::Result<()> {
        if let Some(path) = self.arguments.file.clone() {
            return self.one("file", &kept::read(&path)?, true);
        }
        let (make, sort): (fn(u64) -> Scenario, _) = if self.arguments.cluster {
            (generate::cluster, "cluster-seed")
        } else {
            (generate::scenario, "seed")
        };
        if let Some(seed) = self.arguments.seed {
            return self.one(&format!("{sort}-{seed}"), &make(seed), true);
        }
        for (name, scenario) in kept::all()? {
            if scenario.cluster.is_some() == self.arguments.cluster {
                self.one(&name, &scenario, false)?;
            }
        }
        for seed in self.arguments.start..self.arguments.start + self.arguments.seeds {
            let name = format!("{sort}-{seed}");
            self.one(&name, &make(seed), seed % TWICE == 0)?;
            if self.failed >= self.arguments.failures {
                break;
            }
            if seed % 100 == 99 {
                say(&format!("… {} passed, {} failed", self.passed, self.failed))?;
            }
        }
        Ok(())
    }

    fn one(&mut self, name: &str, scenario: &Scenario, twice: bool) -> anyhow::Result<()> {
        if self.arguments.show {
            say(&serde_json::to_string_pretty(scenario)?)?;
        }
        let mut print = |line: &str| {
            // Whoever reads the trace may have seen enough.
            let _ = say(line);
        };
        let outcome = if self.arguments.trace {
            play(scenario, Some(&mut print))
        } else {
            play(scenario, None)
        };
        let mut failure = outcome.failure.clone();
        if failure.is_none() && twice && play(scenario, None).hash != outcome.hash {
            failure = Some(kapell_sim::Failure {
                what: "determinism",
                detail: "the same scenario went another way".to_owned(),
            });
        }
        let Some(failure) = failure else {
            self.passed += 1;
            return Ok(());
        };
        self.failed += 1;
        say(&format!(
            "{name} FAILED {}: {}",
            failure.what, failure.detail
        ))?;
        let keeps = name.contains("seed-") && failure.what != "generator";
        if keeps && !self.arguments.no_shrink && !self.arguments.trace {
            let (mut smaller, failure) = shrink::shrink(scenario, &failure);
            smaller.note = format!("{name}: {}: {}", failure.what, failure.detail);
            let path = kept::keep(&format!("{}-{name}", failure.what), &smaller)?;
            say(&format!("  smaller: {} {}", path.display(), failure.detail))?;
        }
        Ok(())
    }
}
