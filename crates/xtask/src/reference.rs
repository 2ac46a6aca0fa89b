//! Files of docs/reference/ that are written from the code. Tests of `kapell-model` and `kapell-server`
//! fail while one is old.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes every generated file.
pub(crate) fn write(root: &Path, out: &mut dyn Write) -> Result<()> {
    let schema = serde_json::to_string_pretty(&kapell_model::json_schema())? + "\n";
    let api = serde_json::to_string_pretty(&kapell_server::http::openapi())? + "\n";
    let files = [
        ("config.md", kapell_model::config::reference_markdown()),
        ("kapell.toml", kapell_model::config::example_toml()),
        ("language.md", kapell_model::reference_markdown()),
        ("metrics.md", kapell_server::metrics::reference_markdown()),
        ("openapi.json", api),
        ("workflow.schema.json", schema),
    ];
    let folder = root.join("docs/reference");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in files {
        fs::write(folder.join(name), &text)
            .with_context(|| format!("cannot write docs/reference/{name}"))?;
        writeln!(
            out,
            "wrote docs/reference/{name}, {} lines",
            text.lines().count()
        )?;
    }
    Ok(())
}
