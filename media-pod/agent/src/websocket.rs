//! WebSocket frames (RFC 6455) as a client reads and writes them, without I/O and without an allocation for each message.

use std::io::Cursor;

use thiserror::Error;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Largest message accepted from an agent.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Longest payload of a control frame (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;
/// Longest header of ours: two bytes, the length, the mask.
const MAX_HEADER_BYTES: usize = 14;
/// Capacity that empty buffers keep: a 20 ms message has 400 bytes.
const KEPT_CAPACITY: usize = 4096;
/// What a close frame without a code says (section 7.4.1).
pub const NO_CODE: u16 = 1005;

/// What makes a stream unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A message above [`MAX_MESSAGE_BYTES`].
    #[error("the agent sent a message larger than 1 MiB")]
    TooLarge,
    /// Not RFC 6455.
    #[error("the agent broke the WebSocket protocol: {0}")]
    Protocol(&'static str),
    /// A text message, or the reason of a close frame.
    #[error("the agent sent text that is not UTF-8")]
    NotUtf8,
}

impl FrameError {
    /// Its code in a close frame (section 7.4.1).
    pub fn close_code(&self) -> u16 {
        match self {
            Self::TooLarge => 1009,
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
        }
    }
}

/// What the agent sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// The agent closes; nothing follows.
    Closed {
        /// The close code; 1005 if it gave none.
        code: u16,
        /// Its reason, may be empty.
        reason: &'a str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// Reads the agent's frames, whatever pieces they come in, and puts fragmented messages together.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame whose rest is still to come.
    unread: Vec<u8>,
    /// The beginning of a message whose last frame is still to come.
    message: Vec<u8>,
    kind: Option<Kind>,
    closed: bool,
}

impl Reader {
    /// Takes what came in and tells `on` of each message in it. After an error or [`Received::Closed`] nothing is read any more.
    pub fn read(
        &mut self,
        input: &[u8],
        on: &mut dyn FnMut(Received<'_>),
    ) -> Result<(), FrameError> {
        let read = if self.unread.is_empty() {
            let read = self.take_frames(input, on);
            if let Ok(used) = read {
                self.unread.extend_from_slice(&input[used..]);
            }
            read
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(input);
            let read = self.take_frames(&unread, on);
            unread.drain(..read.as_ref().map_or(unread.len(), |used| *used));
            give_back(&mut unread);
            self.unread = unread;
            read
        };
        if read.is_err() {
            self.closed = true;
        }
        read.map(|_| ())
    }

    /// Reads whole frames; how many bytes they had.
    fn take_frames(
        &mut self,
        input: &[u8],
        on: &mut dyn FnMut(Received<'_>),
    ) -> Result<usize, FrameError> {
        let mut used = 0;
        while !self.closed {
            let mut rest = Cursor::new(&input[used..]);
            let header = FrameHeader::parse(&mut rest);
            let header = header.map_err(|_| FrameError::Protocol("an unknown opcode"))?;
            let Some((header, length)) = header else {
                return Ok(used);
            };
            let length = self.check(&header, length)?;
            let begin = used + rest.position() as usize;
            let Some(payload) = input.get(begin..begin + length) else {
                return Ok(used);
            };
            used = begin + length;
            self.take_frame(&header, payload, on)?;
        }
        Ok(input.len())
    }

    /// Refuses a frame by its header, before its payload is waited for.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<usize, FrameError> {
        if header.mask.is_some() {
            return Err(FrameError::Protocol("a masked frame"));
        }
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::Protocol("a reserved bit is set"));
        }
        let length = usize::try_from(length).map_err(|_| FrameError::TooLarge)?;
        match header.opcode {
            OpCode::Control(_) if length > MAX_CONTROL_BYTES || !header.is_final => Err(
                FrameError::Protocol("a control frame is too long or in fragments"),
            ),
            OpCode::Control(_) => Ok(length),
            OpCode::Data(data) => {
                if (data == Data::Continue) != self.kind.is_some() {
                    return Err(FrameError::Protocol("a fragment without its message"));
                }
                if self.message.len().saturating_add(length) > MAX_MESSAGE_BYTES {
                    return Err(FrameError::TooLarge);
                }
                Ok(length)
            }
        }
    }

    fn take_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        on: &mut dyn FnMut(Received<'_>),
    ) -> Result<(), FrameError> {
        let kind = match header.opcode {
            OpCode::Control(Control::Ping) => {
                on(Received::Ping(payload));
                return Ok(());
            }
            OpCode::Control(Control::Close) => {
                self.closed = true;
                let (code, reason) = match payload {
                    [] => (NO_CODE, &[][..]),
                    [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
                    [_] => return Err(FrameError::Protocol("half a close code")),
                };
                let reason = text(reason)?;
                on(Received::Closed { code, reason });
                return Ok(());
            }
            OpCode::Control(_) => return Ok(()),
            OpCode::Data(Data::Text) => Kind::Text,
            OpCode::Data(Data::Binary) => Kind::Binary,
            // `check` has seen that there is one.
            OpCode::Data(_) => self.kind.unwrap_or(Kind::Binary),
        };
        if header.is_final && self.kind.is_none() {
            return tell(kind, payload, on);
        }
        self.kind = Some(kind);
        self.message.extend_from_slice(payload);
        if header.is_final {
            self.kind = None;
            let mut message = std::mem::take(&mut self.message);
            tell(kind, &message, on)?;
            message.clear();
            give_back(&mut message);
            self.message = message;
        }
        Ok(())
    }
}

/// What answers a close frame of the agent: its code (section 5.5.1), none if it gave none.
pub fn close_answer(code: u16) -> Option<u16> {
    match code {
        NO_CODE => None,
        code if CloseCode::from(code).is_allowed() => Some(code),
        // Not to be sent, not even back.
        _ => Some(1002),
    }
}

fn tell(kind: Kind, payload: &[u8], on: &mut dyn FnMut(Received<'_>)) -> Result<(), FrameError> {
    on(match kind {
        Kind::Text => Received::Text(text(payload)?),
        Kind::Binary => Received::Binary(payload),
    });
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::NotUtf8)
}

/// A buffer that is still in use is left alone: a long message in many pieces would be moved for each of them.
fn give_back(buffer: &mut Vec<u8>) {
    if buffer.len() <= KEPT_CAPACITY && buffer.capacity() > KEPT_CAPACITY {
        buffer.shrink_to(KEPT_CAPACITY);
    }
}

/// One frame of ours in the making: the payload is written behind room for the header, so that it is not moved.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A frame whose payload `write` appends; `mask` has to be drawn anew for each (section 5.3).
    pub fn frame(
        &mut self,
        opcode: OpCode,
        mask: [u8; 4],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> &[u8] {
        let Self(buffer) = self;
        buffer.clear();
        give_back(buffer);
        buffer.resize(MAX_HEADER_BYTES, 0);
        write(buffer);
        let header = FrameHeader {
            is_final: true,
            opcode,
            mask: Some(mask),
            ..FrameHeader::default()
        };
        self.finish(&header, mask)
    }

    fn finish(&mut self, header: &FrameHeader, mask: [u8; 4]) -> &[u8] {
        let (room, payload) = self.0.split_at_mut(MAX_HEADER_BYTES);
        let length = payload.len() as u64;
        let [a, b, c, d] = mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        // Up to seven are left: the mask repeats after four.
        for (byte, mask) in rest.iter_mut().skip(4).zip(mask) {
            *byte ^= mask;
        }
        let begin = MAX_HEADER_BYTES - header.len(length);
        let mut place = &mut room[begin..];
        // There is room for the longest header.
        let _ = header.format(length, &mut place);
        &self.0[begin..]
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
