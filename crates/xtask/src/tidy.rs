//! What the compiler and clippy do not see: which crate may use which, how long files are, what things are
//! called, what is left lying about, and that every error has its page.

mod edges;
mod names;
mod text;
mod tree;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use kapell_model::ErrorCode;

use self::tree::SourceFile;

/// Lines after which a file is listed.
const LONG_LINES: usize = 600;
/// Lines after which a file is a problem.
const MAX_LINES: usize = 1_000;

/// Checks the tree below `root` and writes what it found to `out`. An error if there is a problem.
pub(crate) fn run(root: &Path, out: &mut dyn Write) -> Result<()> {
    let files = tree::read(root)?;
    ensure!(
        files.iter().any(|file| file.path == "Cargo.toml"),
        "{} is not the project's root",
        root.display()
    );
    for (lines, path) in long(&files) {
        writeln!(out, "long: {path} has {lines} lines; is there a seam?")?;
    }
    let problems = problems(&files);
    for problem in &problems {
        writeln!(out, "error: {problem}")?;
    }
    ensure!(
        problems.is_empty(),
        "tidy: {} in {} files",
        count(problems.len(), "problem"),
        files.len()
    );
    writeln!(out, "tidy: {} files, no problem", files.len())?;
    Ok(())
}

/// `3 problems`, `1 problem`.
fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

/// Source files worth a look, longest first.
fn long(files: &[SourceFile]) -> Vec<(usize, &str)> {
    let mut long: Vec<_> = files
        .iter()
        .filter(|file| file.is_source())
        .map(|file| (file.text.lines().count(), file.path.as_str()))
        .filter(|(lines, _)| (LONG_LINES + 1..=MAX_LINES).contains(lines))
        .collect();
    long.sort_unstable_by(|a, b| b.cmp(a));
    long
}

/// Everything that must be mended, in the order of the files.
fn problems(files: &[SourceFile]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        length(file, &mut problems);
        edges::check(file, &mut problems);
        names::check(file, &mut problems);
        text::check(file, &mut problems);
    }
    error_pages(files, ErrorCode::ALL, &mut problems);
    problems
}

fn length(file: &SourceFile, problems: &mut Vec<String>) {
    let lines = file.text.lines().count();
    if file.is_source() && lines > MAX_LINES {
        problems.push(format!(
            "{}: {lines} lines; a file has at most {MAX_LINES}",
            file.path
        ));
    }
}

/// Every code has a page and every page a code.
fn error_pages(files: &[SourceFile], codes: &[ErrorCode], problems: &mut Vec<String>) {
    const FOLDER: &str = "docs/errors/";
    for code in codes {
        let page = format!("{FOLDER}{code}.md");
        if !files.iter().any(|file| file.path == page) {
            problems.push(format!(
                "{page}: missing; the error code `{code}` has no page"
            ));
        }
    }
    for file in files {
        let Some(name) = file
            .path
            .strip_prefix(FOLDER)
            .and_then(|name| name.strip_suffix(".md"))
        else {
            continue;
        };
        if name != "README" && !codes.iter().any(|code| code.name() == name) {
            problems.push(format!("{}: there is no error code `{name}`", file.path));
        }
    }
}
