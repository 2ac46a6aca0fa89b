//! `exec`: an argv without a shell.

use kapell_api::task::{TaskError, TaskResources};

use crate::failure;
use crate::launch::Plan;

/// The argv as it is.
pub(crate) fn plan(argv: &[String]) -> Result<Plan, Box<TaskError>> {
    if argv.is_empty() {
        return Err(failure::permanent("spawn", "`exec` names no program"));
    }
    Ok(Plan {
        argv: argv.to_vec(),
        direct: None,
        script: None,
        env: Vec::new(),
        search: Vec::new(),
        resources: TaskResources::default(),
    })
}
