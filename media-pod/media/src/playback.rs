//! What the agent wants played: a queue of audio with marks in it, taken out one frame per packet.
//!
//! A talk spurt begins when its first audio has waited for as long as the cushion is, or when so much is at hand: then an agent in real
//! time may be late by that, and nobody hears it. Agents send faster than real time; this queue is where the audio waits. Its bound is
//! 120 s, beyond which the newest audio is dropped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::format::Format;

/// Milliseconds that the queue holds, and bytes, where those would be more.
pub const MAX_QUEUED: usize = 120_000;
const MAX_BYTES: usize = 4 << 20;
/// Marks that may wait at the same time.
pub const MAX_MARKS: usize = 256;
/// Milliseconds of which an empty queue keeps the memory: half a second more than an agent in real time needs.
const KEPT: usize = 1000;

/// What a tick takes from the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing to play.
    Silence,
    /// A frame; `first` after silence.
    Audio {
        /// Whether a talk spurt starts here.
        first: bool,
    },
}

/// Moves the first bytes of a queue, which has so many, to where they are wanted.
pub fn take_front(queue: &mut VecDeque<u8>, out: &mut [u8]) {
    let (begin, end) = queue.as_slices();
    let (first, second) = out.split_at_mut(begin.len().min(out.len()));
    first.copy_from_slice(&begin[..first.len()]);
    second.copy_from_slice(&end[..second.len()]);
    queue.drain(..out.len());
}

#[derive(Debug)]
pub struct Playback {
    format: Format,
    cushion: Duration,
    audio: VecDeque<u8>,
    marks: VecDeque<(u64, String)>,
    /// Bytes ever queued; a mark's place is this number when it came.
    queued: u64,
    /// Bytes ever played or cleared.
    played: u64,
    overflowing: bool,
    talking: bool,
    /// When the next talk spurt begins.
    talk_at: Option<Instant>,
}

impl Playback {
    /// An empty queue.
    pub fn new(format: Format, cushion: Duration) -> Self {
        Self {
            format,
            cushion,
            audio: VecDeque::new(),
            marks: VecDeque::new(),
            queued: 0,
            played: 0,
            overflowing: false,
            talking: false,
            talk_at: None,
        }
    }

    /// In what it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// So many milliseconds in bytes.
    fn bytes(&self, millis: usize) -> usize {
        millis * self.format.bytes_per_milli()
    }

    /// Bytes that it holds.
    fn most(&self) -> usize {
        self.bytes(MAX_QUEUED).min(MAX_BYTES)
    }

    /// Queues audio; true if some was dropped and this is the first time since the queue was last half empty.
    pub fn play(&mut self, audio: &[u8], now: Instant) -> bool {
        let room = self.most() - self.audio.len();
        let taken = audio.len().min(room);
        self.audio.extend(&audio[..taken]);
        self.queued += taken as u64;
        let overflows = taken < audio.len();
        let first = overflows && !self.overflowing;
        self.overflowing |= overflows;
        if !self.talking && !self.audio.is_empty() {
            let at = *self.talk_at.get_or_insert(now + self.cushion);
            let enough = self.format.frame_bytes() + self.bytes(self.cushion.as_millis() as usize);
            if self.audio.len() >= enough {
                self.talk_at = Some(at.min(now));
            }
        }
        first
    }

    /// Whether nothing is to wait here.
    pub fn is_instant(&self) -> bool {
        self.cushion.is_zero()
    }

    /// Whether a whole frame waits.
    pub fn has_frame(&self) -> bool {
        self.audio.len() >= self.format.frame_bytes()
    }

    /// When a talk spurt begins, if a frame waits for that.
    pub fn begins_at(&self) -> Option<Instant> {
        self.talk_at.filter(|_| !self.talking && self.has_frame())
    }

    /// Queues a mark behind the audio so far. Gives it back at once if nothing waits, or if too many wait (an agent that
    /// sends marks without audio in between).
    pub fn mark(&mut self, name: String) -> Option<String> {
        if (self.audio.is_empty() && self.marks.is_empty()) || self.marks.len() >= MAX_MARKS {
            return Some(name);
        }
        self.marks.push_back((self.queued, name));
        None
    }

    /// Drops all audio; the marks in it come out of `next_mark` as played.
    pub fn clear(&mut self) {
        self.audio.clear();
        self.played = self.queued;
        self.talking = false;
        self.talk_at = None;
        self.overflowing = false;
        self.release();
    }

    /// Takes a frame for a packet that leaves now.
    pub fn take(&mut self, frame: &mut [u8], now: Instant) -> Taken {
        if self.audio.is_empty() {
            self.talking = false;
            self.talk_at = None;
            return Taken::Silence;
        }
        if !self.talking && self.talk_at.is_none_or(|at| at > now) {
            return Taken::Silence;
        }
        let first = !self.talking;
        let length = self.audio.len().min(frame.len());
        take_front(&mut self.audio, &mut frame[..length]);
        frame[length..].fill(self.format.silence());
        self.played += length as u64;
        self.talking = true;
        if self.audio.len() < self.most() / 2 {
            self.overflowing = false;
        }
        if self.audio.is_empty() {
            self.release();
        }
        Taken::Audio { first }
    }

    /// The next mark whose audio has been played.
    pub fn next_mark(&mut self) -> Option<String> {
        if self.marks.front()?.0 > self.played {
            return None;
        }
        self.marks.pop_front().map(|(_, name)| name)
    }

    /// Milliseconds that wait.
    pub fn queued_millis(&self) -> usize {
        self.audio.len() / self.format.bytes_per_milli()
    }

    /// Gives the memory of a long queue back once it has been played.
    fn release(&mut self) {
        let kept = self.bytes(KEPT);
        if self.audio.capacity() > kept {
            self.audio.shrink_to(kept);
        }
    }
}
