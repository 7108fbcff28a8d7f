//! A safe face over the C libraries that code AMR-WB (ITU-T G.722.2, 3GPP TS 26.190): the decoder of opencore-amr and the encoder of
//! vo-amrwbenc, both Apache-2.0.
//!
//! Frames are those of the storage format (RFC 4867 section 5.3): an octet with the frame type in bits 3 to 6 and the quality bit in bit 2, then the
//! speech bits, the first one the highest of its octet. What RTP makes of it is not the matter of this crate.

#[cfg(feature = "libraries")]
mod ffi;

#[cfg(feature = "libraries")]
pub use ffi::{Decoder, Encoder};

/// Samples per second.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples of a frame: 20 ms.
pub const FRAME_SAMPLES: usize = 320;
/// Octets of the longest frame, that of 23.85 kbit/s.
pub const FRAME_BYTES: usize = 61;
/// The highest mode: 23.85 kbit/s.
pub const HIGHEST_MODE: u8 = 8;
