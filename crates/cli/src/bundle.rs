//! The files that go with a workflow: its folder, less what `.kapellignore` leaves out and less workflow
//! files, its own among them: steps read none of those, and each would make a version of all beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kapell_api::client::Api;
use kapell_api::task::{Bundle, BundleFile};
use kapell_expr::BlobRef;
use kapell_model::{Error, ErrorCode, limits};

use crate::ignore::Ignore;
use crate::{definition, words};

/// A file that belongs to a bundle.
struct Found {
    /// Below the folder, with `/`.
    path: String,
    file: PathBuf,
    executable: bool,
}

/// Keeps the files of a folder and the list of them, in an order that depends on their paths alone.
pub(crate) fn store(folder: &Path, data_dir: &Path, api: &dyn Api) -> Result<BlobRef, Error> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let text = fs::read_to_string(folder.join(".kapellignore")).unwrap_or_default();
    let mut walk = Walk {
        root: folder,
        ignore: Ignore::new(&text),
        data_dir: fs::canonicalize(data_dir).ok(),
        found: Vec::new(),
        bytes: 0,
    };
    walk.folder(folder, "")?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    let mut bundle = Bundle::default();
    for found in walk.found {
        let blob = api.put_file(&found.file)?;
        bundle.files.push(BundleFile {
            path: found.path,
            blob,
            executable: found.executable,
        });
    }
    let list = serde_json::to_vec(&bundle)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    api.put(&list)
}

struct Walk<'a> {
    root: &'a Path,
    ignore: Ignore,
    data_dir: Option<PathBuf>,
    found: Vec<Found>,
    bytes: u64,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Error> {
        let cannot = |path: &Path, error: &std::io::Error| {
            Error::new(
                ErrorCode::FileNotFound,
                format!("`{}` cannot be read: {error}", path.display()),
            )
            .hint("files beside the workflow go with it; leave some out with `.kapellignore`")
        };
        for entry in fs::read_dir(folder).map_err(|error| cannot(folder, &error))? {
            let entry = entry.map_err(|error| cannot(folder, &error))?;
            let file = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::new(
                    ErrorCode::BadRequest,
                    format!("the name of `{}` is not text", file.display()),
                )
                .hint("rename it, or leave it out with `.kapellignore`"));
            };
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            // A link to a file counts as the file; one to a folder is not followed, it may lead back.
            let Ok(data) = fs::metadata(&file) else {
                continue;
            };
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if self.ignore.leaves_out(&path, data.is_dir()) || (is_link && data.is_dir()) {
                continue;
            }
            if data.is_dir() {
                if self.data_dir.is_none() || fs::canonicalize(&file).ok() != self.data_dir {
                    self.folder(&file, &path)?;
                }
            } else if data.is_file() && !self.is_workflow(&path, &file, &data) {
                self.file(path, file, &data)?;
            }
        }
        Ok(())
    }

    /// True for a workflow file that `.kapellignore` does not take back.
    fn is_workflow(&self, path: &str, file: &Path, data: &fs::Metadata) -> bool {
        definition::may_be_one(file)
            && data.len() <= limits::DEFINITION_BYTES as u64
            && fs::read_to_string(file).is_ok_and(|text| {
                // Data may be long, and is read through at each run.
                if !kapell_model::mentions_workflow(&text) {
                    return false;
                }
                let keys = kapell_model::top_level(&text).unwrap_or_default();
                ["workflow", "steps"]
                    .iter()
                    .all(|wanted| keys.iter().any(|key| **key == **wanted))
            })
            && !self.ignore.takes_back(path)
    }

    fn file(&mut self, path: String, file: PathBuf, data: &fs::Metadata) -> Result<(), Error> {
        self.bytes += data.len();
        self.found.push(Found {
            path,
            file,
            executable: data.permissions().mode() & 0o111 != 0,
        });
        let what = if self.found.len() > limits::BUNDLE_FILES {
            format!(
                "more than {} files",
                words::grouped(limits::BUNDLE_FILES as u64)
            )
        } else if self.bytes > limits::BUNDLE_BYTES {
            format!("more than {}", words::bytes(limits::BUNDLE_BYTES))
        } else {
            return Ok(());
        };
        let folder = fs::canonicalize(self.root).unwrap_or_else(|_| self.root.to_owned());
        Err(Error::new(ErrorCode::LimitReached, format!("the folder `{}` holds {what}", folder.display()))
            .hint("it goes with the workflow as a whole: name what is not needed in `.kapellignore`, or give the workflow a folder of its own"))
    }
}
