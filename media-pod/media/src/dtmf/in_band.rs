//! Keys as tones in the audio (ITU-T Q.23), for callers whose side offers no telephone events.
//!
//! Sound is looked at in blocks of 12.75 ms with Goertzel's algorithm, one filter a tone: short enough that two whole blocks lie in the
//! shortest key that has to be heard, 40 ms, and wide enough (78 Hz) for tones that are off by the 1.5 % of Q.24. A key counts once two
//! blocks in a row have it, and again only after two that have not, so a gap of 40 ms parts two keys and a click of 10 ms does not.

use super::DIGITS;
use crate::format::{Format, MOST_SAMPLES};
use crate::resample::Resampler;

/// Samples of one block, at 8 kHz.
const BLOCK: usize = 102;
const BLOCK_SAMPLES: f32 = 102.0;
/// Rows and columns of the keypad, in hertz.
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
/// The keys where they cross, as numbers of telephone events: indices of [`DIGITS`].
const KEYS: [[u8; 4]; 4] = [[1, 2, 3, 12], [4, 5, 6, 13], [7, 8, 9, 14], [10, 0, 11, 15]];
/// Either tone has to have at least this amplitude of 32,768: -42 dBm0.
const QUIETEST: f32 = 185.0;
/// How much stronger the row may be than the column, and the column than the row: 8 and 4 dB, with 1 dB to spare (Q.24 for North America).
const ROW_ABOVE_COLUMN: f32 = 7.9;
const COLUMN_ABOVE_ROW: f32 = 3.2;
/// By how much a tone has to stand out from the others of its group: 8 dB.
const ABOVE_OTHERS: f32 = 6.3;
/// The share of the block's energy that is in the two tones. Speech that happens to have both has more beside them.
const SHARE: f32 = 0.7;
/// Blocks in a row that make or end a key.
const BLOCKS: u8 = 2;

/// Looks for keys in one caller's audio.
#[derive(Debug)]
pub struct Detector {
    rows: [Goertzel; 4],
    columns: [Goertzel; 4],
    energy: f32,
    samples: usize,
    /// What the last block had, and how many in a row had it.
    last: (Option<u8>, u8),
    /// The key that is being pressed.
    pressed: Option<u8>,
    /// Blocks since it was last there.
    absent: u8,
}

/// One filter (Goertzel 1958): after a block, how much of the tone was in it.
#[derive(Debug, Clone, Copy)]
struct Goertzel {
    coefficient: f32,
    before: [f32; 2],
}

impl Goertzel {
    fn new(hertz: f32) -> Self {
        let angle = 2.0 * std::f32::consts::PI * hertz / 8000.0;
        Self {
            coefficient: 2.0 * angle.cos(),
            before: [0.0; 2],
        }
    }

    fn take(&mut self, sample: f32) {
        let [last, older] = self.before;
        self.before = [self.coefficient * last - older + sample, last];
    }

    /// The square of the tone's amplitude; the next block begins.
    fn finish(&mut self) -> f32 {
        let [last, older] = std::mem::take(&mut self.before);
        let power = last * last + older * older - self.coefficient * last * older;
        power * (2.0 / BLOCK_SAMPLES) * (2.0 / BLOCK_SAMPLES)
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            rows: ROWS.map(Goertzel::new),
            columns: COLUMNS.map(Goertzel::new),
            energy: 0.0,
            samples: 0,
            last: (None, 0),
            pressed: None,
            absent: 0,
        }
    }
}

/// Looks for keys in sound of any format.
#[derive(Debug)]
pub struct Listener {
    format: Format,
    detector: Detector,
    /// None for sound at 8 kHz.
    resampler: Option<Resampler>,
}

impl Listener {
    /// One for such sound.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            detector: Detector::default(),
            resampler: Resampler::between(format.rate(), Format::Ulaw.rate()),
        }
    }

    /// Listens to a frame, and tells the keys in it, see [`Detector::listen`].
    pub fn listen(&mut self, frame: &[u8], tell: impl FnMut(char)) {
        let Self {
            format,
            detector,
            resampler,
        } = self;
        let (mut sound, mut narrow) = ([0; MOST_SAMPLES], [0; MOST_SAMPLES]);
        let count = format.decode(frame, &mut sound);
        let samples = match resampler {
            None => &sound[..count],
            Some(resampler) => {
                let count = resampler.process(&sound[..count], &mut narrow);
                &narrow[..count]
            }
        };
        let keys = samples.iter().filter_map(|sample| detector.listen(*sample));
        keys.for_each(tell);
    }
}

impl Detector {
    /// Listens to one more sample, 16-bit linear at 8 kHz. Gives a key when it is sure of it, while it is still pressed.
    pub fn listen(&mut self, sample: i16) -> Option<char> {
        let sample = f32::from(sample);
        self.energy += sample * sample;
        for filter in self.rows.iter_mut().chain(&mut self.columns) {
            filter.take(sample);
        }
        self.samples += 1;
        if self.samples < BLOCK {
            return None;
        }
        self.samples = 0;
        let heard = self.judge();
        self.note(heard)
    }

    /// The key in the block that is complete.
    fn judge(&mut self) -> Option<u8> {
        let energy = std::mem::take(&mut self.energy);
        let (row, strong_row) = strongest(&mut self.rows);
        let (column, strong_column) = strongest(&mut self.columns);
        let (row_power, column_power) = (strong_row?, strong_column?);
        let loud = row_power.min(column_power) >= QUIETEST * QUIETEST;
        let balanced = row_power <= column_power * ROW_ABOVE_COLUMN
            && column_power <= row_power * COLUMN_ABOVE_ROW;
        // A tone's mean square is half the square of its amplitude.
        let tones = (row_power + column_power) * BLOCK_SAMPLES / 2.0;
        (loud && balanced && tones >= energy * SHARE).then_some(KEYS[row][column])
    }

    fn note(&mut self, heard: Option<u8>) -> Option<char> {
        self.last = match self.last {
            (before, count) if before == heard => (heard, count.saturating_add(1)),
            _ => (heard, 1),
        };
        if heard.is_some() && heard == self.pressed {
            self.absent = 0;
            return None;
        }
        self.absent = self.absent.saturating_add(1);
        if self.absent >= BLOCKS {
            self.pressed = None;
        }
        let (Some(key), BLOCKS..) = self.last else {
            return None;
        };
        self.pressed = Some(key);
        self.absent = 0;
        Some(char::from(DIGITS[usize::from(key)]))
    }
}

/// Which filter has most, and how much if it stands out from the others.
fn strongest(filters: &mut [Goertzel; 4]) -> (usize, Option<f32>) {
    let powers = filters.each_mut().map(Goertzel::finish);
    let mut best = 0;
    for (index, power) in powers.iter().enumerate() {
        if *power > powers[best] {
            best = index;
        }
    }
    let stands_out = powers
        .iter()
        .enumerate()
        .all(|(index, power)| index == best || power * ABOVE_OTHERS <= powers[best]);
    (best, stands_out.then_some(powers[best]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: f32 = 8_000.0;

    /// Two tones for so many milliseconds; amplitudes of row and column.
    fn tones(key: char, millis: usize, (row, column): (f32, f32), off: f32) -> Vec<i16> {
        let code = DIGITS.iter().position(|digit| char::from(*digit) == key);
        let code = code.unwrap() as u8;
        let (row_hertz, column_hertz) = (0..4)
            .flat_map(|row| (0..4).map(move |column| (row, column)))
            .find(|(row, column)| KEYS[*row][*column] == code)
            .map(|(row, column)| (ROWS[row], COLUMNS[column]))
            .unwrap();
        (0..millis * 8)
            .map(|at| {
                let angle = 2.0 * std::f32::consts::PI * at as f32 / 8000.0 * off;
                let value = row * (angle * row_hertz).sin() + column * (angle * column_hertz).sin();
                value as i16
            })
            .collect()
    }

    fn silence(millis: usize) -> Vec<i16> {
        vec![0; millis * 8]
    }

    fn heard(sound: impl IntoIterator<Item = i16>) -> String {
        let mut detector = Detector::default();
        let keys = sound.into_iter().filter_map(|it| detector.listen(it));
        keys.collect()
    }

    /// Some noise that is the same every time, of this amplitude.
    fn noise(amplitude: f32, length: usize) -> Vec<f32> {
        let mut state = 12_345_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            amplitude * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn every_key_is_heard_once_wherever_the_blocks_begin() {
        for offset in 0..13 {
            let sound = DIGITS.iter().flat_map(|digit| {
                let key = char::from(*digit);
                [tones(key, 40, (LOUD, LOUD), 1.0), silence(40)].concat()
            });
            let sound = silence(offset).into_iter().chain(sound);
            assert_eq!(heard(sound), "0123456789*#ABCD", "{offset} ms");
        }
    }

    #[test]
    fn a_key_that_is_held_is_one_and_the_same_key_twice_is_two() {
        assert_eq!(heard(tones('5', 3_000, (LOUD, LOUD), 1.0)), "5");
        let twice = [
            tones('5', 60, (LOUD, LOUD), 1.0),
            silence(45),
            tones('5', 60, (LOUD, LOUD), 1.0),
            silence(20),
        ];
        assert_eq!(heard(twice.concat()), "55");
    }

    #[test]
    fn a_key_survives_a_click_and_is_too_short_at_15_ms() {
        let mut clicked = tones('8', 200, (LOUD, LOUD), 1.0);
        clicked[800..860].fill(0);
        assert_eq!(heard(clicked), "8");
        for offset in 0..13 {
            let short = [
                silence(offset),
                tones('8', 15, (LOUD, LOUD), 1.0),
                silence(50),
            ];
            assert_eq!(heard(short.concat()), "");
        }
    }

    #[test]
    fn tones_may_be_quiet_off_and_uneven_within_the_limits() {
        for off in [0.985, 1.015] {
            assert_eq!(heard(tones('A', 80, (LOUD, LOUD), off)), "A", "{off}");
            assert_eq!(heard(tones('1', 80, (LOUD, LOUD), off)), "1", "{off}");
        }
        assert_eq!(heard(tones('D', 80, (260.0, 260.0), 1.0)), "D");
        // 8 dB and 4 dB.
        assert_eq!(heard(tones('4', 80, (LOUD, LOUD / 2.5), 1.0)), "4");
        assert_eq!(heard(tones('4', 80, (LOUD / 1.58, LOUD), 1.0)), "4");
        // Far beyond.
        assert_eq!(heard(tones('4', 80, (LOUD, LOUD / 8.0), 1.0)), "");
        assert_eq!(heard(tones('4', 80, (LOUD / 4.0, LOUD), 1.0)), "");
        assert_eq!(heard(tones('4', 80, (40.0, 40.0), 1.0)), "");
        assert_eq!(heard(tones('4', 80, (LOUD, LOUD), 1.07)), "");
    }

    #[test]
    fn noise_of_15_db_less_does_not_hide_a_key() {
        // The two tones have LOUD² of power, the noise a third of its amplitude's square.
        let noise = noise(LOUD * 0.3, 80 * 8);
        let sound = tones('9', 80, (LOUD, LOUD), 1.0);
        let both = sound.iter().zip(noise).map(|(tone, it)| tone + it as i16);
        assert_eq!(heard(both), "9");
    }

    #[test]
    fn neither_noise_nor_voices_nor_other_tones_are_keys() {
        assert_eq!(
            heard(noise(20_000.0, 80_000).iter().map(|it| *it as i16)),
            ""
        );
        // Dial, busy and ringing tones, and one tone of a key alone.
        for hertz in [
            [425.0, 0.0],
            [350.0, 440.0],
            [480.0, 620.0],
            [697.0, 0.0],
            [0.0, 1336.0],
        ] {
            let sound = (0..16_000).map(|at| {
                let angle = 2.0 * std::f32::consts::PI * at as f32 / 8000.0;
                (hertz.iter().map(|it| (angle * it).sin()).sum::<f32>() * LOUD) as i16
            });
            assert_eq!(heard(sound), "", "{hertz:?}");
        }
        // Something like a voice: a gliding fundamental with twenty harmonics.
        let mut phase = 0.0;
        let voice = (0..160_000).map(|at| {
            let fundamental = 160.0 + 60.0 * (at as f32 / 4_000.0).sin();
            phase += 2.0 * std::f32::consts::PI * fundamental / 8000.0;
            let harmonics = (1..=20).map(|n| (phase * n as f32).sin() / n as f32);
            (harmonics.sum::<f32>() * LOUD) as i16
        });
        assert_eq!(heard(voice), "");
    }
}
