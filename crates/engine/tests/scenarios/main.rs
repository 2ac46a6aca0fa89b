//! Runs the scenarios of `docs/concepts/*.md` on the engine alone.
//!
//! A scenario is a section of a page with a workflow (```` ```yaml ````), what happens
//! (```` ```scenario ````) and what is expected to follow (```` ```timeline ````). The notation is in
//! `docs/concepts/README.md`. Each scenario runs twice: once as it is, and once with an owner that
//! forgets everything at every instant and goes on from history. Both must give the timeline of the
//! page, and replaying the events must give the same state.
//!
//! `cargo test -p kapell-engine --test scenarios -- --bless [FILTER]` writes the timelines that came
//! out into the pages. `histories::` are golden histories; see there for what `--bless` writes of them.

mod histories;
mod page;
mod script;
mod timeline;
mod world;

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use page::{Page, Scenario};
use world::{Memory, World};

/// What the command line asks for, as test runners ask it.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Default)]
struct Asked {
    list: bool,
    ignored: bool,
    bless: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Asked {
    fn read() -> Self {
        let mut asked = Self::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => asked.list = true,
                "--ignored" => asked.ignored = true,
                "--bless" => asked.bless = true,
                "--exact" => asked.exact = true,
                "--skip" => asked.skip.extend(args.next()),
                "--format" | "--color" | "--test-threads" | "--report-time" => {
                    args.next();
                }
                flag if flag.starts_with('-') => {}
                filter => asked.filters.push(filter.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(hit))
            && !self.skip.iter().any(hit)
    }
}

fn main() -> ExitCode {
    let asked = Asked::read();
    let mut said = String::new();
    let failed = match run(&asked, &mut said) {
        Ok(failed) => failed,
        Err(error) => {
            let _ = writeln!(said, "{error}");
            1
        }
    };
    let _ = std::io::stdout().write_all(said.as_bytes());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(asked: &Asked, said: &mut String) -> Result<usize, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/concepts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    let (mut passed, mut failed, mut blessed) = (0, 0, 0);
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let page = Page::read(&path, &text)?;
        let mut fresh = Vec::new();
        for scenario in page
            .scenarios
            .iter()
            .filter(|scenario| asked.wants(&scenario.name))
        {
            if asked.list {
                let _ = writeln!(said, "{}: test", scenario.name);
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| check(scenario, asked.bless)))
                .unwrap_or_else(|panic| Err(panic_text(&*panic)));
            match result {
                Ok(timeline) if timeline.trim_end() == scenario.timeline.trim_end() => passed += 1,
                Ok(timeline) => {
                    blessed += 1;
                    let _ = writeln!(said, "written {}", scenario.name);
                    fresh.push((scenario, timeline));
                }
                Err(message) => {
                    failed += 1;
                    let _ = writeln!(
                        said,
                        "FAILED {} ({}:{})\n{message}\n",
                        scenario.name,
                        path.display(),
                        scenario.line
                    );
                }
            }
        }
        if !fresh.is_empty() {
            std::fs::write(&path, Page::with_timelines(&text, &fresh))
                .map_err(|error| error.to_string())?;
        }
    }
    for name in histories::names() {
        let full = format!("histories::{name}");
        if !asked.wants(&full) {
            continue;
        }
        if asked.list {
            let _ = writeln!(said, "{full}: test");
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| histories::check(&name, asked.bless)))
            .unwrap_or_else(|panic| Err(panic_text(&*panic)));
        match result {
            Ok(false) => passed += 1,
            Ok(true) => {
                blessed += 1;
                let _ = writeln!(said, "written {full}");
            }
            Err(message) => {
                failed += 1;
                let _ = writeln!(said, "FAILED {full}\n{message}\n");
            }
        }
    }
    if !asked.list {
        let _ = writeln!(
            said,
            "{passed} scenarios passed, {failed} failed, {blessed} written"
        );
        if passed + failed + blessed == 0 && !asked.ignored {
            return Err("no scenario has that name".to_owned());
        }
    }
    Ok(failed)
}

/// Runs a scenario both ways. Gives the timeline that came out; if it is not `bless`ed it is the
/// expected one.
fn check(scenario: &Scenario, bless: bool) -> Result<String, String> {
    let timeline = World::run(scenario, Memory::Kept)?;
    if !bless && timeline.trim_end() != scenario.timeline.trim_end() {
        return Err(difference(&scenario.timeline, &timeline));
    }
    let forgetful = World::run(scenario, Memory::LostAtEachInstant)?;
    if forgetful != timeline {
        return Err(format!(
            "an owner that forgets everything at each instant came to another timeline\n{}",
            difference(&timeline, &forgetful)
        ));
    }
    Ok(timeline)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

/// The lines of both texts, those that only one has marked (longest common subsequence).
fn difference(expected: &str, found: &str) -> String {
    let before: Vec<&str> = expected.trim_end().lines().collect();
    let after: Vec<&str> = found.trim_end().lines().collect();
    let mut common = vec![vec![0_u32; after.len() + 1]; before.len() + 1];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            common[i][j] = if before[i] == after[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = String::from("  - expected, + found\n");
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            let _ = writeln!(out, "    {}", before[i]);
            (i, j) = (i + 1, j + 1);
        } else if j < after.len() && (i == before.len() || common[i][j + 1] > common[i + 1][j]) {
            let _ = writeln!(out, "  + {}", after[j]);
            j += 1;
        } else {
            let _ = writeln!(out, "  - {}", before[i]);
            i += 1;
        }
    }
    out
}
