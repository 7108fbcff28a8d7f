//! What leaves: the agent's sound, silence in a grid, and keys.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Codec, MAX_CATCH_UP, PACKET_BYTES, RtpStream, Second, StreamEvent, TICK, ticks_due};
use crate::FRAME_MILLIS;
use crate::codec;
use crate::dtmf;
use crate::format::MOST_BYTES;
use crate::g711::ulaw_to_alaw;
use crate::playback::Taken;
use crate::rtp::{HEADER_BYTES, Packet};
use crate::transcode::ticks_per_packet;

/// Keys that wait to be sent, and the pause between two, in ticks.
const MAX_KEYS: usize = 32;
const KEY_PAUSE: u32 = 4;

impl RtpStream {
    /// Whether packets have 10 ms of sound from now on, in place of 20: for a peer that takes none that are longer (`maxptime`). Not for AMR-WB,
    /// iLBC and G.722.1, whose frames cannot be halved.
    pub fn send_halves(&mut self, halves: bool) {
        if self.halves == halves {
            return;
        }
        self.halves = halves;
        self.second = halves.then(|| {
            Box::new(Second {
                due: None,
                payload_type: 0,
                timestamp: 0,
                payload: [0; codec::PAYLOAD_BYTES],
                length: 0,
            })
        });
        if halves {
            self.transmit.reserve(2 * MAX_CATCH_UP as usize);
        }
    }

    /// When what waits is to be sent.
    pub(super) fn second_due(&self) -> Option<Instant> {
        self.second.as_ref()?.due
    }

    /// What waits is not sent any more. Whether something did.
    pub(super) fn drop_second(&mut self) -> bool {
        let second = self.second.as_mut();
        second.is_some_and(|second| second.due.take().is_some())
    }

    /// Keeps the agent's audio waiting (silence is sent) until released: used between the 200 OK and the ACK.
    pub fn pause_playback(&mut self, paused: bool, now: Instant) {
        self.playback_paused = paused;
        self.advance_packet(now);
    }

    pub(super) fn make_due_packets(&mut self, now: Instant) {
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

    /// A talk spurt does not wait for the grid. It is ahead of it by 20 ms at most, or by 30 what leaves when it comes: else an agent whose frames
    /// come some 20 ms before their turn would have half of them wait.
    fn advance_packet(&mut self, now: Instant) {
        let awaited = self.awaits_agent && self.playback.has_frame();
        let begins = self.playback.begins_at().or(awaited.then_some(now));
        let begins = begins.filter(|_| !self.playback_paused);
        if let (Some(begins), Some(next), Some(turn)) =
            (begins, self.next_packet, self.turn_in_grid())
        {
            let ahead = if awaited { TICK + TICK / 2 } else { TICK };
            let earliest = turn.checked_sub(ahead).unwrap_or(turn).max(now);
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
        if let Some(second) = self.second.as_mut().filter(|_| length > 0) {
            second.due = Some(at);
            second.payload_type = self.session.send_payload_type;
            second.timestamp = self.timestamp.wrapping_add(half).wrapping_sub(lead);
            second.payload[..length].copy_from_slice(&payload[..length]);
            second.length = length;
        }
    }

    pub(super) fn send_second(&mut self) {
        // It is put back: memory is not asked for by each packet.
        let Some(mut second) = self.second.take_if(|second| second.due.is_some()) else {
            return;
        };
        second.due = None;
        // Where silence is not sent, the spurt may begin here.
        let marker = std::mem::take(&mut self.marker);
        let payload = &second.payload[..second.length];
        self.push_packet(marker, second.payload_type, second.timestamp, payload);
        self.second = Some(second);
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
        // Half of a frame is missing then.
        self.marker |= self.drop_second();
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
}
