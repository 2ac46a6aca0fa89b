//! The built binary, as a person uses it. Each test has a directory of its own.

mod directory;
mod help;
mod interrupt;
mod place;
mod runs;
