//! One file a verb.

pub(crate) mod exec;
pub(crate) mod guard;
pub(crate) mod http;
pub(crate) mod shell;
