//! What the caller says and hears: feeds the stream, keeps what was sent and what came back on one time line.

use std::time::Instant;

use ringwire_media::codec::{Decoder, SOUND_SAMPLES};
use ringwire_media::compare::{self, Comparison};
use ringwire_media::format::Format;
use ringwire_media::g711::{decode_alaw, decode_ulaw};
use ringwire_media::resample::Resampler;
use ringwire_media::rtp::Packet;
use ringwire_media::stream::{self, RtpStream, Session};
use ringwire_media::{FRAME_MILLIS, FRAME_SAMPLES};

/// Samples in a second.
const RATE: usize = 8000;

/// How we hear and speak: codecs are to lose as little as they can.
pub const FORMAT: Format = Format::Linear { rate: RATE as u32 };

/// As much audio is given to the stream ahead of time; it holds 120 s.
const AHEAD_MILLIS: u64 = 2000;

/// So much of what was sent is compared: the comparison takes time with the square of it.
const COMPARED_SAMPLES: usize = 20 * RATE;

/// Delays that are looked for.
const MAX_DELAY_MILLIS: u32 = 2000;

/// What we send, as the other side decodes it. G.711 is not among it.
struct Monitor {
    codec: stream::Codec,
    decoder: Box<dyn Decoder>,
    /// None if the decoder gives 8 kHz.
    resampler: Option<Resampler>,
    sound: Box<[i16; SOUND_SAMPLES]>,
}

impl Monitor {
    fn new(codec: stream::Codec) -> Option<Self> {
        let decoder = codec.decoder(RATE as u32)?;
        let rate = decoder.sample_rate();
        let resampler = Resampler::between(rate, RATE as u32);
        Some(Self {
            codec,
            decoder,
            resampler,
            sound: Box::new([0; SOUND_SAMPLES]),
        })
    }

    fn decode(&mut self, payload: &[u8]) -> Vec<i16> {
        let count = self.decoder.decode(payload, &mut self.sound[..]);
        let sound = &self.sound[..count];
        let Some(resampler) = &mut self.resampler else {
            return sound.to_vec();
        };
        let mut narrow = vec![0; count];
        let count = resampler.process(sound, &mut narrow);
        narrow.truncate(count);
        narrow
    }
}

/// Both directions of one call.
pub struct Audio {
    play: Vec<i16>,
    played: usize,
    /// RTP timestamp of the first tick.
    base: u32,
    /// What left, as the other side hears it. Keys leave silence, for they replace audio.
    sent: Vec<i16>,
    heard: Vec<i16>,
    heard_limit: usize,
    monitor: Option<Monitor>,
}

impl Audio {
    /// Audio of a call that plays these samples (8 kHz) and records up to `record_seconds`.
    pub fn new(play: Vec<i16>, record_seconds: u64) -> Self {
        let heard_limit = record_seconds as usize * RATE;
        Self {
            play,
            played: 0,
            base: 0,
            sent: Vec::new(),
            heard: Vec::new(),
            heard_limit,
            monitor: None,
        }
    }

    /// The time line begins at this RTP timestamp.
    pub fn begin(&mut self, timestamp: u32) {
        self.base = timestamp;
    }

    /// Gives the stream what it will soon need.
    pub fn feed(&mut self, rtp: &mut RtpStream, now: Instant) {
        while rtp.queued_millis() < AHEAD_MILLIS && self.played < self.play.len() {
            let end = (self.played + RATE).min(self.play.len());
            let samples = &self.play[self.played..end];
            let mut bytes = vec![0; 2 * samples.len()];
            FORMAT.encode(samples, &mut bytes);
            rtp.play(&bytes, now);
            self.played = end;
        }
    }

    /// Notes a packet that leaves.
    pub fn sent(&mut self, packet: &[u8], session: &Session) {
        let Ok(packet) = Packet::parse(packet) else {
            return;
        };
        if packet.payload_type != session.send_payload_type {
            return;
        }
        let ticks = packet.timestamp.wrapping_sub(self.base) as usize;
        let offset = ticks * RATE / session.codec.clock_rate() as usize;
        let decoded = |decode: fn(u8) -> i16| packet.payload.iter().map(move |code| decode(*code));
        let sound: Vec<i16> = match session.codec {
            stream::Codec::Pcmu => decoded(decode_ulaw).collect(),
            stream::Codec::Pcma => decoded(decode_alaw).collect(),
            codec => {
                if self.monitor.as_ref().is_none_or(|own| own.codec != codec) {
                    self.monitor = Monitor::new(codec);
                }
                let monitor = self.monitor.as_mut();
                monitor.map_or(Vec::new(), |monitor| monitor.decode(packet.payload))
            }
        };
        place(&mut self.sent, offset, &sound, COMPARED_SAMPLES);
    }

    /// Notes a frame that came.
    pub fn heard(&mut self, frame: &[u8], timestamp_millis: u64) {
        let offset = (timestamp_millis / FRAME_MILLIS) as usize * FRAME_SAMPLES;
        let mut sound = [0; FRAME_SAMPLES];
        let count = FORMAT.decode(frame, &mut sound);
        place(&mut self.heard, offset, &sound[..count], self.heard_limit);
    }

    /// How much of what came back is what was sent; `None` if either is silent or shorter than 200 ms.
    pub fn echo(&self) -> Option<Comparison> {
        let heard = &self.heard[..self.heard.len().min(COMPARED_SAMPLES + 2 * RATE)];
        compare::compare(&self.sent, heard, MAX_DELAY_MILLIS)
    }

    /// All that was heard, 8 kHz.
    pub fn recording(&self) -> &[i16] {
        &self.heard
    }
}

/// Writes samples at an offset; what lies before and was never written is silence.
fn place(track: &mut Vec<i16>, offset: usize, sound: &[i16], limit: usize) {
    let end = offset.saturating_add(sound.len());
    if end > limit {
        return;
    }
    if track.len() < end {
        track.resize(end, 0);
    }
    track[offset..end].copy_from_slice(sound);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_hole_where_nothing_came_and_no_more_than_the_limit() {
        let mut audio = Audio::new(Vec::new(), 1);
        let mut loud = [0; 2 * FRAME_SAMPLES];
        FORMAT.encode(&[8000; FRAME_SAMPLES], &mut loud);
        audio.heard(&loud, 0);
        audio.heard(&loud, 60);
        audio.heard(&loud, 2000);
        assert_eq!(audio.recording().len(), 4 * FRAME_SAMPLES);
        assert_eq!(audio.recording()[2 * FRAME_SAMPLES], 0);
        assert!(audio.recording()[3 * FRAME_SAMPLES] > 7000);
    }
}
