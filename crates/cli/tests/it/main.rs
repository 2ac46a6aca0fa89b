//! The built binary, as a person uses it. Each test has a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod directory;
mod help;
mod interrupt;
mod place;
mod runs;
