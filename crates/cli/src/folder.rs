//! The workflow files of a folder and of all folders in it.
//!
//! What is not deployed may be deleted with `--prune`, so nothing is passed over in silence that may be
//! a workflow: a file that cannot be read as one and speaks of one is an error.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kapell_model::{Error, ErrorCode, limits, mentions_workflow, top_level};

use crate::definition::may_be_one;
use crate::ignore::Ignore;
use crate::words;

/// Bytes of a file that are looked at at once.
const CHUNK: usize = 64 << 10;

/// Bytes of a chunk that are looked at again with the next: a word may lie across both.
const OVERLAP: usize = 64;

const NONE_OF_OURS: &str = "if it is no workflow, name it in `.kapellignore`";

/// All of them, in order.
///
/// # Errors
/// `file-not-found` if there is none, or what cannot be read; `bad-definition` and `limit-reached` for
/// what may be a workflow and is no text, or too big.
pub(crate) fn workflows(path: &Path, data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut walk = Walk {
        data_dir: fs::canonicalize(data_dir).ok(),
        levels: Vec::new(),
        found: Vec::new(),
    };
    walk.folder(path)?;
    if walk.found.is_empty() {
        let message = format!("the folder `{}` holds no workflow file", path.display());
        return Err(Error::new(ErrorCode::FileNotFound, message)
            .hint("a workflow file ends in .yaml, .yml or .json and has the key `workflow`"));
    }
    walk.found.sort();
    Ok(walk.found)
}

struct Walk {
    data_dir: Option<PathBuf>,
    /// What the folders from the outermost to this one leave out of what is in them.
    levels: Vec<(PathBuf, Ignore)>,
    found: Vec<PathBuf>,
}

impl Walk {
    fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        let text = fs::read_to_string(folder.join(".kapellignore")).unwrap_or_default();
        self.levels.push((folder.to_owned(), Ignore::new(&text)));
        let mut folders = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
            let entry = entry.map_err(|error| unreadable(folder, &error))?;
            let path = entry.path();
            let kind = entry
                .file_type()
                .map_err(|error| unreadable(&path, &error))?;
            // A link to a folder is not followed, it may lead back.
            if kind.is_dir() {
                let hidden = entry.file_name().to_string_lossy().starts_with('.');
                if !hidden && !self.leaves_out(&path, true) && !self.is_data(&path) {
                    folders.push(path);
                }
            } else if may_be_one(&path)
                && path.is_file()
                && !self.leaves_out(&path, false)
                && is_workflow(&path)?
            {
                let plain = path.strip_prefix("./").map(Path::to_owned);
                self.found.push(plain.unwrap_or(path));
            }
            if self.found.len() > limits::DEPLOY {
                let message = format!(
                    "`{}` holds more than {} workflow files",
                    folder.display(),
                    words::grouped(limits::DEPLOY as u64)
                );
                return Err(Error::new(ErrorCode::LimitReached, message)
                    .hint("deploy it in parts, or name some in `.kapellignore`"));
            }
        }
        for inner in folders {
            self.folder(&inner)?;
        }
        self.levels.pop();
        Ok(())
    }

    fn leaves_out(&self, path: &Path, is_folder: bool) -> bool {
        self.levels.iter().any(|(folder, ignore)| {
            let below = path.strip_prefix(folder).unwrap_or(path);
            ignore.leaves_out(&below.to_string_lossy(), is_folder)
        })
    }

    fn is_data(&self, path: &Path) -> bool {
        self.data_dir.is_some() && fs::canonicalize(path).ok() == self.data_dir
    }
}

/// True for a file whose top level has the key `workflow`, and for one that has mistakes and speaks of a
/// workflow: those are told when it is read.
fn is_workflow(file: &Path) -> Result<bool, Error> {
    let data = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
    if data.len() > limits::DEFINITION_BYTES as u64 {
        if !speaks_of_one(file).map_err(|error| unreadable(file, &error))? {
            return Ok(false);
        }
        let message = format!(
            "`{}` speaks of a workflow and has {}; a workflow file has at most {}",
            file.display(),
            words::bytes(data.len()),
            words::bytes(limits::DEFINITION_BYTES as u64)
        );
        return Err(Error::new(ErrorCode::LimitReached, message).hint(NONE_OF_OURS));
    }
    let bytes = fs::read(file).map_err(|error| unreadable(file, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match top_level(&text) {
            Some(keys) => keys.iter().any(|key| &**key == "workflow"),
            None => mentions_workflow(&text),
        }),
        Err(error) if mentions_workflow(&String::from_utf8_lossy(error.as_bytes())) => {
            let message = format!("`{}` speaks of a workflow and is not UTF-8", file.display());
            Err(Error::new(ErrorCode::BadDefinition, message)
                .hint(format!("save it as UTF-8; {NONE_OF_OURS}")))
        }
        Err(_) => Ok(false),
    }
}

fn speaks_of_one(file: &Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let mut window = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(false);
        }
        window.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if mentions_workflow(&String::from_utf8_lossy(&window)) {
            return Ok(true);
        }
        window.drain(..window.len().saturating_sub(OVERLAP));
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let message = format!("`{}` cannot be read: {error}", path.display());
    Error::new(ErrorCode::FileNotFound, message).hint(format!(
        "nothing was deployed, since it may be a workflow; {NONE_OF_OURS}"
    ))
}
