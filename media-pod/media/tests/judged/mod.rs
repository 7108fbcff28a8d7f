//! What the tests against other programs share.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ringwire_media::codec::{Codec, PAYLOAD_BYTES, SOUND_SAMPLES};
use ringwire_media::resample::Resampler;
use ringwire_media::tone::speech_like;

/// What a program makes of its standard input.
pub fn run(command: &mut Command, input: Vec<u8>) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|problem| panic!("{command:?}: {problem} (hack/setup.sh --rust)"));
    let mut pipe = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    output.stdout
}

/// Samples of bytes, little endian.
pub fn samples(bytes: &[u8]) -> Vec<i16> {
    let (pairs, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// Speech at this rate.
pub fn speech(rate: u32) -> Vec<i16> {
    let narrow = speech_like(4000, 9);
    let Some(mut resampler) = Resampler::new(8000, rate).filter(|_| rate != 8000) else {
        return narrow;
    };
    let mut sound = vec![0; narrow.len() * rate as usize / 8000];
    resampler.process(&narrow, &mut sound);
    sound
}

/// Noise that is the same each time.
pub fn noise() -> impl FnMut() -> u8 {
    let mut random = 0x1234_5678_u32;
    move || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 11) as u8
    }
}

/// Payloads of this sound.
pub fn encode(codec: Codec, sound: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = codec.encoder(8000).unwrap();
    let mut payload = [0; PAYLOAD_BYTES];
    let frames = sound.chunks_exact(encoder.sample_rate() as usize / 50);
    frames
        .map(|frame| {
            let length = encoder.encode(frame, &mut payload);
            payload[..length].to_vec()
        })
        .filter(|payload| !payload.is_empty())
        .collect()
}

/// What our decoder makes of them.
pub fn decode(codec: Codec, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = codec.decoder(8000).unwrap();
    let mut sound = vec![0; SOUND_SAMPLES];
    let mut heard = Vec::new();
    for payload in payloads {
        let count = decoder.decode(payload, &mut sound);
        heard.extend(&sound[..count]);
    }
    heard
}

/// By how many decibels the sound is louder than the difference.
pub fn agreement(ours: &[i16], theirs: &[i16]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|it| it * it).sum::<f64>();
    let sound = power(&mut theirs.iter().map(|it| f64::from(*it)));
    let pairs = ours.iter().zip(theirs);
    let difference = power(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    10.0 * (sound / difference.max(1.0)).log10()
}
