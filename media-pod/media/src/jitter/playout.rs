//! Makes the sound that is played next: decodes what is there, and fills what is missing.

use super::sound::Sample;
use super::store::Entry;
use super::{FRAME, JitterBuffer, Play};

/// The codec's own concealment is asked for so long.
const CODEC_CONCEALS: i64 = 200_000;
impl<S: Sample> JitterBuffer<S> {
    /// Decodes and conceals until so many samples wait, of which the first `frame` are played next. Without `conceal` only what is there.
    /// Whether something was made up for a loss.
    pub(super) fn fill(
        &mut self,
        play: &mut (impl Play<S> + ?Sized),
        needed: usize,
        frame: usize,
        conceal: bool,
    ) -> bool {
        let mut concealed = false;
        while self.sound.waiting() < needed {
            let Some(sync) = &mut self.sync else {
                break;
            };
            let next = sync.next;
            match self.store.first() {
                Some(entry) if entry.end() <= next => {
                    self.stats.late += 1;
                    self.store.pop();
                }
                Some(entry) if entry.start <= next => self.decode(play, &entry, frame),
                _ if !conceal => break,
                entry => {
                    let lacking = needed - self.sound.waiting();
                    concealed |= self.bridge(play, entry, lacking);
                }
            }
        }
        concealed
    }

    fn decode(&mut self, play: &mut (impl Play<S> + ?Sized), entry: &Entry, frame: usize) {
        let waiting = self.sound.waiting();
        let into = self.micros_of(self.ticks_of(waiting));
        let length = self.samples_of(entry.ticks);
        let Some(sync) = &mut self.sync else {
            return;
        };
        if waiting < frame {
            sync.residue.see(into);
        }
        let late = sync.next - entry.start;
        sync.next = entry.end();
        sync.missing = 0;
        sync.decoded = Some((entry.sequence, entry.ticks));
        play.decode(self.store.payload(entry), self.sound.extend(length));
        let late = self.samples_of(late).min(length);
        if late > 0 {
            self.sound.cut(length, late);
        }
        if self.concealer.is_active() {
            self.concealer.merge(&mut self.sound, length - late);
        }
        self.store.pop();
    }

    /// Fills what is missing before this packet (or what may come), at least `lacking` samples of it if it is so long. Whether that is sound
    /// in place of a loss.
    fn bridge(
        &mut self,
        play: &mut (impl Play<S> + ?Sized),
        entry: Option<Entry>,
        lacking: usize,
    ) -> bool {
        let Some(sync) = &self.sync else {
            return false;
        };
        let (next, missing, decoded) = (sync.next, sync.missing, sync.decoded);
        let gap = entry.map(|entry| (entry.start - next, entry));
        let samples = gap.map_or(lacking, |(gap, _)| self.samples_of(gap).min(lacking));
        // A pause of the sender (RFC 3551 section 4.1) leaves no hole in the sequence numbers.
        let lost = decoded.is_some_and(|(last, _)| {
            entry.is_none_or(|entry| entry.sequence != last.wrapping_add(1))
        });
        let codec = lost
            && self.conceals
            && !self.concealer.is_active()
            && self.micros_of(missing) < CODEC_CONCEALS;
        let mut silent = false;
        let made = if codec && let Some(made) = self.codec_conceals(play, gap, lacking) {
            made
        } else {
            if self.conceals && decoded.is_some() {
                self.concealer.conceal(&mut self.sound, samples);
                silent = self.concealer.is_silent();
            } else {
                self.sound.extend(samples);
                silent = !lost;
            }
            samples
        };
        let ticks = self.ticks_of(made);
        if let Some(sync) = &mut self.sync {
            // Less than a sample is no gap.
            sync.next = match gap {
                Some((_, entry)) if made == 0 => entry.start,
                _ => next + ticks,
            };
            sync.missing += ticks;
        }
        lost && (entry.is_some() || !silent)
    }

    /// Has the codec make up one packet, or whole tens of milliseconds of it. Gives how many samples it made.
    fn codec_conceals(
        &mut self,
        play: &mut (impl Play<S> + ?Sized),
        gap: Option<(i64, Entry)>,
        lacking: usize,
    ) -> Option<usize> {
        let (_, packet) = self.sync.as_ref()?.decoded?;
        let samples = match gap {
            Some((gap, _)) => self.samples_of(gap.min(packet)),
            None => lacking
                .next_multiple_of(self.samples_in(FRAME / 2))
                .min(self.samples_of(packet)),
        };
        if samples == 0 {
            return None;
        }
        let next = gap
            .filter(|(gap, _)| *gap <= packet)
            .map(|(_, entry)| self.store.payload(&entry));
        if play.conceal(next, self.sound.extend(samples)) {
            return Some(samples);
        }
        self.sound.cut(samples, samples);
        None
    }
}
