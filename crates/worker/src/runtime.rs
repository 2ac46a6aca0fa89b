//! One file a verb.

pub(crate) mod exec;
pub(crate) mod http;
pub(crate) mod shell;
