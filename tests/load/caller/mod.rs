//! The callers: many calls at once from one thread, each with audio of its own, all that comes back checked.

mod audio;
mod sip;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use ringwire_media::g711::encode_ulaw;
use ringwire_media::plane::inbox::Inbox;
use ringwire_media::ports::note_times;
use ringwire_media::tone::speech_like;

use self::audio::{Audio, FRAME};
use self::sip::{Call, State, Step};
use crate::histogram::Histogram;

const SIP: Token = Token(usize::MAX);

/// The first call's port for audio; each next one's is two higher.
const FIRST_PORT: u16 = 20_000;

/// So long after the calls' end stray packets and answers are waited for.
const TAIL: Duration = Duration::from_secs(3);

/// What is called.
#[derive(Clone, Debug)]
pub enum Target {
    /// A gateway's SIP, and the number there.
    Sip(SocketAddr, String),
    /// The floor: the first call's audio port, each next one's two higher.
    Floor(SocketAddr),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    /// Where the callers are.
    pub from: IpAddr,
    /// Calls that are up at the same time.
    pub calls: usize,
    /// New calls in a second.
    pub rate: f64,
    /// How long each lasts; `None`: until the end.
    pub hold: Option<Duration>,
    /// From the moment that all are up, or with `hold` from the first one.
    pub duration: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// From INVITE to 200.
    pub setup: Histogram,
    /// From BYE to its answer.
    pub ending: Histogram,
    /// Packets that left, could not leave, and left late.
    pub sent: u64,
    pub unsent: u64,
    pub sent_late: u64,
    /// Packets that came.
    pub received: u64,
    /// By sequence number: packets between two that came.
    pub lost: u64,
    /// A sequence number, time or source that does not follow from the last.
    pub out_of_order: u64,
    /// Not what was agreed.
    pub malformed: u64,
    /// From somebody else.
    pub strange: u64,
    /// Of another call.
    pub foreign: u64,
    /// Without one of our frames.
    pub silent: u64,
    /// Frames of ours that did not come back between two that did, or came again.
    pub missing: u64,
    pub repeated: u64,
    /// Frames that came back later than 200 ms.
    pub late: u64,
    /// From us to the agent, from there to us, and both.
    pub to_agent: Histogram,
    pub from_agent: Histogram,
    pub round_trip: Histogram,
    /// How far two packets are from being 20 ms apart.
    pub spacing: Histogram,
}

impl Heard {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        let bad = self.lost + self.out_of_order + self.malformed + self.foreign + self.unsent;
        self.failed.is_empty() && self.answered > 0 && bad == 0
    }
}

/// A moment of the run that is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing has begun.
    Before,
    /// All calls are up.
    Begin,
    /// The time is over, the calls still up.
    End,
    /// All are over.
    After,
}

struct Line {
    audio: Audio,
    call: Option<Call>,
    turn: usize,
    ends: Option<Instant>,
}

struct Callers {
    plan: Plan,
    poll: Poll,
    socket: UdpSocket,
    lines: Vec<Line>,
    speech: Vec<u8>,
    inbox: Inbox,
    heard: Heard,
    /// Who has a packet to send, and when.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    measuring: bool,
    /// What is heard while nothing is measured.
    unmeasured: Heard,
}

/// Places the calls. `at` is told of each moment when it comes.
pub fn run(plan: Plan, at: &mut dyn FnMut(Moment)) -> io::Result<Heard> {
    let mut callers = Callers::new(plan)?;
    at(Moment::Before);
    callers.run(at)?;
    at(Moment::After);
    Ok(callers.heard)
}

impl Callers {
    fn new(plan: Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut socket = UdpSocket::bind(SocketAddr::new(plan.from, 5060))?;
        poll.registry()
            .register(&mut socket, SIP, Interest::READABLE)?;
        let mut lines = Vec::new();
        for call in 0..plan.calls {
            let port = FIRST_PORT + 2 * call as u16;
            let mut socket = UdpSocket::bind(SocketAddr::new(plan.from, port))?;
            note_times(&socket)?;
            poll.registry()
                .register(&mut socket, Token(call), Interest::READABLE)?;
            lines.push(Line {
                audio: Audio::new(socket, call as u16),
                call: None,
                turn: 0,
                ends: None,
            });
        }
        let speech = speech_like(20_000, 7)
            .into_iter()
            .map(encode_ulaw)
            .collect();
        Ok(Self {
            plan,
            poll,
            socket,
            lines,
            speech,
            inbox: Inbox::new(),
            heard: Heard::default(),
            due: BinaryHeap::new(),
            measuring: false,
            unmeasured: Heard::default(),
        })
    }

    fn run(&mut self, at: &mut dyn FnMut(Moment)) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let begun = Instant::now();
        let apart = Duration::from_secs_f64(1.0 / self.plan.rate);
        let total = match self.plan.hold {
            Some(_) => (self.plan.duration.as_secs_f64() * self.plan.rate) as usize,
            None => self.plan.calls,
        };
        let mut placed = 0;
        let mut phase_ends: Option<Instant> = None;
        let mut stopping: Option<Instant> = None;
        loop {
            let now = Instant::now();
            while stopping.is_none() && placed < total && begun + apart * placed as u32 <= now {
                self.place(placed, now);
                placed += 1;
            }
            self.hang_up_due(now);
            match (phase_ends, stopping) {
                (None, None) => {
                    let settled =
                        self.plan.hold.is_some() || (placed == total && self.is_settled());
                    if settled {
                        at(Moment::Begin);
                        self.measuring = true;
                        phase_ends = Some(Instant::now() + self.plan.duration);
                    }
                }
                (Some(end), None) if end <= now => {
                    at(Moment::End);
                    self.measuring = false;
                    stopping = Some(now + TAIL);
                    self.hang_up_all(now);
                }
                (_, Some(until)) if until <= now || self.is_over() => return Ok(()),
                _ => {}
            }
            self.turn(now, &mut events)?;
        }
    }

    fn is_settled(&self) -> bool {
        let up = |line: &Line| {
            let inviting = line
                .call
                .as_ref()
                .is_some_and(|call| call.state == State::Inviting);
            !inviting
        };
        self.lines.iter().all(up)
    }

    fn is_over(&self) -> bool {
        self.lines.iter().all(|line| line.call.is_none())
    }

    /// Sends what is due, waits for what comes, at most until something is due again.
    fn turn(&mut self, now: Instant, events: &mut Events) -> io::Result<()> {
        while let Some(Reverse((due, line))) = self.due.peek().copied() {
            if due > now {
                break;
            }
            self.due.pop();
            let audio = &mut self.lines[line].audio;
            if audio.due == Some(due) {
                audio.send(&self.speech, now, &mut self.heard);
                if let Some(next) = audio.due {
                    self.due.push(Reverse((next, line)));
                }
            }
        }
        self.repeat(now);
        self.poll.poll(events, Some(Duration::from_millis(1)))?;
        let mut buffer = [0; 4096];
        for event in &*events {
            if event.token() == SIP {
                while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                    if let Ok(text) = std::str::from_utf8(&buffer[..length]) {
                        self.on_sip(text);
                    }
                }
            } else {
                let heard = if self.measuring {
                    &mut self.heard
                } else {
                    &mut self.unmeasured
                };
                self.lines[event.token().0]
                    .audio
                    .receive(&mut self.inbox, heard);
            }
        }
        Ok(())
    }

    fn place(&mut self, placed: usize, now: Instant) {
        let free = self
            .lines
            .iter()
            .position(|line| line.call.is_none() && line.audio.due.is_none());
        let Some(number) = free else {
            *self
                .heard
                .failed
                .entry("no line was free".to_owned())
                .or_default() += 1;
            return;
        };
        let line = &mut self.lines[number];
        // Spread over the 20 ms.
        let first = now + FRAME * (placed % 40) as u32 / 40;
        match &self.plan.target {
            Target::Floor(first_port) => {
                let remote =
                    SocketAddr::new(first_port.ip(), first_port.port() + 2 * number as u16);
                line.audio.start(remote, first);
                self.due.push(Reverse((first, number)));
                self.heard.answered += 1;
            }
            Target::Sip(remote, called) => {
                line.turn += 1;
                let local = SocketAddr::new(self.plan.from, 5060);
                let media = SocketAddr::new(self.plan.from, FIRST_PORT + 2 * number as u16);
                let (socket, remote) = (&self.socket, *remote);
                let mut send = |bytes: &[u8]| drop(socket.send_to(bytes, remote));
                line.call = Some(Call::begin(
                    (number, line.turn),
                    (local, remote, media),
                    called,
                    &mut send,
                ));
            }
        }
    }

    fn on_sip(&mut self, text: &str) {
        let now = Instant::now();
        let Some(number) = sip::number_of(text).filter(|number| *number < self.lines.len()) else {
            return;
        };
        let line = &mut self.lines[number];
        let Some(call) = &mut line.call else { return };
        let (socket, remote) = (&self.socket, call.remote());
        match call.receive(text, &mut |bytes| drop(socket.send_to(bytes, remote))) {
            Step::Nothing => {}
            Step::Answered(media) => {
                self.heard.answered += 1;
                self.heard
                    .setup
                    .add(call.begun.elapsed().as_micros() as u64);
                line.ends = self.plan.hold.map(|hold| now + hold);
                let first = now + FRAME * (number % 40) as u32 / 40;
                line.audio.start(media, first);
                self.due.push(Reverse((first, number)));
            }
            Step::Failed(why) => {
                *self.heard.failed.entry(why).or_default() += 1;
                line.audio.stop();
                line.call = None;
            }
            Step::Ended => {
                self.heard
                    .ending
                    .add(call.begun.elapsed().as_micros() as u64);
                line.call = None;
            }
        }
    }

    fn repeat(&mut self, now: Instant) {
        for line in &mut self.lines {
            let Some(call) = &mut line.call else { continue };
            let (socket, remote) = (&self.socket, call.remote());
            let step = call.handle_timeout(now, &mut |bytes| drop(socket.send_to(bytes, remote)));
            if let Step::Failed(why) = step {
                *self.heard.failed.entry(why).or_default() += 1;
                line.audio.stop();
                line.call = None;
            }
        }
    }

    fn hang_up_due(&mut self, now: Instant) {
        for number in 0..self.lines.len() {
            if self.lines[number].ends.is_some_and(|ends| ends <= now) {
                self.hang_up(number, now);
            }
        }
    }

    fn hang_up_all(&mut self, now: Instant) {
        for number in 0..self.lines.len() {
            self.hang_up(number, now);
        }
    }

    fn hang_up(&mut self, number: usize, now: Instant) {
        let line = &mut self.lines[number];
        line.ends = None;
        line.audio.stop();
        if let Some(call) = line.call.as_mut().filter(|call| call.state == State::Up) {
            call.begun = now;
            let (socket, remote) = (&self.socket, call.remote());
            call.hang_up(now, &mut |bytes| drop(socket.send_to(bytes, remote)));
        }
    }
}
