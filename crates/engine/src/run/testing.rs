//! Runs for tests of what is asked of them.

use std::sync::Arc;

use kapell_expr::Value;
use kapell_model::{RunId, Time};

use super::{Input, Run};
use crate::event::{RunCreated, Stored};
use crate::plan::Plan;

/// A run of this file by `ann` with this parameter `n`, that has begun.
pub(super) fn begun(text: &str, n: i64, at: Time) -> Run {
    let parsed = kapell_model::parse("w.yaml", text);
    let spec = parsed
        .spec
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let mut run = Run::new(Arc::new(Plan::new(spec)));
    let created = RunCreated {
        id: RunId(7).to_bytes().to_vec(),
        workflow: "w".into(),
        by: "ann".into(),
        params: Some(Stored::new(&Value::map([("n", Value::Int(n))]))),
        ..RunCreated::default()
    };
    run.decide(Input::Create(Box::new(created)), at).unwrap();
    settle(&mut run, at);
    run
}

/// Decides all that follows.
pub(super) fn settle(run: &mut Run, at: Time) {
    while run.unsettled() {
        run.decide(Input::Wake, at).unwrap();
    }
}
