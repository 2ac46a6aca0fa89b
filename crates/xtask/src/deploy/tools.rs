//! What programs of others say of the files: `promtool`, `helm`, `docker compose`, the schemas of Kubernetes.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::chart::{Chart, FOLDER, NAMESPACE, RELEASE, Rendered};
use super::metrics;
use super::objects::{kind, list, pod};

/// What is installed from the Python package index. It brings `jsonschema`, which checks values.
const VALIDATOR: &str = "kubernetes-validate==1.37.*";

/// The oldest version of Kubernetes that the chart is for, and one of the newest.
const VERSIONS: [&str; 2] = ["1.27", "1.36"];

/// Reads objects, values and the schema of values from its input, and says what is wrong with them.
const SCRIPT: &str = r#"
import json, sys, jsonschema, kubernetes_validate
given = json.load(sys.stdin)
wrong = []
for case in given["cases"]:
    for error in jsonschema.Draft7Validator(given["schema"]).iter_errors(case["values"]):
        wrong.append(f"values of {case['name']}: {error.json_path}: {error.message}")
    for thing in case["objects"]:
        for version in given["versions"]:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except Exception as error:
                name = f"{thing['kind']} {thing['metadata']['name']}"
                what = str(error).splitlines()[0]
                wrong.append(f"{case['name']}, {name}, Kubernetes {version}: {what}")
for values in given["refused"]:
    if jsonschema.Draft7Validator(given["schema"]).is_valid(values["values"]):
        wrong.append(f"the schema takes values with {values['why']}")
print("\n".join(wrong))
sys.exit(bool(wrong))
"#;

#[allow(
    clippy::disallowed_methods,
    reason = "where this runs is said by the environment"
)]
pub(super) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// What a program says; none if it is not installed.
fn asked(command: &mut Command) -> Result<Option<Output>> {
    match command.output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot start {command:?}")),
    }
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Prometheus' own checker looks at rules, their tests, configurations and every expression of the
/// dashboard. False if it is not installed, which only CI does not forgive.
pub(super) fn promtool(root: &Path, dashboard: &Value) -> Result<bool> {
    let folder = root.join("deploy/prometheus");
    let rules: Vec<Value> = metrics::expressions(dashboard)
        .iter()
        .enumerate()
        .map(|(at, (_, expression))| {
            json!({"record": format!("panel:{at}"), "expr": metrics::filled(expression)})
        })
        .collect();
    let of_panels = tempfile::Builder::new().suffix(".json").tempfile()?;
    // JSON is YAML.
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    of_panels
        .as_file()
        .write_all(groups.to_string().as_bytes())?;
    let of_panels = of_panels.path().to_string_lossy().into_owned();
    for arguments in [
        &["check", "rules", "alerts.yml"][..],
        &["test", "rules", "alerts.test.yml"],
        &["check", "config", "--syntax-only", "cluster.yml"],
        &["check", "config", "--syntax-only", "../prometheus.yml"],
        &["check", "rules", &of_panels],
    ] {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(&folder);
        let Some(output) = asked(&mut command)? else {
            ensure!(!in_ci(), "promtool is missing, which CI needs");
            return Ok(false);
        };
        ensure!(
            output.status.success(),
            "promtool {}:\n{}",
            arguments.join(" "),
            said(&output)
        );
    }
    Ok(true)
}

/// `helm` lints the chart and renders it, for every case. False if it is not installed.
pub(super) fn helm(root: &Path, chart: &Chart) -> Result<bool> {
    let folder = root.join(FOLDER);
    for name in chart.cases.keys() {
        let values = folder.join(format!("ci/{name}-values.yaml"));
        for words in [&["lint", "--strict"][..], &["template", RELEASE]] {
            let mut command = Command::new("helm");
            command.args(words).arg(&folder);
            command.args(["--namespace", NAMESPACE]);
            if values.exists() {
                command.arg("--values").arg(&values);
            }
            let Some(output) = asked(&mut command)? else {
                return Ok(false);
            };
            ensure!(output.status.success(), "{command:?}:\n{}", said(&output));
        }
    }
    Ok(true)
}

/// `docker compose` reads the file. False if it is not installed.
pub(super) fn compose(root: &Path) -> Result<bool> {
    let there = asked(Command::new("docker").args(["compose", "version"]))?;
    if !there.is_some_and(|output| output.status.success()) {
        return Ok(false);
    }
    let mut command = Command::new("docker");
    command.args(["compose", "--profile", "watch", "--file"]);
    command.arg(root.join("deploy/compose.yml"));
    command.args(["config", "--quiet"]);
    command.envs([("KAPELL_DB_PASSWORD", "x"), ("KAPELL_SECRETS_KEY", "x")]);
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}:\n{}", said(&output));
    Ok(true)
}

/// The schemas of Kubernetes take every object, and the schema of values every case.
pub(super) fn schemas(root: &Path, chart: &Chart, rendered: &[(&str, Rendered)]) -> Result<()> {
    let python = installed(&root.join("target/kubernetes-validate"))?;
    let schema = std::fs::read(root.join(FOLDER).join("values.schema.json"))?;
    let schema: Value = serde_json::from_slice(&schema).context("values.schema.json")?;
    let cases: Vec<Value> = rendered
        .iter()
        .map(|(name, rendered)| {
            let own = |object: &&Value| !is_of_operators(object);
            let objects: Vec<&Value> = rendered.objects.iter().filter(own).collect();
            json!({"name": name, "values": chart.cases[*name], "objects": objects})
        })
        .collect();
    let refused: Vec<Value> = refused(chart)
        .into_iter()
        .map(|(why, values)| json!({"why": why, "values": values}))
        .collect();
    let given = json!({"cases": cases, "schema": schema, "refused": refused, "versions": VERSIONS});
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start python")?;
    let input = child.stdin.take();
    input
        .context("no input")?
        .write_all(given.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}

/// Operators bring their own kinds; their schemas are not those of Kubernetes.
fn is_of_operators(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.starts_with("keda.sh/") || version.starts_with("monitoring.coreos.com/")
}

/// Values that the schema must not take.
fn refused(chart: &Chart) -> Vec<(&'static str, Value)> {
    let changes = [
        ("a key that is not known", json!({"replica": 3})),
        ("no node", json!({"nodes": {"replicas": 0}})),
        (
            "a pool that cannot be called so",
            json!({"workers": {"Big Pool": {}}}),
        ),
        (
            "an unknown way to scale",
            json!({"workers": {"a": {"autoscaling": {"kind": "auto"}}}}),
        ),
        ("no database", json!({"database": {"existingSecret": ""}})),
    ];
    let changed = changes.into_iter().map(|(why, change)| {
        let mut values = chart.defaults.clone();
        super::chart::coalesce(&mut values, change);
        (why, values)
    });
    changed.collect()
}

/// The Python of an environment in a folder, made if it is not there.
fn installed(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let done = folder.join("done");
    if done.exists() {
        return Ok(python);
    }
    let folder = folder.to_str().context("the path is no text")?;
    let pip = format!("{folder}/bin/pip");
    let quiet = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        VALIDATOR,
    ];
    for (program, arguments) in [
        ("python3", &["-m", "venv", folder][..]),
        (pip.as_str(), &quiet[..]),
    ] {
        let status = Command::new(program).args(arguments).status();
        let status = status.with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "{program} {} failed", arguments.join(" "));
    }
    std::fs::write(done, "")?;
    Ok(python)
}

/// Every command that a container is given is one of the binary, with flags that it has.
pub(super) fn commands(binary: &Path, objects: &[Value]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let containers = objects
        .iter()
        .filter(|object| matches!(kind(object), "Deployment" | "StatefulSet"))
        .flat_map(|object| list(&pod(object)["spec"]["containers"]));
    for container in containers {
        let words: Vec<&str> = list(&container["args"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let Some((command, words)) = words.split_first() else {
            bail!("a container without a command");
        };
        let output = Command::new(binary).args([command, "--help"]).output()?;
        ensure!(
            output.status.success(),
            "`kapell {command}`:\n{}",
            said(&output)
        );
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let known: BTreeSet<&str> = help.split_whitespace().collect();
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            ensure!(known.contains(flag), "`kapell {command}` has no {flag}");
            seen.insert(*flag);
        }
    }
    ensure!(!seen.is_empty(), "no command was seen");
    Ok(())
}
