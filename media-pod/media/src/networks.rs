//! Networks that a call's packets may come from besides the addresses that its SDP and its signalling have: those of its provider.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The widest network that may be one carrier's, by its prefix: of a wider one (everybody, at the worst) nobody in particular is meant. /32 is
/// what a provider of IPv6 is given, /16 more than any carrier's media have of IPv4.
const WIDEST_V4: u8 = 16;
const WIDEST_V6: u8 = 32;

/// How many are kept.
const MOST: usize = 128;

/// At most 128 networks, sorted, none of them in another. A clone is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Option<Arc<[IpNet]>>);

impl Networks {
    /// Those of them that are narrow enough: /16 or narrower, of IPv6 /32.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let narrow = networks.into_iter().filter(|network| {
            let widest = match network {
                IpNet::V4(_) => WIDEST_V4,
                IpNet::V6(_) => WIDEST_V6,
            };
            network.prefix_len() >= widest
        });
        let mut all = IpNet::aggregate(&narrow.collect());
        all.sort_unstable();
        all.truncate(MOST);
        Self((!all.is_empty()).then(|| all.into()))
    }

    fn all(&self) -> &[IpNet] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether one of them has that address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let all = self.all();
        let behind = all.partition_point(|network| network.network() <= ip);
        let last = behind.checked_sub(1).and_then(|at| all.get(at));
        last.is_some_and(|network| network.contains(&ip))
    }

    /// Whether both have an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.all().iter().peekable(), other.all().iter().peekable());
        while let (Some(one), Some(two)) = (ours.peek(), theirs.peek()) {
            if one.contains(*two) || two.contains(*one) {
                return true;
            }
            // What ends first meets nothing that follows.
            if one < two {
                ours.next();
            } else {
                theirs.next();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn has_the_addresses_of_its_networks_and_no_others() {
        let networks = networks(&[
            "198.51.100.7/32",
            "203.0.113.64/26",
            "203.0.113.80/28",
            "2001:db8:7::/48",
            "192.0.2.0/25",
            "192.0.2.128/25",
        ]);
        for (ip, expected) in [
            ("198.51.100.7", true),
            ("::ffff:198.51.100.7", true),
            ("198.51.100.6", false),
            ("198.51.100.8", false),
            ("203.0.113.63", false),
            ("203.0.113.64", true),
            ("203.0.113.90", true),
            ("203.0.113.127", true),
            ("203.0.113.128", false),
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("2001:db8:7:1::9", true),
            ("2001:db8:8::", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            assert_eq!(networks.contains(ip.parse().unwrap()), expected, "{ip}");
        }
        assert!(!Networks::default().contains([192, 0, 2, 1].into()));
    }

    #[test]
    fn nobody_in_particular_is_meant_by_everybody() {
        let wide = networks(&[
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "10.0.0.0/15",
            "2001:db8::/31",
        ]);
        assert!(wide.is_empty());
        assert!(!wide.contains([10, 0, 0, 1].into()));
        let narrow = networks(&["10.7.0.0/16", "2001:db8::/32", "0.0.0.0/0"]);
        assert!(narrow.contains([10, 7, 0, 1].into()));
        assert!(!narrow.contains([10, 8, 0, 1].into()));
        assert!(narrow.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn tells_whether_two_have_an_address_in_common() {
        let one = networks(&["192.0.2.0/24", "203.0.113.0/28", "2001:db8::/48"]);
        for (other, expected) in [
            (&["192.0.2.77/32"][..], true),
            (&["192.0.0.0/16"], true),
            (&["191.0.0.0/16", "203.0.113.8/29"], true),
            (&["198.51.100.0/24", "203.0.113.16/28"], false),
            (&["2001:db8:0:5::/64"], true),
            (&["2001:db8:1::/48"], false),
            (&[], false),
        ] {
            let other = networks(other);
            assert_eq!(one.overlaps(&other), expected, "{other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?}");
        }
    }

    #[test]
    fn keeps_so_many_and_no_more() {
        let many = Networks::new((0..=255).map(|last| IpAddr::from([192, 0, last, 1]).into()));
        assert_eq!(many.all().len(), MOST);
    }
}
