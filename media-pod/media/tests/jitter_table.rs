//! What the jitter buffer makes of loss and jitter, beside fixed buffers on the same packets. A short check with limits; with
//! `--ignored` the table of `docs/jitter.md`, whose sound `hack/bench-jitter.sh` has scored.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "jitter/network.rs"]
mod network;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use network::{BASE, Jitter, Loss, arrivals};
use ringwire_media::FRAME_SAMPLES;
use ringwire_media::g711::{decode_ulaw, encode_ulaw};
use ringwire_media::jitter::{Delay, JitterBuffer, JitterStats, Position, Ulaw};
use ringwire_media::wav;

/// The buffers that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffer {
    Adaptive,
    Fixed,
    FixedSilent,
    /// With the delay that the adaptive one had on average, rounded up.
    FixedAlike,
}

impl Buffer {
    const ALL: [Self; 4] = [
        Self::Adaptive,
        Self::Fixed,
        Self::FixedSilent,
        Self::FixedAlike,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Fixed => "fixed",
            Self::FixedSilent => "fixed-silent",
            Self::FixedAlike => "fixed-alike",
        }
    }

    fn make(self, alike: u32) -> JitterBuffer<u8> {
        match self {
            Self::Adaptive => JitterBuffer::ulaw(Delay::Adaptive),
            Self::Fixed => JitterBuffer::ulaw(Delay::Fixed(60)),
            Self::FixedSilent => JitterBuffer::ulaw(Delay::Fixed(60)).without_concealment(),
            Self::FixedAlike => JitterBuffer::ulaw(Delay::Fixed(alike)),
        }
    }
}

struct Outcome {
    sound: Vec<u8>,
    /// Beyond what the network takes, in milliseconds, of each frame.
    delays: Vec<f64>,
    stats: JitterStats,
}

impl Outcome {
    fn mean(&self) -> f64 {
        self.delays.iter().sum::<f64>() / self.delays.len() as f64
    }

    fn p95(&self) -> f64 {
        let mut sorted = self.delays.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() * 95 / 100]
    }

    /// Per cent of the frames.
    fn concealed(&self) -> f64 {
        100.0 * self.stats.concealed as f64 / self.delays.len() as f64
    }
}

fn run(sound: &[u8], loss: Loss, jitter: Jitter, mut buffer: JitterBuffer<u8>) -> Outcome {
    let packets: Vec<&[u8]> = sound.chunks_exact(FRAME_SAMPLES).collect();
    let mut coming = arrivals(packets.len(), loss, jitter).into_iter().peekable();
    let epoch = Instant::now();
    let at = |millis: f64| epoch + Duration::from_secs_f64(millis / 1000.0);
    let mut out = Vec::new();
    let mut delays = Vec::new();
    // The frames' grid has nothing to do with the packets'.
    let mut phase = 7.0;
    for tick in 0..packets.len() + 15 {
        let due = tick as f64 * 20.0 + 20.0 + phase;
        while let Some((number, arrival)) = coming.next_if(|(_, arrival)| *arrival <= due) {
            let position = Position {
                ssrc: 1,
                sequence: number as u16,
                timestamp: number as u32 * 160,
                marker: number == 0,
            };
            let codes = packets[number].iter().copied();
            buffer.insert(position, 160, codes, at(arrival));
        }
        if let Some(position) = buffer.position().filter(|position| *position >= 0) {
            delays.push(due - BASE - position as f64 / 8.0);
        }
        let mut frame = [0; FRAME_SAMPLES];
        phase += buffer.pop(&mut Ulaw, &mut frame, at(due)) as f64 / 1000.0;
        out.extend(frame);
    }
    Outcome {
        sound: out,
        delays,
        stats: buffer.stats(),
    }
}

/// Something like speech: syllables of changing pitch and loudness, with pauses.
fn babble(seconds: usize) -> Vec<u8> {
    let mut phase = 0.0f32;
    (0..seconds * 8000)
        .map(|n| {
            let time = n as f32 / 8000.0;
            let pitch = 140.0 + 40.0 * (time * 1.7).sin() + 15.0 * (time * 9.0).sin();
            phase += pitch / 8000.0 * std::f32::consts::TAU;
            let loud = ((time * 12.0).sin() * (time * 1.1).sin()).max(0.0);
            let voice = phase.sin() + 0.6 * (3.0 * phase).sin() + 0.4 * (8.0 * phase).cos();
            encode_ulaw((5000.0 * loud * voice) as i16)
        })
        .collect()
}

#[test]
fn waits_less_than_a_fixed_buffer_and_conceals_no_more() {
    let sound = babble(60);
    // Jitter, longest mean delay, and frames that may be concealed beyond those lost, in per cent.
    for (jitter, delay, beyond) in [
        (Jitter::Even(0.0), 10.0, 0.2),
        (Jitter::Even(10.0), 25.0, 0.8),
        (Jitter::Even(30.0), 50.0, 1.5),
        (Jitter::Even(60.0), 80.0, 2.5),
        (Jitter::Stalls, 60.0, 4.0),
        (Jitter::Recorded, 60.0, 3.0),
    ] {
        for (loss, lost) in [(Loss::Random(0.0), 0.0), (Loss::Random(0.05), 5.0)] {
            let adaptive = run(&sound, loss, jitter, Buffer::Adaptive.make(0));
            let fixed = run(&sound, loss, jitter, Buffer::Fixed.make(0));
            println!(
                "{:8} {:6}: {:5.1} ms (95 %: {:5.1}), {:4.1} % concealed, {} late, {} changes; fixed {:5.1} ms, {:4.1} %",
                jitter.name(),
                loss.name(),
                adaptive.mean(),
                adaptive.p95(),
                adaptive.concealed(),
                adaptive.stats.late,
                adaptive.stats.corrections,
                fixed.mean(),
                fixed.concealed(),
            );
            assert!(adaptive.mean() <= delay, "{jitter:?}, {loss:?}");
            assert!(
                adaptive.concealed() <= 1.1 * lost + beyond,
                "{jitter:?}, {loss:?}"
            );
        }
    }
}

fn write(path: &Path, codes: &[u8]) {
    let samples: Vec<i16> = codes.iter().map(|code| decode_ulaw(*code)).collect();
    std::fs::write(path, wav::write(&samples)).unwrap();
}

/// `RINGWIRE_SPEECH`: WAV files, separated by colons. `RINGWIRE_JITTER_OUT`: folder for the sound as sent and as played, and `runs.csv`.
#[test]
#[ignore = "by hack/bench-jitter.sh"]
fn table() {
    let speech = std::env::var("RINGWIRE_SPEECH").unwrap();
    let folder = std::env::var("RINGWIRE_JITTER_OUT").unwrap();
    let folder = Path::new(&folder);
    let mut sound = Vec::new();
    let mut parts = String::new();
    for file in speech.split(':') {
        let samples = wav::read(&std::fs::read(file).unwrap()).unwrap();
        writeln!(parts, "{},{}", sound.len(), samples.len()).unwrap();
        sound.extend(samples.iter().map(|sample| encode_ulaw(*sample)));
        // A breath between two.
        sound.extend([ringwire_media::g711::ULAW_SILENCE; 4000]);
    }
    write(&folder.join("sent.wav"), &sound);
    std::fs::write(folder.join("parts.csv"), parts).unwrap();
    let mut runs = String::new();
    for jitter in Jitter::ALL {
        for loss in Loss::ALL {
            let mut alike = 0;
            for buffer in Buffer::ALL {
                let outcome = run(&sound, loss, jitter, buffer.make(alike));
                if buffer == Buffer::Adaptive {
                    alike = outcome.mean().ceil() as u32;
                }
                let name = format!("{}-{}-{}.wav", jitter.name(), loss.name(), buffer.name());
                write(&folder.join(&name), &outcome.sound);
                writeln!(
                    runs,
                    "{},{},{},{:.1},{:.1},{:.2},{},{},{name}",
                    jitter.name(),
                    loss.name(),
                    buffer.name(),
                    outcome.mean(),
                    outcome.p95(),
                    outcome.concealed(),
                    outcome.stats.late,
                    outcome.stats.corrections,
                )
                .unwrap();
            }
        }
    }
    std::fs::write(folder.join("runs.csv"), runs).unwrap();
}
