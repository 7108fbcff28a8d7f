//! Asterisk's AudioSocket over TCP.

use std::time::Instant;

use mio::event::Source;
use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::audiosocket::{
    AUDIO_FRAME_BYTES, End, HANG_UP_FRAME, Received, Session, Ulaw, id_text, new_id,
};
use ringwire_agent::connect::{ConnectError, Connector, TcpTarget};
use ringwire_agent::stream::{AgentStream, READS, StreamError};
use ringwire_config::Reason;
use ringwire_media::plane::{Agent, Turn};
use ringwire_media::stream::RtpStream;
use ringwire_media::{FRAME_SAMPLES, g711};

use super::{FromAgent, QUEUED_AUDIO, RESERVED, Teller, closing};

/// The longest backlog behind a frame of audio, and behind another one.
const AUDIO_BACKLOG: usize = QUEUED_AUDIO * AUDIO_FRAME_BYTES;
const BACKLOG: usize = AUDIO_BACKLOG + RESERVED * 32;

const ULAW: Ulaw = Ulaw {
    encode: g711::append_as_ulaw,
    decode: g711::write_as_linear,
};

/// See the module.
pub struct AudioSocketLink {
    id: [u8; 16],
    session: Session,
    stream: AgentStream,
    teller: Teller,
    /// The agent has been told of the call.
    started: bool,
}

impl AudioSocketLink {
    /// Connects.
    pub async fn connect(
        address: &str,
        allowed: AddressPolicy,
        connector: &Connector,
        deadline: Instant,
        teller: Teller,
        rng: &mut StdRng,
    ) -> Result<Self, ConnectError> {
        let target = TcpTarget::new(address, allowed)?;
        let stream = connector.connect_tcp(&target, deadline.into()).await?;
        Ok(Self {
            id: new_id(rng),
            session: Session::new(ULAW),
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
        if !self.stream.send(frame, BACKLOG) {
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
        ulaw: &[u8; FRAME_SAMPLES],
        _timestamp_millis: u64,
        _stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        let mut frame = [0; AUDIO_FRAME_BYTES];
        let frame = self.session.audio(ulaw, &mut frame);
        if !self.stream.send(frame, AUDIO_BACKLOG) {
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
                    Received::Audio(ulaw) => stream.play(ulaw, now),
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
