//! How well it filters, measured with tones.

use super::*;

const RATES: [u32; 4] = [8000, 16_000, 24_000, 48_000];

fn pairs() -> impl Iterator<Item = (u32, u32)> {
    RATES
        .into_iter()
        .flat_map(|from| RATES.map(|to| (from, to)))
        .filter(|(from, to)| from != to)
}

fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<i16> {
    let count = (f64::from(rate) * seconds) as usize;
    let sample = |n: usize| {
        let angle = 2.0 * PI * hertz * n as f64 / f64::from(rate);
        (20_000.0 * angle.sin()).round() as i16
    };
    (0..count).map(sample).collect()
}

fn resample(from: u32, to: u32, input: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to).unwrap();
    let mut output = vec![0; input.len() * to as usize / from as usize + 1];
    let made = resampler.process(input, &mut output);
    output.truncate(made);
    output
}

/// Level of what is left of a tone of this frequency, and of all else, in dB under the tone that went in.
fn levels(sound: &[i16], rate: u32, hertz: f64) -> (f64, f64) {
    // Whole seconds, behind where it settles.
    let settled = &sound[rate as usize / 10..][..rate as usize / 2];
    let (mut sine, mut cosine, mut power) = (0.0, 0.0, 0.0);
    for (n, sample) in settled.iter().enumerate() {
        let angle = 2.0 * PI * hertz * n as f64 / f64::from(rate);
        let sample = f64::from(*sample);
        sine += sample * angle.sin();
        cosine += sample * angle.cos();
        power += sample * sample;
    }
    let count = settled.len() as f64;
    let own = 4.0 * (sine * sine + cosine * cosine) / (count * count);
    let rest = (power / count - own / 2.0).max(1e-6);
    let reference = 20_000.0_f64.powi(2);
    (
        10.0 * (own / reference).log10(),
        10.0 * (2.0 * rest / reference).log10(),
    )
}

#[test]
fn what_both_rates_can_carry_passes_unchanged_and_nothing_is_added() {
    for (from, to) in pairs() {
        let lower = f64::from(from.min(to));
        let (mut ripple, mut added) = (0.0_f64, -200.0_f64);
        for part in [0.01, 0.05, 0.125, 0.2, 0.3, 0.4, 0.435] {
            let hertz = (lower * part / 2.0).round() * 2.0;
            let sound = resample(from, to, &tone(from, hertz, 0.7));
            let (own, rest) = levels(&sound, to, hertz);
            ripple = ripple.max(own.abs());
            added = added.max(rest);
        }
        println!("{from} to {to}: ripple {ripple:.3} dB, images and noise {added:.1} dB");
        assert!(ripple < 0.05, "{from} to {to}: ripple of {ripple} dB");
        // The rounding to 16 bits itself is at -89 dB.
        assert!(added < -68.0, "{from} to {to}: {added} dB of images");
    }
}

#[test]
fn what_the_lower_rate_cannot_carry_is_taken_out() {
    for (from, to) in pairs().filter(|(from, to)| from > to) {
        let (lower, upper) = (f64::from(to), f64::from(from));
        let mut left = -200.0_f64;
        let mut hertz = lower * 0.56;
        while hertz < upper * 0.49 {
            let (_, rest) = levels(&resample(from, to, &tone(from, hertz, 0.7)), to, 1.0);
            left = left.max(rest);
            hertz += lower * 0.0731;
        }
        println!("{from} to {to}: aliases {left:.1} dB");
        assert!(left < -68.0, "{from} to {to}: {left} dB of aliases");
    }
}

#[test]
fn the_delay_is_what_it_says_and_small() {
    for (from, to) in pairs() {
        let mut input = vec![0; from as usize / 10];
        input[from as usize / 50] = 20_000;
        let output = resample(from, to, &input);
        let (peak, _) = output
            .iter()
            .enumerate()
            .max_by_key(|(_, sample)| **sample)
            .unwrap();
        let micros = peak as f64 * 1e6 / f64::from(to) - 20_000.0;
        let said = f64::from(Resampler::new(from, to).unwrap().delay_micros());
        assert!(
            (micros - said).abs() <= 0.6e6 / f64::from(to),
            "{from} to {to}: {micros} µs, not {said}"
        );
        assert!(said < 3600.0, "{from} to {to}: {said} µs");
    }
}

#[test]
fn the_size_of_the_pieces_does_not_matter() {
    for (from, to) in pairs().chain([(44_100, 8000), (8000, 44_100)]) {
        let input = tone(from, 440.0, 0.5);
        let whole = resample(from, to, &input);
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut joined = Vec::<i16>::new();
        let mut piece = [0; 8000];
        let mut rest = &input[..];
        for length in (1..).map(|n| n * 7 % 1100) {
            let (now, later) = rest.split_at(length.min(rest.len()));
            let made = resampler.process(now, &mut piece);
            joined.extend(&piece[..made]);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(whole, joined, "{from} to {to}");
    }
}

#[test]
fn of_20_ms_come_20_ms_every_time() {
    for (from, to) in pairs() {
        let mut resampler = Resampler::new(from, to).unwrap();
        let input = vec![100; from as usize / 50];
        let mut output = [0; 960];
        for _ in 0..50 {
            assert_eq!(
                resampler.process(&input, &mut output),
                to as usize / 50,
                "{from} to {to}"
            );
        }
    }
}

#[test]
fn the_loudest_sound_is_clipped_and_does_not_wrap() {
    let square: Vec<i16> = (0..8000)
        .map(|n| if n / 8 % 2 == 0 { i16::MAX } else { i16::MIN })
        .collect();
    let output = resample(8000, 16_000, &square);
    let wraps = output
        .windows(2)
        .filter(|pair| (i32::from(pair[0]) - i32::from(pair[1])).abs() > 50_000)
        .count();
    assert_eq!(wraps, 0);
}

#[test]
fn odd_rates_are_refused() {
    assert!(Resampler::new(0, 8000).is_none());
    assert!(Resampler::new(8000, 1_000_000).is_none());
}
