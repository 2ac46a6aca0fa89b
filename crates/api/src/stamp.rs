//! Instants on the wire: RFC 3339 text, in UTC.

use jiff::Timestamp;
use kapell_model::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde calls"
)]
pub(crate) fn serialize<S: Serializer>(at: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.timestamp())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text)
}

fn read<E: de::Error>(text: &str) -> Result<Time, E> {
    let at = text.parse::<Timestamp>().map(Time::from);
    at.map_err(|_| {
        E::custom(format!(
            "`{text}` is no instant with its zone, such as `2026-03-29T02:30:00Z`"
        ))
    })
}

/// The same for an instant that may be missing.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Time};

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(crate) fn serialize<S: Serializer>(
        at: &Option<Time>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(|at| at.timestamp().to_string())
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Time>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| super::read(&text)).transpose()
    }
}
