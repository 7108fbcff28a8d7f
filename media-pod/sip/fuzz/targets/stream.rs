//! Feeds bytes to [`ringwire_sip_fuzz::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringwire_sip_fuzz::stream(bytes));
