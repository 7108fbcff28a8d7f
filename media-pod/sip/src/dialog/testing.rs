//! What the tests of calls share: parameters, messages, and a network that loses, doubles, delays and reorders.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Action, CallEvent, RespondTo};
use crate::message::{
    HeaderName, Host, Message, Method, NameAddr, Request, Response, Uri, parse_datagram,
};
use crate::sdp::{Capabilities, Codec, Encryption, LocalMedia};
use crate::transaction::{
    ClientId, Counts, Endpoint, EndpointConfig, Event, Flow, ServerId, Transport,
};
use crate::uac::{UacCall, UacParams};
use crate::uas::{UasCall, UasParams};

pub(crate) const T1: Duration = Duration::from_millis(500);
pub(crate) const T2: Duration = Duration::from_secs(4);

pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        telephone_event: true,
        ptime_millis: 20,
        encryption: Encryption::None,
        ice: None,
    }
}

pub(crate) fn local(port: u16) -> LocalMedia {
    LocalMedia {
        address: "192.0.2.9".parse().unwrap(),
        rtp_port: port,
        session_id: 9,
        version: 1,
    }
}

pub(crate) fn contact(text: &str) -> NameAddr {
    NameAddr::parse(text).unwrap()
}

pub(crate) fn uas_params() -> UasParams {
    UasParams {
        contact: contact("<sip:us@192.0.2.9:5060>"),
        local_tag: "b".to_owned(),
        capabilities: capabilities(),
        local: local(6000),
        server: "ringwire".to_owned(),
        t1: T1,
        t2: T2,
        reliable_provisionals: false,
    }
}

pub(crate) fn uac_params() -> UacParams {
    UacParams {
        target: Uri::parse("sip:bob@192.0.2.9").unwrap(),
        from: contact("<sip:alice@192.0.2.1>"),
        to: contact("<sip:bob@192.0.2.9>"),
        contact: contact("<sip:alice@192.0.2.1:5060>"),
        call_id: "call-1".to_owned(),
        local_tag: "a".to_owned(),
        cnonce: "c".to_owned(),
        capabilities: capabilities(),
        local: local(4000),
        credentials: None,
        routes: Vec::new(),
        headers: Vec::new(),
        follow_redirects: false,
        user_agent: "ringwire".to_owned(),
        t1: T1,
        t2: T2,
    }
}

pub(crate) fn sdp(port: u16, formats: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\na={direction}\r\n"
    )
}

/// A request of the caller's: tag `a`, in the dialog with our tag `b` unless it is number 1.
pub(crate) fn from_peer(method: &str, cseq: u32, body: Option<&str>) -> Request {
    let mut request = Request::new(
        Method::parse(method),
        Uri::parse("sip:us@192.0.2.9").unwrap(),
    );
    let headers = &mut request.headers;
    headers.push(
        HeaderName::Via,
        format!("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{cseq}{method};rport"),
    );
    headers.push(HeaderName::MaxForwards, "70");
    headers.push(HeaderName::From, "<sip:alice@192.0.2.1>;tag=a");
    headers.push(
        HeaderName::To,
        if cseq == 1 && method == "INVITE" {
            "<sip:us@192.0.2.9>"
        } else {
            "<sip:us@192.0.2.9>;tag=b"
        },
    );
    headers.push(HeaderName::CallId, "call-1");
    headers.push(HeaderName::CSeq, format!("{cseq} {method}"));
    headers.push(HeaderName::Contact, "<sip:alice@192.0.2.1:5060>");
    if let Some(body) = body {
        request.set_body("application/sdp", body.as_bytes().to_vec());
    }
    request
}

enum Call {
    Caller(Box<UacCall>),
    Callee(Box<UasCall>),
}

impl Call {
    fn poll_action(&mut self) -> Option<Action> {
        match self {
            Self::Caller(call) => call.poll_action(),
            Self::Callee(call) => call.poll_action(),
        }
    }

    fn poll_event(&mut self) -> Option<CallEvent> {
        match self {
            Self::Caller(call) => call.poll_event(),
            Self::Callee(call) => call.poll_event(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Caller(call) => call.poll_timeout(),
            Self::Callee(call) => call.poll_timeout(),
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Caller(call) => call.is_ended(),
            Self::Callee(call) => call.is_ended(),
        }
    }
}

/// One side: an endpoint, at most one call, and what happened.
struct Node {
    address: SocketAddr,
    endpoint: Endpoint,
    call: Option<Call>,
    invite: Option<ServerId>,
    clients: HashMap<ClientId, u64>,
    finals: HashMap<ServerId, u32>,
    requests: u32,
    refreshes: u32,
    ends: u32,
    confirmed: bool,
    after_end: Vec<String>,
    /// What the INVITE asks for when it comes in, instead of what the caller wrote.
    session_expires: Option<&'static str>,
    /// The INVITE requires reliable provisional responses when it comes in.
    requires_reliable: bool,
    /// The INVITE does not allow UPDATE when it comes in: refreshes of the callee's are re-INVITEs.
    without_update: bool,
}

impl Node {
    fn new(address: &str, seed: u64) -> Self {
        Self {
            address: address.parse().unwrap(),
            endpoint: Endpoint::new(EndpointConfig::default(), seed),
            call: None,
            invite: None,
            clients: HashMap::new(),
            finals: HashMap::new(),
            requests: 0,
            refreshes: 0,
            ends: 0,
            confirmed: false,
            after_end: Vec::new(),
            session_expires: None,
            requires_reliable: false,
            without_update: false,
        }
    }

    fn respond(&mut self, id: ServerId, response: Response, again: bool, now: Instant) {
        if !response.is_provisional() && !again {
            *self.finals.entry(id).or_default() += 1;
        }
        self.endpoint.respond(id, response, now);
    }

    /// Moves everything between call and endpoint until both are quiet.
    fn settle(&mut self, peer: SocketAddr, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.endpoint.poll_event() {
                quiet = false;
                self.on_event(event, now);
            }
            while let Some(action) = self.call.as_mut().and_then(Call::poll_action) {
                quiet = false;
                self.carry_out(action, peer, now);
            }
            while let Some(event) = self.call.as_mut().and_then(Call::poll_event) {
                assert_eq!(self.ends, 0, "an event after the end: {event:?}");
                match event {
                    CallEvent::Ended { .. } => self.ends += 1,
                    CallEvent::Confirmed | CallEvent::Answered => self.confirmed = true,
                    _ => {}
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action, peer: SocketAddr, now: Instant) {
        let (again, ended) = (matches!(action, Action::ResendFinal { .. }), self.ends > 0);
        match action {
            Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                let id = match to {
                    RespondTo::Invite => self.invite.expect("an INVITE"),
                    RespondTo::Request(id) => id,
                };
                let late_prack = response
                    .headers
                    .cseq()
                    .is_ok_and(|(_, method)| method == Method::PRACK);
                if ended && (again || response.status != 481) && !late_prack {
                    self.after_end.push(format!(
                        "{} {:?}",
                        response.status,
                        response.headers.get(&HeaderName::CSeq)
                    ));
                }
                self.respond(id, response, again, now);
            }
            Action::Request { token, request } => {
                if ended {
                    self.after_end.push(request.method.to_string());
                }
                let tagged = request.headers.to().is_ok_and(|to| to.tag().is_some());
                self.refreshes +=
                    u32::from(tagged && request.headers.has(&HeaderName::SessionExpires));
                let host = Host::from(self.address.ip());
                let id = self.endpoint.request(
                    request,
                    Flow::udp(peer),
                    &host,
                    self.address.port(),
                    now,
                );
                self.clients.insert(id, token);
            }
            Action::Ack { mut request } => {
                let host = Host::from(self.address.ip());
                let via = self
                    .endpoint
                    .new_via(Transport::Udp, &host, self.address.port());
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(request.into(), Flow::udp(peer));
            }
            Action::Cancel { token } => {
                let id = self
                    .clients
                    .iter()
                    .find(|(_, of)| **of == token)
                    .map(|(id, _)| *id);
                if let Some(id) = id {
                    self.endpoint.cancel(id, None, now);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Request { id, request, .. } => {
                self.requests += 1;
                let in_dialog = request.headers.to().is_ok_and(|to| to.tag().is_some());
                match &mut self.call {
                    Some(Call::Caller(call)) => call.on_request(id, &request, now),
                    Some(Call::Callee(call)) if in_dialog => call.on_request(id, &request, now),
                    None if request.method == Method::INVITE => {
                        let mut request = request;
                        if let Some(expires) = self.session_expires {
                            request.headers.set(HeaderName::SessionExpires, expires);
                        }
                        if self.requires_reliable {
                            request.headers.push(HeaderName::Require, "100rel");
                        }
                        if self.without_update {
                            request.headers.remove(&HeaderName::Allow);
                        }
                        let mut call =
                            UasCall::new(request, uas_params(), now).expect("a good INVITE");
                        call.ring(now);
                        self.invite = Some(id);
                        self.call = Some(Call::Callee(Box::new(call)));
                    }
                    _ => {
                        let status = if in_dialog { 481 } else { 482 };
                        self.respond(id, Response::to_request(&request, status, None), false, now);
                    }
                }
            }
            Event::Ack { request, .. } => match &mut self.call {
                Some(Call::Callee(call)) => call.on_ack(&request, now),
                Some(Call::Caller(call)) => call.on_ack(&request, now),
                None => {}
            },
            Event::Cancelled { .. } => {
                if let Some(Call::Callee(call)) = &mut self.call {
                    call.on_cancel(None, now);
                }
            }
            Event::Response { id, response, .. } => match (self.clients.get(&id), &mut self.call) {
                (Some(token), Some(Call::Caller(call))) => call.on_response(*token, &response, now),
                (Some(token), Some(Call::Callee(call))) => call.on_response(*token, &response, now),
                _ => {}
            },
            Event::Failed { id, .. } => match (self.clients.get(&id), &mut self.call) {
                (Some(token), Some(Call::Caller(call))) => call.on_failed(*token, now),
                (Some(token), Some(Call::Callee(call))) => call.on_failed(*token, now),
                _ => {}
            },
            Event::ClientEnded { id } => {
                self.clients.remove(&id);
            }
            Event::StrayResponse { .. }
            | Event::Retransmitted { .. }
            | Event::AckTimeout { .. }
            | Event::Ended { .. } => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let call = self.call.as_ref().and_then(Call::poll_timeout);
        [self.endpoint.poll_timeout(), call]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        match &mut self.call {
            Some(Call::Caller(call)) => call.handle_timeout(now),
            Some(Call::Callee(call)) => call.handle_timeout(now),
            None => {}
        }
    }
}

/// What the people on both sides do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Progress,
    Accept,
    Reject,
    HangUpCallee,
    HangUpCaller,
    ProbeCallee,
    ProbeCaller,
    /// From here on not one packet arrives.
    Cut,
}

/// What became of a simulated call.
pub(crate) struct Outcome {
    /// Session refreshes that were sent.
    pub refreshes: u32,
    pub confirmed_by_both: bool,
    pub answered_by_none: bool,
}

/// One call over a network that is as bad as the seed says. Fails when a transaction or call does not end, when a request
/// gets no or two final answers, or when something is sent after the end.
pub(crate) fn simulate(seed: u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut nodes = [
        Node::new("192.0.2.1:5060", seed ^ 1),
        Node::new("192.0.2.9:5060", seed ^ 2),
    ];
    let addresses = [nodes[1].address, nodes[0].address];
    nodes[1].session_expires = [None, Some("90"), Some("90;refresher=uas")][seed as usize % 3];
    nodes[1].requires_reliable = seed.is_multiple_of(2);
    nodes[1].without_update = seed % 4 < 2;
    let loss = [0.0, 0.1, 0.3, 0.5][rng.random_range(0..4)];
    let doubled = [0.0, 0.2][rng.random_range(0..2)];
    let slowest = [20, 300, 1500][rng.random_range(0..3)];
    let mut at = |from: u64, to: u64| start + Duration::from_millis(rng.random_range(from..to));

    let mut steps: BTreeMap<(Instant, u32), Step> = BTreeMap::new();
    let answer = if seed.is_multiple_of(5) {
        Step::Reject
    } else {
        Step::Accept
    };
    steps.insert((at(0, 10_000), 0), answer);
    if seed.is_multiple_of(3) {
        steps.insert((at(0, 5_000), 8), Step::Progress);
    }
    // Some talk for long enough that refreshes are due.
    let longest = if seed.is_multiple_of(3) {
        60_000
    } else {
        200_000
    };
    steps.insert((at(0, longest), 1), Step::HangUpCaller);
    steps.insert((at(0, longest), 2), Step::HangUpCallee);
    steps.insert((at(0, 60_000), 3), Step::ProbeCallee);
    steps.insert((at(0, 60_000), 4), Step::ProbeCaller);
    if seed.is_multiple_of(7) {
        steps.insert((at(0, 30_000), 5), Step::Cut);
    }
    // Whoever is still there after two minutes hangs up for good.
    steps.insert((start + Duration::from_secs(120), 6), Step::HangUpCaller);
    steps.insert((start + Duration::from_secs(120), 7), Step::HangUpCallee);

    let mut wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut packets = 0;
    let mut cut = false;
    nodes[0].call = Some(Call::Caller(Box::new(UacCall::new(uac_params(), start))));
    let mut now = start;
    loop {
        for side in 0..2 {
            nodes[side].settle(addresses[side], now);
            while let Some(transmit) = nodes[side].endpoint.poll_transmit() {
                assert_eq!(transmit.flow.remote, addresses[side]);
                for _ in 0..if rng.random_bool(doubled) { 2 } else { 1 } {
                    if !cut && !rng.random_bool(loss) {
                        packets += 1;
                        let delay = Duration::from_millis(rng.random_range(1..slowest));
                        wire.insert((now + delay, packets), (1 - side, transmit.bytes.clone()));
                    }
                }
            }
        }
        let timers = nodes.iter().filter_map(Node::poll_timeout);
        let others = wire
            .keys()
            .next()
            .map(|(at, _)| *at)
            .into_iter()
            .chain(steps.keys().next().map(|(at, _)| *at));
        let Some(next) = timers.chain(others).min() else {
            break;
        };
        now = now.max(next);
        assert!(
            now < start + Duration::from_secs(600),
            "seed {seed}: it never ends"
        );
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, bytes) = entry.remove();
            let message: Message = parse_datagram(&bytes).expect("our own message");
            let flow = Flow::udp(addresses[to]);
            nodes[to].endpoint.receive(message, flow, now);
            nodes[to].settle(addresses[to], now);
        }
        while let Some(entry) = steps.first_entry().filter(|entry| entry.key().0 <= now) {
            match (entry.remove(), &mut nodes) {
                (Step::Cut, _) => cut = true,
                (
                    Step::HangUpCaller,
                    [
                        Node {
                            call: Some(Call::Caller(call)),
                            ..
                        },
                        _,
                    ],
                ) => call.hang_up(None, now),
                (
                    Step::ProbeCaller,
                    [
                        Node {
                            call: Some(Call::Caller(call)),
                            ..
                        },
                        _,
                    ],
                ) => call.probe(now),
                (
                    step,
                    [
                        _,
                        Node {
                            call: Some(Call::Callee(call)),
                            ..
                        },
                    ],
                ) => match step {
                    Step::Progress => call.progress(now),
                    Step::Accept => call.accept(now),
                    Step::Reject => call.reject(486, None, Vec::new(), now),
                    Step::ProbeCallee => call.probe(now),
                    _ => call.hang_up(None, now),
                },
                _ => {}
            }
        }
        for node in &mut nodes {
            if node.poll_timeout().is_some_and(|at| at <= now) {
                node.handle_timeout(now);
            }
        }
    }
    for node in &nodes {
        assert_eq!(
            node.endpoint.counts(),
            Counts::default(),
            "seed {seed}: transactions left over"
        );
        assert!(
            node.clients.is_empty(),
            "seed {seed}: requests whose end was not told"
        );
        assert!(
            node.after_end.is_empty(),
            "seed {seed}: sent after the end: {:?}",
            node.after_end
        );
        assert_eq!(
            node.finals.len() as u32,
            node.requests,
            "seed {seed}: requests without final answer"
        );
        assert!(
            node.finals.values().all(|count| *count == 1),
            "seed {seed}: two final answers"
        );
        if let Some(call) = &node.call {
            assert!(call.is_ended(), "seed {seed}: a call half open");
            assert_eq!(node.ends, 1, "seed {seed}: ended once");
        }
    }
    Outcome {
        refreshes: nodes.iter().map(|node| node.refreshes).sum(),
        confirmed_by_both: nodes.iter().all(|node| node.confirmed),
        answered_by_none: nodes.iter().all(|node| !node.confirmed),
    }
}
