//! The packet loops: threads that carry calls' RTP, each with its sockets, its calls and the connections to their agents.
//!
//! A call gets a place on a port first ([`Plane::seat`]), and belongs to that port's thread from [`Plane::open`] to its end, so nothing on a packet's way is locked or waits, and no memory is asked
//! for. Signalling lives elsewhere: it holds a [`CallHandle`], by which it has things done in the call's thread, and is told of what
//! happens there. How an agent is spoken to is [`Agent`]'s, which knows no sockets but its own.

mod call;
pub mod inbox;
mod outbox;
mod pair;
mod thread;
mod wheel;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::Waker;
use mio::event::Source;

use crate::ports::{Counts, Ports, Seat, Wanted};
use crate::stream::{RtpStream, StreamConfig, StreamEvent, StreamStats};

use thread::Order;

/// What becomes of an agent after it had its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It waits for what comes.
    Done,
    /// It has more to read; others get their turn first.
    More,
    /// It takes no more part in the call; its connection is still to be closed in an orderly way ([`Agent::close`]).
    Leaving,
    /// It is gone.
    Over,
}

/// A call's agent, ready to hear and to speak. What is not said here is that of one without a connection, which needs no telling.
pub trait Agent: Send {
    /// The connection to watch; none if there is none.
    fn source(&mut self) -> Option<&mut dyn Source> {
        None
    }

    /// The call begins.
    fn start(&mut self) {}

    /// 20 ms of the caller's audio in the stream's format, which began so long after the stream did.
    fn frame(
        &mut self,
        audio: &[u8],
        timestamp_millis: u64,
        stream: &mut RtpStream,
        now: Instant,
    ) -> Turn;

    /// The caller pressed a key.
    fn digit(&mut self, _digit: char) {}

    /// The audio before a mark was played.
    fn mark_played(&mut self, _name: &str) {}

    /// Its connection may have something to read, or room to write: what the agent says goes to `stream`. It says nothing more after that
    /// if it has hung up. The scratch is memory for the turn.
    fn ready(
        &mut self,
        _hung_up: bool,
        _scratch: &mut [u8],
        _stream: &mut RtpStream,
        _now: Instant,
    ) -> Turn {
        Turn::Done
    }

    /// The call is over: the last words. [`Self::close`] follows.
    fn stop(&mut self) {}

    /// Sends what waits; what the agent still says is dropped. [`Turn::Over`] once its connection is.
    fn close(&mut self, _hung_up: bool, _scratch: &mut [u8]) -> Turn {
        Turn::Over
    }
}

/// What a call is made of.
pub struct Parts {
    /// Its place on a port.
    pub seat: Seat,
    /// Its audio.
    pub stream: RtpStream,
    /// Who answers.
    pub agent: Box<dyn Agent>,
    /// Told of what its owner has to know: all events but the agent's own ([`StreamEvent::Digit`] and `MarkPlayed`). Dropped at
    /// the end.
    pub tell: Box<dyn Fn(StreamEvent) + Send>,
}

/// The threads. Cheap to clone; they end when nobody holds them any more and the last call has ended.
#[derive(Clone)]
pub struct Plane(Arc<Threads>);

struct Threads {
    doors: Vec<Door>,
    ports: Ports,
}

/// The way into a thread.
#[derive(Clone)]
struct Door(Arc<Orders>);

struct Orders {
    /// None while it is dropped.
    sender: Option<mpsc::Sender<Order>>,
    waker: Arc<Waker>,
}

impl Door {
    fn new(sender: mpsc::Sender<Order>, waker: Arc<Waker>) -> Self {
        Self(Arc::new(Orders {
            sender: Some(sender),
            waker,
        }))
    }

    fn order(&self, order: Order) {
        let Orders { sender, waker } = &*self.0;
        // A thread outlives its calls' owners.
        if sender
            .as_ref()
            .is_some_and(|orders| orders.send(order).is_ok())
        {
            let _ = waker.wake();
        }
    }
}

/// The thread sees that nobody can ask for anything any more.
impl Drop for Orders {
    fn drop(&mut self) {
        self.sender = None;
        let _ = self.waker.wake();
    }
}

impl Plane {
    /// Starts `threads` of them, at least one.
    pub fn start(threads: usize) -> io::Result<Self> {
        let counts: Vec<Arc<Counts>> = (0..threads.max(1)).map(|_| Arc::default()).collect();
        let doors = counts.iter().cloned().enumerate();
        let doors = doors.map(|(index, counts)| thread::start(index, counts));
        Ok(Self(Arc::new(Threads {
            doors: doors.collect::<io::Result<_>>()?,
            ports: Ports::new(counts),
        })))
    }

    /// The ports. What they count outlives the plane.
    pub fn ports(&self) -> &Ports {
        &self.0.ports
    }

    /// Whether all threads have been too slow for two seconds: with another call all would be heard late.
    pub fn is_full(&self) -> bool {
        self.ports().are_full()
    }

    /// Whether there is a place for a call now.
    ///
    /// # Errors
    /// Every port of the range is taken.
    pub fn has_seat(&self, wanted: &Wanted) -> io::Result<()> {
        if self.ports().has_seat(wanted) {
            return Ok(());
        }
        // One has to be opened, and stays.
        self.seat(wanted).map(drop)
    }

    /// A place for a call on a port.
    ///
    /// # Errors
    /// Every port of the range is taken.
    pub fn seat(&self, wanted: &Wanted) -> io::Result<Seat> {
        let Threads { doors, ports } = &*self.0;
        let open = |thread: usize, slot, sockets| {
            doors[thread].order(Order::Bind(slot, Box::new(sockets)));
        };
        let close = |thread: usize, slot| doors[thread].order(Order::Unbind(slot));
        ports.seat(wanted, open, close)
    }

    /// Gives a call to its port's thread. Its agent is told that it begins, its stream is started by its owner.
    pub fn open(&self, parts: Parts) -> CallHandle {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let thread = parts.seat.thread();
        let door = &self.0.doors[thread];
        let handle = CallHandle {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            door: door.clone(),
            thread,
            heard: Arc::new(LastHeard::new(Instant::now())),
            ended: false,
        };
        let heard = Arc::clone(&handle.heard);
        handle
            .door
            .order(Order::Open(handle.id, Box::new((parts, heard))));
        handle
    }

    /// Gives an agent its last words that never was in a call of the plane's.
    pub fn dismiss(&self, agent: Box<dyn Agent>) {
        if let Some(door) = self.0.doors.first() {
            door.order(Order::Dismiss(agent));
        }
    }

    /// Waits until all calls have ended and their agents had their last words; no longer than `limit`.
    pub fn wind_up(&self, limit: Duration) {
        let (told, idle) = mpsc::channel();
        for door in &self.0.doors {
            door.order(Order::TellIdle(told.clone()));
        }
        drop(told);
        let until = Instant::now() + limit;
        while let Ok(()) = idle.recv_timeout(until.saturating_duration_since(Instant::now())) {}
    }
}

/// When the caller was last heard.
struct LastHeard {
    epoch: Instant,
    millis: AtomicU64,
}

impl LastHeard {
    fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            millis: AtomicU64::new(0),
        }
    }

    fn note(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.epoch).as_millis() as u64;
        self.millis.store(millis, Ordering::Relaxed);
    }
}

/// A call of the plane's, for its owner. Dropped, it ends the call.
pub struct CallHandle {
    id: u64,
    door: Door,
    thread: usize,
    heard: Arc<LastHeard>,
    ended: bool,
}

impl CallHandle {
    /// Has something done with the call's stream, in order with everything else that is asked for.
    pub fn with(&self, act: impl FnOnce(&mut RtpStream, Instant) + Send + 'static) {
        self.door.order(Order::Stream(self.id, Box::new(act)));
    }

    /// The same with its agent.
    pub fn with_agent(&self, act: impl FnOnce(&mut dyn Agent) + Send + 'static) {
        self.door.order(Order::Agent(self.id, Box::new(act)));
    }

    /// The thread that carries it ([`Wanted::thread`]).
    pub fn thread(&self) -> usize {
        self.thread
    }

    /// Another caller takes this one's place: his port, which has to be of the same thread, and his stream, the same agent. See
    /// [`RtpStream::into_successor`].
    pub fn succeed(&self, seat: Seat, config: StreamConfig, tell: Box<dyn Fn(StreamEvent) + Send>) {
        debug_assert_eq!(seat.thread(), self.thread);
        let successor = Box::new((seat, config, tell));
        self.door.order(Order::Succeed(self.id, successor));
    }

    /// When a packet of the caller's was last accepted; when the call was opened, before the first one.
    pub fn heard_at(&self) -> Instant {
        self.heard.epoch + Duration::from_millis(self.heard.millis.load(Ordering::Relaxed))
    }

    /// Ends the call: nothing more is sent to the caller, and the agent has its last words. `told` is given the counters.
    pub fn end(mut self, told: impl FnOnce(StreamStats) + Send + 'static) {
        self.ended = true;
        self.door.order(Order::End(self.id, Some(Box::new(told))));
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.ended {
            self.door.order(Order::End(self.id, None));
        }
    }
}

#[cfg(test)]
mod tests;
