//! Channels: what is to be told at one place, and what could not be.

use kapell_api::client::{ChannelCalls, Result};
use kapell_api::http::{ChannelPage, ChannelSummary, ChannelView, NoticeAction};
use kapell_engine::Ask;
use kapell_engine::notice::NoticeAsk;
use kapell_expr::Value;
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_node::{Answer, ClientRequest};
use kapell_store::Order;
use serde::Deserialize;

use super::{Service, unexpected};
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

impl Service {
    fn ask_channel(&self, name: &str, ask: Ask) -> Result<Value> {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::new(ErrorCode::BadRequest, "a channel has a name"));
        }
        let request = ClientRequest::Ask {
            key: key(name),
            ask,
        };
        match self.ask(request)? {
            Answer::Value(value) => Ok(value),
            _ => Err(unexpected()),
        }
    }
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
        let view = self.ask_channel(name, Ask::View)?;
        serde_json::from_value(view.to_json())
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
    }

    fn notice(&self, channel: &str, number: u64, action: NoticeAction) -> Result<()> {
        let path = format!("/channels/{channel}/notices/{number}");
        let (word, ask) = match action {
            NoticeAction::Again => ("again", NoticeAsk::Again { number }),
            NoticeAction::Forget => ("forget", NoticeAsk::Forget { number }),
        };
        self.audit.change(
            "POST",
            &path,
            |_| word.to_owned(),
            || self.ask_channel(channel, Ask::Notice(ask)).map(|_| ()),
        )
    }
}
