//! Asterisk's AudioSocket over TCP. No task and no queue of its own: frames go straight into the socket, and what the agent does not
//! read waits in the stream's backlog.

use std::ops::Range;
use std::time::Instant;

use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::audiosocket::{
    AUDIO_FRAME_BYTES, End, HANG_UP_FRAME, Received, Session, Ulaw, id_text, new_id,
};
use ringwire_agent::connect::{ConnectError, Connector, TcpTarget};
use ringwire_agent::stream::AgentStream;
use ringwire_config::Reason;
use ringwire_media::g711;

use super::{CLOSE_TIMEOUT, FromAgent, QUEUED_AUDIO, RESERVED};

/// What is read at a time: a quarter of a second of audio.
const READ_BYTES: usize = 4096;

/// The longest backlog behind a frame of audio, and behind another one.
const AUDIO_BACKLOG: usize = QUEUED_AUDIO * AUDIO_FRAME_BYTES;
const BACKLOG: usize = AUDIO_BACKLOG + RESERVED * 32;

const ULAW: Ulaw = Ulaw {
    encode: g711::encode_ulaw,
    decode: g711::decode_ulaw,
};

/// See [`super::AgentLink::AudioSocket`].
pub struct AudioSocketLink {
    id: [u8; 16],
    session: Session,
    /// None once the call is over.
    stream: Option<AgentStream>,
    buffer: Box<[u8; READ_BYTES]>,
    /// What of `buffer` the session has not seen.
    unread: Range<usize>,
    /// Audio frames that the agent did not read in time.
    dropped: u64,
}

impl AudioSocketLink {
    /// Connects.
    pub(super) async fn connect(
        address: &str,
        allowed: AddressPolicy,
        connector: &Connector,
        deadline: Instant,
        rng: &mut StdRng,
    ) -> Result<Self, ConnectError> {
        let target = TcpTarget::new(address, allowed)?;
        let stream = connector.connect_tcp(&target, deadline.into()).await?;
        Ok(Self {
            id: new_id(rng),
            session: Session::new(ULAW),
            stream: Some(stream),
            buffer: Box::new([0; READ_BYTES]),
            unread: 0..0,
            dropped: 0,
        })
    }

    pub(super) fn start(&mut self) {
        self.send(&Session::start(self.id), BACKLOG);
    }

    pub(super) fn call_id(&self) -> String {
        id_text(self.id)
    }

    /// Audio is dropped when the agent does not read, and never takes the place of other frames.
    pub(super) fn audio(&mut self, ulaw: &[u8]) {
        let mut frame = [0; AUDIO_FRAME_BYTES];
        let frame = self.session.audio(ulaw, &mut frame);
        self.send(frame, AUDIO_BACKLOG);
    }

    pub(super) fn digit(&mut self, digit: char) {
        if let Some(frame) = Session::digit(digit) {
            self.send(&frame, BACKLOG);
        }
    }

    pub(super) fn stop(&mut self) {
        self.send(&HANG_UP_FRAME, BACKLOG);
        if let Some(stream) = self.stream.take() {
            tokio::task::spawn_local(stream.close(CLOSE_TIMEOUT));
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn reuse(&mut self, audio: Vec<u8>) {
        self.session.reuse(audio);
    }

    fn send(&mut self, frame: &[u8], most: usize) {
        if let Some(stream) = &mut self.stream
            && !stream.send(frame, most)
        {
            self.dropped += 1;
        }
    }

    pub(super) async fn receive(&mut self) -> FromAgent {
        loop {
            let mut input = &self.buffer[self.unread.clone()];
            let received = self.session.receive(&mut input);
            self.unread.start = self.unread.end - input.len();
            match received {
                Some(Received::Command(command)) => return FromAgent::Command(command),
                Some(Received::Unusable(error)) => return FromAgent::Unusable(error.to_string()),
                Some(Received::End(end)) => return ended(&end),
                None => {}
            }
            let Some(stream) = &mut self.stream else {
                return std::future::pending().await;
            };
            match stream.read(&mut self.buffer[..]).await {
                Ok(length) => self.unread = 0..length,
                Err(error) => return FromAgent::Closed(error.to_string()),
            }
        }
    }
}

fn ended(end: &End) -> FromAgent {
    match end {
        End::HungUp => FromAgent::Closed(end.to_string()),
        End::Failed(_) => FromAgent::Failed(Reason::AgentFailed, end.to_string()),
        End::NotAudioSocket(_) => FromAgent::Failed(Reason::AgentProtocolError, end.to_string()),
    }
}
