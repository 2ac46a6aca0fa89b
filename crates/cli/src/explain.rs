//! `kapell explain`: what an error code means, its causes, and what to do.

use kapell_model::{Error, ErrorCode};
use serde_json::json;

use crate::args::Explain;
use crate::paint::{BOLD, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit};

pub(crate) fn explain(explain: &Explain, printer: &mut Printer) -> Ended {
    let Some(name) = &explain.code else {
        return list(explain, printer);
    };
    let name = name.trim_start_matches("error[").trim_end_matches(']');
    let code = ErrorCode::ALL.iter().find(|code| code.name() == name);
    let Some(code) = code else {
        return Err(Error::new(
            ErrorCode::BadRequest,
            format!("there is no error code `{name}`"),
        )
        .hint("`kapell explain` lists them; what `validate` finds has its hint beside it"));
    };
    if explain.json {
        printer.json(&json!({
            "code": code.name(),
            "meaning": code.meaning().trim(),
            "exit_status": code.exit_status(),
            "http_status": code.http_status(),
            "retryable": code.retryable(),
            "page": code.page(),
        }))?;
    } else {
        printer.text(code.page())?;
    }
    Ok(Exit::Success)
}

fn list(explain: &Explain, printer: &mut Printer) -> Ended {
    if explain.json {
        let all: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| json!({ "code": code.name(), "meaning": code.meaning().trim() }))
            .collect();
        printer.json(&all)?;
        return Ok(Exit::Success);
    }
    let names = ErrorCode::ALL.iter().map(|code| code.name().len());
    let width = names.max().unwrap_or(0) + 2;
    let lines: Vec<Line> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let mut line = Line::default().with(BOLD, code.name());
            line.pad(width);
            line.with(PLAIN, code.meaning().trim())
        })
        .collect();
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page() {
        for code in ErrorCode::ALL {
            let text = code.page();
            assert!(text.starts_with(&format!("# {code}\n")), "{code}: {text}");
        }
    }
}
