//! One call in its thread: datagrams in and out, audio to and from its agent.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::wheel::Slot;
use super::{Agent, LastHeard, Parts, Turn};
use crate::rtcp::REPORT_BYTES;
use crate::stream::{PACKET_BYTES, RtpStream, StreamEvent};

/// Datagrams that are read before others get their turn.
const BATCH: usize = 32;

/// What of a call became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its RTP socket.
    Rtp,
    /// Its socket for reports.
    Reports,
    /// Its agent's connection.
    Agent,
}

impl Part {
    const ALL: [Self; 3] = [Self::Rtp, Self::Reports, Self::Agent];

    /// A part's name in the poll.
    pub fn token(self, index: usize) -> Token {
        Token(index * Self::ALL.len() + self as usize)
    }

    /// Whose part it is, and which.
    pub fn of(token: Token) -> (usize, Self) {
        let parts = Self::ALL.len();
        (token.0 / parts, Self::ALL[token.0 % parts])
    }
}

/// The caller's side.
pub struct Media {
    pub stream: RtpStream,
    rtp: UdpSocket,
    reports: UdpSocket,
    tell: Box<dyn Fn(StreamEvent) + Send>,
    heard: Arc<LastHeard>,
}

/// See the module.
pub struct Call {
    /// None of an agent alone.
    pub id: Option<u64>,
    /// None once the call has ended: then the agent has its last words.
    pub media: Option<Media>,
    /// None once it is gone.
    agent: Option<Box<dyn Agent>>,
    /// The agent takes no more part.
    left: bool,
    /// Until when last words may take.
    pub closing: Option<Instant>,
    /// Where in the wheel it is.
    pub slot: Option<Slot>,
}

impl Media {
    fn watch(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        let (rtp, reports) = (Part::Rtp.token(index), Part::Reports.token(index));
        registry.register(&mut self.rtp, rtp, Interest::READABLE)?;
        registry.register(&mut self.reports, reports, Interest::READABLE)
    }
}

impl Call {
    /// A call with its parts.
    pub fn new(id: u64, parts: Parts, heard: Arc<LastHeard>) -> Self {
        let Parts {
            rtp,
            reports,
            stream,
            agent,
            tell,
        } = parts;
        let media = Media {
            stream,
            rtp: UdpSocket::from_std(rtp),
            reports: UdpSocket::from_std(reports),
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
            agent: Some(agent),
            left: false,
            closing: None,
            slot: None,
        }
    }

    /// Watches its sockets.
    pub fn watch(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        if let Some(media) = &mut self.media {
            media.watch(registry, index)?;
        }
        if let Some(source) = self.agent.as_mut().and_then(|agent| agent.source()) {
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(source, Part::Agent.token(index), both)?;
        }
        Ok(())
    }

    /// Another caller's sockets and stream take the place of this one's.
    pub fn succeed(
        &mut self,
        registry: &Registry,
        index: usize,
        (rtp, reports): (std::net::UdpSocket, std::net::UdpSocket),
        succeed: impl FnOnce(RtpStream) -> RtpStream,
        tell: Box<dyn Fn(StreamEvent) + Send>,
    ) -> io::Result<()> {
        let Some(before) = self.media.take() else {
            return Ok(());
        };
        let mut media = Media {
            stream: succeed(before.stream),
            rtp: UdpSocket::from_std(rtp),
            reports: UdpSocket::from_std(reports),
            tell,
            heard: before.heard,
        };
        media.watch(registry, index)?;
        self.media = Some(media);
        Ok(())
    }

    /// The call begins for its agent, who may have spoken already.
    pub fn start(&mut self, scratch: &mut [u8], now: Instant) -> Turn {
        if let Some(agent) = &mut self.agent {
            agent.start();
        }
        self.on_ready(Part::Agent, false, scratch, now)
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

    /// Reads what came in.
    pub fn on_ready(
        &mut self,
        part: Part,
        hung_up: bool,
        scratch: &mut [u8],
        now: Instant,
    ) -> Turn {
        let Some(media) = &mut self.media else {
            let turn = match &mut self.agent {
                Some(agent) if part == Part::Agent => agent.close(hung_up, scratch),
                _ => Turn::Done,
            };
            return self.settle(turn);
        };
        match part {
            Part::Rtp => media.receive(scratch, now),
            Part::Reports => media.receive_reports(scratch, now),
            Part::Agent => {
                let left = self.left;
                let turn = self.agent.as_mut().map_or(Turn::Done, |agent| {
                    if left {
                        return agent.close(hung_up, scratch);
                    }
                    agent.ready(hung_up, scratch, &mut media.stream, now)
                });
                self.settle(turn)
            }
        }
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
    pub fn pump(&mut self, now: Instant) {
        let Some(media) = &mut self.media else { return };
        let Media {
            stream,
            rtp,
            reports,
            tell,
            ..
        } = media;
        // What the agent has just said may be due at once.
        if stream.poll_timeout().is_some_and(|due| due <= now) {
            stream.handle_timeout(now);
        }
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = stream.poll_transmit(&mut packet) {
            // A full buffer loses a packet, as the network might.
            let _ = rtp.send_to(&packet[..length], to);
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = stream.poll_report(&mut report, now) {
            let _ = reports.send_to(&report[..length], to);
        }
        while let Some(event) = stream.poll_event() {
            let agent = self.agent.as_mut().filter(|_| !self.left);
            match (event, agent) {
                (
                    StreamEvent::Frame {
                        audio,
                        timestamp_millis,
                    },
                    Some(agent),
                ) => {
                    if agent.frame(&audio, timestamp_millis, stream, now) == Turn::Over {
                        self.agent = None;
                    }
                }
                (StreamEvent::Digit(digit), Some(agent)) => agent.digit(digit),
                (StreamEvent::MarkPlayed(name), Some(agent)) => agent.mark_played(&name),
                (
                    StreamEvent::Frame { .. } | StreamEvent::Digit(_) | StreamEvent::MarkPlayed(_),
                    None,
                ) => {}
                (
                    event @ (StreamEvent::AgentAudioOverflow | StreamEvent::SourceMoved { .. }),
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
    fn receive(&mut self, scratch: &mut [u8], now: Instant) -> Turn {
        let Self {
            stream, rtp, heard, ..
        } = self;
        let before = stream.last_received();
        let turn = drain(rtp, scratch, |datagram, from| {
            stream.receive(datagram, from, now);
        });
        if stream.last_received() != before {
            heard.note(now);
        }
        turn
    }

    fn receive_reports(&mut self, scratch: &mut [u8], now: Instant) -> Turn {
        let Self {
            stream, reports, ..
        } = self;
        drain(reports, scratch, |datagram, from| {
            stream.receive_report(datagram, from, now);
        })
    }
}

/// Reads datagrams. A flood must not hold up this thread's other calls.
fn drain(socket: &UdpSocket, scratch: &mut [u8], mut take: impl FnMut(&[u8], SocketAddr)) -> Turn {
    for _ in 0..BATCH {
        match socket.recv_from(scratch) {
            Ok((length, from)) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                take(&scratch[..length], from);
            }
            // The caller's machine says that nobody listens there (any more): what came before or after counts.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                ) => {}
            // Nothing is left, or nothing can be read now: the next datagram tells.
            Err(_) => return Turn::Done,
        }
    }
    Turn::More
}
