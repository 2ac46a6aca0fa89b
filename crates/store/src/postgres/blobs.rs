//! Big things as rows, which every node reads: by the hash of their content, in chunks.
//!
//! A blob is written in one transaction, so its row is there only with all of its chunks; content that is
//! there already is only marked as put now. Files pass through in chunks, both ways. What is read is checked
//! against its hash, to the last byte, before anybody is given it.
//!
//! Connections and their thread are its own: contents on their way stand in the way of no commit.
//!
//! - **Crash**: a transaction that was not committed leaves nothing.
//! - **Slow store**: whoever puts or gets waits; a commit waits for the values that it refers to.
//! - **Clock jump**: when a blob was last put goes by the database's clock alone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kapell_expr::BlobRef;
use kapell_model::{Time, limits};

use super::connector;
use super::failure::Failure;
use super::pool::{Pool, Tries};
use super::read::get;
use super::session::Session;
use crate::blobs::{check_limit, damaged, length, missing, no_hash, reference};
use crate::refs::{self, Hash, hashes_in};
use crate::{BlobStore, PostgresUrl, Result, Store, Sweep, Swept};

/// Bytes of a chunk. Content of 16 MiB is written in 0.2 s and read in 0.07 s with any from 256 KiB to 1 MiB;
/// with smaller ones the ways to the server count, and larger ones gain nothing for their memory.
const CHUNK: usize = 512 << 10;

/// Connections: what runs at once waits for the disk more than for them.
const CONNECTIONS: usize = 4;

/// Blobs, and bytes of them, that a step of a sweep looks at.
const SWEPT_AT_ONCE: usize = 256;
const SWEPT_BYTES: i64 = 128 << 20;

const PUT: &str = "SELECT put_blob_1($1, $2, $3)";
const PUT_SMALL: &str = "SELECT put_small_blob_1($1, $2, $3)::text";
const PUT_CHUNK: &str = "INSERT INTO blob_chunks (hash, number, content) VALUES ($1, $2, $3)";
const FIRST: &str = "SELECT b.size, c.content FROM blobs b
    LEFT JOIN blob_chunks c ON c.hash = b.hash AND c.number = 0 WHERE b.hash = $1";
const NEXT: &str = "SELECT content FROM blob_chunks WHERE hash = $1 AND number = $2";
const TOUCH: &str =
    "UPDATE blobs b SET used_at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM (SELECT hash FROM blobs WHERE hash = ANY ($1) ORDER BY hash FOR NO KEY UPDATE) f
    WHERE b.hash = f.hash";
const UNUSED: &str = "SELECT b.hash, b.size FROM blobs b WHERE b.hash > $1 AND b.hash < $2
    AND b.used_at < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $3
    AND NOT EXISTS (SELECT 1 FROM blob_holds h WHERE h.held = b.hash)
    ORDER BY b.hash LIMIT $4";

/// Blobs in the schema of a [`super::PostgresStore`]. Clones share its connections.
#[derive(Clone)]
pub struct PostgresBlobs {
    pool: Arc<Pool>,
}

impl PostgresBlobs {
    /// Blobs of a schema that is up to date. Connects when it is first asked.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] if no thread can be started.
    pub fn open(url: &PostgresUrl) -> Result<Self> {
        let pool = Pool::new(connector(url)?, CONNECTIONS);
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Puts a file whose hash is known, whatever its size: what was a value is bounded already.
    pub(super) fn put_moved(&self, path: &Path, blob: &BlobRef) -> io::Result<()> {
        self.put_content(blob, &[], || File::open(path).map(boxed))
    }

    /// Notes that a blob holds others, which are here too.
    pub(super) fn hold(&self, hash: &Hash, held: &BTreeSet<Hash>) -> io::Result<()> {
        let held: Vec<&[u8]> = held.iter().map(|hash| &hash[..]).collect();
        let sql = "INSERT INTO blob_holds (hash, held) SELECT $1, h FROM unnest($2::bytea[]) h
            WHERE EXISTS (SELECT 1 FROM blobs WHERE hash = h) ON CONFLICT DO NOTHING";
        let noted = self.pool.with(Tries::Again, |session| {
            session.query(sql, &[&&hash[..], &held])
        });
        noted.map(drop).map_err(broken)
    }

    /// Reads a blob to its end without keeping it.
    pub(super) fn verify(&self, blob: &BlobRef) -> io::Result<()> {
        self.read(blob, &mut io::sink())
    }

    /// Puts a content a chunk at a time; `again` gives it from its start.
    fn put_content<'c>(
        &self,
        blob: &BlobRef,
        held: &[&[u8]],
        again: impl Fn() -> io::Result<Box<dyn Read + 'c>>,
    ) -> io::Result<()> {
        let hash = hash_of(blob)?;
        let size = i64::try_from(blob.size).map_err(Error::other)?;
        let mut unreadable = None;
        let put = self.pool.with(Tries::Again, |session| {
            transaction(session, |session| {
                let rows = session.query(PUT, &[&&hash[..], &size, &held])?;
                let new = rows.first().map_or(Ok(false), |row| get(row, 0))?;
                if new && let Err(error) = put_chunks(session, (&hash, blob.size), &again) {
                    return Err(match error {
                        Putting::Store(failure) => failure,
                        Putting::Content(error) => {
                            unreadable = Some(error);
                            crate::Error::Invalid("the content cannot be read".to_owned()).into()
                        }
                    });
                }
                Ok(())
            })
        });
        match unreadable {
            Some(error) => Err(error),
            None => put.map_err(broken),
        }
    }

    /// Writes the content to `to`, checked: after an error what was written is of no use.
    fn read(&self, blob: &BlobRef, to: &mut dyn Write) -> io::Result<()> {
        let hash = hash_of(blob)?;
        let first = self.pool.with(Tries::Again, |session| {
            let rows = session.query(FIRST, &[&&hash[..]])?;
            let row = rows.first().map(|row| {
                Ok::<_, Failure>((get::<i64>(row, 0)?, get::<Option<Vec<u8>>>(row, 1)?))
            });
            row.transpose()
        });
        let (size, first) = first.map_err(broken)?.ok_or_else(|| missing(blob))?;
        if u64::try_from(size).ok() != Some(blob.size) {
            return Err(damaged(blob, "its length is another"));
        }
        let mut hasher = blake3::Hasher::new();
        let (mut read, mut number, mut chunk) = (0, 0_i32, first);
        while let Some(content) = chunk {
            hasher.update(&content);
            to.write_all(&content)?;
            read += length(content.len())?;
            if read >= blob.size {
                break;
            }
            number += 1;
            let next = self.pool.with(Tries::Again, |session| {
                let rows = session.query(NEXT, &[&&hash[..], &number])?;
                rows.first().map(|row| get(row, 0)).transpose()
            });
            chunk = next.map_err(broken)?;
        }
        if read == blob.size && hasher.finalize().as_bytes() == &hash {
            Ok(())
        } else {
            Err(damaged(blob, "its content is another"))
        }
    }
}

/// Why a content was not put.
enum Putting {
    Store(Failure),
    Content(Error),
}

fn put_chunks<'c>(
    session: &mut Session,
    (hash, size): (&Hash, u64),
    content: impl Fn() -> io::Result<Box<dyn Read + 'c>>,
) -> std::result::Result<(), Putting> {
    let mut content = content().map_err(Putting::Content)?.take(size);
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::with_capacity(CHUNK);
    for number in 0.. {
        chunk.clear();
        let part = content.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        if part.map_err(Putting::Content)? == 0 {
            break;
        }
        hasher.update(&chunk);
        let number: i32 = number;
        let put = session.query(PUT_CHUNK, &[&&hash[..], &number, &&chunk[..]]);
        put.map_err(Putting::Store)?;
    }
    if hasher.finalize().as_bytes() == hash {
        Ok(())
    } else {
        let why = "the content is not, or no more, what its hash says";
        Err(Putting::Content(Error::new(ErrorKind::InvalidData, why)))
    }
}

/// Does all or nothing.
fn transaction<T>(
    session: &mut Session,
    work: impl FnOnce(&mut Session) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    session.run("BEGIN")?;
    match work(session) {
        Ok(done) => session.run("COMMIT").map(|()| done),
        Err(failure) if failure.breaks => Err(failure),
        Err(failure) => {
            session.run("ROLLBACK")?;
            Err(failure)
        }
    }
}

impl BlobStore for PostgresBlobs {
    fn put(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let hash = blake3::hash(bytes);
        let blob = reference(&hash, length(bytes.len())?);
        if blob.size > limits::OUTPUT_BYTES {
            return Err(too_large("a value", blob.size, limits::OUTPUT_BYTES));
        }
        let held = hashes_in(bytes);
        let held: Vec<&[u8]> = held.iter().map(|hash| &hash[..]).collect();
        if bytes.len() > CHUNK {
            self.put_content(&blob, &held, || Ok(boxed(bytes)))?;
        } else {
            let put = self.pool.with(Tries::Again, |session| {
                session.query(PUT_SMALL, &[&&hash.as_bytes()[..], &bytes, &held])
            });
            put.map_err(broken)?;
        }
        Ok(blob)
    }

    fn put_file(&self, path: &Path) -> io::Result<BlobRef> {
        let file = File::open(path)?;
        let most = limits::DATABASE_FILE_BYTES;
        let found = file.metadata()?.len();
        if found > most {
            return Err(too_large("a file", found, most));
        }
        let mut hasher = blake3::Hasher::new();
        // One that grows meanwhile is not read for ever.
        let size = io::copy(&mut (&file).take(most + 1), &mut hasher)?;
        if size > most {
            return Err(too_large("a file", size, most));
        }
        let blob = reference(&hasher.finalize(), size);
        self.put_content(&blob, &[], || File::open(path).map(boxed))?;
        Ok(blob)
    }

    fn get(&self, blob: &BlobRef, limit: u64) -> io::Result<Vec<u8>> {
        check_limit(blob, limit)?;
        let mut bytes = Vec::new();
        self.read(blob, &mut bytes)?;
        Ok(bytes)
    }

    fn get_file(&self, blob: &BlobRef, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        let read = self.read(blob, &mut file);
        if read.is_err() {
            // Better none than a part.
            let _ = fs::remove_file(path);
        }
        read
    }

    fn touch(&self, hashes: &[Arc<str>]) -> io::Result<()> {
        let hashes = hashes
            .iter()
            .filter_map(|hash| refs::parse(hash.as_bytes()));
        let hashes: Vec<Vec<u8>> = hashes.map(|hash| hash.to_vec()).collect();
        let touched = self
            .pool
            .with(Tries::Again, |session| session.query(TOUCH, &[&hashes]));
        touched.map(drop).map_err(broken)
    }

    fn sweep(
        &self,
        sweep: &mut Sweep,
        store: &dyn Store,
        _now: Time,
        unused: Duration,
    ) -> Result<Swept> {
        let unused = i64::try_from(unused.as_micros()).unwrap_or(i64::MAX);
        let (from, to) = sweep.range();
        let most = i64::try_from(SWEPT_AT_ONCE).unwrap_or(i64::MAX);
        let found = self.pool.with(Tries::Again, |session| {
            let rows = session.query(UNUSED, &[&from, &to, &unused, &most])?;
            let rows = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?)));
            rows.collect::<std::result::Result<Vec<(Vec<u8>, i64)>, Failure>>()
        })?;
        let mut bytes = 0;
        let mut looked_at = Vec::new();
        for (hash, size) in &found {
            if bytes > SWEPT_BYTES {
                break;
            }
            bytes += size;
            let hash: Hash = hash.as_slice().try_into().map_err(|_| {
                crate::Error::Corrupt("a blob is stored under what is no hash".to_owned())
            })?;
            looked_at.push(hash);
        }
        let texts: Vec<Arc<str>> = looked_at.iter().map(refs::text).collect();
        let referred = if texts.is_empty() {
            Vec::new()
        } else {
            store.blobs_referred(&texts)?
        };
        let going = looked_at.iter().zip(referred);
        let going: Vec<Vec<u8>> = going
            .filter(|(_, referred)| !referred)
            .map(|(hash, _)| hash.to_vec())
            .collect();
        let mut swept = Swept::default();
        if !going.is_empty() {
            let sql = "SELECT dropped, bytes FROM drop_blobs_1($1, $2)";
            let (files, bytes) = self.pool.with(Tries::Again, |session| {
                let rows = session.query(sql, &[&going, &unused])?;
                let row = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
                Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?))
            })?;
            swept.files = u64::try_from(files).unwrap_or(0);
            swept.bytes = u64::try_from(bytes).unwrap_or(0);
        }
        let more = found.len() == SWEPT_AT_ONCE || looked_at.len() < found.len();
        swept.done = sweep.go_on(looked_at.last().copied().filter(|_| more));
        Ok(swept)
    }
}

fn boxed<'c>(content: impl Read + 'c) -> Box<dyn Read + 'c> {
    Box::new(content)
}

fn hash_of(blob: &BlobRef) -> io::Result<Hash> {
    refs::parse(blob.hash.as_bytes()).ok_or_else(|| no_hash(&blob.hash))
}

fn too_large(what: &str, found: u64, most: u64) -> Error {
    let why = format!(
        "{what} of {found} bytes is too large: a store in PostgreSQL takes at most {most}; make it smaller, or keep \
         it where both steps reach it and pass its address on"
    );
    Error::new(ErrorKind::FileTooLarge, why)
}

fn broken(error: crate::Error) -> Error {
    let kind = match &error {
        crate::Error::Full(_) => ErrorKind::StorageFull,
        crate::Error::Invalid(_) => ErrorKind::InvalidInput,
        crate::Error::Corrupt(_) => ErrorKind::InvalidData,
        _ => ErrorKind::Other,
    };
    Error::new(kind, error)
}
