//! Opus (RFC 6716) as RTP carries it (RFC 7587): the clock is 48,000 whatever is coded, and any packet may be of any kind.
//!
//! The library is libopus, which codes from and to several sample rates by itself. One channel: a peer's stereo is mixed by the decoder,
//! and nobody has to be sent two (RFC 7587 section 7).

use std::fmt;

use opusic_c::{Application, Bandwidth, Bitrate, Channels, InbandFec, SampleRate, Signal};

use super::{Decoder, Encoder, PAYLOAD_BYTES, SOUND_SAMPLES};

const CLOCK_RATE: u32 = 48_000;
/// 20 ms at 48 kHz.
const LONGEST_FRAME: usize = 960;
/// What the encoder may spend, 0 to 10: beyond this speech gains less than it costs.
const COMPLEXITY: u8 = 5;
/// Loss for which redundancy is made, in percent; without some the encoder makes none.
const EXPECTED_LOSS: u8 = 10;

/// What the peer asks of our encoder (RFC 7587 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpusParameters {
    /// `useinbandfec`: each packet also carries the one before, coarsely.
    pub fec: bool,
    /// `usedtx`: almost nothing is sent while it is silent.
    pub dtx: bool,
    /// `cbr`: constant bit rate.
    pub constant: bool,
    /// `maxplaybackrate`: samples per second beyond which the peer plays nothing.
    pub max_playback_rate: u32,
    /// `maxaveragebitrate`, bits per second.
    pub max_bitrate: Option<u32>,
}

impl Default for OpusParameters {
    fn default() -> Self {
        Self {
            fec: false,
            dtx: false,
            constant: false,
            max_playback_rate: CLOCK_RATE,
            max_bitrate: None,
        }
    }
}

/// The rate at which the library works for someone who wants `rate`: that, or the next higher one that it can do.
fn library_rate(rate: u32) -> (u32, SampleRate) {
    match rate {
        0..=8000 => (8000, SampleRate::Hz8000),
        8001..=12_000 => (12_000, SampleRate::Hz12000),
        12_001..=16_000 => (16_000, SampleRate::Hz16000),
        16_001..=24_000 => (24_000, SampleRate::Hz24000),
        _ => (48_000, SampleRate::Hz48000),
    }
}

pub struct OpusDecoder {
    library: opusic_c::Decoder,
    rate: u32,
    /// The library takes samples for unsigned.
    sound: Box<[u16; SOUND_SAMPLES]>,
}

impl OpusDecoder {
    pub fn new(wanted_rate: u32) -> Option<Self> {
        let (rate, library_rate) = library_rate(wanted_rate);
        let library = opusic_c::Decoder::new(Channels::Mono, library_rate).ok()?;
        let sound = Box::new([0; SOUND_SAMPLES]);
        Some(Self {
            library,
            rate,
            sound,
        })
    }
}

impl fmt::Debug for OpusDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpusDecoder({} Hz)", self.rate)
    }
}

impl Decoder for OpusDecoder {
    fn sample_rate(&self) -> u32 {
        self.rate
    }

    fn clock_rate(&self) -> u32 {
        CLOCK_RATE
    }

    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        if payload.is_empty() {
            return None;
        }
        let samples = self.library.get_nb_samples(payload).ok()?;
        Some(samples as u32 * (CLOCK_RATE / self.rate))
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        // Nothing at all would be concealment to the library.
        if payload.is_empty() {
            return 0;
        }
        let decoded = self
            .library
            .decode_to_slice(payload, &mut self.sound[..], false);
        let count = decoded.unwrap_or(0).min(sound.len());
        for (to, from) in sound.iter_mut().zip(&self.sound[..count]) {
            *to = from.cast_signed();
        }
        count
    }

    fn conceal(&mut self, next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        let length = sound.len();
        // In steps of 2.5 ms.
        let step = self.rate as usize / 400;
        if length == 0 || length > SOUND_SAMPLES || !length.is_multiple_of(step) {
            return false;
        }
        let next = next.filter(|payload| !payload.is_empty());
        let place = &mut self.sound[..length];
        let made = self
            .library
            .decode_to_slice(next.unwrap_or_default(), place, next.is_some());
        if made != Ok(length) {
            return false;
        }
        for (to, from) in sound.iter_mut().zip(&self.sound[..]) {
            *to = from.cast_signed();
        }
        true
    }

    fn reset(&mut self) {
        // Its only error is of a request that it does not know.
        let _ = self.library.reset();
    }
}

pub struct OpusEncoder {
    library: opusic_c::Encoder,
    rate: u32,
    dtx: bool,
}

impl OpusEncoder {
    pub fn new(wanted_rate: u32, parameters: OpusParameters) -> Option<Self> {
        let OpusParameters {
            fec,
            dtx,
            constant,
            max_playback_rate,
            max_bitrate,
        } = parameters;
        let (rate, library_rate) = library_rate(wanted_rate);
        let mut library =
            opusic_c::Encoder::new(Channels::Mono, library_rate, Application::Voip).ok()?;
        // RFC 7587 section 3.1.1: what speech needs at each bandwidth.
        let heard = rate.min(max_playback_rate);
        let bitrate = match heard {
            0..=8000 => 16_000,
            8001..=16_000 => 28_000,
            16_001..=24_000 => 32_000,
            _ => 40_000,
        };
        let bandwidth = match max_playback_rate {
            0..=8000 => Bandwidth::Narrow,
            8001..=12_000 => Bandwidth::Medium,
            12_001..=16_000 => Bandwidth::Wide,
            16_001..=24_000 => Bandwidth::Superwide,
            _ => Bandwidth::Full,
        };
        // Redundancy needs bits of its own.
        let bitrate = if fec { bitrate + 4000 } else { bitrate };
        let bitrate = max_bitrate.map_or(bitrate, |most| bitrate.min(most.max(6000)));
        let fec = if fec {
            InbandFec::Mode1
        } else {
            InbandFec::Off
        };
        library.set_bitrate(Bitrate::Value(bitrate)).ok()?;
        library.set_max_bandwidth(bandwidth).ok()?;
        library.set_complexity(COMPLEXITY).ok()?;
        library.set_signal(Signal::Voice).ok()?;
        library.set_vbr(!constant).ok()?;
        library.set_inband_fec(fec).ok()?;
        library.set_packet_loss(EXPECTED_LOSS).ok()?;
        library.set_dtx(dtx).ok()?;
        Some(Self { library, rate, dtx })
    }
}

impl fmt::Debug for OpusEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpusEncoder({} Hz)", self.rate)
    }
}

impl Encoder for OpusEncoder {
    fn sample_rate(&self) -> u32 {
        self.rate
    }

    fn clock_rate(&self) -> u32 {
        CLOCK_RATE
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let mut unsigned = [0; LONGEST_FRAME];
        let count = sound.len().min(LONGEST_FRAME);
        for (to, from) in unsigned.iter_mut().zip(sound) {
            *to = from.cast_unsigned();
        }
        let limit = payload.len().min(PAYLOAD_BYTES);
        let made = self
            .library
            .encode_to_slice(&unsigned[..count], &mut payload[..limit])
            .unwrap_or(0);
        // Up to two bytes say no more than that there is silence, and need not be sent (RFC 6716 section 2.1.9).
        if self.dtx && made <= 2 { 0 } else { made }
    }
}
