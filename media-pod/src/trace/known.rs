//! Whose call a message belongs to. A dialog's requests don't say which provider they are of: it is kept by Call-ID from the time that
//! the registrar decided it, which the headers of the INVITE to the media pod tell.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ringwire_config::ObjectRef;
use ringwire_config::gateway::{AllowedSource, Host, Provider, RegistrarConfig};
use ringwire_sip::message::{HeaderName, Message};
use ringwire_sip::transaction::Transport;

use super::filter::Facts;
use crate::private;

/// Calls that are remembered.
const MAX_CALLS: usize = 4_096;

/// What decides whose a message is when nothing else does.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The providers.
    pub config: Option<Arc<RegistrarConfig>>,
    /// Addresses of each provider's names.
    pub resolved: Arc<BTreeMap<ObjectRef, Vec<IpAddr>>>,
    /// Where carriers reach us.
    pub ours: Ours,
}

/// Where carriers reach us, or the Services that they come through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ours {
    /// The address that they are told.
    pub address: Option<IpAddr>,
    /// The port for UDP.
    pub udp: u16,
    /// The port for TCP.
    pub tcp: u16,
    /// The port for TLS.
    pub tls: u16,
}

impl Ours {
    /// Our end of messages that go this way. Connections that we have made leave from other ports, but nobody would know us by these.
    pub fn end(&self, transport: Transport) -> SocketAddr {
        let port = match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
        };
        SocketAddr::new(self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
    }
}

/// Calls by Call-ID.
#[derive(Default)]
pub struct Known {
    calls: HashMap<String, Facts>,
    /// Call-IDs, the oldest first.
    order: VecDeque<String>,
}

impl Known {
    /// Learns from a message; `from_outside` is the other side's address unless that is a media pod of ours.
    pub fn learn(
        &mut self,
        message: &Message,
        from_outside: Option<IpAddr>,
        around: &Surroundings,
    ) {
        let Ok(call_id) = message.headers().call_id() else {
            return;
        };
        let config = around.config.as_deref();
        let told = from_outside
            .is_none()
            .then(|| told_between_our_own(message))
            .flatten();
        let facts = self.facts_mut(call_id);
        if let Some(told) = told {
            facts.provider = told.provider.or(facts.provider.take());
            facts.number = told.number;
            facts.called = told.called;
        }
        if facts.users.is_empty() {
            facts.users = users(message);
        }
        if facts.provider.is_none() {
            facts.provider = config
                .and_then(|config| by_contact_user(message, config))
                .or_else(|| {
                    only_one(config?.providers.values().filter(|provider| {
                        from_outside
                            .is_some_and(|address| accepts(provider, address, &around.resolved))
                    }))
                })
                .map(|provider| provider.id.clone());
        }
    }

    /// Learns from a refusal, which no media pod gets to see.
    pub fn refused(&mut self, call_id: &str, provider: Option<ObjectRef>, called: Option<String>) {
        let facts = self.facts_mut(call_id);
        facts.provider = provider.or(facts.provider.take());
        facts.called = called.or(facts.called.take());
    }

    /// What is known of a call.
    pub fn facts(&self, call_id: &str) -> Facts {
        self.calls.get(call_id).cloned().unwrap_or_default()
    }

    fn facts_mut(&mut self, call_id: &str) -> &mut Facts {
        if !self.calls.contains_key(call_id) {
            if self.order.len() >= MAX_CALLS
                && let Some(oldest) = self.order.pop_front()
            {
                self.calls.remove(&oldest);
            }
            self.order.push_back(call_id.to_owned());
        }
        self.calls.entry(call_id.to_owned()).or_default()
    }
}

/// What the registrar tells a media pod with an INVITE.
fn told_between_our_own(message: &Message) -> Option<Facts> {
    let get = |name| message.headers().get(&private::name(name));
    Some(Facts {
        provider: Some(get(private::PROVIDER)?.parse().ok()?),
        number: get(private::NUMBER).and_then(|text| text.parse().ok()),
        called: get(private::CALLED).map(str::to_owned),
        users: Vec::new(),
    })
}

fn users(message: &Message) -> Vec<String> {
    let mut users: Vec<String> = match message {
        Message::Request(request) => request.uri.user_unescaped().into_iter().collect(),
        Message::Response(_) => Vec::new(),
    };
    for name in [HeaderName::To, HeaderName::From] {
        let named = message.headers().readable(&name);
        users.extend(
            named
                .into_iter()
                .filter_map(|address| address.uri.user_unescaped()),
        );
    }
    users
}

/// The user part of our Contact names the provider: in the Request-URI of what a carrier asks us, in the Contact of a REGISTER of ours.
fn by_contact_user<'a>(message: &Message, config: &'a RegistrarConfig) -> Option<&'a Provider> {
    let request_user = match message {
        Message::Request(request) => request.uri.user_unescaped(),
        Message::Response(_) => None,
    };
    let contacts = message.headers().readable(&HeaderName::Contact);
    let mut users = request_user.into_iter().chain(
        contacts
            .into_iter()
            .filter_map(|contact| contact.uri.user_unescaped()),
    );
    users.find_map(|user| {
        only_one(
            config
                .providers
                .values()
                .filter(|provider| provider.contact_user.eq_ignore_ascii_case(&user)),
        )
    })
}

fn accepts(
    provider: &Provider,
    address: IpAddr,
    resolved: &BTreeMap<ObjectRef, Vec<IpAddr>>,
) -> bool {
    let address = address.to_canonical();
    let is = |host: &Host| *host == Host::Address(address);
    is(&provider.server)
        || provider
            .outbound_proxy
            .as_ref()
            .is_some_and(|(host, _)| is(host))
        || resolved
            .get(&provider.id)
            .is_some_and(|all| all.contains(&address))
        || provider
            .allowed_sources
            .iter()
            .any(|source| matches!(source, AllowedSource::Net(net) if net.contains(&address)))
}

/// The only element: of several that could be meant none is.
fn only_one<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}
