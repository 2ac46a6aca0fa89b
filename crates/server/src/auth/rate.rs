//! How fast one client may ask: for each the time at which all that it asked would have been due, had it
//! come evenly spaced. A burst of a second's worth is let through.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kapell_model::{Time, limits};
use parking_lot::Mutex;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Those with a token.
    Token(Arc<str>),
    /// Those without, from an address.
    Address(IpAddr),
}

impl Client {
    /// Of an address; of IPv6 the network that one customer gets.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(six) => match six.to_ipv4_mapped() {
                Some(four) => four.into(),
                None => std::net::Ipv6Addr::from(u128::from(six) >> 64 << 64).into(),
            },
        })
    }
}

/// Nanoseconds of a second: how long a burst may be.
const BURST: i64 = 1_000_000_000;

/// The rates of all clients.
pub(crate) struct Rates {
    /// Nanoseconds between two requests.
    interval: i64,
    /// When the next request of each would be due.
    due: Mutex<HashMap<Client, i64>>,
}

impl Rates {
    /// So many requests a second.
    pub(crate) fn new(a_second: u32) -> Self {
        Self {
            interval: BURST / i64::from(a_second.max(1)),
            due: Mutex::default(),
        }
    }

    /// Counts a request that weighs as much as `weight` ordinary ones; how long to wait if there were too
    /// many.
    pub(crate) fn take(&self, client: Client, weight: u32, now: Time) -> Result<(), Duration> {
        let now = now.0.saturating_mul(1_000);
        let mut all = self.due.lock();
        if all.len() >= limits::RATED_CLIENTS && !all.contains_key(&client) {
            all.retain(|_, due| *due > now);
            if all.len() >= limits::RATED_CLIENTS {
                // So many at once can only be an attack: nobody new gets in for a moment.
                return Err(Duration::from_secs(1));
            }
        }
        let due = all.entry(client).or_insert(now);
        if *due > now + BURST {
            // The clock was set back.
            *due = now;
        }
        let next = now.max(*due) + self.interval * i64::from(weight);
        // One alone gets through, however much it weighs.
        if *due > now && next - now > BURST {
            let wait = u64::try_from(next - now - BURST).unwrap_or(0);
            return Err(Duration::from_nanos(wait));
        }
        *due = next.min(now + BURST);
        Ok(())
    }
}
