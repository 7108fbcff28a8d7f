//! What a line shows of a message, read from its masked bytes: nothing else can get by the mask.

use std::collections::BTreeMap;

use ringwire_sip::message::{HeaderName, Message, ParseFailure, parse_datagram};
use ringwire_sip::sdp::{MediaDescription, SessionDescription};

/// Headers that people look for.
const KEY_HEADERS: [HeaderName; 24] = [
    HeaderName::From,
    HeaderName::To,
    HeaderName::Contact,
    HeaderName::Expires,
    HeaderName::MinExpires,
    HeaderName::Authorization,
    HeaderName::ProxyAuthorization,
    HeaderName::WwwAuthenticate,
    HeaderName::ProxyAuthenticate,
    HeaderName::Reason,
    HeaderName::RetryAfter,
    HeaderName::Warning,
    HeaderName::ErrorInfo,
    HeaderName::Require,
    HeaderName::Unsupported,
    HeaderName::SessionExpires,
    HeaderName::MinSe,
    HeaderName::ReferTo,
    HeaderName::Replaces,
    HeaderName::Diversion,
    HeaderName::PAssertedIdentity,
    HeaderName::PCalledPartyId,
    HeaderName::UserAgent,
    HeaderName::Server,
];

/// Longest value of a header that is shown in short.
const MAX_VALUE: usize = 400;

/// Longest message that is shown whole, in bytes.
const MAX_WHOLE: usize = 16 << 10;

/// A message in short.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub method: String,
    pub uri: Option<String>,
    pub status: Option<u16>,
    pub reason: String,
    pub cseq: Option<u32>,
    pub headers: BTreeMap<String, String>,
    pub media: Option<String>,
}

impl Summary {
    /// Reads a masked message.
    pub fn of(masked: &[u8]) -> Self {
        match parse_datagram(masked) {
            Ok(message) => Self::of_message(&message),
            Err(failure) => Self::of_unreadable(masked, &failure),
        }
    }

    fn of_message(message: &Message) -> Self {
        let headers = message.headers();
        let (cseq, method) = headers
            .cseq()
            .map_or((None, String::new()), |(number, method)| {
                (Some(number), method.to_string())
            });
        let key_headers = KEY_HEADERS
            .iter()
            .filter_map(|name| {
                let values: Vec<&str> = headers.get_all(name).collect();
                (!values.is_empty()).then(|| {
                    (
                        name.as_str().to_owned(),
                        short(&values.join(", "), MAX_VALUE),
                    )
                })
            })
            .collect();
        let mut summary = Self {
            method,
            cseq,
            headers: key_headers,
            media: media(message),
            ..Self::default()
        };
        match message {
            Message::Request(request) => {
                summary.method = request.method.to_string();
                summary.uri = Some(short(&request.uri.to_string(), MAX_VALUE));
            }
            Message::Response(response) => {
                summary.status = Some(response.status);
                summary.reason = short(&response.reason, MAX_VALUE);
            }
        }
        summary
    }

    fn of_unreadable(masked: &[u8], failure: &ParseFailure) -> Self {
        let first = masked
            .trim_ascii_start()
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .next();
        let first = short(&String::from_utf8_lossy(first.unwrap_or_default()), 60);
        Self {
            reason: format!("unreadable ({}): {first}", failure.error),
            ..Self::default()
        }
    }
}

/// The whole message as text.
pub fn whole(masked: &[u8]) -> String {
    let text = String::from_utf8_lossy(&masked[..masked.len().min(MAX_WHOLE)]).into_owned();
    if masked.len() > MAX_WHOLE {
        format!("{text}\r\n… ({} more bytes)\r\n", masked.len() - MAX_WHOLE)
    } else {
        text
    }
}

fn short(text: &str, limit: usize) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// `audio 203.0.113.5:4000 PCMU telephone-event sendrecv`, one for each medium.
fn media(message: &Message) -> Option<String> {
    if !message
        .headers()
        .content_type()?
        .eq_ignore_ascii_case(ringwire_sip::sdp::CONTENT_TYPE)
    {
        return None;
    }
    let sdp = SessionDescription::parse(message.body()).ok()?;
    let media: Vec<String> = sdp
        .media
        .iter()
        .map(|media| describe(&sdp, media))
        .collect();
    Some(short(&media.join("; "), MAX_VALUE))
}

fn describe(sdp: &SessionDescription, media: &MediaDescription) -> String {
    let address = media.connection.or(sdp.connection);
    let address = address.map_or_else(
        || format!("port {}", media.port),
        |address| std::net::SocketAddr::new(address, media.port).to_string(),
    );
    let mut codecs: Vec<String> = Vec::new();
    for format in &media.formats {
        let named = format
            .parse()
            .ok()
            .and_then(|payload_type| Some(media.rtpmap(payload_type)?.0.to_owned()));
        let name = named.unwrap_or_else(|| match format.as_str() {
            "0" => "PCMU".to_owned(),
            "8" => "PCMA".to_owned(),
            "9" => "G722".to_owned(),
            "18" => "G729".to_owned(),
            other => other.to_owned(),
        });
        // telephone-event comes once for each clock rate.
        if !codecs.contains(&name) {
            codecs.push(name);
        }
    }
    let secured = if media.protocol.contains("SAVP") {
        " SRTP"
    } else {
        ""
    };
    format!(
        "{} {address}{secured} {} {}",
        media.kind,
        codecs.join(" "),
        media.direction
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_people_look_for_in_a_request() {
        let body = "v=0\r\no=- 1 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 101 102\r\n\
                    a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\na=sendonly\r\n";
        let text = format!(
            "INVITE sip:1@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nf: <sip:2@h>;tag=1\r\nTo: <sip:1@h>\r\n\
             i: abc\r\nCSeq: 7 INVITE\r\nSession-Expires: 1800\r\nX-Other: y\r\nc: application/sdp\r\nl: {}\r\n\r\n{body}",
            body.len()
        );
        let summary = Summary::of(text.as_bytes());
        assert_eq!(
            (summary.method.as_str(), summary.cseq, summary.status),
            ("INVITE", Some(7), None)
        );
        assert_eq!(summary.uri.as_deref(), Some("sip:1@192.0.2.1"));
        assert_eq!(
            summary.headers.keys().collect::<Vec<_>>(),
            ["From", "Session-Expires", "To"]
        );
        assert_eq!(
            summary.media.as_deref(),
            Some("audio 203.0.113.5:4000 PCMA telephone-event sendonly")
        );
    }

    #[test]
    fn a_response_has_the_method_of_its_request() {
        let text = "SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:2@h>;tag=1\r\nTo: <sip:1@h>;tag=2\r\n\
                    Call-ID: abc\r\nCSeq: 7 INVITE\r\n\r\n";
        let summary = Summary::of(text.as_bytes());
        assert_eq!(
            (
                summary.method.as_str(),
                summary.status,
                summary.reason.as_str()
            ),
            ("INVITE", Some(486), "Busy Here")
        );
    }

    #[test]
    fn what_cannot_be_read_is_shown_by_its_beginning() {
        let summary = Summary::of(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(summary.reason.contains("GET / HTTP/1.1"), "{summary:?}");
        assert_eq!(summary.method, "");
        assert!(Summary::of(&[0xff; 100]).reason.starts_with("unreadable"));
    }

    #[test]
    fn long_messages_and_values_are_cut() {
        assert!(whole(&vec![b'a'; MAX_WHOLE + 7]).ends_with("… (7 more bytes)\r\n"));
        assert_eq!(short(&"é".repeat(500), 400).chars().count(), 401);
    }
}
