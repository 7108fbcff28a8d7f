//! The registrar's logic without sockets and clock: messages, results of look-ups and `Instant`s in; bytes, look-ups and reports out.
//!
//! Towards carriers it is the user agent, towards media pods a proxy that keeps transactions but no dialogs: what belongs to a dialog
//! finds its media pod by the signed token in our Contact. One [`Endpoint`] holds the transactions of both sides; links to media pods
//! are flows like others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use ringwire_config::gateway::{Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::route::{self, IncomingCall, Refusal};
use ringwire_config::state::RegistrationReport;
use ringwire_config::token::{self, Incarnation};
use ringwire_config::{Reason, gateway};
use ringwire_sip::message::{HeaderName, Host, Message, Method, NameAddr, Request, Response, Uri};
use ringwire_sip::transaction::{
    ClientId, Endpoint, EndpointConfig, Event, Flow, ServerId, Transmit, Transport, TransportError,
};

use super::names::{self, Lookup, Names};
use super::trunks::{self, ALLOW, Trunks};
use crate::{USER_AGENT, private};

/// A media pod has to say something by then, or another is asked (DESIGN §3).
const FIRST_SIGN: Duration = Duration::from_millis(300);

/// At most so many media pods are asked for one call.
const MAX_TRIES: usize = 3;

/// A look-up for an in-dialog request has to be over by then.
const PARK_LIMIT: Duration = Duration::from_secs(5);

/// Keep-alives hold bindings of NATs, which forget UDP after 30 s (RFC 5626 section 4.4.2).
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// Whether this registrar keeps a provider's registration.
pub type Owns = Arc<dyn Fn(&ObjectRef) -> bool + Send + Sync>;

/// Where we are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// What we advertise; `None`: the address that leads to the peer.
    pub advertised: Option<IpAddr>,
    /// UDP port of SIP.
    pub udp_port: u16,
    /// TCP port of SIP.
    pub tcp_port: u16,
}

/// What the edge tells its shell, besides bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The names whose addresses are wanted from now on.
    Names(BTreeSet<String>),
    /// A registration's new state.
    Registration(ObjectRef, RegistrationReport),
    /// The providers that register here.
    Registrations(BTreeSet<ObjectRef>),
    /// Addresses of a provider's server and allowed names.
    Resolved(BTreeMap<ObjectRef, Vec<IpAddr>>),
    /// A call was refused here, before any media pod.
    Refused(RefusedCall),
    /// A call was handed to a media pod.
    Forwarded {
        /// The number it is for.
        number: ObjectRef,
    },
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
    calls: u32,
    /// Calls handed over since the last report of its load.
    pending: u32,
    accepting: bool,
}

enum Kind {
    /// A new call: private headers to send along, pods asked so far, whether one said anything, and until when it has to.
    Call {
        headers: Vec<(HeaderName, String)>,
        tried: Vec<Incarnation>,
        silent_until: Option<Instant>,
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
    cancelled: bool,
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
    /// Names of in-dialog requests' targets, and until when they are wanted.
    extra_names: BTreeMap<String, Instant>,
    trunks: Trunks,
    owns: Owns,
    links: BTreeMap<Incarnation, Link>,
    relays: HashMap<ServerId, Relay>,
    by_client: HashMap<ClientId, ServerId>,
    /// Branches given up for another media pod: their late answers are not for the caller.
    abandoned: HashMap<ClientId, Request>,
    parked: Vec<(ServerId, String, Instant)>,
    next_keep_alive: Option<Instant>,
    draining: bool,
    outputs: VecDeque<Output>,
}

impl Edge {
    /// An edge without configuration: it refuses all calls until [`Self::configure`]. `source_towards` tells which of our
    /// addresses leads to a peer.
    pub fn new(
        config: Arc<RegistrarConfig>,
        local: Local,
        source_towards: fn(IpAddr) -> Option<IpAddr>,
        seed: u64,
    ) -> Self {
        let endpoint = EndpointConfig {
            trying_at_once: true,
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
            extra_names: BTreeMap::new(),
            trunks: Trunks::default(),
            owns: Arc::new(|_| true),
            links: BTreeMap::new(),
            relays: HashMap::new(),
            by_client: HashMap::new(),
            abandoned: HashMap::new(),
            parked: Vec::new(),
            next_keep_alive: None,
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
        self.config = config;
        self.local = local;
        self.owns = owns;
        self.configure_trunks(now);
        self.want_names(now);
        self.tell_resolved();
        self.pump(now);
    }

    fn configure_trunks(&mut self, now: Instant) {
        let (local, source_towards) = (self.local.clone(), self.source_towards);
        let contact = |provider: &Provider, names: &Names| {
            contact_of(provider, names, &local, source_towards)
        };
        self.trunks
            .configure(&self.config, &*self.owns, contact, &self.names, now);
        self.outputs
            .push_back(Output::Registrations(self.trunks.ids().cloned().collect()));
    }

    /// From now on new calls are refused with 503.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The result of a look-up.
    pub fn resolved(&mut self, name: &str, lookup: Lookup, now: Instant) {
        self.names.update(name.to_owned(), lookup);
        let ready: Vec<ServerId> = self
            .parked
            .iter()
            .filter(|(_, parked, _)| parked == name)
            .map(|(id, ..)| *id)
            .collect();
        self.parked.retain(|(_, parked, _)| parked != name);
        for id in ready {
            self.send_to_carrier(id, now);
        }
        // Which of our addresses leads to a carrier may be known only now.
        self.configure_trunks(now);
        self.tell_resolved();
        self.pump(now);
    }

    /// A link to a media pod is up.
    pub fn link_up(&mut self, incarnation: Incarnation, flow: Flow) {
        self.links.insert(
            incarnation,
            Link {
                flow,
                calls: 0,
                pending: 0,
                accepting: true,
            },
        );
    }

    /// A media pod's load.
    pub fn link_load(&mut self, incarnation: Incarnation, calls: u32, accepting: bool) {
        if let Some(link) = self.links.get_mut(&incarnation) {
            (link.calls, link.pending, link.accepting) = (calls, 0, accepting);
        }
    }

    /// A stream (to a carrier or a media pod) has closed or could not be opened.
    pub fn flow_failed(&mut self, flow: &Flow, error: TransportError, now: Instant) {
        self.links.retain(|_, link| link.flow != *flow);
        self.endpoint.flow_failed(flow, error, now);
        self.trunks.flow_lost(flow.transport, flow.remote, now);
        self.pump(now);
    }

    /// A message has come in.
    pub fn receive(&mut self, message: Message, flow: Flow, now: Instant) {
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

    /// Things to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.relays.values().filter_map(|relay| match relay.kind {
            Kind::Call { silent_until, .. } => silent_until,
            _ => None,
        });
        [
            self.endpoint.poll_timeout(),
            self.trunks.poll_timeout(),
            self.next_keep_alive,
        ]
        .into_iter()
        .flatten()
        .chain(silent)
        .chain(self.parked.iter().map(|(.., limit)| *limit))
        .min()
    }

    /// Runs due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.trunks.handle_timeout(now);
        let silent: Vec<ServerId> = self
            .relays
            .iter()
            .filter(|(_, relay)| matches!(relay.kind, Kind::Call { silent_until: Some(at), .. } if at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            tracing::warn!("a media pod said nothing for 300 ms; asking another");
            self.next_pod(id, now);
        }
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
        if self.next_keep_alive.is_some_and(|at| at <= now) {
            self.next_keep_alive = None;
            for flow in self.trunks.bound_flows() {
                self.outputs.push_back(Output::KeepAlive(flow));
            }
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
        self.outputs.push_back(Output::Names(wanted));
    }

    fn tell_resolved(&mut self) {
        let resolved =
            self.config
                .providers
                .values()
                .map(|provider| {
                    let hosts = std::iter::once(&provider.server)
                        .cloned()
                        .chain(
                            provider
                                .outbound_proxy
                                .as_ref()
                                .map(|(host, _)| host.clone()),
                        )
                        .chain(provider.allowed_sources.iter().filter_map(
                            |allowed| match allowed {
                                gateway::AllowedSource::Name(name) => {
                                    Some(gateway::Host::Name(name.clone()))
                                }
                                gateway::AllowedSource::Net(_) => None,
                            },
                        ));
                    let mut addresses: Vec<IpAddr> =
                        hosts.flat_map(|host| self.names.addresses(&host)).collect();
                    addresses.sort();
                    addresses.dedup();
                    (provider.id.clone(), addresses)
                })
                .collect();
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
                self.trunks.sent(client, send.provider, send.token);
            }
        }
        for (provider, report) in self.trunks.poll_reports(jiff::Timestamp::now(), now) {
            self.outputs
                .push_back(Output::Registration(provider, report));
        }
        if self.next_keep_alive.is_none() {
            self.next_keep_alive = Some(now + KEEP_ALIVE);
        }
    }

    /// Host and port for our Via towards a carrier.
    fn via(&self, flow: &Flow) -> (Host, u16) {
        let address = self
            .local
            .advertised
            .or_else(|| (self.source_towards)(flow.remote.ip()));
        let port = if flow.transport == Transport::Udp {
            self.local.udp_port
        } else {
            self.local.tcp_port
        };
        (
            Host::Ip(address.unwrap_or(IpAddr::from([127, 0, 0, 1]))),
            port,
        )
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
            Event::Ack { request, flow } => self.on_ack(request, &flow),
            Event::Cancelled { id, request } => {
                let reason = request.headers.get(&HeaderName::Reason).map(str::to_owned);
                if let Some(relay) = self.relays.get_mut(&id) {
                    relay.cancelled = true;
                    if let Some(client) = relay.client {
                        self.endpoint.cancel(client, reason.as_deref(), now);
                    }
                }
            }
            Event::Response { id, response, .. } if self.trunks.owns_client(id) => {
                let failed = response.status >= 500;
                self.trunks.on_client(
                    id,
                    |trunk, token| trunk.on_response(token, &response, now),
                    failed,
                );
            }
            Event::Response { id, response, .. } => self.on_response(id, response, now),
            Event::Retransmitted { id, sends, elapsed } => {
                self.trunks.on_client(
                    id,
                    |trunk, token| trunk.on_retransmitted(token, sends, elapsed),
                    false,
                );
            }
            Event::Failed { id, error } => {
                if self.trunks.owns_client(id) {
                    self.trunks.on_client(
                        id,
                        |trunk, token| trunk.on_failed(token, &error, now),
                        true,
                    );
                } else if let Some(server) = self.by_client.get(&id).copied() {
                    self.on_failed(server, now);
                }
            }
            Event::ClientEnded { id } => {
                self.trunks.client_ended(id);
                self.by_client.remove(&id);
                self.abandoned.remove(&id);
            }
            Event::Ended { id } => {
                self.relays.remove(&id);
            }
            Event::AckTimeout { .. } | Event::StrayResponse { .. } => {}
        }
    }

    // ---- from carriers

    fn on_carrier_request(
        &mut self,
        id: ServerId,
        mut request: Request,
        flow: &Flow,
        now: Instant,
    ) {
        private::strip(&mut request.headers);
        let to_tag = request
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned));
        if let Some(tag) = to_tag {
            let pod = self.pod_of(&request, &tag);
            match pod.and_then(|pod| self.links.get(&pod)) {
                Some(link) => {
                    let link = link.flow.clone();
                    self.relays.insert(
                        id,
                        Relay {
                            request,
                            kind: Kind::ToPod,
                            client: None,
                            cancelled: false,
                            done: false,
                        },
                    );
                    let headers = vec![flow_header(flow), source_header(flow)];
                    self.forward(id, &link, &headers, now);
                }
                None => self.answer(id, &request, 481, None, now),
            }
            return;
        }
        if request.headers.max_forwards() == Some(0) && request.method != Method::OPTIONS {
            return self.answer(id, &request, 483, None, now);
        }
        if request.method == Method::INVITE {
            self.on_invite(id, request, flow, now);
        } else if request.method == Method::OPTIONS {
            let status = if self.draining { 503 } else { 200 };
            self.answer(id, &request, status, None, now);
        } else if request.method == Method::BYE
            || request.method == Method::UPDATE
            || request.method == Method::INFO
        {
            self.answer(id, &request, 481, None, now);
        } else {
            self.answer(id, &request, 405, None, now);
        }
    }

    /// The media pod of an in-dialog request: by our Contact's token, else by the one in our tag.
    fn pod_of(&self, request: &Request, to_tag: &str) -> Option<Incarnation> {
        let keys = &self.config.settings.token_keys;
        let by_contact = request
            .uri
            .user
            .as_deref()
            .and_then(|user| token::verify(keys, user));
        by_contact.or_else(|| token::verify(keys, to_tag))
    }

    fn on_invite(&mut self, id: ServerId, request: Request, flow: &Flow, now: Instant) {
        let user_of = |name: &HeaderName| {
            let first = request.headers.readable(name).into_iter().next()?;
            first.uri.user_unescaped()
        };
        let request_user = request.uri.user_unescaped();
        let called_party = user_of(&HeaderName::PCalledPartyId);
        let to = user_of(&HeaderName::To);
        let refused = |reason,
                       status,
                       provider: Option<ObjectRef>,
                       number: Option<String>,
                       detail: String| RefusedCall {
            reason,
            status,
            source: flow.remote,
            call_id: request.headers.call_id().unwrap_or_default().to_owned(),
            from: user_of(&HeaderName::From).unwrap_or_default(),
            to: to
                .clone()
                .or_else(|| request_user.clone())
                .unwrap_or_default(),
            provider,
            number,
            detail,
        };
        if self.draining {
            let refused = refused(
                Reason::Draining,
                503,
                None,
                None,
                "this gateway is stopping".into(),
            );
            self.outputs.push_back(Output::Refused(refused));
            return self.answer(
                id,
                &request,
                503,
                Some((HeaderName::RetryAfter, "10".into())),
                now,
            );
        }
        let config = Arc::clone(&self.config);
        let call = IncomingCall {
            source: flow.remote.ip(),
            request_user: request_user.as_deref(),
            called_party_user: called_party.as_deref(),
            to_user: to.as_deref(),
        };
        let route = match route::route(&config, call, &self.names) {
            Ok(route) => route,
            Err(refusal) => {
                let refused = match refusal {
                    Refusal::SourceNotAllowed {
                        dialled: Some((provider, number)),
                    } => refused(
                        Reason::SourceNotAllowed,
                        403,
                        Some(provider.id.clone()),
                        Some(number.to_owned()),
                        format!(
                            "add {} to spec.allowedSources of {} to let it in",
                            flow.remote.ip(),
                            provider.id
                        ),
                    ),
                    Refusal::SourceNotAllowed { dialled: None } => refused(
                        Reason::SourceNotAllowed,
                        403,
                        None,
                        None,
                        "no provider accepts this source".into(),
                    ),
                    Refusal::NumberNotFound { provider, compared } => refused(
                        Reason::NumberNotFound,
                        404,
                        Some(provider.id.clone()),
                        None,
                        format!(
                            "compared {} with the numbers of {}",
                            compared.join(", "),
                            provider.id
                        ),
                    ),
                    Refusal::NoAgent {
                        provider,
                        number,
                        entry,
                    } => refused(
                        Reason::NoAgent,
                        480,
                        Some(provider.id.clone()),
                        Some(number.to_owned()),
                        format!("PhoneNumber {} has no agent that could answer", entry.id),
                    ),
                };
                let extra = Some(reason_header(refused.status, refused.reason.as_str()));
                let status = refused.status;
                self.outputs.push_back(Output::Refused(refused));
                return self.answer(id, &request, status, extra, now);
            }
        };
        let contact = self.contact_base(flow);
        let codecs: Vec<String> = route
            .provider
            .codecs
            .iter()
            .map(|codec| format!("{codec:?}"))
            .collect();
        let headers = vec![
            (
                private::name(private::PROVIDER),
                route.provider.id.to_string(),
            ),
            (private::name(private::NUMBER), route.entry.id.to_string()),
            (private::name(private::CALLED), route.number.to_owned()),
            (private::name(private::AGENT), route.agent.to_string()),
            (private::name(private::CODECS), codecs.join(",")),
            (private::name(private::CONTACT), contact.to_string()),
            source_header(flow),
            flow_header(flow),
        ];
        self.outputs.push_back(Output::Forwarded {
            number: route.entry.id.clone(),
        });
        let kind = Kind::Call {
            headers,
            tried: Vec::new(),
            silent_until: None,
        };
        self.relays.insert(
            id,
            Relay {
                request,
                kind,
                client: None,
                cancelled: false,
                done: false,
            },
        );
        self.next_pod(id, now);
    }

    /// The URI of our Contact towards a peer, still without user part.
    fn contact_base(&self, flow: &Flow) -> Uri {
        let (host, port) = self.via(flow);
        let mut uri = Uri::sip(None, host, Some(port));
        if flow.transport != Transport::Udp {
            uri.params.set("transport", Some("tcp"));
        }
        uri
    }

    /// Hands a call to a media pod that was not asked yet, or refuses it if none is left.
    fn next_pod(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        if let Some(client) = relay.client.take() {
            self.by_client.remove(&client);
            self.abandoned.insert(client, relay.request.clone());
            self.endpoint.cancel(client, None, now);
        }
        let Kind::Call {
            headers,
            tried,
            silent_until,
        } = &mut relay.kind
        else {
            return;
        };
        *silent_until = None;
        let candidates: Vec<Incarnation> = self
            .links
            .iter()
            .filter(|(pod, link)| link.accepting && !tried.contains(pod))
            .map(|(pod, _)| *pod)
            .collect();
        if relay.cancelled {
            return self.refuse(id, 487, None, now);
        }
        if candidates.is_empty() || tried.len() >= MAX_TRIES {
            return self.refuse(id, 503, Some((HeaderName::RetryAfter, "5".into())), now);
        }
        // The better of two drawn at random: spreads calls evenly although reports of load are late.
        let draw = |rng: &mut StdRng| candidates[rng.random_range(0..candidates.len())];
        let (a, b) = (draw(&mut self.rng), draw(&mut self.rng));
        let load = |pod: &Incarnation| {
            self.links
                .get(pod)
                .map_or(u32::MAX, |link| link.calls + link.pending)
        };
        let pod = if load(&b) < load(&a) { b } else { a };
        tried.push(pod);
        *silent_until = Some(now + FIRST_SIGN);
        let headers = headers.clone();
        if let Some(link) = self.links.get_mut(&pod) {
            link.pending += 1;
            let flow = link.flow.clone();
            self.forward(id, &flow, &headers, now);
        }
    }

    /// Forwards a relayed request to a media pod. Its Vias stay here: responses get them back from the original.
    fn forward(
        &mut self,
        id: ServerId,
        flow: &Flow,
        headers: &[(HeaderName, String)],
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let mut request = relay.request.clone();
        request.headers.remove(&HeaderName::Via);
        request.headers.remove(&HeaderName::Route);
        let hops = request
            .headers
            .max_forwards()
            .unwrap_or(70)
            .saturating_sub(1);
        request
            .headers
            .set(HeaderName::MaxForwards, hops.to_string());
        for (name, value) in headers {
            request.headers.push(name.clone(), value.clone());
        }
        let client = self.endpoint.request(
            request,
            flow.clone(),
            &Host::Name("registrar.invalid".into()),
            5060,
            now,
        );
        relay.client = Some(client);
        self.by_client.insert(client, id);
    }

    // ---- from media pods

    fn on_pod_request(&mut self, id: ServerId, request: Request, now: Instant) {
        self.relays.insert(
            id,
            Relay {
                request,
                kind: Kind::ToCarrier,
                client: None,
                cancelled: false,
                done: false,
            },
        );
        self.send_to_carrier(id, now);
    }

    fn send_to_carrier(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        let target = relay
            .request
            .headers
            .routes()
            .first()
            .map_or(&relay.request.uri, |route| &route.uri)
            .clone();
        let flow = match self.next_hop(&relay.request, &target) {
            Ok(flow) => flow,
            Err(name) => {
                if matches!(self.names.get(&name), Some(Lookup::Failed(_))) {
                    return self.refuse(id, 408, None, now);
                }
                self.extra_names.insert(name.clone(), now + PARK_LIMIT * 2);
                self.parked.push((id, name, now + PARK_LIMIT));
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
    }

    /// Where a request of ours goes: over the connection its dialog came in on if it is a stream that still stands, else where
    /// Route or Request-URI says. `Err`: the name that has to be looked up first.
    fn next_hop(&self, request: &Request, target: &Uri) -> Result<Flow, String> {
        let noted = request
            .headers
            .get(&private::name(private::FLOW))
            .and_then(parse_flow);
        let transport = match target.transport().as_deref() {
            Some(text) if text.eq_ignore_ascii_case("tcp") => Transport::Tcp,
            _ => Transport::Udp,
        };
        if let Some(flow) = noted
            && flow.transport.is_reliable()
        {
            // The shell falls back to a new connection to this address if the old one is gone.
            return Ok(flow);
        }
        let port = target.port.unwrap_or(5060);
        match &target.host {
            Host::Ip(address) => Ok(Flow {
                transport,
                remote: SocketAddr::new(*address, port),
                connection: None,
            }),
            Host::Name(name) => {
                let name = name.to_ascii_lowercase();
                match self
                    .names
                    .addresses(&gateway::Host::Name(name.clone()))
                    .first()
                {
                    Some(address) => Ok(Flow {
                        transport,
                        remote: SocketAddr::new(*address, port),
                        connection: None,
                    }),
                    None => Err(name),
                }
            }
        }
    }

    // ---- what comes back

    fn on_ack(&mut self, mut request: Request, flow: &Flow) {
        if self.is_link(flow) {
            let target = request
                .headers
                .routes()
                .first()
                .map_or(&request.uri, |route| &route.uri)
                .clone();
            if let Ok(flow) = self.next_hop(&request, &target) {
                let (host, port) = self.via(&flow);
                private::strip(&mut request.headers);
                let via = self.endpoint.new_via(flow.transport, &host, port);
                request.headers.remove(&HeaderName::Via);
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(Message::Request(request), flow);
            }
            return;
        }
        private::strip(&mut request.headers);
        let tag = request
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned))
            .unwrap_or_default();
        if let Some(link) = self
            .pod_of(&request, &tag)
            .and_then(|pod| self.links.get(&pod))
        {
            let flow = link.flow.clone();
            self.endpoint
                .send_stateless(Message::Request(request), flow);
        }
    }

    fn on_response(&mut self, client: ClientId, response: Response, now: Instant) {
        if let Some(invite) = self.abandoned.get(&client) {
            if response.is_success() {
                self.end_late_answer(&invite.clone(), &response, client, now);
            }
            return;
        }
        let Some(id) = self.by_client.get(&client).copied() else {
            return;
        };
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let is_call = matches!(relay.kind, Kind::Call { .. });
        if let Kind::Call { silent_until, .. } = &mut relay.kind {
            *silent_until = None;
        }
        if response.status == 100 {
            return;
        }
        if is_call && response.headers.has(&private::name(private::TRY_ANOTHER)) && !relay.cancelled
        {
            relay.client = None;
            self.by_client.remove(&client);
            return self.next_pod(id, now);
        }
        let mut relayed = response;
        relayed.headers.remove(&HeaderName::Via);
        for (position, via) in relay.request.headers.get_all(&HeaderName::Via).enumerate() {
            if position == 0 {
                relayed.headers.insert_first(HeaderName::Via, via);
            } else {
                relayed.headers.push(HeaderName::Via, via);
            }
        }
        if !matches!(relay.kind, Kind::ToCarrier) {
            private::strip(&mut relayed.headers);
        }
        relay.done |= relayed.status >= 200;
        self.endpoint.respond(id, relayed, now);
    }

    /// A media pod answered a call that another was asked for meanwhile: acknowledge and end it there.
    fn end_late_answer(
        &mut self,
        invite: &Request,
        response: &Response,
        client: ClientId,
        now: Instant,
    ) {
        let _ = client;
        let contact =
            NameAddr::new(self.contact_base(&Flow::udp(SocketAddr::from(([127, 0, 0, 1], 0)))));
        let Ok(mut dialog) =
            ringwire_sip::dialog::Dialog::from_response(invite, response, &contact)
        else {
            return;
        };
        let tag = response
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned))
            .unwrap_or_default();
        let Some(link) = self
            .pod_of(invite, &tag)
            .and_then(|pod| self.links.get(&pod))
        else {
            return;
        };
        let flow = link.flow.clone();
        let cseq = invite.headers.cseq().map_or(1, |(number, _)| number);
        self.endpoint
            .send_stateless(Message::Request(dialog.ack(cseq)), flow.clone());
        let bye = dialog.request(Method::BYE);
        self.endpoint.request(
            bye,
            flow,
            &Host::Name("registrar.invalid".into()),
            5060,
            now,
        );
    }

    /// No final response will come to a relayed request.
    fn on_failed(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let client = relay.client.take();
        if let Some(client) = client {
            self.by_client.remove(&client);
        }
        match &relay.kind {
            // Nothing was heard of the pod: another may take the call. Later, its agent may have been reached.
            Kind::Call {
                silent_until: Some(_),
                ..
            } => self.next_pod(id, now),
            Kind::Call { .. } => {
                self.refuse(id, 480, Some(reason_header(480, "media pod lost")), now);
            }
            Kind::ToPod => self.refuse(id, 481, None, now),
            Kind::ToCarrier => self.refuse(id, 408, None, now),
        }
    }

    /// Answers a relayed request ourselves.
    fn refuse(
        &mut self,
        id: ServerId,
        status: u16,
        extra: Option<(HeaderName, String)>,
        now: Instant,
    ) {
        if let Some(relay) = self.relays.get(&id) {
            let request = relay.request.clone();
            self.answer(id, &request, status, extra, now);
        }
    }

    fn answer(
        &mut self,
        id: ServerId,
        request: &Request,
        status: u16,
        extra: Option<(HeaderName, String)>,
        now: Instant,
    ) {
        let mut response = Response::to_request(request, status, None);
        if request.headers.to().is_ok_and(|to| to.tag().is_none()) {
            response.set_to_tag(&format!("{:016x}", self.rng.random::<u64>()));
        }
        response.headers.push(HeaderName::Server, USER_AGENT);
        if matches!(status, 200 | 405) {
            response.headers.push(ALLOW.0, ALLOW.1);
        }
        if status == 200 {
            response.headers.push(HeaderName::Accept, "application/sdp");
        }
        if let Some((name, value)) = extra {
            response.headers.push(name, value);
        }
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.done = true;
        }
        self.endpoint.respond(id, response, now);
    }
}

/// Our Contact at a carrier; `None` while the way to it is unknown.
fn contact_of(
    provider: &Provider,
    names: &Names,
    local: &Local,
    source_towards: fn(IpAddr) -> Option<IpAddr>,
) -> Option<NameAddr> {
    let transport = trunks::transport(provider.transport);
    let host = provider
        .outbound_proxy
        .as_ref()
        .map_or(&provider.server, |(host, _)| host);
    let towards = || {
        names
            .addresses(host)
            .first()
            .copied()
            .and_then(source_towards)
    };
    let unknown = match host {
        gateway::Host::Name(name) => matches!(names.get(name), Some(Lookup::Failed(_))),
        gateway::Host::Address(_) => true,
    };
    // A name without address: the trunk is to exist, so that it can say so, and has nowhere to send anyway.
    let fallback = unknown.then_some(IpAddr::from([127, 0, 0, 1]));
    let address = local.advertised.or_else(towards).or(fallback)?;
    let port = if transport == Transport::Udp {
        local.udp_port
    } else {
        local.tcp_port
    };
    let mut uri = Uri::sip(Some(&provider.contact_user), Host::Ip(address), Some(port));
    if transport != Transport::Udp {
        uri.params.set("transport", Some("tcp"));
    }
    Some(NameAddr::new(uri))
}

fn reason_header(status: u16, text: &str) -> (HeaderName, String) {
    (
        HeaderName::Reason,
        format!("SIP;cause={status};text=\"{text}\""),
    )
}

fn source_header(flow: &Flow) -> (HeaderName, String) {
    (private::name(private::SOURCE), flow.remote.to_string())
}

fn flow_header(flow: &Flow) -> (HeaderName, String) {
    let connection = flow.connection.unwrap_or_default();
    (
        private::name(private::FLOW),
        format!("{}:{connection}:{}", flow.transport.as_str(), flow.remote),
    )
}

fn parse_flow(text: &str) -> Option<Flow> {
    let (transport, rest) = text.split_once(':')?;
    let (connection, remote) = rest.split_once(':')?;
    let transport = if transport == "UDP" {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    let connection = connection.parse().ok().filter(|number| *number != 0);
    Some(Flow {
        transport,
        remote: remote.parse().ok()?,
        connection,
    })
}
