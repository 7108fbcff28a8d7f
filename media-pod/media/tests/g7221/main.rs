//! G.722.1 against the program that is part of the recommendation, which PJSIP has: `judge.py` beside this file runs it.
#![cfg(feature = "g7221")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::path::PathBuf;
use std::process::Command;

use ringwire_media::codec::{Codec, G7221Rate};
use ringwire_media::compare::compare;

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
    command.args([script, what, &bytes.to_string()]);
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

#[test]
fn tmp() {
    let sound = sound();
    for (rate, bytes) in RATES {
        let codec = Codec::G7221(rate);
        let ours = encode(codec, &sound);
        let theirs = their_payloads(bytes, &sound);
        let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        println!("{rate:?}: {same} of {} the same", ours.len());
        for (name, payloads) in [("ours", &ours), ("theirs", &theirs)] {
            let a = decode(codec, payloads);
            let b = their_sound(bytes, payloads, &[]);
            let x = compare(&sound, &a, 700).unwrap();
            let y = compare(&sound, &b, 700).unwrap();
            println!(
                "{name}: decoders agree {} dB; of said {} {}; snr {} {}",
                agreement(&a, &b),
                x.correlation,
                y.correlation,
                agreement(&a[FRAME..], &sound[..sound.len() - FRAME]),
                agreement(&b[FRAME..], &sound[..sound.len() - FRAME])
            );
        }
    }
}
