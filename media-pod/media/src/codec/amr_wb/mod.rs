//! AMR-WB (ITU-T G.722.2) as RTP carries it (RFC 4867): frames of 20 ms at 16,000 samples per second, in nine modes of 6.60 to 23.85 kbit/s.
//!
//! The peer says with each packet in which mode it wants ours. We ask for none, and send without discontinuous transmission; his comfort noise is
//! understood.

use ringwire_amr_wb as library;

mod payload;

use super::{AmrWbParameters, Decoder, Encoder};
use library::FRAME_SAMPLES;
use payload::{FRAME_BYTES, Format, LOST};

const RATE: u32 = library::SAMPLE_RATE;
/// 12.65 kbit/s: what telephone networks use, and almost as good as the highest.
const USUAL_MODE: u8 = 2;

impl AmrWbParameters {
    fn format(self) -> Format {
        if self.octet_aligned {
            Format::OctetAligned
        } else {
            Format::BandwidthEfficient
        }
    }

    fn allows(self, mode: u8) -> bool {
        self.modes >> mode & 1 == 1
    }

    /// The mode that is sent before the peer asks for one.
    fn first_mode(self) -> u8 {
        let highest = (0..=library::HIGHEST_MODE)
            .rev()
            .find(|mode| self.allows(*mode));
        if self.allows(USUAL_MODE) {
            USUAL_MODE
        } else {
            highest.unwrap_or(USUAL_MODE)
        }
    }

    /// The allowed mode next to this one on the way to another.
    fn toward(self, from: u8, to: u8) -> u8 {
        let found = if to > from {
            (from + 1..=to).find(|mode| self.allows(*mode))
        } else {
            (to..from).rev().find(|mode| self.allows(*mode))
        };
        found.unwrap_or(from)
    }
}

#[derive(Debug)]
pub struct AmrWbDecoder {
    library: library::Decoder,
    format: Format,
}

impl AmrWbDecoder {
    pub fn new(parameters: AmrWbParameters) -> Option<Self> {
        Some(Self {
            library: library::Decoder::new()?,
            format: parameters.format(),
        })
    }
}

impl Decoder for AmrWbDecoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        let contents = payload::read(payload, self.format)?;
        Some((contents.frames().len() * FRAME_SAMPLES) as u32)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        let Some(contents) = payload::read(payload, self.format) else {
            return 0;
        };
        let (places, _) = sound.as_chunks_mut();
        for (place, frame) in places.iter_mut().zip(contents.frames()) {
            self.library.decode(&frame.store(payload), place);
        }
        FRAME_SAMPLES * places.len().min(contents.frames().len())
    }

    fn conceal(&mut self, _next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        let (places, rest) = sound.as_chunks_mut();
        if places.is_empty() || !rest.is_empty() {
            return false;
        }
        let mut lost = [0; FRAME_BYTES];
        lost[0] = LOST << 3;
        for place in places {
            self.library.decode(&lost, place);
        }
        true
    }

    fn reset(&mut self) {
        // Without memory the old state goes on, which decodes as well, but for the first milliseconds.
        if let Some(fresh) = library::Decoder::new() {
            self.library = fresh;
        }
    }
}

#[derive(Debug)]
pub struct AmrWbEncoder {
    library: library::Encoder,
    parameters: AmrWbParameters,
    mode: u8,
    wanted: u8,
    /// Frames since the mode changed.
    unchanged: u32,
}

impl AmrWbEncoder {
    pub fn new(parameters: AmrWbParameters) -> Option<Self> {
        let mode = parameters.first_mode();
        Some(Self {
            library: library::Encoder::new()?,
            parameters,
            mode,
            wanted: mode,
            unchanged: 0,
        })
    }

    /// Goes to the mode that is wanted, as the peer allows it.
    fn change_mode(&mut self) {
        let period = if self.parameters.every_second { 2 } else { 1 };
        if self.wanted != self.mode && self.unchanged > 0 && self.unchanged.is_multiple_of(period) {
            self.mode = if self.parameters.neighbors_only {
                self.parameters.toward(self.mode, self.wanted)
            } else {
                self.wanted
            };
            self.unchanged = 0;
        }
        self.unchanged = self.unchanged.saturating_add(1);
    }
}

impl Encoder for AmrWbEncoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let Some(sound) = sound.first_chunk() else {
            return 0;
        };
        self.change_mode();
        let mut frame = [0; FRAME_BYTES];
        let length = self.library.encode(self.mode, sound, &mut frame);
        payload::write(&frame[..length], self.parameters.format(), payload)
    }

    fn skip(&mut self) {
        self.unchanged = self.unchanged.saturating_add(1);
    }

    /// A mode that was not agreed on is not asked for in earnest.
    fn hear(&mut self, payload: &[u8]) {
        let contents = payload::read(payload, self.parameters.format());
        let request = contents.and_then(|contents| contents.request);
        if let Some(mode) = request.filter(|mode| self.parameters.allows(*mode)) {
            self.wanted = mode;
        }
    }
}
