//! What our encoders make is decoded by ffmpeg as by ours, which for iLBC is another implementation altogether. Debian's ffmpeg has no encoder
//! of these, so nothing goes the other way; but any bits are a frame of iLBC, and both must make the same sound of them.
#![cfg(any(feature = "amr-wb", feature = "ilbc"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::process::Command;

use ringwire_media::codec::Codec;
use ringwire_media::compare::compare;

#[allow(dead_code, reason = "each test uses some of it")]
mod judged;

use judged::{agreement, decode, encode, run, samples, speech};

/// What ffmpeg makes of a file, at its own rate.
fn ffmpeg(file: Vec<u8>) -> Vec<i16> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i", "pipe:0", "-f", "s16le", "pipe:1"]);
    samples(&run(&mut command, file))
}

#[cfg(feature = "amr-wb")]
#[test]
fn ffmpeg_decodes_our_amr_wb_of_every_mode() {
    use ringwire_media::codec::AmrWbParameters;

    let sound = speech(16_000);
    for mode in 0..=8 {
        let codec = Codec::AmrWb(AmrWbParameters {
            octet_aligned: true,
            modes: 1 << mode,
            every_second: false,
            neighbors_only: false,
        });
        let payloads = encode(codec, &sound);
        let ours = decode(codec, &payloads);
        // The storage format (RFC 4867 section 5) has no octet for a request before each frame.
        let frames = payloads.iter().flat_map(|payload| payload[1..].to_vec());
        let theirs = ffmpeg(b"#!AMR-WB\n".iter().copied().chain(frames).collect());
        // Its decoder is one in floating point, so no two samples are the same.
        let found = compare(&ours, &theirs, 100).unwrap();
        assert!(
            found.correlation > 0.9,
            "mode {mode}: {}",
            found.correlation
        );
        println!(
            "mode {mode}: {}, {} dB",
            found.correlation,
            agreement(&ours, &theirs)
        );
    }
}

#[cfg(feature = "ilbc")]
mod ilbc {
    use super::judged::noise;
    use super::*;
    use ringwire_media::codec::IlbcMode;

    const MODES: [(IlbcMode, &str, usize); 2] = [
        (IlbcMode::Millis20, "#!iLBC20\n", 38),
        (IlbcMode::Millis30, "#!iLBC30\n", 50),
    ];

    /// How well nine of ten frames agree at least, and half of them, but for the first ones, which ffmpeg 5.1 begins with a bang.
    fn agreements(ours: &[i16], theirs: &[i16]) -> (f64, f64) {
        let frames = ours.chunks(240).zip(theirs.chunks(240));
        let mut all: Vec<f64> = frames.skip(4).map(|(a, b)| agreement(a, b)).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 10], all[all.len() / 2])
    }

    fn file(mark: &str, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut file = mark.as_bytes().to_vec();
        file.extend(payloads.iter().flatten());
        file
    }

    #[test]
    fn ffmpeg_decodes_our_ilbc_to_the_same_sound() {
        for (mode, mark, _) in MODES {
            let codec = Codec::Ilbc(mode);
            // Not quite silent between the words: there its fixed-point numbers are too coarse to be compared with.
            let mut sound = speech(8000);
            let mut noise = noise();
            for sample in &mut sound {
                *sample = sample.saturating_add(i16::from(noise()) * 4 - 512);
            }
            let payloads = encode(codec, &sound);
            let theirs = ffmpeg(file(mark, &payloads));
            let (most, half) = agreements(&decode(codec, &payloads), &theirs);
            let found = compare(&sound[4000..], &theirs[4000..], 100).unwrap();
            println!(
                "{mode:?}: {most} dB, {half} dB; {} of what was said",
                found.correlation
            );
            assert!(most > 30.0 && half > 36.0, "{mode:?}: {most} dB, {half} dB");
            assert!(found.correlation > 0.9, "{mode:?}: {}", found.correlation);
        }
    }

    #[test]
    fn ffmpeg_makes_the_same_of_bits_that_nobody_coded() {
        for (mode, mark, bytes) in MODES {
            let codec = Codec::Ilbc(mode);
            let decoder = codec.decoder(8000).unwrap();
            let mut noise = noise();
            let mut payloads: Vec<Vec<u8>> = Vec::new();
            while payloads.len() < 200 {
                let mut payload: Vec<u8> = (0..bytes).map(|_| noise()).collect();
                payload[bytes - 1] &= 0xfe;
                if decoder.ticks(&payload).is_some() {
                    payloads.push(payload);
                }
            }
            let theirs = ffmpeg(file(mark, &payloads));
            let (_, half) = agreements(&decode(codec, &payloads), &theirs);
            println!("{mode:?}: {half} dB");
            assert!(half > 20.0, "{mode:?}: {half} dB");
        }
    }
}
