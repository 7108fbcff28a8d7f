//! One call's audio: a packet every 20 ms with a marker in it, and what comes back, checked packet by packet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;

use ringwire_media::plane::inbox::{BATCH, Inbox};

use super::Heard;
use crate::floor::HEADER;
use crate::marker::{self, Marker};

/// Between two packets.
pub const FRAME: Duration = Duration::from_millis(20);

/// Samples in one.
pub const SAMPLES: usize = 160;

/// A frame that comes back later than that does not help a conversation.
const LATE_MICROS: u64 = 200_000;

/// See the module.
pub struct Audio {
    pub socket: UdpSocket,
    call: u16,
    remote: Option<SocketAddr>,
    packet: [u8; HEADER + SAMPLES],
    frame: u32,
    /// When the next packet leaves.
    pub due: Option<Instant>,
    expected: Option<(u16, u32, u32)>,
    last_frame: Option<u32>,
    last_at: Option<Instant>,
}

impl Audio {
    /// Silent as yet.
    pub fn new(socket: UdpSocket, call: u16) -> Self {
        let mut packet = [0; HEADER + SAMPLES];
        packet[0] = 0x80;
        packet[8..12].copy_from_slice(&(0x10ad_0000 + u32::from(call)).to_be_bytes());
        Self {
            socket,
            call,
            remote: None,
            packet,
            frame: 0,
            due: None,
            expected: None,
            last_frame: None,
            last_at: None,
        }
    }

    /// Talks to `remote` from `first` on.
    pub fn start(&mut self, remote: SocketAddr, first: Instant) {
        self.remote = Some(remote);
        self.due = Some(first);
        (self.expected, self.last_frame, self.last_at) = (None, None, None);
    }

    /// Says nothing more.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// Sends the packet that is due. A thread that is late by more than a packet says so.
    pub fn send(&mut self, speech: &[u8], now: Instant, heard: &mut Heard) {
        let (Some(due), Some(remote)) = (self.due, self.remote) else {
            return;
        };
        if now >= due + FRAME {
            heard.sent_late += 1;
        }
        let sequence = (self.frame as u16).to_be_bytes();
        let timestamp = self.frame.wrapping_mul(SAMPLES as u32).to_be_bytes();
        self.packet[2..4].copy_from_slice(&sequence);
        self.packet[4..8].copy_from_slice(&timestamp);
        let from = self.frame as usize * SAMPLES % (speech.len() - SAMPLES);
        let payload = &mut self.packet[HEADER..];
        payload.copy_from_slice(&speech[from..from + SAMPLES]);
        Marker {
            call: self.call,
            frame: self.frame,
            sent: marker::now(),
            agent: 0,
        }
        .put(payload);
        match self.socket.send_to(&self.packet, remote) {
            Ok(_) => heard.sent += 1,
            Err(_) => heard.unsent += 1,
        }
        self.frame = self.frame.wrapping_add(1);
        self.due = Some(due + FRAME);
    }

    /// Reads what has come.
    pub fn receive(&mut self, inbox: &mut Inbox, heard: &mut Heard) {
        loop {
            let count = inbox.fill(&self.socket, true);
            for index in 0..count {
                let Some((arrival, packet)) = inbox.get(index) else {
                    continue;
                };
                if Some(arrival.from) == self.remote && self.due.is_some() {
                    self.check(packet, arrival.at, heard);
                } else if self.due.is_some() {
                    heard.strange += 1;
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// `at` is when the kernel got it: how late this program is, is not the other's doing.
    fn check(&mut self, packet: &[u8], at: Instant, heard: &mut Heard) {
        heard.received += 1;
        if packet.len() != HEADER + SAMPLES || packet[0] != 0x80 || packet[1] & 0x7f != 0 {
            heard.malformed += 1;
            return;
        }
        let field =
            |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap_or_default());
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let (timestamp, ssrc) = (field(4), field(8));
        if let Some((next, at, who)) = self.expected {
            let gap = sequence.wrapping_sub(next);
            let in_step = timestamp.wrapping_sub(at) == u32::from(gap).wrapping_mul(SAMPLES as u32);
            if ssrc != who || gap >= 0x8000 || !in_step {
                heard.out_of_order += 1;
            } else {
                heard.lost += u64::from(gap);
            }
        }
        self.expected = Some((
            sequence.wrapping_add(1),
            timestamp.wrapping_add(SAMPLES as u32),
            ssrc,
        ));
        if let Some(before) = self.last_at.replace(at) {
            let apart = at.saturating_duration_since(before);
            let off = apart.abs_diff(FRAME);
            heard.spacing.add(off.as_micros() as u64);
        }
        let Some(marker) = Marker::of(&packet[HEADER..]) else {
            heard.silent += 1;
            return;
        };
        if marker.call != self.call {
            heard.foreign += 1;
            return;
        }
        if let Some(last) = self.last_frame {
            if marker.frame <= last {
                heard.repeated += 1;
            } else {
                heard.missing += u64::from(marker.frame - last - 1);
            }
        }
        self.last_frame = Some(marker.frame);
        let now = marker::at(at);
        let round_trip = marker::between(marker.sent, now);
        heard.late += u64::from(round_trip > LATE_MICROS);
        heard.round_trip.add(round_trip);
        if marker.agent != 0 {
            heard
                .to_agent
                .add(marker::between(marker.sent, marker.agent));
            heard.from_agent.add(marker::between(marker.agent, now));
        }
    }
}
