//! Which address a pod advertises (DESIGN §3, Addresses).

use std::net::IpAddr;

use crate::gateway::Exposure;
use crate::object::NodeAddresses;

/// The address that peers outside are told: the one of `exposure.addresses` if there is exactly one, else under `HostNetwork` the node's
/// annotation, `ExternalIP` or `InternalIP`, else the pod's own. `None` if nothing of this is known yet.
pub fn advertised(
    exposure: &Exposure,
    node: Option<&NodeAddresses>,
    pod: Option<IpAddr>,
) -> Option<IpAddr> {
    if let [only] = exposure.addresses[..] {
        return Some(only);
    }
    let of_node = node.filter(|_| exposure.host_network).and_then(of_node);
    of_node.or(pod)
}

/// The address by which the outside reaches a node.
pub fn of_node(node: &NodeAddresses) -> Option<IpAddr> {
    node.annotated
        .or(node.external)
        .or_else(|| node.internal.first().copied())
}

/// Whether an address leads to us only from near by: private use (RFC 1918, RFC 4193), behind a carrier's NAT (RFC 6598), or of one
/// link.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node() -> NodeAddresses {
        NodeAddresses {
            annotated: Some(ip("203.0.113.1")),
            external: Some(ip("203.0.113.2")),
            internal: vec![ip("10.0.0.3")],
        }
    }

    #[test]
    fn a_single_configured_address_wins() {
        let exposure = Exposure {
            host_network: true,
            addresses: vec![ip("203.0.113.9")],
        };
        assert_eq!(
            advertised(&exposure, Some(&node()), Some(ip("10.1.0.1"))),
            Some(ip("203.0.113.9"))
        );
    }

    #[test]
    fn the_host_network_advertises_the_node() {
        let exposure = Exposure {
            host_network: true,
            addresses: vec![],
        };
        let mut node = node();
        assert_eq!(
            advertised(&exposure, Some(&node), Some(ip("10.0.0.3"))),
            Some(ip("203.0.113.1"))
        );
        node.annotated = None;
        assert_eq!(
            advertised(&exposure, Some(&node), None),
            Some(ip("203.0.113.2"))
        );
        node.external = None;
        assert_eq!(
            advertised(&exposure, Some(&node), None),
            Some(ip("10.0.0.3"))
        );
        assert_eq!(
            advertised(&exposure, None, Some(ip("10.0.0.7"))),
            Some(ip("10.0.0.7"))
        );
    }

    #[test]
    fn the_pod_network_advertises_the_pod() {
        let several = Exposure {
            host_network: false,
            addresses: vec![ip("203.0.113.9"), ip("203.0.113.10")],
        };
        assert_eq!(
            advertised(&several, Some(&node()), Some(ip("10.1.0.1"))),
            Some(ip("10.1.0.1"))
        );
        assert_eq!(advertised(&Exposure::default(), None, None), None);
    }
}
