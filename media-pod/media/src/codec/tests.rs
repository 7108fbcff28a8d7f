//! Each codec against what another implementation made of the same, and against itself.

use super::*;

/// A sound that needs no floating point: a triangle that sweeps, and noise, at eight levels, the loudest clipped.
fn signal(count: u32) -> Vec<i16> {
    let mut random = 0x1234_5678_u32;
    let mut phase = 0_u32;
    let sample = |n: u32| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        phase = (phase + 200 + (n * 37 / 16) % 11_000) & 0xffff;
        let folded = if phase < 0x8000 {
            phase
        } else {
            0xffff - phase
        };
        let triangle = folded.cast_signed() - 16_384;
        let level = (n / 1600 % 8).cast_signed();
        let noise = (random & 0xffff).cast_signed() - 32_768;
        let value = ((triangle * (level + 1)) >> 2) + (noise >> (3 + level));
        value.clamp(-32_768, 32_767) as i16
    };
    (0..count).map(sample).collect()
}

/// FNV-1a.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn hash_of_sound(sound: &[i16]) -> u64 {
    hash(sound.iter().flat_map(|sample| sample.to_le_bytes()))
}

fn encode(encoder: &mut dyn Encoder, sound: &[i16]) -> Vec<Vec<u8>> {
    let frame = encoder.sample_rate() as usize / 50;
    let payload = |sound: &[i16]| {
        let mut payload = [0; PAYLOAD_BYTES];
        let length = encoder.encode(sound, &mut payload);
        payload[..length].to_vec()
    };
    sound.chunks_exact(frame).map(payload).collect()
}

fn decode(decoder: &mut dyn Decoder, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut sound = vec![0; SOUND_SAMPLES];
    let mut all = Vec::new();
    for payload in payloads {
        let count = decoder.decode(payload, &mut sound);
        let ticks = decoder.ticks(payload).unwrap();
        assert_eq!(
            u64::from(ticks) * u64::from(decoder.sample_rate()),
            count as u64 * u64::from(decoder.clock_rate())
        );
        all.extend(&sound[..count]);
    }
    all
}

/// How much of the middle of `heard` is what was `said`, at the delay that suits best: 1 is the same.
fn likeness(said: &[i16], heard: &[i16], most_delay: usize) -> f64 {
    let middle = said.len() / 3..said.len() / 2;
    let product = |a: &[i16], b: &[i16]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let said = &said[middle.clone()];
    let power = product(said, said);
    let at = |delay: usize| {
        let heard = &heard[middle.start + delay..middle.end + delay];
        product(said, heard) / (power * product(heard, heard)).sqrt()
    };
    (0..=most_delay).map(at).fold(0.0, f64::max)
}

/// Voice at this rate.
fn voice(rate: u32) -> Vec<i16> {
    let narrow = crate::tone::speech_like(3000, 5);
    let mut resampler = crate::resample::Resampler::new(8000, rate).unwrap();
    let mut sound = vec![0; narrow.len() * rate as usize / 8000];
    resampler.process(&narrow, &mut sound);
    sound
}

fn opus(parameters: OpusParameters, rate: u32) -> Box<dyn Encoder> {
    Codec::Opus(parameters).encoder(rate).unwrap()
}

#[test]
fn g722_gives_the_bits_that_ffmpeg_and_spandsp_give() {
    // ffmpeg 5.1.9 both ways; spandsp 0.0.6 makes the same payloads, and of them the same sound but for 14 samples, which it lets wrap.
    let sound = signal(64_000);
    assert_eq!(
        hash_of_sound(&sound),
        0x4ae4_3a58_0a7e_9a3a,
        "the signal itself"
    );
    let payloads = encode(&mut *Codec::G722.encoder(16_000).unwrap(), &sound);
    assert!(payloads.iter().all(|payload| payload.len() == 160));
    assert_eq!(
        hash(payloads.iter().flatten().copied()),
        0xa82e_8ce1_0cc9_dca8
    );
    let heard = decode(&mut *Codec::G722.decoder(16_000).unwrap(), &payloads);
    assert_eq!(hash_of_sound(&heard), 0x4674_086f_8f08_6939);
}

#[test]
fn l16_is_in_network_order() {
    let codec = Codec::L16 { rate: 16_000 };
    let mut payload = [0; 6];
    let length = codec
        .encoder(16_000)
        .unwrap()
        .encode(&[1, -2, 0x1234], &mut payload);
    assert_eq!((length, payload), (6, [0, 1, 0xff, 0xfe, 0x12, 0x34]));
    let mut decoder = codec.decoder(8000).unwrap();
    let mut sound = [0; 2];
    assert_eq!(decoder.decode(&payload, &mut sound), 2);
    assert_eq!((sound, decoder.ticks(&payload)), ([1, -2], Some(3)));
    assert_eq!((decoder.ticks(&[1]), decoder.ticks(&[])), (None, None));
}

#[test]
fn opus_carries_voice_at_every_rate() {
    for rate in [8000, 16_000, 24_000, 48_000] {
        let sound = voice(rate);
        let mut encoder = opus(OpusParameters::default(), rate);
        let mut decoder = Codec::Opus(OpusParameters::default())
            .decoder(rate)
            .unwrap();
        assert_eq!((encoder.sample_rate(), decoder.sample_rate()), (rate, rate));
        let payloads = encode(&mut *encoder, &sound);
        let heard = decode(&mut *decoder, &payloads);
        assert_eq!(heard.len(), sound.len());
        let likeness = likeness(&sound, &heard, rate as usize / 80);
        assert!(likeness > 0.9, "{rate} Hz: {likeness}");
    }
}

#[test]
fn opus_that_was_coded_for_one_rate_is_heard_at_another() {
    let payloads = encode(
        &mut *opus(OpusParameters::default(), 48_000),
        &voice(48_000),
    );
    let mut decoder = Codec::Opus(OpusParameters::default())
        .decoder(8000)
        .unwrap();
    let heard = decode(&mut *decoder, &payloads);
    assert!(likeness(&voice(8000), &heard, 200) > 0.9);
}

#[test]
fn opus_brings_a_lost_packet_back_from_the_next_one() {
    let rate = 16_000;
    let with = |fec| {
        let parameters = OpusParameters {
            fec,
            ..OpusParameters::default()
        };
        let sound = voice(rate);
        let payloads = encode(&mut *opus(parameters, rate), &sound);
        let mut decoder = Codec::Opus(parameters).decoder(rate).unwrap();
        let mut heard = Vec::new();
        let mut frame = [0; 320];
        for (at, payload) in payloads.iter().enumerate() {
            if at % 5 == 3 {
                let next = payloads.get(at + 1).map(Vec::as_slice);
                assert!(decoder.conceal(next, &mut frame));
            } else {
                assert_eq!(decoder.decode(payload, &mut frame), 320);
            }
            heard.extend(frame);
        }
        likeness(&sound, &heard, 200)
    };
    let (redundant, guessed) = (with(true), with(false));
    assert!(
        redundant > guessed + 0.02 && redundant > 0.85,
        "{redundant} with redundancy, {guessed} without"
    );
}

#[test]
fn opus_conceals_without_a_next_packet_and_refuses_odd_lengths() {
    let mut decoder = Codec::Opus(OpusParameters::default())
        .decoder(8000)
        .unwrap();
    assert!(decoder.conceal(None, &mut [7; 160]));
    assert!(!decoder.conceal(None, &mut [7; 161]));
    assert!(!decoder.conceal(None, &mut []));
    assert!(!decoder.conceal(None, &mut [7; SOUND_SAMPLES + 20]));
    assert!(
        !Codec::G722
            .decoder(8000)
            .unwrap()
            .conceal(None, &mut [7; 320])
    );
}

#[test]
fn opus_sends_almost_nothing_of_silence_only_if_the_peer_wants_that() {
    let mut sound = voice(16_000);
    sound.resize(sound.len() + 32_000, 0);
    let silent = |dtx| {
        let parameters = OpusParameters {
            dtx,
            ..OpusParameters::default()
        };
        let payloads = encode(&mut *opus(parameters, 16_000), &sound);
        let silence = &payloads[payloads.len() - 75..];
        silence.iter().filter(|payload| payload.is_empty()).count()
    };
    assert_eq!(silent(false), 0);
    assert!(silent(true) > 60, "{}", silent(true));
}

#[test]
fn opus_keeps_to_what_the_peer_says_it_can_take() {
    let bits = |parameters| {
        let payloads = encode(&mut *opus(parameters, 48_000), &voice(48_000));
        payloads.iter().map(Vec::len).sum::<usize>() * 8 / 3
    };
    let free = bits(OpusParameters::default());
    let narrow = bits(OpusParameters {
        max_playback_rate: 8000,
        ..OpusParameters::default()
    });
    let capped = bits(OpusParameters {
        max_bitrate: Some(12_000),
        ..OpusParameters::default()
    });
    assert!(narrow < free && capped < 13_000, "{free} {narrow} {capped}");
    let constant = encode(
        &mut *opus(
            OpusParameters {
                constant: true,
                ..OpusParameters::default()
            },
            16_000,
        ),
        &voice(16_000),
    );
    assert!(constant.iter().all(|payload| payload.len() == 70));
}

#[test]
fn stereo_opus_is_heard_as_one_channel() {
    let mut encoder = opusic_c::Encoder::new(
        opusic_c::Channels::Stereo,
        opusic_c::SampleRate::Hz48000,
        opusic_c::Application::Audio,
    )
    .unwrap();
    let voice = voice(48_000);
    let payloads: Vec<_> = voice
        .chunks_exact(960)
        .map(|frame| {
            let both: Vec<u16> = frame
                .iter()
                .flat_map(|sample| [sample.cast_unsigned(), sample.cast_unsigned()])
                .collect();
            let mut payload = [0; 1000];
            let length = encoder.encode_to_slice(&both, &mut payload).unwrap();
            payload[..length].to_vec()
        })
        .collect();
    let mut decoder = Codec::Opus(OpusParameters::default())
        .decoder(48_000)
        .unwrap();
    assert!(likeness(&voice, &decode(&mut *decoder, &payloads), 600) > 0.95);
}

#[test]
fn rubbish_is_left_out() {
    for codec in [
        Codec::G722,
        Codec::L16 { rate: 8000 },
        Codec::Opus(OpusParameters::default()),
        #[cfg(feature = "amr-wb")]
        Codec::AmrWb(amr_wb::FREE[0]),
        #[cfg(feature = "amr-wb")]
        Codec::AmrWb(amr_wb::FREE[1]),
        #[cfg(feature = "ilbc")]
        Codec::Ilbc(IlbcMode::Millis20),
        #[cfg(feature = "ilbc")]
        Codec::Ilbc(IlbcMode::Millis30),
        #[cfg(feature = "g7221")]
        Codec::G7221(G7221Rate::Kilobits24),
        #[cfg(feature = "g7221")]
        Codec::G7221(G7221Rate::Kilobits32),
    ] {
        let mut decoder = codec.decoder(48_000).unwrap();
        let mut sound = [0; SOUND_SAMPLES];
        let mut random = 1_u32;
        for length in 0..700_usize {
            let payload: Vec<u8> = (0..length)
                .map(|_| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 24) as u8
                })
                .collect();
            assert!(decoder.decode(&payload, &mut sound) <= SOUND_SAMPLES);
            let _ = decoder.decode(&payload, &mut sound[..7]);
            let _ = decoder.ticks(&payload);
            let _ = decoder.conceal(Some(&payload), &mut sound[..960]);
        }
        assert_eq!(decoder.ticks(&[]), None);
        decoder.reset();
    }
}

#[test]
fn after_a_reset_a_decoder_is_as_new() {
    let sound = voice(16_000);
    for codec in [Codec::G722, Codec::Opus(OpusParameters::default())] {
        let payloads = encode(&mut *codec.encoder(16_000).unwrap(), &sound);
        let mut decoder = codec.decoder(16_000).unwrap();
        let first = decode(&mut *decoder, &payloads);
        decoder.reset();
        assert_eq!(first, decode(&mut *decoder, &payloads));
    }
}

#[cfg(feature = "ilbc")]
mod ilbc {
    use super::*;

    #[test]
    fn ilbc_keeps_what_was_said_in_both_lengths() {
        let sound = voice(8000);
        for mode in [IlbcMode::Millis20, IlbcMode::Millis30] {
            let payloads = encode(&mut *Codec::Ilbc(mode).encoder(8000).unwrap(), &sound);
            let payloads: Vec<_> = payloads.into_iter().filter(|it| !it.is_empty()).collect();
            let heard = decode(&mut *Codec::Ilbc(mode).decoder(8000).unwrap(), &payloads);
            let likeness = likeness(&sound, &heard, 100);
            assert!(likeness > 0.9, "{mode:?}: {likeness}");
        }
    }
}

#[cfg(feature = "g7221")]
mod g7221 {
    use super::*;

    #[test]
    fn g7221_keeps_what_was_said_at_both_rates() {
        let sound = voice(16_000);
        let mut last = 0.0;
        for rate in [G7221Rate::Kilobits24, G7221Rate::Kilobits32] {
            let codec = Codec::G7221(rate);
            let payloads = encode(&mut *codec.encoder(16_000).unwrap(), &sound);
            let heard = decode(&mut *codec.decoder(16_000).unwrap(), &payloads);
            let likeness = likeness(&sound, &heard, 400);
            assert!(likeness > 0.98, "{rate:?}: {likeness}");
            assert!(likeness > last, "{rate:?}: {likeness} {last}");
            last = likeness;
        }
    }
}

#[cfg(feature = "amr-wb")]
mod amr_wb {
    use super::*;

    /// Both formats, any mode.
    pub const FREE: [AmrWbParameters; 2] = [
        AmrWbParameters {
            octet_aligned: false,
            modes: 0x1ff,
            every_second: false,
            neighbors_only: false,
        },
        AmrWbParameters {
            octet_aligned: true,
            modes: 0x1ff,
            every_second: false,
            neighbors_only: false,
        },
    ];

    /// A payload in the octet-aligned format that asks for this mode, without sound.
    fn request(mode: u8) -> [u8; 2] {
        [mode << 4, 15 << 3 | 4]
    }

    /// The modes of so many packets.
    fn modes(encoder: &mut dyn Encoder, count: usize) -> Vec<u8> {
        let mut payload = [0; PAYLOAD_BYTES];
        (0..count)
            .map(|_| {
                assert!(encoder.encode(&[0; 320], &mut payload) > 0);
                payload[1] >> 3 & 15
            })
            .collect()
    }

    #[test]
    fn amr_wb_keeps_what_was_said_in_both_formats_and_all_modes() {
        let sound = voice(16_000);
        for parameters in FREE {
            let mut last = 0.0;
            for mode in [0, 2, 8] {
                let only = AmrWbParameters {
                    modes: 1 << mode,
                    ..parameters
                };
                let payloads = encode(&mut *Codec::AmrWb(only).encoder(16_000).unwrap(), &sound);
                let mut decoder = Codec::AmrWb(only).decoder(16_000).unwrap();
                let likeness = likeness(&sound, &decode(&mut *decoder, &payloads), 400);
                assert!(likeness > 0.85, "{only:?}: {likeness}");
                assert!(likeness > last - 0.01, "{only:?}: {likeness} {last}");
                last = likeness;
            }
        }
    }

    #[test]
    fn amr_wb_goes_to_the_mode_that_the_peer_asks_for_as_he_allows_it() {
        let encoder = |parameters| Codec::AmrWb(parameters).encoder(16_000).unwrap();
        let mut free = encoder(FREE[1]);
        assert_eq!(modes(&mut *free, 2), [2, 2]);
        free.hear(&request(8));
        assert_eq!(modes(&mut *free, 2), [8, 8]);
        // No request, and none that there is.
        free.hear(&request(15));
        free.hear(&request(11));
        free.hear(&[]);
        assert_eq!(modes(&mut *free, 1), [8]);

        let mut bound = encoder(AmrWbParameters {
            modes: 0b1_0001_0011,
            every_second: true,
            neighbors_only: true,
            ..FREE[1]
        });
        // The usual one is not in the set.
        assert_eq!(modes(&mut *bound, 3), [8, 8, 8]);
        bound.hear(&request(2));
        assert_eq!(modes(&mut *bound, 3), [8, 8, 8]);
        bound.hear(&request(0));
        assert_eq!(modes(&mut *bound, 7), [4, 4, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn amr_wb_plays_comfort_noise_several_frames_and_losses() {
        let sound = voice(16_000);
        let codec = Codec::AmrWb(FREE[1]);
        let payloads = encode(&mut *codec.encoder(16_000).unwrap(), &sound);
        let mut decoder = codec.decoder(16_000).unwrap();
        let mut heard = [0; 960];
        let power = |sound: &[i16]| sound.iter().map(|it| f64::from(*it).powi(2)).sum::<f64>();
        let mut loudest: f64 = 0.0;
        for payload in &payloads[..50] {
            assert_eq!(decoder.decode(payload, &mut heard), 320);
            loudest = loudest.max(power(&heard[..320]));
        }
        // One packet of three frames; the last of them was lost on the way to the sender.
        let mut three = vec![0xf0];
        let frames = &payloads[50..52];
        three.extend([0x80 | frames[0][1], 0x80 | frames[1][1], 14 << 3 | 4]);
        three.extend(&frames[0][2..]);
        three.extend(&frames[1][2..]);
        assert_eq!(decoder.ticks(&three), Some(960));
        assert_eq!(decoder.decode(&three, &mut heard), 960);
        assert!(power(&heard[640..]) > 0.0);
        // Ten losses in a row, and it is silent or almost.
        assert!(decoder.conceal(None, &mut heard[..320]));
        assert!(!decoder.conceal(None, &mut heard[..321]) && !decoder.conceal(None, &mut []));
        for _ in 0..10 {
            assert!(decoder.conceal(None, &mut heard[..320]));
        }
        assert!(power(&heard[..320]) < loudest / 10.0);
        // Comfort noise, and packets without.
        let mut noise = vec![0xf0, 9 << 3 | 4];
        noise.extend([0x20, 0, 0, 0, 1]);
        assert_eq!(decoder.decode(&noise, &mut heard), 320);
        assert_eq!(decoder.decode(&request(15), &mut heard), 320);
    }
}
