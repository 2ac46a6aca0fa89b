//! Rows and views in the form of the wire, and errors of the store in the form of failures.

use kapell_api::http::{
    ApprovalView, BreakAt, Breakpoint, GivenView, InputView, ItemCounts, ItemsWaiting, RunSummary,
    RunView, SettingView, StepView, StoppedView,
};
use kapell_engine::event;
use kapell_engine::run::view;
use kapell_engine::run::waiting::Break;
use kapell_model::{Error, ErrorCode, RunId};
use kapell_store::RunRow;

/// A failure of the store as clients see it.
#[expect(clippy::needless_pass_by_value, reason = "taken by `map_err`")]
pub(crate) fn failure(error: kapell_store::Error) -> Error {
    use kapell_store::Error as Store;
    let message = error.to_string();
    match error {
        Store::Held { pid } => Error::new(ErrorCode::DirectoryHeld, message).hint(format!(
            "process {pid} does not answer: wait for its end, or end it"
        )),
        Store::Unusable(_) => Error::new(ErrorCode::DirectoryUnusable, message)
            .hint("choose another with `--data-dir` or KAPELL_DATA_DIR"),
        Store::TooNew { .. } => Error::new(ErrorCode::StoreTooNew, message)
            .hint("use the newer Kapell that wrote it, or another `--data-dir`"),
        Store::Corrupt(_) => Error::new(ErrorCode::StoreCorrupt, message)
            .hint("restore the data directory from a backup, or use another `--data-dir`"),
        Store::Full(_) => {
            Error::new(ErrorCode::DiskFull, message).hint("make room, then try again")
        }
        Store::Unavailable(_) | Store::Conflict(_) => {
            Error::new(ErrorCode::StoreUnavailable, message)
                .hint("try again; `kapell doctor` looks for causes")
        }
        Store::Invalid(_) => Error::new(ErrorCode::BadRequest, message),
    }
}

/// A row as lists show it.
pub(crate) fn summary(row: RunRow) -> RunSummary {
    RunSummary {
        run: row.id,
        workflow: row.workflow.to_string(),
        version: row.version,
        status: row.status,
        created_at: row.created_at,
        started_at: row.started_at,
        ended_at: row.ended_at,
        parent: row.parent,
        trigger: row.trigger.to_string(),
        trigger_name: row.trigger_name.as_deref().map(str::to_owned),
        backfill: row.backfill.as_deref().map(str::to_owned),
        scheduled_at: row.scheduled_at,
        counts: row.counts,
        error: row.error,
        labels: serde_json::from_str(&row.labels).unwrap_or_default(),
        waits_for: None,
    }
}

/// A view with its row.
pub(crate) fn view(row: RunRow, view: view::RunView) -> RunView {
    let mut summary = summary(row);
    summary.status = view.status;
    summary.started_at = view.started_at;
    summary.ended_at = view.ended_at;
    summary.counts = view.counts;
    summary.waits_for = view.waits_for;
    let (failed_step, failure) = view.error.unzip();
    RunView {
        summary,
        params: view.params,
        outputs: view.outputs,
        failed_step,
        failure,
        deadline_at: view.deadline_at,
        late: view.late,
        breakpoints: view.breakpoints.iter().map(breakpoint).collect(),
        stepping: view.stepping,
        steps: view.steps.into_iter().map(step).collect(),
    }
}

fn step(step: view::StepView) -> StepView {
    StepView {
        path: step.path,
        label: step.label,
        depth: step.depth,
        status: step.status,
        attempts: step.attempts,
        ready_at: step.ready_at,
        started_at: step.started_at,
        ended_at: step.ended_at,
        items: step.items.map(|items| ItemCounts {
            count: items.count,
            succeeded: items.succeeded,
            failed: items.failed,
            other: items.other,
            running: items.running,
            waiting: {
                let runs = items.children.into_iter().map(item_run);
                let waiting = items.waiting.into_iter().map(items_waiting);
                waiting.chain(runs).collect()
            },
        }),
        waits_for: step.waits_for,
        worker: None,
        error: step.error,
        child: step.child,
        lock: step.lock,
        approval: step.approval.map(approval),
        stopped: step.stopped.map(stopped),
    }
}

fn items_waiting(of: view::ItemsWaiting) -> ItemsWaiting {
    ItemsWaiting {
        reason: of.reason.word().to_owned(),
        items: of.items,
        more: of.more,
        waits_for: of.waits_for,
        lock: of.lock,
        child: None,
        next_at: of.next_at,
    }
}

/// An item that waits for the run that it made.
fn item_run(child: RunId) -> ItemsWaiting {
    ItemsWaiting {
        reason: "run".to_owned(),
        items: 1,
        waits_for: format!("run {child} to end"),
        child: Some(child),
        ..ItemsWaiting::default()
    }
}

/// What a step asks people.
pub(crate) fn approval(asked: view::ApprovalView) -> ApprovalView {
    let given = asked.given.into_iter().map(|given| GivenView {
        by: given.by,
        at: given.at,
        comment: given.comment,
    });
    let input = asked.input.into_iter().map(|input| InputView {
        name: input.name,
        ty: input.ty,
        description: input.description,
        required: input.required,
        allowed: input.allowed,
    });
    ApprovalView {
        message: asked.message,
        by: asked.by,
        not_by: asked.not_by,
        count: asked.count,
        given: given.collect(),
        input: input.collect(),
        until: asked.until,
        reject_fails: asked.reject_fails,
    }
}

fn stopped(stopped: view::StoppedView) -> StoppedView {
    let inputs = stopped.inputs.into_iter().map(|(name, shown)| {
        let (value, error) = match shown {
            Ok(value) => (value, None),
            Err(error) => (serde_json::Value::Null, Some(error)),
        };
        SettingView { name, value, error }
    });
    StoppedView {
        at: stopped.at.word().to_owned(),
        why: stopped.why,
        inputs: inputs.collect(),
        output: stopped.output,
    }
}

fn break_at(at: event::BreakAt) -> BreakAt {
    match at {
        event::BreakAt::Before => BreakAt::Before,
        event::BreakAt::After => BreakAt::After,
        event::BreakAt::OnFailure => BreakAt::OnFailure,
    }
}

/// A breakpoint of a run or a workflow in the form of the wire.
pub(crate) fn breakpoint(of: &Break) -> Breakpoint {
    Breakpoint {
        step: of.step.as_deref().map(str::to_owned),
        at: break_at(of.at),
        when: of.when.as_deref().map(str::to_owned),
        by: of.by.as_deref().map(str::to_owned),
    }
}

/// A breakpoint of the wire as a run takes it.
pub(crate) fn break_of(of: &Breakpoint) -> Break {
    Break {
        step: of
            .step
            .as_deref()
            .filter(|step| *step != Break::EVERY)
            .map(Into::into),
        at: stop_of(of.at),
        when: of.when.as_deref().map(Into::into),
        by: None,
    }
}

/// Where a step stops, as a run takes it.
pub(crate) fn stop_of(at: BreakAt) -> event::BreakAt {
    match at {
        BreakAt::Before => event::BreakAt::Before,
        BreakAt::After => event::BreakAt::After,
        BreakAt::OnFailure => event::BreakAt::OnFailure,
    }
}
