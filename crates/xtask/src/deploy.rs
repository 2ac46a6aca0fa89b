//! What is in `deploy/`, looked at without a cluster: the Helm chart is rendered and what comes of it
//! checked, alerts are tried, the dashboard and the Compose file are compared with what there is.
//!
//! The tests of this module look at what no other program is needed for; the task `deploy` asks the others too.

mod chart;
mod compose;
mod functions;
mod metrics;
mod objects;
mod tools;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::chart::{Chart, Rendered};
use self::metrics::Known;

/// Checks all of `deploy/`, the commands with the binary that `arguments` name.
pub(crate) fn run(root: &Path, arguments: &[String], out: &mut dyn Write) -> Result<()> {
    let binary = match arguments {
        [flag, path] if flag == "--bin" => PathBuf::from(path),
        [] => root.join("target/debug/kapell"),
        _ => bail!("usage: xtask deploy [--bin PATH]"),
    };
    let chart = Chart::read(root)?;
    let problems = problems(root, &chart)?;
    for problem in &problems {
        writeln!(out, "error: {problem}")?;
    }
    ensure!(problems.is_empty(), "deploy: {} problems", problems.len());
    let rendered = rendered(&chart)?;
    for (name, rendered) in &rendered {
        tools::commands(&binary, &rendered.objects).with_context(|| format!("values {name}"))?;
        writeln!(
            out,
            "ok      chart, values {name}: {} objects",
            rendered.objects.len()
        )?;
    }
    tools::schemas(root, &chart, &rendered)?;
    writeln!(out, "ok      the schemas of Kubernetes and of values")?;
    let dashboard = read_json(root, "deploy/grafana/kapell.json")?;
    let asked = [
        ("promtool", tools::promtool(root, &dashboard)?),
        ("helm", tools::helm(root, &chart)?),
        ("docker compose", tools::compose(root)?),
    ];
    for (program, there) in asked {
        let word = if there {
            "ok    "
        } else {
            "skipped, not installed:"
        };
        writeln!(out, "{word}  {program}")?;
    }
    Ok(())
}

/// The chart with each of its cases.
fn rendered(chart: &Chart) -> Result<Vec<(&str, Rendered)>> {
    let cases = chart.cases.iter();
    cases
        .map(|(name, values)| {
            let rendered = chart
                .render(values)
                .with_context(|| format!("values {name}"));
            Ok((name.as_str(), rendered?))
        })
        .collect()
}

/// What is wrong, as far as nothing else is needed to see it.
fn problems(root: &Path, chart: &Chart) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let known = Known::read(&read(root, "docs/reference/metrics.md")?);
    for (name, rendered) in rendered(chart)? {
        let outside = objects::outside(&chart.cases[name]);
        let mut found = objects::problems(&rendered.objects, &outside);
        for object in &rendered.objects {
            match objects::kind(object) {
                "PrometheusRule" => {
                    found.extend(metrics::of_rules(root, &object["spec"], &known));
                }
                "ScaledObject" => {
                    for trigger in objects::list(&object["spec"]["triggers"]) {
                        let query = trigger["metadata"]["query"].as_str();
                        found.extend(known.used(query.unwrap_or_default()).1);
                    }
                }
                "ConfigMap" => {
                    for text in object["data"].as_object().into_iter().flatten() {
                        let text = text.1.as_str().unwrap_or_default();
                        let dashboard = serde_json::from_str(text);
                        let dashboard = dashboard.context("the dashboard in the ConfigMap")?;
                        found.extend(metrics::of_dashboard(&dashboard, &known));
                    }
                }
                _ => {}
            }
        }
        if rendered.notes.trim().is_empty() {
            found.push("nothing is said after the installation".to_owned());
        }
        problems.extend(found.iter().map(|found| format!("values {name}: {found}")));
    }
    let rules = yaml::document(&read(root, "deploy/prometheus/alerts.yml")?)?;
    problems.extend(metrics::of_rules(root, &rules, &known));
    let tests = read(root, "deploy/prometheus/alerts.test.yml")?;
    for group in objects::list(&rules["groups"]) {
        for rule in objects::list(&group["rules"]) {
            let alert = rule["alert"].as_str().unwrap_or_default();
            if !tests.contains(&format!("alertname=\"{alert}\""))
                && !tests.contains(&format!("alertname: {alert}\n"))
            {
                problems.push(format!("alert {alert}: no test sees it fire"));
            }
        }
    }
    let dashboard = read_json(root, "deploy/grafana/kapell.json")?;
    problems.extend(metrics::of_dashboard(&dashboard, &known));
    problems.extend(of_image(&read(root, "deploy/Dockerfile")?));
    let file = yaml::document(&read(root, "deploy/compose.yml")?)?;
    problems.extend(compose::problems(&root.join("deploy"), &file));
    Ok(problems)
}

/// Problems of the image: what it runs as, what it starts, variables that nobody reads.
fn of_image(file: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for line in [
        "USER 10001",
        "ENTRYPOINT [\"/usr/bin/tini\", \"--\", \"kapell\"]",
        "CMD [\"server\"]",
    ] {
        if !file.lines().any(|found| found == line) {
            problems.push(format!("Dockerfile: no line `{line}`"));
        }
    }
    let variables = file
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    for (variable, _) in variables.filter(|(name, _)| name.starts_with("KAPELL_")) {
        if !objects::is_known(variable) {
            problems.push(format!("Dockerfile: Kapell does not know {variable}"));
        }
    }
    problems
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

fn read_json(root: &Path, path: &str) -> Result<Value> {
    serde_json::from_str(&read(root, path)?).with_context(|| path.to_owned())
}
