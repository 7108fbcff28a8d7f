//! What can be wrong with a message, and the answer that the sender gets for it.

use super::Response;

/// Why a message, or one value in it, could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but line ends or zeros: a keep-alive, to be ignored.
    #[error("keep-alive")]
    KeepAlive,
    /// Not SIP at all (STUN, a scanner, noise): to be dropped.
    #[error("not a SIP message")]
    NotSip,
    /// The start line is no request line and no status line.
    #[error("bad start line: {0}")]
    StartLine(&'static str),
    /// The version is not `SIP/2.0` (answered with 505).
    #[error("unsupported SIP version")]
    Version,
    /// A URI can't be read.
    #[error("bad URI: {0}")]
    Uri(&'static str),
    /// A header value can't be read.
    #[error("bad {header}: {problem}")]
    Header {
        /// The header's name.
        header: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A header that every message must have is missing.
    #[error("missing {0}")]
    Missing(&'static str),
    /// A header that may stand once stands several times.
    #[error("several {0} headers")]
    Repeated(&'static str),
    /// The body is shorter than `Content-Length` says.
    #[error("body shorter than Content-Length")]
    BodyTruncated,
    /// The header section is larger than [`MAX_HEADER_BYTES`](super::limits::MAX_HEADER_BYTES) or
    /// [`MAX_HEADERS`](super::limits::MAX_HEADERS) (answered with 513).
    #[error("header section too large")]
    HeadersTooLarge,
    /// The body is larger than [`MAX_BODY`](super::limits::MAX_BODY) (answered with 513).
    #[error("body too large")]
    BodyTooLarge,
}

impl ParseError {
    /// The status that a request with this fault is answered with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Version => 505,
            Self::HeadersTooLarge | Self::BodyTooLarge => 513,
            _ => 400,
        }
    }

    pub(crate) fn header(header: &str, problem: &'static str) -> Self {
        // Names of unknown headers come from the peer: what goes into a reason phrase stays short.
        Self::Header {
            header: header.chars().take(40).collect(),
            problem,
        }
    }
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ParseFailure {
    /// What is wrong.
    pub error: ParseError,
    /// The answer to send back: a request other than ACK whose top `Via` could be read. Call
    /// [`Headers::note_source`](super::Headers::note_source) on its headers before sending.
    pub reply: Option<Box<Response>>,
    /// On a stream: where the next message begins is not known any more, so the connection has to be closed.
    /// False: the message was skipped, the next one can be read.
    pub framing_lost: bool,
}

impl From<ParseError> for ParseFailure {
    fn from(error: ParseError) -> Self {
        Self {
            error,
            reply: None,
            framing_lost: false,
        }
    }
}
