//! What holds for every input: the invariants of the fuzz targets on their seed corpus and on messages damaged at random.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;
use ringwire_sip::message::{
    HeaderName, Host, Method, NameAddr, Request, Response, Scheme, Uri, Via, parse_datagram,
};
use ringwire_sip::sdp::{Direction, MediaDescription, Origin, SessionDescription};

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

/// Text that tries to begin a line of its own.
fn evil() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\nEvil: 1".to_owned()),
        Just("\na=evil".to_owned()),
        Just("\r".to_owned()),
        "(?s).{0,6}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// How many lines there are, each ended by CRLF; nothing else ends one.
fn lines(bytes: &[u8]) -> usize {
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let (last, whole) = lines.split_last().unwrap();
    assert!(last.is_empty() && whole.iter().all(|line| line.ends_with(b"\r")));
    assert_eq!(
        bytes
            .iter()
            .filter(|byte| **byte == b'\r')
            .collect::<Vec<_>>()
            .len(),
        whole.len()
    );
    assert!(!whole.iter().any(|line| line.starts_with(b"Evil:")));
    whole.len()
}

/// A URI with this in each of its fields.
fn uri_of(scheme: Scheme, text: &str) -> Uri {
    let mut uri = Uri::sip(Some(text), Host::Name(text.to_owned()), Some(5060));
    uri.scheme = scheme;
    uri.user = Some(text.to_owned());
    uri.password = Some(text.to_owned());
    uri.headers = Some(text.to_owned());
    uri.params.set(text, Some(text));
    uri
}

proptest! {
    #[test]
    fn no_field_of_a_message_splits_a_header(
        text in evil(),
        scheme in prop_oneof![
            Just(Scheme::Sip), Just(Scheme::Sips), Just(Scheme::Tel), evil().prop_map(Scheme::Other),
        ],
    ) {
        let mut address = NameAddr::new(uri_of(scheme.clone(), &text));
        address.display = Some(text.clone());
        address.params.set(&text, Some(&text));
        address.set_tag(&text);
        let mut via = Via::new(&text, Host::Name(text.clone()), None, &text);
        via.params.set(&text, Some(&text));
        let mut request = Request::new(Method::Other(text.clone()), uri_of(scheme, &text));
        let headers = &mut request.headers;
        headers.push(HeaderName::To, address.to_string());
        headers.insert_first(HeaderName::Via, via.to_string());
        headers.note_source("192.0.2.1:5060".parse().unwrap());
        headers.set(HeaderName::CallId, text.clone());
        headers.set(HeaderName::CallId, format!("x{text}"));
        headers.push(HeaderName::From, "a, b");
        headers.replace_first(&HeaderName::From, text.clone());
        headers.push(HeaderName::Other(text.clone()), "left out, or a token");
        let written = headers.len() - 1 + usize::from(request.headers.iter().any(|(name, _)| {
            !text.is_empty() && name.as_str() == text
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
        }));
        request.set_body(&text, Vec::new());
        prop_assert_eq!(lines(&request.to_bytes()), written + 4);
        let mut response = Response::to_request(&request, 486, Some(&text));
        response.set_to_tag(&text);
        prop_assert_eq!(lines(&response.to_bytes()), response.headers.len() + 3);
        let _ = parse_datagram(&request.to_bytes());
    }

    #[test]
    fn no_field_of_a_description_splits_a_line(text in evil()) {
        let attributes = vec![(text.clone(), Some(text.clone())), (text.clone(), None)];
        let media = MediaDescription {
            kind: text.clone(),
            port: 4000,
            protocol: text.clone(),
            formats: vec![text.clone()],
            connection: None,
            bandwidth: vec![text.clone()],
            direction: Direction::SendRecv,
            attributes: attributes.clone(),
        };
        let description = SessionDescription {
            origin: Origin {
                username: text.clone(),
                session_id: text.clone(),
                version: text.clone(),
                address: text.clone(),
            },
            session_name: text.clone(),
            connection: None,
            bandwidth: vec![text.clone()],
            timing: text.clone(),
            attributes,
            media: vec![media],
        };
        // v, o, s, b, t and two a; then m, b, two a and the direction.
        prop_assert_eq!(lines(&description.to_bytes()), 12);
    }

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
