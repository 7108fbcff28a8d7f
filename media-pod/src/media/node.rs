//! The media pod's SIP side: links from registrars, one [`Endpoint`] for all transactions, and which call a message belongs to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use ringwire_agent::connect::Connector;
use ringwire_config::gateway::MediaConfig;
use ringwire_config::token::Incarnation;
use ringwire_config::{ObjectRef, Reason};
use ringwire_control::Reporter;
use ringwire_sip::message::{HeaderName, Host, Message, Method, Request, Response};
use ringwire_sip::transaction::{
    ClientId, Endpoint, EndpointConfig, Event, Flow, ServerId, Transport, give_back,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::call::{self, NewCall};
use super::ports::Ports;
use super::retired;
use crate::link::LinkStream;
use crate::private;
use crate::registrar::Identity;
use crate::streams::{Idle, Sent, StreamEvent, Streams};

/// Messages that wait for one call.
const INBOX: usize = 64;

/// After BYE was said to all, calls have so long to end.
const HANG_UP_LIMIT: Duration = Duration::from_secs(8);

/// A request to a caller waits so long for a registrar.
const WAIT_FOR_LINK: Duration = Duration::from_secs(32);

/// So many of them may wait.
const MAX_OUTGOING: usize = 4_096;

/// Which call: our side of the dialog's name. The caller's tag is not part of it, for CANCEL and forks don't need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// The Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
}

/// What the node has for a call.
pub enum ToCall {
    /// A request within the dialog.
    Request {
        /// To be answered here.
        server: ServerId,
        /// The request.
        request: Request,
    },
    /// The ACK of our 2xx.
    Ack {
        /// The ACK.
        request: Request,
    },
    /// The caller gave up.
    Cancel {
        /// The CANCEL's `Reason`.
        reason: Option<String>,
    },
    /// The answer to a request of the call's.
    Response {
        /// Which request.
        token: u64,
        /// The answer.
        response: Response,
    },
    /// There will be no answer.
    Failed {
        /// Which request.
        token: u64,
    },
    /// End the call.
    HangUp {
        /// Why.
        reason: Reason,
    },
    /// The registrar that brought the call is gone.
    LinkLost,
}

/// What a call has for the node.
pub enum FromCall {
    /// An answer.
    Respond {
        /// To which request.
        server: ServerId,
        /// The answer.
        response: Response,
    },
    /// A request to the caller.
    Request {
        /// Whose.
        key: CallKey,
        /// Its name in what comes back.
        token: u64,
        /// The request.
        request: Box<Request>,
    },
    /// The acknowledgement of the caller's answer to a re-INVITE of ours.
    Ack {
        /// Whose.
        key: CallKey,
        /// The request.
        request: Box<Request>,
    },
    /// The call is over.
    Ended(CallKey),
}

/// What all calls of a pod share.
pub struct Shared {
    /// The newest configuration.
    pub config: watch::Receiver<Option<Arc<MediaConfig>>>,
    /// Makes the agents' connections.
    pub connector: Connector,
    /// RTP ports.
    pub ports: Ports,
    /// Where the pod runs.
    pub identity: Identity,
    reporter: Reporter,
    node: mpsc::Sender<FromCall>,
}

impl Shared {
    /// Tells the node.
    pub async fn tell(&self, message: FromCall) {
        // The node outlives the calls; at the very end nobody needs to know.
        let _ = self.node.send(message).await;
    }

    /// Counts a call in or out.
    pub fn count(&self, provider: &ObjectRef, number: &ObjectRef, agent: &ObjectRef, change: i32) {
        self.reporter.update(|state| {
            let calls = &mut state.calls;
            calls.total = calls.total.saturating_add_signed(change);
            calls.begun += u64::from(change > 0);
            for (counts, id) in [
                (&mut calls.providers, provider),
                (&mut calls.numbers, number),
                (&mut calls.agents, agent),
            ] {
                let count = counts.entry(id.clone()).or_default();
                *count = count.saturating_add_signed(change);
                if *count == 0 {
                    counts.remove(id);
                }
            }
        });
    }

    /// Reports how an agent was reached, if that is news.
    pub fn report_agent(&self, agent: &ObjectRef, reachable: bool, reason: Reason, message: &str) {
        let known = self.reporter.read(|state| {
            state.agents.get(agent).is_some_and(|report| {
                report.reachable == reachable
                    && report.reason == reason
                    && report.message == message
            })
        });
        if !known {
            let report = call::agent_report(reachable, reason, message);
            self.reporter
                .update(|state| drop(state.agents.insert(agent.clone(), report)));
        }
    }
}

/// What a media pod is made of.
pub struct Params {
    /// Its configuration.
    pub config: watch::Receiver<Option<Arc<MediaConfig>>>,
    /// Links from registrars.
    pub links: mpsc::Receiver<Box<dyn LinkStream>>,
    /// Its report.
    pub reporter: Reporter,
    /// Where it runs.
    pub identity: Identity,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Makes the agents' connections.
    pub connector: Connector,
    /// Take no more calls, wait for those that run, then end them and return.
    pub drain: CancellationToken,
    /// While draining: end the calls that are left now.
    pub hurry: CancellationToken,
    /// How many threads carry calls.
    pub workers: usize,
    /// Told once, when calls can be taken.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told that the loop turns.
    pub beat: Box<dyn Fn() + Send>,
}

/// A request of a call to its caller.
struct Outgoing {
    key: CallKey,
    token: u64,
    request: Request,
}

struct Known {
    inbox: mpsc::Sender<ToCall>,
    link: Flow,
    invite: ServerId,
}

struct Node {
    endpoint: Endpoint,
    streams: Streams,
    calls: HashMap<CallKey, Known>,
    by_invite: HashMap<ServerId, CallKey>,
    clients: HashMap<ClientId, (CallKey, u64)>,
    links: Vec<Flow>,
    /// Requests to callers that wait for a registrar, and until when.
    waiting: VecDeque<(Instant, Outgoing)>,
    workers: Vec<mpsc::Sender<NewCall>>,
    next_worker: usize,
    shared: Arc<Shared>,
    incarnation: Incarnation,
    draining: bool,
}

/// Runs a media pod until it has drained.
pub async fn run(params: Params) {
    let Params {
        mut config,
        mut links,
        reporter,
        identity,
        incarnation,
        connector,
        drain,
        hurry,
        workers,
        ready,
        beat,
    } = params;
    tokio::select! {
        _ = config.wait_for(Option::is_some) => {}
        () = drain.cancelled() => return,
    }
    let (from_calls_in, mut from_calls) = mpsc::channel(1_024);
    let config = retired::keep(config);
    let mut changes = config.clone();
    changes.mark_changed();
    let shared = Arc::new(Shared {
        config,
        connector,
        ports: Ports::new(),
        identity,
        reporter: reporter.clone(),
        node: from_calls_in,
    });
    let (workers, threads): (Vec<_>, Vec<_>) = (0..workers.max(1))
        .map(|index| worker(index, &shared))
        .unzip();
    let (events_in, mut events) = mpsc::channel(1_024);
    let endpoint = EndpointConfig {
        trying_at_once: true,
        branch_prefix: "rm".into(),
        ..EndpointConfig::default()
    };
    let mut node = Node {
        endpoint: Endpoint::new(endpoint, rand::random()),
        streams: Streams::new(events_in),
        calls: HashMap::new(),
        by_invite: HashMap::new(),
        clients: HashMap::new(),
        links: Vec::new(),
        waiting: VecDeque::new(),
        workers,
        next_worker: 0,
        shared,
        incarnation,
        draining: false,
    };
    reporter.update(|state| state.ready = true);
    ready();
    let mut drain_until: Option<Instant> = None;
    let mut hung_up = false;
    loop {
        node.pump().await;
        beat();
        let now = Instant::now();
        if let Some(until) = drain_until {
            if node.calls.is_empty() || (hung_up && until <= now) {
                break;
            }
            if until <= now {
                hung_up = true;
                drain_until = Some(now + HANG_UP_LIMIT);
                tracing::info!(
                    calls = node.calls.len(),
                    "drain time is over; ending the calls that are left"
                );
                for known in node.calls.values() {
                    let _ = known.inbox.try_send(ToCall::HangUp {
                        reason: Reason::Draining,
                    });
                }
            }
        }
        let given_up = node.waiting.front().map(|(until, _)| *until);
        let timeout = [node.endpoint.poll_timeout(), drain_until, given_up]
            .into_iter()
            .flatten()
            .min();
        let sleep = timeout
            .map_or(Duration::from_secs(1), |at| {
                at.saturating_duration_since(now)
            })
            .min(Duration::from_secs(1));
        tokio::select! {
            Some(event) = events.recv() => node.on_stream(event),
            Some(message) = from_calls.recv() => {
                node.on_call(message);
                while let Ok(message) = from_calls.try_recv() {
                    node.on_call(message);
                }
            }
            Some(link) = links.recv() => {
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let flow = node.streams.add(link, (Transport::Tcp, nowhere), Idle::Forever, &CancellationToken::new());
                node.links.push(flow);
                for (_, outgoing) in std::mem::take(&mut node.waiting) {
                    node.send_out(outgoing);
                }
            }
            () = tokio::time::sleep(sleep) => node.handle_timeout(Instant::now()),
            // A new call looks it up: it is in force already.
            Ok(()) = changes.changed() => {
                if let Some(config) = changes.borrow_and_update().clone() {
                    reporter.update(|state| {
                        state.configuration.clone_from(&config.shards);
                        state.agents.retain(|id, _| config.agents.contains_key(id));
                    });
                }
            }
            () = hurry.cancelled(), if drain_until.is_some() && !hung_up => drain_until = Some(Instant::now()),
            () = drain.cancelled(), if drain_until.is_none() => {
                node.draining = true;
                let seconds = node.shared.config.borrow().as_ref().map_or(0, |config| config.settings.drain_seconds);
                tracing::info!(calls = node.calls.len(), seconds, "draining");
                reporter.update(|state| { state.draining = true; state.ready = false; });
                drain_until = Some(Instant::now() + Duration::from_secs(u64::from(seconds)));
            }
        }
    }
    node.pump().await;
    // What was said last has to leave before the streams close.
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.streams.close_all();
    drop(node);
    let _ = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    })
    .await;
    tracing::info!("media stopped");
}

/// What our Vias name: answers come back over the link.
fn nobody() -> Host {
    Host::Name("media.invalid".into())
}

/// The port in them.
const NO_PORT: u16 = 5060;

/// A thread that carries calls: all of a call's work is done there.
fn worker(
    index: usize,
    shared: &Arc<Shared>,
) -> (mpsc::Sender<NewCall>, std::thread::JoinHandle<()>) {
    let (sender, mut calls) = mpsc::channel::<NewCall>(256);
    let shared = Arc::clone(shared);
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime for a worker");
                std::process::abort();
            }
        };
        let local = tokio::task::LocalSet::new();
        let serve = async {
            let mut running = tokio::task::JoinSet::new();
            let mut keys = HashMap::new();
            loop {
                tokio::select! {
                    call = calls.recv() => match call {
                        Some(call) => {
                            let key = call.key.clone();
                            let task = running.spawn_local(call::run(call, Arc::clone(&shared)));
                            keys.insert(task.id(), key);
                        }
                        None => break,
                    },
                    Some(ended) = running.join_next_with_id() => match ended {
                        Ok((task, ())) => drop(keys.remove(&task)),
                        // A call that panicked is over; the others go on.
                        Err(error) => {
                            tracing::error!(%error, "a call failed");
                            if let Some(key) = keys.remove(&error.id()) {
                                shared.tell(FromCall::Ended(key)).await;
                            }
                        }
                    },
                }
            }
            // The agents get their last words.
            let _ = tokio::time::timeout(Duration::from_secs(2), async {
                while running.join_next().await.is_some() {}
            })
            .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        runtime.block_on(local.run_until(serve));
    };
    #[expect(
        clippy::expect_used,
        reason = "a pod that cannot have threads cannot carry calls"
    )]
    let thread = std::thread::Builder::new()
        .name(format!("media-{index}"))
        .spawn(body)
        .expect("a thread");
    (sender, thread)
}

impl Node {
    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        while self.waiting.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, outgoing)) = self.waiting.pop_front() else {
                return;
            };
            let Outgoing {
                key,
                token,
                request,
            } = outgoing;
            let Some(known) = self.calls.get(&key) else {
                continue;
            };
            let answer = if request.method == Method::OPTIONS {
                // That we cannot ask does not mean that the caller is gone.
                let response = Response::to_request(&request, 480, None);
                ToCall::Response { token, response }
            } else {
                ToCall::Failed { token }
            };
            let _ = known.inbox.try_send(answer);
        }
    }

    /// The registrar that brought the call, or any other: each of them can reach the caller.
    fn link_of(&self, key: &CallKey) -> Option<Flow> {
        let own = self.calls.get(key).map(|known| &known.link);
        own.filter(|link| self.links.contains(link))
            .or(self.links.first())
            .cloned()
    }

    /// Sends a request to a caller. Without any registrar it waits: one that is being replaced is back within seconds.
    fn send_out(&mut self, outgoing: Outgoing) {
        let now = Instant::now();
        let Some(link) = self.link_of(&outgoing.key) else {
            if self.waiting.len() < MAX_OUTGOING {
                self.waiting.push_back((now + WAIT_FOR_LINK, outgoing));
            } else if let Some(known) = self.calls.get(&outgoing.key) {
                let token = outgoing.token;
                let _ = known.inbox.try_send(ToCall::Failed { token });
            }
            return;
        };
        let Outgoing {
            key,
            token,
            request,
        } = outgoing;
        debug_assert_eq!(link.transport, Transport::Tcp);
        let client = self
            .endpoint
            .request(request, link, &nobody(), NO_PORT, now);
        self.clients.insert(client, (key, token));
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let now = Instant::now();
        match event {
            StreamEvent::Message(flow, message) => self.endpoint.receive(*message, flow, now),
            StreamEvent::Unreadable(_, failure) => {
                tracing::error!(error = %failure.error, "a registrar sent an unreadable message");
            }
            StreamEvent::Closed(flow, error, _) => {
                self.streams.closed(&flow);
                self.links.retain(|link| *link != flow);
                self.endpoint.flow_failed(&flow, error, now);
                for known in self.calls.values().filter(|known| known.link == flow) {
                    let _ = known.inbox.try_send(ToCall::LinkLost);
                }
            }
        }
    }

    /// Handles what the endpoint has to say, and sends.
    async fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(event) = self.endpoint.poll_event() {
                idle = false;
                self.on_event(event).await;
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                idle = false;
                let connection = transmit.flow.connection;
                let sent = connection.map(|to| self.streams.send(to, transmit.bytes));
                if sent != Some(Sent::Queued) {
                    self.endpoint.flow_failed(
                        &transmit.flow,
                        ringwire_sip::transaction::TransportError::Closed,
                        Instant::now(),
                    );
                }
            }
            if idle {
                return;
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { id, request, flow } => self.on_request(id, request, flow).await,
            Event::Ack { request, flow } => {
                if let Some(known) = self.find(&request) {
                    known.link = flow;
                    let _ = known.inbox.send(ToCall::Ack { request }).await;
                }
            }
            Event::Cancelled { id, request } => {
                let reason = request.headers.get(&HeaderName::Reason).map(str::to_owned);
                if let Some(known) = self.by_invite.get(&id).and_then(|key| self.calls.get(key)) {
                    let _ = known.inbox.send(ToCall::Cancel { reason }).await;
                }
            }
            Event::Response { id, response, .. } => {
                if let Some((key, token)) = self.clients.get(&id)
                    && let Some(known) = self.calls.get(key)
                {
                    let _ = known
                        .inbox
                        .send(ToCall::Response {
                            token: *token,
                            response,
                        })
                        .await;
                }
            }
            Event::Failed { id, .. } => {
                if let Some((key, token)) = self.clients.get(&id)
                    && let Some(known) = self.calls.get(key)
                {
                    let _ = known.inbox.send(ToCall::Failed { token: *token }).await;
                }
            }
            Event::ClientEnded { id } => {
                self.clients.remove(&id);
                give_back(&mut self.clients);
            }
            Event::StrayResponse { .. }
            | Event::Retransmitted { .. }
            | Event::AckTimeout { .. }
            | Event::Ended { .. } => {}
        }
    }

    fn find(&mut self, request: &Request) -> Option<&mut Known> {
        let call_id = request.headers.call_id().ok()?.to_owned();
        let local_tag = request.headers.to().ok()?.tag()?.to_owned();
        self.calls.get_mut(&CallKey { call_id, local_tag })
    }

    async fn on_request(&mut self, id: ServerId, request: Request, flow: Flow) {
        let has_tag = request.headers.to().is_ok_and(|to| to.tag().is_some());
        if has_tag {
            match self.find(&request) {
                Some(known) => {
                    known.link = flow;
                    let _ = known
                        .inbox
                        .send(ToCall::Request {
                            server: id,
                            request,
                        })
                        .await;
                }
                None => self.answer(id, &request, 481, false),
            }
            return;
        }
        if request.method != Method::INVITE {
            return self.answer(id, &request, 481, false);
        }
        if self.endpoint.is_merged(id) {
            return self.answer(id, &request, 482, false);
        }
        if self.draining {
            return self.answer(id, &request, 503, true);
        }
        let token = {
            let config = self.shared.config.borrow();
            config
                .as_ref()
                .and_then(|config| config.settings.token_keys.first())
                .map(|key| key.sign(self.incarnation))
        };
        let Some(token) = token else {
            return self.answer(id, &request, 503, true);
        };
        let call_id = request.headers.call_id().unwrap_or_default().to_owned();
        let local_tag = format!("{token}.{:016x}", rand::rng().random::<u64>());
        let key = CallKey { call_id, local_tag };
        let (inbox, receiver) = mpsc::channel(INBOX);
        let call = NewCall {
            key: key.clone(),
            invite: request.clone(),
            server: id,
            inbox: receiver,
        };
        self.next_worker = (self.next_worker + 1) % self.workers.len();
        if self.workers[self.next_worker].try_send(call).is_err() {
            return self.answer(id, &request, 503, true);
        }
        self.by_invite.insert(id, key.clone());
        self.calls.insert(
            key,
            Known {
                inbox,
                link: flow,
                invite: id,
            },
        );
    }

    fn on_call(&mut self, message: FromCall) {
        let now = Instant::now();
        match message {
            FromCall::Respond { server, response } => self.endpoint.respond(server, response, now),
            FromCall::Request {
                key,
                token,
                request,
            } => self.send_out(Outgoing {
                key,
                token,
                request: *request,
            }),
            FromCall::Ack { key, mut request } => {
                // The caller repeats his answer until one arrives: without a link there is nothing to do.
                let Some(link) = self.link_of(&key) else {
                    return;
                };
                let via = self.endpoint.new_via(link.transport, &nobody(), NO_PORT);
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(Message::Request(*request), link);
            }
            FromCall::Ended(key) => {
                if let Some(known) = self.calls.remove(&key) {
                    self.by_invite.remove(&known.invite);
                    give_back(&mut self.by_invite);
                    give_back(&mut self.calls);
                }
            }
        }
    }

    fn answer(&mut self, id: ServerId, request: &Request, status: u16, another: bool) {
        let mut response = Response::to_request(request, status, None);
        if request.headers.to().is_ok_and(|to| to.tag().is_none()) {
            response.set_to_tag(&format!("{:016x}", rand::rng().random::<u64>()));
        }
        if another {
            response
                .headers
                .push(private::name(private::TRY_ANOTHER), "1");
        }
        self.endpoint.respond(id, response, Instant::now());
    }
}
