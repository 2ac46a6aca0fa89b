//! Steps of a schema: numbered, forward only, the same numbers in each dialect.

use crate::{Error, Result};

/// Its number and what it does. One that was released never changes: its hash is recorded.
pub(crate) type Step = (u32, &'static str);

/// The number of the last of these steps that was applied, by what is recorded; 0 for none.
///
/// # Errors
/// [`Error::TooNew`] if there are steps that are not known, [`Error::Corrupt`] if there are others.
pub(crate) fn applied(recorded: &[(u32, String)], steps: &[(u32, &str)]) -> Result<u32> {
    let known = steps.last().map_or(0, |(number, _)| *number);
    if let Some((found, _)) = recorded.last().filter(|(found, _)| *found > known) {
        return Err(Error::TooNew {
            found: *found,
            known,
        });
    }
    for (row, (number, sql)) in recorded.iter().zip(steps) {
        if *row != (*number, hash(sql)) {
            return Err(Error::Corrupt(format!(
                "step {number} of the schema is not the one this Kapell knows"
            )));
        }
    }
    Ok(recorded.last().map_or(0, |(number, _)| *number))
}

/// What is recorded of a step.
pub(crate) fn hash(sql: &str) -> String {
    blake3::hash(sql.as_bytes()).to_hex().to_string()
}
