//! The carriers, as far as it can be said at a glance.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ringwire_config::ObjectRef;
use ringwire_config::gateway::{AllowedSource, RegistrarConfig};
use ringwire_config::token::{self, TOKEN_LENGTH, TokenKey};

use super::upper_half;

/// What an address is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A provider takes calls from it, by its own address or network, or one has taken one.
    Carrier,
    /// A provider takes calls from everybody.
    Anyone,
    /// Nobody's.
    Stranger,
}

/// Addresses and names that carriers have.
#[derive(Clone, Debug, Default)]
pub struct Known {
    all: Arc<All>,
    /// Addresses that were found since all were gone through: there may be thousands of carriers.
    since: HashSet<IpAddr>,
}

#[derive(Debug, Default)]
struct All {
    addresses: HashSet<IpAddr>,
    /// Networks by the length of their prefix.
    nets: BTreeMap<(bool, u8), HashSet<IpAddr>>,
    /// The /64s of IPv6 addresses that are carriers'.
    neighbourhoods: HashSet<u64>,
    anyone: bool,
    /// Secret contact users, in lower case.
    users: HashSet<String>,
    keys: Vec<TokenKey>,
}

impl Known {
    /// The carriers of a configuration, what their names stand for now, and addresses that were found to be carriers'.
    pub fn new<'a>(
        config: &RegistrarConfig,
        resolved: &'a BTreeMap<ObjectRef, Vec<IpAddr>>,
        learned: impl Iterator<Item = &'a IpAddr>,
    ) -> Self {
        let mut known = All {
            keys: config.settings.token_keys.clone(),
            ..All::default()
        };
        for address in resolved.values().flatten().chain(learned) {
            known.add((*address).into());
        }
        let mut nets = BTreeSet::new();
        for provider in config.providers.values() {
            if provider.contact_user_is_secret {
                known
                    .users
                    .insert(provider.contact_user.to_ascii_lowercase());
            }
            nets.extend(provider.allowed_sources.iter().filter_map(|allowed| {
                match allowed {
                    AllowedSource::Net(net) => Some(*net),
                    // Among the resolved ones.
                    AllowedSource::Name(_) => None,
                }
            }));
        }
        for net in nets {
            known.add(net);
        }
        Self {
            all: Arc::new(known),
            since: HashSet::new(),
        }
    }

    /// The same and these addresses; `None` if none of them is new.
    pub fn with<'a>(&self, addresses: impl Iterator<Item = &'a IpAddr>) -> Option<Self> {
        let addresses = addresses.map(IpAddr::to_canonical);
        let mut new = addresses
            .filter(|address| self.standing(*address) != Standing::Carrier)
            .peekable();
        new.peek()?;
        let mut since = self.since.clone();
        since.extend(new);
        Some(Self {
            all: Arc::clone(&self.all),
            since,
        })
    }

    /// How many addresses were found since all were gone through.
    pub fn found_since(&self) -> usize {
        self.since.len()
    }

    /// What an address is to us.
    pub fn standing(&self, source: IpAddr) -> Standing {
        if self.since.contains(&source) {
            return Standing::Carrier;
        }
        self.all.standing(source)
    }

    /// Whether a carrier has an address in the same IPv6 /64, which is shut out as a whole or not at all.
    pub fn is_neighbour(&self, source: IpAddr) -> bool {
        let IpAddr::V6(address) = source else {
            return false;
        };
        let upper = upper_half(address);
        let is_near =
            |found: &IpAddr| matches!(found, IpAddr::V6(found) if upper_half(*found) == upper);
        self.all.neighbourhoods.contains(&upper) || self.since.iter().any(is_near)
    }

    /// Whether a Request-URI's user part is one of our secrets: a contact that we registered, or a call's.
    pub fn admits(&self, user: &str) -> bool {
        self.all.users.contains(&user.to_ascii_lowercase())
            || (user.len() == TOKEN_LENGTH && token::verify(&self.all.keys, user).is_some())
    }
}

impl All {
    fn add(&mut self, net: IpNet) {
        let net = net.trunc();
        if net.prefix_len() == 0 {
            self.anyone = true;
            return;
        }
        let address = net.network().to_canonical();
        if let IpAddr::V6(address) = address {
            self.neighbourhoods.insert(upper_half(address));
        }
        if net.prefix_len() == net.max_prefix_len() {
            self.addresses.insert(address);
        } else {
            let is_v4 = matches!(net, IpNet::V4(_));
            let of_length = self.nets.entry((is_v4, net.prefix_len()));
            of_length.or_default().insert(address);
        }
    }

    fn standing(&self, source: IpAddr) -> Standing {
        if self.addresses.contains(&source) || self.is_in_a_net(source) {
            Standing::Carrier
        } else if self.anyone {
            Standing::Anyone
        } else {
            Standing::Stranger
        }
    }

    fn is_in_a_net(&self, source: IpAddr) -> bool {
        self.nets.iter().any(|((is_v4, length), networks)| {
            *is_v4 == source.is_ipv4()
                && IpNet::new(source, *length)
                    .is_ok_and(|net| networks.contains(&net.trunc().network()))
        })
    }
}

/// Addresses that turned out to be carriers' although no provider names them: a call from there was let in by what it knew. The oldest
/// goes first when there are too many.
#[derive(Debug, Default)]
pub struct Learned {
    addresses: Vec<IpAddr>,
}

/// How many of them are kept.
const MAX_LEARNED: usize = 1_024;

impl Learned {
    /// Notes an address; `true`: it is new.
    pub fn note(&mut self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.addresses.contains(&address) {
            return false;
        }
        if self.addresses.len() >= MAX_LEARNED {
            self.addresses.remove(0);
        }
        self.addresses.push(address);
        true
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter()
    }
}
