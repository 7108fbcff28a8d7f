//! A thread of the plane's: it sleeps until something comes in, is asked for or is due, and does that.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use slab::Slab;

use super::call::{Call, Media, Part};
use super::inbox::{BATCH, Inbox};
use super::outbox::Outbox;
use super::pair::Pairs;
use super::wheel::Wheel;
use super::{Agent, Door, LastHeard, Parts, Turn};
use crate::load::Meter;
use crate::ports::demux::{Route, Why};
use crate::ports::{Counts, Seat, Sockets};
use crate::stream::{Checked, RtpStream, StreamConfig, StreamEvent, StreamStats};

/// Something is asked for.
const WAKER: Token = Token(usize::MAX);

/// What became ready that is looked at in one turn.
const EVENTS: usize = 1024;

/// Memory for what is read at a time: half a second of an agent's audio.
const SCRATCH: usize = 16 << 10;

/// How often a port is read before others get their turn: a flood there must not hold up this thread's other calls.
const READINGS: usize = 4;

/// Sending the last words may take so long.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Something to be done with a stream.
pub type ForStream = Box<dyn FnOnce(&mut RtpStream, Instant) + Send>;

/// Something to be done with an agent.
pub type ForAgent = Box<dyn FnOnce(&mut dyn Agent) + Send>;

/// Whom to give a call's counters.
pub type Told = Box<dyn FnOnce(StreamStats) + Send>;

/// What a thread is asked for. Calls that have ended meanwhile are passed over.
pub enum Order {
    /// A new pair of ports, and its number.
    Bind(usize, Box<Sockets>),
    Unbind(usize),
    Open(u64, Box<(Parts, Arc<LastHeard>)>),
    Stream(u64, ForStream),
    Agent(u64, ForAgent),
    Succeed(u64, Box<Successor>),
    End(u64, Option<Told>),
    Dismiss(Box<dyn Agent>),
    /// To be dropped once no call is left.
    TellIdle(Sender<()>),
}

/// What takes a caller's place.
pub type Successor = (Seat, StreamConfig, Box<dyn Fn(StreamEvent) + Send>);

struct Thread {
    poll: Poll,
    /// Bounded by the messages of the calls' dialogs: each causes a few of these.
    orders: Receiver<Order>,
    pairs: Pairs,
    calls: Slab<Call>,
    by_id: std::collections::HashMap<u64, usize>,
    wheel: Wheel,
    scratch: Vec<u8>,
    inbox: Inbox,
    outbox: Outbox,
    /// What had more to read than its turn was long.
    again: Vec<(usize, Part)>,
    /// Calls that heard what somebody has to know of.
    news: Vec<usize>,
    tell_idle: Vec<Sender<()>>,
    meter: Meter,
}

/// Starts a thread.
pub fn start(index: usize, counts: Arc<Counts>) -> io::Result<Door> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (sender, orders) = mpsc::channel();
    std::thread::Builder::new()
        .name(format!("rtp-{index}"))
        .spawn(|| {
            // Its calls would hang, and new ones be given to nobody.
            let run = || Thread::new(poll, orders, counts).run();
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                std::process::abort();
            }
        })?;
    Ok(Door::new(sender, waker))
}

impl Thread {
    fn new(poll: Poll, orders: Receiver<Order>, counts: Arc<Counts>) -> Self {
        Self {
            meter: Meter::new(&counts.load, Instant::now()),
            poll,
            orders,
            pairs: Pairs::new(counts),
            calls: Slab::new(),
            by_id: std::collections::HashMap::new(),
            wheel: Wheel::new(Instant::now()),
            scratch: vec![0; SCRATCH],
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            again: Vec::new(),
            news: Vec::new(),
            tell_idle: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut owned = true;
        let mut woke = Instant::now();
        while owned || !self.calls.is_empty() {
            let rests = Instant::now();
            self.meter.note(&self.pairs.counts.load, woke, rests);
            let timeout = if self.again.is_empty() {
                self.wheel.timeout(rests)
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    woke = Instant::now();
                    continue;
                }
                // The poll itself is broken, and nothing can be carried without it.
                Err(error) => panic!("the poll of a thread for calls failed: {error}"),
            }
            let now = Instant::now();
            woke = now;
            self.pairs.counts.load.wakes(now);
            for (index, part) in std::mem::take(&mut self.again) {
                self.on_ready(index, part, false, now);
            }
            let mut woken = false;
            for event in &events {
                if event.token() == WAKER {
                    woken = true;
                    continue;
                }
                let (index, part) = Part::of(event.token());
                let hung_up = event.is_read_closed() || event.is_error();
                self.on_ready(index, part, hung_up, now);
            }
            self.tell_news(now);
            self.outbox.flush(&self.pairs);
            // Those that were due when the poll returned: what came in before they were, has been read.
            while let Some((slot, index)) = self.wheel.take(now) {
                let call = self.calls.get_mut(index);
                if call.is_some_and(|call| call.slot.take_if(|own| *own == slot).is_some()) {
                    self.turn(index, now, |call, _| call.on_timeout(now));
                }
            }
            self.outbox.flush(&self.pairs);
            if woken {
                owned = self.take_orders();
                self.outbox.flush(&self.pairs);
            }
            if self.calls.is_empty() {
                self.tell_idle.clear();
            }
        }
    }

    fn on_ready(&mut self, index: usize, part: Part, hung_up: bool, now: Instant) {
        if part != Part::Agent {
            return self.receive(index, part);
        }
        self.read(index, now, |call, scratch| {
            call.on_ready(hung_up, scratch, now)
        });
    }

    /// Reads what came in on a port.
    fn receive(&mut self, slot: usize, part: Part) {
        for _ in 0..READINGS {
            let Some(pair) = self.pairs.get_mut(slot) else {
                return;
            };
            let count = pair.read(part, &mut self.inbox);
            if let Some((oldest, _)) = self.inbox.get(0).filter(|_| count > 0) {
                let waited = Instant::now().saturating_duration_since(oldest.at);
                self.meter.heard(count, waited);
            }
            for index in 0..count {
                self.take_datagram((slot, part), index);
            }
            if count < BATCH {
                return;
            }
        }
        self.have_again(slot, part);
    }

    /// Takes a datagram of those that were read last. What is concluded from when it came, is concluded from when it came to the kernel.
    fn take_datagram(&mut self, (slot, part): (usize, Part), index: usize) {
        let Self {
            pairs,
            calls,
            inbox,
            news,
            ..
        } = self;
        let (Some(pair), Some((arrival, datagram))) = (pairs.get_mut(slot), inbox.get(index))
        else {
            return;
        };
        let (from, at) = (arrival.from, arrival.at);
        let fault = match pair.route(part, datagram, from, calls, at) {
            Route::Call(index) => hear(calls, index, (pairs, news), at, |media| {
                if part == Part::Rtp {
                    media.take(datagram, from, at);
                } else {
                    media.stream.take_report(datagram, from, at);
                }
            }),
            Route::Proved(index) => hear(calls, index, (pairs, news), at, |_| {}),
            Route::Check(index) => {
                let mut checked = Checked::default();
                let fault = hear(calls, index, (&mut *pairs, news), at, |media| {
                    checked = media
                        .stream
                        .take_check(datagram, from, part.component(), at);
                });
                if !checked.good {
                    pairs.counts.nobody(Why::BadCheck);
                }
                if let Some(reply) = checked.reply {
                    pairs.get(slot).send(part, reply.bytes(), from);
                }
                fault
            }
            Route::Nobody(why) => {
                pairs.counts.nobody(why);
                None
            }
        };
        if let Some(index) = fault {
            self.remove(index);
        }
    }

    /// Calls have their turns that heard what somebody has to know of.
    fn tell_news(&mut self, now: Instant) {
        while let Some(index) = self.news.pop() {
            let media = self
                .calls
                .get_mut(index)
                .and_then(|call| call.media.as_mut());
            if media.is_some_and(|media| std::mem::take(&mut media.news)) {
                self.turn(index, now, |_, _| {});
            }
        }
    }

    fn have_again(&mut self, index: usize, part: Part) {
        if !self.again.contains(&(index, part)) {
            self.again.push((index, part));
        }
    }

    /// A turn that reads. What is not drained has another one: one, however often it is told of.
    fn read(&mut self, index: usize, now: Instant, act: impl FnOnce(&mut Call, &mut [u8]) -> Turn) {
        if self.turn(index, now, act) == Some(Turn::More) {
            self.have_again(index, Part::Agent);
        }
    }

    /// Does something with a call, then what follows from that. A fault ends this call, and the others go on: its owner sees that it is
    /// told nothing any more.
    fn turn<T>(
        &mut self,
        index: usize,
        now: Instant,
        act: impl FnOnce(&mut Call, &mut [u8]) -> T,
    ) -> Option<T> {
        let Self {
            calls,
            wheel,
            scratch,
            pairs,
            outbox,
            ..
        } = self;
        let call = calls.get_mut(index)?;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let done = act(call, scratch);
            call.pump(pairs, outbox, now);
            done
        }));
        let Ok(done) = done else {
            self.remove(index);
            return None;
        };
        follow(call, index, pairs, now);
        if call.is_over() {
            self.remove(index);
        } else if let Some(due) = call.poll_timeout() {
            let slot = wheel.slot_of(due);
            if call.slot.is_none_or(|before| before > slot) {
                call.slot = Some(slot);
                wheel.insert(slot, index);
            }
        }
        Some(done)
    }

    /// Sockets are not watched any more once they are closed.
    fn remove(&mut self, index: usize) {
        let Some(mut call) = self.calls.try_remove(index) else {
            return;
        };
        leave(&mut call, index, &mut self.pairs, Instant::now());
        if let Some(id) = call.id {
            self.by_id.remove(&id);
        }
        // A fault while something breaks must not break more.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(call)));
    }

    /// Does what is asked for. False if nobody can ask any more.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.take_order(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_order(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Bind(slot, sockets) => {
                self.outbox.flush(&self.pairs);
                // A call that is given a pair that cannot be watched is none.
                let _ = self.pairs.open(self.poll.registry(), slot, *sockets);
            }
            Order::Unbind(slot) => {
                self.outbox.flush(&self.pairs);
                self.pairs.close(slot);
            }
            Order::Open(id, parts) => {
                let (parts, heard) = *parts;
                let index = self.calls.insert(Call::new(id, parts, heard));
                self.by_id.insert(id, index);
                if !settle(&mut self.calls[index], index, &mut self.pairs, now) {
                    return self.remove(index);
                }
                self.begin(index, now, |call, scratch| call.start(scratch, now));
            }
            Order::Dismiss(agent) => {
                let index = self.calls.insert(Call::of_agent(agent));
                self.begin(index, now, |call, scratch| {
                    call.close(now + CLOSE_LIMIT);
                    call.on_ready(false, scratch, now)
                });
            }
            Order::Stream(id, act) => {
                self.with(id, now, |call, _| {
                    if let Some(media) = &mut call.media {
                        act(&mut media.stream, now);
                    }
                });
            }
            Order::Agent(id, act) => {
                self.with(id, now, |call, _| call.with_agent(act));
            }
            Order::Succeed(id, successor) => {
                let Some(index) = self.by_id.get(&id).copied() else {
                    return;
                };
                let (seat, config, tell) = *successor;
                leave(&mut self.calls[index], index, &mut self.pairs, now);
                self.turn(index, now, |call, _| {
                    let succeed = |before: RtpStream| before.into_successor(config, now);
                    call.succeed(seat, succeed, tell);
                });
                let call = self.calls.get_mut(index);
                let lost = call.is_some_and(|call| {
                    call.media.is_some() && !settle(call, index, &mut self.pairs, now)
                });
                if lost {
                    self.remove(index);
                }
            }
            Order::End(id, told) => {
                let Some(index) = self.by_id.get(&id).copied() else {
                    return;
                };
                self.read(index, now, |call, scratch| {
                    let stats = call.media.as_ref().map(|media| media.stream.stats());
                    if let (Some(told), Some(stats)) = (told, stats) {
                        told(stats);
                    }
                    call.close(now + CLOSE_LIMIT);
                    call.on_ready(false, scratch, now)
                });
            }
            Order::TellIdle(told) => self.tell_idle.push(told),
        }
    }

    /// A call's first turn.
    fn begin(
        &mut self,
        index: usize,
        now: Instant,
        begin: impl FnOnce(&mut Call, &mut [u8]) -> Turn,
    ) {
        let watched = self.calls[index].watch(self.poll.registry(), index);
        // A call whose sockets cannot be watched is none.
        match watched {
            Ok(()) => self.read(index, now, begin),
            Err(_) => self.remove(index),
        }
    }

    fn with<T>(&mut self, id: u64, now: Instant, act: impl FnOnce(&mut Call, &mut [u8]) -> T) {
        if let Some(index) = self.by_id.get(&id) {
            self.turn(*index, now, act);
        }
    }
}

/// A call takes what came in for it. That is little, so it has no turn of its own: what follows from it comes when all is read. Gives the call
/// if there was a fault in it.
fn hear(
    calls: &mut Slab<Call>,
    index: usize,
    (pairs, news): (&mut Pairs, &mut Vec<usize>),
    at: Instant,
    take: impl FnOnce(&mut Media),
) -> Option<usize> {
    let call = calls.get_mut(index)?;
    let media = call.media.as_mut()?;
    if catch_unwind(AssertUnwindSafe(|| take(&mut *media))).is_err() {
        return Some(index);
    }
    if media.stream.has_news() && !std::mem::replace(&mut media.news, true) {
        news.push(index);
    }
    follow(call, index, pairs, at);
    None
}

/// A call's port knows of it from now on. False if there is none.
fn settle(call: &mut Call, index: usize, pairs: &mut Pairs, now: Instant) -> bool {
    let Some(media) = &mut call.media else {
        return false;
    };
    let slot = media.seat.slot();
    let Some(pair) = pairs.get_mut(slot) else {
        return false;
    };
    let source = media.stream.peer().source;
    media.version = source.version();
    media.seat.note(source, now);
    pair.demux.open(index, source, now);
    call.pair = Some(slot);
    true
}

/// Tells a call's port what a turn has changed for it.
fn follow(call: &mut Call, index: usize, pairs: &mut Pairs, now: Instant) {
    let Some(slot) = call.pair else { return };
    let Some(media) = &mut call.media else {
        return leave(call, index, pairs, now);
    };
    let source = media.stream.peer().source;
    if source.version() == media.version {
        return;
    }
    media.version = source.version();
    media.seat.note(source, now);
    if let Some(pair) = pairs.get_mut(slot) {
        pair.demux.follow(index, source, now);
    }
}

/// A call's port knows of it no more.
fn leave(call: &mut Call, index: usize, pairs: &mut Pairs, now: Instant) {
    if let Some(pair) = call.pair.take().and_then(|slot| pairs.get_mut(slot)) {
        pair.demux.close(index, now);
    }
}
