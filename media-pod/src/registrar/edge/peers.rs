//! Who carriers have to prove to be where they are spoken to over TLS. Providers that expect the same share connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ringwire_config::gateway::{Host, Provider, ProviderTls, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_crds::Transport;

/// Who the other side has to be, and what we show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The name or address that its certificate has to be issued for.
    pub name: String,
    /// By whom, and our own certificate.
    pub tls: ProviderTls,
}

/// All of them, numbered. A number is never used for another one.
#[derive(Debug, Default)]
pub struct Peers {
    numbers: HashMap<Arc<Peer>, u32>,
    known: HashMap<u32, Arc<Peer>>,
    of: BTreeMap<ObjectRef, u32>,
    last: u32,
}

impl Peers {
    /// Takes a configuration.
    pub fn configure(&mut self, config: &RegistrarConfig) {
        let mut before = std::mem::take(&mut self.numbers);
        self.of.clear();
        self.known.clear();
        for (id, provider) in &config.providers {
            let Some(peer) = expected(provider) else {
                continue;
            };
            let number = self.numbers.get(&peer).copied();
            let number = number.or_else(|| before.remove(&peer));
            let number = number.unwrap_or_else(|| {
                self.last += 1;
                self.last
            });
            let peer = Arc::new(peer);
            self.known.insert(number, Arc::clone(&peer));
            self.numbers.insert(peer, number);
            self.of.insert(id.clone(), number);
        }
    }

    /// A provider's; 0 if it is not spoken to over TLS.
    pub fn of(&self, provider: &ObjectRef) -> u32 {
        self.of.get(provider).copied().unwrap_or(0)
    }

    /// By its number.
    pub fn get(&self, number: u32) -> Option<&Peer> {
        self.known.get(&number).map(|peer| &**peer)
    }
}

/// Whom a provider's connections lead to (RFC 5922 section 7.3: the name that was looked up, not where it led); `None`: it is never TLS.
fn expected(provider: &Provider) -> Option<Peer> {
    if matches!(provider.transport, Some(Transport::UDP | Transport::TCP)) {
        return None;
    }
    let host = match &provider.outbound_proxy {
        Some((host, _)) => host,
        None => &provider.server,
    };
    let name = provider.tls.server_name.clone();
    let name = name.unwrap_or_else(|| match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    });
    Some(Peer {
        name,
        tls: provider.tls.clone(),
    })
}

#[cfg(test)]
mod tests {
    use ringwire_config::fixture;

    use super::*;

    fn provider(name: &str, tls: ProviderTls) -> Provider {
        Provider {
            transport: Some(ringwire_crds::Transport::TLS),
            tls,
            ..fixture::provider(name)
        }
    }

    #[test]
    fn who_expects_the_same_shares_connections_and_an_edit_makes_a_new_one() {
        let mut peers = Peers::default();
        let of = |peers: &Peers, name| peers.of(&ObjectRef::new("voice", name));
        let same = ProviderTls::default;
        let (one, two) = (provider("one", same()), provider("two", same()));
        let named = ProviderTls {
            server_name: Some("sip.example.com".to_owned()),
            ..same()
        };
        let other = provider("other", named);
        let plain = Provider {
            transport: Some(ringwire_crds::Transport::UDP),
            ..fixture::provider("plain")
        };
        peers.configure(&fixture::registrar([
            plain,
            one,
            two.clone(),
            other.clone(),
        ]));
        assert_eq!(of(&peers, "plain"), 0);
        assert_eq!(of(&peers, "one"), of(&peers, "two"));
        assert_ne!(of(&peers, "one"), of(&peers, "other"));
        let peer = peers.get(of(&peers, "one")).unwrap();
        assert_eq!(peer.name, "carrier.test");

        let before = (of(&peers, "one"), of(&peers, "other"));
        let own = ProviderTls {
            authorities: Some("PEM".to_owned()),
            ..same()
        };
        peers.configure(&fixture::registrar([provider("one", own), two, other]));
        assert!(![0, before.0, before.1].contains(&of(&peers, "one")));
        assert_eq!((of(&peers, "two"), of(&peers, "other")), before);
    }
}
