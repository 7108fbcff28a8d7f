//! The agent's WebSocket once it is connected: text and binary messages, bounded, pings answered.
//!
//! Making the connection is `connect`'s; what the messages mean is the protocol's.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        error::CapacityError,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Largest message accepted from an agent.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Longest reason of a close frame (RFC 6455 §5.5: 125 bytes with the code).
const MAX_CLOSE_REASON_BYTES: usize = 123;

/// A call holds one socket for its whole life, so the buffers are small: a 20 ms message has 400 bytes.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(4 << 10)
        .max_write_buffer_size(256 << 10)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Why a connected socket failed.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The connection ended without a close frame.
    #[error("the agent's connection was lost: {0}")]
    Lost(String),
    /// A message above [`MAX_MESSAGE_BYTES`].
    #[error("the agent sent a message larger than 1 MiB")]
    TooLarge,
    /// The agent does not keep to RFC 6455.
    #[error("the agent broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// The socket is closed already.
    #[error("the agent's connection is closed")]
    Closed,
}

impl From<tungstenite::Error> for SocketError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed
            }
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            tungstenite::Error::Io(error) => Self::Lost(error.to_string()),
            tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Lost("reset without closing handshake".to_owned()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// What the agent sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// The agent closed; nothing follows.
    Closed {
        /// The close code; 1005 if it gave none.
        code: u16,
        /// Its reason, may be empty.
        reason: String,
    },
}

/// A connected agent.
#[derive(Debug)]
pub struct AgentSocket(WebSocketStream<Transport>);

impl AgentSocket {
    pub(crate) fn new(stream: WebSocketStream<Transport>) -> Self {
        Self(stream)
    }

    /// The address that is connected to, for logs.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        match self.0.get_ref() {
            Transport::Plain(stream) => stream.peer_addr().ok(),
            Transport::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    /// Two halves, one for each task. Keep receiving even if nothing is expected: pings are answered there.
    pub fn split(self) -> (AgentSender, AgentReceiver) {
        let (sink, stream) = self.0.split();
        (
            AgentSender(sink),
            AgentReceiver {
                stream,
                closed: false,
            },
        )
    }
}

/// The sending half.
#[derive(Debug)]
pub struct AgentSender(SplitSink<WebSocketStream<Transport>, Message>);

impl AgentSender {
    /// Sends one text message. It waits while the agent does not read: bound it with a time-out.
    pub async fn send_text(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), SocketError> {
        Ok(self.0.send(Message::Text(text.into())).await?)
    }

    /// Sends one binary message.
    pub async fn send_binary(&mut self, data: Bytes) -> Result<(), SocketError> {
        Ok(self.0.send(Message::Binary(data)).await?)
    }

    /// Sends a close frame (1000 is a normal end, RFC 6455 §7.4); the agent's answer arrives at the receiver.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        let fits = |end: &usize| reason.is_char_boundary(*end);
        let end = (0..=reason.len().min(MAX_CLOSE_REASON_BYTES))
            .rfind(fits)
            .unwrap_or(0);
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason[..end].into(),
        };
        match self.0.send(Message::Close(Some(frame))).await {
            Ok(())
            | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct AgentReceiver {
    stream: SplitStream<WebSocketStream<Transport>>,
    closed: bool,
}

impl AgentReceiver {
    /// The next message; `None` after [`Received::Closed`] or an error. Safe to cancel.
    pub async fn receive(&mut self) -> Option<Result<Received, SocketError>> {
        while !self.closed {
            match self.stream.next().await? {
                Ok(Message::Text(text)) => return Some(Ok(Received::Text(text))),
                Ok(Message::Binary(data)) => return Some(Ok(Received::Binary(data))),
                Ok(Message::Close(frame)) => {
                    self.closed = true;
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (u16::from(frame.code), frame.reason.to_string())
                    });
                    return Some(Ok(Received::Closed { code, reason }));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => {
                    self.closed = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}

/// TCP with or without TLS.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
