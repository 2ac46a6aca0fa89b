//! Webhooks: their addresses, and whether a call is what it says.
//!
//! An address is `/hooks/<token>/<path>`. The token is a keyed hash of the trigger's names and of how often
//! it was given another, so nobody can guess it, and none is stored: the key is, as a document that is
//! made at first use. A signed call
//! has the header `X-Kapell-Signature: t=<seconds since 1970>,v1=<hex>`, where `v1` is HMAC-SHA256 of
//! `<t>.<body>` with the trigger's secret; several `v1` may stand there, while a secret is changed.
//!
//! Invariants
//! - A call that is sent again, by whoever read along too, is the same signal: its id is its signature.
//! - Tokens and signatures are compared in a time that tells nothing of them.
//! - Looking for an address that is not there reads the store at most once in [`LOOK_AGAIN`].

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use jiff::SignedDuration;
use kapell_api::http::TriggerView;
use kapell_engine::message::Signal;
use kapell_expr::{Budget, Fragment, Map, MapScope, Template, Value};
use kapell_model::spec::{Spec, TriggerKind};
use kapell_model::{EntityKey, Error, ErrorCode, Time, limits};
use kapell_node::clock;
use kapell_store::{Order, Store};
use parking_lot::Mutex;
use sha2::Sha256;

use crate::Secrets;
use crate::register::NAMESPACE;
use crate::rows::failure;

/// The key of the document that holds the key of addresses.
const DOCUMENT: &[u8] = &[72];

/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 40;

/// Between two looks for addresses that are not known yet.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Gives the value of a secret; none if there is no such secret.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A webhook trigger as a version says.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Name of the workflow.
    pub(crate) workflow: Arc<str>,
    /// Name of the trigger.
    pub(crate) name: Arc<str>,
    version: u32,
    path: Arc<str>,
    /// What calls are signed with.
    pub(crate) secret: Option<Template>,
}

/// A call from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// The header that signs it.
    pub(crate) signature: Option<String>,
    /// What names it, where it is not signed.
    pub(crate) id: Option<String>,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// Workflow, trigger, number of the address, and its webhook if it was read.
type Place = (Arc<str>, Arc<str>, u32, Option<Arc<Hook>>);

/// Addresses that were looked for, by token.
#[derive(Default)]
struct Known {
    looked_at: Time,
    hooks: HashMap<String, Place>,
}

/// The webhooks of a data directory.
pub(crate) struct Hooks {
    store: Arc<dyn Store>,
    key: Mutex<Option<[u8; 32]>>,
    known: Mutex<Known>,
    /// What goes before those that are kept.
    secret: OnceLock<SecretSource>,
    kept: Arc<Secrets>,
}

/// The refusal of an address that means nothing.
pub(crate) fn nothing_here() -> Error {
    Error::new(
        ErrorCode::TriggerNotFound,
        "there is no webhook at this address",
    )
    .hint("`kapell trigger show WORKFLOW TRIGGER` shows the address of one")
}

/// Where the key of addresses is kept, sealed: under no namespace of the users'.
const SEALED: (&str, &str) = ("", "webhooks");

fn read_key(text: &str) -> Result<[u8; 32], Error> {
    let key = blake3::Hash::from_hex(text).map_err(|error| {
        let message = format!("the key of webhooks cannot be read: {error}");
        Error::new(ErrorCode::StoreCorrupt, message)
    })?;
    Ok(*key.as_bytes())
}

impl Hooks {
    pub(crate) fn new(store: Arc<dyn Store>, kept: Arc<Secrets>) -> Self {
        Self {
            store,
            kept,
            key: Mutex::new(None),
            known: Mutex::default(),
            secret: OnceLock::new(),
        }
    }

    /// Says what goes before the secrets that are kept; the first that does so counts.
    pub(crate) fn resolve_secrets(&self, secret: SecretSource) {
        // Whoever assembles says it once.
        let _ = self.secret.set(secret);
    }

    /// The path of a trigger's address.
    pub(crate) fn address(
        &self,
        namespace: &str,
        (workflow, name): (&str, &str),
        number: u32,
        path: &str,
    ) -> Result<String, Error> {
        let token = self.token(namespace, workflow, name, number)?;
        Ok(format!("{}/{token}/{path}", kapell_api::http::HOOKS))
    }

    fn token(
        &self,
        namespace: &str,
        workflow: &str,
        name: &str,
        number: u32,
    ) -> Result<String, Error> {
        let mut names = format!("{namespace}\0{workflow}\0{name}");
        if number > 0 {
            names += &format!("\0{number}");
        }
        let hash = blake3::keyed_hash(&self.key()?, names.as_bytes()).to_hex();
        Ok(hash[..TOKEN_DIGITS].to_owned())
    }

    /// The key of addresses, made if there is none.
    fn key(&self) -> Result<[u8; 32], Error> {
        let mut held = self.key.lock();
        if let Some(key) = *held {
            return Ok(key);
        }
        let key = match self.kept.open(SEALED.0, SEALED.1)? {
            Some(text) => read_key(&text)?,
            None => self.seal_key()?,
        };
        *held = Some(key);
        Ok(key)
    }

    /// Seals the key that an older version kept as it is, or a new one.
    fn seal_key(&self) -> Result<[u8; 32], Error> {
        let open = self.store.documents(DOCUMENT, None, Order::Forward, 1);
        let open = open.map_err(failure)?.into_iter().next();
        let key = if let Some((_, text)) = &open {
            read_key(text)?
        } else {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| {
                Error::new(ErrorCode::Internal, format!("no random bytes: {error}"))
            })?;
            key
        };
        let text = blake3::Hash::from_bytes(key).to_hex();
        self.kept
            .set(SEALED.0, SEALED.1, &text, "kapell", clock::now())?;
        if open.is_some() {
            let gone = [(DOCUMENT.to_vec(), None)];
            self.store.put_documents(&gone).map_err(failure)?;
        }
        Ok(key)
    }

    /// The webhook at an address.
    pub(crate) fn find(
        &self,
        namespace: &str,
        token: &str,
        path: &str,
    ) -> Result<Arc<Hook>, Error> {
        let mut known = self.known.lock();
        if !known.hooks.contains_key(token) {
            self.look(namespace, &mut known)?;
        }
        let Some((workflow, name, number, hook)) = known.hooks.get_mut(token) else {
            return Err(nothing_here());
        };
        let key = trigger(namespace, workflow, name).to_bytes();
        let found = self
            .store
            .documents(&key, None, Order::Forward, 1)
            .map_err(failure)?;
        let document = found.first().filter(|(found, _)| *found == key);
        let view = document.and_then(|(_, text)| webhook(text));
        let Some(view) = view.filter(|view| view.address == *number) else {
            return Err(nothing_here());
        };
        let current = match hook {
            Some(hook) if hook.version == view.version => Arc::clone(hook),
            _ => {
                let read = self.read(namespace, workflow, name, view.version)?;
                let read = Arc::new(read.ok_or_else(nothing_here)?);
                *hook = Some(Arc::clone(&read));
                read
            }
        };
        if *current.path == *path {
            Ok(current)
        } else {
            Err(nothing_here())
        }
    }

    /// An address has changed: the next one that is not known is looked for at once.
    pub(crate) fn look_again(&self) {
        self.known.lock().looked_at = Time::ZERO;
    }

    /// Learns the addresses of all webhooks, unless it just did.
    fn look(&self, namespace: &str, known: &mut Known) -> Result<(), Error> {
        let now = clock::now();
        if now < known.looked_at.plus(LOOK_AGAIN) && now >= known.looked_at {
            return Ok(());
        }
        let mut prefix = trigger(namespace, "", "").to_bytes();
        prefix.truncate(prefix.len() - 1);
        let mut hooks = HashMap::new();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .documents(&prefix, last.as_deref(), Order::Forward, limits::LIST_PAGE)
                .map_err(failure)?;
            for (key, text) in &page {
                if let Some(EntityKey::Trigger { workflow, name, .. }) = EntityKey::from_bytes(key)
                    && let Some(view) = webhook(text)
                {
                    let token = self.token(namespace, &workflow, &name, view.address)?;
                    hooks.insert(token, (workflow, name, view.address, None));
                }
            }
            let Some((key, _)) = page.last() else {
                break;
            };
            last = Some(key.clone());
        }
        *known = Known {
            looked_at: now,
            hooks,
        };
        Ok(())
    }

    /// A webhook trigger as a version says; none if the version has no such one.
    pub(crate) fn read(
        &self,
        namespace: &str,
        workflow: &str,
        name: &str,
        version: u32,
    ) -> Result<Option<Hook>, Error> {
        let row = self.store.version(namespace, workflow, Some(version));
        let Some(row) = row.map_err(failure)? else {
            return Ok(None);
        };
        let spec: Spec = serde_json::from_str(&row.spec).map_err(|error| {
            let message = format!("version {version} of `{workflow}` cannot be read: {error}");
            Error::new(ErrorCode::StoreCorrupt, message)
        })?;
        let found = spec.triggers.iter().find(|trigger| *trigger.name == *name);
        Ok(found.and_then(|trigger| match &trigger.kind {
            TriggerKind::Webhook(webhook) => Some(Hook {
                workflow: workflow.into(),
                name: name.into(),
                version,
                path: webhook.path.clone(),
                secret: webhook.secret.clone(),
            }),
            TriggerKind::Schedule(_) | TriggerKind::Signal(_) => None,
        }))
    }

    /// The signal that a call stands for.
    ///
    /// # Errors
    /// `limit-reached` for a body that is too big, `not-authenticated` for a signature that is missing,
    /// wrong or old, `bad-request` for a body that is no JSON, `not-allowed-now` while the secret is not
    /// set: what is wrong with it is for the log, not for whoever calls.
    pub(crate) fn check(&self, hook: &Hook, call: &Call) -> Result<Signal, Error> {
        if call.body.len() > limits::SIGNAL_BYTES {
            let message = format!(
                "the body has {} bytes; {} are the most allowed",
                call.body.len(),
                limits::SIGNAL_BYTES
            );
            return Err(
                Error::new(ErrorCode::LimitReached, message).hint("send where it is kept instead")
            );
        }
        let id = match &hook.secret {
            Some(secret) => {
                // Nothing is looked up for a caller who does not even try.
                given(call)?;
                let secret = self
                    .text(hook, secret)
                    .map_err(|why| unchecked(hook, &why))?;
                signed(&secret, call, clock::wall())?
            }
            None => named(call)?,
        };
        let payload = if call.body.is_empty() {
            Value::Null
        } else {
            let body: serde_json::Value = serde_json::from_slice(&call.body).map_err(|error| {
                let message = format!("the body is not JSON: {error}");
                Error::new(ErrorCode::BadRequest, message)
                    .hint("it becomes `signal.payload`; without a body that is null")
            })?;
            Value::from_json(&body)
        };
        Ok(Signal {
            id: id.into(),
            name: hook.path.clone(),
            key: Value::Null,
            payload,
            sent_at: Time::ZERO,
            hops: 0,
            by: format!("webhook {}", hook.name).into(),
        })
    }

    /// A secret as text.
    fn text(&self, hook: &Hook, secret: &Template) -> Result<String, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("the secret of the webhook `{}`: {error}", hook.name);
            Error::new(ErrorCode::BadDefinition, message)
        };
        let scope = MapScope(Map::new());
        let Template::Text(text) = secret else {
            let value = secret.eval(&scope, Budget::default());
            return value
                .map(|value| value.text())
                .map_err(|error| failed(&error));
        };
        let parts = text.render(&scope, Budget::default());
        let mut whole = String::new();
        for part in parts.map_err(|error| failed(&error))? {
            match part {
                Fragment::Text(text) => whole.push_str(&text),
                Fragment::Secret(name) => {
                    let given = self.secret.get().and_then(|secret| secret(&name));
                    let value = match given {
                        Some(value) => Some(value),
                        None => self.kept.open(NAMESPACE, &name)?,
                    };
                    whole.push_str(&value.ok_or_else(|| {
                        let message = "the secret of this webhook is not set";
                        Error::new(ErrorCode::NotAllowedNow, message)
                            .hint(format!("on the server: `kapell secret set {name}`"))
                    })?);
                }
            }
        }
        if whole.is_empty() {
            // Everybody knows how to sign with nothing.
            return Err(failed(&"it is empty"));
        }
        Ok(whole)
    }
}

fn trigger(namespace: &str, workflow: &str, name: &str) -> EntityKey {
    EntityKey::Trigger {
        namespace: namespace.into(),
        workflow: workflow.into(),
        name: name.into(),
    }
}

/// The document of a webhook trigger.
fn webhook(text: &str) -> Option<TriggerView> {
    let view: TriggerView = serde_json::from_str(text).ok()?;
    view.on.path.is_some().then_some(view)
}

/// What a caller is told whose signature cannot be looked at. Why is said to those who run the server:
/// the names of secrets and what is wrong with them are nothing to strangers.
fn unchecked(hook: &Hook, why: &Error) -> Error {
    let (workflow, trigger) = (&hook.workflow, &hook.name);
    let hint = why.hint.as_deref().unwrap_or_default();
    tracing::error!(%workflow, %trigger, error = %why.message, hint, "calls of a webhook cannot be checked");
    Error::new(why.code, "calls of this webhook cannot be checked now")
        .hint("whoever runs the server finds the reason in its log")
}

fn refused<T>(message: &str) -> Result<T, Error> {
    Err(Error::new(ErrorCode::NotAuthenticated, message)
        .hint("`X-Kapell-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256 of t.body>`"))
}

/// The header of a call that is signed.
fn given(call: &Call) -> Result<&str, Error> {
    match call.signature.as_deref() {
        Some(header) => Ok(header),
        None => refused("the call is not signed"),
    }
}

/// Looks at a signature. Returns it: it names the call.
fn signed(secret: &str, call: &Call, now: Time) -> Result<String, Error> {
    let header = given(call)?;
    if header.len() > limits::WEBHOOK_SIGNATURE {
        return refused("the signature is too long");
    }
    let mut time = None;
    let mut given = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", text)) => time = Some(text),
            Some(("v1", text)) => given.push(text),
            _ => {}
        }
    }
    let Some(time) = time else {
        return refused("the signature has no time");
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return refused("the secret cannot sign");
    };
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(&call.body);
    let right = given.into_iter().find(|given| {
        let bytes = unhex(given);
        bytes.is_some_and(|bytes| mac.clone().verify_slice(&bytes).is_ok())
    });
    let Some(right) = right else {
        return refused("the signature is wrong");
    };
    // What is signed can be believed: only now is the time looked at.
    let at = time.parse::<i64>().ok();
    let at = at
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .map(Time);
    let Some(at) = at else {
        return refused("the time of the signature is no number of seconds");
    };
    let apart = now.since(at).abs();
    if apart > limits::WEBHOOK_WINDOW {
        return refused("the call was signed more than 5 minutes ago, or in the future");
    }
    Ok(right.to_ascii_lowercase())
}

/// What names a call that is not signed.
fn named(call: &Call) -> Result<String, Error> {
    if let Some(id) = call.id.as_ref().filter(|id| !id.is_empty()) {
        if id.len() > limits::SUBSCRIPTION_TEXT {
            let message = format!("the header `Idempotency-Key` has {} bytes", id.len());
            return Err(Error::new(ErrorCode::LimitReached, message)
                .hint(format!("at most {}", limits::SUBSCRIPTION_TEXT)));
        }
        return Ok(id.clone());
    }
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no random bytes: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
