//! What holds for every input: the invariants of the fuzz targets on their seed corpus and on messages damaged at random.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
#[expect(clippy::expect_used, reason = "a broken promise is told by panicking")]
mod invariants;

/// Seeds and what fuzzing has found, by target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn the_corpus_of_the_fuzz_targets_breaks_nothing() {
    for bytes in corpus("message") {
        invariants::message(&bytes);
    }
    for bytes in corpus("sdp") {
        invariants::sdp(&bytes);
    }
    for bytes in corpus("stream") {
        invariants::stream(&bytes);
    }
}

/// One of the seeds with some bytes replaced, a piece repeated and the end cut off.
fn damaged(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            "\r\n", "\n\t", "\r", ",", ";", "\"", "<", ">", ":", "@", "%", "\\", "é", "\0"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), word), 0..6);
    let seeds = prop::sample::select(corpus(target));
    (seeds, changes, any::<prop::sample::Index>(), 0..4_u8).prop_map(
        |(mut bytes, changes, end, kind)| {
            for (at, word) in changes {
                let at = at.index(bytes.len());
                bytes.splice(at..=at, word);
            }
            let end = end.index(bytes.len());
            match kind {
                0 => bytes.truncate(end),
                1 => bytes.extend_from_within(end..),
                _ => {}
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_damaged_message_breaks_nothing(bytes in damaged("message")) {
        invariants::message(&bytes);
    }

    #[test]
    fn a_damaged_description_breaks_nothing(bytes in damaged("sdp")) {
        invariants::sdp(&bytes);
    }

    #[test]
    fn a_damaged_stream_breaks_nothing(bytes in damaged("stream")) {
        invariants::stream(&bytes);
    }
}
