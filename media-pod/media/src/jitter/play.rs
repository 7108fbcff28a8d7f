//! How payloads become samples: by a codec, or as they are.

use crate::codec::Decoder;

/// Turns payloads into samples, in playing order.
pub trait Play<S> {
    /// Writes the payload's samples to the start of `sound`; gives how many.
    fn decode(&mut self, payload: &[u8], sound: &mut [S]) -> usize;

    /// The codec's own concealment, see [`Decoder::conceal`].
    fn conceal(&mut self, next: Option<&[u8]>, sound: &mut [S]) -> bool;

    /// Another stream begins.
    fn reset(&mut self);
}

/// µ-law as it is.
#[derive(Debug)]
pub struct Ulaw;

impl Play<u8> for Ulaw {
    fn decode(&mut self, payload: &[u8], sound: &mut [u8]) -> usize {
        let length = payload.len().min(sound.len());
        sound[..length].copy_from_slice(&payload[..length]);
        length
    }

    fn conceal(&mut self, _: Option<&[u8]>, _: &mut [u8]) -> bool {
        false
    }

    fn reset(&mut self) {}
}

impl<D: Decoder + ?Sized> Play<i16> for D {
    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        Decoder::decode(self, payload, sound)
    }

    fn conceal(&mut self, next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        Decoder::conceal(self, next, sound)
    }

    fn reset(&mut self) {
        Decoder::reset(self);
    }
}
