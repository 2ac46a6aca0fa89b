//! `http`: one request, its answer as the output.
//!
//! 4xx is the user's failure; 408, 425, 429, 5xx and everything between here and the server is the
//! platform's, with `Retry-After` kept. Proxies and extra roots come from the environment that the
//! worker was given: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kapell_api::task::{HttpCredentials, HttpRequest, Process, TaskError, Work};
use kapell_api::trace;
use kapell_expr::Value;
use kapell_model::{FailureKind, Time, limits};
use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::{Request, Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use crate::failure;
use crate::input::{BaseEnv, Resolver};
use crate::launch::Job;
use crate::mask::{Masker, base64};
use crate::output;
use crate::runtime::guard::{Guarded, HttpRules, Refused};
use crate::shared::Shared;

const REDIRECTS: u32 = 5;
const CONNECT: Duration = Duration::from_secs(30);
/// Bytes of an answer in an error's message.
const SHOWN_BYTES: usize = 1000;

/// What makes requests. An agent serves one request at a time, so that a cancelled one can be torn
/// down with its agent; agents and their connections are kept for the next.
pub(crate) struct Client {
    roots: RootCerts,
    rules: Arc<HttpRules>,
    proxies: BTreeMap<&'static str, Proxy>,
    no_proxy: Vec<String>,
    idle: Mutex<Vec<Agents>>,
    busy: Mutex<HashMap<u64, Agents>>,
}

/// An agent for each way out.
#[derive(Clone)]
struct Agents {
    direct: Agent,
    proxied: BTreeMap<&'static str, Agent>,
}

impl Client {
    /// As this environment says.
    pub(crate) fn new(env: &BaseEnv, rules: HttpRules) -> Self {
        let variable = |name: &str| {
            let value = env
                .get(&name.to_ascii_lowercase())
                .or_else(|| env.get(name))?;
            String::from_utf8(value.to_vec())
                .ok()
                .filter(|value| !value.is_empty())
        };
        let proxies = [("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY")]
            .into_iter()
            .filter_map(|(scheme, name)| {
                let proxy = variable(name).or_else(|| variable("ALL_PROXY"))?;
                Some((scheme, Proxy::new(&proxy).ok()?))
            });
        Self {
            roots: roots(variable("SSL_CERT_FILE")),
            rules: Arc::new(rules),
            proxies: proxies.collect(),
            no_proxy: variable("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .map(|host| host.trim().to_owned())
                .collect(),
            idle: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    /// Agents for a job, until [`Client::done`].
    fn begin(&self, key: u64) -> Agents {
        let idle = self.idle.lock().pop();
        let agents = idle.unwrap_or_else(|| Agents {
            direct: guarded(&self.roots, &self.rules),
            proxied: self
                .proxies
                .iter()
                .map(|(scheme, proxy)| (*scheme, proxied(proxy.clone(), &self.roots)))
                .collect(),
        });
        self.busy.lock().insert(key, agents.clone());
        agents
    }

    /// Takes the agents back, unless they were torn down.
    fn done(&self, key: u64) {
        if let Some(agents) = self.busy.lock().remove(&key) {
            self.idle.lock().push(agents);
        }
    }

    /// Tears down the connections of a job, which frees its thread.
    pub(crate) fn cancel(&self, key: u64) {
        if let Some(agents) = self.busy.lock().remove(&key) {
            agents.shutdown();
        }
    }

    /// Tears down all connections under way.
    pub(crate) fn cancel_all(&self) {
        let busy = std::mem::take(&mut *self.busy.lock());
        busy.into_values().for_each(Agents::shutdown);
    }

    fn agent<'a>(&self, agents: &'a Agents, request: &Request<String>) -> &'a Agent {
        let host = request.uri().host().unwrap_or_default();
        let spared = |rule: &String| {
            let rule = rule.trim_start_matches("*.").trim_start_matches('.');
            rule == "*" || !rule.is_empty() && (host == rule || host.ends_with(&format!(".{rule}")))
        };
        match agents
            .proxied
            .get(request.uri().scheme_str().unwrap_or_default())
        {
            Some(agent) if !self.no_proxy.iter().any(spared) => agent,
            _ => &agents.direct,
        }
    }
}

impl Agents {
    fn shutdown(self) {
        let agents = self.proxied.into_values().chain([self.direct]);
        agents.for_each(Agent::shutdown);
    }
}

fn roots(file: Option<String>) -> RootCerts {
    let Some(pem) = file.and_then(|file| std::fs::read(file).ok()) else {
        return RootCerts::WebPki;
    };
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    certificates.collect::<Vec<_>>().into()
}

/// An agent that connects itself, to what the rules allow.
fn guarded(roots: &RootCerts, rules: &Arc<HttpRules>) -> Agent {
    let resolver = Guarded::new(Arc::clone(rules));
    Agent::with_parts(config(None, roots), DefaultConnector::default(), resolver)
}

/// An agent whose proxy resolves names.
fn proxied(proxy: Proxy, roots: &RootCerts) -> Agent {
    config(Some(proxy), roots).into()
}

fn config(proxy: Option<Proxy>, roots: &RootCerts) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .max_redirects_will_error(true)
        .allow_non_standard_methods(true)
        .timeout_connect(Some(CONNECT))
        .user_agent(concat!("kapell/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
        .proxy(proxy)
        .build()
}

/// Makes the request of an `http` task. Blocks.
pub(crate) fn run(shared: &Shared, job: &Job) -> Result<Value, Box<TaskError>> {
    let Work::Http { request, process } = &job.task.work else {
        return Err(failure::platform("connection", "the task is no request"));
    };
    let mut resolver = Resolver::new(shared, &job.task);
    let mut made = build(request, process, &mut resolver)?;
    // Whoever answers can belong to the same trace.
    let within = trace::traceparent(job.task.run, &process.path, job.task.attempt);
    if let Ok(within) = header::HeaderValue::try_from(within) {
        made.headers_mut().entry("traceparent").or_insert(within);
    }
    let masker = resolver.masker();
    let host = made.uri().host().unwrap_or_default();
    if !shared.client.rules.allow_host(host) {
        return Err(refused(&made, &Refused::host(host)));
    }
    let agents = shared.client.begin(job.key);
    // Set before the agents are torn down, so one of the two is seen.
    let answer = if job.cancelled.load(Ordering::Relaxed) {
        Err(failure::platform("lost", "cancelled before it began"))
    } else {
        let agent = shared.client.agent(&agents, &made);
        exchange(shared, job, agent, made, &masker)
    };
    shared.client.done(job.key);
    answer.map_err(|mut error| {
        error.message = masked(&masker, &error.message);
        error
    })
}

fn refused(request: &Request<String>, why: &Refused) -> Box<TaskError> {
    let shown = format!("{} {}", request.method(), request.uri());
    failure::permanent("refused", format!("{shown}: {why}"))
}

fn masked(masker: &Masker, text: &str) -> String {
    failure::bounded(masker.text(text), limits::ERROR_BYTES)
}

fn exchange(
    shared: &Shared,
    job: &Job,
    agent: &Agent,
    request: Request<String>,
    masker: &Masker,
) -> Result<Value, Box<TaskError>> {
    let timeout = job.process().and_then(|process| process.timeout);
    let shown = format!("{} {}", request.method(), request.uri());
    let answer = if request.body().is_empty() {
        let request = request.map(|_| ());
        agent.run(
            agent
                .configure_request(request)
                .timeout_global(timeout)
                .build(),
        )
    } else {
        agent.run(
            agent
                .configure_request(request)
                .timeout_global(timeout)
                .build(),
        )
    };
    let mut answer = answer.map_err(|error| no_answer(&error, &shown))?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(limits::HTTP_BODY_BYTES)
        .read_to_vec();
    let body = body.map_err(|error| no_answer(&error, &shown))?;
    if answer.status().as_u16() >= 400 {
        // Hidden before it is cut: half of a secret is no less of one.
        let body = masker.bytes(&body);
        return Err(bad_status(&answer, &body, &shown, (shared.clock)()));
    }
    shared.keeping(job.key, masker, |keeping| {
        output::store(to_value(&answer, &body), keeping)
    })
}

fn build(
    request: &HttpRequest,
    process: &Process,
    resolver: &mut Resolver<'_>,
) -> Result<Request<String>, Box<TaskError>> {
    let mut made = Request::builder()
        .method(&*request.method)
        .uri(with_query(&request.url, &request.query));
    let mut has_key = false;
    for (name, text) in &request.headers {
        has_key |= name.eq_ignore_ascii_case("idempotency-key");
        made = made.header(&**name, resolver.text(text)?);
    }
    if !has_key {
        made = made.header("idempotency-key", &*process.idempotency_key);
    }
    match &request.auth {
        None => {}
        Some(HttpCredentials::Bearer(token)) => {
            made = made.header(
                header::AUTHORIZATION,
                format!("Bearer {}", resolver.text(token)?),
            );
        }
        Some(HttpCredentials::Basic { user, password }) => {
            let pair = format!("{}:{}", resolver.text(user)?, resolver.text(password)?);
            made = made.header(
                header::AUTHORIZATION,
                format!("Basic {}", base64(pair.as_bytes())),
            );
        }
    }
    let mut body = String::new();
    if let Some((kind, text)) = &request.body {
        let has_kind = request
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !has_kind {
            made = made.header(header::CONTENT_TYPE, *kind);
        }
        body.clone_from(text);
    }
    made.body(body).map_err(|error| {
        failure::permanent("connection", format!("the request cannot be sent: {error}"))
    })
}

/// The URL with query parameters added, percent-encoded.
fn with_query(url: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return url.to_owned();
    }
    let (base, fragment) = url
        .split_once('#')
        .map_or((url, None), |(base, fragment)| (base, Some(fragment)));
    let mut whole = base.to_owned();
    for (name, value) in query {
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(&crate::mask::percent(name));
        whole.push('=');
        whole.push_str(&crate::mask::percent(value));
    }
    if let Some(fragment) = fragment {
        whole.push('#');
        whole.push_str(fragment);
    }
    whole
}

fn no_answer(error: &ureq::Error, shown: &str) -> Box<TaskError> {
    let message = format!("{shown}: {error}");
    match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => {
            failure::error(FailureKind::Timeout, "timeout", message)
        }
        ureq::Error::BodyExceedsLimit(_) => failure::user(
            "output",
            format!(
                "{shown}: the answer holds more than {} bytes",
                limits::HTTP_BODY_BYTES
            ),
        ),
        ureq::Error::TooManyRedirects => failure::user(
            "connection",
            format!("{shown}: more than {REDIRECTS} redirects"),
        ),
        ureq::Error::Other(why) if why.is::<Refused>() => {
            failure::permanent("refused", format!("{shown}: {why}"))
        }
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::RedirectFailed
        | ureq::Error::InvalidProxyUrl => failure::permanent("connection", message),
        _ => failure::platform("connection", message),
    }
}

fn bad_status(answer: &Response<Body>, body: &[u8], shown: &str, now: Time) -> Box<TaskError> {
    let status = answer.status();
    let platform = matches!(status.as_u16(), 408 | 425 | 429 | 500..);
    let kind = if platform {
        FailureKind::Platform
    } else {
        FailureKind::User
    };
    let words = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    let mut message = format!("{shown} answered {status}");
    if !words.trim().is_empty() {
        message = format!("{message}: {}", words.trim());
    }
    let wait = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    Box::new(TaskError {
        http_status: Some(status.as_u16()),
        retry_after: wait.and_then(|text| retry_after(text, now)),
        ..*failure::error(kind, "http_status", message)
    })
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: Time) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Duration::try_from(Time::from(at).since(now)).ok()
}

fn to_value(answer: &Response<Body>, body: &[u8]) -> Value {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in answer.headers() {
        let text = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&text);
            })
            .or_insert_with(|| text.to_string());
    }
    let kind = headers.get("content-type").map(|kind| {
        kind.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    let is_json = kind.is_some_and(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    let json = is_json.then(|| serde_json::from_slice(body).ok()).flatten();
    let body = json.unwrap_or_else(|| Value::from(String::from_utf8_lossy(body).into_owned()));
    Value::map([
        ("status", Value::Int(answer.status().as_u16().into())),
        (
            "headers",
            Value::map(
                headers
                    .into_iter()
                    .map(|(name, text)| (name, Value::from(text))),
            ),
        ),
        ("body", body),
    ])
}
