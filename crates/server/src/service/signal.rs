//! Signals, and the topics that keep them.

use kapell_api::client::{Result, SignalCalls};
use kapell_api::http::{
    SendSignal, SentSignal, SignalQuery, TopicPage, TopicQuery, TopicSummary, TopicView,
};
use kapell_engine::Ask;
use kapell_engine::message::Signal;
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_store::Order;

use super::{Service, page, read};
use crate::auth::about;
use crate::register::NAMESPACE;
use crate::rows::failure;

fn key(name: &str) -> EntityKey {
    EntityKey::Topic {
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

/// The ask that sends a signal.
fn sending(name: &str, signal: SendSignal) -> Result<(EntityKey, Ask)> {
    check_name(name)?;
    let signal = Signal {
        id: signal.id.unwrap_or_default().into(),
        name: name.into(),
        key: signal.key,
        payload: signal.payload,
        sent_at: Time::ZERO,
        hops: 0,
        by: signal.by.into(),
    };
    Ok((key(name), Ask::Send(Box::new(signal))))
}

/// Names of signals are as a workflow file may write them.
fn check_name(name: &str) -> Result<()> {
    let fine = name.len() <= limits::NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fine {
        return Ok(());
    }
    let message = format!("`{name}` cannot name a signal");
    Err(Error::new(ErrorCode::BadRequest, message)
        .hint("letters, digits, `-`, `_` and `.`, starting with a letter or digit"))
}

fn sent(answer: &Value) -> Result<SentSignal> {
    read(
        "the answer of a topic",
        serde_json::from_value(answer.to_json()),
    )
}

/// What the audit log says of a signal.
fn said(sent: Option<&SentSignal>) -> String {
    sent.map_or_else(String::new, |sent| format!("signal {}", sent.id))
}

impl Service {
    /// [`SignalCalls::send_signal`] without a thread that waits.
    pub(crate) async fn send_soon(&self, name: &str, signal: SendSignal) -> Result<SentSignal> {
        let (key, ask) = sending(name, signal)?;
        let made = sent(&self.ask_small_soon(key, ask).await?)?;
        about(|| said(Some(&made)));
        Ok(made)
    }
}

impl SignalCalls for Service {
    fn send_signal(&self, name: &str, signal: &SendSignal) -> Result<SentSignal> {
        let path = format!("/signals/{name}");
        self.audit.change("POST", &path, said, || {
            let (key, ask) = sending(name, signal.clone())?;
            sent(&self.ask_small(key, ask)?)
        })
    }

    fn topics(&self, which: &TopicQuery) -> Result<TopicPage> {
        let limit = page(which.limit);
        let after = which.after.as_deref().map(|after| key(after).to_bytes());
        let found = self
            .store
            .documents(
                &key("").to_bytes(),
                after.as_deref(),
                Order::Forward,
                limit + 1,
            )
            .map_err(failure)?;
        let more = found.len() > limit;
        let mut topics = Vec::with_capacity(found.len().min(limit));
        for (bytes, text) in found.iter().take(limit) {
            let Some(EntityKey::Topic { name, .. }) = EntityKey::from_bytes(bytes) else {
                continue;
            };
            let mut topic: TopicSummary =
                read(&format!("the topic `{name}`"), serde_json::from_str(text))?;
            topic.name = name.to_string();
            topics.push(topic);
        }
        let next = topics.last().filter(|_| more).map(|last| last.name.clone());
        Ok(TopicPage { topics, next })
    }

    fn topic(&self, name: &str, which: &SignalQuery) -> Result<TopicView> {
        check_name(name)?;
        let limit = page(which.limit);
        let what = format!("the topic `{name}`");
        let shown = self.look(key(name), Ask::View)?;
        let mut view: TopicView = read(&what, serde_json::from_value(shown.to_json()))?;
        let signals = self.look(
            key(name),
            Ask::Signals {
                before: which.before,
                limit,
            },
        )?;
        view.kept = read(&what, serde_json::from_value(signals.to_json()))?;
        let newest = view.kept.first().filter(|_| which.before.is_none());
        view.summary.last_sent_at = newest.map(|signal| signal.sent_at);
        view.next = view
            .kept
            .last()
            .filter(|last| view.kept.len() == limit && last.number > 1)
            .map(|last| last.number);
        name.clone_into(&mut view.summary.name);
        Ok(view)
    }
}
