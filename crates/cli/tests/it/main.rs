//! The built binary, as a person uses it. Each test has a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bulk;
mod channels;
mod cluster;
mod debugging;
mod deploy;
mod directory;
mod doctor;
mod due;
mod errors;
mod events;
mod full;
mod help;
mod http;
mod interrupt;
mod items;
mod logs;
mod nouns;
mod ops;
mod place;
mod pools;
mod postgres;
mod reference;
mod runs;
mod server;
mod strategies;
mod terminal;
mod waiting;
mod why;
mod workers;
