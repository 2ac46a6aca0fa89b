//! Which crate may use which.

use super::tree::SourceFile;

/// The arrows of ARCHITECTURE.md. A crate may use what it reaches along them, and nothing else.
const ARROWS: [(&str, &[&str]); 12] = [
    ("expr", &[]),
    ("model", &["expr"]),
    ("api", &["model"]),
    ("engine", &["api", "expr", "model"]),
    ("store", &["model"]),
    ("node", &["engine", "store"]),
    ("worker", &["api"]),
    ("server", &["node", "api"]),
    ("cli", &["server", "worker"]),
    ("sim", &["node"]),
    ("bench", &["server", "worker"]),
    ("xtask", &["model", "server", "store"]),
];

/// Reports crates that a manifest may not name.
pub(super) fn check(file: &SourceFile, problems: &mut Vec<String>) {
    let manifest = file
        .path
        .strip_prefix("crates/")
        .and_then(|path| path.strip_suffix("/Cargo.toml"));
    let Some(user) = manifest.filter(|name| !name.contains('/')) else {
        return;
    };
    if arrows(user).is_none() {
        problems.push(format!(
            "{}: the crate `{user}` is not in the table of crates/xtask/src/tidy/edges.rs",
            file.path
        ));
        return;
    }
    for (line, used) in dependencies(&file.text) {
        if !reaches(user, used) {
            let path = &file.path;
            problems.push(format!(
                "{path}:{line}: `{user}` may not use `{used}`; see the arrows in ARCHITECTURE.md"
            ));
        }
    }
}

fn arrows(name: &str) -> Option<&'static [&'static str]> {
    ARROWS
        .iter()
        .find(|(user, _)| *user == name)
        .map(|(_, used)| *used)
}

fn reaches(from: &str, to: &str) -> bool {
    arrows(from)
        .unwrap_or_default()
        .iter()
        .any(|next| *next == to || reaches(next, to))
}

/// The project's own crates that a manifest names as dependencies of any kind, with their lines.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_dependencies = false;
    manifest
        .lines()
        .enumerate()
        .filter_map(move |(index, line)| {
            let line = line.trim();
            let entry = if let Some(header) = line.strip_prefix('[') {
                let header = header.trim_end_matches(']');
                in_dependencies = header.ends_with("dependencies");
                header.rsplit_once("dependencies.").map(|(_, name)| name)
            } else {
                in_dependencies.then_some(line)
            };
            let name = entry?.trim_start_matches('"').strip_prefix("kapell-")?;
            let end = name
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .unwrap_or(name.len());
            Some((index + 1, &name[..end]))
        })
}
