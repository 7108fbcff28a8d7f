//! The addresses of host names, as far as they are known. Looked up by the shell ([`super::lookup`]), used by the edge without waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ringwire_config::gateway::{AllowedSource, Host, RegistrarConfig};
use ringwire_config::route::ResolvedAddresses;

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It stands for these addresses; never empty.
    Found(Vec<IpAddr>),
    /// It could not be looked up; the text says why.
    Failed(String),
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, Lookup>,
}

impl Names {
    /// What is known of `name`.
    pub fn get(&self, name: &str) -> Option<&Lookup> {
        self.known.get(name)
    }

    /// Takes a result. A failed look-up does not erase addresses that were good before: a resolver's hiccup must not
    /// lock out a carrier.
    pub fn update(&mut self, name: String, lookup: Lookup) {
        let keep = matches!(lookup, Lookup::Failed(_))
            && matches!(self.known.get(&name), Some(Lookup::Found(_)));
        if !keep {
            self.known.insert(name, lookup);
        }
    }

    /// Forgets all names but these.
    pub fn retain(&mut self, wanted: &BTreeSet<String>) {
        self.known.retain(|name, _| wanted.contains(name));
    }

    /// The addresses of a host.
    pub fn addresses(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => match self.known.get(name) {
                Some(Lookup::Found(addresses)) => addresses.clone(),
                _ => Vec::new(),
            },
        }
    }
}

impl ResolvedAddresses for Names {
    fn has(&self, name: &str, address: IpAddr) -> bool {
        matches!(self.known.get(name), Some(Lookup::Found(addresses)) if addresses.contains(&address))
    }
}

/// Every name that a configuration needs the addresses of.
pub fn wanted(config: &RegistrarConfig) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for provider in config.providers.values() {
        let proxy = provider.outbound_proxy.as_ref().map(|(host, _)| host);
        for host in std::iter::once(&provider.server).chain(proxy) {
            if let Host::Name(name) = host {
                names.insert(name.clone());
            }
        }
        for allowed in &provider.allowed_sources {
            if let AllowedSource::Name(name) = allowed {
                names.insert(name.clone());
            }
        }
    }
    names
}
