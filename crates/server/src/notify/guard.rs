//! Where notices may lead: as `http` steps, not to what is only reachable from this machine.
//!
//! A workflow may name an address as a channel, so whoever writes one chooses it. What is checked is the
//! address that is connected to, so a name that changes what it means gains nothing. Behind a proxy names
//! are the proxy's to resolve.

use std::fmt;
use std::net::IpAddr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::Allowed;

/// An address that may not be reached.
#[derive(Debug)]
pub(super) struct Refused(IpAddr);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0;
        write!(
            f,
            "{address} may not be reached: `http.allow` of the configuration can allow it"
        )
    }
}

impl std::error::Error for Refused {}

/// Resolves names to addresses that may be reached.
pub(super) struct Guarded {
    pub(super) allowed: Allowed,
    pub(super) inner: DefaultResolver,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
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
        // One address that may not be reached is reason enough: a name that has both is a trap.
        match found.iter().find(|found| !(self.allowed)(found.ip())) {
            None => Ok(found),
            Some(address) => Err(ureq::Error::Other(Box::new(Refused(address.ip())))),
        }
    }
}
