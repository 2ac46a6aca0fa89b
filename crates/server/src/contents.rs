//! Contents of blobs as they go out, a part at a time.
//!
//! Whoever asks may be as slow as they like: no thread waits for them, only one task of the loop that
//! serves, and that for so long. A thread is taken for each part that is read or written, and given back.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kapell_api::task::Blobs;
use kapell_api::worker::CHUNK_BYTES;
use kapell_expr::BlobRef;
use tokio::sync::mpsc;

/// How long the next part of a content may take, and how long a place for one is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The folder of a data directory for what passes through.
const FOLDER: &str = "passing";

/// Parts of a content on their way.
const PARTS: usize = 2;

/// A part, or why there is none.
type Part = io::Result<Vec<u8>>;

/// The content of a blob, in parts. It ends early for whoever takes none of them for too long. The place
/// is free again at the end.
pub(crate) fn parts(
    blobs: Arc<dyn Blobs>,
    data_dir: &Path,
    blob: BlobRef,
    place: impl Send + 'static,
) -> mpsc::Receiver<Part> {
    let (to, parts) = mpsc::channel(PARTS);
    let passing = Passing::new(data_dir);
    tokio::spawn(async move {
        if let Err(error) = send(blobs, passing, blob, &to).await {
            // Whoever asked may have gone.
            let _ = to.send_timeout(Err(error), PATIENCE).await;
        }
        drop(place);
    });
    parts
}

async fn send(
    blobs: Arc<dyn Blobs>,
    passing: Passing,
    blob: BlobRef,
    to: &mpsc::Sender<Part>,
) -> io::Result<()> {
    let mut reading = on_thread(move || Reading::open(&*blobs, passing, &blob)).await?;
    loop {
        let part;
        (reading, part) = on_thread(move || {
            let part = reading.part()?;
            Ok((reading, part))
        })
        .await?;
        if part.is_empty() || to.send_timeout(Ok(part), PATIENCE).await.is_err() {
            // That was all, or it wants no more, or is given up.
            return Ok(());
        }
    }
}

/// Does what blocks for a moment.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// A content that goes out.
enum Reading {
    /// A small one, or nothing once it is sent.
    Whole(Vec<u8>),
    /// The file goes with it.
    File { file: File, _passing: Passing },
}

impl Reading {
    fn open(blobs: &dyn Blobs, passing: Passing, blob: &BlobRef) -> io::Result<Self> {
        if blob.size <= CHUNK_BYTES as u64 {
            return blobs.get(blob, blob.size).map(Self::Whole);
        }
        blobs.get_file(blob, &passing.0)?;
        Ok(Self::File {
            file: File::open(&passing.0)?,
            _passing: passing,
        })
    }

    /// The next part; an empty one at the end.
    fn part(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Whole(bytes) => Ok(std::mem::take(bytes)),
            Self::File { file, .. } => {
                let mut part = Vec::with_capacity(CHUNK_BYTES);
                file.take(CHUNK_BYTES as u64).read_to_end(&mut part)?;
                Ok(part)
            }
        }
    }
}

/// A file that a content passes through; what a process leaves is cleared at the next start.
pub(crate) struct Passing(pub(crate) PathBuf);

impl Passing {
    pub(crate) fn new(data_dir: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = data_dir.join(FOLDER);
        // Whoever makes the file is told why there is none.
        let _ = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        Self(folder.join(number.to_string()))
    }
}

/// Removes what a process before this one left.
pub(crate) fn clear(data_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(data_dir.join(FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}
