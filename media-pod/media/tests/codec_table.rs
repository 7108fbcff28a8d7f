//! What codecs make of speech, without packets: each side of a call encodes once. A short check with limits; with `--ignored` the sound
//! that `hack/bench-codecs.sh` compares its calls with.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::Path;

use ringwire_media::FRAME_SAMPLES;
#[cfg(feature = "amr-wb")]
use ringwire_media::codec::AmrWbParameters;
#[cfg(feature = "g7221")]
use ringwire_media::codec::G7221Rate;
#[cfg(feature = "ilbc")]
use ringwire_media::codec::IlbcMode;
use ringwire_media::codec::{Codec, OpusParameters, PAYLOAD_BYTES, SOUND_SAMPLES};
use ringwire_media::compare::compare;
use ringwire_media::g711::{decode_alaw, decode_ulaw, encode_ulaw};
use ringwire_media::resample::Resampler;
use ringwire_media::tone::speech_like;
use ringwire_media::wav;

/// Samples per second of what is said and heard.
const RATE: u32 = 8000;

/// As `ringwire call --codec` names them, and as that call and the gateway agree on them.
const CODECS: &[(&str, Codec)] = &[
    ("PCMU", Codec::Pcmu),
    ("PCMA", Codec::Pcma),
    ("G722", Codec::G722),
    ("L16", Codec::L16 { rate: 16_000 }),
    (
        "Opus",
        Codec::Opus(OpusParameters {
            fec: true,
            dtx: false,
            constant: false,
            max_playback_rate: 48_000,
            max_bitrate: None,
        }),
    ),
    #[cfg(feature = "amr-wb")]
    (
        "AMR-WB",
        Codec::AmrWb(AmrWbParameters {
            octet_aligned: false,
            modes: 0x1ff,
            every_second: false,
            neighbors_only: false,
        }),
    ),
    #[cfg(feature = "ilbc")]
    ("iLBC", Codec::Ilbc(IlbcMode::Millis20)),
    #[cfg(feature = "g7221")]
    ("G7221", Codec::G7221(G7221Rate::Kilobits32)),
];

fn ulaw(sample: i16) -> i16 {
    decode_ulaw(encode_ulaw(sample))
}

/// The nearest of the values that A-law has.
fn alaw(sample: i16) -> i16 {
    (0..=u8::MAX)
        .map(decode_alaw)
        .min_by_key(|value| value.abs_diff(sample))
        .unwrap()
}

fn resample(resampler: Option<&mut Resampler>, sound: &[i16], room: usize) -> Vec<i16> {
    let Some(resampler) = resampler else {
        return sound.to_vec();
    };
    let mut out = vec![0; room];
    let count = resampler.process(sound, &mut out);
    out.truncate(count);
    out
}

/// Encoded and decoded once.
fn once(codec: Codec, sound: &[i16]) -> Vec<i16> {
    match codec {
        Codec::Pcmu => return sound.iter().copied().map(ulaw).collect(),
        Codec::Pcma => return sound.iter().copied().map(alaw).collect(),
        _ => {}
    }
    let (mut encoder, mut decoder) = (codec.encoder(RATE).unwrap(), codec.decoder(RATE).unwrap());
    let between = |from, to| (from != to).then(|| Resampler::new(from, to).unwrap());
    let mut up = between(RATE, encoder.sample_rate());
    let mut down = between(decoder.sample_rate(), RATE);
    let mut payload = [0; PAYLOAD_BYTES];
    let mut decoded = [0; SOUND_SAMPLES];
    let mut out = Vec::new();
    for frame in sound.chunks_exact(FRAME_SAMPLES) {
        let frame = resample(up.as_mut(), frame, SOUND_SAMPLES);
        let length = encoder.encode(&frame, &mut payload);
        let count = decoder.decode(&payload[..length], &mut decoded);
        out.extend(resample(down.as_mut(), &decoded[..count], FRAME_SAMPLES));
    }
    out
}

/// To the other side and back.
fn twice(codec: Codec, sound: &[i16]) -> Vec<i16> {
    once(codec, &once(codec, sound))
}

#[test]
fn two_encodings_keep_what_was_said() {
    let said = speech_like(4000, 5);
    for &(name, codec) in CODECS {
        // These keep what is heard, not the wave.
        let least = match name {
            "Opus" | "AMR-WB" | "iLBC" => 0.8,
            "G7221" => 0.95,
            _ => 0.99,
        };
        let result = compare(&said, &twice(codec, &said), 100).unwrap();
        println!("{name}: {result:?}");
        assert!(result.correlation > least, "{name}: {result:?}");
    }
}

/// `RINGWIRE_SPEECH`: WAV files, separated by colons. `RINGWIRE_CODECS_OUT`: folder for the sound, `CODEC-alone-FILE`.
#[test]
#[ignore = "by hack/bench-codecs.sh"]
fn table() {
    let speech = std::env::var("RINGWIRE_SPEECH").unwrap();
    let folder = std::env::var("RINGWIRE_CODECS_OUT").unwrap();
    let folder = Path::new(&folder);
    for file in speech.split(':').map(Path::new) {
        let mut said = wav::read(&std::fs::read(file).unwrap()).unwrap();
        // The end comes out later than it went in, and frames are whole.
        said.resize((said.len() / FRAME_SAMPLES + 5) * FRAME_SAMPLES, 0);
        let file = file.file_name().unwrap().to_str().unwrap();
        for &(name, codec) in CODECS {
            let path = folder.join(format!("{name}-alone-{file}"));
            std::fs::write(path, wav::write(&twice(codec, &said))).unwrap();
        }
    }
}
