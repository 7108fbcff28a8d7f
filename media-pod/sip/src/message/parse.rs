//! From bytes to messages.
//!
//! Two steps, shared by datagrams and streams: the head (start line and headers) is read as far as it goes, with
//! the first fault noted; then the message is judged as a whole, so that a faulty request still gets its 400.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::{ParseError, ParseFailure};
use super::header_name::HeaderName;
use super::headers::Headers;
use super::lex;
use super::limits::{HeaderLimits, MAX_BODY};
use super::method::Method;
use super::name_addr;
use super::text::Text;
use super::uri::Uri;
use super::{Message, Request, Response};

/// Reads one UDP datagram.
///
/// Without `Content-Length` the body is the rest; what stands behind a shorter one is discarded; a longer one is an
/// error (RFC 3261 section 18.3). The empty line may be missing where there is no body.
pub fn parse_datagram(bytes: &[u8]) -> Result<Message, ParseFailure> {
    let start = bytes
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n' | 0))
        .ok_or(ParseError::KeepAlive)?;
    let bytes = &bytes[start..];
    let (head_len, body_start) = find_head_end(bytes, 0).unwrap_or((bytes.len(), bytes.len()));
    let head = Head::parse(&bytes[..head_len], HeaderLimits::STRANGERS);
    let rest = &bytes[body_start..];
    let body = head.content_length().and_then(|length| match length {
        Some(length) if length > rest.len() => Err(ParseError::BodyTruncated),
        Some(length) => Ok(&rest[..length]),
        None => Ok(rest),
    });
    head.into_message(body)
}

/// Where the header section ends (without its last line end) and where the body begins. The search starts at `from`,
/// which may be any earlier position.
pub(super) fn find_head_end(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        let line_end = at + found;
        match &bytes[line_end + 1..] {
            [b'\n', ..] => return Some((line_end, line_end + 2)),
            [b'\r', b'\n', ..] => return Some((line_end, line_end + 3)),
            _ => at = line_end + 1,
        }
    }
    None
}

/// Room for the headers of most messages, and for one or two that are added on the way.
const USUAL_HEADERS: usize = 24;

#[derive(Clone, Debug)]
enum Start {
    Request(Method, Uri),
    Response(u16, String),
}

/// The head of a message, read as far as it goes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    start: Result<Start, ParseError>,
    /// The method of what looks like a request, even if its start line is faulty.
    method: Option<Method>,
    headers: Headers,
    too_large: bool,
}

impl Head {
    pub(super) fn parse(bytes: &[u8], limits: HeaderLimits) -> Self {
        let mut too_large = bytes.len() > limits.bytes;
        let head = decode(&bytes[..bytes.len().min(limits.bytes)]);
        let mut lines = head
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        let (method, start) = parse_start(lines.next().unwrap_or(""));
        let mut headers = Headers::with_capacity(USUAL_HEADERS);
        let mut current: Option<(HeaderName, Cow<'_, str>)> = None;
        if !matches!(start, Err(ParseError::NotSip)) {
            for line in lines {
                if line.starts_with([' ', '\t']) {
                    if let Some((_, value)) = &mut current {
                        let value = value.to_mut();
                        value.push(' ');
                        value.push_str(lex::trim(line));
                    }
                    continue;
                }
                if !store(&mut headers, &head, current.take(), limits.fields) {
                    too_large = true;
                    break;
                }
                current = split_field(line);
            }
            too_large |= !store(&mut headers, &head, current, limits.fields);
        }
        Self {
            start,
            method,
            headers,
            too_large,
        }
    }

    /// Whether this can't be SIP, so that nothing behind it can be trusted either.
    pub(super) fn is_not_sip(&self) -> bool {
        matches!(self.start, Err(ParseError::NotSip))
    }

    /// Whether there is a body that says what it is.
    pub(super) fn has_content_type(&self) -> bool {
        self.headers.has(&HeaderName::ContentType)
    }

    /// `Content-Length`, `None` when it is missing. Instances that differ are an error.
    pub(super) fn content_length(&self) -> Result<Option<usize>, ParseError> {
        let mut length = None;
        for text in self.headers.get_all(&HeaderName::ContentLength) {
            let bad = ParseError::Header {
                header: "Content-Length".to_owned(),
                problem: "not a number",
            };
            let own = lex::saturating_number(text).ok_or(bad)? as usize;
            if length.is_some_and(|length| length != own) {
                return Err(ParseError::Repeated("Content-Length"));
            }
            length = Some(own);
        }
        Ok(length)
    }

    /// The message, or what is wrong with it and the answer to that.
    pub(super) fn into_message(
        self,
        body: Result<&[u8], ParseError>,
    ) -> Result<Message, ParseFailure> {
        match self.check().and(body) {
            Ok(body) if body.len() > MAX_BODY => Err(self.fail(ParseError::BodyTooLarge)),
            Err(error) => Err(self.fail(error)),
            Ok(body) => {
                let Self {
                    start,
                    method: _,
                    mut headers,
                    too_large: _,
                } = self;
                // What is written gets its own; one that is kept could only be wrong later.
                headers.remove(&HeaderName::ContentLength);
                let body = body.to_vec();
                match start? {
                    Start::Request(method, uri) => Ok(Message::Request(Request {
                        method,
                        uri,
                        headers,
                        body,
                    })),
                    Start::Response(status, reason) => Ok(Message::Response(Response {
                        status,
                        reason,
                        headers,
                        body,
                    })),
                }
            }
        }
    }

    fn check(&self) -> Result<(), ParseError> {
        let start = self.start.as_ref().map_err(Clone::clone)?;
        if self.too_large {
            return Err(ParseError::HeadersTooLarge);
        }
        let headers = &self.headers;
        for (name, label) in [
            (HeaderName::CallId, "Call-ID"),
            (HeaderName::CSeq, "CSeq"),
            (HeaderName::From, "From"),
            (HeaderName::To, "To"),
            (HeaderName::MaxForwards, "Max-Forwards"),
        ] {
            if headers.get_all(&name).nth(1).is_some() {
                return Err(ParseError::Repeated(label));
            }
        }
        headers.via_parts()?;
        for (name, label) in [(HeaderName::From, "From"), (HeaderName::To, "To")] {
            let value = headers.get(&name).ok_or(ParseError::Missing(label))?;
            name_addr::check(label, value)?;
        }
        headers.call_id()?;
        let (_, cseq_method) = headers.cseq()?;
        if let Start::Request(method, _) = start {
            headers.check_vias()?;
            if cseq_method != *method {
                return Err(ParseError::header(
                    "CSeq",
                    "method differs from the request's",
                ));
            }
        }
        Ok(())
    }

    /// The failure with its answer, if the sender can be answered.
    pub(super) fn fail(&self, error: ParseError) -> ParseFailure {
        let answerable = self
            .method
            .as_ref()
            .is_some_and(|method| *method != Method::ACK);
        let reply = (answerable && self.headers.via_parts().is_ok()).then(|| {
            let status = error.status();
            let phrase = (status == 400).then(|| sentence(&error.to_string()));
            let mut reply = Response::to_headers(&self.headers, status, phrase.as_deref());
            reply.set_to_tag(&stateless_tag(&self.headers));
            Box::new(reply)
        });
        ParseFailure {
            error,
            reply,
            framing_lost: false,
        }
    }
}

/// The head as text, line by line: UTF-8, or Latin-1 where it is not valid UTF-8.
fn decode(bytes: &[u8]) -> Arc<str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        text.push_str(&lex::decode(line));
    }
    text.into()
}

/// Name and value of a header line. `None` for a line that is no header: it is left out, like any header that one
/// doesn't understand.
fn split_field(line: &str) -> Option<(HeaderName, Cow<'_, str>)> {
    let (name, value) = line.split_once(':')?;
    let name = lex::trim(name);
    lex::is_token(name).then(|| (HeaderName::from(name), lex::trim(value).into()))
}

/// Adds a field; false when there are too many.
fn store(
    headers: &mut Headers,
    head: &Arc<str>,
    field: Option<(HeaderName, Cow<'_, str>)>,
    most: usize,
) -> bool {
    let Some((name, value)) = field else {
        return true;
    };
    if name.is_split_when_read() && lex::find_outside(&value, |byte| byte == b',').is_some() {
        for part in lex::split_list(&value) {
            if headers.len() >= most {
                return false;
            }
            headers.push_read(name.clone(), text(head, part));
        }
        return true;
    }
    if headers.len() >= most {
        return false;
    }
    headers.push_read(name, text(head, &value));
    true
}

/// A carriage return may still stand inside; it would end the line when it is written.
fn text(head: &Arc<str>, value: &str) -> Text {
    if value.contains('\r') {
        Text::Own(lex::trim(&value.replace('\r', " ")).to_owned())
    } else {
        Text::part_of(head, lex::trim(value))
    }
}

/// The start line, and the method if it is that of a request.
fn parse_start(line: &str) -> (Option<Method>, Result<Start, ParseError>) {
    let line = lex::trim(line);
    if line
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("SIP/"))
    {
        return (None, parse_status_line(line));
    }
    let not_sip = (None, Err(ParseError::NotSip));
    let (Some((method, rest)), Some((_, version))) = (line.split_once(' '), line.rsplit_once(' '))
    else {
        return not_sip;
    };
    if !lex::is_token(method)
        || !version
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("SIP/"))
    {
        return not_sip;
    }
    let method = Method::parse(method);
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return (Some(method), Err(ParseError::Version));
    }
    let uri = lex::trim(rest.strip_suffix(version).unwrap_or(rest));
    match Uri::parse(uri) {
        Ok(uri) => (Some(method.clone()), Ok(Start::Request(method, uri))),
        Err(ParseError::Uri(_)) if uri.is_empty() => {
            (Some(method), Err(ParseError::StartLine("no Request-URI")))
        }
        Err(error) => (Some(method), Err(error)),
    }
}

fn parse_status_line(line: &str) -> Result<Start, ParseError> {
    let (version, rest) = line
        .split_once(' ')
        .ok_or(ParseError::StartLine("no status"))?;
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return Err(ParseError::Version);
    }
    let rest = lex::trim(rest);
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = if status.len() == 3 {
        lex::saturating_number(status)
    } else {
        None
    };
    match number {
        Some(status @ 100..=699) => Ok(Start::Response(
            status as u16,
            lex::trim(reason).replace(['\r', '\n'], " "),
        )),
        _ => Err(ParseError::StartLine("bad status")),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// A `To` tag that is the same for each retransmission (RFC 3261 section 8.2.7), by FNV-1a.
fn stateless_tag(headers: &Headers) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for name in [HeaderName::Via, HeaderName::CallId, HeaderName::From] {
        for byte in headers.get(&name).unwrap_or("").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
