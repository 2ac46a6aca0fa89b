//! One post of one notice.

use std::time::Duration;

use jiff::SignedDuration;
use kapell_expr::{Budget, Map, MapScope, Template, Value};
use kapell_model::Time;
use kapell_node::clock;
use serde_json::json;
use ureq::Agent;
use ureq::http::{Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;

use super::guard::{Guarded, Refused};
use super::{Allowed, Channel, Due, Kind, Receivers};

const CONNECT: Duration = Duration::from_secs(10);

/// From the first byte sent to the last one read.
const WHOLE: Duration = Duration::from_secs(30);

/// Bytes of an answer that are looked at.
const ANSWER_BYTES: u64 = 64 << 10;

/// Characters of an answer in an error.
const SHOWN_CHARS: usize = 300;

/// Why a post did not arrive.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    /// The receiver wants to be left alone so long.
    pub(crate) after: Option<SignedDuration>,
    /// Another try would not help.
    pub(crate) hopeless: bool,
}

impl Failure {
    pub(crate) fn hopeless(error: String) -> Self {
        Self {
            error,
            after: None,
            hopeless: true,
        }
    }

    fn passing(error: String) -> Self {
        Self {
            error,
            after: None,
            hopeless: false,
        }
    }
}

/// What posts. Redirects are not followed: an address of a webhook does not move, and where it would
/// lead nobody has checked.
pub(crate) fn agent(allowed: Allowed) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(WHOLE))
        .user_agent(concat!("kapell/", env!("CARGO_PKG_VERSION")))
        .build();
    let inner = DefaultResolver::default();
    Agent::with_parts(
        config,
        DefaultConnector::default(),
        Guarded { allowed, inner },
    )
}

/// Posts a notice. Blocks.
pub(crate) fn post(
    agent: &Agent,
    channel: &Channel,
    receivers: &Receivers,
    due: &Due,
) -> Result<(), Failure> {
    let body = body(channel, receivers, due).map_err(Failure::hopeless)?;
    let mut request = agent
        .post(&channel.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", &due.id);
    for (name, value) in &channel.headers {
        request = request.header(name, value);
    }
    // Where it goes may hold a secret, so errors name the host alone.
    let host = host(&channel.url);
    let mut answer = request
        .send(body.to_string())
        .map_err(|error| match &error {
            ureq::Error::Other(why) if why.is::<Refused>() => {
                Failure::hopeless(format!("{host}: {error}"))
            }
            _ => Failure::passing(format!("{host}: {error}")),
        })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES)
        .read_to_string()
        .unwrap_or_default();
    let said: String = said.trim().chars().take(SHOWN_CHARS).collect();
    let error = match said.as_str() {
        "" => format!("{host} answered {status}"),
        said => format!("{host} answered {status}: {said}"),
    };
    let passing = matches!(status.as_u16(), 408 | 425 | 429 | 500..);
    Err(Failure {
        after: retry_after(&answer, clock::now()),
        hopeless: !passing,
        error,
    })
}

fn host(url: &str) -> String {
    let uri = url.parse::<ureq::http::Uri>().ok();
    uri.and_then(|uri| uri.host().map(ToOwned::to_owned))
        .unwrap_or_default()
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(answer: &Response<ureq::Body>, now: Time) -> Option<SignedDuration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(SignedDuration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Time::from(at).since(now).max(SignedDuration::ZERO))
}

/// What is posted.
pub(super) fn body(
    channel: &Channel,
    receivers: &Receivers,
    due: &Due,
) -> Result<serde_json::Value, String> {
    let mut content = (**due.content.as_map().ok_or("the notice says nothing")?).clone();
    content.insert("id".into(), Value::string(&due.id));
    content.insert("at".into(), due.at.clone());
    let run = content
        .get("run")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let url = match receivers.public_url.as_str() {
        "" => Value::Null,
        base => Value::string(format!("{base}/runs/{run}")),
    };
    content.insert("url".into(), url);
    let made = channel
        .template
        .as_ref()
        .map(|template| rendered(template, &content))
        .transpose()?;
    Ok(match (channel.kind, made) {
        // One expression that gives a map is the whole body.
        (_, Some(Value::Map(body))) => Value::Map(body).to_json(),
        (Kind::Slack, made) => json!({ "text": text(made, &content) }),
        (Kind::Json, made) => {
            if made.is_some() {
                content.insert("text".into(), Value::string(text(made, &content)));
            }
            Value::Map(content.into()).to_json()
        }
    })
}

fn rendered(template: &Template, content: &Map) -> Result<Value, String> {
    // Fields that this notice lacks are null, as the check of the template promises.
    let mut names = content.clone();
    for name in super::settings::FIELDS {
        if !names.contains_key(name) {
            names.insert(name.into(), Value::Null);
        }
    }
    template
        .eval(&MapScope(names), Budget::default())
        .map_err(|error| format!("the channel's template: {error}"))
}

/// The text of a notice, with the address of its run if there is one.
fn text(made: Option<Value>, content: &Map) -> String {
    let field = |name: &str| {
        content
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    match made {
        Some(made) => made.text(),
        None => match field("url") {
            "" => field("text").to_owned(),
            url => format!("{}\n{url}", field("text")),
        },
    }
}
