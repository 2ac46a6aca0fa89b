//! The Helm chart as Helm would render it: values over its defaults, templates with Helm's functions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use gtmpl_ng::{Number, Value as Given};
use serde_json::{Map, Value, json};

use super::functions::{self, SOURCE, Source};
use super::yaml;

/// Where the chart is.
pub(super) const FOLDER: &str = "deploy/helm/kapell";
/// What people read after they installed it.
pub(super) const NOTES: &str = "NOTES.txt";

/// The chart as it is read.
pub(super) struct Chart {
    about: Value,
    pub(super) defaults: Value,
    templates: BTreeMap<String, String>,
    defines: String,
    files: BTreeMap<String, String>,
    /// Values that it is tried with, by the name of their file; `default` are none.
    pub(super) cases: BTreeMap<String, Value>,
}

/// What came of the templates.
pub(super) struct Rendered {
    pub(super) objects: Vec<Value>,
    pub(super) notes: String,
}

impl Chart {
    /// Reads the chart of the project.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let folder = root.join(FOLDER);
        let mut templates = texts(&folder.join("templates"))?;
        let defines: Vec<String> = templates
            .keys()
            .filter(|name| name.starts_with('_'))
            .cloned()
            .collect();
        let defines = defines.iter().filter_map(|name| templates.remove(name));
        let defines = defines.collect::<String>();
        let files = texts(&folder.join("files"))?
            .into_iter()
            .map(|(name, text)| (format!("files/{name}"), text))
            .collect();
        let value = |name: &str| {
            let text = fs::read_to_string(folder.join(name));
            let text = text.with_context(|| format!("cannot read {FOLDER}/{name}"))?;
            yaml::document(&text).with_context(|| format!("{FOLDER}/{name}"))
        };
        let defaults = value("values.yaml")?;
        let mut cases = BTreeMap::from([("default".to_owned(), defaults.clone())]);
        for name in texts(&folder.join("ci"))?.into_keys() {
            let own = value(&format!("ci/{name}"))?;
            let mut all = defaults.clone();
            coalesce(&mut all, own);
            cases.insert(name.trim_end_matches("-values.yaml").to_owned(), all);
        }
        Ok(Self {
            about: value("Chart.yaml")?,
            defaults,
            templates,
            defines,
            files,
            cases,
        })
    }

    /// What the templates give for values that hold the defaults already.
    pub(super) fn render(&self, values: &Value) -> Result<Rendered> {
        let about = |key: &str| self.about[key].as_str().unwrap_or_default().to_owned();
        let context = given(&json!({
            "Values": values,
            "Chart": {
                "Name": about("name"),
                "Version": about("version"),
                "AppVersion": about("appVersion"),
            },
            "Release": {"Name": RELEASE, "Namespace": NAMESPACE, "Service": "Helm"},
        }));
        SOURCE.set(Source {
            defines: self.defines.clone(),
            files: self.files.clone(),
        });
        let mut rendered = Rendered {
            objects: Vec::new(),
            notes: String::new(),
        };
        for (name, text) in &self.templates {
            let text = text.replace(".Files.Get", functions::FILE);
            let text = functions::rendered(&text, &context);
            let text = text.map_err(|error| anyhow!("{FOLDER}/templates/{name}: {error}"))?;
            if name == NOTES {
                rendered.notes = text;
                continue;
            }
            let objects = yaml::documents(&text);
            let objects = objects.with_context(|| {
                let numbered = text.lines().enumerate();
                let numbered = numbered.map(|(at, line)| format!("{:4} {line}\n", at + 1));
                format!("{name} gives\n{}", numbered.collect::<String>())
            })?;
            rendered.objects.extend(objects);
        }
        ensure!(!rendered.objects.is_empty(), "the chart gives nothing");
        Ok(rendered)
    }
}

/// How the release is called, and where it is.
pub(super) const RELEASE: &str = "prod";
pub(super) const NAMESPACE: &str = "flows";

/// Values over others, as Helm puts them: maps are put together, `null` takes a key away.
pub(super) fn coalesce(under: &mut Value, over: Value) {
    let Value::Object(over) = over else {
        *under = over;
        return;
    };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    let Value::Object(under) = under else { return };
    for (key, value) in over {
        if value.is_null() {
            under.remove(&key);
        } else if value.is_object() {
            coalesce(under.entry(key).or_insert(Value::Null), value);
        } else {
            under.insert(key, value);
        }
    }
}

/// As templates see it. Numbers have a fraction, as in Helm.
fn given(value: &Value) -> Given {
    match value {
        Value::Null => Given::Nil,
        Value::Bool(on) => Given::Bool(*on),
        Value::Number(number) => {
            Given::Number(Number::float(number.as_f64().unwrap_or(f64::INFINITY)))
        }
        Value::String(text) => Given::String(text.clone()),
        Value::Array(list) => Given::Array(list.iter().map(given).collect()),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| (key.clone(), given(value)));
            Given::Map(entries.collect())
        }
    }
}

/// The files of a folder, by name.
fn texts(folder: &Path) -> Result<BTreeMap<String, String>> {
    let shown = folder.display();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {shown}"))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        found.insert(name.into_owned(), text);
    }
    Ok(found)
}
