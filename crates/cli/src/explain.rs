//! `kapell explain`: what an error code means, its causes, and what to do.

use kapell_model::{Error, ErrorCode};
use serde_json::json;

use crate::args::Explain;
use crate::paint::{BOLD, Line, PLAIN};
use crate::printer::Printer;
use crate::{Ended, Exit};

macro_rules! page {
    ($code:literal) => {
        (
            $code,
            include_str!(concat!("../../../docs/errors/", $code, ".md")),
        )
    };
}

/// The pages of `docs/errors`, by code.
const PAGES: [(&str, &str); 31] = [
    page!("bad-config"),
    page!("bad-definition"),
    page!("bad-params"),
    page!("bad-request"),
    page!("bad-secret-key"),
    page!("directory-held"),
    page!("directory-unusable"),
    page!("disk-full"),
    page!("file-not-found"),
    page!("idempotency-key-reused"),
    page!("internal"),
    page!("limit-reached"),
    page!("not-allowed-now"),
    page!("not-authenticated"),
    page!("not-available"),
    page!("not-here"),
    page!("not-permitted"),
    page!("not-yours"),
    page!("run-failed"),
    page!("run-not-found"),
    page!("secret-not-found"),
    page!("server-unreachable"),
    page!("step-not-found"),
    page!("store-corrupt"),
    page!("store-too-new"),
    page!("store-unavailable"),
    page!("token-not-found"),
    page!("too-many-requests"),
    page!("trigger-not-found"),
    page!("worker-not-found"),
    page!("workflow-not-found"),
];

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
            "page": page(*code),
        }))?;
    } else {
        printer.text(page(*code))?;
    }
    Ok(Exit::Success)
}

fn page(code: ErrorCode) -> &'static str {
    PAGES
        .iter()
        .find(|(name, _)| *name == code.name())
        .map_or(code.meaning(), |(_, page)| page)
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
    let lines: Vec<Line> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let mut line = Line::default().with(BOLD, code.name());
            line.pad(20);
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
            let text = page(*code);
            assert!(text.starts_with(&format!("# {code}\n")), "{code}: {text}");
        }
    }
}
