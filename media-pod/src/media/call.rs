//! One call: the SIP dialog, the RTP stream and the agent's connection, all in one task.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringwire_config::gateway::{Agent, MediaConfig};
use ringwire_config::state::AgentReport;
use ringwire_config::{ObjectRef, Reason, address};
use ringwire_media::rtcp::REPORT_BYTES;
use ringwire_media::stream::{RtpStream, StreamConfig, StreamEvent};
use ringwire_sip::dialog::{Action, CallEvent, EndedBy, RespondTo};
use ringwire_sip::message::{HeaderName, Host, NameAddr, Request, Response, Uri};
use ringwire_sip::sdp::{Capabilities, Codec, LocalMedia, Negotiated};
use ringwire_sip::transaction::ServerId;
use ringwire_sip::uas::{UasCall, UasParams};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::agent_link::{self, AgentLink, FromAgent, Unreachable};
use super::node::{CallKey, FromCall, Shared, ToCall};
use crate::private;
use crate::record::CallRecord;

/// No packets for so long, without hold, and the caller is asked whether he is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// An agent that was configured a moment ago may not have reached us yet.
const CONFIG_WAIT: Duration = Duration::from_secs(1);

/// Default delay of the jitter buffer.
const JITTER_MILLIS: u32 = 40;

/// The dialog has so long to end after we said BYE.
const END_LIMIT: Duration = Duration::from_secs(40);

/// Datagrams that are read before timers and other calls get their turn.
const BATCH: usize = 32;

/// A new call, as the node hands it to a worker.
pub struct NewCall {
    /// Which call.
    pub key: CallKey,
    /// Its INVITE, private headers included.
    pub invite: Request,
    /// The INVITE's transaction.
    pub server: ServerId,
    /// What the node has for it.
    pub inbox: mpsc::Receiver<ToCall>,
}

/// What the registrar decided.
struct Decision {
    provider: ObjectRef,
    number: ObjectRef,
    called: String,
    agent: ObjectRef,
    codecs: Vec<Codec>,
    contact: Uri,
    source: SocketAddr,
}

impl Decision {
    fn read(invite: &Request) -> Option<Self> {
        let text = |name| invite.headers.get(&private::name(name));
        let codecs = text(private::CODECS)?
            .split(',')
            .filter_map(|name| match name {
                "PCMU" => Some(Codec::Pcmu),
                "PCMA" => Some(Codec::Pcma),
                _ => None,
            });
        Some(Self {
            provider: text(private::PROVIDER)?.parse().ok()?,
            number: text(private::NUMBER)?.parse().ok()?,
            called: text(private::CALLED)?.to_owned(),
            agent: text(private::AGENT)?.parse().ok()?,
            codecs: codecs.collect(),
            contact: Uri::parse(text(private::CONTACT)?).ok()?,
            source: text(private::SOURCE)?.parse().ok()?,
        })
    }
}

/// Runs a call to its end.
pub async fn run(call: NewCall, shared: Arc<Shared>) {
    let key = call.key.clone();
    let started = Decision::read(&call.invite);
    if let Some(decision) = started {
        let _counted = Counted::new(&shared, &decision);
        Box::pin(run_decided(call, decision, &shared)).await;
    } else {
        tracing::error!("a registrar sent an INVITE without its decision");
        let response = Response::to_request(&call.invite, 500, None);
        shared
            .tell(FromCall::Respond {
                server: call.server,
                response,
            })
            .await;
    }
    shared.tell(FromCall::Ended(key)).await;
}

/// A call in the counters; out of them when it is dropped, even by a panic.
struct Counted<'a> {
    shared: &'a Shared,
    provider: ObjectRef,
    number: ObjectRef,
    agent: ObjectRef,
}

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared, decision: &Decision) -> Self {
        let Decision {
            provider,
            number,
            agent,
            ..
        } = decision;
        shared.count(provider, number, agent, 1);
        Self {
            shared,
            provider: provider.clone(),
            number: number.clone(),
            agent: agent.clone(),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.shared
            .count(&self.provider, &self.number, &self.agent, -1);
    }
}

struct Call<'a> {
    shared: &'a Shared,
    key: CallKey,
    server: ServerId,
    inbox: mpsc::Receiver<ToCall>,
    uas: UasCall,
    rng: StdRng,
    socket: UdpSocket,
    reports: UdpSocket,
    signalling_ip: IpAddr,
    rtp: Option<RtpStream>,
    link: Option<AgentLink>,
    record: CallRecord,
    /// Where the caller's last request came in at the registrar: ours go back there.
    flow: Option<String>,
    /// Whether the ACK has come.
    confirmed: bool,
    ended: bool,
    /// When silence was last asked about.
    probed: Option<Instant>,
    /// Messages of the agent that could not be used.
    unusable: u64,
}

async fn run_decided(call: NewCall, decision: Decision, shared: &Shared) {
    let NewCall {
        key,
        invite,
        server,
        inbox,
    } = call;
    let user = |name: &HeaderName| {
        invite
            .headers
            .readable(name)
            .into_iter()
            .next()
            .and_then(|address| address.uri.user_unescaped())
    };
    let mut record = CallRecord {
        call_id: key.call_id.clone(),
        start: Some(jiff::Timestamp::now()),
        from: user(&HeaderName::From).unwrap_or_default(),
        to: decision.called.clone(),
        provider: Some(decision.provider.to_string()),
        number: Some(decision.number.to_string()),
        agent: Some(decision.agent.to_string()),
        source: decision.source.to_string(),
        ended_by: "gateway",
        ..CallRecord::default()
    };
    let refuse =
        |status: u16, reason: Reason, detail: String, another: bool, mut record: CallRecord| {
            let mut response = Response::to_request(&invite, status, None);
            response.set_to_tag(&key.local_tag);
            if another {
                response
                    .headers
                    .push(private::name(private::TRY_ANOTHER), "1");
            }
            (record.reason, record.status, record.detail) = (Some(reason), status, detail);
            record.end = Some(jiff::Timestamp::now());
            // A call that goes to another pod leaves its record there.
            if !another {
                record.write();
            }
            FromCall::Respond { server, response }
        };

    let config = shared.config.borrow().clone();
    let Some(config) = config else {
        return shared
            .tell(refuse(
                503,
                Reason::InternalError,
                String::new(),
                true,
                record,
            ))
            .await;
    };
    let mut rng = StdRng::from_os_rng();
    let (socket, reports, local) = match open_media(shared, &config, &decision, &mut rng) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "no RTP port for a call");
            return shared
                .tell(refuse(
                    503,
                    Reason::AtCapacity,
                    error.to_string(),
                    true,
                    record,
                ))
                .await;
        }
    };
    let mut contact = decision.contact.clone();
    contact.user = Some(key.local_tag[..ringwire_config::token::TOKEN_LENGTH].to_owned());
    let params = UasParams {
        contact: NameAddr::new(contact),
        local_tag: key.local_tag.clone(),
        capabilities: Capabilities {
            codecs: decision.codecs.clone(),
            telephone_event: true,
            ptime_millis: 20,
        },
        local,
        server: crate::USER_AGENT.to_owned(),
        t1: Duration::from_millis(500),
        t2: Duration::from_secs(4),
        reliable_provisionals: false,
    };
    let flow = flow_of(&invite);
    let uas = match UasCall::new(invite.clone(), params, Instant::now()) {
        Ok(uas) => uas,
        Err(response) => {
            let warning = response
                .headers
                .get(&HeaderName::Warning)
                .unwrap_or(&response.reason)
                .to_owned();
            let encrypted = String::from_utf8_lossy(&invite.body).contains("RTP/SAVP");
            record.reason = Some(match response.status {
                488 if encrypted => Reason::EncryptionRequired,
                488 => Reason::CodecMismatch,
                _ => Reason::CallRefused,
            });
            (record.status, record.detail, record.end) =
                (response.status, warning, Some(jiff::Timestamp::now()));
            record.write();
            return shared.tell(FromCall::Respond { server, response }).await;
        }
    };
    let mut call = Call {
        shared,
        key,
        server,
        inbox,
        uas,
        rng,
        socket,
        reports,
        signalling_ip: decision.source.ip(),
        rtp: None,
        link: None,
        record,
        flow,
        confirmed: false,
        ended: false,
        probed: None,
        unusable: 0,
    };
    call.uas.ring(Instant::now());
    call.act().await;
    let max_call = call.connect(&decision.agent).await;
    if let Some(limit) = max_call {
        call.talk(limit).await;
    }
    call.finish().await;
}

/// The call's sockets for RTP and RTCP, and what our SDP says about them.
fn open_media(
    shared: &Shared,
    config: &MediaConfig,
    decision: &Decision,
    rng: &mut StdRng,
) -> io::Result<(UdpSocket, UdpSocket, LocalMedia)> {
    let settings = &config.settings;
    let identity = &shared.identity;
    let node = identity
        .node
        .as_ref()
        .and_then(|node| settings.nodes.get(node));
    let by_contact = match decision.contact.host {
        Host::Ip(address) => Some(address),
        Host::Name(_) => None,
    };
    // Without cluster the registrar found the address that leads to the caller; media leave from the same machine.
    let address = address::advertised(&settings.rtp, node, identity.pod_ip).or(by_contact);
    let address = address.ok_or_else(|| io::Error::other("no address to advertise"))?;
    let (socket, reports) = shared.ports.bind(identity.bind, settings.rtp_ports)?;
    let rtp_port = socket.local_addr()?.port();
    let session_id = u64::from(rng.random::<u32>());
    Ok((
        socket,
        reports,
        LocalMedia {
            address,
            rtp_port,
            session_id,
            version: 1,
        },
    ))
}

/// What the loop woke up for.
enum Wake {
    Inbox(Option<ToCall>),
    Rtp(io::Result<(usize, SocketAddr)>),
    Report(io::Result<(usize, SocketAddr)>),
    Agent(FromAgent),
    Timer,
}

impl Call<'_> {
    /// Connects the agent while the caller hears ringing. Gives the longest duration of the call if it was answered.
    async fn connect(&mut self, agent: &ObjectRef) -> Option<Duration> {
        let shared = self.shared;
        let found = {
            let mut config = shared.config.clone();
            let has = |config: &Option<Arc<MediaConfig>>| {
                config
                    .as_ref()
                    .is_some_and(|config| config.agents.contains_key(agent))
            };
            let waiting = tokio::time::timeout(CONFIG_WAIT, config.wait_for(has));
            let config = waiting
                .await
                .ok()
                .and_then(Result::ok)
                .and_then(|config| config.clone());
            config.and_then(|config| {
                Some((config.agents.get(agent)?.clone(), config.settings.clone()))
            })
        };
        let Some((entry, settings)) = found else {
            self.refuse(
                480,
                Reason::AgentNotFound,
                format!("agent {agent} is not configured"),
            );
            self.act().await;
            return None;
        };
        let rng = StdRng::from_rng(&mut self.rng);
        let started = Instant::now();
        let connecting = agent_link::connect(&entry, &settings, &shared.connector, rng);
        tokio::pin!(connecting);
        let connected = loop {
            let timer = self.uas.poll_timeout();
            tokio::select! {
                biased;
                message = self.inbox.recv() => {
                    self.on_inbox(message);
                    self.act().await;
                    if self.ended {
                        // Dropping the attempt closes whatever stands of the connection.
                        return None;
                    }
                }
                connected = &mut connecting => break connected,
                () = sleep_until(timer) => {
                    self.uas.handle_timeout(Instant::now());
                    self.act().await;
                }
            }
        };
        match connected {
            Ok(link) => {
                shared.report_agent(
                    agent,
                    true,
                    Reason::AgentReachable,
                    "the agent accepted the last call",
                );
                self.link = Some(link);
                tracing::debug!(
                    millis = started.elapsed().as_millis() as u64,
                    "agent connected"
                );
                self.uas.accept(Instant::now());
                self.record.status = 200;
                self.record.answer = Some(jiff::Timestamp::now());
                if let Some(link) = &mut self.link {
                    link.start();
                }
                // With an offer in the INVITE all is agreed by now; without one the ACK brings the answer.
                if let Some(negotiated) = self.uas.negotiated().cloned() {
                    self.media_changed(&negotiated);
                }
                self.act().await;
                Some(max_duration(&entry))
            }
            Err(Unreachable { reason, message }) => {
                shared.report_agent(agent, false, reason, &message);
                self.refuse(480, reason, message);
                self.act().await;
                None
            }
        }
    }

    fn refuse(&mut self, status: u16, reason: Reason, detail: String) {
        let header = (
            HeaderName::Reason,
            format!("SIP;cause={status};text=\"{}\"", reason.as_str()),
        );
        self.uas.reject(status, None, vec![header], Instant::now());
        (self.record.reason, self.record.status, self.record.detail) =
            (Some(reason), status, detail);
    }

    /// The answered call, until its end.
    async fn talk(&mut self, limit: Duration) {
        let mut buffer = vec![0; 2_048];
        let mut report = [0; 512];
        let answered = Instant::now();
        let mut closing: Option<Instant> = None;
        while !self.ended {
            let now = Instant::now();
            let deadline = closing.unwrap_or(answered + limit);
            let silence = self.silence_due(now).filter(|_| closing.is_none());
            let rtp = self.rtp.as_ref().and_then(RtpStream::poll_timeout);
            let timer = [self.uas.poll_timeout(), rtp, silence, Some(deadline)]
                .into_iter()
                .flatten()
                .min();
            let wake = {
                let Self {
                    inbox,
                    socket,
                    reports,
                    link,
                    ..
                } = self;
                let agent = async {
                    match link {
                        Some(link) => link.receive().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    message = inbox.recv() => Wake::Inbox(message),
                    received = socket.recv_from(&mut buffer) => Wake::Rtp(received),
                    received = reports.recv_from(&mut report) => Wake::Report(received),
                    from_agent = agent => Wake::Agent(from_agent),
                    () = sleep_until(timer) => Wake::Timer,
                }
            };
            let now = Instant::now();
            match wake {
                Wake::Inbox(message) => self.on_inbox(message),
                Wake::Rtp(received) => {
                    self.on_rtp(received, &buffer, now);
                    // A flood must not hold up this thread's other calls.
                    for _ in 1..BATCH {
                        let Ok(received) = self.socket.try_recv_from(&mut buffer) else {
                            break;
                        };
                        self.on_rtp(Ok(received), &buffer, now);
                    }
                }
                Wake::Report(received) => {
                    if let (Ok((length, from)), Some(rtp)) = (received, &mut self.rtp) {
                        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                        rtp.receive_report(&report[..length], from, now);
                    }
                }
                Wake::Agent(from_agent) => self.on_agent(from_agent, now),
                Wake::Timer => {
                    self.uas.handle_timeout(now);
                    if let Some(rtp) = &mut self.rtp {
                        rtp.handle_timeout(now);
                    }
                    if deadline <= now && closing.is_some() {
                        // The caller does not answer our BYE, and the dialog did not notice: the end all the same.
                        tracing::warn!(call_id = %self.key.call_id, "the dialog did not end in time");
                        self.ended = true;
                    } else if deadline <= now {
                        self.end(
                            "gateway",
                            Reason::MaxDuration,
                            "maxCallSeconds is reached".to_owned(),
                        );
                    } else if silence.is_some_and(|at| at <= now) {
                        self.probed = Some(now);
                        self.uas.probe(now);
                    }
                }
            }
            self.act().await;
            self.pump_media();
            if closing.is_none() && self.record.reason.is_some() {
                closing = Some(now + END_LIMIT);
            }
        }
    }

    /// When the caller has been silent for too long.
    fn silence_due(&self, now: Instant) -> Option<Instant> {
        let rtp = self.rtp.as_ref().filter(|rtp| !rtp.on_hold())?;
        let heard = now.checked_sub(rtp.idle_for(now)).unwrap_or(now);
        Some(heard.max(self.probed.unwrap_or(heard)) + SILENCE)
    }

    fn on_inbox(&mut self, message: Option<ToCall>) {
        let now = Instant::now();
        match message {
            Some(ToCall::Request { server, request }) => {
                self.flow = flow_of(&request).or(self.flow.take());
                self.uas.on_request(server, &request, now);
            }
            Some(ToCall::Ack { request }) => self.uas.on_ack(&request, now),
            Some(ToCall::Cancel { reason }) => self.uas.on_cancel(reason, now),
            Some(ToCall::Response { token, response }) => {
                self.uas.on_response(token, &response, now);
            }
            Some(ToCall::Failed { token }) => self.uas.on_failed(token, now),
            Some(ToCall::HangUp { reason }) => self.end("gateway", reason, String::new()),
            Some(ToCall::LinkLost) => {
                if !self.uas.is_answered() {
                    self.note_end(
                        "gateway",
                        Reason::InternalError,
                        "the registrar is gone".to_owned(),
                    );
                    self.uas.on_cancel(None, now);
                }
            }
            None => {
                self.note_end(
                    "gateway",
                    Reason::InternalError,
                    "the media pod is stopping".to_owned(),
                );
                self.ended = true;
            }
        }
    }

    /// Writes down who ended the call and why; the first one counts.
    fn note_end(&mut self, by: &'static str, reason: Reason, detail: String) {
        if self.record.reason.is_none() {
            (self.record.ended_by, self.record.reason, self.record.detail) =
                (by, Some(reason), detail);
        }
    }

    /// Ends the call from our side.
    fn end(&mut self, by: &'static str, reason: Reason, detail: String) {
        self.note_end(by, reason, detail);
        if let Some(rtp) = &mut self.rtp {
            rtp.stop();
        }
        let header = format!("SIP;cause=200;text=\"{}\"", reason.as_str());
        self.uas.hang_up(Some(header), Instant::now());
    }

    /// Carries out what the dialog wants, and takes in what it tells.
    async fn act(&mut self) {
        loop {
            while let Some(action) = self.uas.poll_action() {
                let message = match action {
                    Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                        let server = match to {
                            RespondTo::Invite => self.server,
                            RespondTo::Request(server) => server,
                        };
                        FromCall::Respond { server, response }
                    }
                    Action::Request { token, request } => FromCall::Request {
                        key: self.key.clone(),
                        token,
                        request: self.to_caller(request),
                    },
                    Action::Ack { request } => FromCall::Ack {
                        key: self.key.clone(),
                        request: self.to_caller(request),
                    },
                    // Only outbound calls cancel.
                    Action::Cancel { .. } => continue,
                };
                self.shared.tell(message).await;
            }
            let Some(event) = self.uas.poll_event() else {
                return;
            };
            self.on_event(event);
        }
    }

    /// A request to the caller, with the way that his last one came.
    fn to_caller(&self, mut request: Request) -> Box<Request> {
        if let Some(flow) = &self.flow {
            request
                .headers
                .push(private::name(private::FLOW), flow.clone());
        }
        // Where his connection is gone, the one that takes its place has to lead to the same carrier.
        if let Some(provider) = &self.record.provider {
            request
                .headers
                .push(private::name(private::PROVIDER), provider.clone());
        }
        Box::new(request)
    }

    fn on_event(&mut self, event: CallEvent) {
        match event {
            CallEvent::MediaChanged(negotiated) => self.media_changed(&negotiated),
            CallEvent::Confirmed => {
                self.confirmed = true;
                if let Some(rtp) = &mut self.rtp {
                    rtp.pause_playback(false);
                }
            }
            CallEvent::Dtmf(digit) => {
                if let Some(link) = &mut self.link {
                    link.digit(digit);
                }
            }
            CallEvent::PeerGone => {
                self.end(
                    "gateway",
                    Reason::CallerGone,
                    "no RTP for 30 s and no answer to OPTIONS".to_owned(),
                );
            }
            CallEvent::Ended { by, status, reason } => {
                let detail = reason.unwrap_or_default();
                match by {
                    EndedBy::Peer => self.note_end("caller", Reason::CallerHungUp, detail),
                    EndedBy::Cancel => self.note_end("caller", Reason::CallerCancelled, detail),
                    EndedBy::SessionExpired => {
                        self.note_end("gateway", Reason::CallerGone, detail);
                    }
                    EndedBy::NoAck => self.note_end("gateway", Reason::NoAck, detail),
                    EndedBy::BadAnswer => self.note_end("gateway", Reason::CodecMismatch, detail),
                    EndedBy::Us | EndedBy::NoAnswer => {
                        self.note_end("gateway", Reason::InternalError, detail);
                    }
                }
                if let Some(status) = status.filter(|_| self.record.answer.is_none()) {
                    self.record.status = status;
                }
                self.ended = true;
            }
            CallEvent::PeerAlive
            | CallEvent::Progress { .. }
            | CallEvent::Answered
            | CallEvent::Refer(_) => {}
        }
    }

    fn media_changed(&mut self, negotiated: &Negotiated) {
        let now = Instant::now();
        let session = crate::negotiated::session(negotiated);
        self.record.codec = Some(match negotiated.codec {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
        });
        self.probed = Some(now);
        if let Some(rtp) = &mut self.rtp {
            rtp.update(session, now);
            return;
        }
        let config = StreamConfig {
            session,
            signalling_ip: Some(self.signalling_ip),
            ssrc: self.rng.random(),
            sequence: self.rng.random(),
            timestamp: self.rng.random(),
            jitter_target_millis: JITTER_MILLIS,
            reports: true,
        };
        let mut rtp = RtpStream::new(config, now);
        // The caller may miss what is played before his ACK; the agent's audio waits for it, silence does not. (Without an offer in the
        // INVITE, it is the ACK that brought us here.)
        rtp.pause_playback(!self.confirmed);
        if self.uas.is_answered() {
            rtp.start(now);
        }
        self.rtp = Some(rtp);
    }

    fn on_rtp(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8], now: Instant) {
        if let (Ok((length, from)), Some(rtp)) = (received, &mut self.rtp) {
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            rtp.receive(&buffer[..length], from, now);
        }
    }

    fn on_agent(&mut self, from_agent: FromAgent, _now: Instant) {
        match from_agent {
            FromAgent::Command(command) => {
                let Some(rtp) = &mut self.rtp else { return };
                match command {
                    ringwire_agent::twilio::Command::Audio(ulaw) => rtp.play(&ulaw),
                    ringwire_agent::twilio::Command::Mark(name) => rtp.mark(name),
                    ringwire_agent::twilio::Command::Clear => rtp.clear(),
                }
            }
            FromAgent::Unusable(error) => {
                self.unusable += 1;
                if self.unusable == 1 {
                    tracing::warn!(call_id = %self.key.call_id, %error, "the agent sent something unusable");
                }
            }
            FromAgent::Closed(detail) => {
                self.link = None;
                self.end("agent", Reason::AgentClosed, detail);
            }
        }
    }

    /// Packets to the caller, audio and digits to the agent.
    fn pump_media(&mut self) {
        let Some(rtp) = &mut self.rtp else { return };
        let mut packet = [0; 512];
        while let Some((length, to)) = rtp.poll_transmit(&mut packet) {
            // A full buffer loses a packet, as the network might.
            let _ = self.socket.try_send_to(&packet[..length], to);
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = rtp.poll_report(&mut report, Instant::now()) {
            let _ = self.reports.try_send_to(&report[..length], to);
        }
        while let Some(event) = rtp.poll_event() {
            match event {
                StreamEvent::Frame {
                    audio,
                    timestamp_millis,
                } => {
                    if let Some(echo) = self
                        .link
                        .as_mut()
                        .and_then(|link| link.audio(&audio, timestamp_millis))
                    {
                        rtp.play(echo);
                    }
                }
                StreamEvent::Digit(digit) => {
                    if let Some(link) = &mut self.link {
                        link.digit(digit);
                    }
                }
                StreamEvent::MarkPlayed(name) => {
                    if let Some(link) = &mut self.link {
                        link.mark_played(&name);
                    }
                }
                StreamEvent::AgentAudioOverflow => {
                    tracing::warn!(
                        call_id = %self.key.call_id, reason = %Reason::AgentAudioOverflow,
                        "the agent is more than 120 s ahead; its newest audio was dropped"
                    );
                }
                StreamEvent::SourceMoved { from, to } => {
                    tracing::info!(call_id = %self.key.call_id, %from, %to, "the caller's RTP comes from a new address");
                }
            }
        }
    }

    /// Closes the agent and writes the record.
    async fn finish(mut self) {
        if let Some(link) = &mut self.link {
            let dropped = link.dropped();
            if dropped > 0 {
                tracing::warn!(call_id = %self.key.call_id, dropped, "the agent did not read all of the caller's audio");
            }
            link.stop();
        }
        if self.unusable > 1 {
            tracing::warn!(call_id = %self.key.call_id, messages = self.unusable, "the agent sent unusable messages");
        }
        self.record.end = Some(jiff::Timestamp::now());
        if let Some(rtp) = &self.rtp {
            let stats = rtp.stats();
            self.record.packets_received = stats.packets_received;
            self.record.packets_lost = stats.packets_lost;
            self.record.packets_sent = stats.packets_sent;
            self.record.packets_lost_remote = stats.packets_lost_remote;
            self.record.jitter_millis = stats.jitter_millis;
        }
        self.act().await;
        self.record.write();
    }
}

fn flow_of(request: &Request) -> Option<String> {
    request
        .headers
        .get(&private::name(private::FLOW))
        .map(str::to_owned)
}

fn max_duration(agent: &Agent) -> Duration {
    Duration::from_secs(u64::from(agent.max_call_seconds))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Turns an attempt's outcome into a report.
pub fn agent_report(reachable: bool, reason: Reason, message: &str) -> AgentReport {
    let now = jiff::Timestamp::now();
    let at = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    AgentReport {
        reachable,
        reason,
        message: message.to_owned(),
        at,
    }
}
