//! A directory to run commands in, and what they print made comparable.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use regex::Regex;
use tempfile::TempDir;

/// A workflow whose step waits until the file at the parameter `mark` is there.
pub(crate) const HOLD: &str = "\
workflow: hold
steps:
  quick: { noop: }
  wait_for_it:
    needs: [quick]
    shell: until test -e \"$MARK\"; do sleep 0.02; done
    env: { MARK: \"${{ params.mark }}\" }
    retry: { backoff: { initial: 1ms } }
params:
  mark: { type: string }
";

/// A directory with workflow files and a data directory.
pub(crate) struct Place {
    folder: TempDir,
    /// Ends of ids that were printed.
    known: RefCell<BTreeSet<String>>,
}

/// What a command printed, made comparable.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Said {
    /// All of it, for a snapshot.
    pub(crate) fn all(&self) -> String {
        let mut all = format!("exit {}\n{}", self.status, self.out);
        if !self.errors.is_empty() {
            all.push_str("---- standard error\n");
            all.push_str(&self.errors);
        }
        all
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            known: RefCell::default(),
        }
    }

    pub(crate) fn with(file: &str, text: &str) -> Self {
        let place = Self::new();
        place.write(file, text);
        place
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kapell"));
        command.args(arguments).current_dir(self.folder.path());
        for name in [
            "KAPELL_DATA_DIR",
            "KAPELL_STORE",
            "KAPELL_SERVER",
            "KAPELL_CA",
            "KAPELL_TOKEN",
            "KAPELL_LOG",
            "KAPELL_SLOTS",
            "NO_COLOR",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        command
            .env("USER", "ann")
            .env("TZ", "UTC")
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as somebody.
    pub(crate) fn kapell_as(&self, user: &str, arguments: &[&str]) -> Said {
        self.said(&self.command(arguments).env("USER", user).output().unwrap())
    }

    /// Runs a command to its end with this on its standard input.
    pub(crate) fn typed(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        self.said(&child.wait_with_output().unwrap())
    }

    /// Asks again and again until the answer is as it should be; that answer.
    pub(crate) fn until(
        &self,
        arguments: &[&str],
        is_so: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        for _ in 0..2_000 {
            // What is looked at may not be there yet.
            let output = self.command(arguments).output().unwrap();
            match serde_json::from_slice(&output.stdout) {
                Ok(found) if is_so(&found) => return found,
                _ => {}
            }
        }
        panic!("it never came to that: {}", self.json(arguments))
    }

    /// Runs a command to its end.
    pub(crate) fn kapell(&self, arguments: &[&str]) -> Said {
        self.said(&self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed.
    pub(crate) fn good(&self, arguments: &[&str]) -> Said {
        let said = self.kapell(arguments);
        assert_eq!(
            said.status,
            0,
            "kapell {}\n{}",
            arguments.join(" "),
            said.all()
        );
        said
    }

    /// What a command printed as JSON, as it is.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(arguments).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Starts a command whose lines can be waited for.
    pub(crate) fn start(&self, arguments: &[&str]) -> Started {
        let child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Started::of(child)
    }

    fn said(&self, output: &Output) -> Said {
        Said {
            status: output.status.code().unwrap_or(-1),
            out: self.comparable(&String::from_utf8_lossy(&output.stdout)),
            errors: self.comparable(&String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Without ids, times and amounts that differ each time.
    pub(crate) fn comparable(&self, text: &str) -> String {
        let id = Regex::new("[0-9a-hjkmnp-tv-z]{26}").unwrap();
        let mut known = self.known.borrow_mut();
        known.extend(id.find_iter(text).map(|id| id.as_str()[18..].to_owned()));
        let mut text = id.replace_all(text, "<run>").into_owned();
        for end in known.iter() {
            text = text.replace(end, "<run>");
        }
        let folder = self.folder.path().display().to_string();
        text = text.replace(&folder, "<dir>");
        for (pattern, word) in [
            (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "<when>"),
            (r"\d\d:\d\d:\d\d\.\d{3}", "<when>"),
            // What a step of a moment used is too little to be told, or is told: it depends on the machine.
            (r"  cpu \S+(  mem \S+ \S+)?|  mem \S+ \S+", ""),
            (r"\b(now|\d+[sm] ago)\b", "<ago>"),
            (r"\b(\d+m \d\d|\d+(\.\d)?m?)s\b", "<time>"),
            (r"process \d+", "process <pid>"),
            // Columns are as wide as what stands in them.
            (r"(\S)   +", "$1  "),
        ] {
            text = Regex::new(pattern)
                .unwrap()
                .replace_all(&text, word)
                .into_owned();
        }
        text
    }
}

/// A command under way.
pub(crate) struct Started {
    pub(crate) child: Child,
    out: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Started {
    /// A process whose output is piped.
    pub(crate) fn of(mut child: Child) -> Self {
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, errors }
    }

    /// Reads lines until one holds this text; that line.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let found = self
            .out
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(text));
        found.unwrap_or_else(|| {
            let errors: Vec<String> = self.errors.by_ref().map(Result::unwrap).collect();
            panic!("`{text}` was never printed\n{}", errors.join("\n"))
        })
    }

    /// The same of what it writes to standard error.
    pub(crate) fn until_error(&mut self, text: &str) -> String {
        let found = self
            .errors
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("`{text}` was never written"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    /// Its exit status and the rest of what it wrote to standard error.
    pub(crate) fn end(mut self) -> (i32, String) {
        let errors: String = self
            .errors
            .by_ref()
            .map(|line| line.unwrap() + "\n")
            .collect();
        (self.child.wait().unwrap().code().unwrap_or(-1), errors)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; what has ended already cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A directory that a test made read-only can be removed again.
        use std::os::unix::fs::PermissionsExt;
        let _ =
            std::fs::set_permissions(self.folder.path(), std::fs::Permissions::from_mode(0o755));
    }
}
