//! One call's audio, both ways: RTP in, frames for the agent out; the agent's audio in, RTP out.
//!
//! From [`RtpStream::start`] to [`RtpStream::stop`] one packet leaves every 20 ms unless the call is on hold, and one frame
//! goes to the agent every 20 ms whatever arrives, or, with [`Delay::OnArrival`](crate::jitter::Delay::OnArrival), as soon as it has. Silence leaves in a grid; what the agent
//! says leaves when it is due, which may be up to 20 ms before the grid has its turn, and after it packets are back in the grid: so timestamps
//! never run away from the clock. Without a cushion, what an agent in real time says leaves when it comes, within the same 20 ms. Only where
//! the peer asked for it (Opus, `usedtx`) silence is not sent.
//!
//! The owner feeds datagrams and agent audio, calls [`RtpStream::handle_timeout`] at [`RtpStream::poll_timeout`], and empties
//! [`RtpStream::poll_transmit`], [`RtpStream::poll_frame`] and [`RtpStream::poll_event`] after each. Reports (RTCP) go beside it: [`RtpStream::receive_report`],
//! [`RtpStream::poll_report`].

mod config;
mod incoming;
mod outgoing;
mod reports;
mod trust;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    FRAME_MILLIS,
    beside::Beside,
    codec,
    cover::Cover,
    credit::Credit,
    dtls,
    dtmf::{self, in_band::Listener},
    flow::{Flow, Missing},
    format::Format,
    ice::{Agent, Paths},
    jitter::{Insert, Position},
    playback::Playback,
    ports::demux::Peer,
    quality,
    reception::Reception,
    rtcp::Reports,
    rtp::{self, HEADER_BYTES, Packet, RtpError},
    source::{SourceFilter, Verdict},
    srtp::{self, Refused},
    stun,
    transcode::{Inbound, Outbound},
};

pub use self::config::{Session, StreamConfig, TelephoneEvent};
pub use crate::codec::Codec;

/// Bytes that [`RtpStream::poll_transmit`] needs.
pub const PACKET_BYTES: usize = HEADER_BYTES + codec::PAYLOAD_BYTES + srtp::OVERHEAD;

const TICK: Duration = Duration::from_millis(FRAME_MILLIS);
/// Packets sent at once by a thread that was late; what is missing beyond is skipped.
const MAX_CATCH_UP: u32 = 3;
/// Events that wait for the owner, and are bounded by what causes them, but for keys.
const MAX_EVENTS: usize = 64;
const PCMU_STATIC: u8 = 0;
const PCMA_STATIC: u8 = 8;

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

/// A packet of 10 ms that has to wait for its turn, if it is due.
#[derive(Debug)]
struct Second {
    due: Option<Instant>,
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
    /// The second half of the last 20 ms, where packets have halves.
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
    /// Where the peer's reports come from, if not from where its sound does.
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
        stream.set_ice(ice.as_ref(), now);
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
        self.drop_second();
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

    /// Whether what was taken is to be told, or answered, before anything else is due.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || self.cover.shakes_hands() || self.has_arrived()
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
        [self.next_frame, self.next_packet, report, self.second_due()]
            .into_iter()
            .chain(handshakes)
            .flatten()
            .min()
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
        if self.second_due().is_some_and(|due| due <= now) {
            self.send_second();
        }
        self.make_due_packets(now);
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

    /// Applies the result of a new offer and answer.
    pub fn update(&mut self, session: Session, now: Instant) {
        if session.receive && !self.session.receive {
            self.idle_since = now;
        }
        let moved = session.remote != self.session.remote;
        if moved || session.remote_rtcp != self.session.remote_rtcp {
            self.reporter = None;
        }
        if moved {
            self.flow.stopped_sending();
        }
        if self.grid.is_some() && (moved || session.receive != self.session.receive) {
            self.flow.expect(session.receive, now);
        }
        self.source.set_remote(session.remote);
        let now_sent = (session.codec, session.send_payload_type, session.send);
        let sent = (
            self.session.codec,
            self.session.send_payload_type,
            self.session.send,
        );
        if moved || now_sent != sent {
            self.drop_second();
        }
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

#[cfg(test)]
#[path = "stream_report_keys_tests.rs"]
mod report_keys_tests;
