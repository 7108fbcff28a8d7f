//! What can be seen of a message without parsing it.

use std::borrow::Cow;

use ringwire_sip::message::{HeaderName, Message};

/// Programs that look for gateways to break into, as they call themselves in `User-Agent`; lower case.
const SCANNERS: &[&str] = &[
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sip-scan",
    "sipscan",
    "sipcli",
    "sipptk",
    "siparmyknife",
    "sundayddr",
    "vaxsipuseragent",
    "vaxipuseragent",
    "pplsip",
    "svmap",
    "svwar",
    "svcrack",
    "nmap",
];

/// A message before it is parsed, or after.
pub trait Sight {
    /// The user part of the Request-URI; `None` for responses and what is no message.
    fn user(&self) -> Option<Cow<'_, str>>;

    /// What the sender calls itself.
    fn user_agent(&self) -> Option<Cow<'_, str>>;

    /// Whether it calls itself a scanner.
    fn is_scanners(&self) -> bool {
        self.user_agent().is_some_and(|agent| {
            let agent = agent.to_ascii_lowercase();
            SCANNERS.iter().any(|scanner| agent.contains(scanner))
        })
    }
}

const NAME: &[u8] = b"user-agent";

/// A datagram as it came.
pub struct Datagram<'a>(pub &'a [u8]);

/// The user part of a URI stands within so many bytes, or it is none of ours.
const FIRST_LINE: usize = 256;

impl Sight for Datagram<'_> {
    fn user(&self) -> Option<Cow<'_, str>> {
        let line = &self.0[..self.0.len().min(FIRST_LINE)];
        let end = line
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'))
            .unwrap_or(line.len());
        let text = std::str::from_utf8(&line[..end]).ok()?;
        let (_, rest) = text.split_once(' ')?;
        let (uri, _) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
        let (_, after_scheme) = uri.split_once(':')?;
        let (user, _) = after_scheme.split_once('@')?;
        // Without password and parameters.
        let bare = user.split([':', ';']).next().unwrap_or(user);
        Some(Cow::Borrowed(bare))
    }

    fn user_agent(&self) -> Option<Cow<'_, str>> {
        for line in self.0.split(|byte| *byte == b'\n') {
            if line.is_empty() || line == b"\r" {
                return None;
            }
            if let Some((name, rest)) = line.split_at_checked(NAME.len())
                && name.eq_ignore_ascii_case(NAME)
                && let Some(value) = rest.trim_ascii_start().strip_prefix(b":")
            {
                return Some(String::from_utf8_lossy(value));
            }
        }
        None
    }
}

impl Sight for Message {
    fn user(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Request(request) => request.uri.user.as_deref().map(Cow::Borrowed),
            Self::Response(_) => None,
        }
    }

    fn user_agent(&self) -> Option<Cow<'_, str>> {
        let headers = match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        };
        headers.get(&HeaderName::UserAgent).map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:tOKen;x=1@192.0.2.1:5060;transport=udp SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
        user-AGENT : Friendly-Scanner v1\r\nContent-Length: 0\r\n\r\nUser-Agent: in the body\r\n";

    #[test]
    fn sees_the_called_user_and_the_program() {
        let datagram = Datagram(INVITE.as_bytes());
        assert_eq!(datagram.user().as_deref(), Some("tOKen"));
        assert!(datagram.is_scanners());
        let decent = INVITE.replace("Friendly-Scanner", "Kamailio");
        assert!(!Datagram(decent.as_bytes()).is_scanners());
    }

    #[test]
    fn looks_for_the_program_in_the_headers_only() {
        let without = INVITE.replace("user-AGENT : Friendly-Scanner v1\r\n", "");
        let in_body = without.replace("in the body", "sipvicious");
        assert_eq!(Datagram(in_body.as_bytes()).user_agent(), None);
    }

    #[test]
    fn a_parsed_message_looks_like_its_datagram() {
        let text = INVITE.replace(
            "user-AGENT :",
            "From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nUser-Agent:",
        );
        let message = ringwire_sip::message::parse_datagram(text.as_bytes()).unwrap();
        assert!(message.is_scanners());
        assert!(message.user().unwrap().starts_with("tOKen"));
    }

    #[test]
    fn junk_has_neither() {
        for junk in [
            &b""[..],
            b"\r\n\r\n",
            b"SIP/2.0 200 OK\r\n\r\n",
            b"INVITE",
            b"INVITE sip:x",
            &[0xff; 700],
        ] {
            let datagram = Datagram(junk);
            assert_eq!(datagram.user(), None, "{junk:?}");
            assert!(!datagram.is_scanners());
        }
    }
}
