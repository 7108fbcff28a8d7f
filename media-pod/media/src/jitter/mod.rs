//! Adaptive jitter buffer: packets of any size and order in, one 20 ms frame on every tick out.
//!
//! Payloads wait as they came (`store`) and are decoded in the order in which they are played, just in time. How long they wait follows
//! from how late packets have been lately (`delay`), and is changed in two ways: by asking for the next frame a little sooner or later
//! ([`JitterBuffer::pop`] says so), and by leaving out or repeating a period of the voice's pitch (`stretch`). The latter makes up for a
//! sender whose clock is not ours, too. What does not come in time is concealed (`conceal`). G.711 is not decoded at all while nothing of this happens.
//!
//! Or nothing waits that is there, and frames are asked for when packets come (`arrival`): then only what is missing is waited for.
//!
//! Memory is fixed after the first packets, losses and changes: less than 10 KB for G.711.

mod arrival;
mod conceal;
mod control;
mod delay;
mod pitch;
mod play;
mod playout;
mod sequence;
mod sound;
mod store;
mod stretch;

use std::time::{Duration, Instant};

pub use arrival::PATIENCE;
use arrival::Patience;
use conceal::Concealer;
use control::Residue;
use delay::DelayModel;
pub use play::{Play, Ulaw};
use sequence::Sequences;
pub use sound::Sample;
use sound::Sound;
use store::{MAX_PAYLOAD, Store};
use stretch::Stretcher;

/// Longest delay, also of a fixed buffer.
pub const MAX_DELAY_MILLIS: u32 = 200;
const MAX_DELAY: i64 = MAX_DELAY_MILLIS as i64 * 1000;
/// Longest packet that is taken, in milliseconds.
const MAX_PACKET: i64 = 256;
/// How far ahead of what is played a packet may be, in milliseconds; beyond it another stream has begun.
const SPAN: i64 = 512;
/// Late packets in a row after which the sender, not the network, has changed ...
const LATE_RUN: u32 = 3;
/// ... provided that they came over at least this time: a burst after a stall of the network is late too, but over at once.
const LATE_TIME: Duration = Duration::from_millis(40);
/// A timestamp so many milliseconds in the past is a new stream; one less far may be a burst after a stall.
const FAR_BEHIND: i64 = 60_000;

/// Times are in microseconds from here on. One frame.
const FRAME: i64 = 20_000;

/// How long packets are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// As long as the network makes it necessary, up to 200 ms.
    Adaptive,
    /// So many milliseconds, 0–200, and up to a frame more.
    Fixed(u32),
    /// Not at all: frames are asked for as soon as [`JitterBuffer::is_ready`], or at the [`JitterBuffer::deadline`] of what is missing.
    OnArrival,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Its sound, or what of it is still in time, will be played.
    Stored,
    /// The play-out had passed it.
    Late,
    /// Its sequence number was seen before.
    Duplicate,
}

/// Where and when a packet belongs.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Synchronisation source; a change starts anew.
    pub ssrc: u32,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp of the first sample.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct JitterStats {
    /// Packets that came after their play-out.
    pub late: u64,
    /// Packets received more than once.
    pub duplicates: u64,
    /// Frames of 20 ms with sound made up for packets that were not there in time.
    pub concealed: u64,
    /// How often sound was made shorter or longer.
    pub corrections: u64,
    /// How much later than the fastest packet of the last seconds one is played now, in milliseconds.
    pub delay_millis: f64,
    /// The same on average, over the frames that had sound.
    pub mean_delay_millis: f64,
}

/// The buffer of one received stream. Its samples are µ-law (`u8`) or linear (`i16`).
#[derive(Debug)]
pub struct JitterBuffer<S> {
    delay: Delay,
    conceals: bool,
    ticks_per_milli: i64,
    samples_per_milli: i64,
    epoch: Option<Instant>,
    store: Store,
    sound: Sound<S>,
    model: DelayModel,
    concealer: Concealer,
    stretcher: Stretcher,
    sync: Option<Sync>,
    stats: JitterStats,
    /// Of the last frame, in microseconds, and the sum and number of those with sound.
    now_delayed: i64,
    delays: (i64, u64),
    /// Ticks of the last two packets.
    lengths: (i64, i64),
    /// By how much frames are asked for later than at first.
    phase: i64,
    /// When the next frame is due, once one was asked for.
    next_due: Option<i64>,
    /// Frames since sound was last made shorter or longer.
    unchanged: u32,
    patience: Patience,
}

/// State that a resynchronisation replaces as a whole. Times are extended timestamps.
#[derive(Debug)]
struct Sync {
    ssrc: u32,
    last_timestamp: u32,
    last_extended: i64,
    /// What follows the sound that waits.
    next: i64,
    /// How much of the sound just before it is made up, up to the last packet.
    missing: i64,
    /// The last packet decoded, and its ticks.
    decoded: Option<(u16, i64)>,
    residue: Residue,
    fresh: bool,
    sequences: Sequences,
    late_run: u32,
    /// Arrival of the first packet of the run.
    late_since: Instant,
}

impl JitterBuffer<u8> {
    /// A buffer for µ-law.
    pub fn ulaw(delay: Delay) -> Self {
        Self::new(delay, 8000, 8000)
    }
}

impl<S: Sample> JitterBuffer<S> {
    /// A buffer for a codec with this clock of its timestamps and this sample rate, both in Hertz and whole thousands.
    pub fn new(delay: Delay, clock_rate: u32, sample_rate: u32) -> Self {
        let samples_per_milli = (sample_rate / 1000).max(8);
        let samples = samples_per_milli as usize;
        Self {
            delay: match delay {
                Delay::Fixed(millis) => Delay::Fixed(millis.min(MAX_DELAY_MILLIS)),
                Delay::Adaptive | Delay::OnArrival => delay,
            },
            conceals: true,
            ticks_per_milli: i64::from((clock_rate / 1000).max(1)),
            samples_per_milli: samples_per_milli.into(),
            epoch: None,
            store: Store::new(),
            sound: Sound::new(samples),
            model: DelayModel::new(),
            concealer: Concealer::new(samples),
            stretcher: Stretcher::new(samples),
            sync: None,
            stats: JitterStats::default(),
            now_delayed: 0,
            delays: (0, 0),
            lengths: (0, 0),
            phase: 0,
            next_due: None,
            unchanged: 0,
            patience: Patience::default(),
        }
    }

    /// The same with silence for what is missing, to compare with.
    #[must_use]
    pub fn without_concealment(self) -> Self {
        Self {
            conceals: false,
            ..self
        }
    }

    /// Forgets the stream, so that the next packet starts anew; counts and what is known of the network stay.
    pub fn reset(&mut self) {
        self.sync = None;
        self.store.clear();
        self.sound.reset();
        self.concealer.stop();
    }

    /// What has happened so far.
    pub fn stats(&self) -> JitterStats {
        let (sum, count) = self.delays;
        JitterStats {
            delay_millis: self.now_delayed as f64 / 1000.0,
            mean_delay_millis: sum as f64 / count.max(1) as f64 / 1000.0,
            ..self.stats
        }
    }

    /// The extended timestamp of the next sample to be played, for measurements from outside.
    pub fn position(&self) -> Option<i64> {
        let waiting = self.ticks_of(self.sound.waiting());
        self.sync.as_ref().map(|sync| sync.next - waiting)
    }

    fn ticks_of(&self, samples: usize) -> i64 {
        samples.cast_signed() as i64 * self.ticks_per_milli / self.samples_per_milli
    }

    fn samples_of(&self, ticks: i64) -> usize {
        (ticks * self.samples_per_milli / self.ticks_per_milli).max(0) as usize
    }

    fn micros_of(&self, ticks: i64) -> i64 {
        ticks * 1000 / self.ticks_per_milli
    }

    fn ticks_in(&self, micros: i64) -> i64 {
        micros * self.ticks_per_milli / 1000
    }

    fn samples_in(&self, micros: i64) -> usize {
        (micros.max(0) * self.samples_per_milli / 1000) as usize
    }

    /// How long it is until the next frame is due.
    fn until_next(&self, clock: i64) -> i64 {
        let due = self.next_due.unwrap_or(clock);
        (due - clock).clamp(0, FRAME)
    }

    fn clock(&mut self, now: Instant) -> i64 {
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_micros() as i64
    }

    /// Takes one packet. `ticks` is how long it plays, by the clock of its timestamps.
    pub fn insert(
        &mut self,
        at: Position,
        ticks: u32,
        payload: impl ExactSizeIterator<Item = u8>,
        now: Instant,
    ) -> Insert {
        let length = i64::from(ticks);
        if length == 0
            || length > MAX_PACKET * self.ticks_per_milli
            || payload.len() > MAX_PAYLOAD
            || payload.len() == 0
        {
            return Insert::Stored;
        }
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.ssrc == at.ssrc) else {
            return self.restart(at, length, payload, now);
        };
        if sync.sequences.is_duplicate(at.sequence) {
            self.stats.duplicates += 1;
            return Insert::Duplicate;
        }
        let step = at.timestamp.wrapping_sub(sync.last_timestamp).cast_signed();
        let start = sync.last_extended + i64::from(step);
        let (ahead, behind) = (
            SPAN * self.ticks_per_milli,
            FAR_BEHIND * self.ticks_per_milli,
        );
        if start + length > sync.next + ahead || start + behind < sync.next {
            return self.restart(at, length, payload, now);
        }
        let clock = self.clock(now);
        self.model
            .record(clock - self.micros_of(start + length), clock);
        self.take_length(length);
        match self.delay {
            Delay::OnArrival => self.take_place(start, at.sequence, length, clock),
            Delay::Adaptive | Delay::Fixed(_) => self.make_time(start, at.marker),
        }
        let Some(sync) = self.sync.as_mut() else {
            return Insert::Late;
        };
        if start + length <= sync.next {
            if sync.late_run == 0 {
                sync.late_since = now;
            }
            sync.late_run += 1;
            let lasts = now.saturating_duration_since(sync.late_since) >= LATE_TIME;
            if at.marker || (sync.late_run >= LATE_RUN && lasts) {
                return self.restart(at, length, payload, now);
            }
            self.stats.late += 1;
            return Insert::Late;
        }
        sync.late_run = 0;
        if step > 0 {
            sync.last_timestamp = at.timestamp;
            sync.last_extended = start;
        }
        self.store.put(start, length, at.sequence, payload);
        Insert::Stored
    }

    /// Transits are those of a packet's end, for it is sent then. Its beginning has waited for its length.
    fn take_length(&mut self, length: i64) {
        let before = self.lengths.0.max(self.lengths.1);
        self.lengths = (self.lengths.1, length);
        let longer = self.lengths.0.max(self.lengths.1) - before;
        self.now_delayed -= self.micros_of(longer);
    }

    /// A packet comes after a pause: then the delay may be changed, and packets and frames put in step, for nothing. Or one is late, and what
    /// follows it has not been played: it is, if the delay is to be longer anyhow, or if there was only silence in its place.
    fn make_time(&mut self, start: i64, begins_spurt: bool) {
        let room = self.ticks_in((MAX_DELAY - self.now_delayed).max(0));
        let excess = self.excess();
        let pause = self.concealer.is_silent() && self.store.first().is_none();
        let position = self.position().unwrap_or(start);
        let until = self.micros_of(start - position);
        let Some(sync) = self.sync.as_mut().filter(|_| self.delay == Delay::Adaptive) else {
            return;
        };
        let back = sync.next - start;
        if pause && back <= 0 {
            let wait = (until - excess + FRAME / 2).max(0) / FRAME * FRAME;
            sync.next += (until - wait) * self.ticks_per_milli / 1000;
            self.now_delayed -= until - wait;
        } else if back > 0 && back <= sync.missing {
            let most = if begins_spurt {
                room
            } else {
                room.min((-excess).max(0) * self.ticks_per_milli / 1000)
            };
            let back = back.min(most);
            sync.next -= back;
            sync.missing -= back;
            self.now_delayed += back * 1000 / self.ticks_per_milli;
        }
    }

    fn restart(
        &mut self,
        at: Position,
        length: i64,
        payload: impl ExactSizeIterator<Item = u8>,
        now: Instant,
    ) -> Insert {
        let start = i64::from(at.timestamp);
        let clock = self.clock(now);
        self.model
            .restart(clock - self.micros_of(start + length), clock);
        self.lengths = (length, length);
        let delay = match self.delay {
            Delay::Fixed(millis) => i64::from(millis) * 1000,
            // In step with the frames: the packet waits for the next one anyhow, and then for whole frames, as near to what is necessary as
            // that makes possible.
            Delay::Adaptive => {
                let missing = self.necessary() - self.until_next(clock);
                (missing + FRAME / 2).div_euclid(FRAME).max(0) * FRAME
            }
            Delay::OnArrival => 0,
        };
        self.now_delayed = delay;
        self.sync = Some(Sync {
            ssrc: at.ssrc,
            last_timestamp: at.timestamp,
            last_extended: start,
            next: start - self.ticks_in(delay) + self.ticks_of(self.sound.waiting()),
            missing: 0,
            decoded: None,
            residue: Residue::new(0),
            fresh: true,
            sequences: Sequences::new(at.sequence),
            late_run: 0,
            late_since: now,
        });
        self.store.clear();
        self.store.put(start, length, at.sequence, payload);
        Insert::Stored
    }

    /// Plays the next 20 ms into `frame`. To be called once every 20 ms, also while nothing arrives; `now` is when this frame is due. Gives
    /// by how many microseconds the next one should be later (negative: sooner, by 1 ms at most), never more than 20 ms in all, and 0 without an
    /// adaptive delay.
    pub fn pop(
        &mut self,
        play: &mut (impl Play<S> + ?Sized),
        frame: &mut [S],
        now: Instant,
    ) -> i64 {
        let clock = self.clock(now);
        self.next_due = Some(clock + FRAME);
        let Some(position) = self.position() else {
            frame.fill(S::SILENCE);
            return 0;
        };
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.fresh) {
            sync.fresh = false;
            play.reset();
        }
        let packet = self.lengths.0.max(self.lengths.1);
        self.now_delayed = clock - self.micros_of(position + packet) - self.model.base();
        self.limit_delay();
        let excess = self.excess();
        self.unchanged = self.unchanged.saturating_add(1);
        let heard = self
            .sync
            .as_ref()
            .is_some_and(|sync| sync.missing == 0 && sync.decoded.is_some());
        if heard {
            self.delays.0 += self.now_delayed;
            self.delays.1 += 1;
            self.change_length(play, excess, frame.len());
        }
        if self.fill(play, frame.len(), frame.len(), true) {
            self.stats.concealed += 1;
        }
        self.sound.play(frame);
        let shift = if heard { self.shift(excess) } else { 0 };
        self.next_due = Some(clock + FRAME + shift);
        shift
    }

    /// Passes over `frames` frames that the caller was too late to play: an adaptive buffer rather plays them later.
    pub fn skip(&mut self, frames: u64) {
        let micros = frames.min(1 << 32).cast_signed() * FRAME;
        let room = match self.delay {
            Delay::Adaptive => (MAX_DELAY - self.now_delayed).max(0),
            Delay::Fixed(_) | Delay::OnArrival => 0,
        };
        let ticks = self.ticks_in((micros - room).max(0));
        if let Some(sync) = &mut self.sync {
            sync.next += ticks;
            if ticks > 0 {
                sync.missing = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
