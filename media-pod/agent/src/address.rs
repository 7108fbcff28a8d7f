//! Which addresses an agent may have.
//!
//! Whoever may create a VoiceAgent chooses where the media pod connects to, so addresses that mean "this machine" or "this
//! cloud's metadata" are refused unless the gateway's owner allows them. The check is on the address that is connected to,
//! after name resolution.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The rule of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Networks that are allowed whatever they are.
    pub allow: Vec<IpNet>,
    /// Addresses of the cluster's nodes.
    pub deny_nodes: Vec<IpAddr>,
    /// False: everything is allowed (the embedded default, where the agent is often on the same machine).
    pub restrict: bool,
}

impl Default for AddressPolicy {
    /// Restricted, with no exception.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny_nodes: Vec::new(),
            restrict: true,
        }
    }
}

impl AddressPolicy {
    /// Why `address` is refused, as a noun ("a loopback address"); `None` if it is allowed.
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = embedded_v4(address);
        if !self.restrict || self.allow.iter().any(|network| network.contains(&address)) {
            return None;
        }
        if self
            .deny_nodes
            .iter()
            .any(|node| node.to_canonical() == address)
        {
            return Some("a node's address");
        }
        if is_metadata(address) {
            return Some("a cloud metadata address");
        }
        match address {
            IpAddr::V4(v4) => refusal_v4(v4),
            IpAddr::V6(v6) => refusal_v6(v6),
        }
    }
}

/// The IPv4 address inside an IPv4-mapped or NAT64 one, for that is where the connection ends.
fn embedded_v4(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
            }
            _ => address.to_canonical(),
        },
        IpAddr::V4(_) => address,
    }
}

fn is_metadata(address: IpAddr) -> bool {
    const V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    match address {
        IpAddr::V4(v4) => V4.contains(&v4),
        IpAddr::V6(v6) => V6.contains(&v6),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if address.octets()[0] == 0 {
        Some("an unspecified address")
    } else if address.is_multicast() || address.is_broadcast() {
        Some("a multicast or broadcast address")
    } else {
        None
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.is_unspecified() {
        Some("an unspecified address")
    } else if address.is_multicast() {
        Some("a multicast or broadcast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_means_this_machine_or_this_cloud() {
        let policy = AddressPolicy {
            deny_nodes: vec![ip("10.0.0.5")],
            ..AddressPolicy::default()
        };
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "169.254.169.254",
            "169.254.1.1",
            "fe80::1",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "0.0.0.0",
            "0.0.0.1",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "10.0.0.5",
            "::ffff:10.0.0.5",
        ] {
            assert!(policy.refusal(ip(address)).is_some(), "{address}");
        }
        for address in [
            "10.0.0.6",
            "192.168.1.1",
            "8.8.8.8",
            "2001:db8::1",
            "fd12::1",
        ] {
            assert_eq!(policy.refusal(ip(address)), None, "{address}");
        }
    }

    #[test]
    fn an_allowed_network_outranks_every_refusal() {
        let policy = AddressPolicy {
            allow: vec![
                "127.0.0.0/8".parse().unwrap(),
                "10.0.0.5/32".parse().unwrap(),
            ],
            deny_nodes: vec![ip("10.0.0.5")],
            restrict: true,
        };
        assert_eq!(policy.refusal(ip("127.0.0.1")), None);
        assert_eq!(policy.refusal(ip("::ffff:127.0.0.1")), None);
        assert_eq!(policy.refusal(ip("10.0.0.5")), None);
        assert!(policy.refusal(ip("::1")).is_some());
    }

    #[test]
    fn an_unrestricted_policy_allows_everything() {
        let policy = AddressPolicy {
            restrict: false,
            ..AddressPolicy::default()
        };
        assert_eq!(policy.refusal(ip("127.0.0.1")), None);
    }
}
