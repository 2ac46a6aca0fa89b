//! `kapell validate`

use kapell_engine::Plan;
use serde_json::json;
use std::sync::Arc;

use crate::args::Validate;
use crate::definition;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, RED};
use crate::printer::Printer;
use crate::{Ended, Exit, words};

pub(crate) fn validate(validate: &Validate, printer: &mut Printer) -> Ended {
    let mut good = true;
    let mut found = Vec::new();
    for (place, file) in validate.files.iter().enumerate() {
        let definition = definition::read(file)?;
        good &= definition.spec.is_some();
        if validate.json {
            found.push(json!({
                "file": definition.name(),
                "valid": definition.spec.is_some(),
                "workflow": definition.spec.as_ref().map(|spec| &*spec.workflow),
                "diagnostics": definition.diagnostics,
            }));
            continue;
        }
        if place > 0 && !definition.diagnostics.is_empty() {
            printer.plain("")?;
        }
        let color = printer.colors();
        printer.text(&definition.rendered(color))?;
        let errors = definition
            .diagnostics
            .iter()
            .filter(|problem| problem.is_error())
            .count();
        let warnings = definition.diagnostics.len() - errors;
        let mut line = if let Some(spec) = &definition.spec {
            let steps: usize = Plan::new(Arc::clone(spec))
                .graphs
                .iter()
                .map(|graph| graph.steps.len())
                .sum();
            Line::default()
                .with(GREEN, "✓ ")
                .with(BOLD, definition.name())
                .with(
                    DIM,
                    format!(
                        "  workflow {}, {}",
                        spec.workflow,
                        words::count(steps as u64, "step")
                    ),
                )
        } else {
            printer.plain("")?;
            Line::default()
                .with(RED, "✗ ")
                .with(BOLD, definition.name())
                .with(PLAIN, format!("  {}", words::count(errors as u64, "error")))
        };
        if warnings > 0 {
            line.push(
                DIM,
                format!(", {}", words::count(warnings as u64, "warning")),
            );
        }
        printer.line(line)?;
    }
    if validate.json {
        printer.json(&found)?;
    }
    Ok(if good { Exit::Success } else { Exit::BadInput })
}
