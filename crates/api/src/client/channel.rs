//! Channels.

use super::{Client, Result, encoded};
use crate::http::{ChannelPage, ChannelTest, ChannelView, NoticeAction};

/// What can be asked of channels.
pub trait ChannelCalls: Send + Sync {
    /// Channels with notices that wait or were given up.
    fn channels(&self) -> Result<ChannelPage>;
    /// A channel with what was given up.
    fn channel(&self, name: &str) -> Result<ChannelView>;
    /// Posts a notice that is no run's to a channel, at once.
    fn test_channel(&self, name: &str) -> Result<ChannelTest>;
    /// Does something with a notice that waits or was given up.
    fn notice(&self, channel: &str, number: u64, action: NoticeAction) -> Result<()>;
}

impl ChannelCalls for Client {
    fn channels(&self) -> Result<ChannelPage> {
        self.get("/channels")
    }

    fn channel(&self, name: &str) -> Result<ChannelView> {
        self.get(&format!("/channels/{}", encoded(name)))
    }

    fn test_channel(&self, name: &str) -> Result<ChannelTest> {
        self.post(&format!("/channels/{}/test", encoded(name)), &())
    }

    fn notice(&self, channel: &str, number: u64, action: NoticeAction) -> Result<()> {
        self.post(
            &format!("/channels/{}/notices/{number}", encoded(channel)),
            &action,
        )
    }
}
