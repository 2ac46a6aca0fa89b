//! Steps that wait for people to say yes.

use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_api::task::{Place, TaskError};
use kapell_expr::{Map, Value};
use kapell_model::params::{Source, bind_input};
use kapell_model::spec::{Approval, NotifyOn, OnReject, Spec, Step, Verb};
use kapell_model::{Error, ErrorCode, StepStatus, limits};

use super::input::Taken;
use super::names::At;
use super::people::{Hand, not_now};
use super::tell::shortened;
use super::waiting::{Given, Waiting};
use super::{Answer, Decider, Refusal, Stop};
use crate::event::{ApprovalAsked, ApprovalGiven, Fact, Stored};

impl Decider<'_> {
    /// A unit begins to wait for people.
    pub(super) fn ask_people(&mut self, place: Place, approval: &Approval) -> Result<(), Stop> {
        let names = At::unit(self.run, place, self.now);
        let rendered = (|| {
            let message = match &approval.message {
                Some(message) => self.render(message, &names)?.text(),
                None => String::new(),
            };
            let timeout = self.wait_bound(approval.timeout.as_ref(), &names)?;
            Ok::<_, Stop>((message, timeout))
        })();
        let (mut message, timeout) = match rendered {
            Ok(rendered) => rendered,
            Err(stop) => return self.failed_by(place, "approval", stop),
        };
        message.truncate(message.floor_char_boundary(limits::ERROR_BYTES));
        let path = self.run.state.path(&self.run.plan, place);
        let told = if message.is_empty() {
            format!("waits for somebody to approve `{path}`")
        } else {
            format!("asks at `{path}`: {}", shortened(&message))
        };
        self.emit(Fact::ApprovalAsked(ApprovalAsked {
            unit: place.into(),
            message,
            timeout,
        }));
        self.tell(NotifyOn::Approval, &told, [("step", Value::string(path))]);
        Ok(())
    }

    fn approval(&self, place: Place) -> Option<Approval> {
        let plan = self.run.state.plan_step(&self.run.plan, place)?;
        match &plan.step.verb {
            Verb::Approval(approval) => Some((**approval).clone()),
            _ => None,
        }
    }

    /// How many must say yes.
    pub(super) fn approvals_wanted(&self, place: Place) -> usize {
        let wanted = self.approval(place).map_or(1, |approval| approval.count);
        usize::try_from(wanted.max(1)).unwrap_or(usize::MAX)
    }

    /// Somebody answers.
    pub(super) fn answer(&mut self, answer: Answer) -> Taken {
        let place = self.find(&answer.step)?;
        let path = &answer.step;
        let (Some(Waiting::Approval { given, .. }), Some(approval)) =
            (self.run.state.waits.get(&place), self.approval(place))
        else {
            let status = self
                .run
                .state
                .unit(place)
                .map_or(StepStatus::Pending, |unit| unit.status);
            return Err(not_now(
                format!("`{path}` waits for no answer: it is {status}"),
                "`kapell why` says what the run waits for",
            ));
        };
        self.may_answer(path, &approval, &answer.by, &answer.groups)?;
        if given.iter().any(|given| *given.by == *answer.by) {
            return Err(not_now(
                format!("`{}` has already said yes to `{path}`", answer.by),
                "somebody else must answer too",
            ));
        }
        let given = given.clone();
        let input = self.input_of(place, &approval, &answer)?;
        let mut comment = answer.comment.clone();
        comment.truncate(comment.floor_char_boundary(limits::ERROR_BYTES));
        let this = Given {
            by: answer.by.as_str().into(),
            at: self.now,
            comment: comment.as_str().into(),
            input,
        };
        if !answer.approved {
            self.rejected(place, &approval, &this);
            return Ok(());
        }
        if given.len() + 1 < self.approvals_wanted(place) {
            self.emit(Fact::ApprovalGiven(ApprovalGiven {
                unit: place.into(),
                by: answer.by,
                comment,
                input: (!this.input.is_null()).then(|| Stored::new(&this.input)),
            }));
            return Ok(());
        }
        let everybody: Vec<Arc<str>> = given
            .iter()
            .chain([&this])
            .map(|given| given.by.clone())
            .collect();
        let output = output(true, &everybody.join(", "), &this);
        self.end(place, StepStatus::Succeeded, output, None);
        Ok(())
    }

    fn rejected(&mut self, place: Place, approval: &Approval, answer: &Given) {
        let output = output(false, &answer.by, answer);
        if approval.on_reject == OnReject::Continue {
            self.end(place, StepStatus::Succeeded, output, None);
            return;
        }
        let message = if answer.comment.is_empty() {
            format!("`{}` said no", answer.by)
        } else {
            format!("`{}` said no: {}", answer.by, answer.comment)
        };
        let error = TaskError {
            reason: "rejected".into(),
            message,
            permanent: true,
            ..TaskError::default()
        };
        self.end_started(place, StepStatus::Failed, Some(error));
    }

    /// What becomes of an output that somebody gives a step by hand, or of none, as far as people are to
    /// be asked: nobody but an admin ends an approval, or a step with one inside or in a run that it
    /// makes, who could not say the
    /// yes that is left. The output of an approval says who ended it, whatever they say.
    pub(super) fn approval_by_hand(
        &self,
        place: Place,
        path: &str,
        hand: &Hand,
        output: Option<Value>,
    ) -> Result<Option<Value>, Refusal> {
        let Some(plan) = self.run.state.plan_step(&self.run.plan, place) else {
            return Ok(output);
        };
        let step = Arc::clone(&plan.step);
        let allowed = approvals_in(&step)
            .into_iter()
            .chain(&hand.below)
            .try_for_each(|approval| self.may_be_the_last(place, path, approval, hand));
        let overrides = allowed.is_err();
        if !hand.admin {
            allowed?;
        }
        let whole = step.foreach.is_some() && place.item == Place::NO_ITEM;
        let (Some(given), Verb::Approval(approval), false) = (&output, &step.verb, whole) else {
            return Ok(output);
        };
        let given = given.as_map().cloned().unwrap_or_default();
        if !matches!(given.get("approved"), Some(Value::Bool(true))) {
            let error = Error::new(
                ErrorCode::BadRequest,
                format!("the output of `{path}` must say `\"approved\": true`"),
            );
            return Err(Refusal::Reject(
                error.hint("`kapell reject` says no; `by` and `at` are set by Kapell"),
            ));
        }
        let answer = Answer {
            by: hand.by.clone(),
            groups: hand.groups.clone(),
            step: path.to_owned(),
            approved: true,
            comment: String::new(),
            input: given.get("input").cloned().unwrap_or_default(),
            text: false,
        };
        let comment = match given.get("comment").and_then(Value::as_str) {
            Some(comment) => comment,
            None if overrides => "ended by an admin who may not answer",
            None => "",
        };
        let this = Given {
            by: hand.by.as_str().into(),
            at: self.now,
            comment: comment[..comment.floor_char_boundary(limits::ERROR_BYTES)].into(),
            input: self.input_of(place, approval, &answer)?,
        };
        let before = self.given(place);
        let everybody: Vec<&str> = before
            .iter()
            .chain([&this])
            .map(|given| &*given.by)
            .collect();
        Ok(Some(self::output(true, &everybody.join(", "), &this)))
    }

    /// Who has said yes so far.
    fn given(&self, place: Place) -> Vec<Given> {
        match self.run.state.waits.get(&place) {
            Some(Waiting::Approval { given, .. }) => given.clone(),
            _ => Vec::new(),
        }
    }

    /// Refuses whoever could not say the last yes of an approval.
    fn may_be_the_last(
        &self,
        place: Place,
        path: &str,
        approval: &Approval,
        hand: &Hand,
    ) -> Result<(), Refusal> {
        self.may_answer(path, approval, &hand.by, &hand.groups)?;
        let given = self.given(place);
        let wanted = usize::try_from(approval.count.max(1)).unwrap_or(usize::MAX);
        if given.len() + 1 < wanted || given.iter().any(|given| *given.by == *hand.by) {
            return Err(not_now(
                format!(
                    "`{path}` needs {wanted} people, and {} said yes",
                    given.len()
                ),
                "each of them answers with `kapell approve`",
            ));
        }
        Ok(())
    }

    fn may_answer(
        &self,
        path: &str,
        approval: &Approval,
        by: &str,
        groups: &[String],
    ) -> Result<(), Refusal> {
        let refused = |message: String, hint: &str| {
            Refusal::Reject(Error::new(ErrorCode::NotYours, message).hint(hint))
        };
        let named = |name: &Arc<str>| **name == *by || groups.iter().any(|group| **group == **name);
        if !approval.by.is_empty() && !approval.by.iter().any(named) {
            let who: Vec<String> = approval.by.iter().map(|name| format!("`{name}`")).collect();
            return Err(refused(
                format!("`{by}` may not answer `{path}`: {} may", who.join(", ")),
                "ask one of them; `approval.by` names users and groups",
            ));
        }
        if !approval.allow_self && **self.run.state.meta.person() == *by {
            return Err(refused(
                format!("`{by}` started the run and may not answer `{path}`"),
                "somebody else must; `allow_self: true` would let whoever started it",
            ));
        }
        Ok(())
    }

    /// What was filled in, by its types. A no needs nothing.
    fn input_of(
        &self,
        place: Place,
        approval: &Approval,
        answer: &Answer,
    ) -> Result<Value, Refusal> {
        if approval.input.is_empty() && answer.input.is_null() || !answer.approved {
            return Ok(Value::Null);
        }
        let none = Arc::new(Map::new());
        let supplied = match &answer.input {
            Value::Null => &none,
            Value::Map(supplied) => supplied,
            other => {
                let message = format!("the input must be a map, not a {}", other.type_name());
                return Err(Refusal::Reject(Error::new(ErrorCode::BadParams, message)));
            }
        };
        let source = if answer.text {
            Source::Text
        } else {
            Source::Typed
        };
        let names = At::unit(self.run, place, self.now);
        bind_input(
            &answer.step,
            &approval.input,
            supplied,
            source,
            &names.run_value(),
        )
        .map(|input| Value::Map(input.into()))
        .map_err(|problems| {
            let text: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
            let error = Error::new(ErrorCode::BadParams, text.join("\n"));
            let hint = problems.iter().find_map(|problem| problem.hint.clone());
            Refusal::Reject(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        })
    }

    /// Who may answer, as sentences name them.
    pub(super) fn may_be_answered_by(approval: &Approval, given: &[Given]) -> String {
        let said: BTreeSet<&str> = given.iter().map(|given| &*given.by).collect();
        if approval.by.is_empty() {
            return "somebody".to_owned();
        }
        let left = approval.by.iter().filter(|name| !said.contains(&***name));
        left.map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" or ")
    }
}

/// The approvals that end with a step: itself, or those inside.
fn approvals_in(step: &Step) -> Vec<&Approval> {
    let approvals = with_inside(step)
        .into_iter()
        .filter_map(|step| match &step.verb {
            Verb::Approval(approval) => Some(&**approval),
            _ => None,
        });
    approvals.collect()
}

/// A step and the steps inside it.
fn with_inside(step: &Step) -> Vec<&Step> {
    let mut found = Vec::new();
    let mut open = vec![step];
    while let Some(step) = open.pop() {
        found.push(step);
        let inside = step
            .verb
            .graphs()
            .into_iter()
            .flat_map(|graph| &graph.steps);
        open.extend(inside.map(|step| &**step));
    }
    found
}

/// The approvals in the runs that a step, or one inside it, makes and waits for, and in those that these
/// make. `find` gives the definition of a workflow by its name and version; none is the active one.
pub fn approvals_below(
    step: &Step,
    mut find: impl FnMut(&Arc<str>, Option<u32>) -> Option<Arc<Spec>>,
) -> Vec<Approval> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    let mut open: Vec<(Arc<str>, Option<u32>)> = children_in(step);
    while let Some((name, version)) = open.pop() {
        if !known.insert((name.clone(), version)) {
            continue;
        }
        let Some(spec) = find(&name, version) else {
            continue;
        };
        for step in &spec.graph.steps {
            found.extend(approvals_in(step).into_iter().cloned());
            open.extend(children_in(step));
        }
    }
    found
}

/// Workflows whose runs a step, or one inside it, waits for.
fn children_in(step: &Step) -> Vec<(Arc<str>, Option<u32>)> {
    let children = with_inside(step)
        .into_iter()
        .filter_map(|step| match &step.verb {
            Verb::Workflow {
                name,
                version,
                wait: true,
            } => Some((name.clone(), *version)),
            _ => None,
        });
    children.collect()
}

fn output(approved: bool, by: &str, last: &Given) -> Value {
    Value::map([
        ("approved", Value::Bool(approved)),
        ("by", Value::string(by)),
        ("at", Value::Timestamp(last.at.timestamp())),
        ("comment", Value::String(last.comment.clone())),
        ("input", last.input.clone()),
    ])
}
