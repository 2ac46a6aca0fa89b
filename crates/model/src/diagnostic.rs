//! Problems of a workflow file or of parameters, and how they are shown.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The definition cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One problem and its place. The same in the command line, the API, the UI and the SDK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is: stable, in kebab case.
    pub code: &'static str,
    /// What is wrong, with the names involved quoted in backticks.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The bytes of the file that are wrong. Empty at the start where there is no file.
    pub span: Range<usize>,
    /// The line where the span starts, from 1; 0 where there is no file.
    pub line: usize,
    /// The column in characters where the span starts, from 1; 0 where there is no file.
    pub column: usize,
}

impl Diagnostic {
    /// An error that has no place in a file, as those of parameters.
    pub fn without_place(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            hint: None,
            span: 0..0,
            line: 0,
            column: 0,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True if the definition cannot be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Whether [`render`] writes terminal colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    #[default]
    Never,
    /// ANSI escapes.
    Always,
}

impl Color {
    fn paint(self, ansi: &str, text: &str) -> String {
        match self {
            Self::Never => text.to_owned(),
            Self::Always => format!("\u{1b}[{ansi}m{text}\u{1b}[0m"),
        }
    }
}

/// Turns ascending byte offsets into lines and columns in one walk over the text.
pub(crate) struct Places<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'t> Places<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            column: 1,
        }
    }

    /// Line and column, both from 1, the column in characters. `offset` is not before the last one.
    pub(crate) fn next(&mut self, offset: usize) -> (usize, usize) {
        let passed = self.text.get(self.at..offset).unwrap_or_default();
        if let Some(last_break) = passed.rfind('\n') {
            self.line += passed.matches('\n').count();
            self.column = 1 + passed[last_break + 1..].chars().count();
        } else {
            self.column += passed.chars().count();
        }
        self.at += passed.len();
        (self.line, self.column)
    }
}

/// The diagnostics with their source lines and carets, a blank line between them.
pub fn render(file_name: &str, text: &str, diagnostics: &[Diagnostic], color: Color) -> String {
    let mut out = String::new();
    let file_name = printable(file_name);
    for (place, diagnostic) in diagnostics.iter().enumerate() {
        if place > 0 {
            out.push('\n');
        }
        render_one(&mut out, &file_name, text, diagnostic, color);
    }
    out
}

fn render_one(
    out: &mut String,
    file_name: &str,
    text: &str,
    diagnostic: &Diagnostic,
    color: Color,
) {
    let (word, ansi) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = color.paint(ansi, &format!("{word}[{}]", diagnostic.code));
    let message = color.paint("1", &printable(&diagnostic.message));
    let _ = writeln!(out, "{head}: {message}");
    let width = diagnostic.line.to_string().len();
    if diagnostic.line > 0 {
        let bar = color.paint("1;34", "|");
        let arrow = color.paint("1;34", "-->");
        let number = color.paint("1;34", &diagnostic.line.to_string());
        let (source, caret) = excerpt(text, diagnostic);
        let _ = writeln!(
            out,
            "{:width$}{arrow} {file_name}:{}:{}\n{:width$} {bar}\n{number} {bar} {source}\n{:width$} {bar} {}",
            "",
            diagnostic.line,
            diagnostic.column,
            "",
            "",
            color.paint(ansi, &caret),
        );
    }
    if let Some(hint) = &diagnostic.hint {
        let label = color.paint("1;36", "hint");
        let _ = writeln!(out, "{:width$} = {label}: {}", "", printable(hint));
    }
}

/// How much of a long line is shown before and after the start of the span.
const BEFORE: usize = 60;
const AFTER: usize = 100;

/// The line where the span starts, cut around it if it is long, and the carets below it.
fn excerpt(text: &str, diagnostic: &Diagnostic) -> (String, String) {
    let start = diagnostic.span.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let near: Vec<char> = text[line_start..start]
        .chars()
        .rev()
        .take(AFTER + 1)
        .collect();
    let cut = near.len() > AFTER;
    let kept = if cut { BEFORE } else { near.len() };
    let after: String = text[start..line_end]
        .trim_end_matches('\r')
        .chars()
        .take(AFTER)
        .collect();
    let cut_after = text[start..line_end].chars().nth(AFTER).is_some();

    let shown: String = near[..kept].iter().rev().collect();
    let source = format!(
        "{}{}{}{}",
        if cut { "…" } else { "" },
        printable(&shown),
        printable(&after),
        if cut_after { "…" } else { "" }
    );
    let end = diagnostic.span.end.clamp(start, line_end);
    let marked = text
        .get(start..end)
        .map_or(1, |span| span.trim_end().chars().take(AFTER).count());
    let pad = " ".repeat(kept + usize::from(cut));
    (
        source.trim_end().to_owned(),
        pad + &"^".repeat(marked.max(1)),
    )
}

/// Without what a terminal would act on: tabs as one space, other control characters replaced.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() && c != '\n' => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests;
