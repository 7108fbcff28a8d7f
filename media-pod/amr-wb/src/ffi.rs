//! The calls into C. Both libraries keep all state behind the pointer that they give out, and have no global variables that change.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_short, c_uchar, c_void};
use std::fmt;
use std::ptr::NonNull;

use crate::{FRAME_BYTES, FRAME_SAMPLES, HIGHEST_MODE};

// opencore-amrwb/dec_if.h and vo-amrwbenc/enc_if.h.
unsafe extern "C" {
    fn D_IF_init() -> *mut c_void;
    fn D_IF_decode(state: *mut c_void, bits: *const c_uchar, sound: *mut c_short, bad_frame: c_int);
    fn D_IF_exit(state: *mut c_void);

    fn E_IF_init() -> *mut c_void;
    fn E_IF_encode(
        state: *mut c_void,
        mode: c_int,
        sound: *const c_short,
        bits: *mut c_uchar,
        discontinuous: c_int,
    ) -> c_int;
    fn E_IF_exit(state: *mut c_void);
}

/// The highest type that has bits: comfort noise (3GPP TS 26.201 table 2).
const KNOWN_TYPES: u8 = 9;
/// A lost frame, and none at all.
const EMPTY_TYPES: [u8; 2] = [14, 15];

/// A decoder of one stream.
pub struct Decoder {
    state: NonNull<c_void>,
}

// SAFETY: the state is reached through this pointer alone, and the library has no notion of threads.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A new one. None without memory.
    pub fn new() -> Option<Self> {
        // SAFETY: takes nothing; gives a state of its own, or null.
        let state = unsafe { D_IF_init() };
        Some(Self {
            state: NonNull::new(state)?,
        })
    }

    /// Decodes a frame; what of it is not used may be anything. Types 14 and 15 make it conceal, or go on with comfort noise. The types 10 to 13,
    /// which mean nothing, are taken for a loss.
    pub fn decode(&mut self, frame: &[u8; FRAME_BYTES], sound: &mut [i16; FRAME_SAMPLES]) {
        let mut frame = *frame;
        let kind = frame[0] >> 3 & 15;
        if kind > KNOWN_TYPES && !EMPTY_TYPES.contains(&kind) {
            frame[0] = EMPTY_TYPES[0] << 3;
        }
        // SAFETY: the state is alive and ours alone (`&mut`). The library reads the octets of the frame's type, 61 at most, and writes 320
        // samples; both arrays have that much.
        unsafe {
            D_IF_decode(self.state.as_ptr(), frame.as_ptr(), sound.as_mut_ptr(), 0);
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: it came from D_IF_init, and is not used any more.
        unsafe { D_IF_exit(self.state.as_ptr()) }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder(AMR-WB)")
    }
}

/// An encoder of one stream.
pub struct Encoder {
    state: NonNull<c_void>,
}

// SAFETY: as with the decoder.
unsafe impl Send for Encoder {}

impl Encoder {
    /// A new one. None without memory.
    pub fn new() -> Option<Self> {
        // SAFETY: takes nothing; gives a state of its own, or null.
        let state = unsafe { E_IF_init() };
        Some(Self {
            state: NonNull::new(state)?,
        })
    }

    /// Encodes 20 ms in a mode of 0 (6.60 kbit/s) to 8 (23.85 kbit/s), the highest for all beyond. Gives the octets of the frame, its first one with them.
    pub fn encode(
        &mut self,
        mode: u8,
        sound: &[i16; FRAME_SAMPLES],
        frame: &mut [u8; FRAME_BYTES],
    ) -> usize {
        let mode = mode.min(HIGHEST_MODE).into();
        // SAFETY: the state is alive and ours alone (`&mut`). The library reads 320 samples, and writes 61 octets at most in modes up to 8.
        let octets = unsafe {
            E_IF_encode(
                self.state.as_ptr(),
                mode,
                sound.as_ptr(),
                frame.as_mut_ptr(),
                0,
            )
        };
        usize::try_from(octets).unwrap_or(0).min(FRAME_BYTES)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: it came from E_IF_init, and is not used any more.
        unsafe { E_IF_exit(self.state.as_ptr()) }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder(AMR-WB)")
    }
}
