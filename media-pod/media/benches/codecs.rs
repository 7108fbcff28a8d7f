//! What each codec costs: microseconds of one core for 20 ms, of speech. `cargo bench -p ringwire-media --bench codecs`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::Instant;

use ringwire_media::codec::{Codec, OpusParameters, PAYLOAD_BYTES, SOUND_SAMPLES};
use ringwire_media::resample::Resampler;
use ringwire_media::tone::speech_like;

const ROUNDS: usize = 5;

/// Microseconds for each of so many frames, the fastest of some rounds.
fn micros(frames: usize, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64() * 1e6 / frames as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn voice(rate: u32) -> Vec<i16> {
    let narrow = speech_like(20_000, 5);
    if rate == 8000 {
        return narrow;
    }
    let mut sound = vec![0; narrow.len() * rate as usize / 8000];
    let made = Resampler::new(8000, rate)
        .unwrap()
        .process(&narrow, &mut sound);
    assert_eq!(made, sound.len());
    sound
}

fn main() {
    let with_fec = Codec::Opus(OpusParameters {
        fec: true,
        ..OpusParameters::default()
    });
    let opus = Codec::Opus(OpusParameters::default());
    println!("codec, of µs for 20 ms:      encode   decode   bytes");
    for (name, codec, rate) in [
        ("L16, 16 kHz", Codec::L16 { rate: 16_000 }, 16_000),
        ("G.722", Codec::G722, 16_000),
        ("Opus, 8 kHz", opus, 8000),
        ("Opus, 16 kHz", opus, 16_000),
        ("Opus, 48 kHz", opus, 48_000),
        ("Opus with FEC, 8 kHz", with_fec, 8000),
        ("Opus with FEC, 16 kHz", with_fec, 16_000),
    ] {
        let sound = voice(rate);
        let mut encoder = codec.encoder(rate).unwrap();
        let frames: Vec<&[i16]> = sound.chunks_exact(rate as usize / 50).collect();
        let mut payload = [0; PAYLOAD_BYTES];
        let payloads: Vec<Vec<u8>> = frames
            .iter()
            .map(|frame| {
                let length = encoder.encode(frame, &mut payload);
                payload[..length].to_vec()
            })
            .collect();
        let bytes = payloads.iter().map(Vec::len).sum::<usize>() / payloads.len();
        let encode = micros(frames.len(), || {
            for frame in &frames {
                black_box(encoder.encode(black_box(frame), &mut payload));
            }
        });
        let mut decoder = codec.decoder(rate).unwrap();
        let mut out = vec![0; SOUND_SAMPLES];
        let decode = micros(frames.len(), || {
            for payload in &payloads {
                black_box(decoder.decode(black_box(payload), &mut out));
            }
        });
        println!("{name:<28} {encode:>6.1}   {decode:>6.1}   {bytes:>5}");
    }
    println!("\nsample rates, of µs for 20 ms, and delay in ms:");
    for from in [8000, 16_000, 24_000, 48_000] {
        for to in [8000, 16_000, 24_000, 48_000] {
            let Some(mut resampler) = Resampler::new(from, to).filter(|_| from != to) else {
                continue;
            };
            let sound = voice(from);
            let mut out = [0; 960];
            let frames = sound.chunks_exact(from as usize / 50);
            let count = frames.len();
            let each = micros(count, || {
                for frame in frames.clone() {
                    black_box(resampler.process(black_box(frame), &mut out));
                }
            });
            let delay = f64::from(resampler.delay_micros()) / 1000.0;
            println!("{from:>5} to {to:>5}   {each:>6.1}   {delay:>4.1}");
        }
    }
}
