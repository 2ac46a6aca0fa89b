//! Steps that run programs and functions, beside a bare loop that runs the same.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kapell_expr::Value;

use super::{Figures, figures, lines, per_second};
use crate::system::System;

pub(crate) fn shell(dir: &Path, n: usize) -> Result<Figures> {
    /// As many slots as Kapell has by default on a machine of up to four cores.
    const CONCURRENCY: usize = 8;
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

pub(crate) fn python(dir: &Path, n: usize) -> Result<Figures> {
    let system = System::open(&dir.join("data"), 2)?;
    let code = "workflow: calls\nparams:\n  n: { type: int }\nsteps:\n  work:\n    foreach: { i: \"${{ range(params.n) }}\" }\n    python: { code: \"def nothing():\\n    return None\\n\", function: nothing }\n";
    let workflow = system.register(code)?;
    let calls = |n: usize| Value::map([("n", Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))]);
    system.start(&workflow, calls(50));
    system.wait(1)?;
    let started = Instant::now();
    system.start(&workflow, calls(n));
    system.wait(1)?;
    let value = per_second(n, started);
    drop(system);
    let code = "def call(i):\n    return None\n";
    let (first, second) = (Bare::start(code)?, Bare::start(code)?);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.calls(n / 2));
        first.calls(n - n / 2)?;
        other
            .join()
            .unwrap_or_else(|_| anyhow::bail!("a loop panicked"))
    })?;
    Ok(Figures {
        raw: Some(per_second(n, started)),
        ..figures(value)
    })
}

/// A Python process that calls a function for each line it reads and answers with a line: what a
/// call in another process costs at least.
struct Bare {
    child: Child,
    send: ChildStdin,
    receive: BufReader<ChildStdout>,
}

impl Bare {
    fn start(code: &str) -> Result<Self> {
        let program = format!(
            "import json, sys\n{code}\nfor line in sys.stdin:\n    print(json.dumps(call(json.loads(line))), flush=True)\n"
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let send = child.stdin.take().context("no input")?;
        let receive = BufReader::new(child.stdout.take().context("no output")?);
        let mut bare = Self {
            child,
            send,
            receive,
        };
        // Warm, as Kapell's is.
        bare.call()?;
        Ok(bare)
    }

    fn call(&mut self) -> Result<()> {
        self.send.write_all(b"10\n")?;
        let mut line = String::new();
        self.receive.read_line(&mut line)?;
        ensure!(!line.is_empty(), "Python ended");
        Ok(())
    }

    fn calls(mut self, n: usize) -> Result<()> {
        (0..n).try_for_each(|_| self.call())?;
        drop(self.send);
        self.child.wait()?;
        Ok(())
    }
}

/// Milliseconds for a chain of `n` calls of fib(10) on warm hosts.
pub(crate) fn fib(dir: &Path, n: usize) -> Result<Figures> {
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
    let value = started.elapsed().as_secs_f64() * 1e3;
    drop(system);
    let code = "def call(n):\n    return n if n < 2 else call(n - 1) + call(n - 2)\n";
    let bare = Bare::start(code)?;
    let started = Instant::now();
    bare.calls(n)?;
    Ok(Figures {
        raw: Some(started.elapsed().as_secs_f64() * 1e3),
        ..figures(value)
    })
}
