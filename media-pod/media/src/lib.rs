//! Media of one call as state machines: RTP, G.711, telephone events, jitter buffer, pacing.
//!
//! Nothing here but [`plane`] (and [`ports`], which opens sockets for it) uses a socket or reads a clock: bytes and an [`std::time::Instant`] go in, bytes, events and the next
//! time-out come out. The plane has the threads that carry the calls; signalling and SDP belong to the `sip` crate.

mod beside;
pub mod codec;
pub mod compare;
pub mod cover;
mod credit;
pub mod drops;
pub mod dtls;
pub mod dtmf;
pub mod flow;
pub mod format;
pub mod g711;
pub mod ice;
pub mod jitter;
mod load;
pub mod networks;
pub mod plane;
mod playback;
pub mod ports;
pub mod quality;
pub mod reception;
pub mod resample;
pub mod rtcp;
pub mod rtp;
pub mod source;
pub mod srtp;
pub mod stream;
pub mod stun;
pub mod tone;
mod transcode;
pub mod wav;

/// Samples in one 20 ms frame at 8 kHz; also its size in bytes as G.711.
pub const FRAME_SAMPLES: usize = 160;

/// Duration of one frame in milliseconds.
pub const FRAME_MILLIS: u64 = 20;
