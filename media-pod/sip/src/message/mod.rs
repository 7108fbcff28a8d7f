//! SIP messages: types, parser, printer and the framing of streams.
//!
//! Reads what is on the wire and not only what the grammar blesses; what it writes is strict. Header values stay text
//! until someone asks for them, so that what isn't understood passes unchanged. This is not a proxy or a dialog: nothing
//! here remembers a message.

mod error;
mod header_name;
mod headers;
mod identity;
mod lex;
pub mod limits;
mod method;
mod name_addr;
mod params;
mod parse;
mod print;
mod status;
mod stream;
mod text;
mod uri;
mod via;

pub use error::{ParseError, ParseFailure};
pub use header_name::HeaderName;
pub use headers::Headers;
pub use identity::{CallerIdentity, Diversion, HistoryEntry, Privacy};
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::Params;
pub use parse::parse_datagram;
pub use status::default_reason;
pub use stream::{StreamItem, StreamParser};
pub use uri::{Host, Scheme, Uri};
pub use via::{BRANCH_MAGIC, Via};

pub(crate) use lex::{quoted, saturating_number, split_list, unescape, write_quoted};
pub(crate) use via::is_magic;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The Request-URI.
    pub uri: Uri,
    /// Header fields.
    pub headers: Headers,
    /// The body; `Content-Length` is written from it.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            headers: Headers::new(),
            body: Vec::new(),
        }
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        print::request(self)
    }

    /// Sets the body and its `Content-Type`.
    pub fn set_body(&mut self, content_type: &str, body: Vec<u8>) {
        self.headers.set(HeaderName::ContentType, content_type);
        self.body = body;
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 699.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: String,
    /// Header fields.
    pub headers: Headers,
    /// The body; `Content-Length` is written from it.
    pub body: Vec<u8>,
}

impl Response {
    /// A response to this request (RFC 3261 section 8.2.6): its `Via`s, `From`, `To`, `Call-ID` and `CSeq`, and
    /// `Timestamp` for 100. Without a reason the usual phrase is taken.
    pub fn to_request(request: &Request, status: u16, reason: Option<&str>) -> Self {
        Self::to_headers(&request.headers, status, reason)
    }

    pub(crate) fn to_headers(request: &Headers, status: u16, reason: Option<&str>) -> Self {
        let headers = request.copy(|name| match name {
            HeaderName::Via
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq => true,
            HeaderName::Timestamp => status == 100,
            _ => false,
        });
        let reason = reason.unwrap_or_else(|| default_reason(status)).to_owned();
        Self {
            status,
            reason,
            headers,
            body: Vec::new(),
        }
    }

    /// Adds the tag to `To`, unless it has one.
    pub fn set_to_tag(&mut self, tag: &str) {
        let untagged = self.headers.callee_tag().is_ok_and(|tag| tag.is_none());
        if let Some(to) = self.headers.get(&HeaderName::To).filter(|_| untagged) {
            // The rest stays as it was written: some compare it as text.
            let to = format!("{to};tag={tag}");
            self.headers.set(HeaderName::To, to);
        }
    }

    /// Whether the status is below 200.
    pub fn is_provisional(&self) -> bool {
        self.status < 200
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        print::response(self)
    }

    /// Sets the body and its `Content-Type`.
    pub fn set_body(&mut self, content_type: &str, body: Vec<u8>) {
        self.headers.set(HeaderName::ContentType, content_type);
        self.body = body;
    }
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// Header fields.
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// Header fields, to change them.
    pub fn headers_mut(&mut self) -> &mut Headers {
        match self {
            Self::Request(request) => &mut request.headers,
            Self::Response(response) => &mut response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}
