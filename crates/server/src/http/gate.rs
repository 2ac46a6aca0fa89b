//! What every request passes: who asks, whether they may, whether they ask too fast; and the audit log of
//! what they changed.
//!
//! What an operation needs stands in its annotation (`security`), and is read from the document, so
//! that a handler cannot be forgotten: what says nothing of itself needs `admin`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kapell_api::http::{AuditEntry, BASE, HOOKS, Scope};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use serde_json::Value;

use super::answer::problem;
use crate::Service;
use crate::auth::{About, Caller, Peer, Rates};
use crate::register::NAMESPACE;

/// A refused token weighs as much as so many requests, so that guessing is slow.
const GUESS: u32 = 100;

/// Bytes of an address that are kept in the audit log.
const PATH_BYTES: usize = 1_024;

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing: it checks for itself, or tells nothing.
    Nothing,
    /// Nothing, and nobody is asked who they are: the address is the proof, under whatever name the
    /// server is known to whoever calls.
    Address,
    /// A token with this scope.
    Scope(Scope),
}

/// Decides who gets in.
pub(super) struct Gate {
    service: Arc<Service>,
    needs: HashMap<(String, Method), Needs>,
    rates: Rates,
}

impl Gate {
    /// As the document says. Requests of one client are answered at most so often a second.
    pub(super) fn new(service: Arc<Service>, document: &Value, request_rate: u32) -> Self {
        let mut needs = HashMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                    continue;
                };
                needs.insert((path.clone(), method), needed(&operation["security"]));
            }
        }
        let act = format!("{BASE}{}", super::action::ROUTE);
        needs.insert((act, Method::POST), Needs::Scope(Scope::Run));
        Self {
            service,
            needs,
            rates: Rates::new(request_rate),
        }
    }

    fn needs(&self, request: &Request) -> Needs {
        let Some(path) = request.extensions().get::<MatchedPath>() else {
            // Nothing is there.
            return Needs::Nothing;
        };
        let path = path.as_str();
        if path.starts_with(HOOKS) {
            return Needs::Address;
        }
        if !path.starts_with(BASE) {
            // The document and its page, and what is merged with these routes and asks for the caller.
            return Needs::Nothing;
        }
        if path == super::document::PATH {
            return Needs::Nothing;
        }
        let method = match *request.method() {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        let known = self.needs.get(&(path.to_owned(), method));
        known.copied().unwrap_or(Needs::Scope(Scope::Admin))
    }

    /// Who asks; none if nobody knows and nothing needs it.
    fn caller(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Option<Caller>, Error> {
        let Some(peer) = peer else {
            return Ok(None);
        };
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let shown = shown.to_str().unwrap_or_default();
            return self.service.tokens.check(shown, peer.clone()).map(Some);
        }
        match peer {
            Peer::Socket { .. } | Peer::Inside => Ok(Some(Caller::local(peer.clone()))),
            Peer::Loopback(_) => {
                from_here(headers)?;
                Ok(Some(Caller::local(peer.clone())))
            }
            Peer::Remote(_) => Ok(None),
        }
    }
}

/// True for what proxies say of whom they pass on.
fn is_of_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || ["forwarded", "via", "x-real-ip"].contains(&name)
}

/// A browser on this machine may be told to ask by a page from anywhere: such requests name another host
/// or another origin. A proxy on this machine passes on what anybody asks.
fn from_here(headers: &HeaderMap) -> Result<(), Error> {
    let refused = |what: &str| {
        let message = format!("without a token, {what}");
        Err(Error::new(ErrorCode::NotPermitted, message)
            .hint("use the name `localhost` or the address itself, or a token"))
    };
    if let Some(name) = headers.keys().find(|name| is_of_a_proxy(name)) {
        let message = format!("without a token, nothing is answered to a proxy (`{name}`)");
        return Err(Error::new(ErrorCode::NotPermitted, message).hint(
            "start the server behind it with `--require-token`, and give its clients tokens",
        ));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let local = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback());
    // HTTP/2 has no such header, and browsers do not speak it without TLS.
    if !host.is_empty() && !local {
        return refused(&format!("nothing is answered under the name `{host}`"));
    }
    if let Some(origin) = text(header::ORIGIN)
        && origin
            .rsplit_once("//")
            .is_none_or(|(_, origin)| origin != host)
    {
        return refused(&format!("a page of `{origin}` may not ask"));
    }
    Ok(())
}

fn needed(security: &Value) -> Needs {
    let Some(first) = security.as_array().and_then(|all| all.first()) else {
        return Needs::Scope(Scope::Admin);
    };
    match first.get("token").and_then(|scopes| scopes[0].as_str()) {
        None if first.as_object().is_some_and(serde_json::Map::is_empty) => Needs::Nothing,
        name => {
            let known = Scope::ALL
                .into_iter()
                .find(|scope| Some(scope.name()) == name);
            Needs::Scope(known.unwrap_or(Scope::Admin))
        }
    }
}

/// The layer around all routes.
pub(super) async fn pass(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let needs = gate.needs(&request);
    let peer = request.extensions().get::<Peer>().cloned();
    let caller = match needs {
        Needs::Address => Ok(None),
        Needs::Nothing | Needs::Scope(_) => gate.caller(request.headers(), peer.as_ref()),
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return gate.refused(error, peer.as_ref()),
    };
    let rated = match (&caller, &peer) {
        (Some(caller), _) => caller.rated(),
        (None, Some(peer)) => Caller::local(peer.clone()).rated(),
        (None, None) => None,
    };
    if let Some(client) = rated
        && let Err(wait) = gate.rates.take(client, 1, clock::now())
    {
        return too_many(wait);
    }
    let scope = match (needs, &caller) {
        (Needs::Nothing | Needs::Address, _) => None,
        (Needs::Scope(_), None) => {
            let error = Error::new(ErrorCode::NotAuthenticated, "a token is needed here")
                .hint("KAPELL_TOKEN of commands, or the header `Authorization: Bearer …`");
            return gate.refused(error, peer.as_ref());
        }
        (Needs::Scope(scope), Some(_)) => Some(scope),
    };
    // Whoever takes a backup takes everything.
    let takes_all = request.uri().path().strip_prefix(BASE) == Some("/backup");
    let changes = (takes_all || !request.method().is_safe())
        && scope.is_some_and(|scope| scope != Scope::Read);
    let room = if changes {
        gate.service.audit.room().map(Some)
    } else {
        Ok(None)
    };
    let room = match room {
        Ok(room) => room,
        Err(error) => return problem(error, None),
    };
    let entry = caller
        .as_ref()
        .filter(|_| changes)
        .map(|caller| entry(caller, &request));
    let allowed = match (scope, &caller) {
        (Some(scope), Some(caller)) => caller.may(scope, NAMESPACE),
        (None, _) | (_, None) => Ok(()),
    };
    let about = About::default();
    let response = match allowed {
        Ok(()) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            about.clone().within(next.run(request)).await
        }
        Err(error) => problem(error, None),
    };
    if let Some(mut entry) = entry {
        entry.status = response.status().as_u16();
        entry.about = about.said();
        gate.service.audit.record(entry, room);
    }
    response
}

impl Gate {
    fn refused(&self, error: Error, peer: Option<&Peer>) -> Response {
        let client = peer.and_then(|peer| Caller::local(peer.clone()).rated());
        if error.code == ErrorCode::NotAuthenticated
            && let Some(client) = client
            && let Err(wait) = self.rates.take(client, GUESS, clock::now())
        {
            return too_many(wait);
        }
        let mut response = problem(error, None);
        if response.status() == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// What the audit log says of a request.
pub(super) fn entry(caller: &Caller, request: &Request) -> AuditEntry {
    let path = request.uri().path();
    let path = &path[..path.floor_char_boundary(PATH_BYTES)];
    AuditEntry {
        number: 0,
        at: clock::now(),
        who: caller.who(),
        token: caller.token_id().map(str::to_owned),
        from: caller.from(),
        what: format!("{} {path}", request.method()),
        status: 0,
        about: None,
    }
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let error = Error::new(ErrorCode::TooManyRequests, "requests come too fast")
        .hint(format!("try again in {seconds} s"));
    let mut response = problem(error, None);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response.into_response()
}
