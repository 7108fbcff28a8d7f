//! G.722.1 against the program that is part of the recommendation, which PJSIP has: `judge.py` beside this file runs it.
#![cfg(feature = "g7221")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::path::PathBuf;
use std::process::Command;

use ringwire_media::codec::{Codec, G7221Rate};

#[allow(dead_code, reason = "each test uses some of it")]
#[path = "../judged/mod.rs"]
mod judged;

use judged::{agreement, decode, encode, noise, run, samples, speech};

const RATES: [(G7221Rate, usize); 2] = [(G7221Rate::Kilobits24, 60), (G7221Rate::Kilobits32, 80)];
/// Samples of a frame.
const FRAME: usize = 320;

/// The other program.
fn judge(what: &str, bytes: usize) -> Command {
    let state = std::env::var_os("RINGWIRE_STATE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ringwire"),
        PathBuf::from,
    );
    let mut command = Command::new(state.join("tools/g7221-0.1a3/bin/python"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/g7221/judge.py");
    command.args(["-B", script, what, &bytes.to_string()]);
    command
}

/// What it makes of our payloads.
fn their_sound(bytes: usize, payloads: &[Vec<u8>], lost: &[usize]) -> Vec<i16> {
    let mut command = judge("decode", bytes);
    command.args(lost.iter().map(ToString::to_string));
    samples(&run(&mut command, payloads.concat()))
}

/// What it makes of sound.
fn their_payloads(bytes: usize, sound: &[i16]) -> Vec<Vec<u8>> {
    let input = sound.iter().flat_map(|sample| sample.to_le_bytes());
    let made = run(&mut judge("encode", bytes), input.collect());
    made.chunks_exact(bytes).map(<[u8]>::to_vec).collect()
}

/// Loud speech with some noise in all of the band.
fn sound() -> Vec<i16> {
    let mut noise = noise();
    let mut sound = speech(16_000);
    for sample in &mut sound {
        *sample = sample.saturating_add(i16::from(noise()) * 2 - 256);
    }
    sound
}

/// The part of frames that are the same: to 30 dB, or almost silent in both. Where we are silent, theirs has dither of up to 28.
fn alike(ours: &[i16], theirs: &[i16]) -> f64 {
    let pairs = ours.chunks(FRAME).zip(theirs.chunks(FRAME));
    let same = pairs.filter(|(ours, theirs)| {
        let mut samples = ours.iter().zip(*theirs);
        samples.all(|(a, b)| a.abs_diff(*b) < 32) || agreement(ours, theirs) > 30.0
    });
    same.count() as f64 / (ours.len() / FRAME) as f64
}

#[test]
fn both_decoders_make_the_same_sound_of_what_either_encoder_makes() {
    let sound = sound();
    let said = &sound[..sound.len() - FRAME];
    for (rate, bytes) in RATES {
        let codec = Codec::G7221(rate);
        let ours = encode(codec, &sound);
        let theirs = their_payloads(bytes, &sound);
        let mut noise = Vec::new();
        for (name, payloads) in [("ours", &ours), ("theirs", &theirs)] {
            let here = decode(codec, payloads);
            let there = their_sound(bytes, payloads, &[]);
            let agreed = agreement(&here, &there);
            // 20 ms late.
            let coded = agreement(&there[FRAME..], said);
            println!("{rate:?}, frames of {name}: {agreed:.1} dB, {coded:.2} dB of what was said");
            assert!(agreed > 47.0, "{rate:?}, {name}: {agreed} dB");
            noise.push(coded);
        }
        assert!(noise[0] > noise[1] - 0.1, "{rate:?}: {noise:?} dB");
        let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        println!("{rate:?}: {same} of {} frames are the same", ours.len());
    }
}

#[test]
fn the_loudest_and_the_quietest_sound_is_the_same_in_both() {
    let square = |at: usize| {
        if (at / 40).is_multiple_of(2) {
            32_767
        } else {
            -32_768
        }
    };
    let loud: Vec<i16> = (0..50 * FRAME).map(square).collect();
    let mut noise = noise();
    let soft: Vec<i16> = (0..50 * FRAME)
        .map(|_| i16::from(noise() & 15) - 8)
        .collect();
    let click = (0..50 * FRAME).map(|at| if at % 3000 == 77 { i16::MAX } else { 0 });
    let click: Vec<i16> = click.collect();
    for (rate, bytes) in RATES {
        let codec = Codec::G7221(rate);
        for (name, sound, least) in [
            ("loud", &loud, 30.0),
            ("soft", &soft, 8.0),
            ("click", &click, 15.0),
        ] {
            let payloads = encode(codec, sound);
            let agreed = agreement(
                &decode(codec, &payloads),
                &their_sound(bytes, &payloads, &[]),
            );
            println!("{rate:?}, {name}: {agreed:.1} dB");
            assert!(agreed > least, "{rate:?}, {name}: {agreed} dB");
        }
        let payloads = encode(codec, &vec![0; 50 * FRAME]);
        let (ours, theirs) = (decode(codec, &payloads), their_sound(bytes, &payloads, &[]));
        let loudest = |sound: &[i16]| sound.iter().map(|it| it.unsigned_abs()).max().unwrap();
        let (ours, theirs) = (loudest(&ours), loudest(&theirs));
        println!("{rate:?}, silence: up to {ours}, {theirs}");
        assert!(ours < 2 && theirs < 32, "{rate:?}: {ours} {theirs}");
    }
}

#[test]
fn lost_frames_are_repeated_once_and_then_silent_as_there() {
    let sound = sound();
    let lost = [0, 30, 60, 61, 62, 63, 64, 100, 101, 199];
    for (rate, bytes) in RATES {
        let codec = Codec::G7221(rate);
        let payloads = encode(codec, &sound);
        let mut decoder = codec.decoder(16_000).unwrap();
        let mut ours = vec![0; sound.len()];
        for (number, place) in ours.chunks_exact_mut(FRAME).enumerate() {
            if lost.contains(&number) {
                assert!(decoder.conceal(None, place));
            } else {
                assert_eq!(decoder.decode(&payloads[number], place), FRAME);
            }
        }
        assert!(
            ours[63 * FRAME..65 * FRAME]
                .iter()
                .all(|sample| *sample == 0)
        );
        let theirs = their_sound(bytes, &payloads, &lost);
        let agreed = agreement(&ours, &theirs);
        println!("{rate:?}: {agreed:.1} dB");
        assert!(agreed > 45.0, "{rate:?}: {agreed} dB");
    }
}

#[test]
fn damaged_frames_are_judged_as_there() {
    let sound = sound();
    for (rate, bytes) in RATES {
        let codec = Codec::G7221(rate);
        let mut payloads = encode(codec, &sound);
        let mut noise = noise();
        // Not in how loud regions are: of those that cannot be, the other program reads beyond its tables.
        for payload in payloads.iter_mut().step_by(2) {
            let at = 20 + usize::from(noise()) % (bytes - 20);
            payload[at] ^= 1 << (noise() % 8);
        }
        let ours = decode(codec, &payloads);
        let theirs = their_sound(bytes, &payloads, &[]);
        let damaged = alike(&ours, &theirs);
        // Bits that nobody coded, behind an envelope that somebody did.
        let mut random = encode(codec, &sound);
        for payload in &mut random {
            payload[12..].fill_with(&mut noise);
        }
        let random = alike(&decode(codec, &random), &their_sound(bytes, &random, &[]));
        println!("{rate:?}: {damaged} of frames with a wrong bit, {random} of random ones");
        assert!(
            damaged > 0.95 && random > 0.95,
            "{rate:?}: {damaged} {random}"
        );
    }
}
