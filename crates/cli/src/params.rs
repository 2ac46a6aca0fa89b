//! Parameters from the command line and from files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kapell_expr::{Map, Value};
use kapell_model::{Color, Error, ErrorCode, Time, limits, render};
use kapell_node::clock;

use crate::args::Params;
use crate::config::Config;
use crate::printer::Printer;
use crate::words;

/// The parameters as a map. Text is read by the declared types later. None if the file of
/// parameters has problems, which are shown then.
pub(crate) fn read(
    params: &Params,
    config: &Config,
    printer: &mut Printer,
) -> Result<Option<Value>, Error> {
    let mut all = match &params.params_file {
        Some(path) => match file(path, config, printer)? {
            Some(values) => values,
            None => return Ok(None),
        },
        None => Map::new(),
    };
    let mut given = Map::new();
    for param in &params.param {
        let Some((name, value)) = param.split_once('=') else {
            return Err(
                Error::new(ErrorCode::BadParams, format!("`-p {param}` has no `=`"))
                    .hint("as in `-p rows=100`"),
            );
        };
        let name: Arc<str> = name.trim().into();
        if given.insert(name.clone(), Value::string(value)).is_some() {
            return Err(
                Error::new(ErrorCode::BadParams, format!("`{name}` is given twice"))
                    .hint("lists and maps are one value, as JSON: `-p 'regions=[\"eu\",\"us\"]'`"),
            );
        }
    }
    all.extend(given);
    Ok(Some(Value::Map(Arc::new(all))))
}

fn file(path: &Path, config: &Config, printer: &mut Printer) -> Result<Option<Map>, Error> {
    let shown = path.display();
    let bad = |why: String| {
        Error::new(ErrorCode::BadParams, format!("`{shown}` {why}"))
            .hint("a file of parameters is a map in YAML or JSON: `rows: 100`, a line each")
    };
    let bytes = fs::read(path).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no file `{shown}`"),
            std::io::ErrorKind::IsADirectory => format!("`{shown}` is a folder"),
            _ => format!("`{shown}` cannot be read: {error}"),
        };
        Error::new(ErrorCode::FileNotFound, message)
    })?;
    if bytes.len() > limits::PARAMS_BYTES {
        return Err(bad(format!("has more than {} bytes", limits::PARAMS_BYTES)));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("is not text in UTF-8".to_owned()))?;
    match kapell_model::values(&text) {
        Ok(values) => Ok(Some(values)),
        Err(problems) => {
            let color = if config.error_color {
                Color::Always
            } else {
                Color::Never
            };
            printer.error_text(&render(&shown.to_string(), &text, &problems, color));
            printer.error_text("\n");
            printer.error(&Error::new(
                ErrorCode::BadParams,
                format!("the parameters in `{shown}` cannot be read; nothing was started"),
            ));
            Ok(None)
        }
    }
}
/// What `run.scheduled_at` is to be.
pub(crate) fn scheduled_at(at: Option<&str>) -> Result<Option<Time>, Error> {
    at.map(|text| words::instant(text, clock::now(), true))
        .transpose()
}
