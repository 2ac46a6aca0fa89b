//! Identities: of runs, of the other entities, of shards and of offers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Time;

/// How many shards entities hash into, in every store, for ever.
pub const SHARDS: u16 = 4096;

/// A unit of ownership, below [`SHARDS`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a name: FNV-1a of its bytes, so it is the same everywhere and for ever.
    pub fn of(name: &[u8]) -> Self {
        Self::of_parts(&[name])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let bytes = parts.iter().copied().flatten();
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(u16::try_from((hash ^ hash >> 32) % u64::from(SHARDS)).unwrap_or(0))
    }

    /// The shard of a workflow: its runs, its run queue, its triggers and backfills and the topics that
    /// tell how its runs end live there, so that what they decide on each other is decided at one place.
    pub fn of_workflow(namespace: &str, workflow: &str) -> Self {
        // As `joined` has it.
        Self::of_parts(&[&[2], namespace.as_bytes(), &[0], workflow.as_bytes()])
    }
}

/// What topics that tell how runs of a workflow ended begin with: `workflow.NAME.succeeded`.
pub const FINISHED: &str = "workflow.";

/// A run: 48 bits of milliseconds since 1970, 12 bits of shard, 68 bits that make it unique. As text
/// 26 characters of Crockford's base 32 in lower case, which sort as the runs were made.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u128);

const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const UNIQUE_BITS: u32 = 68;

impl RunId {
    /// The id of a run made at `at` in `shard`; `unique` gives its lowest 68 bits.
    pub fn new(at: Time, shard: Shard, unique: u128) -> Self {
        let millis = u128::from(u64::try_from(at.0 / 1000).unwrap_or(0)) & ((1 << 48) - 1);
        let unique = unique & ((1 << UNIQUE_BITS) - 1);
        Self(millis << 80 | u128::from(shard.0 % SHARDS) << UNIQUE_BITS | unique)
    }

    /// The shard the run lives in.
    pub fn shard(self) -> Shard {
        Shard(u16::try_from(self.0 >> UNIQUE_BITS & u128::from(SHARDS - 1)).unwrap_or(0))
    }

    /// Big-endian bytes: the form in the store, which sorts like the id.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads [`RunId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..26).rev() {
            let digit = usize::try_from(self.0 >> (5 * place) & 31).unwrap_or(0);
            fmt::Write::write_char(f, char::from(ID_ALPHABET[digit]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a run id: expected 26 letters and digits");
        if text.len() != 26 {
            return Err(bad());
        }
        text.bytes()
            .try_fold(0_u128, |id, byte| {
                let digit = ID_ALPHABET
                    .iter()
                    .position(|c| *c == byte.to_ascii_lowercase())?;
                id.checked_mul(32)?.checked_add(u128::try_from(digit).ok()?)
            })
            .map(Self)
            .ok_or_else(bad)
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self::from_bytes)
        }
    }
}

/// The name of one grant of one attempt, unique without being stored: results that name another
/// offer than the one held are refused. Offers of a later owner are greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Offer {
    /// The epoch of the owner that granted it.
    pub epoch: u64,
    /// Counts up within the epoch.
    pub counter: u64,
}

/// A node of a cluster, from the start of its process to its end. As text 16 hexadecimal digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A worker's session: what it says and holds between its start and its end. As text 16 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Some(text)
            .filter(|text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a session: expected 16 hexadecimal digits"))
    }
}

/// Anything that must be remembered: the unit of the one mechanism.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntityKey {
    /// One execution of a workflow.
    Run(RunId),
    /// The queue of a workflow's starts under a strategy; `key` is the value of `strategy.key`, or
    /// empty.
    RunQueue {
        /// Namespace of the workflow.
        namespace: Arc<str>,
        /// Name of the workflow.
        workflow: Arc<str>,
        /// The rendered `strategy.key`, or empty.
        key: Arc<str>,
    },
    /// A named lock or rate.
    Lock {
        /// Namespace of the name.
        namespace: Arc<str>,
        /// The rendered name.
        name: Arc<str>,
    },
    /// What starts runs of a workflow by itself.
    Trigger {
        /// Namespace of the workflow.
        namespace: Arc<str>,
        /// Name of the workflow.
        workflow: Arc<str>,
        /// Name of the trigger.
        name: Arc<str>,
    },
    /// The signals of one name.
    Topic {
        /// Namespace of the name.
        namespace: Arc<str>,
        /// The signals' name.
        name: Arc<str>,
    },
    /// Due times of a schedule that are made up for on request.
    Backfill {
        /// Namespace of the workflow.
        namespace: Arc<str>,
        /// Name of the workflow.
        workflow: Arc<str>,
        /// Unique in the workflow.
        id: Arc<str>,
    },
    /// What is to be told at one place, and is not yet.
    Channel {
        /// Namespace of those who tell.
        namespace: Arc<str>,
        /// A channel of the server's settings, or an address.
        name: Arc<str>,
    },
}

/// By kind, then by names. Nearly all comparisons are of runs: what is looked up most is found in a map of these.
impl Ord for EntityKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Run(one), Self::Run(two)) => one.cmp(two),
            _ => self.named().cmp(&other.named()),
        }
    }
}

impl PartialOrd for EntityKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl EntityKey {
    /// Its kind and its names, as they are stored; a run has none.
    fn named(&self) -> (u8, &str, &str, &str) {
        match self {
            Self::Run(_) => (1, "", "", ""),
            Self::RunQueue {
                namespace,
                workflow,
                key,
            } => (2, namespace, workflow, key),
            Self::Lock { namespace, name } => (3, namespace, name, ""),
            Self::Trigger {
                namespace,
                workflow,
                name,
            } => (4, namespace, workflow, name),
            Self::Topic { namespace, name } => (5, namespace, name, ""),
            Self::Backfill {
                namespace,
                workflow,
                id,
            } => (6, namespace, workflow, id),
            Self::Channel { namespace, name } => (7, namespace, name, ""),
        }
    }

    /// The key in the store: a kind byte, then the names with a zero byte between them. Runs sort
    /// by time. Names never hold a zero byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Self::Run(id) = self {
            return [&[1_u8][..], &id.to_bytes()].concat();
        }
        let (kind, first, second, third) = self.named();
        let names = [first, second, third];
        joined(kind, &names[..names_of(kind)])
    }

    /// Reads [`EntityKey::to_bytes`]; `None` if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == 1 {
            return rest
                .try_into()
                .ok()
                .map(|id| Self::Run(RunId::from_bytes(id)));
        }
        let mut names = rest
            .splitn(names_of(*kind), |byte| *byte == 0)
            .map(|name| std::str::from_utf8(name).ok().map(Arc::<str>::from));
        match kind {
            2 => Some(Self::RunQueue {
                namespace: names.next()??,
                workflow: names.next()??,
                key: names.next()??,
            }),
            3 => Some(Self::Lock {
                namespace: names.next()??,
                name: names.next()??,
            }),
            4 => Some(Self::Trigger {
                namespace: names.next()??,
                workflow: names.next()??,
                name: names.next()??,
            }),
            5 => Some(Self::Topic {
                namespace: names.next()??,
                name: names.next()??,
            }),
            6 => Some(Self::Backfill {
                namespace: names.next()??,
                workflow: names.next()??,
                id: names.next()??,
            }),
            7 => Some(Self::Channel {
                namespace: names.next()??,
                name: names.next()??,
            }),
            _ => None,
        }
    }

    /// The shard it lives in.
    pub fn shard(&self) -> Shard {
        match self {
            Self::Run(id) => id.shard(),
            Self::RunQueue {
                namespace,
                workflow,
                ..
            }
            | Self::Trigger {
                namespace,
                workflow,
                ..
            }
            | Self::Backfill {
                namespace,
                workflow,
                ..
            } => Shard::of_workflow(namespace, workflow),
            Self::Topic { namespace, name } => match finished_workflow(name) {
                Some(workflow) => Shard::of_workflow(namespace, workflow),
                None => Shard::of(&self.to_bytes()),
            },
            Self::Lock { .. } | Self::Channel { .. } => Shard::of(&self.to_bytes()),
        }
    }
}

/// The workflow whose runs' ends a topic tells, if it is such a topic.
fn finished_workflow(topic: &str) -> Option<&str> {
    let (workflow, _how) = topic.strip_prefix(FINISHED)?.rsplit_once('.')?;
    Some(workflow)
}

/// How many names a key of this kind has.
fn names_of(kind: u8) -> usize {
    if matches!(kind, 3 | 5 | 7) { 2 } else { 3 }
}

/// A kind, then names with a zero byte between them.
fn joined(kind: u8, names: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            bytes.push(0);
        }
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

impl From<RunId> for EntityKey {
    fn from(id: RunId) -> Self {
        Self::Run(id)
    }
}
