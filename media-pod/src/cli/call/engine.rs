//! Runs one test call: sockets, SIP transactions, the dialog and the audio in one loop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringwire_media::format::MOST_BYTES;
use ringwire_media::jitter::Delay;
use ringwire_media::networks::Networks;
use ringwire_media::stream::{PACKET_BYTES, RtpStream, StreamConfig, StreamEvent};
use ringwire_sip::dialog::{Action, CallEvent, EndedBy, RespondTo};
use ringwire_sip::digest::Credentials;
use ringwire_sip::message::{
    HeaderName, Host, Message, Method, NameAddr, Request, Response, Scheme, Uri,
};
use ringwire_sip::sdp::{Capabilities, Codec, Encryption, LocalMedia, Negotiated};
use ringwire_sip::transaction::{
    ClientError, ClientId, Endpoint, EndpointConfig, Event, Transport, TransportError,
};
use ringwire_sip::uac::{UacCall, UacParams};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::audio::{self, Audio};
use super::net::{self, How, Incoming, Sip};
use super::outcome::{Ended, Failure, Outcome, Progress};
use crate::registrar::tls;

/// What we call ourselves in SIP.
const USER_AGENT: &str = concat!("Ringwire/", env!("CARGO_PKG_VERSION"), " (test call)");

/// Keys are sent so long after the answer, and pressed so long.
const KEYS_AFTER: Duration = Duration::from_secs(1);
const KEY_MILLIS: u32 = 100;

/// After we said BYE or CANCEL the other side has so long to agree.
const CLOSING: Duration = Duration::from_secs(5);

/// A call to be placed.
pub struct Plan {
    /// Whom to call.
    pub target: Uri,
    /// The target's address.
    pub remote: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
    /// Our own address, if it matters.
    pub bind: Option<SocketAddr>,
    /// Who calls.
    pub from: Option<NameAddr>,
    /// User name and password.
    pub credentials: Option<Credentials>,
    /// More headers of the INVITE.
    pub headers: Vec<(HeaderName, String)>,
    /// Codecs to offer, the best first.
    pub codecs: Vec<Codec>,
    /// What to play, 8 kHz.
    pub play: Vec<i16>,
    /// Keys to press.
    pub keys: String,
    /// How long to talk.
    pub duration: Duration,
    /// The authorities that may have issued the other side's certificate (PEM); `None`: the public ones.
    pub authorities: Option<String>,
    /// Whether a 3xx is followed.
    pub follow_redirects: bool,
    /// How long to let it ring.
    pub answer_limit: Duration,
}

/// Calls, talks and hangs up; earlier when `stop` is cancelled. Gives what became of it, and what was heard (8 kHz).
pub async fn place(
    plan: Plan,
    progress: &mut dyn FnMut(Progress),
    stop: &CancellationToken,
) -> (Outcome, Vec<i16>) {
    let mut outcome = Outcome {
        target: plan.target.to_string(),
        transport: plan.transport,
        local: SocketAddr::from(([0, 0, 0, 0], 0)),
        remote: plan.remote,
        ring: None,
        setup: None,
        duration: None,
        codec: None,
        stats: None,
        echo: None,
        keys: plan.keys.clone(),
        keys_sent: false,
        keys_received: String::new(),
        ended_by: Ended::Nobody,
        reason: None,
        warning: None,
        failure: None,
        recorded: None,
    };
    let opening = async {
        let how = match plan.transport {
            Transport::Udp => How::Udp,
            Transport::Tcp => How::Tcp,
            Transport::Tls => {
                let name = match &plan.target.host {
                    Host::Ip(address) => address.to_string(),
                    Host::Name(name) => name.clone(),
                };
                How::Tls(tls::Client::to(name, plan.authorities.clone())?)
            }
        };
        let sip = Sip::open(how, plan.remote, plan.bind).await?;
        let rtp =
            net::rtp_socket(sip.local().ip()).map_err(|error| net::transport_error(&error))?;
        Ok::<_, TransportError>((sip, rtp))
    };
    let opened = tokio::select! {
        opened = opening => opened,
        () = stop.cancelled() => Err(TransportError::Other("given up".to_owned())),
    };
    let (sip, socket) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let how = format!(
                "{} over {}: {}",
                plan.remote,
                plan.transport,
                describe(&error)
            );
            outcome.failure = Some(Failure::Other(how));
            return (outcome, Vec::new());
        }
    };
    outcome.local = sip.local();
    progress(Progress::Calling {
        target: outcome.target.clone(),
        transport: plan.transport,
        local: sip.local(),
        remote: plan.remote,
    });
    let mut call = match Call::new(plan, sip, socket, outcome) {
        Ok(call) => call,
        Err((mut outcome, error)) => {
            outcome.failure = Some(Failure::Other(error.to_string()));
            return (*outcome, Vec::new());
        }
    };
    call.run(progress, stop).await;
    call.finish()
}

struct Call {
    sip: Sip,
    socket: UdpSocket,
    endpoint: Endpoint,
    uac: UacCall,
    id: String,
    target: Uri,
    remote: SocketAddr,
    /// Our pending requests, by the dialog's token.
    clients: HashMap<u64, ClientId>,
    rtp: Option<RtpStream>,
    session: Option<ringwire_media::stream::Session>,
    audio: Audio,
    started: Instant,
    answered: Option<Instant>,
    duration: Duration,
    keys_due: Option<Instant>,
    /// When to give up: first on an answer, then on talking, then on the other side's agreement to end.
    deadline: Instant,
    closing: bool,
    /// Why we end it before an answer.
    given_up: Option<String>,
    refusal: Option<Response>,
    error: Option<ClientError>,
    ended: bool,
    outcome: Outcome,
}

enum Wake {
    Sip(Incoming),
    Rtp(usize, SocketAddr),
    Stop,
    Timer,
}

impl Call {
    fn new(
        plan: Plan,
        sip: Sip,
        socket: UdpSocket,
        outcome: Outcome,
    ) -> Result<Self, (Box<Outcome>, std::io::Error)> {
        let local = sip.local();
        let rtp_port = match socket.local_addr() {
            Ok(address) => address.port(),
            Err(error) => return Err((Box::new(outcome), error)),
        };
        let user = plan
            .credentials
            .as_ref()
            .map_or("ringwire", |credentials| credentials.username.as_str());
        let mut contact = Uri::sip(Some(user), local.ip(), Some(local.port()));
        match plan.transport {
            Transport::Udp => {}
            Transport::Tcp => contact.params.set("transport", Some("tcp")),
            // RFC 3261 section 8.1.1.8.
            Transport::Tls if plan.target.is_sips() => contact.scheme = Scheme::Sips,
            Transport::Tls => contact.params.set("transport", Some("tls")),
        }
        let from = plan.from.unwrap_or_else(|| {
            // An account belongs to the domain that was called; anybody else is at home here.
            let host = match plan.credentials {
                Some(_) => plan.target.host.clone(),
                None => Host::Ip(local.ip()),
            };
            NameAddr::new(Uri::sip(Some(user), host, None))
        });
        let started = Instant::now();
        let mut to = plan.target.clone();
        to.params.remove("transport");
        let call_id = format!("{:032x}", rand::random::<u128>());
        let params = UacParams {
            follow_redirects: plan.follow_redirects,
            target: plan.target.clone(),
            from,
            to: NameAddr::new(to),
            contact: NameAddr::new(contact),
            call_id: call_id.clone(),
            local_tag: format!("{:016x}", rand::random::<u64>()),
            cnonce: format!("{:016x}", rand::random::<u64>()),
            capabilities: Capabilities {
                codecs: plan.codecs,
                telephone_event: true,
                ptime_millis: 20,
                encryption: Encryption::None,
                ice: None,
            },
            local: LocalMedia {
                address: local.ip(),
                rtp_port,
                session_id: u64::from(rand::random::<u32>()),
                version: 1,
            },
            credentials: plan.credentials,
            routes: Vec::new(),
            headers: plan.headers,
            user_agent: USER_AGENT.to_owned(),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
        };
        Ok(Self {
            sip,
            socket,
            endpoint: Endpoint::new(EndpointConfig::default(), rand::random()),
            uac: UacCall::new(params, started),
            id: call_id,
            target: plan.target,
            remote: plan.remote,
            clients: HashMap::new(),
            rtp: None,
            session: None,
            audio: Audio::new(plan.play, plan.duration.as_secs() + 2),
            started,
            answered: None,
            duration: plan.duration,
            keys_due: None,
            deadline: started + plan.answer_limit,
            closing: false,
            given_up: None,
            refusal: None,
            error: None,
            ended: false,
            outcome,
        })
    }

    async fn run(&mut self, progress: &mut dyn FnMut(Progress), stop: &CancellationToken) {
        let mut buffer = [0; 2048];
        self.pump(progress).await;
        while !self.ended {
            let rtp = self.rtp.as_ref().and_then(RtpStream::poll_timeout);
            let due = [
                self.endpoint.poll_timeout(),
                self.uac.poll_timeout(),
                rtp,
                self.keys_due,
                Some(self.deadline),
            ];
            let timer = due.into_iter().flatten().min().unwrap_or(self.deadline);
            let wake = tokio::select! {
                incoming = self.sip.receive() => Wake::Sip(incoming),
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => Wake::Rtp(length, from),
                    // Nobody listens where we send: an ICMP error about RTP ends nothing.
                    Err(_) => Wake::Timer,
                },
                () = stop.cancelled(), if !self.closing => Wake::Stop,
                () = tokio::time::sleep_until(timer.into()) => Wake::Timer,
            };
            let now = Instant::now();
            match wake {
                Wake::Sip(incoming) => self.on_sip(incoming, now),
                Wake::Rtp(length, from) => {
                    if let Some(rtp) = &mut self.rtp {
                        rtp.receive(&buffer[..length], from, now);
                    }
                }
                Wake::Stop => {
                    self.given_up = Some("given up before it was answered".to_owned());
                    self.hang_up(now, progress);
                }
                Wake::Timer => self.on_timer(now, progress),
            }
            self.pump(progress).await;
        }
    }

    fn on_timer(&mut self, now: Instant, progress: &mut dyn FnMut(Progress)) {
        self.endpoint.handle_timeout(now);
        self.uac.handle_timeout(now);
        if let Some(rtp) = &mut self.rtp {
            rtp.handle_timeout(now);
        }
        if self.keys_due.is_some_and(|due| due <= now) {
            self.keys_due = None;
            if let Some(rtp) = &mut self.rtp {
                let taken = self
                    .outcome
                    .keys
                    .chars()
                    .filter(|key| rtp.send_digit(*key, KEY_MILLIS))
                    .count();
                self.outcome.keys_sent = taken == self.outcome.keys.chars().count();
            }
        }
        if self.deadline <= now {
            if self.closing {
                // No agreement: it is over all the same.
                self.ended = true;
                self.outcome.ended_by = if self.answered.is_some() {
                    Ended::Us
                } else {
                    Ended::Nobody
                };
            } else {
                if self.answered.is_none() {
                    let waited = now.duration_since(self.started).as_secs_f64();
                    self.given_up = Some(format!("not answered within {waited:.0} s"));
                }
                self.hang_up(now, progress);
            }
        }
    }

    fn hang_up(&mut self, now: Instant, progress: &mut dyn FnMut(Progress)) {
        progress(Progress::HangingUp);
        self.closing = true;
        self.deadline = now + CLOSING;
        self.stop_audio(now);
        self.uac.hang_up(None, now);
    }

    fn stop_audio(&mut self, now: Instant) {
        if let Some(rtp) = &mut self.rtp {
            rtp.stop();
        }
        self.keys_due = None;
        if self.outcome.duration.is_none() {
            self.outcome.duration = self.answered.map(|answered| now.duration_since(answered));
        }
    }

    fn on_sip(&mut self, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Message(message, flow) => self.endpoint.receive(*message, flow, now),
            Incoming::Unreadable(failure, flow) => {
                if let Some(mut reply) = failure.reply {
                    reply.headers.note_source(flow.remote);
                    self.endpoint
                        .send_stateless(Message::Response(*reply), flow);
                }
            }
            Incoming::Broken(flow, error) => {
                let lost = flow.transport.is_reliable() && self.answered.is_some();
                self.endpoint.flow_failed(&flow, error, now);
                if lost {
                    // No BYE can come or go any more.
                    self.stop_audio(now);
                    self.ended = true;
                }
            }
        }
    }

    /// Moves everything on until nobody has anything more to say.
    async fn pump(&mut self, progress: &mut dyn FnMut(Progress)) {
        let now = Instant::now();
        loop {
            let mut moved = false;
            while let Some(action) = self.uac.poll_action() {
                self.act(action, now);
                moved = true;
            }
            while let Some(event) = self.endpoint.poll_event() {
                self.on_transaction(event, now, progress);
                moved = true;
            }
            while let Some(event) = self.uac.poll_event() {
                self.on_call(event, now, progress);
                moved = true;
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                if let Err(error) = self.sip.send(&transmit).await {
                    self.endpoint.flow_failed(&transmit.flow, error, now);
                }
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.pump_audio(progress);
    }

    fn act(&mut self, action: Action, now: Instant) {
        let local = self.sip.local();
        let (host, port) = (Host::Ip(local.ip()), local.port());
        match action {
            Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                if let RespondTo::Request(id) = to {
                    self.endpoint.respond(id, response, now);
                }
            }
            Action::Request { token, request } => {
                let flow = self.sip.flow_to(self.next_hop(&request));
                let id = self.endpoint.request(request, flow, &host, port, now);
                self.clients.insert(token, id);
            }
            Action::Ack { mut request } => {
                let flow = self.sip.flow_to(self.next_hop(&request));
                let via = self.endpoint.new_via(flow.transport, &host, port);
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(Message::Request(request), flow);
            }
            Action::Cancel { token } => {
                if let Some(id) = self.clients.get(&token) {
                    self.endpoint.cancel(*id, None, now);
                }
            }
        }
    }

    /// Where a request goes: its first route, else its target. A name that is not the target's stays with the peer that
    /// we have, for nothing is looked up in the middle of a call.
    fn next_hop(&self, request: &Request) -> SocketAddr {
        let routes = request.headers.routes();
        let uri = routes
            .first()
            .map(|route| &route.uri)
            .filter(|uri| uri.is_loose_router())
            .unwrap_or(&request.uri);
        match &uri.host {
            _ if *uri == self.target => self.remote,
            Host::Ip(address)
                if !address.is_unspecified() && address.is_ipv4() == self.remote.is_ipv4() =>
            {
                SocketAddr::new(*address, uri.port.unwrap_or(5060))
            }
            host if host.equivalent(&self.target.host) => {
                SocketAddr::new(self.remote.ip(), uri.port.unwrap_or(self.remote.port()))
            }
            _ => self.remote,
        }
    }

    fn token_of(&self, id: ClientId) -> Option<u64> {
        self.clients
            .iter()
            .find(|(_, client)| **client == id)
            .map(|(token, _)| *token)
    }

    fn on_transaction(&mut self, event: Event, now: Instant, progress: &mut dyn FnMut(Progress)) {
        match event {
            Event::Request { id, request, .. } => {
                if request
                    .headers
                    .call_id()
                    .is_ok_and(|call_id| call_id == self.id)
                {
                    self.note_reason(&request);
                    self.uac.on_request(id, &request, now);
                } else {
                    let status = if request.method == Method::OPTIONS {
                        200
                    } else {
                        481
                    };
                    self.endpoint
                        .respond(id, Response::to_request(&request, status, None), now);
                }
            }
            Event::Ack { request, .. } => self.uac.on_ack(&request, now),
            Event::Response { id, response, .. } => {
                let Some(token) = self.token_of(id) else {
                    return;
                };
                if self.answered.is_none() && matches!(response.status, 401 | 407) {
                    progress(Progress::Challenged);
                }
                if self.answered.is_none() && response.status >= 300 {
                    self.refusal = Some(response.clone());
                }
                self.uac.on_response(token, &response, now);
            }
            Event::Retransmitted { sends, .. } if self.answered.is_none() => {
                progress(Progress::NoReplyYet { tries: sends });
            }
            Event::Failed { id, error } => {
                if let Some(token) = self.token_of(id) {
                    self.error = Some(error);
                    self.uac.on_failed(token, now);
                }
            }
            Event::ClientEnded { id } => self.clients.retain(|_, client| *client != id),
            _ => {}
        }
    }

    fn note_reason(&mut self, request: &Request) {
        if request.method == Method::BYE {
            self.outcome.reason = request.headers.get(&HeaderName::Reason).map(str::to_owned);
        }
    }

    fn on_call(&mut self, event: CallEvent, now: Instant, progress: &mut dyn FnMut(Progress)) {
        match event {
            CallEvent::Progress { status } => {
                let after = now.duration_since(self.started);
                if self
                    .outcome
                    .ring
                    .replace(self.outcome.ring.unwrap_or(after))
                    .is_none()
                    || status != 180
                {
                    progress(Progress::Ringing { status, after });
                }
            }
            CallEvent::Answered => {
                let after = now.duration_since(self.started);
                self.answered = Some(now);
                self.outcome.setup = Some(after);
                self.deadline = now + self.duration;
                self.keys_due = (!self.outcome.keys.is_empty()).then(|| now + KEYS_AFTER);
                progress(Progress::Answered { after });
            }
            CallEvent::MediaChanged(negotiated) => self.media_changed(&negotiated, now),
            CallEvent::Dtmf(key) => self.key(key, progress),
            CallEvent::Ended { by, status, reason } => self.on_ended(by, status, reason, now),
            CallEvent::Confirmed
            | CallEvent::PeerAlive
            | CallEvent::PeerGone
            | CallEvent::Refer(_) => {}
        }
        // The answer may come before or after what was agreed on media.
        if let Some(rtp) = self
            .rtp
            .as_mut()
            .filter(|_| self.answered.is_some() && !self.closing && !self.ended)
        {
            self.audio.feed(rtp, now);
            rtp.start(now);
        }
    }

    fn key(&mut self, key: char, progress: &mut dyn FnMut(Progress)) {
        // Enough for any test, and bounded.
        if self.outcome.keys_received.len() < 256 {
            self.outcome.keys_received.push(key);
        }
        progress(Progress::Key(key));
    }

    fn media_changed(&mut self, negotiated: &Negotiated, now: Instant) {
        let session = crate::negotiated::session(negotiated);
        self.session = Some(session);
        self.outcome.codec = Some(negotiated.codec);
        let halves = crate::negotiated::has_short_packets(negotiated);
        if let Some(rtp) = &mut self.rtp {
            rtp.update(session, now);
            return rtp.send_halves(halves);
        }
        let timestamp = rand::random();
        self.audio.begin(timestamp);
        let config = StreamConfig {
            session,
            signalling_ip: Some(self.remote.ip()),
            networks: Networks::default(),
            ssrc: rand::random(),
            sequence: rand::random(),
            timestamp,
            format: audio::FORMAT,
            delay: Delay::Adaptive,
            cushion_millis: 0,
            reports: false,
            protection: crate::negotiated::protection(negotiated, None),
            ice: crate::negotiated::ice(negotiated),
        };
        let mut rtp = RtpStream::new(config, now);
        rtp.send_halves(halves);
        self.rtp = Some(rtp);
    }

    fn on_ended(&mut self, by: EndedBy, status: Option<u16>, reason: Option<String>, now: Instant) {
        self.stop_audio(now);
        self.ended = true;
        self.outcome.ended_by = match by {
            EndedBy::Peer => Ended::Peer,
            EndedBy::NoAnswer => Ended::Nobody,
            EndedBy::Us
            | EndedBy::Cancel
            | EndedBy::NoAck
            | EndedBy::BadAnswer
            | EndedBy::SessionExpired => Ended::Us,
        };
        if self.answered.is_some() {
            return;
        }
        let refused = self
            .refusal
            .take()
            .filter(|response| Some(response.status) == status);
        if let Some(response) = &refused {
            let header = |name| response.headers.get(&name).map(str::to_owned);
            (self.outcome.reason, self.outcome.warning) =
                (header(HeaderName::Reason), header(HeaderName::Warning));
        }
        let error = self.error.take();
        self.outcome.failure = Some(match (by, status, error) {
            (EndedBy::BadAnswer, ..) => {
                Failure::Other("the answer's SDP has no audio that we can use".to_owned())
            }
            (EndedBy::Peer, Some(status), _) => Failure::Refused {
                status,
                phrase: reason.unwrap_or_default(),
            },
            (EndedBy::NoAnswer, _, Some(ClientError::Transport(error))) => Failure::Other(format!(
                "{} over {}: {}",
                self.remote,
                self.outcome.transport,
                describe(&error)
            )),
            (EndedBy::NoAnswer, ..) => Failure::Other(format!("{} did not answer", self.remote)),
            _ => Failure::Other(
                self.given_up
                    .take()
                    .unwrap_or_else(|| "the call was ended".to_owned()),
            ),
        });
    }

    fn pump_audio(&mut self, progress: &mut dyn FnMut(Progress)) {
        let (Some(rtp), Some(session)) = (&mut self.rtp, &self.session) else {
            return;
        };
        self.audio.feed(rtp, Instant::now());
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = rtp.poll_transmit(&mut packet) {
            self.audio.sent(&packet[..length], session);
            // A full buffer loses a packet, as the network might.
            let _ = self.socket.try_send_to(&packet[..length], to);
        }
        let mut frame = [0; MOST_BYTES];
        while let Some((length, timestamp_millis)) = rtp.poll_frame(&mut frame) {
            self.audio.heard(&frame[..length], timestamp_millis);
        }
        let mut keys = Vec::new();
        while let Some(event) = rtp.poll_event() {
            match event {
                StreamEvent::Digit(key) => keys.push(key),
                StreamEvent::MarkPlayed(_)
                | StreamEvent::AgentAudioOverflow
                | StreamEvent::SourceMoved { .. }
                | StreamEvent::EncryptionFailed(_)
                | StreamEvent::OneWay(_) => {}
            }
        }
        for key in keys {
            self.key(key, progress);
        }
    }

    fn finish(mut self) -> (Outcome, Vec<i16>) {
        if self.answered.is_none() && self.outcome.failure.is_none() {
            let why = self
                .given_up
                .take()
                .unwrap_or_else(|| "the connection was lost".to_owned());
            self.outcome.failure = Some(Failure::Other(why));
        }
        if self.answered.is_some() {
            self.outcome.stats = self.rtp.as_ref().map(RtpStream::stats);
            self.outcome.echo = self.audio.echo();
        }
        (self.outcome, self.audio.recording().to_vec())
    }
}

/// What it means that a message could not be sent.
fn describe(error: &TransportError) -> String {
    match error {
        TransportError::Untrusted(why) => {
            format!(
                "the other side's certificate is not trusted: {why} (--ca names the authority that issued it)"
            )
        }
        TransportError::Refused => {
            "connection refused: nothing listens there (is `ringwire run` running?)".to_owned()
        }
        other => other.to_string(),
    }
}
