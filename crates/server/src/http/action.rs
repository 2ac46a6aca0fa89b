//! What can be done to a run: one address a verb, made from the variants of [`Action`].

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Extension, Json};
use kapell_api::http::{Action, BASE, schema};
use kapell_model::RunId;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::Shared;
use super::answer::{Answer, Body, bad, keyed};
use crate::Service;
use crate::auth::Caller;

/// The route of every verb.
pub(super) const ROUTE: &str = "/runs/{run}/{verb}";

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().route(ROUTE, post(act))
}

async fn act(
    State(service): Shared,
    Path((run, verb)): Path<(String, String)>,
    headers: HeaderMap,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Answer<Option<RunId>> {
    let mut fields: Map<String, Value> = body.read_or_default()?;
    if body.1.is_some() {
        // Nobody knows of a token which groups whoever holds it is in.
        fields.remove("groups");
    }
    fields.insert("action".to_owned(), verb.into());
    let mut action: Action = serde_json::from_value(fields.into()).map_err(|error| bad(&error))?;
    if let Action::Fork {
        idempotency_key, ..
    } = &mut action
    {
        *idempotency_key = keyed(&headers, idempotency_key.take())?;
    }
    if let Action::Skip { admin, .. } | Action::SetOutput { admin, .. } = &mut action {
        *admin = caller.is_some_and(|caller| caller.is_admin());
    }
    let run = super::run::found(&service, run).await?;
    Ok(Json(service.act_soon(run, action).await?))
}

/// Adds an operation for each variant to the document.
pub(super) fn describe(document: &mut Value) {
    let mut schemas = Vec::new();
    Action::schemas(&mut schemas);
    schemas.push((schema::RunId::name().into_owned(), schema::RunId::schema()));
    for (name, schema) in schemas {
        let place = &mut document["components"]["schemas"][name];
        if place.is_null() {
            *place = json!(schema);
        }
    }
    let whole = json!(Action::schema());
    for variant in whole["oneOf"].as_array().into_iter().flatten() {
        if let Some((verb, operation)) = operation(variant) {
            document["paths"][format!("{BASE}/runs/{{run}}/{verb}")] = json!({ "post": operation });
        }
    }
}

/// The verb of a variant, and its operation.
fn operation(variant: &Value) -> Option<(String, Value)> {
    let mut body = variant.as_object()?.clone();
    let fields = body.get_mut("properties")?.as_object_mut()?;
    let verb = fields.remove("action")?["enum"][0].as_str()?.to_owned();
    let required = body.get_mut("required")?.as_array_mut()?;
    required.retain(|name| name != "action");
    let needed = !required.is_empty();
    let said = body.remove("description");
    let summary = said
        .as_ref()
        .and_then(Value::as_str)
        .map_or(verb.as_str(), |text| text.trim_end_matches('.'))
        .to_owned();
    let operation = json!({
        "operationId": format!("{}_run", verb.replace('-', "_")),
        "summary": summary,
        "tags": ["actions"],
        "security": [{ "token": ["run"] }],
        "parameters": [{
            "name": "run",
            "in": "path",
            "required": true,
            "description": "Its id, the last 4 or more characters of it, or `last`",
            "schema": { "type": "string" },
        }],
        "requestBody": {
            "required": needed,
            "content": { "application/json": { "schema": body } },
        },
        "responses": {
            "200": {
                "description": "It is done, durably; the id of the run that was made, if one was",
                "content": { "application/json": { "schema": {
                    "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/RunId" }],
                } } },
            },
        },
    });
    Some((verb, operation))
}
