//! The agent's WebSocket once it is connected: text and binary messages, bounded, pings answered, nothing waited for.
//!
//! Making the connection is `connect`'s; what the messages mean is the protocol's.

use mio::event::Source;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use thiserror::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::stream::{AgentStream, READS, StreamError};
use crate::websocket::{FrameError, MAX_CONTROL_BYTES, Reader, Writer, close_answer};

pub use crate::websocket::{MAX_MESSAGE_BYTES, Received};

/// What may wait for an agent that does not read: answers to its pings, which must not take the place of anything else, and behind all
/// the close frame.
const PONG_BACKLOG: usize = 16 << 10;
const CLOSE_BACKLOG: usize = 256 << 10;

/// Why a connected socket failed.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The connection ended without a close frame, or does not move.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What came cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A connected agent.
#[derive(Debug)]
pub struct AgentSocket {
    stream: AgentStream,
    reader: Reader,
    writer: Writer,
    pong: Writer,
    /// For masks, which nobody may foresee (RFC 6455 section 5.3).
    rng: StdRng,
    /// Bytes that came with the answer to the handshake.
    first: Vec<u8>,
    /// A close frame has been sent or received.
    closing: bool,
}

impl AgentSocket {
    pub(crate) fn new(stream: AgentStream, first: Vec<u8>) -> Self {
        Self {
            stream,
            reader: Reader::default(),
            writer: Writer::default(),
            pong: Writer::default(),
            rng: StdRng::from_os_rng(),
            first,
            closing: false,
        }
    }

    /// What to watch.
    pub fn source(&mut self) -> &mut dyn Source {
        self.stream.source()
    }

    /// See [`AgentStream::wake`].
    pub fn wake(&mut self, hung_up: bool) {
        self.stream.wake(hung_up);
    }

    /// See [`AgentStream::is_stuck`].
    pub fn is_stuck(&self, now: std::time::Instant) -> bool {
        self.stream.is_stuck(now)
    }

    /// Sends a text message that `write` appends. False if more than `most` bytes would wait then: the message is dropped.
    pub fn send_text(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.closing {
            return true;
        }
        let mask = self.rng.random();
        let frame = self.writer.frame(OpCode::Data(Data::Text), mask, write);
        self.stream.send(frame, most)
    }

    /// Reads what has come and tells `on` of it; pings are answered here. True if more may be there: others get their turn first.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        on: &mut dyn FnMut(Received<'_>),
    ) -> Result<bool, SocketError> {
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            self.take(&first, on)?;
        }
        for _ in 0..READS {
            let Some(length) = self.stream.read(scratch)? else {
                return Ok(false);
            };
            self.take(&scratch[..length], on)?;
        }
        Ok(true)
    }

    fn take(&mut self, input: &[u8], on: &mut dyn FnMut(Received<'_>)) -> Result<(), SocketError> {
        let Self {
            stream,
            reader,
            pong,
            rng,
            closing,
            ..
        } = self;
        let mut answer = |opcode, payload: &[u8]| {
            let most = if opcode == Control::Pong {
                PONG_BACKLOG
            } else {
                CLOSE_BACKLOG
            };
            let frame = pong.frame(OpCode::Control(opcode), rng.random(), |out| {
                out.extend_from_slice(payload);
            });
            stream.send(frame, most);
        };
        let read = reader.read(input, &mut |received| match received {
            Received::Ping(payload) => answer(Control::Pong, payload),
            Received::Closed { code, .. } => {
                if !std::mem::replace(closing, true) {
                    let code = close_answer(code).map(u16::to_be_bytes);
                    answer(Control::Close, code.as_ref().map_or(&[], |code| &code[..]));
                }
                on(received);
            }
            other => on(other),
        });
        if let Err(error) = &read
            && !std::mem::replace(closing, true)
        {
            answer(Control::Close, &error.close_code().to_be_bytes());
        }
        Ok(read?)
    }

    /// Sends a close frame (1000 is a normal end, section 7.4) behind what waits, and nothing after it. It is the agent's to close the
    /// connection then (section 7.1.1), and what it still says is to be read and dropped ([`Self::read_on`]).
    pub fn close(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.closing, true) {
            let fits = |end: &usize| reason.is_char_boundary(*end);
            let most = MAX_CONTROL_BYTES - 2;
            let end = (0..=reason.len().min(most)).rfind(fits).unwrap_or(0);
            let mask = self.rng.random();
            let close = OpCode::Control(Control::Close);
            let frame = self.writer.frame(close, mask, |out| {
                out.extend_from_slice(&code.to_be_bytes());
                out.extend_from_slice(&reason.as_bytes()[..end]);
            });
            self.stream.send(frame, CLOSE_BACKLOG);
        }
    }

    /// See [`AgentStream::is_drained`].
    pub fn is_drained(&self) -> bool {
        self.stream.is_drained()
    }

    /// See [`AgentStream::read_on`].
    pub fn read_on(&mut self, scratch: &mut [u8]) -> bool {
        self.stream.read_on(scratch)
    }
}
