//! What an operator says of the order in which work is granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_engine::run::room::Quota;

/// Who is first among runs whose work has the same priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Namespaces share by weight; in each, its runs share.
    #[default]
    Fair,
    /// Runs take turns, whosever they are.
    RoundRobin,
    /// The oldest run.
    Age,
}

/// The order in which work is granted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is first within a priority.
    pub order: Order,
    /// Shares of namespaces under [`Order::Fair`]; 1 where nothing is said.
    pub weights: BTreeMap<Arc<str>, u32>,
    /// What namespaces may have in flight.
    pub quotas: BTreeMap<Arc<str>, Quota>,
    /// Work that waits and has none granted rises by one priority each time that long, in
    /// microseconds. 0: never.
    pub aging_micros: i64,
}

impl Settings {
    /// The share of a namespace.
    pub(super) fn weight(&self, namespace: &str) -> u32 {
        self.weights.get(namespace).copied().unwrap_or(1)
    }
}

/// Time after which work rises by one priority, where nothing is said: from the default priority to the
/// highest in 50 minutes.
const AGING_MICROS: i64 = 60_000_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: Order::default(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
            aging_micros: AGING_MICROS,
        }
    }
}
