//! Runs every example through the built binary, as a newcomer would, and checks what it gives.
//!
//! Each example has a data directory of its own, so none can lean on what another left behind.

mod cases;
mod kapell;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::cases::{CASES, Case};
use self::kapell::Kapell;

/// Runs the examples that `arguments` name, all of them if it names none.
pub(crate) fn run(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let (binary, names) = match arguments {
        [flag, path, names @ ..] if flag == "--bin" => (PathBuf::from(path), names),
        names => (root.join("target/debug/kapell"), names),
    };
    let binary = binary
        .canonicalize()
        .with_context(|| format!("cannot find {}; build it first", binary.display()))?;
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| name == case.name))
        .collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| !CASES.iter().any(|case| case.name == name.as_str()))
    {
        let known: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!(
            "there is no example `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    let mut failed = 0;
    for case in &cases {
        match run_one(root, &binary, case) {
            Ok(()) => writeln!(out, "ok      {}", case.name)?,
            Err(error) => {
                failed += 1;
                writeln!(out, "failed  {}: {error:#}", case.name)?;
            }
        }
        out.flush()?;
    }
    writeln!(out, "{} passed, {failed} failed", cases.len() - failed)?;
    ensure!(failed == 0, "examples: {failed} failed");
    Ok(())
}

fn run_one(root: &Path, binary: &Path, case: &Case) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kapell = Kapell::new(binary, &root.join("examples"), folder.path());
    for file in case.files {
        kapell.succeeds(&["validate", file])?;
    }
    (case.check)(&kapell)
}

/// An error that shows both if a map of `found` lacks an entry of `expected`, or anything else differs.
fn expect_part(found: &Value, expected: &Value) -> Result<()> {
    ensure!(holds(found, expected), "expected {expected}, found {found}");
    Ok(())
}

fn holds(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value))),
        (found, expected) => found == expected,
    }
}
