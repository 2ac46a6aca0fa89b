//! Tasks of the project that `make` calls: checks that no compiler makes, generated pages, the examples.
//!
//! Start reading at [`main`]; each task is one module and one command. None of this is in the product.

mod api;
mod cluster;
mod deploy;
mod examples;
mod reference;
mod tidy;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: xtask <task>

tasks:
  tidy                        check crate edges, file lengths, names and error pages
  examples [--bin PATH] [NAME...]
                              run the examples through the built binary and check what they give
  api [--bin PATH] [PHASES]   test the API of a real server against its document
  cluster [--bin PATH] [--store URL] [-p NAME=VALUE]...
                              run the flights example on a cluster of this machine, and kill some of it
  deploy [--bin PATH]         check what is in deploy/: chart, alerts, dashboard, Compose file
  reference                   write docs/reference/ from the code
";

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    match task(&mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell it to if this fails too.
            let _ = writeln!(out, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(out: &mut dyn Write) -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let root = root();
    match arguments
        .split_first()
        .map(|(task, rest)| (task.as_str(), rest))
    {
        Some(("tidy", [])) => tidy::run(&root, out),
        Some(("examples", rest)) => examples::run(&root, rest, out),
        Some(("api", rest)) => api::run(&root, rest, out),
        Some(("cluster", rest)) => cluster::run(&root, rest, out),
        Some(("deploy", rest)) => deploy::run(&root, rest, out),
        Some(("reference", [])) => reference::write(&root, out),
        Some(("help" | "--help" | "-h", [])) => Ok(out.write_all(USAGE.as_bytes())?),
        Some(_) | None => bail!("{USAGE}"),
    }
}

/// The project's root, two folders above this crate.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
