//! What whoever starts a process may choose of it.

use std::path::Path;

use kapell_engine::topic::Keeps;
use kapell_model::spec::Retention;

use crate::{KeySource, TracesTo};

/// The name of the file of keys in a data directory.
const KEY_FILE: &str = "secret.key";

/// Choices; the default is what holds without a configuration.
#[derive(Clone, Default)]
pub struct Options {
    /// The URL of the database that holds the store; none is the data directory's own.
    pub store: Option<String>,
    /// How long ended runs are kept where their workflow says nothing.
    pub retention: Retention,
    /// How much topics keep.
    pub keeps: Keeps,
    /// In which order work is granted.
    pub dispatch: kapell_node::DispatchSettings,
    /// Where the keys of secrets come from; none is a file in the data directory.
    pub keys: Option<KeySource>,
    /// Whether `/metrics` answers.
    pub metrics: bool,
    /// Attempts that the worker of this process takes at a time.
    pub slots: usize,
    /// Where traces go, if anywhere.
    pub traces: Option<TracesTo>,
}

impl Options {
    /// Where the keys of secrets of a data directory come from.
    pub(crate) fn keys_in(&self, data_dir: &Path) -> KeySource {
        let file = || KeySource::File(data_dir.join(KEY_FILE));
        self.keys.clone().unwrap_or_else(file)
    }
}
