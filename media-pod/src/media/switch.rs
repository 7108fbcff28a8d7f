//! Between the links from registrars and the calls, without sockets and clock: one [`Endpoint`] for all transactions, and which call a
//! message belongs to.
//!
//! What a call does with it is the call's own business ([`super::call`]); which thread it runs on, and how it is told, the node's.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringwire_config::token::{Incarnation, TokenKey};
use ringwire_sip::dialog::DialogId;
use ringwire_sip::message::{HeaderName, Host, Message, Method, Request, Response};
use ringwire_sip::refer::Replaces;
use ringwire_sip::transaction::{
    ClientError, ClientId, Endpoint, EndpointConfig, Event, Flow, ServerId, Transmit, Transport,
    TransportError, give_back,
};

use super::call::Decision;
use super::exchange::{CallKey, FromCall, ToCall, ToDialog};
use crate::private;

/// A request to a caller waits so long for a registrar.
const WAIT_FOR_LINK: Duration = Duration::from_secs(32);

/// So many of them may wait.
const MAX_OUTGOING: usize = 4_096;

/// A new call.
pub struct Incoming {
    /// Which call.
    pub key: CallKey,
    /// Its INVITE, private headers included.
    pub invite: Request,
    /// The INVITE's transaction.
    pub server: ServerId,
    /// What the registrar decided.
    pub decision: Decision,
    /// Whose place it takes (RFC 3891).
    pub replaces: Option<(CallKey, Replaces)>,
}

/// What a switch has for its owner, besides bytes.
#[expect(
    clippy::large_enum_variant,
    reason = "a call's own messages are the usual ones, and go through a queue by value in any case"
)]
pub enum Output {
    /// A new call.
    New(Box<Incoming>),
    /// Something for a call.
    To(CallKey, ToCall),
}

/// A request of a call to its caller.
struct Outgoing {
    key: CallKey,
    token: u64,
    request: Request,
}

struct Known {
    link: Flow,
    /// Where the caller's last request came in at the registrar: ours go back there.
    flow: Option<String>,
    invite: ServerId,
    /// The INVITE, as long as it has no final answer.
    unanswered: Option<Box<Request>>,
    /// The caller's tag.
    remote_tag: String,
    decision: Decision,
}

/// See the module.
pub struct Switch {
    endpoint: Endpoint,
    rng: StdRng,
    incarnation: Incarnation,
    token_key: Option<TokenKey>,
    calls: HashMap<CallKey, Known>,
    by_invite: HashMap<ServerId, CallKey>,
    clients: HashMap<ClientId, Outgoing>,
    links: Vec<Flow>,
    /// Requests to callers that wait for a registrar, and until when.
    waiting: VecDeque<(Instant, Outgoing)>,
    outputs: VecDeque<Output>,
    draining: bool,
}

/// What our Vias name: answers come back over the link.
fn nobody() -> Host {
    Host::Name("media.invalid".into())
}

/// The port in them.
const NO_PORT: u16 = 5060;

fn flow_of(request: &Request) -> Option<String> {
    let flow = request.headers.get(&private::name(private::FLOW));
    flow.map(str::to_owned)
}

impl Switch {
    /// A switch without links. New calls are refused until there is a key for their Contacts' tokens.
    pub fn new(incarnation: Incarnation, seed: u64) -> Self {
        let endpoint = EndpointConfig {
            trying_at_once: true,
            branch_prefix: "rm".into(),
            ..EndpointConfig::default()
        };
        Self {
            endpoint: Endpoint::new(endpoint, seed),
            rng: StdRng::seed_from_u64(seed),
            incarnation,
            token_key: None,
            calls: HashMap::new(),
            by_invite: HashMap::new(),
            clients: HashMap::new(),
            links: Vec::new(),
            waiting: VecDeque::new(),
            outputs: VecDeque::new(),
            draining: false,
        }
    }

    /// The key for new calls' tokens.
    pub fn set_token_key(&mut self, key: Option<TokenKey>) {
        self.token_key = key;
    }

    /// From now on new calls are refused; what takes the place of a running one is not.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// A link to a registrar is up.
    pub fn link_up(&mut self, link: Flow, now: Instant) {
        self.links.push(link);
        for (_, outgoing) in std::mem::take(&mut self.waiting) {
            self.send_out(outgoing, now);
        }
    }

    /// A link to a registrar is gone.
    pub fn link_closed(&mut self, link: &Flow, error: TransportError, now: Instant) {
        self.links.retain(|own| own != link);
        self.endpoint.flow_failed(link, error, now);
        for (key, _) in self.calls.iter().filter(|(_, known)| known.link == *link) {
            self.outputs
                .push_back(Output::To(key.clone(), ToCall::LinkLost));
        }
        self.pump(now);
    }

    /// Bytes could not be sent: the link is gone, which its end will tell as well.
    pub fn unsent(&mut self, link: &Flow, now: Instant) {
        self.endpoint.flow_failed(link, TransportError::Closed, now);
        self.pump(now);
    }

    /// A message of a registrar.
    pub fn receive(&mut self, message: Message, link: Flow, now: Instant) {
        self.endpoint.receive(message, link, now);
        self.pump(now);
    }

    /// Bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    /// What there is to tell.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let given_up = self.waiting.front().map(|(until, _)| *until);
        [self.endpoint.poll_timeout(), given_up]
            .into_iter()
            .flatten()
            .min()
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        while self.waiting.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, outgoing)) = self.waiting.pop_front() {
                self.cannot_ask(outgoing);
            }
        }
        self.pump(now);
    }

    /// A call reads too slowly to be told of this request.
    pub fn refuse_busy(&mut self, server: ServerId, request: &Request, now: Instant) {
        let mut response = Response::to_request(request, 500, None);
        response.headers.push(HeaderName::RetryAfter, "5");
        self.endpoint.respond(server, response, now);
    }

    /// What a call wants.
    pub fn take(&mut self, message: FromCall, now: Instant) {
        match message {
            FromCall::Respond { server, response } => {
                if response.status >= 200
                    && let Some(key) = self.by_invite.get(&server)
                    && let Some(known) = self.calls.get_mut(key)
                {
                    known.unanswered = None;
                }
                self.endpoint.respond(server, response, now);
            }
            FromCall::Request {
                key,
                token,
                request,
            } => self.send_out(
                Outgoing {
                    key,
                    token,
                    request: *request,
                },
                now,
            ),
            FromCall::Ack { key, mut request } => {
                // The caller repeats his answer until one arrives: without a link there is nothing to do.
                let Some(link) = self.link_of(&key) else {
                    return;
                };
                self.mark_way(&key, &mut request);
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
                    if let Some(request) = known.unanswered {
                        // It ended without a word: a fault of ours.
                        self.answer(known.invite, &request, 500, false, now);
                    }
                }
            }
        }
        self.pump(now);
    }

    /// The registrar that brought the call, or any other: each of them can reach the caller.
    fn link_of(&self, key: &CallKey) -> Option<Flow> {
        let own = self.calls.get(key).map(|known| &known.link);
        own.filter(|link| self.links.contains(link))
            .or(self.links.first())
            .cloned()
    }

    /// Tells the registrar which way the caller's last request came.
    fn mark_way(&self, key: &CallKey, request: &mut Request) {
        if let Some(flow) = self.calls.get(key).and_then(|known| known.flow.clone()) {
            request.headers.set(private::name(private::FLOW), flow);
        }
    }

    /// Sends a request to a caller. Without any registrar it waits: one that is being replaced is back within seconds.
    fn send_out(&mut self, outgoing: Outgoing, now: Instant) {
        let Some(link) = self.link_of(&outgoing.key) else {
            if self.waiting.len() < MAX_OUTGOING {
                self.waiting.push_back((now + WAIT_FOR_LINK, outgoing));
            } else {
                self.cannot_ask(outgoing);
            }
            return;
        };
        debug_assert_eq!(link.transport, Transport::Tcp);
        let mut outgoing = outgoing;
        self.mark_way(&outgoing.key, &mut outgoing.request);
        let request = outgoing.request.clone();
        let client = self
            .endpoint
            .request(request, link, &nobody(), NO_PORT, now);
        self.clients.insert(client, outgoing);
    }

    /// The link broke before the answer came. Whatever the caller had of it, a call must not stand there that has ended here; all else
    /// is for the call to ask again.
    fn link_failed(&mut self, outgoing: Outgoing, now: Instant) {
        if outgoing.request.method == Method::BYE {
            self.send_out(outgoing, now);
        } else {
            self.cannot_ask(outgoing);
        }
    }

    /// That we cannot ask now does not mean that the caller is gone.
    fn cannot_ask(&mut self, outgoing: Outgoing) {
        let Outgoing {
            key,
            token,
            request,
        } = outgoing;
        let response = Response::to_request(&request, 480, None);
        let answer = ToDialog::Response { token, response };
        self.tell(key, answer);
    }

    fn tell(&mut self, key: CallKey, message: ToDialog) {
        let message = ToCall::Dialog(message);
        self.outputs.push_back(Output::To(key, message));
    }

    /// Handles what the endpoint has to say.
    fn pump(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            self.on_event(event, now);
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Request { id, request, flow } => self.on_request(id, request, flow, now),
            Event::Ack { request, flow } => {
                if let Some(key) = self.find(&request, flow) {
                    self.tell(key, ToDialog::Ack { request });
                }
            }
            Event::Cancelled { id, request } => {
                let reason = request.headers.get(&HeaderName::Reason).map(str::to_owned);
                if let Some(key) = self.by_invite.get(&id) {
                    let cancel = ToDialog::Cancel { reason };
                    self.tell(key.clone(), cancel);
                }
            }
            Event::Response { id, response, .. } => {
                if let Some(outgoing) = self.clients.get(&id) {
                    let token = outgoing.token;
                    let answer = ToDialog::Response { token, response };
                    self.tell(outgoing.key.clone(), answer);
                }
            }
            Event::Failed { id, error } => {
                if let Some(outgoing) = self.clients.remove(&id) {
                    match error {
                        ClientError::Transport(_) => self.link_failed(outgoing, now),
                        ClientError::Timeout => {
                            let Outgoing { key, token, .. } = outgoing;
                            let failed = ToDialog::Failed { token };
                            self.tell(key, failed);
                        }
                    }
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

    /// The call of a request within a dialog; from now on its requests go over that link.
    fn find(&mut self, request: &Request, link: Flow) -> Option<CallKey> {
        let call_id = request.headers.call_id().ok()?.to_owned();
        let local_tag = request.headers.to().ok()?.tag()?.to_owned();
        let key = CallKey { call_id, local_tag };
        let known = self.calls.get_mut(&key)?;
        known.link = link;
        if let Some(flow) = flow_of(request) {
            known.flow = Some(flow);
        }
        Some(key)
    }

    fn on_request(&mut self, id: ServerId, request: Request, link: Flow, now: Instant) {
        let has_tag = request.headers.to().is_ok_and(|to| to.tag().is_some());
        if has_tag {
            match self.find(&request, link) {
                Some(key) => {
                    let server = id;
                    let told = ToDialog::Request { server, request };
                    self.tell(key, told);
                }
                None => self.answer(id, &request, 481, false, now),
            }
            return;
        }
        if request.method != Method::INVITE {
            return self.answer(id, &request, 481, false, now);
        }
        if self.endpoint.is_merged(id) {
            return self.answer(id, &request, 482, false, now);
        }
        self.on_invite(id, request, link, now);
    }

    fn on_invite(&mut self, id: ServerId, mut request: Request, link: Flow, now: Instant) {
        let replaces = match Replaces::take(&mut request) {
            Ok(replaces) => replaces,
            Err(status) => return self.answer(id, &request, status, false, now),
        };
        let decided = match &replaces {
            None => Decision::read(&request).map(|decision| (decision, None)),
            Some(replaces) => match self.replaced(replaces, &request) {
                Ok((decision, key)) => Some((decision, Some((key, replaces.clone())))),
                Err(status) => return self.answer(id, &request, status, false, now),
            },
        };
        let Some((decision, replaces)) = decided else {
            tracing::error!("a registrar sent an INVITE without its decision");
            return self.answer(id, &request, 500, false, now);
        };
        if self.draining && replaces.is_none() {
            return self.answer(id, &request, 503, true, now);
        }
        let Some(token) = self
            .token_key
            .as_ref()
            .map(|key| key.sign(self.incarnation))
        else {
            return self.answer(id, &request, 503, true, now);
        };
        let call_id = request.headers.call_id().unwrap_or_default().to_owned();
        let local_tag = format!("{token}.{:016x}", self.rng.random::<u64>());
        let remote_tag = request.headers.from_().ok();
        let remote_tag = remote_tag.and_then(|from| from.tag().map(str::to_owned));
        let key = CallKey { call_id, local_tag };
        self.by_invite.insert(id, key.clone());
        let known = Known {
            link,
            flow: flow_of(&request),
            invite: id,
            unanswered: Some(Box::new(request.clone())),
            remote_tag: remote_tag.unwrap_or_default(),
            decision: decision.clone(),
        };
        self.calls.insert(key.clone(), known);
        self.outputs.push_back(Output::New(Box::new(Incoming {
            key,
            invite: request,
            server: id,
            decision,
            replaces,
        })));
    }

    /// The call whose place an INVITE wants to take, and what was decided for it.
    ///
    /// # Errors
    /// 481 for a call that is not here, or is another provider's: the same for both, for who asks may be guessing.
    fn replaced(&self, replaces: &Replaces, invite: &Request) -> Result<(Decision, CallKey), u16> {
        let key = CallKey {
            call_id: replaces.call_id.clone(),
            local_tag: replaces.to_tag.clone(),
        };
        let known = self.calls.get(&key).ok_or(481_u16)?;
        let dialog = DialogId {
            call_id: key.call_id.clone(),
            local_tag: key.local_tag.clone(),
            remote_tag: known.remote_tag.clone(),
        };
        let decision = known.decision.succeeded_by(invite);
        match decision.filter(|_| replaces.names(&dialog)) {
            Some(decision) => Ok((decision, key)),
            None => Err(481),
        }
    }

    fn answer(
        &mut self,
        id: ServerId,
        request: &Request,
        status: u16,
        another: bool,
        now: Instant,
    ) {
        let mut response = Response::to_request(request, status, None);
        if request.headers.to().is_ok_and(|to| to.tag().is_none()) {
            response.set_to_tag(&format!("{:016x}", self.rng.random::<u64>()));
        }
        if another {
            response
                .headers
                .push(private::name(private::TRY_ANOTHER), "1");
        }
        self.endpoint.respond(id, response, now);
    }
}
