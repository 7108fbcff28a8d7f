//! The registrar role: the sockets, look-ups and reports around [`edge::Edge`].

mod bucket;
mod connections;
pub mod edge;
mod guard;
mod intake;
mod lookup;
mod names;
pub mod place;
mod refusals;
mod resolved;
pub mod tls;
mod trunks;
mod udp;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use ringwire_config::Reason;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_config::state::CutOff;
use ringwire_control::Reporter;
use ringwire_sip::message::{Message, parse_datagram};
use ringwire_sip::transaction::{Flow, Transmit, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::connections::{Carrier, Connections, Made};
use self::edge::{Edge, Output, Owns, RefusedCall};
use self::guard::Banned;
use self::guard::sight::{Datagram as Seen, Sight};
use self::intake::Intake;
use self::names::{Lookup, Question};
use self::place::Local;
use self::refusals::{Bursts, Ledger};
use self::resolved::Resolved;
use self::udp::Datagram;
use crate::link::LinkEvent;
use crate::record::CallRecord;
use crate::streams::{StreamEvent, transport_error};
use crate::trace::{Ours, Tap};

/// Datagrams that are read before timers and other sources get their turn.
const BATCH: usize = 64;

/// How long a stopping registrar goes on relaying what is under way.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// How long a stopping predecessor on the same host may keep its ports.
const PREDECESSOR: Duration = Duration::from_secs(20);

/// What a Contact says of a connection over TLS where nobody can connect to us: the carrier uses the one that we made.
const TLS_PORT: u16 = 5061;

/// Where a role runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's name.
    pub node: Option<String>,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// The address to bind.
    pub bind: IpAddr,
}

/// What a registrar is made of.
pub struct Params {
    /// Its configuration; the first one has to be there.
    pub config: watch::Receiver<Option<Arc<RegistrarConfig>>>,
    /// Which providers it keeps registered.
    pub owns: watch::Receiver<Owns>,
    /// Its media pods.
    pub links: mpsc::Receiver<LinkEvent>,
    /// Its report.
    pub reporter: Reporter,
    /// Where it runs.
    pub identity: Identity,
    /// Looks up names.
    pub resolver: TokioResolver,
    /// From now on new calls are refused.
    pub drain: CancellationToken,
    /// Stop now.
    pub stop: CancellationToken,
    /// Told once, when the sockets are bound.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told that the loop turns.
    pub beat: Box<dyn Fn() + Send>,
    /// Shows every message to those who listen.
    pub tap: Tap,
}

/// A registrar could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No configuration will come.
    #[error("the source of the configuration is gone")]
    NoConfig,
    /// A port is taken, or may not be used.
    #[error("cannot listen on {address} over {transport}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// UDP or TCP.
        transport: &'static str,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The thread that reads the UDP socket has ended.
    #[error("nobody reads the SIP socket any more")]
    Deaf,
}

struct Sockets {
    udp: std::net::UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// On the host's network a predecessor may still hold the ports: it is waited for.
    async fn bind(address: IpAddr, config: &RegistrarConfig) -> Result<Self, StartError> {
        let patience = if config.settings.sip.host_network {
            PREDECESSOR
        } else {
            Duration::ZERO
        };
        let failed = |address, transport| {
            move |source| StartError::Bind {
                address,
                transport,
                source,
            }
        };
        let udp_address = SocketAddr::new(address, config.settings.sip_udp_port);
        let tcp_address = SocketAddr::new(address, config.settings.sip_tcp_port);
        let begun = Instant::now();
        loop {
            let udp = udp::bind(udp_address).map_err(failed(udp_address, "UDP"));
            let tcp = TcpListener::bind(tcp_address)
                .await
                .map_err(failed(tcp_address, "TCP"));
            match (udp, tcp) {
                (Ok(udp), Ok(tcp)) => return Ok(Self { udp, tcp }),
                (Err(StartError::Bind { source, .. }), _)
                | (_, Err(StartError::Bind { source, .. }))
                    if source.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < patience =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
    }
}

/// Which of our addresses leads to `peer`: what the kernel would send from. No packet is sent.
fn source_towards(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A running registrar's moving parts.
struct Shell {
    edge: Edge,
    intake: Intake,
    /// Who may not connect.
    banned: watch::Receiver<Banned>,
    connections: Connections,
    /// SIP over TLS for carriers that connect to us.
    tls: Option<tls::Listener>,
    secured: mpsc::Sender<tls::Accepted>,
    /// Where handshakes of TLS are worked on.
    elsewhere: Handle,
    wanted_names: watch::Sender<Arc<BTreeSet<Question>>>,
    reporter: Reporter,
    refusals: Ledger,
    resolved: Resolved,
    tap: Tap,
    bursts: Bursts,
    /// Our own address, or any.
    bind: IpAddr,
    /// The UDP and the TCP port that we listen on.
    ports: (u16, u16),
}

/// Runs a registrar until `stop`, best alone on a thread ([`crate::alone`]). The handshakes of TLS, which take long, are worked on
/// `elsewhere`.
pub async fn run(params: Params, elsewhere: Handle) -> Result<(), StartError> {
    let Params {
        mut config,
        mut owns,
        mut links,
        reporter,
        identity,
        resolver,
        drain,
        stop,
        ready,
        beat,
        tap,
    } = params;
    let first = config
        .wait_for(Option::is_some)
        .await
        .map_err(|_| StartError::NoConfig)?
        .clone();
    let Some(first) = first else {
        return Err(StartError::NoConfig);
    };
    let Sockets { udp, tcp } = Sockets::bind(identity.bind, &first).await?;
    tracing::info!(
        udp = first.settings.sip_udp_port, tcp = first.settings.sip_tcp_port, address = %identity.bind, "listening for SIP"
    );

    let (events_in, mut events) = mpsc::channel(1_024);
    let (made_in, mut made) = mpsc::channel(64);
    let (secured_in, mut secured) = mpsc::channel(64);
    let (names_in, mut names) = mpsc::channel(64);
    let (wanted_names, wanted) = watch::channel(Arc::default());
    let looking_up = tokio::spawn(lookup::run(resolver, wanted, names_in, stop.clone()));

    let udp_address = SocketAddr::new(identity.bind, first.settings.sip_udp_port);
    let (intake, mut inbox) =
        Intake::start(udp, Arc::clone(&first)).map_err(|source| StartError::Bind {
            address: udp_address,
            transport: "UDP",
            source,
        })?;
    let ports = (first.settings.sip_udp_port, first.settings.sip_tcp_port);
    let mut shell = Shell {
        edge: Edge::new(
            Arc::clone(&first),
            Local::of(&first, &identity, ports),
            source_towards,
            (Instant::now(), unix_time()),
            rand::random(),
        ),
        banned: intake.banned(),
        intake,
        connections: Connections::new(events_in, made_in, identity.bind, elsewhere.clone()),
        tls: None,
        elsewhere,
        secured: secured_in,
        wanted_names,
        reporter,
        refusals: Ledger::default(),
        resolved: Resolved::default(),
        bursts: Bursts::default(),
        tap,
        bind: identity.bind,
        ports,
    };
    shell.configure(&first, &owns.borrow_and_update().clone(), &identity);
    // The first call must not come before those that can take it.
    while let Ok(event) = links.try_recv() {
        shell.on_link(event);
    }
    shell.reporter.update(|state| state.ready = true);
    ready();

    let mut draining = false;
    let mut stopping = None;
    let mut followed = true;
    loop {
        shell.flush();
        beat();
        let now = Instant::now();
        shell.edge.set_clock(now, unix_time());
        shell.report_due(now);
        if stopping.is_some_and(|at| at <= now || shell.edge.is_quiet()) {
            break;
        }
        let timeouts = [
            shell.edge.poll_timeout(),
            shell.resolved.poll_timeout(now),
            stopping,
        ];
        let timeout = timeouts.into_iter().flatten().min();
        // A turn at least every second, for the heartbeat.
        let sleep = timeout
            .map_or(Duration::from_secs(1), |at| {
                at.saturating_duration_since(now)
            })
            .min(Duration::from_secs(1));
        tokio::select! {
            received = inbox.recv() => {
                let Some(first) = received else {
                    return Err(StartError::Deaf);
                };
                shell.on_datagram(&first);
                for _ in 1..BATCH {
                    match inbox.try_recv() {
                        Some(datagram) => shell.on_datagram(&datagram),
                        None => break,
                    }
                }
            }
            Some(event) = events.recv() => shell.on_stream(event),
            accepted = tcp.accept() => shell.on_accepted(accepted).await,
            Some((remote, result)) = secured.recv() => shell.on_secured(remote, result),
            Some(result) = made.recv() => shell.on_made(result),
            Some((question, lookup)) = names.recv() => shell.on_lookup(&question, lookup),
            Some(event) = links.recv() => shell.on_link(event),
            changed = config.changed(), if followed => {
                if changed.is_err() {
                    tracing::warn!("the source of the configuration is gone; the last one stays");
                    followed = false;
                    continue;
                }
                let latest = config.borrow_and_update().clone();
                if let Some(latest) = latest {
                    shell.configure(&latest, &owns.borrow().clone(), &identity);
                }
            }
            Ok(()) = owns.changed() => {
                let latest = config.borrow().clone();
                let owns = owns.borrow_and_update().clone();
                if let Some(latest) = latest {
                    shell.configure(&latest, &owns, &identity);
                }
            }
            () = tokio::time::sleep(sleep) => shell.edge.handle_timeout(Instant::now()),
            () = drain.cancelled(), if !draining => {
                draining = true;
                shell.edge.drain();
                shell.reporter.update(|state| { state.draining = true; state.ready = false; });
            }
            () = stop.cancelled(), if stopping.is_none() => {
                shell.edge.drain();
                stopping = Some(Instant::now() + STOP_GRACE);
            }
        }
    }
    shell.flush();
    shell.connections.close_all();
    looking_up.abort();
    tracing::info!("registrar stopped");
    Ok(())
}

impl Shell {
    fn configure(&mut self, config: &Arc<RegistrarConfig>, owns: &Owns, identity: &Identity) {
        let wanted = (config.settings.sip_udp_port, config.settings.sip_tcp_port);
        if wanted != self.ports {
            tracing::error!(
                listening = ?self.ports, ?wanted, "the SIP ports of the configuration take effect at the next start"
            );
        }
        let mut local = Local::of(config, identity, self.ports);
        let configured = tls::Listener::configure(
            &mut self.tls,
            config.tls.as_ref(),
            self.bind,
            (&self.banned, &self.elsewhere),
            &self.secured,
        );
        if let Err(error) = configured {
            tracing::error!(
                %error, "the certificate for SIP over TLS cannot be used; what was in use before stays"
            );
        }
        if let Some(tls) = &self.tls {
            local.tls_port = tls.port();
        }
        let ours = Ours {
            address: local.advertised,
            udp: local.udp_port,
            tcp: local.tcp_port,
            tls: local.tls_port,
        };
        let listens = [Some(Transport::Udp), Some(Transport::Tcp)]
            .into_iter()
            .chain([self.tls.as_ref().map(|_| Transport::Tls)]);
        let addresses = listens
            .flatten()
            .filter_map(|transport| {
                let (host, port) = local.told(transport, || Some(identity.bind))?;
                let transport = transport.as_str().to_lowercase();
                Some(format!("{transport}:{host}:{port}"))
            })
            .collect();
        self.edge
            .configure(Arc::clone(config), local, Arc::clone(owns), Instant::now());
        self.intake.configure(Arc::clone(config));
        self.refusals.retain(|id| config.providers.contains_key(id));
        self.resolved.retain(|id| config.providers.contains_key(id));
        self.tap.configured(config, ours);
        self.reporter.update(|state| {
            state.configuration.clone_from(&config.shards);
            state.not_understood.clone_from(&config.not_understood);
            state.addresses = addresses;
            Arc::make_mut(&mut state.registrations)
                .retain(|id, _| config.providers.contains_key(id));
            Arc::make_mut(&mut state.resolved).retain(|id, _| config.providers.contains_key(id));
            state
                .refused_sources
                .retain(|id, _| config.providers.contains_key(id));
            state
                .provider_refusals
                .retain(|id, _| config.providers.contains_key(id));
            let numbers = config.providers.values().flat_map(|p| p.numbers.values());
            let numbers: HashSet<_> = numbers.map(|number| &number.id).collect();
            Arc::make_mut(&mut state.last_call).retain(|id, _| numbers.contains(id));
        });
    }

    fn on_datagram(&mut self, datagram: &Datagram) {
        let flow = Flow::udp(datagram.source);
        self.tap.received(&flow, &datagram.bytes);
        match parse_datagram(&datagram.bytes) {
            Ok(message) => self.edge.receive(message, flow, Instant::now()),
            Err(failure) => self.reply_to_unreadable(flow, failure),
        }
    }

    fn reply_to_unreadable(&mut self, flow: Flow, failure: ringwire_sip::message::ParseFailure) {
        if let Some(mut reply) = failure.reply {
            tracing::debug!(source = %flow.remote, error = %failure.error, "malformed request");
            reply.headers.note_source(flow.remote);
            self.edge.send_stateless(Message::Response(*reply), flow);
        }
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let now = Instant::now();
        match event {
            StreamEvent::Message(flow, message) => {
                if self.hears(&flow, &*message, now) {
                    self.tap.received_message(&flow, &message);
                    self.edge.receive(*message, flow, now);
                }
            }
            StreamEvent::Unreadable(flow, failure) => {
                if self.hears(&flow, &Seen(b""), now) {
                    self.reply_to_unreadable(flow, *failure);
                }
            }
            StreamEvent::Closed(flow, error, cut) => {
                self.tap.closed(&flow);
                self.count(cut, flow.remote);
                if let Some(ours) = self.connections.closed(&flow) {
                    self.edge.flow_failed(&ours, error.clone(), now);
                }
                self.edge.flow_failed(&flow, error, now);
            }
        }
    }

    /// Whether a message on a connection is for the edge; the connection of one who is shut out is closed.
    fn hears(&mut self, flow: &Flow, message: &impl Sight, now: Instant) -> bool {
        let is_heard = self.intake.hears(flow, message, now);
        if !is_heard {
            self.connections.close(flow);
        }
        is_heard
    }

    async fn on_accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((_, remote)) if self.banned.borrow().holds(remote.ip()) => {
                self.count(Some(CutOff::SourceBanned), remote);
            }
            Ok((stream, remote)) => {
                let _ = stream.set_nodelay(true);
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                let taken = self
                    .connections
                    .accept(Box::new(stream), Transport::Tcp, remote);
                self.count(taken.err(), remote);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a SIP connection");
                // Out of descriptors, most likely: others need the time.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn on_secured(&mut self, remote: SocketAddr, result: Result<Carrier, CutOff>) {
        let taken =
            result.and_then(|stream| self.connections.accept(stream, Transport::Tls, remote));
        self.count(taken.err(), remote);
    }

    fn on_made(&mut self, made: Made) {
        if let Err((flow, error)) = self.connections.made(made) {
            self.edge.flow_failed(&flow, error, Instant::now());
        }
    }

    /// Counts a connection that was cut off, if it was.
    fn count(&mut self, cut: Option<CutOff>, remote: SocketAddr) {
        let Some(cut) = cut else {
            return;
        };
        tracing::debug!(source = %remote, reason = cut.as_str(), "connection cut off");
        self.reporter
            .update(|state| *state.cut_off.entry(cut).or_default() += 1);
    }

    fn on_lookup(&mut self, question: &Question, lookup: Lookup) {
        if let Lookup::Failed(error) = &lookup {
            tracing::warn!(%error, "name look-up failed");
        }
        self.edge.resolved(question, lookup, Instant::now());
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up {
                incarnation,
                pod,
                stream,
                closed,
            } => {
                tracing::info!(%pod, "link to media pod is up");
                let flow = self.connections.link(stream, &closed);
                self.tap.link(&flow, &pod);
                self.edge.link_up(incarnation, flow, Instant::now());
            }
            LinkEvent::Load {
                incarnation,
                load,
                accepting,
            } => self
                .edge
                .link_load(incarnation, load, accepting, Instant::now()),
        }
    }

    /// Sends what the edge wants sent, and does what it wants done.
    fn flush(&mut self) {
        loop {
            let mut idle = true;
            // Who a carrier is comes before what it is sent.
            while let Some(output) = self.edge.poll_output() {
                idle = false;
                self.perform(output);
            }
            while let Some(transmit) = self.edge.poll_transmit() {
                idle = false;
                self.transmit(transmit);
            }
            if idle {
                self.tap.turn();
                return;
            }
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        let flow = transmit.flow.clone();
        self.tap.sent(&flow, &transmit.bytes);
        if !transmit.bytes.starts_with(b"SIP/2.0 ") {
            self.intake.learn(flow.remote.ip());
        }
        if flow.transport == Transport::Udp {
            if let Err(error) = self.intake.udp.send(&transmit.bytes, flow.remote) {
                tracing::debug!(remote = %flow.remote, %error, "cannot send");
                self.edge
                    .flow_failed(&flow, transport_error(&error), Instant::now());
            }
            return;
        }
        let peer = self.edge.peer(flow.peer);
        if let Err((error, cut)) = self.connections.send(transmit, peer) {
            self.count(cut, flow.remote);
            self.edge.flow_failed(&flow, error, Instant::now());
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Names(names) => drop(self.wanted_names.send_replace(names)),
            Output::Registration(id, report) => {
                tracing::info!(
                    kind = "SipProvider", object = %id, reason = %report.reason, message = %report.message, "registration"
                );
                self.reporter.update(|state| {
                    Arc::make_mut(&mut state.registrations).insert(id, report);
                });
            }
            Output::Registrations(ids) => {
                let stale = self
                    .reporter
                    .read(|state| state.registrations.keys().any(|id| !ids.contains(id)));
                if stale {
                    self.reporter.update(|state| {
                        Arc::make_mut(&mut state.registrations).retain(|id, _| ids.contains(id));
                    });
                }
            }
            Output::Resolved(resolved) => {
                self.intake.found(resolved.values().flatten());
                self.resolved.note(resolved);
            }
            Output::Refused(call) => self.report_refused(call),
            Output::Forwarded { number, source } => {
                self.intake.learn(source);
                // To the second: two calls within one need no second report.
                let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
                    .unwrap_or_default();
                if self
                    .reporter
                    .read(|state| state.last_call.get(&number) != Some(&now))
                {
                    self.reporter.update(|state| {
                        Arc::make_mut(&mut state.last_call).insert(number, now);
                    });
                }
            }
            Output::WrongCredentials(source) => self.intake.offended(source, Instant::now()),
            Output::KeepAlive(flow) if flow.transport == Transport::Udp => {
                self.transmit(Transmit {
                    flow,
                    bytes: b"\r\n\r\n".to_vec(),
                    otherwise: None,
                });
            }
            Output::KeepAlive(flow) => self.connections.ping(&flow),
        }
    }

    fn report_resolved(&mut self, resolved: BTreeMap<ringwire_config::ObjectRef, Vec<IpAddr>>) {
        let news = self.reporter.read(|state| {
            let mut each = resolved.iter();
            each.any(|(id, addresses)| state.resolved.get(id) != Some(addresses))
        });
        if news {
            self.reporter
                .update(|state| Arc::make_mut(&mut state.resolved).extend(resolved));
            let known = self.reporter.read(|state| Arc::clone(&state.resolved));
            self.intake.set_resolved(Arc::clone(&known));
            self.tap.resolved(known);
        }
    }

    fn report_refused(&mut self, call: RefusedCall) {
        self.tap.refused(
            &call.call_id,
            call.provider.as_ref(),
            call.number.as_deref(),
        );
        let (now, at) = (Instant::now(), minute());
        self.reporter.update(|state| {
            *state.refusals.entry(call.reason).or_default() += 1;
            self.refusals.note(&call, now, at, state);
        });
        let Some(suppressed) = self.bursts.admit(&call, now) else {
            return;
        };
        let started = jiff::Timestamp::now();
        let detail = if suppressed > 0 {
            format!("{} ({suppressed} more like this before)", call.detail)
        } else {
            call.detail
        };
        let record = CallRecord {
            call_id: call.call_id,
            start: Some(started),
            end: Some(started),
            from: call.from,
            to: call.number.clone().unwrap_or(call.to),
            provider: call.provider.map(|provider| provider.to_string()),
            ended_by: "gateway",
            reason: Some(call.reason),
            status: call.status,
            detail,
            source: call.source.to_string(),
            ..CallRecord::default()
        };
        record.write();
    }

    /// Everybody may call these providers, and some have sent too much: it may concern each of them.
    fn report_shares(&mut self, count: u64, now: Instant) {
        let dropped = (Reason::FloodIgnored, count, BEYOND_SHARE);
        self.reporter.update(|state| {
            for provider in self.intake.open_to_everybody() {
                self.refusals
                    .note_dropped(provider, dropped, now, minute(), state);
            }
        });
    }

    /// Reports carriers' addresses, the refusals that have waited for the end of their minute, and what was not even looked at.
    fn report_due(&mut self, now: Instant) {
        if let Some(resolved) = self.resolved.take_due(now) {
            self.report_resolved(resolved);
        }
        let beyond_share = self.intake.report(&self.reporter, now);
        if beyond_share > 0 {
            self.report_shares(beyond_share, now);
        }
        if self.refusals.is_due(now) {
            self.reporter
                .update(|state| self.refusals.publish_due(now, state));
        }
    }
}

/// What a provider's status says of messages that were more than their source's share.
const BEYOND_SHARE: &str = "more messages than one source, or all together, may send where spec.allowedSources lets everybody in";

/// Seconds since 1970.
fn unix_time() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// The time to the minute.
fn minute() -> jiff::Timestamp {
    let minute = jiff::Timestamp::now().as_second() / 60 * 60;
    jiff::Timestamp::from_second(minute).unwrap_or_default()
}
