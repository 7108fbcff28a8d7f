//! `message/sipfrag` (RFC 3420) as far as RFC 3515 needs it: a status line.

use crate::message::default_reason;

/// The media type.
pub(super) const CONTENT_TYPE: &str = "message/sipfrag";

/// A status line for the body of a NOTIFY.
pub(super) fn status_line(status: u16) -> Vec<u8> {
    format!("SIP/2.0 {status} {}\r\n", default_reason(status)).into_bytes()
}

/// The status in the body of a NOTIFY.
pub(super) fn status(body: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(body);
    let mut words = text.split_whitespace();
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    (version.eq_ignore_ascii_case("SIP/2.0") && (100..700).contains(&status)).then_some(status)
}
