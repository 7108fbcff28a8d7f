//! AudioSocket, the protocol of Asterisk's `res_audiosocket`, as seen from Asterisk's side of the TCP connection.
//!
//! <https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/>: each frame is a kind (one byte), the length of its payload
//! (two bytes, big endian) and the payload. The first one is ours and says which call it is. Audio is 16-bit linear, little endian,
//! mono, 8 kHz; the kinds of other rates are told and not played. The protocol has no marks, and nothing that takes audio back.
//!
//! Bytes in, bytes out: the connection is `stream`'s, and the G.711 tables are the caller's.

use rand::RngCore;
use thiserror::Error;

const HANG_UP: u8 = 0x00;
const ID: u8 = 0x01;
const SILENCE: u8 = 0x02;
const DIGIT: u8 = 0x03;
const AUDIO: u8 = 0x10;
const ERROR: u8 = 0xff;
/// What the kinds behind [`AUDIO`] carry, in hertz.
const OTHER_RATES: [u32; 8] = [
    12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];
const HEADER_BYTES: usize = 3;
/// Capacity for the agent's audio that is kept: half a second.
const KEPT_CAPACITY: usize = 4096;

/// Longest frame of ours for 20 ms of audio.
pub const AUDIO_FRAME_BYTES: usize = HEADER_BYTES + 320;
/// The last frame.
pub const HANG_UP_FRAME: [u8; HEADER_BYTES] = [HANG_UP, 0, 0];

/// What is wrong with a frame of the agent. It is not acted upon; the call goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Audio at a rate that was not agreed on.
    #[error("audio at {0} Hz (kind {kind:#04x}): only 8000 Hz (kind 0x10) is played", kind = kind_of(*.0))]
    Rate(u32),
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

fn kind_of(rate: u32) -> u8 {
    let place = OTHER_RATES.iter().position(|other| *other == rate);
    place.map_or(AUDIO, |place| AUDIO + 1 + place as u8)
}

fn code_text(code: Option<u8>) -> String {
    code.map_or(String::new(), |code| format!(", code {code}"))
}

/// What the agent sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// Something to play, µ-law at 8 kHz.
    Audio(&'a [u8]),
    /// A frame that cannot be used.
    Unusable(ProtocolError),
    /// Nothing follows.
    End(End),
}

/// G.711 µ-law to linear samples (16 bit, little endian) and back.
#[derive(Debug, Clone, Copy)]
pub struct Ulaw {
    /// Appends samples as µ-law.
    pub encode: fn(&[[u8; 2]], &mut Vec<u8>),
    /// Writes µ-law codes as samples, each in its place.
    pub decode: fn(&[u8], &mut [[u8; 2]]),
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
        low: Option<u8>,
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
    ulaw: Ulaw,
    place: Place,
    /// What is to be played, as far as it is read; its memory is used again.
    audio: Vec<u8>,
    /// It has been given to be played.
    given: bool,
}

impl Session {
    /// A stream of which nothing has been read.
    pub fn new(ulaw: Ulaw) -> Self {
        Self {
            ulaw,
            place: NEXT_FRAME,
            audio: Vec::new(),
            given: false,
        }
    }

    /// The first frame: which call it is.
    pub fn start(id: [u8; 16]) -> [u8; HEADER_BYTES + 16] {
        let mut frame = [0; HEADER_BYTES + 16];
        frame[..HEADER_BYTES].copy_from_slice(&[ID, 0, 16]);
        frame[HEADER_BYTES..].copy_from_slice(&id);
        frame
    }

    /// The caller's audio, at most 20 ms of it. Gives back the used part of `out`.
    pub fn audio<'a>(&self, ulaw: &[u8], out: &'a mut [u8; AUDIO_FRAME_BYTES]) -> &'a [u8] {
        let (header, payload) = out.split_at_mut(HEADER_BYTES);
        let samples = ulaw.len().min(payload.len() / 2);
        let (places, _) = payload.as_chunks_mut();
        (self.ulaw.decode)(&ulaw[..samples], &mut places[..samples]);
        let [high, low] = (2 * samples as u16).to_be_bytes();
        header.copy_from_slice(&[AUDIO, high, low]);
        &out[..HEADER_BYTES + 2 * samples]
    }

    /// The caller pressed a key.
    pub fn digit(digit: char) -> Option<[u8; HEADER_BYTES + 1]> {
        let digit = u8::try_from(digit).ok().filter(u8::is_ascii)?;
        Some([DIGIT, 0, 1, digit])
    }

    /// Reads on in the agent's stream and takes what it has read out of `input`. `None`: more is needed. Audio that follows upon audio
    /// is given as one command.
    pub fn receive(&mut self, input: &mut &[u8]) -> Option<Received<'_>> {
        if std::mem::take(&mut self.given) {
            self.audio.clear();
            self.audio.shrink_to(KEPT_CAPACITY);
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
                    let more_audio = kind == AUDIO && length.is_multiple_of(2);
                    if !more_audio && !self.audio.is_empty() {
                        // First what came before; this header is looked at again.
                        return self.take_audio();
                    }
                    if let Some(received) = self.begin(kind, length) {
                        return Some(received);
                    }
                }
                Place::Audio { left: 0, .. } | Place::Unused { left: 0 } => self.place = NEXT_FRAME,
                Place::Audio { left, low } => {
                    if input.is_empty() {
                        return self.take_audio();
                    }
                    let (mut payload, rest) = input.split_at(input.len().min(usize::from(*left)));
                    *input = rest;
                    *left -= payload.len() as u16;
                    if let (Some(low), Some((high, after))) = (*low, payload.split_first()) {
                        (self.ulaw.encode)(&[[low, *high]], &mut self.audio);
                        payload = after;
                    }
                    let (samples, half) = payload.as_chunks();
                    *low = half.first().copied();
                    (self.ulaw.encode)(samples, &mut self.audio);
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
        let unusable = match kind {
            AUDIO => {
                self.place = Place::Audio {
                    left: length,
                    low: None,
                };
                if length.is_multiple_of(2) {
                    return None;
                }
                ProtocolError::OddAudio(length)
            }
            HANG_UP => return end(&mut self.place, End::HungUp),
            ERROR if length == 0 => return end(&mut self.place, End::Failed(None)),
            ERROR => {
                self.place = Place::ErrorCode;
                return None;
            }
            ID | SILENCE | DIGIT => ProtocolError::Direction(kind),
            _ => match OTHER_RATES.get(usize::from(kind.wrapping_sub(AUDIO + 1))) {
                Some(rate) => ProtocolError::Rate(*rate),
                None => return end(&mut self.place, End::NotAudioSocket(kind)),
            },
        };
        Some(Received::Unusable(unusable))
    }

    fn take_audio(&mut self) -> Option<Received<'_>> {
        self.given = !self.audio.is_empty();
        self.given.then_some(Received::Audio(&self.audio))
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
