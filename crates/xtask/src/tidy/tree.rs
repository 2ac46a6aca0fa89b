//! The text files of the project.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Folders that hold what was built or installed.
const BUILT: [&str; 7] = [
    "target",
    ".git",
    ".venv",
    ".kapell",
    "__pycache__",
    "node_modules",
    "dist",
];
/// Endings of files in a programming language.
const SOURCES: [&str; 7] = ["rs", "py", "ts", "tsx", "sh", "css", "sql"];
/// Bytes above which a file is data.
const MAX_BYTES: u64 = 4 << 20;

/// One text file.
pub(super) struct SourceFile {
    /// From the project's root, with `/`.
    pub(super) path: String,
    /// What is in it.
    pub(super) text: String,
}

impl SourceFile {
    /// The file's own name.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// What follows the last dot of its name, or nothing.
    pub(super) fn ending(&self) -> &str {
        self.name()
            .rsplit_once('.')
            .map_or("", |(_, ending)| ending)
    }

    /// True for files in a programming language.
    pub(super) fn is_source(&self) -> bool {
        SOURCES.contains(&self.ending())
    }
}

/// Every text file below `root` that is not built, sorted by path.
pub(super) fn read(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    read_folder(root, "", &mut files)?;
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        let path = format!("{prefix}{name}");
        if kind.is_dir() && !BUILT.contains(&name.as_str()) {
            read_folder(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() && entry.metadata()?.len() <= MAX_BYTES {
            let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(SourceFile { path, text });
            }
        }
    }
    Ok(())
}
