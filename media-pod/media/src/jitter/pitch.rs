//! Where a piece of sound is most like another one near it: a period of the voice's pitch before or after.

/// Shortest and longest lag, in halves of a millisecond: pitches of 400 to 66 Hz, as in G.711 appendix I.
const SHORTEST_HALVES: usize = 5;
const LONGEST_HALVES: usize = 30;
/// What is compared, in milliseconds.
pub const COMPARED_MILLIS: usize = 10;
/// Root mean square of sound in which a cut is not heard: -56 dB of full scale.
const QUIET: f32 = 50.0;

/// Which way to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// What came before.
    Past,
    /// What comes after.
    Future,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Match {
    /// How far away, in samples.
    pub lag: usize,
    /// Normalised correlation, at most 1.
    pub likeness: f32,
}

/// The longest lag in samples.
pub fn longest_lag(samples_per_milli: usize) -> usize {
    samples_per_milli * LONGEST_HALVES / 2
}

/// Whether it is as good as silent.
pub fn is_quiet(sound: &[f32]) -> bool {
    let power: f32 = sound.iter().map(|sample| sample * sample).sum();
    power <= QUIET * QUIET * sound.len() as f32
}

/// Looks for what is most like the 10 ms from `at` on. The caller sees to it that the sound reaches far enough.
pub fn find(sound: &[f32], at: usize, toward: Toward, samples_per_milli: usize) -> Match {
    // First at 4 kHz, as G.711 appendix I does it: nobody hears the difference, and where the network is at its worst for all calls at
    // once, this is most of what they cost.
    let stride = (samples_per_milli / 4).max(1);
    let length = COMPARED_MILLIS * samples_per_milli;
    let range = (
        samples_per_milli * SHORTEST_HALVES / 2,
        longest_lag(samples_per_milli),
    );
    let place = |lag| match toward {
        Toward::Past => at - lag,
        Toward::Future => at + lag,
    };
    let like = |lag: usize, stride| {
        let from = place(lag);
        correlate(&sound[at..at + length], &sound[from..from + length], stride)
    };
    let best = |lags: &mut dyn Iterator<Item = usize>, stride| {
        lags.map(|lag| Match {
            lag,
            likeness: like(lag, stride),
        })
        .max_by(|a, b| a.likeness.total_cmp(&b.likeness))
    };
    let none = Match {
        lag: range.0,
        likeness: 0.0,
    };
    let coarse = best(&mut (range.0..=range.1).step_by(stride), stride).unwrap_or(none);
    if stride == 1 {
        return coarse;
    }
    let (low, high) = (
        coarse.lag.saturating_sub(stride - 1).max(range.0),
        (coarse.lag + stride - 1).min(range.1),
    );
    best(&mut (low..=high), 1).unwrap_or(none)
}

fn correlate(a: &[f32], b: &[f32], stride: usize) -> f32 {
    // In lanes, for the processor to add up side by side.
    let mut lanes = [[0.0f32; 8]; 3];
    let pairs = a.chunks_exact(8 * stride).zip(b.chunks_exact(8 * stride));
    for (a, b) in pairs {
        for lane in 0..8 {
            let (a, b) = (a[lane * stride], b[lane * stride]);
            lanes[0][lane] += a * b;
            lanes[1][lane] += a * a;
            lanes[2][lane] += b * b;
        }
    }
    let [cross, a, b] = lanes.map(|lane| lane.iter().sum::<f32>());
    if a > 0.0 && b > 0.0 {
        cross / (a * b).sqrt()
    } else {
        0.0
    }
}

/// The sample at this place of a linear fade from one sound to another.
pub fn fade(from: f32, to: f32, at: usize, length: usize) -> f32 {
    let share = (at as f32 + 0.5) / length as f32;
    from * (1.0 - share) + to * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_period_of_a_voice_both_ways_at_every_rate() {
        for samples_per_milli in [8, 16, 48] {
            let rate = samples_per_milli as f32 * 1000.0;
            let sound: Vec<f32> = (0..samples_per_milli * 60)
                .map(|n| {
                    let phase = n as f32 / rate * 125.0 * std::f32::consts::TAU;
                    8000.0 * (phase.sin() + 0.7 * (2.0 * phase).sin() + 0.5 * (5.0 * phase).cos())
                })
                .collect();
            for toward in [Toward::Past, Toward::Future] {
                let found = find(&sound, 25 * samples_per_milli, toward, samples_per_milli);
                assert_eq!(found.lag, 8 * samples_per_milli, "{toward:?}");
                assert!(found.likeness > 0.99);
            }
        }
    }

    #[test]
    fn tells_silence_from_sound() {
        assert!(is_quiet(&[20.0; 80]));
        assert!(!is_quiet(&[200.0; 80]));
    }
}
