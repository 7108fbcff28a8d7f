//! What stands in the bodies of a call's messages: session descriptions, alone or in a multipart body, and digits.

use crate::message::{HeaderName, Headers};
use crate::sdp::{self, OfferError, SessionDescription};

/// Why a body is of no use as session description.
pub(crate) enum BodyError {
    /// Of another type, or packed: 415.
    Unsupported,
    /// A session description that can't be read: 400.
    Malformed(OfferError),
}

/// The session description of a message; `None` when it has no body.
pub(crate) fn description(
    headers: &Headers,
    body: &[u8],
) -> Result<Option<SessionDescription>, BodyError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let encoding = headers.get(&HeaderName::from("Content-Encoding"));
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(BodyError::Unsupported);
    }
    let text = match headers.content_type().as_deref() {
        // Without a type a body that reads like a session description is taken as one.
        None | Some(sdp::CONTENT_TYPE) => body,
        Some(kind) if kind.starts_with("multipart/") => {
            let boundary = headers
                .content_type_param("boundary")
                .ok_or(BodyError::Unsupported)?;
            part(body, &boundary).ok_or(BodyError::Unsupported)?
        }
        Some(_) => return Err(BodyError::Unsupported),
    };
    SessionDescription::parse(text)
        .map(Some)
        .map_err(BodyError::Malformed)
}

/// The first part of a multipart body that is a session description (RFC 5621).
fn part<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut starts = find_all(body, delimiter.as_bytes());
    let mut start = starts.next()? + delimiter.len();
    for next in starts {
        let part = &body[start..next];
        start = next + delimiter.len();
        let Some((head, content)) = split_head(part) else {
            continue;
        };
        let is_sdp = String::from_utf8_lossy(head).lines().any(|line| {
            let line = line.to_ascii_lowercase();
            let kind = line
                .strip_prefix("content-type")
                .or_else(|| line.strip_prefix('c'));
            kind.and_then(|rest| rest.trim_start().strip_prefix(':'))
                .is_some_and(|kind| kind.trim().starts_with(sdp::CONTENT_TYPE))
        });
        if is_sdp {
            return Some(content);
        }
    }
    None
}

fn split_head(part: &[u8]) -> Option<(&[u8], &[u8])> {
    [&b"\r\n\r\n"[..], b"\n\n"].into_iter().find_map(|end| {
        let at = find_all(part, end).next()?;
        Some((&part[..at], &part[at + end.len()..]))
    })
}

fn find_all<'a>(text: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(wanted.len().max(1))
        .enumerate()
        .filter(move |(_, window)| *window == wanted)
        .map(|(at, _)| at)
}

/// What an INFO carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Info {
    Digit(char),
    /// Nothing: some keep a call alive with it.
    Empty,
    Unsupported,
}

/// Reads an INFO: `application/dtmf-relay` (`Signal=5`) or `application/dtmf` (`5`).
pub(crate) fn info(headers: &Headers, body: &[u8]) -> Info {
    let text = String::from_utf8_lossy(body);
    let signal = match headers.content_type().as_deref() {
        Some("application/dtmf-relay") => text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("signal")
                .then(|| value.trim().to_owned())
        }),
        Some("application/dtmf") => Some(text.trim().to_owned()),
        None if body.is_empty() => return Info::Empty,
        _ => None,
    };
    signal
        .and_then(|signal| digit(&signal))
        .map_or(Info::Unsupported, Info::Digit)
}

fn digit(signal: &str) -> Option<char> {
    match signal {
        "10" => return Some('*'),
        "11" => return Some('#'),
        _ => {}
    }
    let mut chars = signal.chars();
    let digit = chars.next()?.to_ascii_uppercase();
    (chars.next().is_none() && (digit.is_ascii_digit() || matches!(digit, '*' | '#' | 'A'..='D')))
        .then_some(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        let mut headers = Headers::new();
        headers.push(HeaderName::ContentType, kind);
        headers
    }

    #[test]
    fn finds_the_session_description_in_a_multipart_body() {
        let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let body = format!(
            "--xx\r\nContent-Type: application/isup\r\n\r\nabc\r\n--xx\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--xx--\r\n"
        );
        let found = description(&headers("multipart/mixed;boundary=\"xx\""), body.as_bytes());
        assert_eq!(
            found.ok().flatten().expect("a description").media[0].port,
            4000
        );
        let none = description(&headers("multipart/mixed;boundary=yy"), body.as_bytes());
        assert!(matches!(none, Err(BodyError::Unsupported)));
    }

    #[test]
    fn reads_digits_of_both_info_types() {
        assert_eq!(
            info(
                &headers("application/dtmf-relay"),
                b"Signal= 5\r\nDuration=160\r\n"
            ),
            Info::Digit('5')
        );
        assert_eq!(
            info(&headers("application/dtmf-relay"), b"signal=11\r\n"),
            Info::Digit('#')
        );
        assert_eq!(info(&headers("application/dtmf"), b"d"), Info::Digit('D'));
        assert_eq!(info(&headers("application/dtmf"), b"55"), Info::Unsupported);
        assert_eq!(info(&Headers::new(), b""), Info::Empty);
        assert_eq!(info(&headers("text/plain"), b"5"), Info::Unsupported);
    }
}
