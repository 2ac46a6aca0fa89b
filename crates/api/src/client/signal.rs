//! Signals, and the topics that keep them.

use super::{Client, Result, encoded, query};
use crate::http::{SendSignal, SentSignal, SignalQuery, TopicPage, TopicQuery, TopicView};

/// What can be asked of signals.
pub trait SignalCalls: Send + Sync {
    /// Sends one; the same id again changes nothing.
    fn send_signal(&self, name: &str, signal: &SendSignal) -> Result<SentSignal>;
    /// Names that signals were sent under, or that somebody listens to.
    fn topics(&self, which: &TopicQuery) -> Result<TopicPage>;
    /// Kept signals of a name, newest first, and who listens.
    fn topic(&self, name: &str, which: &SignalQuery) -> Result<TopicView>;
}

impl SignalCalls for Client {
    fn send_signal(&self, name: &str, signal: &SendSignal) -> Result<SentSignal> {
        self.post(&format!("/signals/{}", encoded(name)), signal)
    }

    fn topics(&self, which: &TopicQuery) -> Result<TopicPage> {
        self.get(&format!("/signals{}", query(which)))
    }

    fn topic(&self, name: &str, which: &SignalQuery) -> Result<TopicView> {
        self.get(&format!("/signals/{}{}", encoded(name), query(which)))
    }
}
