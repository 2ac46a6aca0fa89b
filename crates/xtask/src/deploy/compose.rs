//! Whether the parts of the Compose file fit together.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::objects::{is_known, list};

/// Problems of the file in `folder`.
pub(super) fn problems(folder: &Path, file: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let none = serde_json::Map::new();
    let services = file["services"].as_object().unwrap_or(&none);
    let volumes = file["volumes"].as_object().unwrap_or(&none);
    let mut used = BTreeSet::new();
    let mut published = BTreeSet::new();
    let mut nodes = BTreeSet::new();
    for (name, service) in services {
        let mut problem = |what: String| problems.push(format!("service {name}: {what}"));
        let needs: Vec<(&str, &Value)> = match &service["depends_on"] {
            Value::Object(map) => map
                .iter()
                .map(|(name, how)| (name.as_str(), &how["condition"]))
                .collect(),
            other => list(other)
                .iter()
                .filter_map(|name| Some((name.as_str()?, &Value::Null)))
                .collect(),
        };
        for (needed, condition) in needs {
            match services.get(needed) {
                None => problem(format!("needs {needed}, which is not there")),
                Some(needed_service)
                    if condition == "service_healthy"
                        && needed_service["healthcheck"]["test"].is_null() =>
                {
                    problem(format!("waits for the health of {needed}, which has none"));
                }
                Some(_) => {}
            }
        }
        for mount in list(&service["volumes"]).iter().filter_map(Value::as_str) {
            let from = mount.split(':').next().unwrap_or_default();
            if let Some(path) = from.strip_prefix("./") {
                if !folder.join(path).exists() {
                    problem(format!("there is no {path}"));
                }
            } else if !from.starts_with('/') {
                used.insert(from);
                if !volumes.contains_key(from) {
                    problem(format!("the volume {from} is not named"));
                }
            }
        }
        for port in list(&service["ports"]).iter().filter_map(Value::as_str) {
            let mut parts = port.rsplitn(2, ':');
            let outside = parts.nth(1).unwrap_or_default();
            if !outside.starts_with("127.0.0.1:") || !published.insert(outside) {
                problem(format!("{outside} is open to everybody, or taken"));
            }
        }
        let environment = service["environment"].as_object().unwrap_or(&none);
        for variable in environment.keys() {
            if variable.starts_with("KAPELL_") && !is_known(variable) {
                problem(format!("Kapell does not know {variable}"));
            }
        }
        for (variable, value) in environment {
            if !value.is_string() {
                problem(format!("{variable} is no text"));
            }
        }
        if let Some(reached) = environment.get("KAPELL_SERVER_ADVERTISE") {
            let host = service["hostname"].as_str().unwrap_or_default();
            if host != name || *reached != format!("http://{host}:7420") {
                problem("others do not reach it where it says".to_owned());
            }
            nodes.insert(format!("http://{host}:7420"));
        }
    }
    for volume in volumes.keys().filter(|name| !used.contains(name.as_str())) {
        problems.push(format!("volume {volume}: nobody uses it"));
    }
    let asked = &services.get("worker").unwrap_or(&Value::Null)["environment"]["KAPELL_SERVER"];
    let asked = asked.as_str().unwrap_or_default().split(',');
    let asked: BTreeSet<String> = asked.map(str::to_owned).collect();
    if asked != nodes {
        problems.push(format!("workers ask {asked:?}, but there are {nodes:?}"));
    }
    problems
}
