//! Asterisk's AudioSocket over TCP.

use std::time::Instant;

use mio::event::Source;
use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::audiosocket::{
    End, HANG_UP_FRAME, HEADER_BYTES, Received, Session, id_text, new_id,
};
use ringwire_agent::connect::{ConnectError, Connector, TcpTarget};
use ringwire_agent::stream::{AgentStream, READS, StreamError};
use ringwire_config::Reason;
use ringwire_media::format::MOST_BYTES;
use ringwire_media::plane::{Agent, Turn};
use ringwire_media::stream::RtpStream;

use super::{FromAgent, QUEUED_AUDIO, RESERVED, Teller, closing};

/// Room in the backlog for what is not audio.
const RESERVED_BYTES: usize = RESERVED * 32;

/// See the module.
pub struct AudioSocketLink {
    id: [u8; 16],
    session: Session,
    stream: AgentStream,
    /// Bytes of audio that wait at most for an agent that does not read.
    audio_backlog: usize,
    teller: Teller,
    /// The agent has been told of the call.
    started: bool,
}

impl AudioSocketLink {
    /// Connects to an address, if it is allowed; audio has so many samples per second.
    pub async fn connect(
        (address, allowed, sample_rate): (&str, AddressPolicy, u32),
        connector: &Connector,
        deadline: Instant,
        teller: Teller,
        rng: &mut StdRng,
    ) -> Result<Self, ConnectError> {
        let target = TcpTarget::new(address, allowed)?;
        let stream = connector.connect_tcp(&target, deadline.into()).await?;
        let session = Session::new(sample_rate);
        Ok(Self {
            id: new_id(rng),
            audio_backlog: QUEUED_AUDIO * (HEADER_BYTES + session.frame_bytes()),
            session,
            stream,
            teller,
            started: false,
        })
    }

    /// By which identifier the agent knows the call.
    pub fn call_id(&self) -> String {
        id_text(self.id)
    }

    fn send(&mut self, frame: &[u8]) {
        let most = self.audio_backlog + RESERVED_BYTES;
        if !self.stream.send(frame, most) {
            self.teller.dropped();
        }
    }
}

impl Agent for AudioSocketLink {
    fn source(&mut self) -> Option<&mut dyn Source> {
        Some(self.stream.source())
    }

    fn start(&mut self) {
        self.started = true;
        let id = Session::start(self.id);
        self.send(&id);
    }

    /// Audio is dropped when the agent does not read, and never takes the place of other frames.
    fn frame(
        &mut self,
        audio: &[u8],
        _timestamp_millis: u64,
        _stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        let mut frame = [0; HEADER_BYTES + MOST_BYTES];
        let frame = self.session.audio(audio, &mut frame);
        if !self.stream.send(frame, self.audio_backlog) {
            self.teller.dropped();
        }
        if self.stream.is_stuck(now) {
            return self.teller.closed(&StreamError::Stuck);
        }
        Turn::Done
    }

    fn digit(&mut self, digit: char) {
        if let Some(frame) = Session::digit(digit) {
            self.send(&frame);
        }
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
            stream: connection,
            teller,
            ..
        } = self;
        connection.wake(hung_up);
        for _ in 0..READS {
            let length = match connection.read(scratch) {
                Ok(Some(length)) => length,
                Ok(None) => return Turn::Done,
                Err(error) => return teller.closed(&error),
            };
            let mut input = &scratch[..length];
            while let Some(received) = session.receive(&mut input) {
                if !matches!(received, Received::End(_)) {
                    teller.spoke();
                }
                match received {
                    Received::Audio(audio) => stream.play(audio, now),
                    Received::Unusable(error) => teller.unusable(&error),
                    Received::End(end) => {
                        teller.tell(ended(&end));
                        connection.close();
                        return Turn::Leaving;
                    }
                }
            }
        }
        Turn::More
    }

    fn stop(&mut self) {
        if self.started {
            self.send(&HANG_UP_FRAME);
        }
        self.stream.close();
    }

    fn close(&mut self, hung_up: bool, scratch: &mut [u8]) -> Turn {
        self.stream.wake(hung_up);
        let over = self.stream.read_on(scratch);
        closing(over, self.stream.is_drained())
    }
}

fn ended(end: &End) -> FromAgent {
    match end {
        End::HungUp => FromAgent::Closed(end.to_string()),
        End::Failed(_) => FromAgent::Failed(Reason::AgentFailed, end.to_string()),
        End::NotAudioSocket(_) => FromAgent::Failed(Reason::AgentProtocolError, end.to_string()),
    }
}
