//! Writing messages: strict form, full header names, `Content-Length` always ours.

use std::io::Write as _;

use super::lex;
use super::{HeaderName, Headers, Request, Response};

pub(super) fn request(request: &Request) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(&request.headers, &request.body));
    // Writing to a Vec can't fail; the same below. A method is a token, so anything else in it is left out.
    out.extend(
        request
            .method
            .as_str()
            .bytes()
            .filter(|&byte| lex::is_token_byte(byte)),
    );
    let _ = write!(out, " {} SIP/2.0\r\n", request.uri);
    finish(out, &request.headers, &request.body)
}

pub(super) fn response(response: &Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(&response.headers, &response.body));
    let _ = write!(out, "SIP/2.0 {:03} ", response.status.min(999));
    out.extend(response.reason.bytes().map(|byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    }));
    out.extend_from_slice(b"\r\n");
    finish(out, &response.headers, &response.body)
}

/// About how long it becomes: a start line, then each header with colon, space and line end.
fn size(headers: &Headers, body: &[u8]) -> usize {
    let fields = headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    160 + fields + body.len()
}

fn finish(mut out: Vec<u8>, headers: &Headers, body: &[u8]) -> Vec<u8> {
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| **name != HeaderName::ContentLength)
    {
        if !lex::is_token(name.as_str()) {
            // There is no way to write such a name.
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
    out.extend_from_slice(body);
    out
}
