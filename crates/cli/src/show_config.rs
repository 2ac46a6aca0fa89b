//! `kapell config`

use kapell_model::config::{KEYS, Kind, example_toml};
use serde::Serialize;

use crate::args::ShowConfig;
use crate::config::{Config, From};
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit};

/// A key as JSON.
#[derive(Serialize)]
struct Shown {
    key: String,
    value: String,
    from: String,
    doc: &'static str,
}

pub(crate) fn show(show: &ShowConfig, config: &Config, printer: &mut Printer) -> Ended {
    if show.example {
        printer.text(&example_toml())?;
        return Ok(Exit::Success);
    }
    let shown: Vec<Shown> = KEYS
        .iter()
        .map(|key| {
            let (value, from) = config.settings.get(key);
            let value = value.to_string();
            Shown {
                key: key.path(),
                value: if key.kind == Kind::Secret && !value.is_empty() {
                    "(hidden)".to_owned()
                } else {
                    value
                },
                from: match from {
                    From::Default => "default".to_owned(),
                    From::File => "file".to_owned(),
                    From::Variable(name) => name,
                    From::Flag(flag) => flag.to_owned(),
                },
                doc: key.doc,
            }
        })
        .collect();
    if show.json {
        printer.json(&shown)?;
        return Ok(Exit::Success);
    }
    let file = match &config.settings.file {
        Some(file) => format!("file: {}", file.display()),
        None => "no file; `kapell config --example` prints one".to_owned(),
    };
    let mut lines = vec![Line::default().with(DIM, file)];
    for key in &shown {
        let mut line = Line::default().with(BOLD, &key.key);
        line.pad(24);
        line.push(
            PLAIN,
            if key.value.is_empty() {
                "-"
            } else {
                &key.value
            },
        );
        line.pad(52);
        lines.push(line.with(DIM, &key.from));
    }
    printer.lines(&lines)?;
    Ok(Exit::Success)
}
