//! `kapell config`

use kapell_model::config::{Kind, example_toml};
use serde::Serialize;

use crate::args::ShowConfig;
use crate::config::{Config, From};
use crate::paint::{BOLD, DIM, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit};

/// Columns of a key or value, beyond which others do not follow it.
const WIDEST: usize = 48;

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
    let shown: Vec<Shown> = config
        .settings
        .all()
        .into_iter()
        .map(|(path, key, value, from)| {
            let value = value.to_string();
            Shown {
                key: path,
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
    let width = |text: fn(&Shown) -> &str| {
        let widths = shown.iter().map(|key| text(key).chars().count());
        widths.max().unwrap_or(0).min(WIDEST) + 2
    };
    let (first, second) = (width(|key| &key.key), width(|key| &key.value));
    for key in &shown {
        let mut line = Line::default().with(BOLD, &key.key);
        pad(&mut line, first);
        line.push(
            PLAIN,
            if key.value.is_empty() {
                "-"
            } else {
                &key.value
            },
        );
        pad(&mut line, first + second);
        lines.push(line.with(DIM, &key.from));
    }
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

/// Goes on at a column, or two columns behind what is longer.
fn pad(line: &mut Line, column: usize) {
    if line.width() < column {
        line.pad(column);
    } else {
        line.push(PLAIN, "  ");
    }
}
