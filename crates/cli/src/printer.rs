//! Everything that is written for people or for pipes. The one place that writes to the terminal.

use std::io::{ErrorKind, Write};

use kapell_model::config::{LOG_FILTER, LOG_FORMAT};
use kapell_model::{Error, ErrorCode};
use serde::Serialize;

use crate::config;
use crate::config::Config;
use crate::log_line;
use crate::paint::{BOLD, CYAN, DIM, Line, PLAIN, RED};

/// Writes to standard output, and errors to standard error.
pub(crate) struct Printer {
    color: bool,
    error_color: bool,
    /// Rows of the part that is written again and again.
    live: usize,
    closed: bool,
}

impl Printer {
    /// With colours if the configuration says so.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            color: config.color,
            error_color: config.error_color,
            live: 0,
            closed: false,
        }
    }

    /// True if standard output takes colours.
    pub(crate) fn colors(&self) -> bool {
        self.color
    }

    /// True once nobody reads what is written.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes lines, after what is there.
    pub(crate) fn lines(&mut self, lines: &[Line]) -> Result<(), Error> {
        let text: String = lines
            .iter()
            .map(|line| line.text(self.color, None) + "\n")
            .collect();
        self.live = 0;
        self.write(text.as_bytes())
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: Line) -> Result<(), Error> {
        self.lines(&[line])
    }

    /// Writes one line without style.
    pub(crate) fn plain(&mut self, text: impl Into<String>) -> Result<(), Error> {
        self.line(Line::default().with(PLAIN, text))
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.live = 0;
        self.write(text.as_bytes())
    }

    /// Lets somebody write bytes.
    pub(crate) fn bytes(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.live = 0;
        write(&mut Out(&mut self.closed))
    }

    /// Writes a value as JSON: indented on a terminal's behalf, for it is read there.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.text(&(text + "\n"))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value);
        let text = text.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        self.text(&(text + "\n"))
    }

    /// Writes lines in place of those that were written so before. For a terminal.
    pub(crate) fn live(&mut self, lines: &[Line], width: usize) -> Result<(), Error> {
        let mut text = String::from("\u{1b}[?25l");
        if self.live > 0 {
            text += &format!("\u{1b}[{}A", self.live);
        }
        for line in lines {
            text.push_str("\r\u{1b}[2K");
            text.push_str(&line.text(self.color, Some(width)));
            text.push('\n');
        }
        text.push_str("\u{1b}[0J\u{1b}[?25h");
        self.live = lines.len();
        self.write(text.as_bytes())
    }

    /// Says on standard error what failed and what to do.
    pub(crate) fn error(&mut self, error: &Error) {
        let head = format!("error[{}]:", error.code);
        let mut rows = error.message.lines();
        let mut lines = vec![
            Line::default()
                .with(RED, head)
                .with(PLAIN, " ")
                .with(BOLD, rows.next().unwrap_or_default()),
        ];
        lines.extend(rows.map(|row| Line::default().with(BOLD, format!("  {row}"))));
        if let Some(hint) = &error.hint {
            lines.push(
                Line::default()
                    .with(CYAN, " hint")
                    .with(PLAIN, format!(": {hint}")),
            );
        }
        lines.push(page(error.code));
        self.notes(&lines);
    }

    /// Writes lines to standard error.
    pub(crate) fn notes(&mut self, lines: &[Line]) {
        let text: String = lines
            .iter()
            .map(|line| line.text(self.error_color, None) + "\n")
            .collect();
        // There is no other place to say that this one is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Writes text to standard error as it is.
    #[expect(clippy::unused_self, reason = "whoever has no printer writes nothing")]
    pub(crate) fn error_text(&mut self, text: &str) {
        // As above.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| {
                self.closed = error.kind() == ErrorKind::BrokenPipe;
                Error::new(
                    ErrorCode::Internal,
                    format!("the output cannot be written: {error}"),
                )
            })
    }
}

/// Standard output, which notes whether anybody still reads it.
struct Out<'p>(&'p mut bool);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stdout()
            .write(bytes)
            .inspect_err(|error| *self.0 = error.kind() == ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

/// Where the page of an error code is.
fn page(code: ErrorCode) -> Line {
    Line::default()
        .with(CYAN, " page")
        .with(PLAIN, format!(": docs/errors/{code}.md"))
        .with(DIM, format!(", or `kapell explain {code}`"))
}

/// Writes what clap says of arguments: help and versions as they are, problems as errors with a code.
pub(crate) fn misused(error: &clap::Error) {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoCommand;
    if !error.use_stderr() || error.kind() == NoCommand {
        // There is no other place to say that this one is gone.
        let _ = error.print();
        return;
    }
    let color = config::colors_of_errors();
    let rendered = error.render();
    let text = if color {
        rendered.ansi().to_string()
    } else {
        rendered.to_string()
    };
    let code = ErrorCode::BadRequest;
    let text = text.replacen("error:", &format!("error[{code}]:"), 1);
    let page = page(code).text(color, None);
    // As above.
    let _ = std::io::stderr().write_all(format!("{text}{page}\n").as_bytes());
}

/// Sends what the program says of itself to standard error, as `log.filter` and `log.format` ask; without
/// a filter what is at least as grave as `least`.
pub(crate) fn log_to_stderr(config: &Config, least: tracing::Level) {
    use tracing_subscriber::filter::EnvFilter;
    let filter = match config.settings.some_text(&LOG_FILTER) {
        Some(filter) => EnvFilter::new(filter),
        // Cheap to make: no directive to parse.
        None => EnvFilter::default().add_directive(least.into()),
    };
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Set once, at the start.
    let _ = if config.settings.text(&LOG_FORMAT) == "json" {
        // Whoever reads lines of JSON reads nothing else.
        std::panic::set_hook(Box::new(log_line::panicked));
        let lines = logging.event_format(log_line::JsonLines);
        tracing::subscriber::set_global_default(lines.finish())
    } else {
        let lines = logging
            .with_ansi(config.error_color)
            .without_time()
            .with_target(false);
        tracing::subscriber::set_global_default(lines.finish())
    };
}

/// Writes to standard error what is said when nobody answers any more.
pub(crate) fn last_words(text: &str) {
    // There is no other place to say that this one is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
