//! `kapell schema`

use crate::printer::Printer;
use crate::{Ended, Exit};

pub(crate) fn schema(printer: &mut Printer) -> Ended {
    printer.json(&kapell_model::json_schema())?;
    Ok(Exit::Success)
}
