//! Parameters from the command line and from files.

use std::fs;
use std::sync::Arc;

use kapell_expr::{Map, Value};
use kapell_model::{Error, ErrorCode, limits};

use crate::args::Params;

/// The parameters as a map. Text is read by the declared types later.
pub(crate) fn read(params: &Params) -> Result<Value, Error> {
    let mut all = match &params.params_file {
        Some(file) => {
            let shown = file.display();
            let text = fs::read_to_string(file).map_err(|error| {
                Error::new(
                    ErrorCode::FileNotFound,
                    format!("`{shown}` cannot be read: {error}"),
                )
            })?;
            let bad = |why: String| {
                Error::new(ErrorCode::BadParams, format!("`{shown}` {why}"))
                    .hint("a file of parameters is one JSON object: {\"name\": value}")
            };
            if text.len() > limits::PARAMS_BYTES {
                return Err(bad(format!("has more than {} bytes", limits::PARAMS_BYTES)));
            }
            let value: Value = serde_json::from_str(&text)
                .map_err(|error| bad(format!("is not JSON: {error}")))?;
            let map = value
                .as_map()
                .ok_or_else(|| bad(format!("holds a {}", value.type_name())))?;
            Map::clone(map)
        }
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
            return Err(Error::new(
                ErrorCode::BadParams,
                format!("`{name}` is given twice"),
            ));
        }
    }
    all.extend(given);
    Ok(Value::Map(Arc::new(all)))
}
