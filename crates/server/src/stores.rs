//! Which store there is: a file in the data directory, or a schema of a PostgreSQL database.

use std::path::Path;
use std::sync::Arc;

use kapell_api::task::Blobs;
use kapell_model::{Error, ErrorCode};
use kapell_node::BlobFolder;
use kapell_store::{
    BlobStore, CachedBlobs, Cluster, FileBlobs, MOVED_BLOBS, MOVED_DATABASE, PostgresBlobs,
    PostgresLogs, PostgresStore, PostgresUrl, SqliteStore, Store, database_step, move_store,
};
use serde::Serialize;

use crate::Options;
use crate::local::{cannot_write, no_thread};
use crate::logs::{RowLogs, RunLogs};
use crate::rows::failure;

/// A store as it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// `sqlite` or `postgresql`.
    pub kind: &'static str,
    /// The directory, or the URL without its password.
    pub place: String,
    /// The version of the database server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The last step of the schema that was applied; 0 where there is no store yet.
    pub applied: u32,
    /// The newest step that this program knows.
    pub known: u32,
    /// Bytes of the store without blobs and logs.
    pub bytes: u64,
    /// Bytes of blobs.
    pub blobs: u64,
    /// Bytes of logs where they lie in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<u64>,
}

/// What was moved of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Its name.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// What keeps the blobs of a store, as workers and upkeep see it.
pub(crate) type OpenedBlobs = (Arc<dyn Blobs>, Arc<dyn BlobStore>);

/// Opens what keeps the blobs of a store that is open: in the data directory too, or in the same database.
///
/// # Errors
/// Code `directory-unusable` or `disk-full` for the data directory, and those of the store.
pub(crate) fn blobs(data_dir: &Path, options: &Options) -> Result<OpenedBlobs, Error> {
    let unusable = |error: std::io::Error| cannot_write(data_dir, &error);
    let Some(url) = &options.store else {
        let files = FileBlobs::open(data_dir).map_err(unusable)?;
        return Ok((Arc::new(BlobFolder(files.clone())), Arc::new(files)));
    };
    let rows = url.parse().and_then(|url| PostgresBlobs::open(&url));
    let rows = rows.map_err(|error| refused(error, Some(url)))?;
    let cached = CachedBlobs::open(rows, data_dir, options.blob_cache).map_err(unusable)?;
    let cached = Arc::new(cached);
    Ok((Arc::new(BlobFolder(Arc::clone(&cached))), cached))
}

/// Opens what keeps the logs of runs.
///
/// # Errors
/// Those of the store, and code `internal`.
pub(crate) fn logs(data_dir: &Path, options: &Options) -> Result<RunLogs, Error> {
    let rows = options.store.as_deref().map(|url| {
        let logs = url.parse().and_then(|url| PostgresLogs::open(&url));
        let logs = logs.map_err(|error| refused(error, Some(url)))?;
        let started = RowLogs::start(logs).map_err(|error| no_thread("logs", &error))?;
        Ok::<_, Error>(Arc::new(started))
    });
    Ok(RunLogs::new(data_dir.join("logs"), rows.transpose()?))
}

/// The store of a process, which nodes may share.
pub(crate) struct Found {
    pub(crate) store: Arc<dyn Store>,
    /// Set if others work in it too.
    pub(crate) cluster: Option<Arc<dyn Cluster>>,
}

/// Opens the store of a process that works in a data directory: as one of several nodes, or alone.
pub(crate) fn open(
    data_dir: &Path,
    url: Option<&str>,
    is_node: bool,
) -> kapell_store::Result<Found> {
    let alone = |store| Found {
        store,
        cluster: None,
    };
    Ok(match url {
        None => alone(Arc::new(SqliteStore::open(data_dir)?)),
        Some(url) if is_node => {
            let store = Arc::new(PostgresStore::open_shared(data_dir, &url.parse()?)?);
            Found {
                cluster: Some(Arc::clone(&store) as Arc<dyn Cluster>),
                store,
            }
        }
        Some(url) => alone(Arc::new(PostgresStore::open_alone(
            data_dir,
            &url.parse()?,
        )?)),
    })
}

/// What people are told where a store could not be opened.
pub(crate) fn refused(error: kapell_store::Error, url: Option<&str>) -> Error {
    match (error, url) {
        (
            error @ (kapell_store::Error::Unusable(_) | kapell_store::Error::Unavailable(_)),
            Some(_),
        ) => Error::new(ErrorCode::StoreUnavailable, error.to_string())
            .hint("look at what `--store`, KAPELL_STORE or `store` of the configuration says"),
        (error, _) => failure(error),
    }
}

/// Looks at a store without changing it, also while another process uses it.
///
/// # Errors
/// Codes `store-unavailable`, `store-too-new`, `store-corrupt`.
pub fn status(data_dir: &Path, url: Option<&str>) -> Result<StoreStatus, Error> {
    let refused = |error| refused(error, url);
    let Some(url) = url else {
        let applied = database_step(data_dir).map_err(refused)?;
        let length =
            |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |about| about.len());
        return Ok(StoreStatus {
            kind: "sqlite",
            place: data_dir.display().to_string(),
            server: None,
            applied: applied.unwrap_or(0),
            known: SqliteStore::newest_step(),
            bytes: length("kapell.db") + length("kapell.db-wal"),
            blobs: FileBlobs::bytes(data_dir),
            logs: None,
        });
    };
    let url: PostgresUrl = url.parse().map_err(refused)?;
    let found = PostgresStore::status(&url).map_err(refused)?;
    Ok(StoreStatus {
        kind: "postgresql",
        place: url.to_string(),
        server: Some(found.server),
        applied: found.applied,
        known: found.known,
        bytes: found.bytes,
        blobs: found.blobs,
        logs: Some(found.logs),
    })
}

/// Makes a store or brings its schema up to date; how it was before.
///
/// # Errors
/// As those of [`status`], and codes `directory-held`, `directory-unusable`, `disk-full`.
pub fn migrate(data_dir: &Path, url: Option<&str>) -> Result<StoreStatus, Error> {
    let before = status(data_dir, url)?;
    match url {
        None => SqliteStore::open(data_dir).map(drop),
        Some(text) => text
            .parse()
            .and_then(|url| PostgresStore::open(&url))
            .map(drop),
    }
    .map_err(|error| refused(error, url))?;
    Ok(before)
}

/// Moves the store of a data directory to PostgreSQL; the names that its database and its folder of blobs
/// then have, and what was moved.
///
/// # Errors
/// Codes `directory-held`, `bad-request` if there is something in the schema, and those of either store.
pub fn move_to(
    data_dir: &Path,
    url: &str,
    moving: impl FnMut(&'static str),
) -> Result<([&'static str; 2], Vec<Moved>), Error> {
    let moved = url.parse().and_then(|to| move_store(data_dir, &to, moving));
    let moved = moved.map_err(|error| match error {
        // That is said of either of them.
        kapell_store::Error::Unusable(message) => Error::new(ErrorCode::BadRequest, message)
            .hint("look at what `--data-dir` and `--to` say"),
        other => failure(other),
    })?;
    let moved = moved.into_iter().map(|of| Moved {
        table: of.name,
        rows: of.rows,
    });
    Ok(([MOVED_DATABASE, MOVED_BLOBS], moved.collect()))
}
