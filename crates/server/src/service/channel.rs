//! Channels: what is to be told at one place, and what could not be.

use kapell_api::client::{ChannelCalls, Result};
use kapell_api::http::{ChannelPage, ChannelSummary, ChannelTest, ChannelView, NoticeAction};
use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_store::Order;
use serde::Deserialize;

use super::Service;
use crate::notify;
use crate::register::NAMESPACE;
use crate::rows::failure;

/// What a channel's document holds.
#[derive(Deserialize)]
struct Document {
    waiting: u64,
    failed: u64,
    delivered: u64,
    due_at: Option<i64>,
}

fn named(name: &str) -> Result<&str> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::new(ErrorCode::BadRequest, "a channel has a name"));
    }
    Ok(name)
}

fn key(name: &str) -> EntityKey {
    EntityKey::Channel {
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

impl ChannelCalls for Service {
    fn channels(&self) -> Result<ChannelPage> {
        let prefix = key("").to_bytes();
        let found = self
            .store
            .documents(&prefix, None, Order::Forward, limits::LIST_PAGE)
            .map_err(failure)?;
        let summary = |(key, document): (Vec<u8>, String)| {
            let EntityKey::Channel { name, .. } = EntityKey::from_bytes(&key)? else {
                return None;
            };
            let document: Document = serde_json::from_str(&document).ok()?;
            Some(ChannelSummary {
                name: name.to_string(),
                waiting: document.waiting,
                failed: document.failed,
                delivered: document.delivered,
                due_at: document.due_at.map(Time),
            })
        };
        Ok(ChannelPage {
            channels: found.into_iter().filter_map(summary).collect(),
        })
    }

    fn channel(&self, name: &str) -> Result<ChannelView> {
        let view = self.look(key(named(name)?), Ask::View)?;
        serde_json::from_value(view.to_json())
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
    }

    fn test_channel(&self, name: &str) -> Result<ChannelTest> {
        let name = named(name)?;
        let Some(senders) = self.senders.get() else {
            let message = "nothing is posted by this process: it has no channels";
            return Err(Error::new(ErrorCode::NotAllowedNow, message));
        };
        let error = notify::try_out(senders, name).err();
        Ok(ChannelTest {
            delivered: error.is_none(),
            error,
        })
    }

    fn notice(&self, channel: &str, number: u64, action: NoticeAction) -> Result<()> {
        let path = format!("/channels/{channel}/notices/{number}");
        let (word, ask) = match action {
            NoticeAction::Again => ("again", NoticeAsk::Again { number }),
            NoticeAction::Forget => ("forget", NoticeAsk::Forget { number }),
        };
        let key = key(named(channel)?);
        self.audit.change(
            "POST",
            &path,
            |_| word.to_owned(),
            || self.ask_small(key, Ask::Notice(ask)).map(|_| ()),
        )
    }
}
