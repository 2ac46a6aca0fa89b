//! HTTP requests, counted by route.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use kapell_node::clock::Stopwatch;
use kapell_node::metrics::{Histogram, SHORT};
use parking_lot::Mutex;

use super::text::Text;
use crate::Service;

/// Of one method of one route.
struct Route {
    /// By status.
    answers: BTreeMap<u16, u64>,
    duration: Histogram,
}

/// Requests that were answered. Routes are those of the program, so there are not many.
#[derive(Default)]
pub(crate) struct Requests(Mutex<BTreeMap<String, BTreeMap<String, Route>>>);

impl Requests {
    fn count(&self, path: &str, method: &str, status: u16, watch: Stopwatch) {
        // Methods are text of the client's: those that no route takes are one.
        let method = match method {
            "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" => method,
            _ => "other",
        };
        let mut routes = self.0.lock();
        let new = || Route {
            answers: BTreeMap::new(),
            duration: Histogram::new(SHORT),
        };
        if !routes.contains_key(path) {
            routes.insert(path.to_owned(), BTreeMap::new());
        }
        let Some(methods) = routes.get_mut(path) else {
            return;
        };
        if !methods.contains_key(method) {
            methods.insert(method.to_owned(), new());
        }
        if let Some(route) = methods.get_mut(method) {
            *route.answers.entry(status).or_default() += 1;
            route.duration.observe_duration(watch.elapsed());
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let routes = self.0.lock();
        let each = || {
            let routes = routes.iter();
            routes.flat_map(|(path, methods)| {
                methods
                    .iter()
                    .map(move |(method, route)| (path, method, route))
            })
        };
        text.family("kapell_http_requests_total");
        for (path, method, route) in each() {
            for (status, answers) in &route.answers {
                let code = status.to_string();
                let labels = [("method", &**method), ("path", &**path), ("code", &*code)];
                text.sample(&labels, super::count(*answers));
            }
        }
        text.family("kapell_http_request_duration_seconds");
        for (path, method, route) in each() {
            text.seconds(&[("method", method), ("path", path)], &route.duration);
        }
    }
}

/// Counts a request once the head of its answer is there. What matches no route is one route.
pub(crate) async fn measured(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let watch = Stopwatch::start();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let path = path.as_ref().map_or("(none)", MatchedPath::as_str);
    let status = response.status().as_u16();
    service.requests.count(path, method.as_str(), status, watch);
    response
}
