//! The torture tests of RFC 4475 (SIP) and RFC 5118 (SIP over IPv6): every message of theirs, by section, with what
//! becomes of it here.
//!
//! The messages stand in `rfc4475/` and `rfc5118/` under the names that the RFCs give them, with LF for CRLF. Two things
//! are not the RFCs': the octets of the signature in `mpart01` (made up in its test), and the `Content-Length` of the
//! descriptions in RFC 5118, which doesn't count them there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringwire_sip::message::{Message, ParseError, ParseFailure, Request, Response, parse_datagram};

mod application;
mod backward;
mod invalid;
mod ipv6;
mod valid;

/// A message of RFC 4475 by its name, as it goes on the wire.
macro_rules! rfc4475 {
    ($name:literal) => {
        crate::wire(include_bytes!(concat!("rfc4475/", $name, ".sip")))
    };
}

/// A message of RFC 5118 by its name, as it goes on the wire.
macro_rules! rfc5118 {
    ($name:literal) => {
        crate::wire(include_bytes!(concat!("rfc5118/", $name, ".sip")))
    };
}

use {rfc4475, rfc5118};

/// With CRLF line ends.
fn wire(text: &[u8]) -> Vec<u8> {
    text.split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| match line.strip_suffix(b"\n") {
            Some(line) => [line, b"\r\n"].concat(),
            None => line.to_vec(),
        })
        .collect()
}

/// The bytes with one piece replaced.
fn with(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.contains(old), "{old:?} is not in {text}");
    text.replacen(old, new, 1).into_bytes()
}

/// The request that is read from a datagram.
fn request(bytes: &[u8]) -> Request {
    match parse_datagram(bytes).unwrap() {
        Message::Request(request) => request,
        Message::Response(response) => panic!("a response: {response:?}"),
    }
}

/// The response that is read from a datagram.
fn response(bytes: &[u8]) -> Response {
    match parse_datagram(bytes).unwrap() {
        Message::Response(response) => response,
        Message::Request(request) => panic!("a request: {request:?}"),
    }
}

fn failure(bytes: &[u8]) -> ParseFailure {
    parse_datagram(bytes).unwrap_err()
}

/// What is wrong with a request, and the answer that its sender gets.
fn refused(bytes: &[u8]) -> (ParseError, Response) {
    let failure = failure(bytes);
    let reply = *failure
        .reply
        .unwrap_or_else(|| panic!("no answer for {:?}", failure.error));
    assert!(reply.headers.via().is_ok(), "no way back");
    (failure.error, reply)
}

/// The status and the phrase of that answer.
fn refusal(bytes: &[u8]) -> (u16, String) {
    let (_, reply) = refused(bytes);
    (reply.status, reply.reason)
}
