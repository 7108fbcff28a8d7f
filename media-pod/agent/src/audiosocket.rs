//! AudioSocket, the protocol of Asterisk's `res_audiosocket`, as seen from Asterisk's side of the TCP connection.
//!
//! <https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/>: each frame is a kind (one byte), the length of its payload
//! (two bytes, big endian) and the payload. The first one is ours and says which call it is. Audio is 16-bit linear, little endian,
//! mono; its kind tells the rate, which is the same both ways, and audio of other rates is told and not played. The protocol has no marks,
//! and nothing that takes audio back.
//!
//! Bytes in, bytes out: the connection is `stream`'s.

use rand::RngCore;
use thiserror::Error;

const HANG_UP: u8 = 0x00;
const ID: u8 = 0x01;
const SILENCE: u8 = 0x02;
const DIGIT: u8 = 0x03;
/// Audio at the first of [`RATES`]; the others follow.
const AUDIO: u8 = 0x10;
const ERROR: u8 = 0xff;
/// What the kinds from [`AUDIO`] on carry, in hertz.
const RATES: [u32; 9] = [
    8000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];
/// Milliseconds of the agent's audio whose memory is kept.
const KEPT: usize = 256;

/// Kind and length.
pub const HEADER_BYTES: usize = 3;
/// The last frame.
pub const HANG_UP_FRAME: [u8; HEADER_BYTES] = [HANG_UP, 0, 0];

/// What is wrong with a frame of the agent. It is not acted upon; the call goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Audio at a rate that was not agreed on.
    #[error(
        "audio at {got} Hz (kind {:#04x}): only {wanted} Hz (kind {:#04x}) is played, see spec.audioSocket.sampleRate",
        kind_of(*got),
        kind_of(*wanted)
    )]
    Rate {
        /// Samples per second of it.
        got: u32,
        /// What was agreed on.
        wanted: u32,
    },
    /// The last sample of an audio frame is cut in two.
    #[error("an audio frame of {0} bytes: samples have two")]
    OddAudio(u16),
    /// A frame that only our side sends.
    #[error("a frame of kind {0:#04x}, which agents don't send")]
    Direction(u8),
}

/// Why the agent's stream is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum End {
    /// It hung up.
    #[error("the agent hung up")]
    HungUp,
    /// It reported an error; codes are its own.
    #[error("the agent reported an error{}", code_text(*.0))]
    Failed(Option<u8>),
    /// What it sends is something else.
    #[error(
        "the agent sent a frame of kind {0:#04x}, which AudioSocket does not have: is it an AudioSocket server?"
    )]
    NotAudioSocket(u8),
}

/// The kind that carries audio of that rate.
fn kind_of(rate: u32) -> u8 {
    let place = RATES.iter().position(|known| *known == rate);
    AUDIO + place.unwrap_or_default() as u8
}

fn code_text(code: Option<u8>) -> String {
    code.map_or(String::new(), |code| format!(", code {code}"))
}

/// What the agent sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// Something to play: whole samples.
    Audio(&'a [u8]),
    /// A frame that cannot be used.
    Unusable(ProtocolError),
    /// Nothing follows.
    End(End),
}

/// Where in the agent's stream we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header {
        bytes: [u8; HEADER_BYTES],
        filled: usize,
    },
    Audio {
        left: u16,
    },
    Unused {
        left: u16,
    },
    ErrorCode,
    End,
}

const NEXT_FRAME: Place = Place::Header {
    bytes: [0; HEADER_BYTES],
    filled: 0,
};

/// One call's stream: makes our frames and reads the agent's, whatever pieces they come in. Holds no more of them than what one
/// [`Session::receive`] is given.
#[derive(Debug)]
pub struct Session {
    rate: u32,
    place: Place,
    /// What is to be played, as far as it is read; its memory is used again.
    audio: Vec<u8>,
    /// So much of it has been given to be played.
    given: usize,
}

impl Session {
    /// A stream of which nothing has been read, with so many samples per second.
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            place: NEXT_FRAME,
            audio: Vec::new(),
            given: 0,
        }
    }

    /// Bytes of 20 ms of audio.
    pub fn frame_bytes(&self) -> usize {
        (self.rate / 50 * 2) as usize
    }

    /// The first frame: which call it is.
    pub fn start(id: [u8; 16]) -> [u8; HEADER_BYTES + 16] {
        let mut frame = [0; HEADER_BYTES + 16];
        frame[..HEADER_BYTES].copy_from_slice(&[ID, 0, 16]);
        frame[HEADER_BYTES..].copy_from_slice(&id);
        frame
    }

    /// The caller's audio, whole samples, as far as it fits into `out`. Gives back the used part of that.
    pub fn audio<'a>(&self, samples: &[u8], out: &'a mut [u8]) -> &'a [u8] {
        let most = out.len().saturating_sub(HEADER_BYTES);
        let length = samples.len().min(most).min(0xfffe);
        let [high, low] = (length as u16).to_be_bytes();
        let frame = &mut out[..HEADER_BYTES + length];
        let (header, payload) = frame.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&[kind_of(self.rate), high, low]);
        payload.copy_from_slice(&samples[..length]);
        frame
    }

    /// The caller pressed a key.
    pub fn digit(digit: char) -> Option<[u8; HEADER_BYTES + 1]> {
        let digit = u8::try_from(digit).ok().filter(u8::is_ascii)?;
        Some([DIGIT, 0, 1, digit])
    }

    /// Reads on in the agent's stream and takes what it has read out of `input`. `None`: more is needed. Audio that follows upon audio
    /// is given as one command.
    pub fn receive(&mut self, input: &mut &[u8]) -> Option<Received<'_>> {
        let given = std::mem::take(&mut self.given);
        if given > 0 {
            self.audio.drain(..given);
            self.audio.shrink_to(self.rate as usize / 1000 * 2 * KEPT);
        }
        loop {
            match &mut self.place {
                Place::Header { bytes, filled } => {
                    while *filled < HEADER_BYTES {
                        let Some((first, rest)) = input.split_first() else {
                            return self.take_audio();
                        };
                        bytes[*filled] = *first;
                        *filled += 1;
                        *input = rest;
                    }
                    let [kind, high, low] = *bytes;
                    let length = u16::from_be_bytes([high, low]);
                    let more_audio = kind == kind_of(self.rate) && length.is_multiple_of(2);
                    if !more_audio && !self.audio.is_empty() {
                        // First what came before; this header is looked at again.
                        return self.take_audio();
                    }
                    if let Some(received) = self.begin(kind, length) {
                        return Some(received);
                    }
                }
                Place::Audio { left: 0 } | Place::Unused { left: 0 } => {
                    // Half a sample has no other half.
                    self.audio.truncate(self.audio.len() & !1);
                    self.place = NEXT_FRAME;
                }
                Place::Audio { left } => {
                    if input.is_empty() {
                        return self.take_audio();
                    }
                    let (payload, rest) = input.split_at(input.len().min(usize::from(*left)));
                    *input = rest;
                    *left -= payload.len() as u16;
                    self.audio.extend(payload);
                }
                Place::Unused { left } => {
                    let skipped = input.len().min(usize::from(*left));
                    if skipped == 0 {
                        return None;
                    }
                    *input = &input[skipped..];
                    *left -= skipped as u16;
                }
                Place::ErrorCode => {
                    let code = *input.first()?;
                    self.place = Place::End;
                    return Some(Received::End(End::Failed(Some(code))));
                }
                Place::End => {
                    *input = &[];
                    return None;
                }
            }
        }
    }

    /// A frame begins. What it is, unless its payload tells.
    fn begin(&mut self, kind: u8, length: u16) -> Option<Received<'static>> {
        let end = |place: &mut Place, end| {
            *place = Place::End;
            Some(Received::End(end))
        };
        self.place = Place::Unused { left: length };
        let rate = kind.checked_sub(AUDIO).map(usize::from);
        let unusable = match (kind, rate.and_then(|place| RATES.get(place))) {
            (_, Some(rate)) if *rate == self.rate => {
                self.place = Place::Audio { left: length };
                if length.is_multiple_of(2) {
                    return None;
                }
                ProtocolError::OddAudio(length)
            }
            (_, Some(rate)) => ProtocolError::Rate {
                got: *rate,
                wanted: self.rate,
            },
            (HANG_UP, _) => return end(&mut self.place, End::HungUp),
            (ERROR, _) if length == 0 => return end(&mut self.place, End::Failed(None)),
            (ERROR, _) => {
                self.place = Place::ErrorCode;
                return None;
            }
            (ID | SILENCE | DIGIT, _) => ProtocolError::Direction(kind),
            _ => return end(&mut self.place, End::NotAudioSocket(kind)),
        };
        Some(Received::Unusable(unusable))
    }

    /// Whole samples: half of one waits for the other.
    fn take_audio(&mut self) -> Option<Received<'_>> {
        self.given = self.audio.len() & !1;
        (self.given > 0).then(|| Received::Audio(&self.audio[..self.given]))
    }
}

/// A random identifier of a call (RFC 9562 §5.4, version 4).
pub fn new_id(rng: &mut impl RngCore) -> [u8; 16] {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// An identifier as people write it.
pub fn id_text(id: [u8; 16]) -> String {
    let mut text = format!("{:032x}", u128::from_be_bytes(id));
    for place in [20, 16, 12, 8] {
        text.insert(place, '-');
    }
    text
}

#[cfg(test)]
#[path = "audiosocket_tests.rs"]
mod tests;
