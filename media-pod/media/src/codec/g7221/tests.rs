//! What only this codec has. The rest is in the tests of all codecs, and in `tests/g7221`, against the recommendation's program.

use proptest::prelude::*;

use super::huffman::{POWERS, Reader, VECTORS, Word, Writer};
use super::regions::{self, CHANGES, Choices};
use super::tables::{CATEGORIES, EXPECTED_BITS, POWER_CODES};
use super::*;

const RATES: [G7221Rate; 2] = [G7221Rate::Kilobits24, G7221Rate::Kilobits32];

/// A tone at this frequency.
fn tone(hertz: f32, frames: usize) -> Vec<i16> {
    let step = std::f32::consts::TAU * hertz / RATE as f32;
    let sample = |at: usize| (9000.0 * (step * at as f32).sin()) as i16;
    (0..frames * SAMPLES).map(sample).collect()
}

fn encode(rate: G7221Rate, sound: &[i16]) -> Vec<u8> {
    let mut encoder = G7221Encoder::new(rate);
    let mut payload = [0; 80];
    let frame = |sound: &[i16]| {
        let length = encoder.encode(sound, &mut payload);
        payload[..length].to_vec()
    };
    sound.chunks_exact(SAMPLES).flat_map(frame).collect()
}

fn loudest(sound: &[i16]) -> u16 {
    let samples = sound.iter().map(|sample| sample.unsigned_abs());
    samples.max().unwrap_or_default()
}

#[test]
fn every_code_word_is_read_as_what_it_was_written_for() {
    let read = |word: Word, tree: &[[i16; 2]]| {
        let mut bytes = [0; 4];
        Writer::new(&mut bytes).write(word);
        let mut reader = Reader::new(&bytes);
        let symbol = reader.symbol(tree).unwrap();
        assert_eq!(reader.left(), 32 - word.length as usize);
        usize::from(symbol)
    };
    for (codes, tree) in POWER_CODES.iter().zip(&POWERS) {
        for (number, code) in codes.iter().enumerate() {
            assert_eq!(read(Word::of(*code), tree), number);
        }
    }
    for (category, tree) in CATEGORIES.iter().zip(VECTORS) {
        let digits = |number: usize| -> Vec<usize> {
            let base = category.levels.len();
            let powers = (0..category.dimension as u32).map(|digit| base.pow(digit));
            powers.map(|power| number / power % base).collect()
        };
        assert_eq!(
            category.codes.len(),
            category.levels.len().pow(category.dimension as u32)
        );
        for (number, code) in category.codes.iter().enumerate() {
            // What stands for a vector has as many signs, of the same coefficients, and is not louder.
            let (said, heard) = (digits(number), digits(read(Word::of(*code), tree)));
            for (said, heard) in said.iter().zip(heard) {
                assert!(heard <= *said && (heard > 0) == (*said > 0));
            }
        }
    }
}

#[test]
fn choices_of_categories_go_from_more_bits_to_fewer() {
    let powers = [24, 20, 13, 5, 9, 9, -3, -15, -4, 0, 2, 2, -10, -15];
    for bits in [400, 560] {
        let choices = Choices::new(bits, &powers);
        let expected = |choice: usize| -> i32 {
            let categories = choices.at(choice).into_iter();
            categories.map(|it| EXPECTED_BITS[usize::from(it)]).sum()
        };
        let all: Vec<i32> = (0..=CHANGES).map(expected).collect();
        assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
        assert!(all[0] > i32::from(bits).min(500) && all[CHANGES] < i32::from(bits));
        // The louder, the finer.
        let middle = choices.at(CHANGES / 2);
        assert!(middle[0] < middle[3] && middle[3] < middle[7], "{middle:?}");
    }
}

/// A frame that says that a region is too loud.
fn damaged(rate: G7221Rate) -> Vec<u8> {
    let mut frame = vec![0; rate.bytes()];
    let mut writer = Writer::new(&mut frame);
    writer.write(Word {
        bits: 31,
        length: 5,
    });
    writer.write(Word::of(POWER_CODES[0][23]));
    frame
}

#[test]
fn powers_that_cannot_be_sent_are_brought_near() {
    let mut mean_squares = [0.0; REGIONS];
    mean_squares[5] = 1e9;
    mean_squares[6] = 1e7;
    let powers = regions::powers(&mean_squares);
    let mut bytes = [0; 60];
    let taken = regions::write(&powers, &mut Writer::new(&mut bytes));
    let mut reader = Reader::new(&bytes);
    assert_eq!(regions::read(&mut reader), Some(powers));
    assert_eq!(reader.left(), 480 - taken as usize);
    let expected = [-6, -14, -3, 8, 19, 24, 23, 11, -1, -13, -15, -15, -15, -15];
    assert_eq!(powers, expected);
    let damaged = damaged(G7221Rate::Kilobits24);
    assert_eq!(regions::read(&mut Reader::new(&damaged)), None);
}

#[test]
fn only_whole_frames_of_the_agreed_rate_are_taken() {
    for (rate, bytes) in RATES.into_iter().zip([60, 80]) {
        let mut decoder = G7221Decoder::new(rate);
        let sound = tone(1000.0, 13);
        let payload = encode(rate, &sound);
        assert_eq!(payload.len(), 13 * bytes);
        assert_eq!(decoder.ticks(&payload), None);
        assert_eq!(decoder.ticks(&payload[..12 * bytes]), Some(3840));
        assert_eq!(decoder.ticks(&payload[..bytes]), Some(320));
        assert_eq!(decoder.ticks(&payload[..bytes - 1]), None);
        assert_eq!(decoder.ticks(&payload[..140]), None);
        // As much as there is room for.
        let mut heard = [0; 2 * SAMPLES + 7];
        assert_eq!(decoder.decode(&payload, &mut heard), 640);
        assert_eq!(decoder.decode(&payload, &mut heard[..7]), 0);
        let mut encoder = G7221Encoder::new(rate);
        assert_eq!(encoder.encode(&sound[..319], &mut [0; 80]), 0);
        assert_eq!(encoder.encode(&sound[..320], &mut [0; 59]), 0);
    }
}

#[test]
fn what_is_lost_or_damaged_is_repeated_once_and_then_silent() {
    for rate in RATES {
        let payload = encode(rate, &tone(1000.0, 10));
        let whole: Vec<_> = payload.chunks_exact(rate.bytes()).collect();
        let damaged = damaged(rate);
        for (name, is_lost) in [("lost", true), ("damaged", false)] {
            let mut decoder = G7221Decoder::new(rate);
            let mut heard = [0; SAMPLES];
            for frame in &whole {
                assert_eq!(decoder.decode(frame, &mut heard), SAMPLES);
            }
            let mut levels = Vec::new();
            for _ in 0..3 {
                if is_lost {
                    assert!(decoder.conceal(None, &mut heard));
                } else {
                    assert_eq!(decoder.decode(&damaged, &mut heard), SAMPLES);
                }
                levels.push(loudest(&heard));
            }
            assert!(levels[0] > 4000, "{rate:?}, {name}: {levels:?}");
            assert_eq!(levels[2], 0, "{rate:?}, {name}: {levels:?}");
            decoder.decode(whole[9], &mut heard);
            decoder.decode(whole[9], &mut heard);
            assert!(loudest(&heard) > 4000, "{rate:?}, {name}");
        }
        let mut decoder = G7221Decoder::new(rate);
        assert!(!decoder.conceal(None, &mut []));
        assert!(!decoder.conceal(None, &mut [0; 321]));
        assert!(decoder.conceal(None, &mut [0; 640]));
    }
}

#[test]
fn a_zero_among_the_bits_that_are_left_over_tells_of_damage() {
    // Of silence almost nothing is coded.
    let mut frame = encode(G7221Rate::Kilobits32, &[0; SAMPLES]);
    assert!(decode::is_whole(&frame));
    frame[79] ^= 1;
    assert!(!decode::is_whole(&frame));
}

#[test]
fn sound_of_7_khz_is_heard_and_of_more_is_not() {
    for (hertz, is_heard) in [(100.0, true), (6500.0, true), (7500.0, false)] {
        let payload = encode(G7221Rate::Kilobits24, &tone(hertz, 10));
        let mut heard = [0; 10 * SAMPLES];
        G7221Decoder::new(G7221Rate::Kilobits24).decode(&payload, &mut heard);
        let level = loudest(&heard[5 * SAMPLES..]);
        let expected = if is_heard { 8000..10_000 } else { 0..500 };
        assert!(expected.contains(&level), "{hertz}: {level}");
    }
}

#[test]
fn after_a_reset_it_is_as_new() {
    let payload = encode(G7221Rate::Kilobits24, &tone(440.0, 10));
    let mut decoder = G7221Decoder::new(G7221Rate::Kilobits24);
    let (mut first, mut again) = ([0; 10 * SAMPLES], [0; 10 * SAMPLES]);
    decoder.decode(&payload, &mut first);
    decoder.reset();
    decoder.decode(&payload, &mut again);
    assert_eq!(first, again);
}

proptest! {
    #[test]
    fn any_payload_is_some_sound(payload in prop::collection::vec(any::<u8>(), 0..1000), rate in 0..2_usize) {
        let mut decoder = G7221Decoder::new(RATES[rate]);
        let mut sound = vec![0; crate::codec::SOUND_SAMPLES];
        let count = decoder.decode(&payload, &mut sound);
        if let Some(ticks) = decoder.ticks(&payload) {
            prop_assert_eq!(ticks as usize, count);
        }
        prop_assert!(decoder.conceal(Some(&payload), &mut sound[..SAMPLES]));
    }

    #[test]
    fn any_sound_fills_a_frame_that_is_whole(sound in prop::collection::vec(any::<i16>(), 3 * SAMPLES), rate in 0..2_usize) {
        let payload = encode(RATES[rate], &sound);
        prop_assert_eq!(payload.len(), 3 * RATES[rate].bytes());
        for frame in payload.chunks_exact(RATES[rate].bytes()) {
            prop_assert!(decode::is_whole(frame));
        }
    }
}
