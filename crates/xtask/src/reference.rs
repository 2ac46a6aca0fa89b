//! Pages of docs/reference/ that are written from the code, so that they cannot differ from it.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The generated pages: path and text.
fn pages() -> Vec<(&'static str, String)> {
    vec![(
        "docs/reference/language.md",
        kapell_model::reference_markdown(),
    )]
}

/// Writes every page.
pub(crate) fn write(root: &Path, out: &mut dyn Write) -> Result<()> {
    for (path, text) in pages() {
        let file = root.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&file, &text).with_context(|| format!("cannot write {path}"))?;
        writeln!(out, "wrote {path}, {} lines", text.lines().count())?;
    }
    Ok(())
}

/// An error if a page differs from what [`write`] would write.
pub(crate) fn check(root: &Path, out: &mut dyn Write) -> Result<()> {
    for (path, text) in pages() {
        let found = fs::read_to_string(root.join(path))
            .with_context(|| format!("cannot read {path}; `make docs` writes it"))?;
        if found != text {
            bail!("{path} is out of date; `make docs` writes it");
        }
        writeln!(out, "{path} is up to date")?;
    }
    Ok(())
}
