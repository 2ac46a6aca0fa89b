//! Who may ask: tokens, what they allow, and the caller that a request came from.
//!
//! A token is `kapell_<id>_<secret>`: the id finds it, 256 random bits prove it. Only a hash of those is
//! stored, as a document of its own; all of them are kept in memory, so that a check asks no store. Where
//! several servers share a store each reads them again now and then, and when one is shown that it does not know.

mod about;
mod audit;
mod rate;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kapell_api::http::{CreatedToken, NewToken, Scope, TokenPage, TokenView};
use kapell_model::{Error, ErrorCode, Time, limits};
use kapell_node::clock;
use kapell_store::{Order, Store};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

pub(crate) use about::{About, about, attributed, carried};
pub(crate) use audit::Audit;
pub(crate) use rate::{Client, Rates};

pub use user::own_name;

use crate::rows::failure;

/// First byte of the keys of tokens.
const DOCUMENT: u8 = 66;

/// What every token begins with.
const PREFIX: &str = "kapell_";

/// Bytes of an id and of a secret.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Where several servers share a store, how old what is known of tokens may be: so long one that is revoked may
/// still hold elsewhere. And how old it may be for a token that is not known.
const READ_AGAIN: Duration = Duration::from_secs(3);
const READ_UNKNOWN: Duration = Duration::from_millis(500);

/// How long a token that holds no more stays in the list.
const LISTED_DAYS: i64 = 90;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// The worker in this process.
    Inside,
    /// A process that may open the socket of the data directory.
    Socket {
        /// Its id, if the system told.
        pid: Option<i32>,
        /// Its user's id, if the system told.
        uid: Option<u32>,
    },
    /// A client of an address that only this machine reaches.
    Loopback(SocketAddr),
    /// Anybody: only tokens let in.
    Remote(SocketAddr),
}

/// Who made a request. Handlers find it among the extensions of the request.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: Peer,
    token: Option<Arc<Token>>,
    /// All tokens, where the one that was shown may be revoked.
    tokens: Option<Arc<Tokens>>,
}

/// A token as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(flatten)]
    view: TokenView,
    /// BLAKE3 of the secret, in hexadecimal. The secret is random, so nothing slow is needed.
    hash: String,
}

impl Token {
    fn holds(&self, now: Time) -> bool {
        self.view.revoked_at.is_none() && self.view.expires_at.is_none_or(|at| now < at)
    }
}

impl Caller {
    /// Somebody who needs no token.
    pub(crate) fn local(peer: Peer) -> Self {
        Self {
            peer,
            token: None,
            tokens: None,
        }
    }

    /// False once the token that was shown is revoked or its time is over: what it opened is to end.
    pub(crate) fn still_may(&self) -> bool {
        let (Some(token), Some(tokens)) = (&self.token, &self.tokens) else {
            return true;
        };
        let now = clock::now();
        let found = tokens.with(|tokens| {
            let kept = tokens.get(&token.view.id);
            kept.is_some_and(|token| token.holds(now))
        });
        // While the store does not say, what is known counts.
        found.unwrap_or_else(|_| token.holds(now))
    }

    /// True for the worker in this process.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.peer, Peer::Inside)
    }

    /// The name of the token, if one was shown.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.view.name)
    }

    /// Refuses what the token does not allow.
    ///
    /// # Errors
    /// [`ErrorCode::NotPermitted`].
    pub fn may(&self, scope: Scope, namespace: &str) -> Result<(), Error> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let view = &token.view;
        if !view.scopes.contains(&scope) && !view.scopes.contains(&Scope::Admin) {
            let message = format!(
                "the token `{}` lacks the scope `{}`",
                view.name,
                scope.name()
            );
            return Err(Error::new(ErrorCode::NotPermitted, message)
                .hint("`kapell token create NAME --scope …` makes one that has it"));
        }
        if !view.namespaces.is_empty() && !view.namespaces.iter().any(|name| name == namespace) {
            let message = format!(
                "the token `{}` is not for the namespace `{namespace}`",
                view.name
            );
            return Err(Error::new(ErrorCode::NotPermitted, message)
                .hint(format!("it is for {}", view.namespaces.join(", "))));
        }
        Ok(())
    }

    /// True if a token with the scope `admin` was shown.
    pub(crate) fn is_admin(&self) -> bool {
        let token = self.token.as_ref();
        token.is_some_and(|token| token.view.scopes.contains(&Scope::Admin))
    }

    /// Id of the token.
    pub(crate) fn token_id(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.view.id)
    }

    /// From where, for people.
    pub(crate) fn from(&self) -> String {
        match &self.peer {
            Peer::Socket { pid: Some(pid), .. } => format!("socket, process {pid}"),
            Peer::Socket { .. } => "socket".to_owned(),
            Peer::Inside => "inside".to_owned(),
            Peer::Loopback(address) | Peer::Remote(address) => address.to_string(),
        }
    }

    /// Who, for people.
    pub(crate) fn who(&self) -> String {
        match (&self.token, &self.peer) {
            (Some(token), _) => token.view.name.clone(),
            (None, Peer::Socket { uid: Some(uid), .. }) => user::name_of(*uid),
            (None, Peer::Inside) => "this process".to_owned(),
            (None, _) => "somebody on this machine".to_owned(),
        }
    }

    /// Whose requests are counted together; none: they are not counted.
    pub(crate) fn rated(&self) -> Option<Client> {
        match (&self.token, &self.peer) {
            (Some(token), _) => Some(Client::Token(token.view.id.as_str().into())),
            (None, Peer::Socket { .. } | Peer::Inside) => None,
            (None, Peer::Loopback(address) | Peer::Remote(address)) => {
                Some(Client::of(address.ip()))
            }
        }
    }
}

/// All tokens.
pub(crate) struct Tokens {
    store: Arc<dyn Store>,
    /// Other servers make and revoke tokens too.
    shared: bool,
    held: RwLock<Held>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// The tokens as they were read last.
#[derive(Default)]
struct Held {
    /// By id; none until they were read.
    tokens: Option<BTreeMap<String, Arc<Token>>>,
    /// On the steady clock.
    read_at: Option<Instant>,
}

impl Tokens {
    pub(crate) fn new(store: Arc<dyn Store>, shared: bool) -> Self {
        Self {
            store,
            shared,
            held: RwLock::default(),
        }
    }

    /// Reads them if they were never read, or where they are shared longer ago than this.
    fn read(&self, age: Duration) -> Result<(), Error> {
        let is_new = |held: &Held| {
            let read_at = held.read_at.filter(|_| held.tokens.is_some());
            read_at.is_some_and(|at| !self.shared || at.elapsed() < age)
        };
        if is_new(&self.held.read()) {
            return Ok(());
        }
        let mut held = self.held.write();
        if is_new(&held) {
            return Ok(());
        }
        let rows = self
            .store
            .documents(&[DOCUMENT], None, Order::Forward, limits::TOKENS + 1);
        let rows = match rows {
            Ok(rows) => rows,
            // What is known lets whoever looks after the store see how it is.
            Err(_) if held.tokens.is_some() && !age.is_zero() => {
                held.read_at = Some(clock::steady());
                return Ok(());
            }
            Err(error) => return Err(failure(error)),
        };
        let mut tokens = BTreeMap::new();
        for (_, text) in rows {
            let token: Token = serde_json::from_str(&text).map_err(|error| {
                Error::new(
                    ErrorCode::StoreCorrupt,
                    format!("a token cannot be read: {error}"),
                )
            })?;
            tokens.insert(token.view.id.clone(), Arc::new(token));
        }
        *held = Held {
            tokens: Some(tokens),
            read_at: Some(clock::steady()),
        };
        Ok(())
    }

    fn with<T>(&self, look: impl FnOnce(&BTreeMap<String, Arc<Token>>) -> T) -> Result<T, Error> {
        self.read(READ_AGAIN)?;
        let held = self.held.read();
        Ok(look(held.tokens.as_ref().unwrap_or(&BTreeMap::new())))
    }

    /// True if some token would let somebody in.
    pub(crate) fn any(&self) -> Result<bool, Error> {
        let now = clock::now();
        self.with(|tokens| tokens.values().any(|token| token.holds(now)))
    }

    /// The caller that a header `Authorization` proves.
    pub(crate) fn check(
        self: &Arc<Self>,
        authorization: &str,
        peer: Peer,
    ) -> Result<Caller, Error> {
        let refused = |why: &str| {
            Error::new(ErrorCode::NotAuthenticated, why).hint(
                "`kapell token create NAME --scope read,run` makes one, on the server's machine",
            )
        };
        let (kind, text) = authorization.split_once(' ').unwrap_or_default();
        let parts = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'));
        let (true, Some((id, secret))) = (kind.eq_ignore_ascii_case("bearer"), parts) else {
            return Err(refused(
                "the header `Authorization` holds no token of Kapell",
            ));
        };
        let mut found = self.with(|tokens| tokens.get(id).cloned())?;
        if found.is_none() && self.shared {
            // Another server may just have made it.
            self.read(READ_UNKNOWN)?;
            found = self.with(|tokens| tokens.get(id).cloned())?;
        }
        let shown = blake3::hash(secret.as_bytes()).to_hex();
        // An unknown id takes as long as a wrong secret.
        let nothing = "0".repeat(shown.len());
        let kept = found.as_ref().map_or(nothing.as_str(), |token| &token.hash);
        let same = bool::from(kept.as_bytes().ct_eq(shown.as_bytes()));
        match found.filter(|_| same) {
            None => Err(refused("the token is unknown")),
            Some(token) if !token.holds(clock::now()) => Err(refused(&format!(
                "the token `{}` was revoked or its time is over",
                token.view.name
            ))),
            Some(token) => Ok(Caller {
                peer,
                token: Some(token),
                tokens: Some(Arc::clone(self)),
            }),
        }
    }

    pub(crate) fn create(&self, new: &NewToken) -> Result<CreatedToken, Error> {
        let now = clock::now();
        check_new(new, now)?;
        self.read(Duration::ZERO)?;
        let mut held = self.held.write();
        let tokens = held.tokens.get_or_insert_default();
        let taken = |token: &&Arc<Token>| token.view.name == new.name && token.holds(now);
        if let Some(token) = tokens.values().find(taken) {
            let message = format!("the token `{}` has this name already", token.view.id);
            return Err(Error::new(ErrorCode::NotAllowedNow, message)
                .hint("revoke it first, or choose another name"));
        }
        let mut changes = Vec::new();
        tokens.retain(|id, token| {
            let ended = token.view.revoked_at.or(token.view.expires_at);
            let listed = ended.is_none_or(|at| now.since(at).as_hours() < LISTED_DAYS * 24);
            if !listed {
                changes.push((key(id), None));
            }
            listed
        });
        if tokens.len() >= limits::TOKENS {
            let message = format!("there are {} tokens", limits::TOKENS);
            return Err(Error::new(ErrorCode::LimitReached, message).hint(format!(
                "those that hold no more leave the list after {LISTED_DAYS} days"
            )));
        }
        let (id, secret) = (random::<ID_BYTES>()?, random::<SECRET_BYTES>()?);
        let token = Token {
            hash: blake3::hash(secret.as_bytes()).to_hex().to_string(),
            view: TokenView {
                id: id.clone(),
                name: new.name.clone(),
                scopes: new.scopes.clone(),
                namespaces: new.namespaces.clone(),
                created_at: now,
                created_by: new.by.clone(),
                expires_at: new.expires_at,
                revoked_at: None,
                revoked_by: None,
            },
        };
        changes.push((key(&id), Some(text(&token)?)));
        self.store.put_documents(&changes).map_err(failure)?;
        let created = CreatedToken {
            secret: format!("{PREFIX}{id}_{secret}"),
            token: token.view.clone(),
        };
        tokens.insert(id, Arc::new(token));
        Ok(created)
    }

    pub(crate) fn list(&self, after: &str, limit: usize) -> Result<TokenPage, Error> {
        self.with(|tokens| {
            let beyond = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let mut found: Vec<TokenView> = tokens
                .range::<str, _>(beyond)
                .take(limit + 1)
                .map(|(_, token)| token.view.clone())
                .collect();
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|token| token.id.clone());
            TokenPage {
                tokens: found,
                next,
            }
        })
    }

    pub(crate) fn revoke(&self, name: &str, by: &str) -> Result<TokenView, Error> {
        let now = clock::now();
        self.read(Duration::ZERO)?;
        let mut held = self.held.write();
        let tokens = held.tokens.get_or_insert_default();
        let found = tokens.get(name).cloned().or_else(|| {
            let named = |token: &&Arc<Token>| token.view.name == name && token.holds(now);
            tokens.values().find(named).cloned()
        });
        let Some(found) = found else {
            let message = format!("there is no token `{name}`");
            return Err(Error::new(ErrorCode::TokenNotFound, message)
                .hint("`kapell token list` lists tokens"));
        };
        let mut token = Token::clone(&found);
        if token.view.revoked_at.is_none() {
            token.view.revoked_at = Some(now);
            token.view.revoked_by = Some(by.to_owned());
            let change = (key(&token.view.id), Some(text(&token)?));
            self.store.put_documents(&[change]).map_err(failure)?;
            tokens.insert(token.view.id.clone(), Arc::new(token.clone()));
        }
        Ok(token.view)
    }
}

fn check_new(new: &NewToken, now: Time) -> Result<(), Error> {
    let bad =
        |message: String, hint: &str| Err(Error::new(ErrorCode::BadRequest, message).hint(hint));
    let length = new.name.chars().count();
    if length == 0 || length > limits::NAME_CHARS || new.name.chars().any(char::is_control) {
        return bad(
            format!("`{}` is no name of a token", new.name.escape_debug()),
            "from 1 to 128 characters",
        );
    }
    if new.scopes.is_empty() {
        return bad(
            format!("the token `{}` would allow nothing", new.name),
            "scopes are read, run, write and admin",
        );
    }
    if let Some(at) = new.expires_at.filter(|at| *at <= now) {
        return bad(format!("{at} has passed"), "until when is it to hold?");
    }
    if new.namespaces.len() > limits::LABELS {
        return bad(
            format!("the token `{}` names too many namespaces", new.name),
            "at most 64; none is all",
        );
    }
    Ok(())
}

fn key(id: &str) -> Vec<u8> {
    [&[DOCUMENT], id.as_bytes()].concat()
}

fn text(token: &Token) -> Result<String, Error> {
    serde_json::to_string(token).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
}

/// So many random bytes in hexadecimal.
/// A text that nobody else has.
pub(crate) fn nonce() -> Result<String, Error> {
    random::<SECRET_BYTES>()
}

fn random<const BYTES: usize>() -> Result<String, Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("no random bytes: {error}")))?;
    let mut text = String::with_capacity(2 * BYTES);
    for byte in bytes {
        // A text takes whatever is written.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
