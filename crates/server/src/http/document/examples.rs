//! What the document shows of each operation: a body, values for its address, and the command that asks
//! for it.

use serde_json::{Value, json};

/// Where the server is, as the commands of the document name it.
const SERVER: &str = "$KAPELL_SERVER";

/// A body for each operation that takes one.
fn body(operation: &str) -> Option<Value> {
    Some(match operation {
        "start_run" => json!({ "workflow": "hello", "params": { "name": "Ada" } }),
        "start_runs" => json!({
            "runs": [{ "workflow": "hello" }, { "workflow": "hello", "params": { "name": "Ada" } }],
        }),
        "act_on_runs" => json!({
            "filter": { "workflow": "hello", "status": "failed,timed_out" },
            "action": { "action": "retry" },
            "dry_run": true,
        }),
        "cancel_run" => json!({ "reason": "no longer needed" }),
        "priority_run" => json!({ "priority": 80 }),
        "restart_run" | "fork_run" => json!({ "from": "greet" }),
        "read_logs" | "skip_run" | "continue_run" => json!({ "step": "greet" }),
        "set_output_run" => json!({ "step": "greet", "output": { "text": "hi" } }),
        "set_param_run" => json!({ "name": "name", "value": "Ada" }),
        "approve_run" => json!({ "step": "ask", "by": "anna@example.com", "comment": "go" }),
        "reject_run" => json!({ "step": "ask", "by": "anna@example.com", "comment": "not today" }),
        "add_breakpoint_run" | "add_breakpoint" | "add_breakpoint_of_all" => {
            json!({ "breakpoint": { "step": "greet", "at": "after" } })
        }
        "dismiss_queue" => json!({ "key": "" }),
        "breakpoints_run" | "set_breakpoints" | "set_breakpoints_of_all" => {
            json!({ "breakpoints": [{ "step": "greet", "at": "after" }] })
        }
        "pause_run"
        | "resume_run"
        | "retry_run"
        | "dismiss_run"
        | "pause_trigger"
        | "resume_trigger"
        | "pause_backfill"
        | "resume_backfill"
        | "cancel_backfill"
        | "remove_breakpoints_run"
        | "remove_breakpoints"
        | "remove_breakpoints_of_all" => json!({}),
        "evaluate" => json!({ "expression": "params.name" }),
        "register_workflow" => json!({
            "file": "hello.yaml",
            "source": "workflow: hello\nsteps:\n  greet: { noop: }\n",
        }),
        "deploy" => json!({
            "workflows": [{
                "file": "hello.yaml",
                "source": "workflow: hello\nsteps:\n  greet: { noop: }\n",
            }],
            "dry_run": true,
        }),
        "hold_workflows" => json!({ "paused": false }),
        "change_workflow" => json!({ "owner": "data-team" }),
        "send_signal" => json!({ "payload": { "order": 7 }, "id": "order-7" }),
        "start_backfill" => json!({
            "id": "january",
            "from": "2026-01-01T00:00:00Z",
            "until": "2026-01-08T00:00:00Z",
            "only": "all",
        }),
        "create_token" => json!({ "name": "ci", "scopes": ["read", "run"] }),
        "set_secret" => json!({ "value": "s3cret" }),
        "drain_worker" | "drain_pool" => json!({ "grace_ms": 60_000 }),
        "act_on_notice" => json!({ "action": "again" }),
        "call_hook" => json!({ "order": 7 }),
        _ => return None,
    })
}

/// A value for a parameter of an address that must be given.
fn parameter(path: &str, name: &str) -> Option<Value> {
    Some(match name {
        "run" => "last".into(),
        "workflow" => "hello".into(),
        "version" => "active".into(),
        "from" | "to" | "number" => 1.into(),
        "trigger" if path.contains("/hook") => "orders".into(),
        "trigger" => "nightly".into(),
        "id" => "january".into(),
        "worker" => "worker-1".into(),
        "pool" | "queue" => "burst".into(),
        "channel" => "ops".into(),
        "step" => "greet".into(),
        "token" if path.contains("/tokens/") => "ci".into(),
        "token" => "k9z3w6t80wd4qy2m".into(),
        "path" if path.ends_with("/step") => "ask".into(),
        "path" => "orders".into(),
        "name" if path.contains("/artifacts/") => "report".into(),
        "name" if path.contains("/locks/") => "warehouse".into(),
        "name" if path.contains("/secrets/") => "API_KEY".into(),
        "name" if path.contains("/signals/") => "orders".into(),
        _ => return None,
    })
}

/// Adds all of it to an operation.
pub(super) fn add(path: &str, method: &str, operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let body = body(id);
    if let Some(body) = &body
        && let Some(content) = operation.pointer_mut("/requestBody/content/application~1json")
    {
        content["example"] = body.clone();
    }
    let parameters = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for given in parameters.filter(|given| given["required"] == true) {
        let name = given["name"].as_str().unwrap_or_default();
        if let Some(value) = parameter(path, name) {
            given["example"] = value;
        }
    }
    let command = command(path, method, operation);
    operation["x-codeSamples"] = json!([{ "lang": "Shell", "source": command }]);
}

/// The command of a shell that asks for an operation.
fn command(path: &str, method: &str, operation: &Value) -> String {
    let mut address = path.to_owned();
    let mut query = Vec::new();
    for given in operation["parameters"].as_array().into_iter().flatten() {
        let name = given["name"].as_str().unwrap_or_default();
        let value = match &given["example"] {
            Value::String(text) => text.clone(),
            Value::Null => continue,
            other => other.to_string(),
        };
        match given["in"].as_str() {
            Some("path") => address = address.replace(&format!("{{{name}}}"), &value),
            Some("query") if given["required"] == true => query.push(format!("{name}={value}")),
            _ => {}
        }
    }
    if !query.is_empty() {
        address = format!("{address}?{}", query.join("&"));
    }
    let mut command = "curl ".to_owned();
    let answers = &operation["responses"]["200"]["content"];
    if !answers["text/event-stream"].is_null() {
        command += "-N ";
    }
    if !answers["application/octet-stream"].is_null() {
        command += "-O ";
    }
    if method != "get" {
        command += &format!("-X {} ", method.to_uppercase());
    }
    command += &format!("\"{SERVER}{address}\"");
    let bodies = operation["requestBody"]["content"].as_object();
    for (kind, content) in bodies.into_iter().flatten().take(1) {
        let data = match (kind.as_str(), &content["example"]) {
            ("application/octet-stream", _) => "--data-binary @report.csv".to_owned(),
            (_, Value::Null) => "-d '{}'".to_owned(),
            (_, example) => format!("-d '{}'", example.to_string().replace('\'', r"'\''")),
        };
        command += &format!(" -H 'content-type: {kind}' {data}");
    }
    command
}

/// Bodies that the table does not know, for a test.
#[cfg(test)]
pub(super) fn missing(document: &Value) -> Vec<String> {
    let none = serde_json::Map::new();
    let paths = document["paths"].as_object().unwrap_or(&none);
    let operations = paths
        .iter()
        .flat_map(|(_, item)| item.as_object().into_iter().flatten());
    let mut missing = Vec::new();
    for (_, operation) in operations {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let json = operation.pointer("/requestBody/content/application~1json");
        if json.is_some_and(|content| content["example"].is_null()) {
            missing.push(format!("{id}: a body"));
        }
        for given in operation["parameters"].as_array().into_iter().flatten() {
            if given["required"] == true && given["example"].is_null() {
                missing.push(format!("{id}: {}", given["name"]));
            }
        }
    }
    missing
}
