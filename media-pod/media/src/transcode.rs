//! Between the caller's codec and the format in which the agent hears and speaks. G.711 is neither decoded nor encoded for an agent that takes
//! µ-law.

use std::time::{Duration, Instant};

use crate::codec::{Codec, Decoder, Encoder};
use crate::format::{Format, MOST_SAMPLES};
use crate::g711::{alaw_to_ulaw, decode_ulaw, encode_alaw, encode_ulaw};
use crate::jitter::{Delay, Insert, JitterBuffer, JitterStats, PATIENCE, Position, Ulaw};
use crate::resample::Resampler;
use crate::{FRAME_MILLIS, FRAME_SAMPLES};

/// Samples per second of G.711, and ticks of the clock that reports are made by.
const RATE: u32 = 8000;

/// From the caller to the agent: payloads are held back as long as the network makes it necessary, and decoded when they are played.
#[derive(Debug)]
pub struct Inbound {
    delay: Delay,
    way: Way,
    outlet: Outlet,
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
    /// 20 ms at the decoder's rate.
    sound: Vec<i16>,
    clock: Clock,
}

/// What the agent hears of samples.
#[derive(Debug)]
struct Outlet {
    format: Format,
    /// None between equal rates.
    resampler: Option<Box<Resampler>>,
}

impl Outlet {
    fn new(from: u32, format: Format) -> Self {
        Self {
            format,
            resampler: Resampler::between(from, format.rate()).map(Box::new),
        }
    }

    fn write(&mut self, samples: &[i16], out: &mut [u8]) {
        let Some(resampler) = &mut self.resampler else {
            return self.format.encode(samples, out);
        };
        let mut sound = [0; MOST_SAMPLES];
        let count = resampler.process(samples, &mut sound);
        self.format.encode(&sound[..count], out);
    }
}

impl Way {
    fn new(codec: Codec, delay: Delay, format: Format) -> Self {
        let Some(decoder) = codec.decoder(format.rate()) else {
            return Self::Ulaw(Box::new(JitterBuffer::ulaw(delay)));
        };
        let rate = decoder.sample_rate();
        Self::Decoded(Box::new(Decoded {
            buffer: JitterBuffer::new(delay, decoder.clock_rate(), rate),
            sound: vec![0; (rate / 1000) as usize * FRAME_MILLIS as usize],
            clock: Clock::new(decoder.clock_rate()),
            decoder,
        }))
    }

    /// Samples per second of what it gives.
    fn rate(&self) -> u32 {
        match self {
            Self::Ulaw(_) => RATE,
            Self::Decoded(decoded) => decoded.decoder.sample_rate(),
        }
    }
}

impl Inbound {
    /// A way for this codec, to an agent that hears so.
    pub fn new(codec: Codec, delay: Delay, format: Format) -> Self {
        let way = Way::new(codec, delay, format);
        Self {
            delay,
            outlet: Outlet::new(way.rate(), format),
            way,
            before: JitterStats::default(),
        }
    }

    /// Another codec was agreed on. What waits is lost, what was counted is not.
    pub fn set_codec(&mut self, codec: Codec) {
        if self.takes(codec) {
            return;
        }
        let format = self.outlet.format;
        self.before = self.stats();
        self.way = Way::new(codec, self.delay, format);
        self.outlet = Outlet::new(self.way.rate(), format);
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

    /// Plays the next 20 ms, as [`JitterBuffer::pop`] does, into [`Format::frame_bytes`] bytes.
    pub fn pop(&mut self, out: &mut [u8], due: Instant) -> i64 {
        match &mut self.way {
            Way::Ulaw(buffer) if self.outlet.format == Format::Ulaw => {
                buffer.pop(&mut Ulaw, out, due)
            }
            Way::Ulaw(buffer) => {
                let mut codes = [0; FRAME_SAMPLES];
                let shift = buffer.pop(&mut Ulaw, &mut codes, due);
                self.outlet.write(&codes.map(decode_ulaw), out);
                shift
            }
            Way::Decoded(decoded) => {
                let Decoded {
                    buffer,
                    decoder,
                    sound,
                    ..
                } = &mut **decoded;
                let shift = buffer.pop(&mut **decoder, sound, due);
                self.outlet.write(sound, out);
                shift
            }
        }
    }

    /// As [`JitterBuffer::is_ready`].
    pub fn is_ready(&self) -> bool {
        match &self.way {
            Way::Ulaw(buffer) => buffer.is_ready(),
            Way::Decoded(decoded) => decoded.buffer.is_ready(),
        }
    }

    /// As [`JitterBuffer::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.way {
            Way::Ulaw(buffer) => buffer.deadline(),
            Way::Decoded(decoded) => decoded.buffer.deadline(),
        }
    }

    /// As [`JitterBuffer::gave_up`].
    pub fn gave_up(&mut self, due: Instant) {
        match &mut self.way {
            Way::Ulaw(buffer) => buffer.gave_up(due),
            Way::Decoded(decoded) => decoded.buffer.gave_up(due),
        }
    }

    /// As [`JitterBuffer::pass_over`].
    pub fn pass_over(&mut self, ssrc: u32, sequence: u16) {
        match &mut self.way {
            Way::Ulaw(buffer) => buffer.pass_over(ssrc, sequence),
            Way::Decoded(decoded) => decoded.buffer.pass_over(ssrc, sequence),
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

    /// How long the first packet is waited for.
    pub fn patience(&self) -> Duration {
        if self.is_on_arrival() {
            PATIENCE
        } else {
            Duration::ZERO
        }
    }

    /// Whether frames are made of packets when these come.
    pub fn is_on_arrival(&self) -> bool {
        self.delay == Delay::OnArrival
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

/// From the agent to the caller.
#[derive(Debug)]
pub struct Outbound {
    format: Format,
    coder: Coder,
    resampler: Option<Box<Resampler>>,
}

#[derive(Debug)]
enum Coder {
    /// G.711.
    Law(fn(i16) -> u8),
    Codec(Box<dyn Encoder>),
}

impl Outbound {
    /// None for G.711 from an agent that says µ-law.
    pub fn new(codec: Codec, format: Format) -> Option<Self> {
        let coder = match (codec.encoder(format.rate()), codec) {
            (Some(encoder), _) => Coder::Codec(encoder),
            (None, _) if format == Format::Ulaw => return None,
            (None, Codec::Pcma) => Coder::Law(encode_alaw),
            (None, _) => Coder::Law(encode_ulaw),
        };
        let rate = match &coder {
            Coder::Law(_) => RATE,
            Coder::Codec(encoder) => encoder.sample_rate(),
        };
        Some(Self {
            format,
            coder,
            resampler: Resampler::between(format.rate(), rate).map(Box::new),
        })
    }

    /// The payload of a frame: its length, 0 if nothing is to be sent.
    pub fn encode(&mut self, frame: &[u8], payload: &mut [u8]) -> usize {
        let mut said = [0; MOST_SAMPLES];
        let count = self.format.decode(frame, &mut said);
        let mut sound = [0; MOST_SAMPLES];
        let samples = match &mut self.resampler {
            None => &said[..count],
            Some(resampler) => {
                let count = resampler.process(&said[..count], &mut sound);
                &sound[..count]
            }
        };
        match &mut self.coder {
            Coder::Codec(encoder) => encoder.encode(samples, payload),
            Coder::Law(law) => {
                for (code, sample) in payload.iter_mut().zip(samples) {
                    *code = law(*sample);
                }
                samples.len().min(payload.len())
            }
        }
    }

    /// As [`Encoder::lead`].
    pub fn lead(&self) -> u32 {
        match &self.coder {
            Coder::Codec(encoder) => encoder.lead(),
            Coder::Law(_) => 0,
        }
    }

    /// As [`Encoder::skip`].
    pub fn skip(&mut self) {
        if let Coder::Codec(encoder) = &mut self.coder {
            encoder.skip();
        }
    }

    /// As [`Encoder::hear`].
    pub fn hear(&mut self, payload: &[u8]) {
        if let Coder::Codec(encoder) = &mut self.coder {
            encoder.hear(payload);
        }
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
            let way = Way::new(codec, Delay::Adaptive, Format::Ulaw);
            assert!(matches!(way, Way::Ulaw(_)));
            assert!(Outbound::new(codec, Format::Ulaw).is_none());
            assert_eq!(ticks_per_packet(codec), 160);
        }
    }
}
