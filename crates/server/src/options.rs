//! What whoever starts a process may choose of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kapell_engine::topic::Keeps;
use kapell_model::spec::Retention;

use crate::{KeySource, TracesTo};

/// The name of the file of keys in a data directory.
const KEY_FILE: &str = "secret.key";

/// What a node says of itself to others.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where other nodes, clients and workers reach it: `http://10.0.0.7:7420`.
    pub address: String,
    /// How long others wait for it before they take over what it owns.
    pub lease: Duration,
    /// Certificates that nodes may show beside those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Choices; the default is what holds without a configuration.
#[derive(Clone, Default)]
pub struct Options {
    /// The URL of the database that holds the store; none is the data directory's own.
    pub store: Option<String>,
    /// Set for a node that shares the database with others.
    pub node: Option<NodeOptions>,
    /// Bytes of blobs that are kept in the data directory where they lie in a database.
    pub blob_cache: u64,
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
