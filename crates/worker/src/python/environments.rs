//! Python environments with requirements: installed once, cached by hash.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use kapell_api::task::TaskError;
use kapell_model::limits;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use crate::failure;
use crate::shared::Shared;

/// Known environments: the Python of each set of requirements.
#[derive(Default)]
pub(crate) struct Environments(Mutex<HashMap<Vec<Arc<str>>, PathBuf>>);

impl Environments {
    /// True if nothing need be installed.
    pub(crate) fn is_ready(&self, requirements: &[Arc<str>]) -> bool {
        requirements.is_empty() || self.0.lock().contains_key(requirements)
    }

    /// The Python that has these requirements; installs them if need be, which blocks.
    pub(crate) fn python(
        &self,
        shared: &Shared,
        requirements: &[Arc<str>],
        note: &dyn Fn(&str),
    ) -> Result<PathBuf, Box<TaskError>> {
        let base = shared
            .python
            .clone()
            .unwrap_or_else(|| PathBuf::from("python3"));
        if requirements.is_empty() {
            return Ok(base);
        }
        if let Some(python) = self.0.lock().get(requirements) {
            return Ok(python.clone());
        }
        let hash =
            blake3::hash(format!("{}\n{}", base.display(), requirements.join("\n")).as_bytes())
                .to_hex();
        let root = shared.cache.join("envs");
        let home = root.join(&hash[..32]);
        let python = home.join("bin/python");
        let system = |error: io::Error| {
            failure::platform(
                "requirements",
                format!("cannot make a Python environment: {error}"),
            )
        };
        fs::create_dir_all(&root).map_err(system)?;
        let lock = File::create(root.join(format!("{}.lock", &hash[..32]))).map_err(system)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| system(error.into()))?;
        // The marker is written last: a directory without it is half made.
        let complete = home.join("kapell.complete");
        if !complete.is_file() {
            let _ = fs::remove_dir_all(&home);
            install(shared, &base, &home, requirements, note)?;
            fs::write(&complete, requirements.join("\n")).map_err(system)?;
        }
        self.0.lock().insert(requirements.to_vec(), python.clone());
        Ok(python)
    }
}

/// An environment cannot be moved, since its scripts name its place; so it is made in place, under a
/// lock, and completed by a marker that appears at once.
fn install(
    shared: &Shared,
    base: &Path,
    home: &Path,
    requirements: &[Arc<str>],
    note: &dyn Fn(&str),
) -> Result<(), Box<TaskError>> {
    note(&format!("installing {}", requirements.join(", ")));
    let list = home.with_extension("txt");
    fs::write(&list, requirements.join("\n")).map_err(|error| {
        failure::platform(
            "requirements",
            format!("cannot write the requirements: {error}"),
        )
    })?;
    let python = home.join("bin/python");
    let text = |path: &Path| path.display().to_string();
    let uv = shared.uv.as_deref().map_or_else(|| "uv".to_owned(), text);
    let with_uv = [
        vec![
            uv.clone(),
            "venv".into(),
            "--quiet".into(),
            "--python".into(),
            text(base),
            text(home),
        ],
        vec![
            uv,
            "pip".into(),
            "install".into(),
            "--python".into(),
            text(&python),
            "-r".into(),
            text(&list),
        ],
    ];
    let with_pip = [
        vec![text(base), "-m".into(), "venv".into(), text(home)],
        vec![
            text(&python),
            "-m".into(),
            "pip".into(),
            "install".into(),
            "--disable-pip-version-check".into(),
            "--no-input".into(),
            "-r".into(),
            text(&list),
        ],
    ];
    match run_all(shared, &with_uv, note) {
        Err(Step::Missing(_)) if shared.uv.is_none() => run_all(shared, &with_pip, note),
        result => result,
    }
    .map_err(|step| match step {
        Step::Missing(error) => failure::user(
            "requirements",
            format!("cannot install the requirements: {error}"),
        ),
        Step::Failed(words) => failure::user(
            "requirements",
            format!("cannot install the requirements:\n{words}"),
        ),
    })?;
    note("installed");
    Ok(())
}

enum Step {
    Missing(String),
    Failed(String),
}

fn run_all(shared: &Shared, commands: &[Vec<String>], note: &dyn Fn(&str)) -> Result<(), Step> {
    commands.iter().try_for_each(|argv| run(shared, argv, note))
}

/// Runs one command of the installation; its lines go to the attempt's log.
fn run(shared: &Shared, argv: &[String], note: &dyn Fn(&str)) -> Result<(), Step> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Step::Missing("no program".into()))?;
    let missing = |error: io::Error| Step::Missing(format!("`{program}`: {error}"));
    let mut command = Command::new(
        shared
            .programs
            .path(program, shared.env.get("PATH").unwrap_or_default()),
    );
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env_clear();
    command.envs(shared.env.entries());
    // Dies with the worker by its mark at the next start; installing again is harmless.
    command.env(crate::survivors::MARK, format!("{}/install", shared.id));
    let mut child = command.spawn().map_err(missing)?;
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        while lines
            .by_ref()
            .take(limits::LOG_LINE_BYTES as u64)
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            note(&text);
            words.push(text);
            if words.len() > 20 {
                words.remove(0);
            }
            line.clear();
        }
    }
    let status = child.wait().map_err(missing)?;
    if status.success() {
        Ok(())
    } else {
        Err(Step::Failed(words.join("\n")))
    }
}
