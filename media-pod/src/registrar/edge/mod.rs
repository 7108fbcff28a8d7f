//! The registrar's logic without sockets and clock: messages, results of look-ups and `Instant`s in; bytes, look-ups and reports out.
//!
//! Towards carriers it is the user agent, towards media pods a proxy that keeps transactions but no dialogs: what belongs to a dialog
//! finds its media pod by the signed token in our Contact. One [`Endpoint`] holds the transactions of both sides; links to media pods
//! are flows like others.

mod calls;
mod limits;
mod loads;
mod outward;
mod peers;
mod proof;
mod replies;
#[cfg(test)]
mod tests;
mod timers;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringwire_config::gateway::{Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::state::RegistrationReport;
use ringwire_config::token::Incarnation;
use ringwire_config::{Reason, gateway};
use ringwire_sip::message::{HeaderName, Host, Message, Method, NameAddr, Request, Response, Uri};
use ringwire_sip::transaction::{
    ClientId, Endpoint, EndpointConfig, Event, Flow, ServerId, Transmit, Transport, TransportError,
    give_back,
};

use self::limits::Rates;
use self::loads::{Loads, Parties};
pub use self::peers::{Peer, Peers};
use self::proof::Proofs;
use self::replies::reason_header;
use self::timers::Timer;
use super::names::{self, Lookup, Names, Nowhere, Question, lot};
use super::place::Local;
use super::trunks::Trunks;
use crate::link::Load;

/// At most so many media pods are asked for one call.
const MAX_TRIES: usize = 3;

/// A look-up for an in-dialog request has to be over by then.
const PARK_LIMIT: Duration = Duration::from_secs(5);

/// Whether this registrar keeps a provider's registration.
pub type Owns = Arc<dyn Fn(&ObjectRef) -> bool + Send + Sync>;

/// What the edge tells its shell, besides bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What DNS is to be asked from now on.
    Names(Arc<BTreeSet<Question>>),
    /// A registration's new state.
    Registration(ObjectRef, RegistrationReport),
    /// The providers that register here.
    Registrations(BTreeSet<ObjectRef>),
    /// Addresses of these providers' servers and allowed names.
    Resolved(BTreeMap<ObjectRef, Vec<IpAddr>>),
    /// A call was refused here, before any media pod.
    Refused(RefusedCall),
    /// A call was handed to a media pod.
    Forwarded {
        /// The number it is for.
        number: ObjectRef,
        /// Where it came from.
        source: IpAddr,
    },
    /// Somebody who is really at this address gave a wrong user name or password.
    WrongCredentials(IpAddr),
    /// Send these bytes as they are: a keep-alive.
    KeepAlive(Flow),
}

/// A call that was refused at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// Why.
    pub reason: Reason,
    /// What was answered.
    pub status: u16,
    /// Where it came from.
    pub source: SocketAddr,
    /// The Call-ID.
    pub call_id: String,
    /// The caller's user part.
    pub from: String,
    /// The called user part.
    pub to: String,
    /// The provider, if it is known, and the number.
    pub provider: Option<ObjectRef>,
    /// The number of ours that was dialled, if it is one.
    pub number: Option<String>,
    /// More for people.
    pub detail: String,
}

/// A media pod.
struct Link {
    flow: Flow,
    accepting: bool,
}

enum Kind {
    /// A new call: private headers to send along, and pods asked so far.
    Call {
        headers: Vec<(HeaderName, String)>,
        tried: Vec<Incarnation>,
        parties: Parties,
        /// What to report if no media pod takes it.
        refusal: Box<RefusedCall>,
    },
    /// From a carrier, within a dialog.
    ToPod,
    /// From a media pod to a carrier.
    ToCarrier,
}

/// A request that is being relayed.
struct Relay {
    request: Request,
    kind: Kind,
    client: Option<ClientId>,
    timer: Option<(Instant, Timer)>,
    /// It was cancelled, and gets this answer if there is no other: 487 by the caller, 408 by timer C.
    cancelled: Option<u16>,
    /// A final answer was given; only repeats of it may follow.
    done: bool,
}

/// See the module.
pub struct Edge {
    endpoint: Endpoint,
    rng: StdRng,
    config: Arc<RegistrarConfig>,
    local: Local,
    source_towards: fn(IpAddr) -> Option<IpAddr>,
    names: Names,
    /// Which providers each name concerns.
    users: HashMap<String, Vec<ObjectRef>>,
    /// Names of in-dialog requests' targets, and until when they are wanted.
    extra_names: BTreeMap<Question, Instant>,
    trunks: Trunks,
    peers: Peers,
    owns: Owns,
    links: BTreeMap<Incarnation, Link>,
    loads: Loads,
    rates: Rates,
    proofs: Proofs,
    /// A moment, and the same in seconds since 1970.
    clock: (Instant, u64),
    /// Open connections that a message has come in on, and whose they are.
    streams: HashMap<u64, SocketAddr>,
    relays: HashMap<ServerId, Relay>,
    /// The timers of all relays.
    timers: BTreeSet<(Instant, ServerId)>,
    by_client: HashMap<ClientId, ServerId>,
    /// Branches given up for another media pod: their late answers are not for the caller.
    abandoned: HashMap<ClientId, Request>,
    parked: Vec<(ServerId, Question, Instant)>,
    draining: bool,
    outputs: VecDeque<Output>,
}

impl Edge {
    /// An edge without configuration: it refuses all calls until [`Self::configure`]. `source_towards` tells which of our
    /// addresses leads to a peer; `clock` is as in [`Self::set_clock`].
    pub fn new(
        config: Arc<RegistrarConfig>,
        local: Local,
        source_towards: fn(IpAddr) -> Option<IpAddr>,
        clock: (Instant, u64),
        seed: u64,
    ) -> Self {
        let endpoint = EndpointConfig {
            branch_prefix: "rw".into(),
            ..EndpointConfig::default()
        };
        Self {
            endpoint: Endpoint::new(endpoint, seed),
            rng: StdRng::seed_from_u64(seed),
            config,
            local,
            source_towards,
            names: Names::default(),
            users: HashMap::new(),
            extra_names: BTreeMap::new(),
            trunks: Trunks::default(),
            peers: Peers::default(),
            owns: Arc::new(|_| true),
            links: BTreeMap::new(),
            loads: Loads::default(),
            rates: Rates::default(),
            proofs: Proofs::default(),
            clock,
            streams: HashMap::new(),
            relays: HashMap::new(),
            timers: BTreeSet::new(),
            by_client: HashMap::new(),
            abandoned: HashMap::new(),
            parked: Vec::new(),
            draining: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes a configuration, an ownership, or both. Running calls are not touched.
    pub fn configure(
        &mut self,
        config: Arc<RegistrarConfig>,
        local: Local,
        owns: Owns,
        now: Instant,
    ) {
        self.peers.configure(&config);
        self.rates.configure(&config);
        self.users = names::users(&config);
        self.config = config;
        self.local = local;
        self.owns = owns;
        let mut sources = Sources::new(self.source_towards);
        let contact =
            |provider: &Provider| contact_of(provider, &self.names, &self.local, &mut sources);
        self.trunks
            .configure(&self.config, &*self.owns, &self.peers, contact, now);
        let ids = self.trunks.ids().cloned().collect();
        self.outputs.push_back(Output::Registrations(ids));
        self.want_names(now);
        let config = Arc::clone(&self.config);
        self.tell_resolved(config.providers.values());
        self.pump(now);
    }

    /// What time it is, in seconds since 1970: other registrars have to agree.
    pub fn set_clock(&mut self, now: Instant, time: u64) {
        self.clock = (now, time);
    }

    fn time(&self, now: Instant) -> u64 {
        let (at, time) = self.clock;
        time + now.saturating_duration_since(at).as_secs()
    }

    /// From now on new calls are refused with 503.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The result of a look-up.
    pub fn resolved(&mut self, question: &Question, lookup: Lookup, now: Instant) {
        let ready: Vec<ServerId> = self
            .parked
            .iter()
            .filter(|(_, parked, _)| parked == question)
            .map(|(id, ..)| *id)
            .collect();
        self.parked.retain(|(_, parked, _)| parked != question);
        self.names.update(question.clone(), lookup);
        for id in ready {
            self.send_to_carrier(id, now);
        }
        let config = Arc::clone(&self.config);
        let users = self.users.get(question.name()).into_iter().flatten();
        let users: Vec<&Provider> = users.filter_map(|id| config.providers.get(id)).collect();
        // Which of our addresses leads to a carrier may be known only now.
        let mut sources = Sources::new(self.source_towards);
        for provider in users.iter().filter(|provider| (self.owns)(&provider.id)) {
            let contact = || contact_of(provider, &self.names, &self.local, &mut sources);
            let peer = self.peers.of(&provider.id);
            self.trunks.provide(provider, peer, contact, now);
        }
        self.trunks.resolved(question, now);
        self.tell_resolved(users);
        self.pump(now);
    }

    /// A link to a media pod is up.
    pub fn link_up(&mut self, incarnation: Incarnation, flow: Flow, now: Instant) {
        self.loads.up(incarnation, now);
        let accepting = true;
        self.links.insert(incarnation, Link { flow, accepting });
    }

    /// A media pod's load.
    pub fn link_load(
        &mut self,
        incarnation: Incarnation,
        load: Arc<Load>,
        accepting: bool,
        now: Instant,
    ) {
        if let Some(link) = self.links.get_mut(&incarnation) {
            link.accepting = accepting;
            self.loads.report(incarnation, load, now);
        }
    }

    /// A stream (to a carrier or a media pod) has closed or could not be opened.
    pub fn flow_failed(&mut self, flow: &Flow, error: TransportError, now: Instant) {
        self.links.retain(|incarnation, link| {
            let stays = link.flow != *flow;
            if !stays {
                self.loads.lost(*incarnation, now);
            }
            stays
        });
        if let Some(connection) = flow.connection {
            self.streams.remove(&connection);
        }
        self.endpoint.flow_failed(flow, error, now);
        self.trunks.flow_lost(flow, now);
        self.pump(now);
    }

    /// A message has come in.
    pub fn receive(&mut self, message: Message, flow: Flow, now: Instant) {
        if let Some(connection) = flow.connection {
            self.streams.insert(connection, flow.remote);
        }
        self.endpoint.receive(message, flow, now);
        self.pump(now);
    }

    /// Sends a message outside of any transaction: the reply to something unreadable.
    pub fn send_stateless(&mut self, message: Message, flow: Flow) {
        self.endpoint.send_stateless(message, flow);
    }

    /// Bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// Who the other side of a connection that [`Flow::peer`] numbers has to prove to be.
    pub fn peer(&self, number: u32) -> Option<&Peer> {
        self.peers.get(number)
    }

    /// Things to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.endpoint.poll_timeout(),
            self.trunks.poll_timeout(),
            self.timers.first().map(|(at, _)| *at),
            self.proofs.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .chain(self.parked.iter().map(|(.., limit)| *limit))
        .min()
    }

    /// Runs due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        for client in self.trunks.handle_timeout(&mut self.names, now) {
            self.endpoint.abandon_client(client);
        }
        self.run_timers(now);
        let late: Vec<ServerId> = self
            .parked
            .iter()
            .filter(|(.., limit)| *limit <= now)
            .map(|(id, ..)| *id)
            .collect();
        self.parked.retain(|(.., limit)| *limit > now);
        for id in late {
            self.refuse(id, 408, None, now);
        }
        let due = self.trunks.due_keep_alives(now);
        self.outputs.extend(due.into_iter().map(Output::KeepAlive));
        while let Some(call) = self.proofs.unanswered(now) {
            self.outputs.push_back(Output::Refused(call));
        }
        self.pump(now);
    }

    /// Whether everything that was begun has ended, but for registrations that stay.
    pub fn is_quiet(&self) -> bool {
        self.relays.values().all(|relay| relay.done) && self.trunks.is_quiet()
    }

    fn want_names(&mut self, now: Instant) {
        let mut wanted = names::wanted(&self.config);
        self.extra_names.retain(|_, until| *until > now);
        wanted.extend(self.extra_names.keys().cloned());
        self.names.retain(&wanted);
        self.outputs.push_back(Output::Names(Arc::new(wanted)));
    }

    fn tell_resolved<'a>(&mut self, providers: impl IntoIterator<Item = &'a Provider>) {
        let resolved = providers.into_iter().map(|provider| {
            let mut addresses = self.names.addresses_of(provider);
            addresses.sort();
            addresses.dedup();
            (provider.id.clone(), addresses)
        });
        let resolved = resolved.collect();
        self.outputs.push_back(Output::Resolved(resolved));
    }

    /// Handles what the endpoint and the registrations have to say, until they have nothing more.
    fn pump(&mut self, now: Instant) {
        loop {
            while let Some(event) = self.endpoint.poll_event() {
                self.on_event(event, now);
            }
            let sends = self.trunks.poll_sends(&self.names, now);
            if sends.is_empty() {
                break;
            }
            for send in sends {
                let (host, port) = self.via(&send.flow);
                let client = self
                    .endpoint
                    .request(send.request, send.flow, &host, port, now);
                self.trunks.sent(client, send.key);
            }
        }
        for (provider, report) in self.trunks.poll_reports(jiff::Timestamp::now(), now) {
            self.outputs
                .push_back(Output::Registration(provider, report));
        }
    }

    /// Host and port for our Via towards a carrier.
    fn via(&self, flow: &Flow) -> (Host, u16) {
        let towards = || (self.source_towards)(flow.remote.ip());
        self.local.told(flow.transport, towards).unwrap_or_else(|| {
            let own = self.local.advertised.or_else(towards);
            let own = own.unwrap_or(IpAddr::from([127, 0, 0, 1]));
            (Host::Ip(own), self.local.port(flow.transport))
        })
    }

    /// Begins to relay a request.
    fn relay(&mut self, id: ServerId, request: Request, kind: Kind, now: Instant) {
        // What is refused gets no 100 before: without one a challenge need not be repeated.
        if request.method == Method::INVITE {
            let trying = Response::to_request(&request, 100, None);
            self.endpoint.respond(id, trying, now);
        }
        let relay = Relay {
            request,
            kind,
            client: None,
            timer: None,
            cancelled: None,
            done: false,
        };
        self.relays.insert(id, relay);
    }

    fn is_link(&self, flow: &Flow) -> bool {
        self.links.values().any(|link| link.flow == *flow)
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Request { id, request, flow } => {
                if self.is_link(&flow) {
                    self.on_pod_request(id, request, now);
                } else {
                    self.on_carrier_request(id, request, &flow, now);
                }
            }
            Event::Ack { request, flow } => self.on_ack(request, &flow, now),
            Event::Cancelled { id, request } => {
                let reason = request.headers.get(&HeaderName::Reason).map(str::to_owned);
                if let Some(relay) = self.relays.get_mut(&id) {
                    relay.cancelled.get_or_insert(487);
                    if let Some(client) = relay.client {
                        self.endpoint.cancel(client, reason.as_deref(), now);
                    }
                }
            }
            Event::Response { id, response, .. } if self.trunks.owns_client(id) => {
                self.trunks.on_response(id, &response, &mut self.names, now);
            }
            Event::Response { id, response, .. } => self.on_response(id, response, now),
            Event::Retransmitted { id, sends, elapsed } => {
                self.trunks.on_retransmitted(id, sends, elapsed, now);
            }
            Event::Failed { id, error } => {
                if self.trunks.owns_client(id) {
                    self.trunks.on_failed(id, &error, &mut self.names, now);
                } else if let Some(server) = self.by_client.get(&id).copied() {
                    self.on_failed(server, &error, now);
                }
            }
            Event::ClientEnded { id } => {
                self.trunks.client_ended(id);
                self.by_client.remove(&id);
                give_back(&mut self.by_client);
                self.abandoned.remove(&id);
            }
            Event::Ended { id } => {
                self.set_timer(id, None);
                self.relays.remove(&id);
                give_back(&mut self.relays);
            }
            Event::AckTimeout { .. } | Event::StrayResponse { .. } => {}
        }
    }
}

/// Which of our addresses leads to a peer. Asking costs some system calls, so each is asked for once while many providers are gone
/// through.
struct Sources {
    towards: fn(IpAddr) -> Option<IpAddr>,
    known: HashMap<IpAddr, Option<IpAddr>>,
}

impl Sources {
    fn new(towards: fn(IpAddr) -> Option<IpAddr>) -> Self {
        Self {
            towards,
            known: HashMap::new(),
        }
    }

    fn towards(&mut self, peer: IpAddr) -> Option<IpAddr> {
        let ask = self.towards;
        *self.known.entry(peer).or_insert_with(|| ask(peer))
    }
}

/// Our Contact at a carrier; `None` while the way to it is unknown, or where it reaches us.
fn contact_of(
    provider: &Provider,
    names: &Names,
    local: &Local,
    sources: &mut Sources,
) -> Option<NameAddr> {
    let (host, port, way) = names::server(provider);
    // A name without address: the trunk is to exist, so that it can say so, and has nowhere to send anyway.
    let nowhere = IpAddr::from([127, 0, 0, 1]);
    let (transport, towards) = match names.targets(host, port, way, lot(&provider.id.to_string())) {
        Ok(targets) => {
            let first = targets.first()?;
            let towards = match local.advertised {
                Some(_) => None,
                None => sources.towards(first.remote.ip()),
            };
            let unknown = matches!(host, gateway::Host::Address(_)).then_some(nowhere);
            (first.transport, towards.or(unknown))
        }
        Err(Nowhere::Failed(_)) => (Transport::Udp, Some(nowhere)),
        Err(Nowhere::Unknown(_)) => (way?.transport(), None),
    };
    let (host, port) = local.told(transport, || towards)?;
    let mut uri = Uri::sip(Some(&provider.contact_user), host, Some(port));
    match transport {
        Transport::Udp => {}
        Transport::Tcp => uri.params.set("transport", Some("tcp")),
        Transport::Tls => uri.params.set("transport", Some("tls")),
    }
    Some(NameAddr::new(uri))
}
