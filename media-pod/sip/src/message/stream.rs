//! Framing of TCP and TLS streams by `Content-Length` (RFC 3261 section 18.3) and keep-alives (RFC 5626).

use super::Message;
use super::error::{ParseError, ParseFailure};
use super::limits::{HeaderLimits, MAX_BODY, MAX_STREAM_BUFFER};
use super::parse::{Head, find_head_end};

/// What a stream gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "almost every item is a message; it moves once and is not stored"
)]
pub enum StreamItem {
    /// A whole message.
    Message(Message),
    /// CRLF CRLF between messages: to be answered with one CRLF (RFC 5626 section 3.5.1). Both have to arrive in one
    /// piece; otherwise they are two [`StreamItem::Pong`]s.
    Ping,
    /// One CRLF between messages: the answer to our ping.
    Pong,
}

/// Cuts a stream into messages. Holds back one message at most; a peer that never ends its headers, or says that its body
/// is too large, gets an error after which the stream is to be closed.
#[derive(Debug, Default)]
pub struct StreamParser {
    limits: HeaderLimits,
    buffer: Vec<u8>,
    /// Bytes at the beginning of the buffer that are done with.
    consumed: usize,
    /// How far behind `consumed` no end of the headers was found.
    scanned: usize,
    /// A head that waits for this many bytes of body.
    pending: Option<(Head, usize)>,
    failed: Option<ParseFailure>,
}

impl StreamParser {
    /// A parser at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser that takes header sections as large as that.
    pub fn with_limits(limits: HeaderLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Adds what was read. Call [`Self::next`] until it gives `None` before reading more: beyond
    /// [`MAX_STREAM_BUFFER`] unread bytes the stream has failed.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.buffer.len() + bytes.len() > MAX_STREAM_BUFFER {
            self.fail(ParseError::HeadersTooLarge.into());
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message or keep-alive; `None` when more bytes are needed. After an error with
    /// [`ParseFailure::framing_lost`] every further call gives the same error.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's end would be final, here more may come"
    )]
    pub fn next(&mut self) -> Result<Option<StreamItem>, ParseFailure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        if self.pending.is_none() {
            if let Some(item) = self.keep_alive() {
                return Ok(Some(item));
            }
            let rest = &self.buffer[self.consumed..];
            let Some((head_len, body_start)) = find_head_end(rest, self.scanned) else {
                if rest.len() > self.limits.bytes {
                    let failure = Head::parse(rest, self.limits).fail(ParseError::HeadersTooLarge);
                    return Err(self.fail(failure));
                }
                // The empty line may be cut anywhere: LF, CR, LF.
                self.scanned = rest.len().saturating_sub(3);
                return Ok(None);
            };
            let head = Head::parse(&rest[..head_len], self.limits);
            self.consumed += body_start;
            self.scanned = 0;
            let length = if head.is_not_sip() {
                Err(ParseError::NotSip)
            } else {
                match head.content_length() {
                    Ok(Some(length)) if length > MAX_BODY => Err(ParseError::BodyTooLarge),
                    Ok(Some(length)) => Ok(length),
                    // Many leave it out where there is no body; with one the next message can't be found.
                    Ok(None) if head.has_content_type() => {
                        Err(ParseError::Missing("Content-Length"))
                    }
                    Ok(None) => Ok(0),
                    Err(error) => Err(error),
                }
            };
            match length {
                Ok(length) => self.pending = Some((head, length)),
                Err(error) => return Err(self.fail(head.fail(error))),
            }
        }
        let available = self.buffer.len() - self.consumed;
        match self.pending.take() {
            Some((head, length)) if length <= available => {
                let body = &self.buffer[self.consumed..self.consumed + length];
                self.consumed += length;
                head.into_message(Ok(body))
                    .map(|message| Some(StreamItem::Message(message)))
            }
            waiting => {
                self.pending = waiting;
                Ok(None)
            }
        }
    }

    /// Whether a message has begun and is not complete: a stream that ends here was cut.
    pub fn is_inside_message(&self) -> bool {
        self.pending.is_some() || self.consumed < self.buffer.len()
    }

    /// Takes off line ends between messages.
    fn keep_alive(&mut self) -> Option<StreamItem> {
        loop {
            let (taken, item) = match &self.buffer[self.consumed..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => (4, Some(StreamItem::Ping)),
                // The third byte may be the first of a second line end that is still under way.
                [b'\r', b'\n', b'\r'] => return None,
                [b'\r', b'\n', ..] => (2, Some(StreamItem::Pong)),
                [b'\n' | 0, ..] => (1, None),
                [b'\r', next, ..] if *next != b'\n' => (1, None),
                _ => return None,
            };
            self.consumed += taken;
            self.scanned = 0;
            if item.is_some() {
                return item;
            }
        }
    }

    fn fail(&mut self, failure: ParseFailure) -> ParseFailure {
        let failure = ParseFailure {
            framing_lost: true,
            ..failure
        };
        self.buffer = Vec::new();
        self.consumed = 0;
        self.pending = None;
        // The answer is given once; later calls only repeat what was wrong.
        self.failed = Some(ParseFailure {
            reply: None,
            ..failure.clone()
        });
        failure
    }
}
