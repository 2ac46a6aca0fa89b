//! Colours, symbols, and lines that know how wide they are.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use kapell_model::{RunStatus, StepStatus};

use crate::words;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const BLUE: Style = AnsiColor::Blue.on_default();
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();

/// Colours that tell steps apart in logs.
pub(crate) const MANY: [Style; 6] = [
    CYAN,
    AnsiColor::Magenta.on_default(),
    BLUE,
    GREEN,
    YELLOW,
    AnsiColor::BrightBlue.on_default(),
];

/// Text in several styles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Vec<(Style, String)>);

impl Line {
    /// Adds text.
    #[must_use]
    pub(crate) fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    /// Adds text.
    pub(crate) fn push(&mut self, style: Style, text: impl Into<String>) {
        let mut text = text.into();
        if text.contains(char::is_control) {
            text = words::printed(&text);
        }
        self.0.push((style, text));
    }

    /// Fills up to a column.
    pub(crate) fn pad(&mut self, column: usize) {
        let width = self.width();
        if width < column {
            self.0.push((PLAIN, " ".repeat(column - width)));
        }
    }

    /// Columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| words::columns(text)).sum()
    }

    /// As text, cut at a width if one is given.
    pub(crate) fn text(&self, color: bool, width: Option<usize>) -> String {
        let mut left = width.unwrap_or(usize::MAX);
        let cut = self.width() > left;
        if cut {
            left = left.saturating_sub(1);
        }
        let mut out = String::new();
        for (style, text) in &self.0 {
            let part = words::start(text, left);
            left -= words::columns(part);
            if color && *style != PLAIN && !part.is_empty() {
                let _ = write!(out, "{style}{part}{style:#}");
            } else {
                out.push_str(part);
            }
            if part.len() < text.len() {
                break;
            }
        }
        if cut {
            out.push('…');
        }
        // A line has no blanks at its end, wherever they came from.
        out.truncate(out.trim_end_matches(' ').len());
        out
    }
}

/// The sign and colour of a step's status.
pub(crate) fn step(status: StepStatus) -> (&'static str, Style) {
    match status {
        StepStatus::Succeeded | StepStatus::Cached => ("✓", GREEN),
        StepStatus::Failed | StepStatus::TimedOut => ("✗", RED),
        StepStatus::UpstreamFailed => ("·", RED),
        StepStatus::Cancelled => ("⊘", YELLOW),
        StepStatus::Skipped => ("↷", DIM),
        StepStatus::Running => ("●", CYAN),
        StepStatus::Queued => ("○", CYAN),
        StepStatus::Retrying => ("↻", YELLOW),
        StepStatus::Cancelling => ("◌", YELLOW),
        StepStatus::Waiting => ("◌", BLUE),
        StepStatus::Pending => ("·", DIM),
    }
}

/// The sign and colour of a run's status.
pub(crate) fn run(status: RunStatus) -> (&'static str, Style) {
    match status {
        RunStatus::Succeeded => ("✓", GREEN),
        RunStatus::Failed | RunStatus::TimedOut => ("✗", RED),
        RunStatus::Cancelled => ("⊘", YELLOW),
        RunStatus::Discarded => ("↷", DIM),
        RunStatus::Running => ("●", CYAN),
        RunStatus::Queued => ("○", CYAN),
        RunStatus::Paused => ("‖", YELLOW),
        RunStatus::Cancelling => ("◌", YELLOW),
    }
}

/// A status as people read it.
pub(crate) fn word(name: &str) -> String {
    name.replace('_', " ")
}

impl Line {
    /// The same, cut at a width.
    #[must_use]
    pub(crate) fn cut(mut self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        for (_, text) in &mut self.0 {
            let kept = words::start(text, left).len();
            // After a part that was cut nothing fits.
            left = if kept < text.len() {
                0
            } else {
                left - words::columns(text)
            };
            text.truncate(kept);
        }
        self.with(PLAIN, "…")
    }
}

impl Line {
    /// Both, one after the other.
    #[must_use]
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}
