//! Runs by the end of their id, as people type it.

use kapell_model::RunId;

/// How many runs are looked at for a suffix: the newest ones, which are those that people ask for.
/// An index over the ends of ids would cost a scattered page write for every run that is made.
pub(crate) const NEWEST_SEARCHED: usize = 100_000;

/// The end of a run id.
pub(crate) enum Suffix {
    /// All 26 characters.
    Whole(RunId),
    /// The lowest bits.
    Bits {
        /// Which bits are given.
        mask: u128,
        /// Their values.
        value: u128,
    },
}

impl Suffix {
    /// Reads it, in either case; `None` if no id can end so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() >= 26 {
            return text.parse().ok().map(Self::Whole);
        }
        // Padded with zeros it is the id that has only these characters.
        let padded: RunId = format!("{text:0>26}").parse().ok()?;
        let bits = u32::try_from(text.len() * 5).ok()?;
        Some(Self::Bits {
            mask: (1 << bits) - 1,
            value: padded.0,
        })
    }

    /// True if the id ends so.
    pub(crate) fn matches(&self, id: RunId) -> bool {
        match self {
            Self::Whole(whole) => *whole == id,
            Self::Bits { mask, value } => id.0 & mask == *value,
        }
    }
}
