use proptest::prelude::*;

use super::*;

const RATE: u32 = 8000;

/// What a stream said.
#[derive(Debug, PartialEq)]
enum Said {
    Audio(Vec<u8>),
    Unusable(ProtocolError),
    End(End),
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend(payload);
    frame
}

/// All that a stream says when it comes in these pieces; audio joined.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let mut session = Session::new(RATE);
    let mut all: Vec<Said> = Vec::new();
    for mut piece in pieces {
        while let Some(received) = session.receive(&mut piece) {
            match (all.last_mut(), received) {
                (Some(Said::Audio(before)), Received::Audio(audio)) => before.extend(audio),
                (_, Received::Audio(audio)) => all.push(Said::Audio(audio.to_vec())),
                (_, Received::Unusable(error)) => all.push(Said::Unusable(error)),
                (_, Received::End(end)) => all.push(Said::End(end)),
            }
        }
        assert!(piece.is_empty(), "{} bytes are left", piece.len());
    }
    all
}

/// Samples of which these are the high bytes.
fn audio(high: &[u8]) -> Said {
    Said::Audio(high.iter().flat_map(|high| [0, *high]).collect())
}

#[test]
fn our_frames_are_those_of_the_protocol() {
    let id: [u8; 16] = std::array::from_fn(|index| index as u8);
    assert_eq!(Session::start(id), *frame(0x01, &id));
    assert_eq!(Session::digit('#').unwrap(), *frame(0x03, b"#"));
    assert_eq!(Session::digit('é'), None);
    assert_eq!(HANG_UP_FRAME, [0, 0, 0]);
    let session = Session::new(RATE);
    let mut out = [0; HEADER_BYTES + 320];
    let made = session.audio(&[1, 2, 0xff, 4], &mut out);
    assert_eq!(made, frame(0x10, &[1, 2, 0xff, 4]));
    let made = session.audio(&[7; 320], &mut out);
    assert_eq!((made.len(), &made[..3]), (323, &[0x10, 1, 64][..]));
    assert_eq!(session.audio(&[7; 500], &mut out).len(), 323);
    assert_eq!(session.frame_bytes(), 320);
}

#[test]
fn the_kind_tells_the_rate_both_ways() {
    for (rate, kind) in [
        (12_000, 0x11),
        (16_000, 0x12),
        (24_000, 0x13),
        (48_000, 0x16),
    ] {
        let mut session = Session::new(rate);
        let sound = vec![5; session.frame_bytes()];
        let mut out = vec![0; HEADER_BYTES + sound.len()];
        assert_eq!(session.audio(&sound, &mut out), frame(kind, &sound));
        let stream = [frame(kind, &[1, 2]), frame(0x10, &[3, 4])].concat();
        let mut input = &stream[..];
        assert_eq!(session.receive(&mut input), Some(Received::Audio(&[1, 2])));
        let other = ProtocolError::Rate {
            got: 8000,
            wanted: rate,
        };
        let text = other.to_string();
        assert!(
            text.contains(&format!("only {rate} Hz (kind {kind:#04x})")),
            "{text}"
        );
        assert_eq!(session.receive(&mut input), Some(Received::Unusable(other)));
        assert_eq!(session.receive(&mut input), None);
    }
}

#[test]
fn audio_of_any_size_is_played() {
    let payload: Vec<u8> = (0..=255).flat_map(|high| [0xaa, high]).collect();
    let mut stream = frame(0x10, &payload);
    stream.extend(frame(0x10, &[]));
    stream.extend(frame(0x10, &[0, 9]));
    let expected = [&payload[..], &[0, 9]].concat();
    assert_eq!(read([&stream[..]]), [Said::Audio(expected)]);
    let longest = frame(0x10, &vec![3; 65_534]);
    assert_eq!(read([&longest[..]]), [Said::Audio(vec![3; 65_534])]);
}

#[test]
fn what_is_wrong_is_named_and_the_call_goes_on() {
    for (wrong, error, text) in [
        (
            frame(0x12, &[0; 640]),
            ProtocolError::Rate {
                got: 16_000,
                wanted: RATE,
            },
            "16000 Hz (kind 0x12)",
        ),
        (
            frame(0x18, &[0; 10]),
            ProtocolError::Rate {
                got: 192_000,
                wanted: RATE,
            },
            "192000 Hz (kind 0x18)",
        ),
        (
            frame(0x01, &[0; 16]),
            ProtocolError::Direction(0x01),
            "kind 0x01",
        ),
        (frame(0x03, b"1"), ProtocolError::Direction(0x03), "0x03"),
        (frame(0x02, b""), ProtocolError::Direction(0x02), "0x02"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
        let stream = [frame(0x10, &[0, 1]), wrong, frame(0x10, &[0, 2])].concat();
        let expected = [audio(&[1]), Said::Unusable(error), audio(&[2])];
        assert_eq!(read([&stream[..]]), expected);
    }
    // The half sample is lost, the next frame's are whole.
    let stream = [frame(0x10, &[0, 1, 0]), frame(0x10, &[0, 2])].concat();
    let odd = Said::Unusable(ProtocolError::OddAudio(3));
    assert_eq!(read([&stream[..]]), [odd, audio(&[1, 2])]);
}

#[test]
fn the_end_says_why() {
    for (stream, end, text) in [
        (frame(0x00, b""), End::HungUp, "hung up"),
        (frame(0x00, b"bye"), End::HungUp, "hung up"),
        (frame(0xff, &[4]), End::Failed(Some(4)), "an error, code 4"),
        (
            frame(0xff, &[4, 5]),
            End::Failed(Some(4)),
            "an error, code 4",
        ),
        (frame(0xff, b""), End::Failed(None), "reported an error"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            End::NotAudioSocket(b'H'),
            "kind 0x48, which AudioSocket does not have",
        ),
        (frame(0x19, b""), End::NotAudioSocket(0x19), "0x19"),
        (frame(0x0f, b""), End::NotAudioSocket(0x0f), "0x0f"),
    ] {
        assert!(end.to_string().contains(text), "{end}");
        // Nothing counts after the end.
        let stream = [frame(0x10, &[0, 1]), stream, frame(0x10, &[0, 2])].concat();
        assert_eq!(read([&stream[..]]), [audio(&[1]), Said::End(end)]);
    }
}

#[test]
fn an_identifier_is_a_random_uuid() {
    assert_eq!(id_text([0xab; 16]), "abababab-abab-abab-abab-abababababab");
    let mut rng = rand::rng();
    let text = id_text(new_id(&mut rng));
    let (version, variant) = (&text[14..15], &text[19..20]);
    assert!(version == "4" && "89ab".contains(variant), "{text}");
    assert_ne!(new_id(&mut rng), new_id(&mut rng));
}

/// Streams of frames, good, bad and cut off.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        8 => Just(0x10),
        3 => prop::sample::select(vec![0x01, 0x02, 0x03, 0x11, 0x18]),
        1 => any::<u8>(),
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    let frames = prop::collection::vec((kind, payload), 0..20);
    (frames, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(frames, rest)| {
        let frames = frames.iter().map(|(kind, payload)| frame(*kind, payload));
        frames.chain([rest]).flatten().collect()
    })
}

proptest! {
    #[test]
    fn pieces_make_no_difference(stream in streams(), sizes in prop::collection::vec(1usize..50, 1..30)) {
        let whole = read([&stream[..]]);
        prop_assert_eq!(&read(stream.chunks(1)), &whole);
        let mut rest = &stream[..];
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*size));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(read(pieces), whole);
    }

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(bytes.chunks(7));
    }

    #[test]
    fn what_we_send_reads_back(high in prop::collection::vec(any::<u8>(), 1..160)) {
        let session = Session::new(RATE);
        let sound: Vec<u8> = high.iter().flat_map(|high| [0, *high]).collect();
        let mut out = [0; HEADER_BYTES + 320];
        prop_assert_eq!(read([session.audio(&sound, &mut out)]), vec![audio(&high)]);
    }
}
