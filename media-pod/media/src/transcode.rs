//! Between the caller's codec and agents that hear and say µ-law at 8 kHz. G.711 is neither decoded nor encoded.

use std::time::Instant;

use crate::codec::{Codec, Decoder, Encoder};
use crate::g711::{alaw_to_ulaw, decode_ulaw, encode_ulaw};
use crate::jitter::{Delay, Insert, JitterBuffer, JitterStats, Position, Ulaw};
use crate::resample::Resampler;
use crate::{FRAME_MILLIS, FRAME_SAMPLES};

/// Samples per second of what agents hear and say.
const RATE: u32 = 8000;
/// The longest frame that is encoded: 20 ms at 48 kHz.
const FRAME_ROOM: usize = 960;

/// From the caller to the agent: payloads are held back as long as the network makes it necessary, and decoded when they are played.
#[derive(Debug)]
pub struct Inbound {
    delay: Delay,
    way: Way,
    /// What the buffers before this one counted.
    before: JitterStats,
}

#[derive(Debug)]
enum Way {
    /// G.711, which is not decoded.
    Ulaw(Box<JitterBuffer<u8>>),
    Decoded(Box<Decoded>),
}

#[derive(Debug)]
struct Decoded {
    buffer: JitterBuffer<i16>,
    decoder: Box<dyn Decoder>,
    resampler: Option<Resampler>,
    /// 20 ms at the decoder's rate.
    sound: Vec<i16>,
    clock: Clock,
}

impl Way {
    fn new(codec: Codec, delay: Delay) -> Self {
        let Some(decoder) = codec.decoder(RATE) else {
            return Self::Ulaw(Box::new(JitterBuffer::ulaw(delay)));
        };
        let rate = decoder.sample_rate();
        Self::Decoded(Box::new(Decoded {
            buffer: JitterBuffer::new(delay, decoder.clock_rate(), rate),
            resampler: Resampler::new(rate, RATE).filter(|_| rate != RATE),
            sound: vec![0; (rate / 1000) as usize * FRAME_MILLIS as usize],
            clock: Clock::new(decoder.clock_rate()),
            decoder,
        }))
    }
}

impl Inbound {
    /// A way for this codec.
    pub fn new(codec: Codec, delay: Delay) -> Self {
        Self {
            delay,
            way: Way::new(codec, delay),
            before: JitterStats::default(),
        }
    }

    /// Another codec was agreed on. What waits is lost, what was counted is not.
    pub fn set_codec(&mut self, codec: Codec) {
        let Self { delay, way, .. } = self;
        if let (Way::Ulaw(_), Codec::Pcmu | Codec::Pcma) = (&*way, codec) {
            return;
        }
        let fresh = Way::new(codec, *delay);
        self.before = self.stats();
        self.way = fresh;
    }

    /// A timestamp of the codec's clock in one of 8,000 ticks per second.
    pub fn timestamp(&mut self, timestamp: u32) -> u32 {
        match &mut self.way {
            Way::Ulaw(_) => timestamp,
            Way::Decoded(decoded) => decoded.clock.narrow(timestamp),
        }
    }

    /// Whether payloads of this codec can be taken beside those of the one that was agreed on.
    pub fn takes(&self, codec: Codec) -> bool {
        matches!(
            (&self.way, codec),
            (Way::Ulaw(_), Codec::Pcmu | Codec::Pcma)
        )
    }

    /// Takes one packet's payload.
    pub fn insert(&mut self, at: Position, codec: Codec, payload: &[u8], now: Instant) -> Insert {
        let codes = payload.iter().copied();
        match &mut self.way {
            Way::Ulaw(buffer) => {
                let ticks = payload.len() as u32;
                match codec {
                    Codec::Pcma => buffer.insert(at, ticks, codes.map(alaw_to_ulaw), now),
                    _ => buffer.insert(at, ticks, codes, now),
                }
            }
            Way::Decoded(decoded) => match decoded.decoder.ticks(payload) {
                Some(ticks) => decoded.buffer.insert(at, ticks, codes, now),
                None => Insert::Stored,
            },
        }
    }

    /// Plays the next 20 ms, as [`JitterBuffer::pop`] does.
    pub fn pop(&mut self, ulaw: &mut [u8; FRAME_SAMPLES], due: Instant) -> i64 {
        match &mut self.way {
            Way::Ulaw(buffer) => buffer.pop(&mut Ulaw, ulaw, due),
            Way::Decoded(decoded) => decoded.pop(ulaw, due),
        }
    }

    /// Forgets what came so far; the counts stay.
    pub fn reset(&mut self) {
        match &mut self.way {
            Way::Ulaw(buffer) => buffer.reset(),
            Way::Decoded(decoded) => decoded.buffer.reset(),
        }
    }

    /// Passes over frames, as [`JitterBuffer::skip`] does.
    pub fn skip(&mut self, frames: u64) {
        match &mut self.way {
            Way::Ulaw(buffer) => buffer.skip(frames),
            Way::Decoded(decoded) => decoded.buffer.skip(frames),
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> JitterStats {
        let now = match &self.way {
            Way::Ulaw(buffer) => buffer.stats(),
            Way::Decoded(decoded) => decoded.buffer.stats(),
        };
        let before = &self.before;
        JitterStats {
            late: before.late + now.late,
            duplicates: before.duplicates + now.duplicates,
            concealed: before.concealed + now.concealed,
            corrections: before.corrections + now.corrections,
            ..now
        }
    }
}

impl Decoded {
    fn pop(&mut self, ulaw: &mut [u8; FRAME_SAMPLES], due: Instant) -> i64 {
        let shift = self.buffer.pop(&mut *self.decoder, &mut self.sound, due);
        let mut narrow = [0; FRAME_SAMPLES];
        let sound = match &mut self.resampler {
            None => &self.sound[..],
            Some(resampler) => {
                resampler.process(&self.sound, &mut narrow);
                &narrow[..]
            }
        };
        for (code, sample) in ulaw.iter_mut().zip(sound) {
            *code = encode_ulaw(*sample);
        }
        shift
    }
}

/// From the agent to the caller.
#[derive(Debug)]
pub struct Outbound {
    encoder: Box<dyn Encoder>,
    resampler: Option<Resampler>,
}

impl Outbound {
    /// None for G.711.
    pub fn new(codec: Codec) -> Option<Self> {
        let encoder = codec.encoder(RATE)?;
        let rate = encoder.sample_rate();
        let resampler = Resampler::new(RATE, rate).filter(|_| rate != RATE);
        Some(Self { encoder, resampler })
    }

    /// The payload of 20 ms: its length, 0 if nothing is to be sent.
    pub fn encode(&mut self, ulaw: &[u8; FRAME_SAMPLES], payload: &mut [u8]) -> usize {
        let narrow = ulaw.map(decode_ulaw);
        let Some(resampler) = &mut self.resampler else {
            return self.encoder.encode(&narrow, payload);
        };
        let mut sound = [0; FRAME_ROOM];
        let count = resampler.process(&narrow, &mut sound);
        self.encoder.encode(&sound[..count], payload)
    }

    /// As [`Encoder::lead`].
    pub fn lead(&self) -> u32 {
        self.encoder.lead()
    }

    /// As [`Encoder::skip`].
    pub fn skip(&mut self) {
        self.encoder.skip();
    }

    /// As [`Encoder::hear`].
    pub fn hear(&mut self, payload: &[u8]) {
        self.encoder.hear(payload);
    }
}

/// Timestamps of one clock in ticks of 8,000 a second, across their wrap.
#[derive(Debug)]
struct Clock {
    rate: u32,
    /// The last one, and how far it was from the first.
    last: Option<(u32, i64)>,
    first: u32,
}

impl Clock {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            last: None,
            first: 0,
        }
    }

    fn narrow(&mut self, timestamp: u32) -> u32 {
        if self.rate == RATE {
            return timestamp;
        }
        let Some((last, distance)) = self.last else {
            self.last = Some((timestamp, 0));
            self.first = timestamp;
            return timestamp;
        };
        let step = timestamp.wrapping_sub(last).cast_signed();
        let distance = distance + i64::from(step);
        self.last = Some((timestamp, distance));
        let narrow = (distance * i64::from(RATE)).div_euclid(self.rate.into());
        self.first.wrapping_add(narrow as u32)
    }
}

/// Ticks of a codec's clock in one packet of ours.
pub fn ticks_per_packet(codec: Codec) -> u32 {
    codec.clock_rate() / 1000 * FRAME_MILLIS as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_a_faster_clock_step_by_the_frame_across_the_wrap() {
        let mut clock = Clock::new(48_000);
        let first = u32::MAX - 1500;
        let narrow: Vec<u32> = (0..5)
            .map(|n| clock.narrow(first.wrapping_add(n * 960)))
            .collect();
        let steps: Vec<u32> = narrow
            .windows(2)
            .map(|pair| pair[1].wrapping_sub(pair[0]))
            .collect();
        assert_eq!(steps, [160; 4]);
        // One that is late is earlier.
        assert_eq!(clock.narrow(first.wrapping_add(960)), narrow[1]);
        assert_eq!(Clock::new(8000).narrow(7), 7);
    }

    #[test]
    fn g711_has_nothing_to_be_transcoded() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            assert!(matches!(Way::new(codec, Delay::Adaptive), Way::Ulaw(_)));
            assert!(Outbound::new(codec).is_none());
            assert_eq!(ticks_per_packet(codec), 160);
        }
    }
}
