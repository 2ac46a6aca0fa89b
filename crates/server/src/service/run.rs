//! Runs: made, listed, looked at, acted on.

mod asked;
mod items;
mod said;
mod who;

use std::sync::Arc;
use std::time::Duration;

use kapell_api::client::{Result, RunCalls};
use kapell_api::http::{
    Action, BulkAction, BulkResult, ItemPage, ItemQuery, RecordQuery, RunCursor, RunPage, RunQuery,
    RunSummary, RunView, StartRun, Started, StepView,
};
use kapell_api::record::Record;
use kapell_engine::run as engine;
use kapell_model::spec::Approval;
use kapell_model::{Error, ErrorCode, RunId, RunStatus, Time, limits};
use kapell_node::perform::{self, Plans};
use kapell_node::{Answer, ClientRequest, Entity, clock};
use kapell_store::{RunFilter, RunPlace, RunRow};

use asked::{acted, action_request, start_request, started};

use super::{Service, answered, aside, no_answer, no_run, page, unexpected, waits};
use crate::auth::about;
use crate::register::NAMESPACE;
use crate::rows::{self, failure, summary};
use crate::search;

/// Characters of the end of an id that name a run.
const SUFFIX: usize = 4;

impl Service {
    /// [`RunCalls::start`] without a thread that waits.
    pub(crate) async fn start_soon(&self, start: StartRun) -> Result<Started> {
        self.takes_starts()?;
        let workflow = start.workflow.clone();
        let answer = self.ask_soon(start_request(start)).await;
        let made = answer.and_then(started).map(|run| Started { run });
        about(|| said::start(&workflow, made.as_ref().ok()));
        made
    }

    /// [`RunCalls::act`] without a thread that waits.
    pub(crate) async fn act_soon(
        self: &Arc<Self>,
        run: RunId,
        action: Action,
    ) -> Result<Option<RunId>> {
        if matches!(action, Action::Fork { .. }) {
            self.takes_starts()?;
        }
        about(|| said::action(run, &action));
        let request = if matches!(action, Action::Skip { .. } | Action::SetOutput { .. }) {
            let service = Arc::clone(self);
            aside(move || service.action_request(run, action)).await?
        } else {
            self.action_request(run, action)?
        };
        acted(self.ask_soon(request).await?)
    }

    /// [`RunCalls::start`], asked for at once.
    pub(super) fn start_asked(
        &self,
        start: StartRun,
    ) -> Result<impl Future<Output = Result<Started>> + Send + use<>> {
        self.takes_starts()?;
        let answer = self.ask_now(start_request(start))?;
        Ok(async move { started(answered(answer).await?).map(|run| Started { run }) })
    }

    /// [`RunCalls::act`], asked for at once; what is given waits for the answer.
    pub(super) fn act_asked(
        &self,
        run: RunId,
        action: Action,
    ) -> Result<impl FnOnce() -> Result<Option<RunId>> + use<>> {
        let answer = self.ask_now(self.action_request(run, action)?)?;
        Ok(move || {
            acted(
                answer
                    .blocking_recv()
                    .unwrap_or_else(|_| Err(no_answer()))?,
            )
        })
    }

    /// [`RunCalls::view`] without a thread that waits.
    pub(crate) async fn view_soon(self: &Arc<Self>, run: RunId) -> Result<RunView> {
        let service = Arc::clone(self);
        if !self.has_memory() {
            return aside(move || service.view(run)).await;
        }
        let row = aside(move || service.row(run)).await?;
        let Answer::View(view) = self.ask_soon(ClientRequest::View { run }).await? else {
            return Err(unexpected());
        };
        let mut view = rows::view(row, *view);
        self.say_who_runs_here(&mut view);
        if !waits::elsewhere(&view) && !self.others_may_run(&view) {
            return Ok(view);
        }
        let service = Arc::clone(self);
        aside(move || {
            service.say_who_runs_elsewhere(&mut view);
            service.name_what_is_elsewhere(&mut view);
            Ok(view)
        })
        .await
    }

    /// [`RunCalls::wait`] without a thread that waits.
    pub(crate) async fn wait_soon(
        self: &Arc<Self>,
        run: RunId,
        timeout: Duration,
    ) -> Result<RunSummary> {
        // Before the first look, so that no change is missed.
        let mut changes = self.feed.run(run);
        let mut closing = self.feed.closing();
        let look = || {
            let service = Arc::clone(self);
            aside(move || service.row(run))
        };
        let first = look().await?;
        if first.status.ended() || self.node.is_none() {
            return Ok(summary(first));
        }
        let waiting = async {
            loop {
                let over = tokio::select! {
                    over = closing.changed() => over.is_ok(),
                    changed = changes.changed() => changed.is_err(),
                };
                if over {
                    return look().await;
                }
                let row = look().await?;
                if row.status != first.status {
                    return Ok(row);
                }
            }
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(row) => row.map(summary),
            Err(_) => look().await.map(summary),
        }
    }

    /// A view without a node: the run as its history says.
    fn view_at_rest(&self, row: &RunRow) -> Result<engine::view::RunView> {
        let run = self.run_at_rest(row)?;
        let mut view = run.view(clock::now());
        if let Some(why) = self.why_queued(&run)? {
            view.waits_for = Some(why);
        }
        Ok(view)
    }

    fn run_at_rest(&self, row: &RunRow) -> Result<Box<kapell_engine::Run>> {
        let found = perform::load(&*self.store, &mut Plans::default(), &row.id.into());
        match found.map_err(failure)?.map(|found| found.entity) {
            Some(Entity::Run(run)) => Ok(run),
            _ => Err(no_run(&row.id.to_string())),
        }
    }

    /// Where a run stands, as it knows itself.
    pub(super) fn plain_view(&self, run: RunId) -> Result<RunView> {
        let row = self.row(run)?;
        let view = if self.has_memory() {
            match self.ask(ClientRequest::View { run })? {
                Answer::View(view) => *view,
                _ => return Err(unexpected()),
            }
        } else {
            self.view_at_rest(&row)?
        };
        let mut view = rows::view(row, view);
        self.say_who_runs_here(&mut view);
        Ok(view)
    }

    fn action_request(&self, run: RunId, action: Action) -> Result<ClientRequest> {
        let below = match &action {
            Action::Skip {
                admin: false, step, ..
            }
            | Action::SetOutput {
                admin: false, step, ..
            } => self.approvals_below(run, step)?,
            _ => Vec::new(),
        };
        action_request(run, action, below)
    }

    /// The approvals in the runs that a step makes: by the version of the run that is there, else by the
    /// one that it would have.
    fn approvals_below(&self, run: RunId, path: &str) -> Result<Vec<Approval>> {
        let row = self.row(run)?;
        let mut plans = Plans::default();
        let own = plans.version(
            &*self.store,
            &row.namespace,
            &row.workflow,
            Some(row.version),
        );
        let own = own.map_err(failure)?;
        let Some(step) = own.as_ref().and_then(|own| own.plan.step_at(path)) else {
            return Ok(Vec::new());
        };
        let child = self.view_step(run, path).ok().and_then(|step| step.child);
        let child = match child {
            Some(child) => self.store.run(child).map_err(failure)?,
            None => None,
        };
        let mut failed = None;
        let found = engine::approvals_below(step, |name, version| {
            let there = child.as_ref().filter(|child| child.workflow == *name);
            let version = there.map(|child| child.version).or(version);
            match plans.version(&*self.store, &row.namespace, name, version) {
                Ok(found) => found.map(|found| Arc::clone(&found.plan.spec)),
                Err(error) => {
                    failed = Some(failure(error));
                    None
                }
            }
        });
        failed.map_or(Ok(found), Err)
    }

    /// What a run that is queued waits for, as its run queue says.
    fn why_queued(&self, run: &kapell_engine::Run) -> Result<Option<String>> {
        if run.state.status != RunStatus::Queued {
            return Ok(None);
        }
        let key = run.state.run_queue();
        let found = perform::load(&*self.store, &mut Plans::default(), &key);
        Ok(match found.map_err(failure)?.map(|found| found.entity) {
            Some(Entity::Queue(queue)) => queue.why(&run.state.meta.workflow, run.state.meta.id),
            _ => None,
        })
    }

    fn last(&self) -> Result<RunId> {
        let filter = RunFilter {
            namespace: Some(NAMESPACE.into()),
            ..RunFilter::default()
        };
        let rows = self
            .store
            .list_runs(&filter, limits::LIST_PAGE)
            .map_err(failure)?;
        let top = rows
            .iter()
            .find(|row| row.parent.is_none())
            .or(rows.first());
        top.map(|row| row.id).ok_or_else(|| {
            Error::new(ErrorCode::RunNotFound, "there are no runs yet")
                .hint("`kapell run FILE` makes one")
        })
    }
}

impl RunCalls for Service {
    fn start(&self, start: &StartRun) -> Result<Started> {
        self.takes_starts()?;
        let what = |made: Option<&Started>| said::start(&start.workflow, made);
        self.audit.change("POST", "/runs", what, || {
            started(self.ask(start_request(start.clone()))?).map(|run| Started { run })
        })
    }

    fn find(&self, name: &str) -> Result<RunId> {
        if name == "last" {
            return self.last();
        }
        if name.len() < SUFFIX {
            return Err(Error::new(
                ErrorCode::BadRequest,
                format!("`{name}` is too short to name a run"),
            )
            .hint("the last 4 characters of its id or more, the whole id, or `last`"));
        }
        let found = self.store.find_runs(name, 2).map_err(failure)?;
        match found.as_slice() {
            [] => Err(no_run(name)),
            [run] => Ok(*run),
            _ => Err(Error::new(
                ErrorCode::BadRequest,
                format!("several runs end in `{name}`"),
            )
            .hint("give more characters of the id")),
        }
    }

    fn list(&self, query: &RunQuery) -> Result<RunPage> {
        let limit = page(query.limit);
        // One more than is shown tells whether there is more.
        let found = self
            .store
            .search_runs(&search::filter(query)?, limit + 1)
            .map_err(failure)?;
        let mut rows = found.rows;
        let next = if rows.len() > limit {
            rows.truncate(limit);
            rows.last().map(RunPlace::of)
        } else {
            found.next
        };
        let mut runs: Vec<RunSummary> = rows.into_iter().map(summary).collect();
        self.say_why_queued(&mut runs);
        Ok(RunPage {
            runs,
            next: next.map(|place| RunCursor {
                run: place.run,
                created_at: place.created_at,
            }),
        })
    }

    fn view(&self, run: RunId) -> Result<RunView> {
        let mut view = self.plain_view(run)?;
        self.say_who_runs_elsewhere(&mut view);
        self.name_what_is_elsewhere(&mut view);
        Ok(view)
    }

    fn view_step(&self, run: RunId, path: &str) -> Result<StepView> {
        let row = self.row(run)?;
        let view = if self.has_memory() {
            let step = path.to_owned();
            match self.ask(ClientRequest::ViewStep { run, step })? {
                Answer::View(view) => *view,
                _ => return Err(unexpected()),
            }
        } else {
            self.run_at_rest(&row)?.view_of(path, clock::now())
        };
        let mut view = rows::view(row, view);
        self.say_who_runs_here(&mut view);
        self.say_who_runs_elsewhere(&mut view);
        self.name_what_is_elsewhere(&mut view);
        view.steps.pop().ok_or_else(|| {
            let message = format!("run {run} has no step `{path}` that waits or runs");
            Error::new(ErrorCode::StepNotFound, message)
                .hint("`kapell show RUN` lists the steps, those that have ended too")
        })
    }

    fn wait(&self, run: RunId, timeout: Duration) -> Result<RunSummary> {
        let end = Time(
            clock::now()
                .0
                .saturating_add(i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)),
        );
        let first = self.row(run)?;
        let mut row = first.clone();
        loop {
            let seen = self.feed.count();
            let left = u64::try_from(end.0 - clock::now().0).unwrap_or(0);
            if row.status.ended() || row.status != first.status || left == 0 || self.node.is_none()
            {
                return Ok(summary(row));
            }
            row = self.row(run)?;
            if row.status.ended() || row.status != first.status {
                continue;
            }
            self.feed.wait(seen, Duration::from_micros(left));
            row = self.row(run)?;
        }
    }

    fn record(&self, run: RunId, which: &RecordQuery) -> Result<Record> {
        let row = self.row(run)?;
        let at = which.at.map(|at| moment(&row, at)).transpose()?;
        let step = which.step.as_deref().unwrap_or_default();
        let mut record = self.folded(&row, at, step, items::whole)?;
        if at.is_none() {
            self.name_workers(&mut record);
        }
        Ok(record)
    }

    fn items(&self, run: RunId, which: &ItemQuery) -> Result<ItemPage> {
        let row = self.row(run)?;
        self.folded(&row, None, "", |fold| items::page_of(&row, &fold, which))?
    }

    fn act(&self, run: RunId, action: &Action) -> Result<Option<RunId>> {
        let path = format!("/runs/{run}/{}", action.verb());
        let what = |_: Option<&Option<RunId>>| said::action(run, action);
        self.audit.change("POST", &path, what, || {
            acted(self.ask(self.action_request(run, action.clone())?)?)
        })
    }

    fn bulk(&self, bulk: &BulkAction) -> Result<BulkResult> {
        self.act_on_page(bulk)
    }
}

/// A moment of a run, which may not be before it was made; what is still to come is not known.
fn moment(row: &RunRow, at: Time) -> Result<Time> {
    if at < row.created_at {
        let message = format!(
            "run {} was made at {}: there is nothing of it at {at}",
            row.id, row.created_at
        );
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("ask for a later moment; `--at 10s` is that long after it was made"));
    }
    Ok(at.min(clock::now()))
}
