//! Speed, as ratios to the raw limit of the same machine in the same minute.
//!
//! `kapell-bench` runs every workload of the table and prints it; `target/bench.json` holds the same.
//! `kapell-bench one NAME N` runs one workload once in this process and prints its figures as JSON:
//! the table is made of such runs, each in a process of its own, next to its raw reference.
//!
//! Start reading at `wanted`, the rows and their bounds; then `workloads`, a file for each kind. Two
//! kinds of system are measured: `system`, whole Kapells in the process that measures, and `kapell`,
//! the binary that users have, which must be built beside this one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::cast_precision_loss, reason = "figures are rounded anyway")]

mod kapell;
mod load;
mod raw;
mod recorder;
mod system;
mod table;
mod wanted;
mod workloads;

use anyhow::{Result, bail};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["one", name, n] => {
            let figures = workloads::run(name, n.parse()?)?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
        // What `remote` starts.
        ["work", url, dir] => workloads::remote::work(url, dir),
        // What `recover` starts and kills.
        ["make", case, dir, n] => workloads::recover::make(case, dir, n.parse()?),
        [] => table::all(&[], 5),
        ["--only", names] => table::all(&names.split(',').collect::<Vec<_>>(), 5),
        ["--pairs", pairs] => table::all(&[], pairs.parse()?),
        ["--only", names, "--pairs", pairs] => {
            table::all(&names.split(',').collect::<Vec<_>>(), pairs.parse()?)
        }
        _ => bail!("usage: kapell-bench [--only NAME,…] [--pairs N] | one NAME N"),
    }
}
