//! The keys of the configuration with what holds here: a file, then variables, then flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use kapell_model::config::{self, KEYS, Key, Kind, Value};
use kapell_model::{Error, ErrorCode};

/// Where a file is looked for that nobody names, the first that is there.
const PLACES: [&str; 2] = ["kapell.toml", "/etc/kapell/kapell.toml"];

/// Bytes of a file.
const FILE_BYTES: u64 = 1 << 20;

/// Who says what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Default,
    File,
    Variable(String),
    Flag(&'static str),
}

/// What holds for every key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    said: BTreeMap<String, (Value, From)>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
}

impl Settings {
    /// Reads the file, which must be there if it was named, and the variables.
    ///
    /// # Errors
    /// Code `bad-config`, with the file and the key.
    pub(crate) fn read(
        named: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
        variables: &[String],
    ) -> Result<Self, Error> {
        let mut settings = Self::default();
        let places = PLACES.map(PathBuf::from);
        let file = named
            .clone()
            .or_else(|| places.into_iter().find(|path| path.is_file()));
        if let Some(path) = file {
            settings.take_file(&path)?;
            settings.file = Some(path);
        }
        for key in KEYS {
            let names = key.environment().into_iter();
            let names = names.chain(key.variable.map(str::to_owned));
            let mut said = names.filter_map(|name| Some((variable(&name)?, name)));
            if let Some((text, name)) = said.next() {
                settings.take_variable(key, key.path(), &text, name)?;
            }
            for (own, name) in settings.named_variables(key, variables) {
                if let Some(text) = variable(&name) {
                    settings.take_variable(key, key.path_of(&own), &text, name)?;
                }
            }
        }
        Ok(settings)
    }

    fn take_variable(
        &mut self,
        key: &Key,
        path: String,
        text: &str,
        name: String,
    ) -> Result<(), Error> {
        let value = key.kind.parse(text).map_err(|takes| {
            let shown = if key.kind == Kind::Secret {
                "…"
            } else {
                text
            };
            bad(
                format!("the variable {name} is `{shown}`"),
                format!("it takes {takes}"),
            )
        })?;
        self.said.insert(path, (value, From::Variable(name)));
        Ok(())
    }

    /// Variables that say a key under a name of the user's, with that name: one that the file has, else
    /// in small letters with `-`.
    fn named_variables(&self, key: &Key, variables: &[String]) -> Vec<(String, String)> {
        let Some(pattern) = key.environment_of("\u{0}") else {
            return Vec::new();
        };
        // The name's place: what is no letter or digit is `_`.
        let marked = pattern.replacen("___", "_\u{0}_", 1);
        let Some((start, end)) = marked.split_once('\u{0}') else {
            return Vec::new();
        };
        let section = key.section.trim_end_matches(".*");
        let known: Vec<&str> = self.named(section).into_iter().map(|of| of.0).collect();
        let found = variables.iter().filter_map(|name| {
            let own = name.strip_prefix(start)?.strip_suffix(end)?;
            let same = known
                .iter()
                .find(|known| key.environment_of(known).as_deref() == Some(name));
            let new = || own.to_ascii_lowercase().replace('_', "-");
            let own = same.map_or_else(new, |known| (*known).to_owned());
            (!own.is_empty()).then(|| (own, name.clone()))
        });
        found.collect()
    }

    fn take_file(&mut self, path: &Path) -> Result<(), Error> {
        let shown = path.display();
        let unreadable = |error: &dyn std::fmt::Display| {
            bad(
                format!("the file `{shown}` cannot be read: {error}"),
                "`--config` or KAPELL_CONFIG names another",
            )
        };
        let length = std::fs::metadata(path)
            .map_err(|error| unreadable(&error))?
            .len();
        if length > FILE_BYTES {
            return Err(unreadable(&format!("it has more than {FILE_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            bad(
                format!("the file `{shown}` is no TOML: {error}"),
                "docs/reference/kapell.toml is an example",
            )
        })?;
        self.take_table(&table, "", path)
    }

    fn take_table(&mut self, table: &toml::Table, above: &str, file: &Path) -> Result<(), Error> {
        for (name, value) in table {
            let path = format!("{above}{name}");
            if let toml::Value::Table(inner) = value {
                self.take_table(inner, &format!("{path}."), file)?;
                continue;
            }
            let what = format!("`{path}` in the file `{}`", file.display());
            let key = config::find(&path).map_err(|near| {
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`kapell config` lists all keys".to_owned(),
                };
                bad(format!("{what} is no key of the configuration"), hint)
            })?;
            let value = value_of(key.kind, value).map_err(|takes| {
                bad(
                    format!("{what} has a value that it does not take"),
                    format!("it takes {takes}"),
                )
            })?;
            self.said.insert(path, (value, From::File));
        }
        Ok(())
    }

    /// What a flag says goes before all else.
    pub(crate) fn flag(&mut self, key: &Key, value: Value) {
        let flag = From::Flag(key.flag.unwrap_or("a flag"));
        self.said.insert(key.path(), (value, flag));
    }

    /// What holds for a key, and who says so.
    pub(crate) fn get(&self, key: &Key) -> (Value, From) {
        let said = self.said.get(&key.path()).cloned();
        said.unwrap_or_else(|| (key.default_value(), From::Default))
    }

    /// Every key with what holds, and who says so; those under names of the user's for each name.
    pub(crate) fn all(&self) -> Vec<(String, &'static Key, Value, From)> {
        let mut all = Vec::new();
        for key in KEYS {
            let section = key.section.strip_suffix(".*");
            let mut names: Vec<&str> = section
                .map(|section| self.named(section).into_iter().map(|of| of.0).collect())
                .unwrap_or_default();
            names.dedup();
            let mut paths: Vec<String> = names.iter().map(|own| key.path_of(own)).collect();
            if paths.is_empty() {
                paths.push(key.path());
            }
            for path in paths {
                let said = self.said.get(&path).cloned();
                let (value, from) = said.unwrap_or_else(|| (key.default_value(), From::Default));
                all.push((path, *key, value, from));
            }
        }
        all
    }

    /// Keys of sections that have a name of the user's: section, name of the key, value.
    pub(crate) fn named(&self, section: &str) -> Vec<(&str, &str, &Value)> {
        let said = self.said.iter().filter_map(|(path, (value, _))| {
            let (own, name) = path
                .strip_prefix(section)?
                .strip_prefix('.')?
                .split_once('.')?;
            Some((own, name, value))
        });
        said.collect()
    }

    pub(crate) fn text(&self, key: &Key) -> String {
        match self.get(key).0 {
            Value::Text(text) => text,
            other => other.to_string(),
        }
    }

    /// A text that is not empty.
    pub(crate) fn some_text(&self, key: &Key) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    pub(crate) fn number(&self, key: &Key) -> u64 {
        match self.get(key).0 {
            Value::Number(number) => number,
            _ => 0,
        }
    }

    pub(crate) fn is_on(&self, key: &Key) -> bool {
        self.get(key).0 == Value::Bool(true)
    }

    pub(crate) fn span(&self, key: &Key) -> SignedDuration {
        match self.get(key).0 {
            Value::Duration(span) => span,
            _ => SignedDuration::ZERO,
        }
    }

    pub(crate) fn duration(&self, key: &Key) -> Duration {
        Duration::try_from(self.span(key)).unwrap_or_default()
    }

    pub(crate) fn list(&self, key: &Key) -> Vec<String> {
        match self.get(key).0 {
            Value::List(parts) => parts,
            _ => Vec::new(),
        }
    }
}

fn value_of(kind: Kind, value: &toml::Value) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Bool, toml::Value::Boolean(value)) => Ok(Value::Bool(*value)),
        (Kind::Count(..) | Kind::Bytes, toml::Value::Integer(number)) => {
            kind.parse(&number.to_string())
        }
        (Kind::List, toml::Value::Array(parts)) => {
            let parts = parts.iter().map(|part| part.as_str().map(str::to_owned));
            let parts: Option<Vec<String>> = parts.collect();
            parts.map(Value::List).ok_or_else(|| kind.takes())
        }
        (Kind::Bool | Kind::Count(..) | Kind::List, _) => Err(kind.takes()),
        (kind, toml::Value::String(text)) => kind.parse(text),
        _ => Err(kind.takes()),
    }
}

fn bad(message: String, hint: impl Into<String>) -> Error {
    Error::new(ErrorCode::BadConfig, message).hint(hint)
}

#[cfg(test)]
mod tests;
