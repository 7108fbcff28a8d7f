//! Twilio's Media Streams over a WebSocket.

use std::collections::BTreeMap;
use std::time::Instant;

use http::{HeaderName, HeaderValue};
use mio::event::Source;
use rand::rngs::StdRng;
use ringwire_agent::Command;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::connect::{ConnectError, Connector, WebSocketTarget};
use ringwire_agent::socket::{AgentSocket, Received, SocketError};
use ringwire_agent::stream::StreamError;
use ringwire_agent::twilio::{Session, StartInfo, new_sid};
use ringwire_config::Secret;
use ringwire_media::plane::{Agent, Turn};
use ringwire_media::stream::RtpStream;

use super::{QUEUED_AUDIO, RESERVED, Teller, closing};

/// A frame of audio as a message, with numbers of any length.
const AUDIO_MESSAGE_BYTES: usize = 440;

/// The longest backlog behind a message with audio, and behind another one.
const AUDIO_BACKLOG: usize = QUEUED_AUDIO * AUDIO_MESSAGE_BYTES;
const BACKLOG: usize = AUDIO_BACKLOG + RESERVED * 1200;

/// Connects.
pub async fn connect(
    url: &str,
    headers: &BTreeMap<String, Secret>,
    allowed: AddressPolicy,
    connector: &Connector,
    deadline: Instant,
) -> Result<AgentSocket, ConnectError> {
    let usable = |name: &str, value: &str| {
        Some((
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value).ok()?,
        ))
    };
    let headers = headers
        .iter()
        .filter_map(|(name, value)| usable(name, value.expose()))
        .collect();
    let target = WebSocketTarget::new(url, headers, allowed)?;
    connector.connect(&target, deadline.into()).await
}

/// See the module.
pub struct TwilioLink {
    session: Session,
    socket: AgentSocket,
    teller: Teller,
    /// The agent has been told of the call.
    started: bool,
}

impl TwilioLink {
    /// A stream over a connected socket.
    pub fn new(
        socket: AgentSocket,
        custom_parameters: BTreeMap<String, String>,
        teller: Teller,
        rng: &mut StdRng,
    ) -> Self {
        let session = Session::new(StartInfo {
            account_sid: new_sid("AC", rng),
            call_sid: new_sid("CA", rng),
            stream_sid: new_sid("MZ", rng),
            custom_parameters,
        });
        Self {
            session,
            socket,
            teller,
            started: false,
        }
    }

    /// By which identifier the agent knows the call.
    pub fn call_id(&self) -> String {
        self.session.call_sid().to_owned()
    }

    fn send(&mut self, write: impl FnOnce(&mut Session, &mut Vec<u8>)) {
        let Self {
            session, socket, ..
        } = self;
        if !socket.send_text(BACKLOG, |out| write(session, out)) {
            self.teller.dropped();
        }
    }
}

impl Agent for TwilioLink {
    fn source(&mut self) -> Option<&mut dyn Source> {
        Some(self.socket.source())
    }

    fn start(&mut self) {
        self.started = true;
        self.send(|_, out| out.extend_from_slice(Session::connected().as_bytes()));
        self.send(Session::start);
    }

    /// Audio is dropped when the agent does not read, and never takes the place of other messages.
    fn frame(
        &mut self,
        ulaw: &[u8],
        timestamp_millis: u64,
        _stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        let Self {
            session, socket, ..
        } = self;
        let media = |out: &mut Vec<u8>| session.media(ulaw, timestamp_millis, out);
        if !socket.send_text(AUDIO_BACKLOG, media) {
            self.teller.dropped();
        }
        if self.socket.is_stuck(now) {
            return self.teller.closed(&StreamError::Stuck);
        }
        Turn::Done
    }

    fn digit(&mut self, digit: char) {
        self.send(|session, out| session.dtmf(digit, out));
    }

    fn mark_played(&mut self, name: &str) {
        self.send(|session, out| session.mark(name, out));
    }

    fn ready(
        &mut self,
        hung_up: bool,
        scratch: &mut [u8],
        stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        let Self {
            session,
            socket,
            teller,
            ..
        } = self;
        socket.wake(hung_up);
        let mut over = false;
        let received = socket.receive(scratch, &mut |received| match received {
            Received::Text(text) => match session.receive(text) {
                Ok(Some(Command::Audio(ulaw))) => stream.play(ulaw, now),
                Ok(Some(Command::Mark(name))) => stream.mark(name.into_owned()),
                Ok(Some(Command::Clear)) => stream.clear(),
                Ok(None) => {}
                Err(error) => teller.unusable(&error),
            },
            Received::Binary(_) => teller.unusable(&"a binary message"),
            Received::Ping(_) => {}
            Received::Closed { code, reason } => {
                over = true;
                if reason.is_empty() {
                    teller.closed(&format!("code {code}"));
                } else {
                    teller.closed(&format!("code {code}, {reason}"));
                }
            }
        });
        match received {
            // It has been answered.
            _ if over => Turn::Leaving,
            Ok(true) => Turn::More,
            Ok(false) => Turn::Done,
            Err(error @ SocketError::Stream(_)) => teller.closed(&error),
            // It has been told what is wrong.
            Err(error @ SocketError::Frame(_)) => {
                teller.closed(&error);
                Turn::Leaving
            }
        }
    }

    fn stop(&mut self) {
        if self.started {
            self.send(Session::stop);
        }
        self.socket.close(1000, "");
    }

    fn close(&mut self, hung_up: bool, scratch: &mut [u8]) -> Turn {
        self.socket.wake(hung_up);
        let over = self.socket.read_on(scratch);
        closing(over, self.socket.is_drained())
    }
}
