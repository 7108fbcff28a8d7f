//! One call in its thread: packets out, audio to and from its agent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use super::outbox::Outbox;
use super::pair::Pairs;
use super::wheel::Slot;
use super::{Agent, LastHeard, Parts, Turn};
use crate::format::MOST_BYTES;
use crate::ice::Component;
use crate::ports::Seat;
use crate::rtcp::REPORT_BYTES;
use crate::stream::{PACKET_BYTES, RtpStream, StreamEvent};

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A port for RTP.
    Rtp,
    /// A port for reports.
    Reports,
    /// The connection to a call's agent.
    Agent,
}

impl Part {
    const ALL: [Self; 3] = [Self::Rtp, Self::Reports, Self::Agent];

    /// A part's name in the poll.
    pub fn token(self, index: usize) -> Token {
        Token(index * Self::ALL.len() + self as usize)
    }

    /// What ICE calls it.
    pub fn component(self) -> Component {
        match self {
            Self::Rtp => Component::Rtp,
            Self::Reports | Self::Agent => Component::Reports,
        }
    }

    /// Which pair's or call's part it is.
    pub fn of(token: Token) -> (usize, Self) {
        let parts = Self::ALL.len();
        (token.0 / parts, Self::ALL[token.0 % parts])
    }
}

impl From<Component> for Part {
    fn from(component: Component) -> Self {
        match component {
            Component::Rtp => Self::Rtp,
            Component::Reports => Self::Reports,
        }
    }
}

/// The caller's side.
pub struct Media {
    pub stream: RtpStream,
    pub seat: Seat,
    /// The version of its sources that its port knows of.
    pub version: u32,
    /// It waits for a turn for what it heard.
    pub news: bool,
    tell: Box<dyn Fn(StreamEvent) + Send>,
    heard: Arc<LastHeard>,
}

/// See the module.
pub struct Call {
    /// None of an agent alone.
    pub id: Option<u64>,
    /// None once the call has ended: then the agent has its last words.
    pub media: Option<Media>,
    /// The pair of ports that knows of it.
    pub pair: Option<usize>,
    /// None once it is gone.
    agent: Option<Box<dyn Agent>>,
    /// The agent takes no more part.
    left: bool,
    /// Until when last words may take.
    pub closing: Option<Instant>,
    /// Where in the wheel it is.
    pub slot: Option<Slot>,
}

impl Call {
    /// A call with its parts.
    pub fn new(id: u64, parts: Parts, heard: Arc<LastHeard>) -> Self {
        let Parts {
            seat,
            stream,
            agent,
            tell,
        } = parts;
        let media = Media {
            version: stream.peer().source.version(),
            news: false,
            stream,
            seat,
            tell,
            heard,
        };
        Self {
            id: Some(id),
            media: Some(media),
            ..Self::of_agent(agent)
        }
    }

    /// An agent alone.
    pub fn of_agent(agent: Box<dyn Agent>) -> Self {
        Self {
            id: None,
            media: None,
            pair: None,
            agent: Some(agent),
            left: false,
            closing: None,
            slot: None,
        }
    }

    /// Watches its agent's connection.
    pub fn watch(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        if let Some(source) = self.agent.as_mut().and_then(|agent| agent.source()) {
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(source, Part::Agent.token(index), both)?;
        }
        Ok(())
    }

    /// Another caller's place and stream are this one's from now on.
    pub fn succeed(
        &mut self,
        seat: Seat,
        succeed: impl FnOnce(RtpStream) -> RtpStream,
        tell: Box<dyn Fn(StreamEvent) + Send>,
    ) {
        let Some(before) = self.media.take() else {
            return;
        };
        let stream = succeed(before.stream);
        self.media = Some(Media {
            version: stream.peer().source.version(),
            news: false,
            stream,
            seat,
            tell,
            heard: before.heard,
        });
    }

    /// The call begins for its agent, who may have spoken already.
    pub fn start(&mut self, scratch: &mut [u8], now: Instant) -> Turn {
        if let Some(agent) = &mut self.agent {
            agent.start();
        }
        self.on_ready(false, scratch, now)
    }

    /// Asks something of the agent.
    pub fn with_agent(&mut self, act: impl FnOnce(&mut dyn Agent)) {
        if let Some(agent) = self
            .agent
            .as_mut()
            .filter(|_| self.closing.is_none() && !self.left)
        {
            act(&mut **agent);
        }
    }

    /// Lets the agent have its last words; until then they may take.
    pub fn close(&mut self, until: Instant) {
        self.media = None;
        if self.closing.is_none() {
            self.closing = Some(until);
            if let Some(agent) = self.agent.as_mut().filter(|_| !self.left) {
                agent.stop();
            }
        }
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.closing.is_some() && self.agent.is_none()
    }

    /// Reads what the agent has sent.
    pub fn on_ready(&mut self, hung_up: bool, scratch: &mut [u8], now: Instant) -> Turn {
        let Self {
            media, agent, left, ..
        } = self;
        let turn = match (media, agent) {
            (Some(media), Some(agent)) if !*left => {
                agent.ready(hung_up, scratch, &mut media.stream, now)
            }
            (_, Some(agent)) => agent.close(hung_up, scratch),
            (_, None) => Turn::Done,
        };
        self.settle(turn)
    }

    /// An agent that is gone is not spoken to any more; its owner knows from itself.
    fn settle(&mut self, turn: Turn) -> Turn {
        match turn {
            Turn::Over => self.agent = None,
            Turn::Leaving => self.left = true,
            Turn::Done | Turn::More => return turn,
        }
        Turn::Done
    }

    /// Sends what is to be sent, and gives the agent what is for it.
    pub fn pump(&mut self, pairs: &Pairs, outbox: &mut Outbox, now: Instant) {
        let Some(media) = &mut self.media else { return };
        let Media {
            stream, seat, tell, ..
        } = media;
        let pair = pairs.get(seat.slot());
        // What the agent has just said may be due at once.
        if stream.poll_timeout().is_some_and(|due| due <= now) {
            stream.handle_timeout(now);
        }
        while let Some((component, datagram, to)) = stream.poll_handshake() {
            pair.send(component.into(), &datagram, to);
        }
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = stream.poll_transmit(&mut packet) {
            outbox.put(pairs, (seat.slot(), Part::Rtp), &packet[..length], to);
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = stream.poll_report(&mut report, now) {
            let part = if stream.is_muxed() {
                Part::Rtp
            } else {
                Part::Reports
            };
            outbox.put(pairs, (seat.slot(), part), &report[..length], to);
        }
        let mut frame = [0; MOST_BYTES];
        while let Some((length, timestamp_millis)) = stream.poll_frame(&mut frame) {
            let agent = self.agent.as_mut().filter(|_| !self.left);
            let heard =
                agent.map(|agent| agent.frame(&frame[..length], timestamp_millis, stream, now));
            if heard == Some(Turn::Over) {
                self.agent = None;
            }
        }
        while let Some(event) = stream.poll_event() {
            let agent = self.agent.as_mut().filter(|_| !self.left);
            match (event, agent) {
                (StreamEvent::Digit(digit), Some(agent)) => agent.digit(digit),
                (StreamEvent::MarkPlayed(name), Some(agent)) => agent.mark_played(&name),
                (StreamEvent::Digit(_) | StreamEvent::MarkPlayed(_), None) => {}
                (event @ StreamEvent::SourceMoved { .. }, _) => {
                    pairs.counts.moved();
                    tell(event);
                }
                (
                    event @ (StreamEvent::AgentAudioOverflow
                    | StreamEvent::EncryptionFailed(_)
                    | StreamEvent::OneWay(_)),
                    _,
                ) => {
                    tell(event);
                }
            }
        }
    }

    /// When [`Self::on_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.media
            .as_ref()
            .map_or(self.closing, |media| media.stream.poll_timeout())
    }

    /// Runs what is due, but for what [`Self::pump`] does anyway.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.media.is_none() && self.closing.is_some_and(|until| until <= now) {
            self.agent = None;
        }
    }
}

impl Media {
    /// Takes a datagram of its port for RTP.
    pub fn take(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) {
        self.hear(now, |stream| stream.take(datagram, from, now));
    }

    /// Tries one on the call's key.
    pub fn prove(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) -> bool {
        self.hear(now, |stream| stream.prove(datagram, from, now))
    }

    fn hear<T>(&mut self, now: Instant, take: impl FnOnce(&mut RtpStream) -> T) -> T {
        let before = self.stream.last_received();
        let taken = take(&mut self.stream);
        if self.stream.last_received() != before {
            self.heard.note(now);
        }
        taken
    }
}
