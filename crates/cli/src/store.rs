//! `kapell store`: where the store is, and moving it.

use kapell_model::{Error, ErrorCode};
use kapell_server::stores::{self, StoreStatus};
use serde_json::json;

use crate::args::{Store, StoreMove, StoreShow};
use crate::config::Config;
use crate::paint::{DIM, Line};
use crate::printer::Printer;
use crate::{Ended, Exit, words};

pub(crate) fn store(command: &Store, config: &Config, printer: &mut Printer) -> Ended {
    if let Some(server) = config.server()? {
        let message = format!(
            "the store of the server at {} is not reached from here",
            server.url()
        );
        return Err(Error::new(ErrorCode::BadRequest, message)
            .hint("on its machine, leave out `--server` and KAPELL_SERVER"));
    }
    match command {
        Store::Status(show) => status(show, config, printer),
        Store::Migrate(show) => migrate(show, config, printer),
        Store::Move(to) => move_to(to, config, printer),
    }
}

fn status(show: &StoreShow, config: &Config, printer: &mut Printer) -> Ended {
    let found = stores::status(&config.data_dir, config.store.as_deref())?;
    if show.json {
        printer.json(&found)?;
        return Ok(Exit::Success);
    }
    printer.plain(said(&found))?;
    printer.plain(match found.applied {
        0 => "there is nothing in it yet".to_owned(),
        applied if applied < found.known => format!(
            "schema {applied}; this Kapell brings it to {} when it opens it",
            found.known
        ),
        applied => format!(
            "schema {applied}, up to date; {}, and {} of blobs",
            words::bytes(found.bytes),
            words::bytes(found.blobs)
        ),
    })?;
    Ok(Exit::Success)
}

fn migrate(show: &StoreShow, config: &Config, printer: &mut Printer) -> Ended {
    let before = stores::migrate(&config.data_dir, config.store.as_deref())?;
    if show.json {
        printer.json(&json!({"from": before.applied, "to": before.known}))?;
        return Ok(Exit::Success);
    }
    printer.plain(said(&before))?;
    printer.plain(if before.applied == before.known {
        format!("schema {}, as it was", before.known)
    } else {
        format!("schema {} now; it was {}", before.known, before.applied)
    })?;
    Ok(Exit::Success)
}

fn move_to(to: &StoreMove, config: &Config, printer: &mut Printer) -> Ended {
    let ([database, blobs], moved) = stores::move_to(&config.data_dir, &to.to, |table| {
        if !to.json {
            printer.notes(&[Line::default().with(DIM, format!("moving {table}"))]);
        }
    })?;
    if to.json {
        printer.json(&json!({"tables": moved, "kept": database, "kept_blobs": blobs}))?;
        return Ok(Exit::Success);
    }
    for of in moved.iter().filter(|of| of.rows > 0) {
        printer.plain(format!("{:>12}  {}", words::grouped(of.rows), of.table))?;
    }
    printer.plain("all of it was compared, and is the same")?;
    printer.plain(format!(
        "what there was is `{database}` and `{blobs}` in the data directory; from now on name the new store by \
         `--store` or KAPELL_STORE"
    ))?;
    Ok(Exit::Success)
}

fn said(found: &StoreStatus) -> String {
    match &found.server {
        Some(version) => format!("PostgreSQL {version}: {}", found.place),
        None => format!("SQLite in the data directory `{}`", found.place),
    }
}
