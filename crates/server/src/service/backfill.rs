//! Backfills: due times of a schedule that are made up for on request.

use kapell_api::client::{BackfillCalls, DeployCalls, Result, TriggerCalls};
use kapell_api::http::{
    BackfillOnly, BackfillOrder, BackfillPage, BackfillQuery, BackfillView, NewBackfill,
    TriggerQuery,
};
use kapell_engine::Ask;
use kapell_engine::backfill::{AskBackfill, Only};
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, limits};
use kapell_store::Order;

use super::{Service, page, read};
use crate::register::NAMESPACE;
use crate::rows::failure;

/// Numbers of a trigger's backfills that are tried where somebody took them as names.
const TRIES: usize = 1_000;

/// Between a workflow and an id in `next` of a page: no name has it.
const BETWEEN: char = '/';

fn key(workflow: &str, id: &str) -> EntityKey {
    EntityKey::Backfill {
        namespace: NAMESPACE.into(),
        workflow: workflow.into(),
        id: id.into(),
    }
}

fn view(key: &EntityKey, document: serde_json::Result<BackfillView>) -> Result<BackfillView> {
    let EntityKey::Backfill { workflow, id, .. } = key else {
        return Err(super::unexpected());
    };
    let mut view = read(&format!("the backfill `{id}` of `{workflow}`"), document)?;
    (view.workflow, view.id) = (workflow.to_string(), id.to_string());
    Ok(view)
}

fn unknown(workflow: &str, id: &str) -> Error {
    let message = format!("`{workflow}` has no backfill `{id}`");
    Error::new(ErrorCode::TriggerNotFound, message).hint("`kapell backfill list` lists them")
}

fn check(workflow: &str, new: &NewBackfill) -> Result<()> {
    if new.from >= new.until {
        let message = format!("{} is not before {}", new.from, new.until);
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("`from` is the first instant, `until` the first that does not belong to it"));
    }
    if new.concurrency > limits::BACKFILL_CONCURRENCY {
        let message = format!(
            "{} runs of `{workflow}` at once are too many",
            new.concurrency
        );
        return Err(Error::new(ErrorCode::LimitReached, message)
            .hint(format!("at most {}", limits::BACKFILL_CONCURRENCY)));
    }
    let fine = |id: &str| {
        !id.is_empty()
            && id.len() <= limits::NAME_CHARS
            && id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match new.id.as_deref().filter(|id| !fine(id)) {
        None => Ok(()),
        Some(id) => Err(Error::new(
            ErrorCode::BadRequest,
            format!("`{id}` cannot name a backfill"),
        )
        .hint("letters, digits, `-`, `_` and `.`")),
    }
}

/// The refusal of an id that another backfill has.
fn taken(new: &NewBackfill, other: &BackfillView) -> Error {
    let message = format!(
        "the backfill `{}` of `{}` is another one: of {} from {} to {}",
        other.id, other.workflow, other.trigger, other.from, other.until
    );
    let id = new.id.as_deref().unwrap_or_default();
    Error::new(ErrorCode::NotAllowedNow, message).hint(format!(
        "give another id than `{id}`, or none; with the same range and options it is the same backfill"
    ))
}

/// True if a backfill is what somebody wants.
fn is(view: &BackfillView, new: &NewBackfill) -> bool {
    view.from == new.from
        && view.until == new.until
        && view.only == new.only
        && view.order == new.order
        && view.concurrency == new.concurrency.max(1)
        && new
            .trigger
            .as_ref()
            .is_none_or(|name| *name == view.trigger)
}

impl Service {
    /// The backfill that a trigger has made, or that has the id already; and whether it is that one.
    fn made(&self, trigger: &EntityKey, ask: AskBackfill) -> Result<(BackfillView, bool)> {
        let EntityKey::Trigger { workflow, .. } = trigger else {
            return Err(super::unexpected());
        };
        let answer = self.ask_small(trigger.clone(), Ask::Backfill(Box::new(ask)))?;
        let field = |name: &str| answer.as_map().and_then(|answer| answer.get(name));
        let id = field("id").and_then(Value::as_str);
        let view = self.backfill(workflow, id.ok_or_else(super::unexpected)?)?;
        let made = match field("made_at") {
            Some(Value::Timestamp(at)) => view.created_at == Some((*at).into()),
            _ => false,
        };
        Ok((view, made))
    }

    /// The schedule that is meant.
    fn schedule(&self, workflow: &str, named: Option<&str>) -> Result<String> {
        if let Some(name) = named {
            return self.trigger(workflow, name).map(|trigger| trigger.name);
        }
        let query = TriggerQuery {
            workflow: Some(workflow.to_owned()),
            ..TriggerQuery::default()
        };
        let mut schedules = self.triggers(&query)?.triggers;
        schedules.retain(|trigger| trigger.kind == "schedule");
        if schedules.len() > 1 {
            let names: Vec<String> = schedules.into_iter().map(|trigger| trigger.name).collect();
            let message = format!("`{workflow}` has several schedules");
            return Err(Error::new(ErrorCode::BadRequest, message)
                .hint(format!("name one as `trigger`: {}", names.join(", "))));
        }
        if schedules.is_empty() {
            // One that is not there has no schedule either, but that is not what is wrong.
            self.workflow(workflow)?;
        }
        schedules.pop().map(|trigger| trigger.name).ok_or_else(|| {
            let message = format!("the active version of `{workflow}` has no schedule");
            Error::new(ErrorCode::TriggerNotFound, message)
                .hint("only `cron` and `every` have due times that a backfill can make up for")
        })
    }

    fn set_backfill(&self, workflow: &str, id: &str, verb: &str, ask: Ask) -> Result<BackfillView> {
        let path = format!("/workflows/{workflow}/backfills/{id}/{verb}");
        self.audit.change(
            "POST",
            &path,
            |_| String::new(),
            || {
                // One that nobody made would be asked for nothing.
                self.backfill(workflow, id)?;
                self.ask_small(key(workflow, id), ask)?;
                self.backfill(workflow, id)
            },
        )
    }

    fn make_backfill(&self, workflow: &str, new: &NewBackfill) -> Result<BackfillView> {
        check(workflow, new)?;
        if let Some(id) = &new.id
            && let Some(text) = self.document(&key(workflow, id))?
        {
            let other = view(&key(workflow, id), serde_json::from_str(&text))?;
            return if is(&other, new) {
                Ok(other)
            } else {
                Err(taken(new, &other))
            };
        }
        let trigger = EntityKey::Trigger {
            namespace: NAMESPACE.into(),
            workflow: workflow.into(),
            name: self.schedule(workflow, new.trigger.as_deref())?.into(),
        };
        let ask = AskBackfill {
            id: new.id.as_deref().unwrap_or_default().into(),
            from: new.from,
            until: new.until,
            only: match new.only {
                BackfillOnly::Missing => Only::Missing,
                BackfillOnly::Failed => Only::Failed,
                BackfillOnly::All => Only::All,
            },
            newest_first: new.order == BackfillOrder::NewestFirst,
            concurrency: new.concurrency.max(1),
            by: new.by.clone(),
        };
        for _ in 0..TRIES {
            let (view, made) = self.made(&trigger, ask.clone())?;
            match &new.id {
                _ if made => return Ok(view),
                // Somebody else was quicker.
                Some(_) if is(&view, new) => return Ok(view),
                Some(_) => return Err(taken(new, &view)),
                // A person has named one as the trigger names its own: it has the next number.
                None => {}
            }
        }
        let message = format!("the next {TRIES} names for a backfill of `{workflow}` are taken");
        Err(Error::new(ErrorCode::LimitReached, message).hint("name it with `id`"))
    }
}

impl BackfillCalls for Service {
    fn start_backfill(&self, workflow: &str, new: &NewBackfill) -> Result<BackfillView> {
        let path = format!("/workflows/{workflow}/backfills");
        let what = |made: Option<&BackfillView>| {
            let id = made.map_or_else(String::new, |made| format!("backfill `{}`, ", made.id));
            format!("{id}from {} until {}", new.from, new.until)
        };
        self.audit
            .change("POST", &path, what, || self.make_backfill(workflow, new))
    }

    fn backfills(&self, which: &BackfillQuery) -> Result<BackfillPage> {
        let limit = page(which.limit);
        let mut prefix = key(which.workflow.as_deref().unwrap_or_default(), "").to_bytes();
        if which.workflow.is_none() {
            // Of all workflows: without the byte before the id.
            prefix.truncate(prefix.len() - 1);
        }
        let after = match &which.after {
            None => None,
            Some(after) => {
                let (workflow, id) = after.split_once(BETWEEN).ok_or_else(|| {
                    let message = format!("`{after}` is no place in the list of backfills");
                    Error::new(ErrorCode::BadRequest, message)
                        .hint("give `next` of the page before as `after`")
                })?;
                Some(key(workflow, id).to_bytes())
            }
        };
        let found = self
            .store
            .documents(&prefix, after.as_deref(), Order::Forward, limit + 1)
            .map_err(failure)?;
        let more = found.len() > limit;
        let mut backfills = Vec::with_capacity(found.len().min(limit));
        for (bytes, text) in found.iter().take(limit) {
            if let Some(key) = EntityKey::from_bytes(bytes) {
                backfills.push(view(&key, serde_json::from_str(text))?);
            }
        }
        self.say_why_backfills(&mut backfills);
        let next = backfills.last().filter(|_| more);
        let next = next.map(|last: &BackfillView| format!("{}{BETWEEN}{}", last.workflow, last.id));
        Ok(BackfillPage { backfills, next })
    }

    fn backfill(&self, workflow: &str, id: &str) -> Result<BackfillView> {
        let key = key(workflow, id);
        let text = self.document(&key)?.ok_or_else(|| unknown(workflow, id))?;
        let mut view = view(&key, serde_json::from_str(&text))?;
        self.say_why_backfills(std::slice::from_mut(&mut view));
        Ok(view)
    }

    fn pause_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        let by = by.to_owned();
        self.set_backfill(workflow, id, "pause", Ask::PauseBackfill { by })
    }

    fn resume_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        let by = by.to_owned();
        self.set_backfill(workflow, id, "resume", Ask::ResumeBackfill { by })
    }

    fn cancel_backfill(&self, workflow: &str, id: &str, by: &str) -> Result<BackfillView> {
        let by = by.to_owned();
        self.set_backfill(workflow, id, "cancel", Ask::CancelBackfill { by })
    }
}
