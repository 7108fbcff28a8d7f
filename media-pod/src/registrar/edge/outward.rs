//! What media pods ask carriers within a call: BYE, OPTIONS, re-INVITE; and where such requests go.

use std::time::Instant;

use ringwire_config::gateway;
use ringwire_sip::message::{HeaderName, Host, Request, Uri};
use ringwire_sip::transaction::{Flow, ServerId, Transport};

use super::{Edge, Kind, PARK_LIMIT};
use crate::private;
use crate::registrar::names::{Nowhere, Way, lot};

impl Edge {
    pub(super) fn on_pod_request(&mut self, id: ServerId, request: Request, now: Instant) {
        self.relay(id, request, Kind::ToCarrier, now);
        self.send_to_carrier(id, now);
    }

    pub(super) fn send_to_carrier(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        if let Some(status) = relay.cancelled {
            return self.refuse(id, status, None, now);
        }
        let target = relay
            .request
            .headers
            .routes()
            .first()
            .map_or(&relay.request.uri, |route| &route.uri)
            .clone();
        let flow = match self.next_hop(&relay.request, &target, now) {
            Ok(flow) => flow,
            Err(Nowhere::Failed(_)) => return self.unreachable(id, now),
            Err(Nowhere::Unknown(question)) => {
                self.extra_names
                    .insert(question.clone(), now + PARK_LIMIT * 2);
                self.parked.push((id, question, now + PARK_LIMIT));
                return self.want_names(now);
            }
        };
        let (host, port) = self.via(&flow);
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let mut request = relay.request.clone();
        private::strip(&mut request.headers);
        request.headers.remove(&HeaderName::Via);
        let client = self.endpoint.request(request, flow, &host, port, now);
        relay.client = Some(client);
        self.by_client.insert(client, id);
        self.await_answer(id, now);
    }

    /// Where a request of ours goes: over the connection that its dialog came in on as long as it stands, else where Route or
    /// Request-URI says. (Where the connection came from nobody listens.)
    pub(super) fn next_hop(
        &self,
        request: &Request,
        target: &Uri,
        now: Instant,
    ) -> Result<Flow, Nowhere> {
        let noted = request
            .headers
            .get(&private::name(private::FLOW))
            .and_then(parse_flow);
        // A connection of another registrar may have the same number, but not to the same port of the carrier.
        let is_open = |flow: &Flow| {
            let remote = flow.connection.and_then(|number| self.streams.get(&number));
            remote == Some(&flow.remote)
        };
        if let Some(flow) = noted.filter(is_open) {
            return Ok(flow);
        }
        let way = Way::of(target);
        let host = match &target.host {
            Host::Ip(address) => gateway::Host::Address(*address),
            Host::Name(name) => gateway::Host::Name(name.to_ascii_lowercase()),
        };
        // What belongs to one call goes to one server.
        let call = request.headers.call_id().map(lot).unwrap_or_default();
        let targets = self.names.targets(&host, target.port, way, call)?;
        let picked = self.names.pick(&targets, now);
        let picked = picked.ok_or_else(|| Nowhere::Failed("no address".to_owned()))?;
        Ok(Flow {
            transport: picked.transport,
            remote: picked.remote,
            connection: None,
            peer: match picked.transport {
                Transport::Tls => self.peer_of(request),
                Transport::Udp | Transport::Tcp => 0,
            },
        })
    }

    /// Who the other side of a call of ours has to prove to be.
    fn peer_of(&self, request: &Request) -> u32 {
        let provider = request.headers.get(&private::name(private::PROVIDER));
        let provider = provider.and_then(|text| text.parse().ok());
        provider.map_or(0, |provider| self.peers.of(&provider))
    }
}

fn parse_flow(text: &str) -> Option<Flow> {
    let (transport, rest) = text.split_once(':')?;
    let (connection, remote) = rest.split_once(':')?;
    let transport = match transport {
        "UDP" => Transport::Udp,
        "TLS" => Transport::Tls,
        _ => Transport::Tcp,
    };
    let connection = connection.parse().ok().filter(|number| *number != 0);
    Some(Flow {
        transport,
        remote: remote.parse().ok()?,
        connection,
        peer: 0,
    })
}
