//! Where carriers reach a registrar: at its own address, at its node's, or at a Service in front of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringwire_config::address;
use ringwire_config::gateway::{self, Front, RegistrarConfig};
use ringwire_config::object::NodeAddresses;
use ringwire_crds::Transport as Configured;
use ringwire_sip::message::Host;
use ringwire_sip::transaction::Transport;

use super::{Identity, TLS_PORT};

/// Where we are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Our own address as we advertise it; `None`: the one that leads to the peer.
    pub advertised: Option<IpAddr>,
    /// UDP port of SIP.
    pub udp_port: u16,
    /// TCP port of SIP.
    pub tcp_port: u16,
    /// TCP port of SIP over TLS.
    pub tls_port: u16,
    /// Where Services lead to us, if carriers come through any.
    pub fronts: Option<Fronts>,
}

/// Host and port of the Service that carriers come through, by transport; `None`: it is reached nowhere yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fronts {
    /// UDP.
    pub udp: Option<(Host, u16)>,
    /// TCP.
    pub tcp: Option<(Host, u16)>,
    /// TLS.
    pub tls: Option<(Host, u16)>,
}

impl Local {
    /// The ports are those that we listen on, whatever the configuration says by now.
    pub(super) fn of(
        config: &RegistrarConfig,
        identity: &Identity,
        (udp_port, tcp_port): (u16, u16),
    ) -> Self {
        let settings = &config.settings;
        let node = identity
            .node
            .as_ref()
            .and_then(|node| settings.nodes.get(node));
        let tls_port = config.tls.as_ref().map_or(TLS_PORT, |tls| tls.port);
        Self {
            advertised: address::advertised(&settings.sip, node, identity.pod_ip),
            udp_port,
            tcp_port,
            tls_port,
            fronts: Fronts::new(&settings.sip_fronts, node, tls_port),
        }
    }

    /// What a peer is told to reach us at; `None`: nowhere yet. `towards`: which of our addresses leads to it.
    pub fn told(
        &self,
        transport: Transport,
        towards: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<(Host, u16)> {
        if let Some(fronts) = &self.fronts {
            return fronts.of(transport).cloned();
        }
        let address = self.advertised.or_else(towards)?;
        Some((Host::Ip(address), self.port(transport)))
    }

    /// Our own port.
    pub fn port(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Udp => self.udp_port,
            Transport::Tcp => self.tcp_port,
            Transport::Tls => self.tls_port,
        }
    }
}

impl Fronts {
    /// `None`: carriers come through no Service.
    fn new(
        configured: &BTreeMap<Configured, Front>,
        node: Option<&NodeAddresses>,
        tls_port: u16,
    ) -> Option<Self> {
        if configured.is_empty() {
            return None;
        }
        let place = |transport| match configured.get(&transport)? {
            Front::At { host, port } => Some((
                match host {
                    gateway::Host::Address(address) => Host::Ip(*address),
                    gateway::Host::Name(name) => Host::Name(name.clone()),
                },
                *port,
            )),
            Front::Node { port } => Some((Host::Ip(address::of_node(node?)?), *port)),
            Front::Nowhere => None,
        };
        let tcp = place(Configured::TCP);
        let tls = if configured.contains_key(&Configured::TLS) {
            place(Configured::TLS)
        } else {
            // Nobody connects to us over TLS, but a Contact needs an address.
            tcp.clone().map(|(host, _)| (host, tls_port))
        };
        Some(Self {
            udp: place(Configured::UDP),
            tcp,
            tls,
        })
    }

    fn of(&self, transport: Transport) -> Option<&(Host, u16)> {
        match transport {
            Transport::Udp => self.udp.as_ref(),
            Transport::Tcp => self.tcp.as_ref(),
            Transport::Tls => self.tls.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(front: &Front) -> BTreeMap<Configured, Front> {
        [Configured::UDP, Configured::TCP]
            .map(|transport| (transport, front.clone()))
            .into()
    }

    fn local(fronts: Option<Fronts>) -> Local {
        Local {
            advertised: None,
            udp_port: 5060,
            tcp_port: 5070,
            tls_port: 5061,
            fronts,
        }
    }

    #[test]
    fn without_services_we_are_reached_at_our_own_address() {
        let fronts = Fronts::new(&BTreeMap::new(), None, 5061);
        let own = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(
            local(fronts).told(Transport::Tcp, || Some(own)),
            Some((Host::Ip(own), 5070))
        );
    }

    #[test]
    fn behind_services_each_transport_has_its_place() {
        let host = gateway::Host::Name("lb.example.com".into());
        let fronts = Fronts::new(&both(&Front::At { host, port: 5080 }), None, 5061).unwrap();
        let name = Host::Name("lb.example.com".into());
        assert_eq!(fronts.udp, Some((name.clone(), 5080)));
        assert_eq!(fronts.tls, Some((name, 5061)));
    }

    #[test]
    fn the_port_of_a_node_goes_with_the_address_of_ours() {
        let address = IpAddr::from([203, 0, 113, 7]);
        let node = NodeAddresses {
            external: Some(address),
            internal: vec![[10, 0, 0, 7].into()],
            ..NodeAddresses::default()
        };
        let configured = both(&Front::Node { port: 30060 });
        let fronts = Fronts::new(&configured, Some(&node), 5061).unwrap();
        assert_eq!(fronts.udp, Some((Host::Ip(address), 30060)));
        assert_eq!(Fronts::new(&configured, None, 5061).unwrap().udp, None);
    }

    #[test]
    fn nobody_is_told_of_a_service_that_leads_nowhere_yet() {
        let local = Local {
            advertised: Some([10, 244, 0, 3].into()),
            ..local(Fronts::new(&both(&Front::Nowhere), None, 5061))
        };
        assert_eq!(local.told(Transport::Udp, || None), None);
    }
}
