//! Addresses of a host that was typed.
//!
//! A static binary has no system resolver to ask, so names go to the servers of `/etc/resolv.conf` by way of hickory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;

/// A name that has no address for us.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no usable DNS configuration.
    #[error("{name} cannot be looked up, for there is no usable DNS configuration: {cause}")]
    NoResolver {
        /// The name.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
    /// DNS has no address of it.
    #[error("{0} has no address in DNS")]
    NoAddress(String),
    /// DNS could not be asked.
    #[error("{name} could not be looked up: {cause}")]
    Failed {
        /// The name.
        name: String,
        /// What failed.
        cause: String,
    },
}

/// The addresses of an IP address, of `localhost` or of a name; never empty, IPv4 first.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if bare.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let name = bare.to_owned();
    let resolver =
        TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(error) => {
            return Err(ResolveError::NoResolver {
                name,
                cause: error.to_string(),
            });
        }
    };
    match resolver.lookup_ip(bare).await {
        Ok(found) => {
            let mut addresses: Vec<IpAddr> = found.iter().collect();
            addresses.sort();
            addresses.dedup();
            if addresses.is_empty() {
                Err(ResolveError::NoAddress(name))
            } else {
                Ok(addresses)
            }
        }
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => {
            Err(ResolveError::NoAddress(name))
        }
        Err(error) => Err(ResolveError::Failed {
            name,
            cause: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_addresses_as_they_stand_and_knows_localhost() {
        for (host, first) in [
            ("127.0.0.9", "127.0.0.9"),
            ("[::1]", "::1"),
            ("LOCALHOST", "127.0.0.1"),
        ] {
            assert_eq!(
                addresses(host).await.unwrap()[0],
                first.parse::<IpAddr>().unwrap()
            );
        }
    }
}
