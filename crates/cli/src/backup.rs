//! `kapell backup` and `kapell restore`

use kapell_node::clock;
use kapell_server::backup::{self, Copied};

use crate::args::{Backup, Restore};
use crate::config::Config;
use crate::printer::Printer;
use crate::{Ended, Exit, words};

pub(crate) fn backup(backup: &Backup, config: &Config, printer: &mut Printer) -> Ended {
    let logs = !backup.without_logs;
    let copied = backup::write(&config.data_dir, &backup.file, logs, clock::now())?;
    printer.plain(format!(
        "`{}` holds the store and {}",
        backup.file.display(),
        said(copied)
    ))?;
    printer.plain("the key of secrets is not in it: keep that apart")?;
    Ok(Exit::Success)
}

pub(crate) fn restore(restore: &Restore, config: &Config, printer: &mut Printer) -> Ended {
    let copied = backup::restore(&restore.file, &config.data_dir)?;
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
