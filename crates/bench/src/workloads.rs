//! The workloads. Each returns its figure and that of its raw reference.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kapell_expr::Value;
use kapell_model::EntityKey;
use kapell_store::{Commit, EntityWrite, SqliteStore, Store};
use serde::{Deserialize, Serialize};

use crate::system::{Recorded, System};

/// What one run of a workload measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// In the workload's unit.
    pub value: f64,
    /// The 99th percentile, where there is one.
    pub p99: Option<f64>,
    /// The raw reference in the same unit.
    pub raw: Option<f64>,
    /// Peak resident memory in bytes.
    pub peak: u64,
}

/// Runs a workload once.
pub(crate) fn run(name: &str, n: usize) -> Result<Figures> {
    let dir = data_dir()?;
    let figures = match name {
        "fanout" => fanout(dir.path(), n),
        "many" => many(dir.path(), n),
        "chain" => chain(dir.path(), n),
        "runs" => runs(dir.path(), n),
        "shell" => shell(dir.path(), n),
        "python" => python(dir.path(), n),
        "fib" => fib(dir.path(), n),
        "start" => start(dir.path(), n),
        "idle" => idle(dir.path()),
        _ => bail!("there is no workload `{name}`"),
    }?;
    Ok(Figures {
        peak: peak_memory().unwrap_or(0).max(figures.peak),
        ..figures
    })
}

/// A directory beside the binary: the same disk as the build, never a memory file system.
fn data_dir() -> Result<tempfile::TempDir> {
    let beside = std::env::current_exe()?;
    let parent = beside.parent().context("the binary is in no directory")?;
    Ok(tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(parent)?)
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn figures(value: f64) -> Figures {
    Figures {
        value,
        p99: None,
        raw: None,
        peak: 0,
    }
}

/// Commits of the same shape on a fresh store and nothing else; seconds.
fn replay(dir: &Path, commits: Vec<Recorded>) -> Result<f64> {
    let store = SqliteStore::open(&dir.join("raw"))?;
    let mut seqs = std::collections::BTreeMap::<EntityKey, u64>::new();
    let mut shards: Vec<_> = commits
        .iter()
        .flat_map(|(entities, _)| entities.iter().map(|(key, _, _)| key.shard()))
        .collect();
    shards.sort_unstable();
    shards.dedup();
    let mut leases: std::collections::BTreeMap<_, _> = store
        .acquire(&shards)?
        .into_iter()
        .map(|lease| (lease.shard, lease))
        .collect();
    let mut prepared = Vec::with_capacity(commits.len());
    for (entities, runs) in commits {
        let mut shards: Vec<_> = entities.iter().map(|(key, _, _)| key.shard()).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut fence = Vec::with_capacity(shards.len());
        for shard in shards {
            let lease = leases.get_mut(&shard).context("a shard was not acquired")?;
            fence.push(*lease);
            lease.seq += 1;
        }
        let entities = entities
            .into_iter()
            .map(|(key, len, wake_at)| {
                let seq = seqs.entry(key.clone()).or_default();
                *seq += 1;
                EntityWrite {
                    key,
                    seq: *seq,
                    chunk: vec![7; len],
                    wake_at,
                    snapshot: None,
                    forget: false,
                    pages: Vec::new(),
                }
            })
            .collect();
        prepared.push(Commit {
            shards: fence,
            entities,
            runs,
        });
    }
    let started = Instant::now();
    for commit in &prepared {
        store.commit(commit)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn recorded(system: &System) -> Vec<Recorded> {
    std::mem::take(&mut *system.store.commits.lock())
}

/// Seconds a workload took, and what it committed.
fn measured(
    dir: &Path,
    steps: usize,
    runs: usize,
    text: &[&str],
    start: impl Fn(&System, &[Arc<str>]),
) -> Result<Figures> {
    let system = System::open(&dir.join("data"), 16)?;
    let workflows = text
        .iter()
        .map(|text| system.register(text))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    start(&system, &workflows);
    system.wait(runs)?;
    let value = per_second(steps, started);
    let commits = recorded(&system);
    drop(system);
    let peak = peak_memory().unwrap_or(0);
    let raw = steps as f64 / replay(dir, commits)?;
    Ok(Figures {
        raw: Some(raw),
        peak,
        ..figures(value)
    })
}

/// Text made line by line.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let lines: Vec<String> = (0..count).map(line).collect();
    lines.concat()
}

fn fanout(dir: &Path, n: usize) -> Result<Figures> {
    let text = "workflow: fanout\nparams:\n  n: { type: int }\nsteps:\n  work:\n    foreach: { i: \"${{ range(params.n) }}\" }\n    noop: {}\n";
    measured(dir, n, 1, &[text], |system, workflows| {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        system.start(&workflows[0], Value::map([("n", Value::Int(n))]));
    })
}

/// Runs of a hundred steps each: a chain, a diamond, a foreach, a loop.
fn many(dir: &Path, runs: usize) -> Result<Figures> {
    let chain: String = (0..100)
        .map(|step| match step {
            0 => "  s0: { noop: {} }\n".to_owned(),
            step => format!("  s{step}: {{ needs: [s{}], noop: {{}} }}\n", step - 1),
        })
        .collect();
    let diamond = lines(98, |step| {
        format!("  m{step}: {{ needs: [a], noop: {{}} }}\n")
    });
    let last: Vec<String> = (0..98).map(|step| format!("m{step}")).collect();
    let texts = [
        format!("workflow: chain\nsteps:\n{chain}"),
        format!("workflow: diamond\nsteps:\n  a: {{ noop: {{}} }}\n{diamond}  z: {{ needs: [{}], noop: {{}} }}\n", last.join(", ")),
        "workflow: items\nsteps:\n  a: { noop: {} }\n  b: { needs: [a], foreach: { i: \"${{ range(98) }}\" }, noop: {} }\n  c: { needs: [b], noop: {} }\n".to_owned(),
        "workflow: cycle\nsteps:\n  a:\n    loop:\n      vars: { n: 0 }\n      while: \"${{ vars.n < 50 }}\"\n      next: { n: \"${{ vars.n + 1 }}\" }\n      steps: { b: { noop: {} }, c: { needs: [b], noop: {} } }\n".to_owned(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    measured(dir, runs * 100, runs, &texts, |system, workflows| {
        for run in 0..runs {
            system.start(&workflows[run % workflows.len()], Value::Null);
        }
    })
}

fn runs(dir: &Path, runs: usize) -> Result<Figures> {
    let text = "workflow: three\nsteps:\n  a: { noop: {} }\n  b: { needs: [a], noop: {} }\n  c: { needs: [b], noop: {} }\n";
    measured(dir, runs, runs, &[text], |system, workflows| {
        for _ in 0..runs {
            system.start(&workflows[0], Value::Null);
        }
    })
}

/// Microseconds a step of a chain, from the ends that history keeps.
fn chain(dir: &Path, n: usize) -> Result<Figures> {
    let steps: String = (0..n)
        .map(|step| match step {
            0 => "  s0: { noop: {} }\n".to_owned(),
            step => format!("  s{step}: {{ needs: [s{}], noop: {{}} }}\n", step - 1),
        })
        .collect();
    let system = System::open(&dir.join("data"), 16)?;
    let workflow = system.register(&format!("workflow: chain\nsteps:\n{steps}"))?;
    // One run to warm up, one to measure.
    for _ in 0..2 {
        recorded(&system);
        let (send, receive) = std::sync::mpsc::channel();
        let _ = send;
        let _: Option<()> = receive.try_recv().ok();
        system.start(&workflow, Value::Null);
        system.wait(1)?;
    }
    let commits = recorded(&system);
    let run = commits
        .iter()
        .flat_map(|(entities, _)| entities)
        .find_map(|(key, _, _)| matches!(key, EntityKey::Run(_)).then(|| key.clone()))
        .context("no run was committed")?;
    let mut ends = Vec::with_capacity(n);
    for (_, chunk) in system.store.inner.history(&run, 1, usize::MAX)? {
        ends.extend(ends_of(&chunk)?);
    }
    drop(system);
    let mut steps: Vec<i64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    let at = |share: usize| -> f64 {
        let place = steps.len() * share / 100;
        steps
            .get(place.min(steps.len().saturating_sub(1)))
            .map_or(0.0, |micros| *micros as f64)
    };
    let seconds = replay(dir, commits.clone())?;
    let raw = seconds * 1e6 / commits.len().max(1) as f64;
    Ok(Figures {
        p99: Some(at(99)),
        raw: Some(raw),
        ..figures(at(50))
    })
}

fn ends_of(chunk: &[u8]) -> Result<Vec<i64>> {
    use kapell_node::engine::event::{Fact, decode_chunk};
    Ok(decode_chunk(chunk)?
        .into_iter()
        .filter_map(|event| match event.fact {
            Some(Fact::AttemptEnded(ended)) => Some(event.at + ended.ended),
            _ => None,
        })
        .collect())
}

fn shell(dir: &Path, n: usize) -> Result<Figures> {
    const CONCURRENCY: usize = 4;
    let system = System::open(&dir.join("data"), CONCURRENCY)?;
    let workflow = system.register(&format!(
        "workflow: shell\nsteps:\n  work:\n    foreach: {{ i: \"${{{{ range({n}) }}}}\" }}\n    exec: [/bin/true]\n"
    ))?;
    let started = Instant::now();
    system.start(&workflow, Value::Null);
    system.wait(1)?;
    let value = per_second(n, started);
    drop(system);
    let started = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            scope.spawn(|| {
                while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < n {
                    let status = Command::new("/bin/true").stdin(Stdio::null()).status();
                    assert!(
                        status.is_ok_and(|status| status.success()),
                        "/bin/true failed"
                    );
                }
            });
        }
    });
    Ok(Figures {
        raw: Some(per_second(n, started)),
        ..figures(value)
    })
}

fn python(dir: &Path, n: usize) -> Result<Figures> {
    let system = System::open(&dir.join("data"), 2)?;
    let code = "workflow: calls\nparams:\n  n: { type: int }\nsteps:\n  work:\n    foreach: { i: \"${{ range(params.n) }}\" }\n    python: { code: \"def nothing():\\n    return None\\n\", function: nothing }\n";
    let workflow = system.register(code)?;
    let calls = |n: usize| Value::map([("n", Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))]);
    system.start(&workflow, calls(50));
    system.wait(1)?;
    let started = Instant::now();
    system.start(&workflow, calls(n));
    system.wait(1)?;
    Ok(figures(per_second(n, started)))
}

/// Milliseconds for a chain of `n` calls of fib(10) on warm hosts.
fn fib(dir: &Path, n: usize) -> Result<Figures> {
    let system = System::open(&dir.join("data"), 2)?;
    let code = "\\ndef fib(n):\\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\\n";
    let steps = lines(n, |step| {
        let needs = if step == 0 {
            String::new()
        } else {
            format!("needs: [s{}], ", step - 1)
        };
        format!(
            "  s{step}: {{ {needs}python: {{ code: \"{code}\", function: fib }}, with: {{ n: 10 }} }}\n"
        )
    });
    let workflow = system.register(&format!("workflow: fib\nsteps:\n{steps}"))?;
    system.start(&workflow, Value::Null);
    system.wait(1)?;
    let started = Instant::now();
    system.start(&workflow, Value::Null);
    system.wait(1)?;
    Ok(figures(started.elapsed().as_secs_f64() * 1e3))
}

fn kapell() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("kapell");
    if !path.exists() {
        bail!("build the `kapell` binary first: `cargo build --release`");
    }
    Ok(path)
}

/// Milliseconds of `kapell run` of one no-op step in a new directory, the whole process.
fn start(dir: &Path, n: usize) -> Result<Figures> {
    let kapell = kapell()?;
    let mut times = Vec::new();
    for round in 0..n {
        let folder = dir.join(format!("start-{round}"));
        std::fs::create_dir(&folder)?;
        std::fs::write(
            folder.join("one.yaml"),
            "workflow: one\nsteps:\n  a: { noop: {} }\n",
        )?;
        let started = Instant::now();
        let output = Command::new(&kapell)
            .args(["run", "one.yaml"])
            .current_dir(&folder)
            .output()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(Figures {
        ..figures(times[times.len() / 2])
    })
}

/// MiB that a Kapell which has nothing to do keeps resident.
fn idle(dir: &Path) -> Result<Figures> {
    let system = System::open(&dir.join("data"), 16)?;
    let workflow = system.register("workflow: one\nsteps:\n  a: { noop: {} }\n")?;
    system.start(&workflow, Value::Null);
    system.wait(1)?;
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm
        .split_whitespace()
        .nth(1)
        .context("no resident pages")?
        .parse()?;
    Ok(figures(pages * 4096.0 / 1024.0 / 1024.0))
}
