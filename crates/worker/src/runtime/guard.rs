//! Which addresses `http` steps may reach.
//!
//! A workflow's author chooses the address, and whoever gives it parameters may choose too. So what is
//! only reachable from this machine, and gives credentials away for the asking, is refused: link-local
//! addresses, where clouds keep their metadata, and the other places where some do. What is checked is
//! the address that is connected to, at each redirect again: a name that changes what it means between
//! a look and a connection gains nothing. Behind a proxy names are the proxy's to resolve, and only
//! addresses that stand in the URL itself are checked here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Refused unless allowed: what stands for no host or many, link-local, and where clouds keep metadata.
const REFUSED: [&str; 12] = [
    "0.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "ff00::/8",
];

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// True if the address lies in it.
    pub fn has(self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let shift = width - self.bits;
            shift >= width || one >> shift == other >> shift
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(own.to_bits().into(), other.to_bits().into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no network: expected as 10.0.0.0/8 or an address");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.trim().parse().map_err(|_| bad())?,
            None => width,
        };
        if bits > width {
            return Err(bad());
        }
        Ok(Self { address, bits })
    }
}

/// What `http` steps may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRules {
    /// May be reached whatever else is said.
    pub allow: Vec<Network>,
    /// May not be reached, besides what is refused anyway.
    pub deny: Vec<Network>,
}

impl HttpRules {
    /// True if an address may be reached. One that holds another, as those of IPv4 in IPv6, counts as
    /// both.
    pub fn allow(&self, address: IpAddr) -> bool {
        let inner = inner(address);
        let all = || [Some(address), inner].into_iter().flatten();
        let one_of = |networks: &[Network]| {
            networks
                .iter()
                .any(|network| all().any(|address| network.has(address)))
        };
        one_of(&self.allow) || !(one_of(&self.deny) || one_of(&refused()))
    }

    /// True if a URL names no address that may not be reached. Names are not resolved.
    pub(crate) fn allow_host(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.parse().map_or(true, |address| self.allow(address))
    }
}

fn refused() -> Vec<Network> {
    // All of them parse, a test says.
    REFUSED
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, of NAT64, of 6to4.
fn inner(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let parts = address.segments();
    let of = |high: u16, low: u16| {
        let bits = u32::from(high) << 16 | u32::from(low);
        Some(IpAddr::V4(Ipv4Addr::from_bits(bits)))
    };
    match parts {
        // `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            of(high, low)
        }
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// An address that may not be reached.
#[derive(Debug)]
pub(crate) struct Refused {
    host: String,
    address: Option<IpAddr>,
}

impl Refused {
    pub(crate) fn host(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            address: None,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.host)?;
        if let Some(address) = self
            .address
            .filter(|address| self.host != address.to_string())
        {
            write!(f, " is {address}, which")?;
        }
        write!(
            f,
            " may not be reached by `http` steps: `http.allow` of the configuration can allow it"
        )
    }
}

impl std::error::Error for Refused {}

/// Resolves names to addresses that may be reached.
#[derive(Debug)]
pub(crate) struct Guarded {
    rules: Arc<HttpRules>,
    inner: DefaultResolver,
}

impl Guarded {
    pub(crate) fn new(rules: Arc<HttpRules>) -> Self {
        Self {
            rules,
            inner: DefaultResolver::default(),
        }
    }
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        let mut last = None;
        for address in &found {
            if self.rules.allow(address.ip()) {
                allowed.push(*address);
            } else {
                last = Some(address.ip());
            }
        }
        // One address that may not be reached is reason enough: a name that has both is a trap.
        match last {
            None => Ok(allowed),
            Some(address) => Err(ureq::Error::Other(Box::new(Refused {
                host: uri.host().unwrap_or_default().to_owned(),
                address: Some(address),
            }))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> HttpRules {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        HttpRules {
            allow: all(allow),
            deny: all(deny),
        }
    }

    #[test]
    fn places_of_metadata_are_refused_however_they_are_written() {
        assert_eq!(refused().len(), REFUSED.len(), "all of them are networks");
        let rules = HttpRules::default();
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!rules.allow(bad.parse().unwrap()), "{bad}");
            assert!(!rules.allow_host(bad), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.1.2.3",
            "8.8.8.8",
            "::1",
            "2001:db8::1",
            "fd00::1",
        ] {
            assert!(rules.allow(good.parse().unwrap()), "{good}");
        }
        assert!(rules.allow_host("example.org") && !rules.allow_host("[fe80::1]"));
    }

    #[test]
    fn the_configuration_allows_and_refuses_more() {
        let rules = rules(&["169.254.169.254"], &["10.0.0.0/8", "::1", "0.0.0.0/0"]);
        let allows = |text: &str| rules.allow(text.parse().unwrap());
        assert!(allows("169.254.169.254"));
        assert!(!allows("169.254.169.253"));
        assert!(!allows("10.255.0.1") && !allows("::1") && !allows("8.8.8.8"));
        assert!(!allows("::ffff:10.0.0.1"));
        assert!(allows("2001:db8::1"));
    }

    #[test]
    fn what_is_no_network_is_said() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
            "example.org",
        ] {
            bad.parse::<Network>().unwrap_err();
        }
        let all: Network = "::/0".parse().unwrap();
        assert!(all.has(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert!(!all.has(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
