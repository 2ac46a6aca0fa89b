//! `kapell backup` and `kapell restore`

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kapell_api::client::{Client, HttpServer, Target};
use kapell_model::{Error, ErrorCode};
use kapell_node::clock;
use kapell_server::backup::{self, Copied};
use serde::Serialize;

use crate::args::{Backup, Restore};
use crate::config::Config;
use crate::printer::Printer;
use crate::{Ended, Exit, words};

/// What was done, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    file: &'a Path,
    #[serde(flatten)]
    copied: Copied,
}

pub(crate) fn backup(backup: &Backup, config: &Config, printer: &mut Printer) -> Ended {
    let logs = !backup.without_logs;
    let copied = match config.server()? {
        Some(server) => fetch(server, &backup.file, logs)?,
        None if config.store.is_some() => return Err(backup::of_postgres()),
        None => backup::write(&config.data_dir, &backup.file, logs, clock::now())?,
    };
    if backup.json {
        printer.json(&Done {
            file: &backup.file,
            copied,
        })?;
        return Ok(Exit::Success);
    }
    printer.plain(format!(
        "`{}` holds the store and {}",
        backup.file.display(),
        said(copied)
    ))?;
    printer.plain("the key of secrets is not in it: keep that apart")?;
    Ok(Exit::Success)
}

/// Takes a backup from a server. It has its name once it is whole.
fn fetch(server: HttpServer, to: &Path, logs: bool) -> Result<Copied, Error> {
    let unwritten = |path: &Path, error: &std::io::Error| {
        let message = format!("`{}` cannot be written: {error}", path.display());
        Error::new(ErrorCode::BadRequest, message).hint("choose another name")
    };
    if to.exists() {
        let message = format!("the file `{}` is there already", to.display());
        return Err(Error::new(ErrorCode::BadRequest, message).hint("choose another name"));
    }
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(&new)
        .map_err(|error| unwritten(&new, &error))?;
    let client = Client::to(Target::Http(Box::new(server)))?;
    let fetched = client.backup(logs, &mut file).and_then(|_| {
        file.sync_all().map_err(|error| unwritten(&new, &error))?;
        let copied = backup::count(&new)?;
        fs::rename(&new, to).map_err(|error| unwritten(to, &error))?;
        Ok(copied)
    });
    if fetched.is_err() {
        // What is left of it is of no use.
        let _ = fs::remove_file(&new);
    }
    fetched
}

pub(crate) fn restore(restore: &Restore, config: &Config, printer: &mut Printer) -> Ended {
    if let Some(server) = config.server()? {
        let message = format!(
            "the server at {} cannot be restored from here",
            server.url()
        );
        return Err(Error::new(ErrorCode::BadRequest, message).hint(
            "on its machine, restore into a new folder with `--data-dir` and start it there; leave out `--server` and KAPELL_SERVER",
        ));
    }
    let copied = backup::restore(&restore.file, &config.data_dir)?;
    if restore.json {
        printer.json(&Done {
            file: &restore.file,
            copied,
        })?;
        return Ok(Exit::Success);
    }
    printer.plain(format!(
        "`{}` has the store and {}, all of it checked",
        config.data_dir.display(),
        said(copied)
    ))?;
    printer.plain("secrets need their key: put `secret.key` there before you work with them")?;
    Ok(Exit::Success)
}

fn said(copied: Copied) -> String {
    format!(
        "{}, {}: {}",
        words::count(copied.blobs, "blob"),
        words::count(copied.logs, "log"),
        words::bytes(copied.bytes)
    )
}
