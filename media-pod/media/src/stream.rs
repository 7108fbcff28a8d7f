//! One call's audio, both ways: RTP in, frames for the agent out; the agent's audio in, RTP out.
//!
//! From [`RtpStream::start`] to [`RtpStream::stop`] one packet leaves every 20 ms unless the call is on hold, and one frame
//! goes to the agent every 20 ms whatever arrives. Silence leaves in a grid; what the agent says leaves when it is due, which may be up to
//! 20 ms before the grid has its turn, and after it packets are back in the grid: so timestamps never run away from the clock.
//!
//! The owner feeds datagrams and agent audio, calls [`RtpStream::handle_timeout`] at [`RtpStream::poll_timeout`], and empties
//! [`RtpStream::poll_transmit`] and [`RtpStream::poll_event`] after each. Reports (RTCP) go beside it: [`RtpStream::receive_report`],
//! [`RtpStream::poll_report`].

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    FRAME_MILLIS, FRAME_SAMPLES, dtmf,
    g711::{ULAW_SILENCE, alaw_to_ulaw, ulaw_to_alaw},
    jitter::{Insert, JitterBuffer, Position},
    playback::{Playback, Taken},
    reception::Reception,
    rtcp::{self, REPORT_BYTES, Reports},
    rtp::{HEADER_BYTES, Packet, RtpError},
    source::{SourceFilter, Verdict},
};

/// Bytes that [`RtpStream::poll_transmit`] needs.
pub const PACKET_BYTES: usize = HEADER_BYTES + FRAME_SAMPLES;

const TICK: Duration = Duration::from_millis(FRAME_MILLIS);
/// Packets sent at once by a thread that was late; what is missing beyond is skipped.
const MAX_CATCH_UP: u32 = 3;
/// Events that wait for the owner. Beyond it frames are dropped and counted; the rest is bounded by what causes it.
const MAX_EVENTS: usize = 64;
/// Keys that wait to be sent, and the pause between two, in ticks.
const MAX_KEYS: usize = 32;
const KEY_PAUSE: u32 = 4;
const PCMU_STATIC: u8 = 0;
const PCMA_STATIC: u8 = 8;

/// The audio codec of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, static payload type 0.
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
}

/// Payload types of telephone-event/8000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The peer's number, which we send.
    pub send: u8,
    /// Our number, which the peer sends.
    pub receive: u8,
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
#[derive(Debug, Clone, Copy)]
pub struct StreamConfig {
    /// Result of offer and answer.
    pub session: Session,
    /// IP address that the peer's SIP comes from; a plausible source of its media too.
    pub signalling_ip: Option<IpAddr>,
    /// Our synchronisation source.
    pub ssrc: u32,
    /// Our first sequence number.
    pub sequence: u16,
    /// Our first timestamp.
    pub timestamp: u32,
    /// Delay of the jitter buffer, 0–200 ms; 40 is a good default.
    pub jitter_target_millis: u32,
    /// How long the first audio of a talk spurt waits, so that the agent's may be late by that: 20 is a good default, 0 plays at once.
    pub cushion_millis: u32,
    /// Whether the owner has a port for reports, and calls [`RtpStream::poll_report`].
    pub reports: bool,
}

/// What the stream tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// 20 ms of the caller's audio for the agent.
    Frame {
        /// µ-law, 8 kHz.
        audio: [u8; FRAME_SAMPLES],
        /// Start of the frame since the stream's start, in steps of 20.
        timestamp_millis: u64,
    },
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
    /// Datagrams that are neither RTP nor RTCP.
    pub malformed: u64,
    /// Packets with a payload type that was not agreed (comfort noise is tolerated).
    pub unknown_payload: u64,
    /// Interarrival jitter (RFC 3550 A.8) in milliseconds.
    pub jitter_millis: f64,
    /// Frames dropped or repeated for clock drift.
    pub drift_corrections: u64,
    /// Frames that nobody fetched in time.
    pub frames_dropped: u64,
    /// Ticks skipped because the thread was late.
    pub ticks_skipped: u64,
    /// How often the source moved.
    pub moves: u64,
    /// When the last packet was accepted.
    pub last_received: Option<Instant>,
}

/// How many ticks are due, and how many more are too late to be made up for.
fn ticks_due(due: Instant, now: Instant) -> (u32, u32) {
    let all = (now.duration_since(due).as_millis() / TICK.as_millis()) as u32 + 1;
    (all.min(MAX_CATCH_UP), all.saturating_sub(MAX_CATCH_UP))
}

/// One call's RTP.
#[derive(Debug)]
pub struct RtpStream {
    session: Session,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    source: SourceFilter,
    jitter: JitterBuffer,
    reception: Reception,
    keys_received: dtmf::Receiver,
    playback: Playback,
    playback_paused: bool,
    /// A talk spurt's marker bit that has not left yet.
    marker: bool,
    keys: VecDeque<dtmf::Generator>,
    key_timestamp: Option<u32>,
    key_pause: u32,
    /// Where the grid of 20 ms begins, once started.
    grid: Option<Instant>,
    /// Packets since then, those that were skipped too.
    packets: u32,
    /// When the next frame goes to the agent.
    next_frame: Option<Instant>,
    /// When the next packet leaves.
    next_packet: Option<Instant>,
    ticks: u64,
    idle_since: Instant,
    reports: Option<Reports>,
    /// Where the peer's reports come from.
    reporter: Option<SocketAddr>,
    transmit: VecDeque<([u8; PACKET_BYTES], usize)>,
    events: VecDeque<StreamEvent>,
    stats: StreamStats,
}

impl RtpStream {
    /// A stream that accepts packets but neither sends nor delivers frames before [`Self::start`].
    pub fn new(config: StreamConfig, now: Instant) -> Self {
        let StreamConfig {
            session,
            signalling_ip,
            ssrc,
            sequence,
            timestamp,
            jitter_target_millis,
            cushion_millis,
            reports,
        } = config;
        Self {
            session,
            ssrc,
            sequence,
            timestamp,
            source: SourceFilter::new(session.remote, signalling_ip),
            jitter: JitterBuffer::new(jitter_target_millis),
            reception: Reception::new(now),
            keys_received: dtmf::Receiver::default(),
            playback: Playback::new(Duration::from_millis(cushion_millis.into())),
            playback_paused: false,
            marker: true,
            keys: VecDeque::new(),
            key_timestamp: None,
            key_pause: 0,
            grid: None,
            packets: 0,
            next_frame: None,
            next_packet: None,
            ticks: 0,
            idle_since: now,
            reports: reports.then(|| Reports::new(ssrc, now)),
            reporter: None,
            transmit: VecDeque::with_capacity(MAX_CATCH_UP as usize),
            events: VecDeque::with_capacity(4),
            stats: StreamStats::default(),
        }
    }

    /// The stream of a call that takes this one's place: what the agent has said and nobody heard yet goes over, the agent's frames are
    /// numbered on, and nothing else of the old peer's stays. It ticks if this one did.
    #[must_use]
    pub fn into_successor(self, config: StreamConfig, now: Instant) -> Self {
        let mut successor = Self {
            playback: self.playback,
            // Until its owner knows that the new peer listens.
            playback_paused: true,
            ticks: self.ticks,
            grid: self.grid.map(|_| now),
            next_frame: self.grid.map(|_| now),
            next_packet: self.grid.map(|_| now),
            ..Self::new(config, now)
        };
        // Keys and marks, but no sound: that was the old peer's.
        successor.events.extend(
            self.events
                .into_iter()
                .filter(|event| !matches!(event, StreamEvent::Frame { .. })),
        );
        if let Some(reports) = successor.reports.as_mut().filter(|_| self.grid.is_some()) {
            reports.start(now);
        }
        successor
    }

    /// Starts the 20 ms tick; the first packet and frame are due at once.
    pub fn start(&mut self, now: Instant) {
        if self.grid.is_none() {
            self.grid = Some(now);
            self.next_frame = Some(now);
            self.next_packet = Some(now);
            self.idle_since = now;
            if let Some(reports) = &mut self.reports {
                reports.start(now);
            }
            // What came before would be played late for the whole call.
            self.jitter.reset();
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
    }

    /// Keeps the agent's audio waiting (silence is sent) until released: used between the 200 OK and the ACK.
    pub fn pause_playback(&mut self, paused: bool) {
        self.playback_paused = paused;
    }

    /// Takes one datagram of this call's socket.
    pub fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(RtpError::Rtcp) => return,
            Err(_) => {
                self.stats.malformed += 1;
                return;
            }
        };
        match self.source.check(from, packet.ssrc, packet.sequence, now) {
            Verdict::Accepted => {}
            Verdict::Moved { from, to } => {
                self.events.push_back(StreamEvent::SourceMoved { from, to });
            }
            Verdict::Pending | Verdict::Rejected => return,
        }
        self.stats.octets_received += packet.payload.len() as u64;
        self.stats.last_received = Some(now);
        if self
            .session
            .telephone_event
            .is_some_and(|event| event.receive == packet.payload_type)
        {
            self.reception
                .record(packet.ssrc, packet.sequence, None, now);
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
            self.reception
                .record(packet.ssrc, packet.sequence, None, now);
            return;
        };
        let at = Position {
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
        };
        let inserted = if self.session.receive {
            let codes = packet.payload.iter().copied();
            match codec {
                Codec::Pcmu => self.jitter.insert(at, codes, now),
                Codec::Pcma => self.jitter.insert(at, codes.map(alaw_to_ulaw), now),
            }
        } else {
            Insert::Stored
        };
        // A copy would hide a loss.
        if inserted != Insert::Duplicate {
            self.reception
                .record(packet.ssrc, packet.sequence, Some(packet.timestamp), now);
        }
    }

    /// The agreed payload type, else G.711's static ones: some carriers switch law without asking.
    fn codec_of(&self, payload_type: u8) -> Option<Codec> {
        if payload_type == self.session.receive_payload_type {
            return Some(self.session.codec);
        }
        match payload_type {
            PCMU_STATIC => Some(Codec::Pcmu),
            PCMA_STATIC => Some(Codec::Pcma),
            _ => None,
        }
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_report`] is due; `None` before the start and after the stop.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let report = self.reports.as_ref().and_then(Reports::due);
        [self.next_frame, self.next_packet, report]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes a datagram of the RTCP port. Strangers are not listened to; nothing here moves the RTP.
    pub fn receive_report(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let known = self.source.is_plausible(from.ip())
            || self
                .source
                .destination()
                .is_some_and(|rtp| rtp.ip() == from.ip());
        let Some(heard) = rtcp::read(datagram, self.ssrc).filter(|_| known) else {
            return;
        };
        self.reporter = Some(from);
        if let Some(reports) = &mut self.reports {
            reports.heard(&heard, now);
        }
        if let Some(block) = heard.about_us {
            self.stats.packets_lost_remote = Some(block.lost.max(0).cast_unsigned().into());
        }
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
        let block = self.reception.report();
        let length = reports.write(out, self.ssrc, sent, block, now);
        let beside = |rtp: SocketAddr| SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1));
        let to = self
            .reporter
            .or(self.session.remote_rtcp)
            .or_else(|| self.source.destination().map(beside))?;
        Some((length, to))
    }

    /// Does what is due. A late thread makes up for at most three frames and packets; timestamps stay those of the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(due) = self.next_frame.filter(|due| *due <= now) {
            let (count, skipped) = ticks_due(due, now);
            self.next_frame = Some(due + TICK * (count + skipped));
            if skipped > 0 {
                self.stats.ticks_skipped += u64::from(skipped);
                self.ticks += u64::from(skipped);
                self.jitter.skip(skipped.into());
            }
            for _ in 0..count {
                self.make_frame();
            }
        }
        if let Some(due) = self.next_packet.filter(|due| *due <= now) {
            let (count, skipped) = ticks_due(due, now);
            self.timestamp = self
                .timestamp
                .wrapping_add(skipped.wrapping_mul(FRAME_SAMPLES as u32));
            self.packets = self.packets.wrapping_add(skipped);
            let mut at = due + TICK * skipped;
            for _ in 0..count {
                if at <= now {
                    at = self.make_packet(at);
                }
            }
            self.next_packet = Some(at);
            self.advance_packet(now);
        }
    }

    fn make_frame(&mut self) {
        let mut audio = [ULAW_SILENCE; FRAME_SAMPLES];
        self.jitter.pop(&mut audio);
        let timestamp_millis = self.ticks * FRAME_MILLIS;
        self.ticks += 1;
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(StreamEvent::Frame {
                audio,
                timestamp_millis,
            });
        } else {
            self.stats.frames_dropped += 1;
        }
    }

    /// Makes the packet that is due then. Gives when the next one is.
    fn make_packet(&mut self, at: Instant) -> Instant {
        let speaks = self.fill_packet(at);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        self.packets = self.packets.wrapping_add(1);
        match self.turn_in_grid() {
            Some(turn) if !speaks => turn,
            _ => at + TICK,
        }
    }

    /// When the next packet has its turn in the grid.
    fn turn_in_grid(&self) -> Option<Instant> {
        Some(self.grid? + TICK * self.packets)
    }

    /// A talk spurt does not wait for the grid. It is ahead of it by 20 ms at most.
    fn advance_packet(&mut self, now: Instant) {
        let begins = self.playback.begins_at().filter(|_| !self.playback_paused);
        if let (Some(begins), Some(next), Some(turn)) =
            (begins, self.next_packet, self.turn_in_grid())
        {
            let earliest = turn.checked_sub(TICK).unwrap_or(turn).max(now);
            self.next_packet = Some(next.min(begins.max(earliest)));
        }
    }

    /// Whether what it says is more than silence.
    fn fill_packet(&mut self, at: Instant) -> bool {
        let sends = self.session.send && self.source.destination().is_some();
        if sends && self.send_key() {
            return true;
        }
        let mut frame = [ULAW_SILENCE; FRAME_SAMPLES];
        let mut speaks = false;
        if !self.playback_paused
            && let Taken::Audio { first } = self.playback.take(&mut frame, at)
        {
            self.marker |= first;
            speaks = true;
        }
        if !sends {
            // On hold the agent's audio passes unheard at its pace: kept, it would be late by the length of the hold ever after.
            self.marker = true;
            self.tell_marks();
            return speaks;
        }
        if self.session.codec == Codec::Pcma {
            for code in &mut frame {
                *code = ulaw_to_alaw(*code);
            }
        }
        let marker = std::mem::take(&mut self.marker);
        self.push_packet(
            marker,
            self.session.send_payload_type,
            self.timestamp,
            &frame,
        );
        self.tell_marks();
        speaks
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
        if self.transmit.len() >= MAX_CATCH_UP as usize {
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
        self.stats.packets_sent += 1;
        self.stats.octets_sent += (length - HEADER_BYTES) as u64;
        Some((length, destination))
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

    /// Queues agent audio (µ-law, any length), up to 120 s.
    pub fn play(&mut self, ulaw: &[u8], now: Instant) {
        if self.playback.play(ulaw, now) {
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
        self.playback.queued_bytes() as u64 / 8
    }

    /// Queues a key press to send as telephone event. False if none were agreed on, the key is unknown, or 32 wait.
    pub fn send_digit(&mut self, digit: char, duration_millis: u32) -> bool {
        if self.session.telephone_event.is_none() || self.keys.len() >= MAX_KEYS {
            return false;
        }
        let Some(generator) = dtmf::Generator::new(digit, duration_millis) else {
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
        if session.remote != self.session.remote {
            self.reporter = None;
        }
        self.source.set_remote(session.remote);
        self.session = session;
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
        StreamStats {
            packets_received: self.reception.received(),
            packets_lost: self.reception.lost(),
            late: self.jitter.late(),
            duplicates: self.jitter.duplicates(),
            rejected_source: self.source.rejected(),
            jitter_millis: self.reception.jitter_millis(),
            drift_corrections: self.jitter.corrections(),
            moves: self.source.moves(),
            ..self.stats
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
