//! The page of all keys, and a file that names them all.

use std::fmt::Write;

use super::{KEYS, Key, Kind};

/// `docs/reference/config.md`
pub fn reference_markdown() -> String {
    let mut page = "\
# Configuration

<!-- Written by `make docs` from crates/model/src/config/keys.rs. -->

A file `kapell.toml` says what holds on this machine. The one that `--config` or `KAPELL_CONFIG` names is read,
else `kapell.toml` in the working directory, else `/etc/kapell/kapell.toml`; none is needed. A variable goes before
the file, a flag before the variable. A key that is not known is an error, as is a value of another type.

`kapell config` shows every key, what holds here, and who says so. [kapell.toml](kapell.toml) names all keys
with their defaults.

A variable of a channel has its name in capitals, with `_` for what is no letter or digit:
`KAPELL_NOTIFY_CHANNELS_ON_CALL_URL` is the address of the channel `on-call`, whether the file names it or not. So an address
that is a secret stands in no file.

Spans of time are texts as `90s`, `2h`, `7d`; bytes are texts as `512Ki`, `64Mi`.
"
    .to_owned();
    let mut section = "-";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let heading = if section.is_empty() {
                "At the top"
            } else {
                section
            };
            let _ = writeln!(page, "\n## {heading}");
        }
        let _ = writeln!(page, "\n### `{}`\n\n{}\n", key.path(), key.doc);
        let _ = writeln!(page, "- takes {}", key.kind.takes());
        if !key.default.is_empty() {
            let _ = writeln!(page, "- default: `{}`", key.default);
        }
        let mut names: Vec<String> = key.environment().into_iter().collect();
        names.extend(key.environment_of("NAME"));
        names.extend(key.variable.map(str::to_owned));
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(page, "- variable: {}", names.join(", else "));
        }
        if let Some(flag) = key.flag {
            let _ = writeln!(page, "- flag: `{flag}`");
        }
    }
    page
}

/// `docs/reference/kapell.toml`
pub fn example_toml() -> String {
    let mut text =
        "# Every key with its default. Lines that begin with `#` say nothing: take the `#` away.\n"
            .to_owned();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, "\n[{}]", section.replace('*', "NAME"));
        }
        let _ = writeln!(text, "\n{}", wrapped(key.doc));
        let _ = writeln!(text, "#{} = {}", key.name, written(key));
    }
    text
}

fn wrapped(doc: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in doc.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() > 98);
        if full {
            lines.push("#".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The default as TOML.
fn written(key: &Key) -> String {
    match key.kind {
        Kind::Bool | Kind::Count(..) => key.default.to_owned(),
        Kind::List => {
            let parts = key.default.split(',').filter(|part| !part.is_empty());
            let parts: Vec<String> = parts.map(|part| format!("\"{part}\"")).collect();
            format!("[{}]", parts.join(", "))
        }
        _ => format!("\"{}\"", key.default),
    }
}
