//! One call's audio, both ways: RTP in, frames for the agent out; the agent's audio in, RTP out.
//!
//! From [`RtpStream::start`] to [`RtpStream::stop`] one packet leaves every 20 ms unless the call is on hold, and one frame
//! goes to the agent every 20 ms whatever arrives, or, with [`Delay::OnArrival`], as soon as it has. Silence leaves in a grid; what the agent
//! says leaves when it is due, which may be up to 20 ms before the grid has its turn, and after it packets are back in the grid: so timestamps
//! never run away from the clock. Without a cushion, what an agent in real time says leaves when it comes, within the same 20 ms. Only where
//! the peer asked for it (Opus, `usedtx`) silence is not sent.
//!
//! The owner feeds datagrams and agent audio, calls [`RtpStream::handle_timeout`] at [`RtpStream::poll_timeout`], and empties
//! [`RtpStream::poll_transmit`], [`RtpStream::poll_frame`] and [`RtpStream::poll_event`] after each. Reports (RTCP) go beside it: [`RtpStream::receive_report`],
//! [`RtpStream::poll_report`].

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    FRAME_MILLIS,
    beside::Beside,
    codec,
    cover::{Cover, Protection},
    credit::Credit,
    dtls,
    dtmf::{self, in_band::Listener},
    flow::{Flow, Missing},
    format::{Format, MOST_BYTES},
    g711::ulaw_to_alaw,
    ice::{self, Agent, Component, Paths},
    jitter::{Delay, Insert, Position},
    networks::Networks,
    playback::{Playback, Taken, take_front},
    ports::demux::Peer,
    quality,
    reception::Reception,
    rtcp::{self, REPORT_BYTES, Reports},
    rtp::{self, HEADER_BYTES, Packet, RtpError},
    source::{SourceFilter, Verdict},
    srtp::{self, Refused},
    stun,
    transcode::{Inbound, Outbound, ticks_per_packet},
};

pub use crate::codec::Codec;

/// Bytes that [`RtpStream::poll_transmit`] needs.
pub const PACKET_BYTES: usize = HEADER_BYTES + codec::PAYLOAD_BYTES + srtp::OVERHEAD;

const TICK: Duration = Duration::from_millis(FRAME_MILLIS);
/// Packets sent at once by a thread that was late; what is missing beyond is skipped.
const MAX_CATCH_UP: u32 = 3;
/// Frames that wait for the owner. Beyond it they are dropped and counted.
const MAX_FRAMES: usize = 64;
/// Events that wait for the owner, and are bounded by what causes them, but for keys.
const MAX_EVENTS: usize = 64;
/// Keys that wait to be sent, and the pause between two, in ticks.
const MAX_KEYS: usize = 32;
const KEY_PAUSE: u32 = 4;
const PCMU_STATIC: u8 = 0;
const PCMA_STATIC: u8 = 8;

/// Payload types of telephone events, and their clock (RFC 4733 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The peer's number, which we send.
    pub send: u8,
    /// Our number, which the peer sends.
    pub receive: u8,
    /// Ticks per second of the durations in it: those of the codec, or 8,000 if the peer has no other.
    pub clock_rate: u32,
}

/// What offer and answer agreed on. A re-INVITE brings a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Audio codec, the same both ways.
    pub codec: Codec,
    /// Payload type to send, from the peer's SDP.
    pub send_payload_type: u8,
    /// Payload type to expect, from our SDP.
    pub receive_payload_type: u8,
    /// Telephone events, if agreed.
    pub telephone_event: Option<TelephoneEvent>,
    /// Where the peer's SDP wants media; `None` before an answer.
    pub remote: Option<SocketAddr>,
    /// Where the peer's SDP wants reports, if it says so (RFC 3605).
    pub remote_rtcp: Option<SocketAddr>,
    /// We may send (the peer is not holding us). While not, the agent's audio waits.
    pub send: bool,
    /// The peer sends. While not, its packets are ignored and their absence is not missed.
    pub receive: bool,
}

impl Session {
    /// Either side may not send: silence means nothing now.
    pub fn on_hold(&self) -> bool {
        !self.send || !self.receive
    }
}

/// How to start a stream. The random values are the caller's to draw (RFC 3550 §5.1).
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Result of offer and answer.
    pub session: Session,
    /// IP address that the peer's SIP comes from; a plausible source of its media too.
    pub signalling_ip: Option<IpAddr>,
    /// The provider's networks: from these, too.
    pub networks: Networks,
    /// Our synchronisation source.
    pub ssrc: u32,
    /// Our first sequence number.
    pub sequence: u16,
    /// Our first timestamp.
    pub timestamp: u32,
    /// How the agent hears and speaks.
    pub format: Format,
    /// How long the caller's packets wait before the agent hears them.
    pub delay: Delay,
    /// How long the first audio of a talk spurt waits, so that the agent's may be late by that: 20 is a good default. With 0 what the agent says
    /// in real time leaves when it comes.
    pub cushion_millis: u32,
    /// Whether the owner has a port for reports, and calls [`RtpStream::poll_report`].
    pub reports: bool,
    /// How its packets are protected.
    pub protection: Protection,
    /// What was agreed on for ICE, where the peer offers it and checks which way leads to us.
    pub ice: Option<ice::Terms>,
}

/// What the stream tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// The caller pressed a key.
    Digit(char),
    /// The audio before this mark has been played (or cleared).
    MarkPlayed(String),
    /// The agent sent more than 120 s ahead; its newest audio was dropped.
    AgentAudioOverflow,
    /// The caller's packets come from a new address.
    SourceMoved {
        /// The address before.
        from: SocketAddr,
        /// The address now.
        to: SocketAddr,
    },
    /// There are no keys, and will be none: why.
    EncryptionFailed(String),
    /// Sound goes one way only. Told once, and again only after it went both ways.
    OneWay(Missing),
}

/// What became of a check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checked {
    /// The answer, to be sent where the check came from.
    pub reply: Option<stun::Reply>,
    /// It was the peer's.
    pub good: bool,
}

/// Counters of one stream. Octets are payload only.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StreamStats {
    /// Packets sent.
    pub packets_sent: u64,
    /// Payload bytes sent.
    pub octets_sent: u64,
    /// Packets accepted from the confirmed source.
    pub packets_received: u64,
    /// Payload bytes of them.
    pub octets_received: u64,
    /// Packets of the peer that never arrived (RFC 3550 A.3).
    pub packets_lost: u64,
    /// Ours that the peer missed; unknown without its RTCP reports.
    pub packets_lost_remote: Option<u64>,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets dropped because of their source.
    pub rejected_source: u64,
    /// Packets that were not made with the key that was agreed on, those in the clear too.
    pub not_authentic: u64,
    /// Datagrams that are neither RTP nor RTCP.
    pub malformed: u64,
    /// Packets with a payload type that was not agreed (comfort noise is tolerated).
    pub unknown_payload: u64,
    /// Interarrival jitter (RFC 3550 A.8) in milliseconds.
    pub jitter_millis: f64,
    /// Frames of 20 ms with sound made up for packets that were not there in time.
    pub concealed: u64,
    /// How much later than the fastest packet of the last seconds one is played now, in milliseconds.
    pub buffer_millis: f64,
    /// The same on average, over the frames that had sound.
    pub mean_buffer_millis: f64,
    /// How often sound was made shorter or longer by a period of its pitch: for clock drift, or because the network's jitter changed.
    pub drift_corrections: u64,
    /// Frames that nobody fetched in time.
    pub frames_dropped: u64,
    /// Ticks skipped because the thread was late.
    pub ticks_skipped: u64,
    /// How often the source moved.
    pub moves: u64,
    /// When the last packet was accepted.
    pub last_received: Option<Instant>,
    /// How long a packet takes to the peer and back; unknown without its RTCP reports.
    pub round_trip_millis: Option<f64>,
    /// How good the peer's sound is here, by loss and delay: a mean opinion score, 1 to 4.4. None before any came.
    pub mos: Option<f64>,
    /// The same of our sound at the peer; unknown without its RTCP reports.
    pub mos_remote: Option<f64>,
    /// Nothing says that sound goes one way only.
    pub both_ways: bool,
}

/// How many ticks are due, and how many more are too late to be made up for.
fn ticks_due(due: Instant, now: Instant) -> (u32, u32) {
    let all = (now.duration_since(due).as_millis() / TICK.as_millis()) as u32 + 1;
    (all.min(MAX_CATCH_UP), all.saturating_sub(MAX_CATCH_UP))
}

/// So many microseconds later.
fn shifted(at: Instant, micros: i64) -> Instant {
    let by = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        at.checked_sub(by).unwrap_or(at)
    } else {
        at + by
    }
}

/// Of a protected stream it leaves room before the first roll-over (RFC 3711 section 3.3.1).
fn first_sequence(sequence: u16, cover: &Cover) -> u16 {
    if cover.has_keys() {
        sequence & 0x7fff
    } else {
        sequence
    }
}

fn tones(session: &Session, format: Format) -> Option<Box<Listener>> {
    let in_band = session.telephone_event.is_none();
    in_band.then(|| Box::new(Listener::new(format)))
}

/// A packet of 10 ms that has to wait for its turn.
#[derive(Debug)]
struct Second {
    at: Instant,
    payload_type: u8,
    timestamp: u32,
    payload: [u8; codec::PAYLOAD_BYTES],
    length: usize,
}

/// One call's RTP.
#[derive(Debug)]
pub struct RtpStream {
    session: Session,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    cover: Cover,
    /// The keys of reports, where they are others.
    beside: Beside,
    source: SourceFilter,
    inbound: Inbound,
    reception: Reception,
    flow: Flow,
    /// None for G.711 from an agent that says µ-law, which is not encoded.
    outbound: Option<Outbound>,
    keys_received: dtmf::Receiver,
    /// Looks for keys in the audio.
    tones: Option<Box<Listener>>,
    playback: Playback,
    playback_paused: bool,
    /// All that the agent has said has left: what comes next leaves when it comes, or silence in its turn.
    awaits_agent: bool,
    /// A talk spurt's marker bit that has not left yet.
    marker: bool,
    keys: VecDeque<dtmf::Generator>,
    key_timestamp: Option<u32>,
    key_pause: u32,
    /// Packets have 10 ms.
    halves: bool,
    /// The second half of the last 20 ms.
    second: Option<Box<Second>>,
    /// Where the grid of 20 ms begins, once started.
    grid: Option<Instant>,
    /// Packets since then, those that were skipped too.
    packets: u32,
    /// When the next frame goes to the agent.
    next_frame: Option<Instant>,
    /// When the next packet leaves.
    next_packet: Option<Instant>,
    ticks: u64,
    /// When the first of them was.
    begun: Option<Instant>,
    /// For frames that nobody paces.
    credit: Credit,
    idle_since: Instant,
    reports: Option<Reports>,
    /// Where the peer's reports come from.
    reporter: Option<SocketAddr>,
    /// Answers the peer's checks.
    ice: Option<Box<Agent>>,
    /// Where its reports come from, as its checks have shown; without any where they share the port of RTP.
    report_paths: Paths,
    transmit: VecDeque<([u8; PACKET_BYTES], usize)>,
    events: VecDeque<StreamEvent>,
    /// When the frames that wait began, and their sound.
    frames: VecDeque<u64>,
    sound: VecDeque<u8>,
    stats: StreamStats,
}

impl RtpStream {
    /// A stream that accepts packets but neither sends nor delivers frames before [`Self::start`].
    pub fn new(config: StreamConfig, now: Instant) -> Self {
        let StreamConfig {
            session,
            signalling_ip,
            networks,
            ssrc,
            sequence,
            timestamp,
            format,
            delay,
            cushion_millis,
            reports,
            protection,
            ice,
        } = config;
        let cover = Cover::new(&protection, now);
        let mut stream = Self {
            session,
            ssrc,
            sequence: first_sequence(sequence, &cover),
            timestamp,
            cover,
            beside: Beside::default(),
            source: SourceFilter::new(session.remote, signalling_ip).or_from(networks),
            inbound: Inbound::new(session.codec, delay, format),
            reception: Reception::new(now),
            flow: Flow::default(),
            outbound: Outbound::new(session.codec, format),
            keys_received: dtmf::Receiver::default(),
            tones: tones(&session, format),
            playback: Playback::new(format, Duration::from_millis(cushion_millis.into())),
            playback_paused: false,
            awaits_agent: false,
            marker: true,
            keys: VecDeque::new(),
            key_timestamp: None,
            key_pause: 0,
            halves: false,
            second: None,
            grid: None,
            packets: 0,
            next_frame: None,
            next_packet: None,
            ticks: 0,
            begun: None,
            credit: Credit::new(now),
            idle_since: now,
            reports: reports.then(|| Reports::new(ssrc, now)),
            reporter: None,
            ice: None,
            report_paths: Paths::default(),
            transmit: VecDeque::with_capacity(MAX_CATCH_UP as usize),
            events: VecDeque::new(),
            frames: VecDeque::with_capacity(MAX_CATCH_UP as usize),
            sound: VecDeque::with_capacity(format.frame_bytes()),
            stats: StreamStats::default(),
        };
        stream.beside.protect(&protection);
        stream.set_ice(ice.as_ref());
        stream.follow_reports(now);
        stream
    }

    /// The stream of a call that takes this one's place: what the agent has said and nobody heard yet goes over, the agent's frames are
    /// numbered on, and nothing else of the old peer's stays. The agent hears and speaks as before. It ticks if this one did.
    #[must_use]
    pub fn into_successor(self, config: StreamConfig, now: Instant) -> Self {
        let config = StreamConfig {
            format: self.playback.format(),
            ..config
        };
        let mut successor = Self {
            playback: self.playback,
            // Until its owner knows that the new peer listens.
            playback_paused: true,
            ticks: self.ticks,
            begun: self.begun,
            grid: self.grid.map(|_| now),
            next_packet: self.grid.map(|_| now),
            ..Self::new(config, now)
        };
        successor.next_frame = self.grid.map(|_| now + successor.inbound.patience());
        // Keys and marks, but no frames: these were the old peer's.
        successor.events.extend(self.events);
        if self.grid.is_some() {
            successor.flow.expect(successor.session.receive, now);
            if let Some(reports) = &mut successor.reports {
                reports.start(now);
            }
        }
        successor
    }

    /// Starts the 20 ms tick; the first packet and frame are due at once. On arrival the frame of the first packet is waited for.
    pub fn start(&mut self, now: Instant) {
        if self.grid.is_none() {
            self.grid = Some(now);
            self.begun.get_or_insert(now);
            self.next_frame = Some(now + self.inbound.patience());
            self.next_packet = Some(now);
            self.idle_since = now;
            self.flow.expect(self.session.receive, now);
            if let Some(reports) = &mut self.reports {
                reports.start(now);
            }
            // What came before would be played late for the whole call.
            self.inbound.reset();
        }
    }

    /// Stops the tick. Events already made can still be fetched; nothing more is sent.
    pub fn stop(&mut self) {
        self.grid = None;
        self.next_frame = None;
        self.next_packet = None;
        if let Some(reports) = &mut self.reports {
            reports.stop();
        }
        self.transmit.clear();
        self.second = None;
    }

    /// Keeps the agent's audio waiting (silence is sent) until released: used between the 200 OK and the ACK.
    pub fn pause_playback(&mut self, paused: bool, now: Instant) {
        self.playback_paused = paused;
        self.advance_packet(now);
    }

    /// Whether packets have 10 ms of sound from now on, in place of 20: for a peer that takes none that are longer (`maxptime`). Not for AMR-WB,
    /// iLBC and G.722.1, whose frames cannot be halved.
    pub fn send_halves(&mut self, halves: bool) {
        self.halves = halves;
        self.second = None;
    }

    /// How packets are protected from now on. Keys that stay the same go on as they are.
    pub fn protect(&mut self, protection: &Protection, now: Instant) {
        if self.cover.change(protection, now) {
            self.begin_anew();
        }
        self.beside.protect(protection);
        self.follow_reports(now);
        self.transmit.clear();
    }

    /// What is agreed on for ICE from now on. With other credentials the peer begins its checks anew (RFC 8445 section 9); until it has
    /// nominated one, packets go where they did.
    pub fn set_ice(&mut self, terms: Option<&ice::Terms>) {
        if self.ice.as_ref().map(|agent| agent.terms()) == terms {
            return;
        }
        self.ice = terms.map(|terms| Box::new(Agent::new(terms)));
        self.source
            .set_ufrag(terms.map(|terms| terms.ufrag.as_str()));
        if terms.is_some() {
            self.report_paths.restart();
        } else {
            self.report_paths = Paths::default();
        }
    }

    /// Takes a check that came to one of the call's ports.
    pub fn take_check(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        component: Component,
        now: Instant,
    ) -> Checked {
        let (Some(agent), Some(request)) = (&mut self.ice, stun::Message::read(datagram)) else {
            return Checked::default();
        };
        let (reply, proof) = agent.check(&request, from, now);
        // With ICE or without, reports may have another port than before.
        self.follow_reports(now);
        if let Some(proof) = proof {
            match component {
                Component::Rtp => {
                    if let Some((from, to)) = self.source.note_check(from, proof, now) {
                        self.events.push_back(StreamEvent::SourceMoved { from, to });
                    }
                }
                Component::Reports => {
                    self.report_paths.note(from, proof, now);
                }
            }
        }
        Checked {
            reply,
            good: proof.is_some(),
        }
    }

    /// Under a new key.
    fn begin_anew(&mut self) {
        // A peer may begin the roll-over counter anew with a key, or keep it (RFC 3711 section 3.3.1): of a new stream it is zero.
        self.ssrc = self.ssrc.wrapping_add(1);
        self.sequence = first_sequence(self.sequence, &self.cover);
        self.marker = true;
        self.transmit.clear();
        self.second = None;
        self.flow.stopped_sending();
    }

    /// Which port reports have, and so which keys, may have changed.
    fn follow_reports(&mut self, now: Instant) {
        let apart = self.reports.is_some() && !self.is_muxed();
        self.beside.follow(apart, now);
    }

    fn take_handshake(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        // A stranger could only spoil it.
        if !self.source.expects(from) {
            return self.source.note_stranger();
        }
        if self.cover.take_handshake(datagram, from, now) {
            self.begin_anew();
        }
        self.tell_failure();
    }

    fn tell_failure(&mut self) {
        if let Some(detail) = self.cover.take_failure() {
            self.events.push_back(StreamEvent::EncryptionFailed(detail));
        }
    }

    /// The next datagram of a handshake, and where to.
    pub fn poll_handshake(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let destination = self.source.destination();
        if self.ice.is_some() && destination.is_none() {
            // It waits for the first check.
            return None;
        }
        let (datagram, peer) = self.cover.poll_handshake()?;
        let peer = peer.filter(|_| !self.source.is_checked());
        Some((datagram, peer.or(destination)?))
    }

    /// The same on the port for reports.
    pub fn poll_report_handshake(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let told = self.reports_go_to();
        if self.ice.is_some() && told.is_none() {
            return None;
        }
        let (datagram, peer) = self.beside.cover()?.poll_handshake()?;
        let peer = peer.filter(|_| !self.source.is_checked());
        Some((datagram, peer.or(told)?))
    }

    /// Takes one datagram of this call's socket as it came. It is not to be read any more.
    pub fn take(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) {
        if self.cover.shakes_hands() && dtls::Handshake::is_meant(datagram) {
            return self.take_handshake(datagram, from, now);
        }
        // It keeps the way open.
        if self.ice.is_some() && stun::is_meant(datagram) {
            return;
        }
        if rtp::is_rtcp(datagram) {
            if self.is_muxed() {
                self.take_report(datagram, from, now);
            }
            return;
        }
        if self.cover.has_keys() && !self.source.expects(from) && !self.cover.may_try(now) {
            return self.source.note_stranger();
        }
        match self.cover.open_rtp(datagram) {
            Ok(length) => self.receive(&datagram[..length], from, now),
            Err(Refused::Malformed) => self.stats.malformed += 1,
            Err(Refused::Replayed) => self.stats.duplicates += 1,
            Err(Refused::Forged | Refused::Exhausted) => self.stats.not_authentic += 1,
        }
    }

    /// Tries a packet of an unknown source on the call's key, and takes it if it fits. It is not to be read any more.
    pub fn prove(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) -> bool {
        if !self.cover.has_keys() {
            return false;
        }
        let opened = self.cover.open_rtp(datagram);
        if let Ok(length) = opened {
            self.receive(&datagram[..length], from, now);
        }
        opened.is_ok()
    }

    /// Whether what was taken is to be told, or answered, before anything else is due.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || self.cover.shakes_hands() || self.has_arrived()
    }

    /// Frames wait that are not to wait.
    fn has_arrived(&self) -> bool {
        !self.frames.is_empty() && self.inbound.is_on_arrival()
    }

    /// Which source is listened to, what a packet needs to pass, and where reports are said to come from.
    pub fn peer(&self) -> Peer<'_> {
        Peer {
            source: &self.source,
            door: self.cover.door(),
            shakes_hands: self.cover.shakes_hands(),
            reports: self.report_paths.chosen().or(self.session.remote_rtcp),
        }
    }

    /// Takes one datagram of this call's socket, in the clear.
    pub fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(RtpError::Rtcp) => return,
            Err(_) => {
                self.stats.malformed += 1;
                return;
            }
        };
        let (ssrc, sequence) = (packet.ssrc, packet.sequence);
        let verdict = if self.cover.has_keys() {
            self.source.check_authentic(from, ssrc, sequence, now)
        } else {
            self.source.check(from, ssrc, sequence, now)
        };
        match verdict {
            Verdict::Accepted => {}
            Verdict::Moved { from, to } => {
                self.events.push_back(StreamEvent::SourceMoved { from, to });
            }
            Verdict::Pending | Verdict::Rejected => return,
        }
        self.stats.octets_received += packet.payload.len() as u64;
        self.stats.last_received = Some(now);
        if self.session.receive {
            let comfort = matches!(packet.payload_type, 13 | 19);
            self.flow.received(comfort, now);
        }
        if self
            .session
            .telephone_event
            .is_some_and(|event| event.receive == packet.payload_type)
        {
            self.record_other(&packet, now);
            let digit = self
                .keys_received
                .receive(packet.ssrc, packet.timestamp, packet.payload);
            // A flood of made-up keys must not fill the memory.
            if let Some(digit) = digit.filter(|_| self.events.len() < 2 * MAX_EVENTS) {
                self.events.push_back(StreamEvent::Digit(digit));
            }
            return;
        }
        let Some(codec) = self.codec_of(packet.payload_type) else {
            self.stats.unknown_payload += u64::from(!matches!(packet.payload_type, 13 | 19));
            return self.record_other(&packet, now);
        };
        if let Some(outbound) = &mut self.outbound {
            outbound.hear(packet.payload);
        }
        let timestamp = self.inbound.timestamp(packet.timestamp);
        let at = Position {
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
        };
        let inserted = if self.session.receive {
            self.inbound.insert(at, codec, packet.payload, now)
        } else {
            Insert::Stored
        };
        // A copy would hide a loss.
        if inserted != Insert::Duplicate {
            self.reception
                .record(packet.ssrc, packet.sequence, Some(timestamp), now);
        }
        if self.inbound.is_on_arrival() && inserted == Insert::Stored {
            self.make_frames_on_arrival(now);
        }
    }

    /// Notes a packet that has no sound.
    fn record_other(&mut self, packet: &Packet<'_>, now: Instant) {
        self.reception
            .record(packet.ssrc, packet.sequence, None, now);
        self.inbound.pass_over(packet.ssrc, packet.sequence);
    }

    /// Makes the frames that are there, once the stream has started. The next one is due when it is no longer waited for.
    fn make_frames_on_arrival(&mut self, now: Instant) {
        if self.next_frame.is_none() {
            return;
        }
        while self.inbound.is_ready() {
            if !self.credit.take(now) {
                // Faster than time: then as fast as time.
                self.next_frame = Some(now + TICK);
                return;
            }
            self.make_frame(now);
        }
        self.next_frame = self.inbound.deadline().or(self.next_frame);
    }

    /// The agreed payload type, else G.711's static ones: some carriers switch law without asking. Beside other codecs these are not expected.
    fn codec_of(&self, payload_type: u8) -> Option<Codec> {
        if payload_type == self.session.receive_payload_type {
            return Some(self.session.codec);
        }
        let codec = match payload_type {
            PCMU_STATIC => Codec::Pcmu,
            PCMA_STATIC => Codec::Pcma,
            _ => return None,
        };
        self.inbound.takes(codec).then_some(codec)
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_report`] is due; `None` before the start and after the stop.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let report = self.reports.as_ref().and_then(Reports::due);
        let handshakes = [self.cover.poll_timeout(), self.beside.poll_timeout()];
        let second = self.second.as_ref().map(|second| second.at);
        [self.next_frame, self.next_packet, report, second]
            .into_iter()
            .chain(handshakes)
            .flatten()
            .min()
    }

    /// Takes a datagram of the RTCP port as it came. It is not to be read any more.
    pub fn take_report(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) {
        if self.ice.is_some() && stun::is_meant(datagram) {
            return;
        }
        let known = self.knows_reporter(from, now);
        if self.cover.shakes_hands() && dtls::Handshake::is_meant(datagram) {
            // As with the sound, a stranger could only spoil it. If it fails there are no reports, and that is all.
            if let Some(cover) = self.beside.cover().filter(|_| known) {
                cover.take_handshake(datagram, from, now);
            }
            return;
        }
        let cover = self.beside.cover().unwrap_or(&mut self.cover);
        match cover.open_rtcp(datagram) {
            Ok(length) => self.receive_report(&datagram[..length], from, now),
            Err(_) => self.stats.not_authentic += 1,
        }
    }

    /// Whether reports may come from there.
    fn knows_reporter(&self, from: SocketAddr, now: Instant) -> bool {
        if self.source.is_checked() {
            return self.source.expects(from) || self.report_paths.has(from, now);
        }
        let rtp = self.source.destination();
        self.source.is_plausible(from.ip()) || rtp.is_some_and(|rtp| rtp.ip() == from.ip())
    }

    /// Takes a datagram of the RTCP port, in the clear. Strangers are not listened to; nothing here moves the RTP.
    pub fn receive_report(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let known = self.knows_reporter(from, now);
        let Some(heard) = rtcp::read(datagram, self.ssrc).filter(|_| known) else {
            return;
        };
        self.reporter = Some(from);
        if let Some(reports) = &mut self.reports {
            reports.heard(&heard, now);
        }
        if let Some(missing) = self.flow.reported(&heard, now) {
            self.events.push_back(StreamEvent::OneWay(missing));
        }
        if let Some(block) = heard.about_us {
            self.stats.packets_lost_remote = Some(block.lost.max(0).cast_unsigned().into());
        }
    }

    /// Whether reports go where RTP does (RFC 5761).
    pub fn is_muxed(&self) -> bool {
        if let Some(agent) = &self.ice {
            return agent.terms().muxed;
        }
        self.session.remote.is_some() && self.session.remote_rtcp == self.session.remote
    }

    /// The report that is due, if one is: its length in `out`, and where to. That is where the peer's own come from, else the port after
    /// that of its RTP (RFC 3550 section 11).
    pub fn poll_report(
        &mut self,
        out: &mut [u8; REPORT_BYTES],
        now: Instant,
    ) -> Option<(usize, SocketAddr)> {
        let reports = self.reports.as_mut()?;
        if reports.due()? > now {
            return None;
        }
        let sent = (
            self.stats.packets_sent,
            self.stats.octets_sent,
            self.timestamp,
        );
        let mut block = self.reception.report();
        if let Some(block) = &mut block {
            // It was counted at 8,000 ticks a second.
            let ratio = self.session.codec.clock_rate() / Codec::Pcmu.clock_rate();
            block.jitter = block.jitter.saturating_mul(ratio);
        }
        let length = reports.write(out, self.ssrc, sent, block, now);
        let to = self.reports_go_to()?;
        let cover = self.beside.cover().unwrap_or(&mut self.cover);
        let length = cover.seal_rtcp(out, length)?;
        Some((length, to))
    }

    /// Where reports go, if it is known.
    fn reports_go_to(&self) -> Option<SocketAddr> {
        let beside = |rtp: SocketAddr| SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1));
        if self.is_muxed() {
            self.source.destination()
        } else if self.ice.is_some() {
            self.report_paths.chosen().or(self.reporter)
        } else {
            self.reporter
                .or(self.session.remote_rtcp)
                .or_else(|| self.source.destination().map(beside))
        }
    }

    /// Does what is due. A late thread makes up for at most three frames and packets; timestamps stay those of the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.cover.handle_timeout(now);
        self.beside.handle_timeout(now);
        self.tell_failure();
        if let Some(due) = self.next_frame.filter(|due| *due <= now) {
            if self.inbound.is_on_arrival() {
                self.give_up(due, now);
            } else {
                self.make_due_frames(due, now);
            }
        }
        if self.second.as_ref().is_some_and(|second| second.at <= now) {
            self.send_second();
        }
        self.make_due_packets(now);
    }

    /// A frame every 20 ms.
    fn make_due_frames(&mut self, due: Instant, now: Instant) {
        let (count, skipped) = ticks_due(due, now);
        self.next_frame = Some(due + TICK * (count + skipped));
        if skipped > 0 {
            self.stats.ticks_skipped += u64::from(skipped);
            self.ticks += u64::from(skipped);
            self.inbound.skip(skipped.into());
        }
        for number in 0..count {
            self.make_frame(due + TICK * (skipped + number));
        }
    }

    /// What is missing is not waited for any more, but for what a late thread would have to make up for.
    fn give_up(&mut self, mut due: Instant, now: Instant) {
        for _ in 0..MAX_CATCH_UP {
            // Of what came while the thread was late, nothing is missing.
            if !self.inbound.is_ready() && self.credit.take(now) {
                self.make_frame(due);
                self.inbound.gave_up(due);
                self.next_frame = Some(due + TICK);
            }
            self.make_frames_on_arrival(now);
            match self.next_frame.filter(|due| *due <= now) {
                Some(next) => due = next,
                None => return,
            }
        }
        self.inbound.gave_up(now);
        self.next_frame = Some(now + TICK);
    }

    fn make_due_packets(&mut self, now: Instant) {
        if let Some(due) = self.next_packet.filter(|due| *due <= now) {
            let (count, skipped) = ticks_due(due, now);
            self.timestamp = self
                .timestamp
                .wrapping_add(skipped.wrapping_mul(ticks_per_packet(self.session.codec)));
            if skipped > 0 {
                self.leave_a_hole();
            }
            self.packets = self.packets.wrapping_add(skipped);
            let mut at = due + TICK * skipped;
            for _ in 0..count {
                if at <= now {
                    at = self.make_packet(at);
                }
            }
            self.next_packet = Some(at);
            self.advance_packet(now);
            if let Some(missing) = self.flow.check(now) {
                self.events.push_back(StreamEvent::OneWay(missing));
            }
        }
    }

    /// Keys are tones where no events were agreed on.
    fn listen_for_keys(&mut self, frame: &[u8]) {
        let Self { tones, events, .. } = self;
        let Some(tones) = tones else { return };
        tones.listen(frame, |digit| {
            if events.len() < 2 * MAX_EVENTS {
                events.push_back(StreamEvent::Digit(digit));
            }
        });
    }

    fn make_frame(&mut self, due: Instant) {
        let mut frame = [0; MOST_BYTES];
        let frame = &mut frame[..self.playback.format().frame_bytes()];
        let shift = self.inbound.pop(frame, due);
        self.next_frame = self.next_frame.map(|next| shifted(next, shift));
        self.listen_for_keys(frame);
        if self.inbound.is_on_arrival() {
            self.catch_up_with_time(due);
        }
        let timestamp_millis = self.ticks * FRAME_MILLIS;
        self.ticks += 1;
        if self.frames.len() < MAX_FRAMES {
            self.frames.push_back(timestamp_millis);
            self.sound.extend(&*frame);
        } else {
            self.stats.frames_dropped += 1;
        }
    }

    /// Frames that nobody paces begin when they come, where that is later than the one before would say.
    fn catch_up_with_time(&mut self, now: Instant) {
        let passed = self
            .begun
            .map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let ticks = (passed.as_millis() / TICK.as_millis()) as u64;
        if ticks > self.ticks + 2 {
            self.ticks = ticks;
        }
    }

    /// Makes the packet that is due then. Gives when the next one is.
    fn make_packet(&mut self, at: Instant) -> Instant {
        let speaks = self.fill_packet(at);
        let ticks = ticks_per_packet(self.session.codec);
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.packets = self.packets.wrapping_add(1);
        self.awaits_agent = speaks && self.playback.is_instant() && !self.playback.has_frame();
        match self.turn_in_grid() {
            Some(turn) if !speaks || self.awaits_agent => turn,
            _ => at + TICK,
        }
    }

    /// When the next packet has its turn in the grid.
    fn turn_in_grid(&self) -> Option<Instant> {
        Some(self.grid? + TICK * self.packets)
    }

    /// A talk spurt does not wait for the grid. It is ahead of it by 20 ms at most.
    fn advance_packet(&mut self, now: Instant) {
        let awaited = self.awaits_agent && self.playback.has_frame();
        let begins = self.playback.begins_at().or(awaited.then_some(now));
        let begins = begins.filter(|_| !self.playback_paused);
        if let (Some(begins), Some(next), Some(turn)) =
            (begins, self.next_packet, self.turn_in_grid())
        {
            let earliest = turn.checked_sub(TICK).unwrap_or(turn).max(now);
            self.next_packet = Some(next.min(begins.max(earliest)));
        }
    }

    /// Whether what it says is more than silence.
    fn fill_packet(&mut self, at: Instant) -> bool {
        // One that is late comes before what follows it.
        self.send_second();
        let sends =
            self.session.send && self.cover.is_open() && self.source.destination().is_some();
        if sends {
            self.flow.sent(at);
        } else {
            self.flow.stopped_sending();
        }
        if sends && self.send_key() {
            self.leave_a_hole();
            return true;
        }
        let format = self.playback.format();
        let mut frame = [0; MOST_BYTES];
        let frame = &mut frame[..format.frame_bytes()];
        frame.fill(format.silence());
        let mut speaks = false;
        if !self.playback_paused
            && let Taken::Audio { first } = self.playback.take(frame, at)
        {
            self.marker |= first;
            speaks = true;
        }
        if !sends {
            // On hold the agent's audio passes unheard at its pace: kept, it would be late by the length of the hold ever after.
            self.marker = true;
            self.leave_a_hole();
            self.tell_marks();
            return speaks;
        }
        let (first, second) = frame.split_at_mut(frame.len() / (1 + usize::from(self.halves)));
        self.send_sound(first, self.timestamp);
        if !second.is_empty() {
            self.keep_second(second, at + TICK / 2);
        }
        self.tell_marks();
        speaks
    }

    /// Encodes this, the agent's, which is changed by that. Gives the payload's length, 0 if nothing is to be sent, and by how much it
    /// begins before.
    fn encode(&mut self, sound: &mut [u8], coded: &mut [u8]) -> (usize, u32) {
        if let Some(outbound) = &mut self.outbound {
            let length = outbound.encode(sound, coded);
            return (length, outbound.lead());
        }
        if self.session.codec == Codec::Pcma {
            for code in &mut *sound {
                *code = ulaw_to_alaw(*code);
            }
        }
        for (to, from) in coded.iter_mut().zip(&*sound) {
            *to = *from;
        }
        (sound.len().min(coded.len()), 0)
    }

    fn send_sound(&mut self, sound: &mut [u8], timestamp: u32) {
        let mut coded = [0; codec::PAYLOAD_BYTES];
        let (length, lead) = self.encode(sound, &mut coded);
        if length > 0 {
            let marker = std::mem::take(&mut self.marker);
            let payload_type = self.session.send_payload_type;
            let timestamp = timestamp.wrapping_sub(lead);
            self.push_packet(marker, payload_type, timestamp, &coded[..length]);
        }
    }

    /// What is to be sent 10 ms after the packet before.
    fn keep_second(&mut self, sound: &mut [u8], at: Instant) {
        let mut payload = [0; codec::PAYLOAD_BYTES];
        let (length, lead) = self.encode(sound, &mut payload);
        let half = ticks_per_packet(self.session.codec) / 2;
        self.second = (length > 0).then(|| {
            Box::new(Second {
                at,
                payload_type: self.session.send_payload_type,
                timestamp: self.timestamp.wrapping_add(half).wrapping_sub(lead),
                payload,
                length,
            })
        });
    }

    fn send_second(&mut self) {
        if let Some(second) = self.second.take() {
            let Second {
                at: _,
                payload_type,
                timestamp,
                payload,
                length,
            } = *second;
            // Where silence is not sent, the spurt may begin here.
            let marker = std::mem::take(&mut self.marker);
            self.push_packet(marker, payload_type, timestamp, &payload[..length]);
        }
    }

    /// No sound is sent in this turn.
    fn leave_a_hole(&mut self) {
        if let Some(outbound) = &mut self.outbound {
            outbound.skip();
        }
    }

    fn tell_marks(&mut self) {
        while let Some(name) = self.playback.next_mark() {
            self.events.push_back(StreamEvent::MarkPlayed(name));
        }
    }

    /// Sends the next packet of a key instead of audio; false if there is none.
    fn send_key(&mut self) -> bool {
        if self.key_pause > 0 {
            self.key_pause -= 1;
            return false;
        }
        let (Some(event), Some(generator)) = (self.session.telephone_event, self.keys.front_mut())
        else {
            return false;
        };
        let timestamp = *self.key_timestamp.get_or_insert(self.timestamp);
        if let Some(packet) = generator.next() {
            self.push_packet(packet.marker, event.send, timestamp, &packet.payload);
            return true;
        }
        self.keys.pop_front();
        self.key_timestamp = None;
        self.key_pause = KEY_PAUSE;
        self.marker = true;
        false
    }

    fn push_packet(&mut self, marker: bool, payload_type: u8, timestamp: u32, payload: &[u8]) {
        if self.transmit.len() >= MAX_CATCH_UP as usize * (1 + usize::from(self.halves)) {
            self.transmit.pop_front();
        }
        let packet = Packet {
            marker,
            payload_type,
            sequence: self.sequence,
            timestamp,
            ssrc: self.ssrc,
            payload,
        };
        let mut buffer = [0; PACKET_BYTES];
        if let Some(length) = packet.write(&mut buffer) {
            self.sequence = self.sequence.wrapping_add(1);
            self.transmit.push_back((buffer, length));
        }
    }

    /// The next datagram to send: its length in `out` ([`PACKET_BYTES`] suffice) and where to.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let destination = self.source.destination()?;
        let (packet, length) = self.transmit.pop_front()?;
        out.get_mut(..length)?.copy_from_slice(&packet[..length]);
        let sealed = self.cover.seal_rtp(out, length)?;
        self.stats.packets_sent += 1;
        self.stats.octets_sent += (length - HEADER_BYTES) as u64;
        Some((sealed, destination))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        let event = self.events.pop_front();
        // Marks may come by the thousand.
        if event.is_none() && self.events.capacity() > MAX_EVENTS {
            self.events.shrink_to(MAX_EVENTS);
        }
        event
    }

    /// The next frame for the agent: its bytes at the start of `out` ([`MOST_BYTES`] suffice), how many, and when it began, in milliseconds
    /// since the stream's start.
    pub fn poll_frame(&mut self, out: &mut [u8]) -> Option<(usize, u64)> {
        let timestamp_millis = self.frames.pop_front()?;
        let length = self.playback.format().frame_bytes();
        take_front(&mut self.sound, out.get_mut(..length)?);
        Some((length, timestamp_millis))
    }

    /// Queues agent audio (whole samples of any number), up to 120 s.
    pub fn play(&mut self, audio: &[u8], now: Instant) {
        if self.playback.play(audio, now) {
            self.events.push_back(StreamEvent::AgentAudioOverflow);
        }
        self.advance_packet(now);
    }

    /// Queues a mark that comes back as [`StreamEvent::MarkPlayed`] when the audio before it has been played.
    pub fn mark(&mut self, name: String) {
        if let Some(name) = self.playback.mark(name) {
            self.events.push_back(StreamEvent::MarkPlayed(name));
        }
    }

    /// Drops the agent's queued audio; its marks come back at once. Holds from the next packet.
    pub fn clear(&mut self) {
        self.playback.clear();
        self.tell_marks();
    }

    /// Agent audio that waits, in milliseconds.
    pub fn queued_millis(&self) -> u64 {
        self.playback.queued_millis() as u64
    }

    /// Queues a key press to send as telephone event. False if none were agreed on, the key is unknown, or 32 wait.
    pub fn send_digit(&mut self, digit: char, duration_millis: u32) -> bool {
        let Some(event) = self.session.telephone_event else {
            return false;
        };
        if self.keys.len() >= MAX_KEYS {
            return false;
        }
        let ticks = event.clock_rate / 1000 * FRAME_MILLIS as u32;
        let Some(generator) = dtmf::Generator::new(digit, duration_millis, ticks as u16) else {
            return false;
        };
        self.keys.push_back(generator);
        true
    }

    /// Applies the result of a new offer and answer.
    pub fn update(&mut self, session: Session, now: Instant) {
        if session.receive && !self.session.receive {
            self.idle_since = now;
        }
        let moved = session.remote != self.session.remote;
        if moved {
            self.reporter = None;
            self.flow.stopped_sending();
        }
        if self.grid.is_some() && (moved || session.receive != self.session.receive) {
            self.flow.expect(session.receive, now);
        }
        self.source.set_remote(session.remote);
        self.second = None;
        let format = self.playback.format();
        if session.codec != self.session.codec {
            self.inbound.set_codec(session.codec);
            self.outbound = Outbound::new(session.codec, format);
        }
        if session.telephone_event.is_some() != self.session.telephone_event.is_some() {
            self.tones = tones(&session, format);
        }
        self.session = session;
        self.follow_reports(now);
    }

    /// Either side may not send: silence means nothing now.
    pub fn on_hold(&self) -> bool {
        self.session.on_hold()
    }

    /// Time since the last accepted packet, or since the peer was first expected to send.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let last = self
            .stats
            .last_received
            .map_or(self.idle_since, |last| last.max(self.idle_since));
        now.saturating_duration_since(last)
    }

    /// When the last packet was accepted.
    pub fn last_received(&self) -> Option<Instant> {
        self.stats.last_received
    }

    /// Where packets go now.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.source.destination()
    }

    /// The counters so far.
    pub fn stats(&self) -> StreamStats {
        let jitter = self.inbound.stats();
        let round_trip = self.reports.as_ref().and_then(Reports::round_trip);
        let one_way = round_trip.unwrap_or_default() / 2;
        // What came too late was not heard either.
        let (received, lost) = (self.reception.received(), self.reception.lost());
        let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        let waited = Duration::from_secs_f64(jitter.mean_delay_millis.max(0.0) / 1000.0);
        let mos = quality::mos(share(lost + jitter.late, received + lost), one_way + waited);
        let lost_remote = self.stats.packets_lost_remote;
        let mos_remote =
            lost_remote.map(|lost| quality::mos(share(lost, self.stats.packets_sent), one_way));
        StreamStats {
            round_trip_millis: round_trip.map(|time| time.as_secs_f64() * 1000.0),
            mos: (received > 0).then_some(mos),
            mos_remote,
            both_ways: self.flow.is_whole(),
            packets_received: self.reception.received(),
            packets_lost: self.reception.lost(),
            late: jitter.late,
            duplicates: jitter.duplicates + self.stats.duplicates,
            concealed: jitter.concealed,
            buffer_millis: jitter.delay_millis,
            mean_buffer_millis: jitter.mean_delay_millis,
            rejected_source: self.source.rejected(),
            jitter_millis: self.reception.jitter_millis(),
            drift_corrections: jitter.corrections,
            moves: self.source.moves(),
            ..self.stats
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "stream_ice_tests.rs"]
mod ice_tests;

#[cfg(test)]
#[path = "stream_arrival_tests.rs"]
mod arrival_tests;

#[cfg(test)]
#[path = "stream_halves_tests.rs"]
mod halves_tests;
