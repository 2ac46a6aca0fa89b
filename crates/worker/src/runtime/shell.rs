//! `shell`: a script through an interpreter.
//!
//! The script is a file beside the attempt's directory, so messages name a file and line, and its
//! length has no bound of `exec`. A script that is one command without anything a shell would act on
//! (as `make` does) is run without the shell: the same command, one start instead of two. If that
//! fails the shell runs it after all, so that its words and exit codes are the shell's.

use std::path::PathBuf;
use std::sync::Arc;

use kapell_api::task::TaskResources;

use crate::launch::Plan;

/// The interpreter with the script's file and arguments.
pub(crate) fn plan(
    script: &Arc<str>,
    interpreter: &[Arc<str>],
    args: &[String],
    file: PathBuf,
) -> Plan {
    let whole = interpreter
        .iter()
        .map(ToString::to_string)
        .chain([file.display().to_string()])
        .chain(args.iter().cloned())
        .collect();
    Plan {
        argv: whole,
        direct: is_plain_sh(interpreter)
            .then(|| simple_command(script))
            .flatten(),
        script: Some((Arc::clone(script), file)),
        env: Vec::new(),
        search: Vec::new(),
        resources: TaskResources::default(),
    }
}

fn is_plain_sh(interpreter: &[Arc<str>]) -> bool {
    let [program, flags @ ..] = interpreter else {
        return false;
    };
    matches!(&**program, "sh" | "/bin/sh")
        && flags
            .iter()
            .all(|flag| matches!(&**flag, "-eu" | "-e" | "-u"))
}

/// The words of a script that is one command by its path, without quotes, expansions, assignments or
/// operators. A name with a `/` is never a builtin, function or keyword.
fn simple_command(script: &str) -> Option<Vec<String>> {
    let script = script.trim_matches(['\n', ' ']);
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(
                c,
                ' ' | '_' | '-' | '.' | '/' | ':' | ',' | '@' | '%' | '+' | '='
            )
    };
    let program = script.split(' ').next()?;
    if script.len() > 4096
        || !program.contains('/')
        || program.contains('=')
        || !script.chars().all(plain)
    {
        return None;
    }
    Some(
        script
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}
