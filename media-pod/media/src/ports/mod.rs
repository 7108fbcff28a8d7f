//! Few UDP ports for many calls: pairs of sockets, an even port for RTP and the odd one after it for RTCP, each in one thread of the plane's.
//! They are opened when they are needed, and closed when they have had no calls for a while, with the next call.
//!
//! [`book`] says which port a call gets, [`demux`] whose a packet is that comes in.

pub mod book;
pub mod demux;
mod socket;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use self::book::Wanted;
use self::book::{Book, Choice, Place, calls_per_port};
use self::demux::Why;
pub use self::socket::{Sockets, note_times};

use crate::drops;
use crate::load::Load;
use crate::source::SourceFilter;

/// What a thread tells of itself: of packets that are no call's, and how busy it is.
#[derive(Debug, Default)]
pub struct Counts {
    pub(crate) load: Load,
    nobody: [AtomicU64; Why::ALL.len()],
    moves: AtomicU64,
}

impl Counts {
    /// A packet was dropped.
    pub fn nobody(&self, why: Why) {
        self.nobody[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A call's packets came from another address than before.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is known of all ports.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PortStats {
    /// Open pairs.
    pub pairs: usize,
    /// Calls on them.
    pub calls: usize,
    /// Bytes of the smallest receive buffer for RTP, the kernel's overhead included; 0 before one is open.
    pub receive_buffer: usize,
    /// How many calls a port has at most.
    pub calls_per_port: usize,
    /// Packets for RTP for which the kernel had no room.
    pub dropped_by_kernel: u64,
    /// Packets that were no call's, in the order of [`Why::ALL`].
    pub nobody: [u64; Why::ALL.len()],
    /// How often a call's packets came from another address than before.
    pub moves: u64,
    /// The share of its time that the busiest thread was busy for in the last second, 0 to 1.
    pub busy: f64,
}

struct State {
    book: Book,
    /// Inodes of the sockets for RTP, by address and port.
    inodes: HashMap<(IpAddr, u16), u64>,
    /// What the kernel dropped of sockets that are closed.
    dropped_before: u64,
    /// Which port of the range is looked at next.
    next: u32,
}

/// The ports of a plane.
#[derive(Clone)]
pub struct Ports {
    state: Arc<Mutex<State>>,
    /// Of each thread.
    counts: Arc<Vec<Arc<Counts>>>,
}

impl Ports {
    pub(crate) fn new(counts: Vec<Arc<Counts>>) -> Self {
        let state = State {
            book: Book::new(counts.len()),
            inodes: HashMap::new(),
            dropped_before: 0,
            // A pod that took over a node's address doesn't begin where its predecessor did.
            next: std::process::id().wrapping_mul(0x9e37_79b9) >> 8,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            counts: Arc::new(counts),
        }
    }

    /// A poisoned lock holds what was last noted, which is the truth.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call could sit on a port that is open.
    pub(crate) fn has_seat(&self, wanted: &Wanted) -> bool {
        self.state().book.fits(wanted, Instant::now())
    }

    /// A place for a call. `open` gives a thread a new pair of sockets under a number of its own, `close` has it drop one.
    ///
    /// # Errors
    /// No port can be bound, and the call fits on none that is open.
    pub(crate) fn seat(
        &self,
        wanted: &Wanted,
        open: impl Fn(usize, usize, Sockets),
        close: impl Fn(usize, usize),
    ) -> io::Result<Seat> {
        let mut state = self.state();
        let now = Instant::now();
        let unused = state.book.take_unused(wanted, now);
        state.forget(&unused);
        for pair in unused {
            close(pair.thread, pair.slot);
        }
        let place = match state.book.choose(wanted, now) {
            Choice::Here(place) => place,
            Choice::Open { thread, instead } => match state.bind(wanted) {
                Ok((port, sockets)) => {
                    let buffer = sockets.receive_buffer;
                    let pair = state.book.add(wanted.bind, port, thread, buffer);
                    let socket = (wanted.bind, port);
                    state
                        .inodes
                        .extend(sockets.inode.map(|inode| (socket, inode)));
                    let slot = state.book.pair(pair).map_or(0, |pair| pair.slot);
                    open(thread, slot, sockets);
                    state.book.sit(pair, wanted)
                }
                Err(error) => match instead {
                    Some(pair) => state.book.sit(pair, wanted),
                    None => return Err(error),
                },
            },
        };
        let (port, thread, slot) = state
            .book
            .pair(place.pair)
            .map(|pair| (pair.port, pair.thread, pair.slot))
            .unwrap_or_default();
        Ok(Seat {
            state: Arc::clone(&self.state),
            place,
            port,
            thread,
            slot,
        })
    }

    /// What is known of all ports now.
    pub fn stats(&self) -> PortStats {
        let drops: Vec<(u64, u64)> = drops::all().collect();
        let state = self.state();
        let dropped = State::dropped(state.inodes.values(), &drops);
        let pairs = state.book.pairs();
        let receive_buffer = pairs.map(|pair| pair.receive_buffer).min().unwrap_or(0);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let sum = |of: &dyn Fn(&Counts) -> u64| self.counts.iter().map(|counts| of(counts)).sum();
        PortStats {
            pairs: state.book.pairs().count(),
            calls: state.book.pairs().map(book::Pair::calls).sum(),
            receive_buffer,
            calls_per_port: if receive_buffer == 0 {
                0
            } else {
                calls_per_port(receive_buffer)
            },
            dropped_by_kernel: state.dropped_before + dropped,
            nobody: Why::ALL.map(|why| sum(&|counts| read(&counts.nobody[why as usize]))),
            moves: sum(&|counts| read(&counts.moves)),
            busy: {
                let now = Instant::now();
                let shares = self.counts.iter().map(|counts| counts.load.share(now));
                shares.fold(0.0, f64::max)
            },
        }
    }

    /// Whether all threads have been too slow for two seconds.
    pub fn are_full(&self) -> bool {
        let now = Instant::now();
        self.counts.iter().all(|counts| counts.load.is_full(now))
    }
}

impl State {
    /// Of closed sockets the kernel tells nothing any more.
    fn forget(&mut self, closing: &[book::Pair]) {
        let sockets = closing.iter().map(|pair| (pair.bind, pair.port));
        let inodes: Vec<u64> = sockets
            .filter_map(|socket| self.inodes.remove(&socket))
            .collect();
        if !inodes.is_empty() {
            self.dropped_before += Self::dropped(inodes.iter(), &drops::all().collect::<Vec<_>>());
        }
    }

    fn dropped<'a>(inodes: impl Iterator<Item = &'a u64>, drops: &[(u64, u64)]) -> u64 {
        let inodes: HashSet<u64> = inodes.copied().collect();
        let ours = drops.iter().filter(|(inode, _)| inodes.contains(inode));
        ours.map(|(_, dropped)| dropped).sum()
    }

    /// Binds a pair of the range that is not open.
    fn bind(&mut self, wanted: &Wanted) -> io::Result<(u16, Sockets)> {
        let (first, last) = wanted.range;
        let first = u32::from(first) + u32::from(first % 2);
        let pairs = (u32::from(last) + 1).saturating_sub(first) / 2;
        for _ in 0..pairs {
            let turn = self.next % pairs;
            self.next = self.next.wrapping_add(1);
            let Ok(port) = u16::try_from(first + turn * 2) else {
                continue;
            };
            if self.book.has(wanted.bind, port) {
                continue;
            }
            match Sockets::bind(wanted.bind, port) {
                Ok(sockets) => return Ok((port, sockets)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "every RTP port is taken",
        ))
    }
}

/// A call's place on a port. Dropped, it is free.
pub struct Seat {
    state: Arc<Mutex<State>>,
    place: Place,
    port: u16,
    thread: usize,
    slot: usize,
}

impl Seat {
    /// The port for RTP; the one after it is for RTCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The thread that has the sockets.
    pub(crate) fn thread(&self) -> usize {
        self.thread
    }

    /// What it calls them.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// What the call found of its source. Locks, so it is not for each packet.
    pub(crate) fn note(&self, source: &SourceFilter, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (sdp, confirmed) = (source.sdp(), source.confirmed());
        state.book.note(self.place, sdp, confirmed, now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.book.leave(self.place, Instant::now());
    }
}
