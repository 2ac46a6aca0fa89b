//! Channels as the server's settings define them.

use std::collections::BTreeMap;

use kapell_expr::{Object, Template, Type};
use kapell_model::{Error, ErrorCode, limits};
use serde::{Deserialize, Serialize};

/// What a channel's address takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The notice as JSON.
    #[default]
    Json,
    /// `{"text": …}`, as Slack, Mattermost and others take it.
    Slack,
}

/// A channel, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    /// Where notices are posted.
    pub url: String,
    /// What is posted there.
    #[serde(default)]
    pub kind: Kind,
    /// The text, or with one expression alone the whole body, over the fields of a notice.
    #[serde(default)]
    pub template: Option<String>,
    /// Sent with each post, as in `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Who may be told, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifySettings {
    /// By name.
    pub channels: BTreeMap<String, ChannelSettings>,
    /// What addresses of pages of runs begin with, as people reach this server; empty is none.
    pub public_url: String,
}

/// A channel, checked.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Where notices are posted.
    pub url: String,
    /// What is posted there.
    pub kind: Kind,
    /// The text or the body.
    pub template: Option<Template>,
    /// Sent with each post.
    pub headers: Vec<(String, String)>,
}

/// Everybody who may be told.
#[derive(Clone, Default)]
pub struct Receivers {
    channels: BTreeMap<String, Channel>,
    pub(super) public_url: String,
}

/// The fields of a notice, which are the names in a template.
pub(super) const FIELDS: [&str; 25] = [
    "at",
    "by",
    "created_at",
    "deadline_at",
    "ended_at",
    "error",
    "event",
    "id",
    "labels",
    "message",
    "missed",
    "namespace",
    "owner",
    "params",
    "run",
    "scheduled_at",
    "started_at",
    "status",
    "step",
    "tags",
    "text",
    "trigger",
    "url",
    "version",
    "workflow",
];

impl Receivers {
    /// Checks channels.
    ///
    /// # Errors
    /// Code `bad-request`, which names the channel: an address that is none, a template that does not
    /// parse or names what no notice has.
    pub fn new(settings: &NotifySettings) -> Result<Self, Error> {
        let channels = settings.channels.iter();
        Ok(Self {
            channels: channels
                .map(|(name, settings)| Ok((name.clone(), channel(name, settings)?)))
                .collect::<Result<_, Error>>()?,
            public_url: settings.public_url.trim_end_matches('/').to_owned(),
        })
    }

    /// True if notices to this one have a place to go to. Mail is none.
    pub(crate) fn know(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }

    /// A channel by its name; an address is a channel of its own.
    pub(super) fn get(&self, name: &str) -> Result<Channel, String> {
        if let Some(channel) = self.channels.get(name) {
            return Ok(channel.clone());
        }
        if name.starts_with("https://") {
            return Ok(Channel {
                url: name.to_owned(),
                kind: Kind::Json,
                template: None,
                headers: Vec::new(),
            });
        }
        Err(format!(
            "the server's settings have no channel `{name}`: define it, then send this again"
        ))
    }
}

fn channel(name: &str, settings: &ChannelSettings) -> Result<Channel, Error> {
    let wrong = |what: String, hint: &str| {
        let message = format!("the channel `{name}`: {what}");
        Error::new(ErrorCode::BadRequest, message).hint(hint)
    };
    let whole = settings.url.parse::<ureq::http::Uri>().ok();
    let address = whole
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if address.is_none() {
        let what = format!("`{}` is no address", settings.url);
        return Err(wrong(what, "write `https://…` or `http://…`"));
    }
    let template = match &settings.template {
        None => None,
        Some(text) => {
            if text.len() > limits::TEMPLATE_BYTES {
                let what = format!(
                    "its template has more than {} bytes",
                    limits::TEMPLATE_BYTES
                );
                return Err(wrong(what, "shorten it"));
            }
            let template = Template::parse(text).map_err(|problems| said(&wrong, &problems))?;
            let names = Object {
                name: "the notice".to_owned(),
                fields: FIELDS
                    .iter()
                    .map(|name| ((*name).to_owned(), Type::Any))
                    .collect(),
                ..Object::default()
            };
            let (_, problems) = template.check(&names);
            if !problems.is_empty() {
                return Err(said(&wrong, &problems));
            }
            Some(template)
        }
    };
    for (header, value) in &settings.headers {
        let fine = ureq::http::HeaderName::try_from(header.as_str()).is_ok()
            && ureq::http::HeaderValue::try_from(value.as_str()).is_ok();
        if !fine {
            return Err(wrong(
                format!("`{header}` is no header"),
                "names and values of HTTP",
            ));
        }
    }
    Ok(Channel {
        url: settings.url.clone(),
        kind: settings.kind,
        template,
        headers: settings
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}

fn said(wrong: &dyn Fn(String, &str) -> Error, problems: &[kapell_expr::Problem]) -> Error {
    let first = problems.first();
    let message = first.map_or("it cannot be read", |problem| &problem.message);
    let hint = first.and_then(|problem| problem.hint.clone());
    wrong(
        format!("its template: {message}"),
        &hint.unwrap_or_else(|| "names are the fields of a notice".to_owned()),
    )
}
