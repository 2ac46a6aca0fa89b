//! The configuration of a Kapell: one table of every key, with its type, default and meaning.
//!
//! Start reading at [`KEYS`]. Files, the environment and flags are read by whoever starts a process;
//! here is what they may say, and the pages that tell people of it.
//!
//! To add a key: a constant in `keys` and its place in [`KEYS`]. It is then known in files as
//! `section.name`, in the environment as `KAPELL_SECTION_NAME`, and on the generated pages.

mod keys;
mod page;
mod value;

pub use keys::*;
pub use page::{example_toml, reference_markdown};
pub use value::Value;

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its section; `*` is a name of the user's: `notify.*` holds a channel each.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where nobody says anything, as in a file.
    pub default: &'static str,
    /// A variable that says it too, beside the one that its name gives.
    pub variable: Option<&'static str>,
    /// The flag that says it.
    pub flag: Option<&'static str>,
    /// What it does: units, and what its default means.
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A number from the first to the second.
    Count(u64, u64),
    /// A span of time, as `90s`, `2h`, `7d`.
    Duration,
    /// Bytes, as `512Ki`, `64Mi`.
    Bytes,
    /// Text.
    Text,
    /// Text that is shown nowhere.
    Secret,
    /// A file or folder.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several texts; commas part them in the environment.
    List,
}

impl Key {
    /// As in a file: `section.name`.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }

    /// The variable that its name gives; none for keys under a name of the user's.
    pub fn environment(&self) -> Option<String> {
        let path = self.path();
        (!path.contains('*'))
            .then(|| format!("KAPELL_{}", path.replace('.', "_").to_ascii_uppercase()))
    }

    /// The variable of a key under a name of the user's: capitals, digits, and `_` for all else in the
    /// name; none for other keys.
    pub fn environment_of(&self, own: &str) -> Option<String> {
        let own = own.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let path = self.path();
        path.contains('*').then(|| {
            let path = path.replace('*', &own).replace('.', "_");
            format!("KAPELL_{}", path.to_ascii_uppercase())
        })
    }

    /// Its path under a name of the user's.
    pub fn path_of(&self, own: &str) -> String {
        self.path().replace('*', own)
    }

    /// Its default.
    pub fn default_value(&self) -> Value {
        // Each is parsed by a test.
        self.kind
            .parse(self.default)
            .unwrap_or(Value::Text(String::new()))
    }

    fn is(&self, path: &str) -> bool {
        match self.section.strip_suffix("*") {
            None => self.path() == path,
            Some(start) => path.strip_prefix(start).is_some_and(|rest| {
                rest.split_once('.')
                    .is_some_and(|(own, name)| !own.is_empty() && name == self.name)
            }),
        }
    }
}

/// The key of this path, as `section.name`.
///
/// # Errors
/// The nearest path that there is, if one is near.
pub fn find(path: &str) -> Result<&'static Key, Option<String>> {
    if let Some(key) = KEYS.iter().find(|key| key.is(path)) {
        return Ok(key);
    }
    // A right name in a wrong section.
    let name = path.rsplit('.').next();
    let plain = KEYS.iter().filter(|key| !key.section.ends_with('*'));
    let mut same = plain.filter(|key| Some(key.name) == name);
    if let (Some(key), None) = (same.next(), same.next()) {
        return Err(Some(key.path()));
    }
    // Of a name of the user's the near ones have the same.
    let own = |key: &Key| {
        let start = key.section.strip_suffix('*')?;
        let own = path.strip_prefix(start)?.split('.').next()?;
        Some(format!("{start}{own}.{}", key.name))
    };
    let known: Vec<String> = KEYS
        .iter()
        .map(|key| own(key).unwrap_or_else(|| key.path()))
        .collect();
    let near = crate::parse::nearest(path, known.iter().map(String::as_str));
    Err(near.map(str::to_owned))
}

#[cfg(test)]
mod tests;
