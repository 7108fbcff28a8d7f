//! Feeds bytes to [`ringwire_sip_fuzz::sdp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringwire_sip_fuzz::sdp(bytes));
