use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use proptest::prelude::*;
use proptest::sample::Index;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::*;

const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const CLOSE: OpCode = OpCode::Control(Control::Close);

/// That of the examples of RFC 6455 section 5.7.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Closed(u16, String),
}

impl From<Received<'_>> for Heard {
    fn from(received: Received<'_>) -> Self {
        match received {
            Received::Text(text) => Self::Text(text.to_owned()),
            Received::Binary(data) => Self::Binary(data.to_owned()),
            Received::Ping(payload) => Self::Ping(payload.to_owned()),
            Received::Closed { code, reason } => Self::Closed(code, reason.to_owned()),
        }
    }
}

fn heard_text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

/// Reads pieces until an error.
fn read_on<'a>(
    reader: &mut Reader,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Heard>, Result<(), FrameError>) {
    let mut heard = Vec::new();
    let read = pieces
        .into_iter()
        .try_for_each(|piece| reader.read(piece, &mut |received| heard.push(received.into())));
    (heard, read)
}

fn read(input: &[u8]) -> (Vec<Heard>, Result<(), FrameError>) {
    read_on(&mut Reader::default(), [input])
}

fn refusal(input: &[u8]) -> FrameError {
    let (heard, read) = read(input);
    assert_eq!(heard, []);
    read.expect_err("it is refused")
}

/// What goes over the wire to and from tungstenite.
#[derive(Debug, Default)]
struct Wire {
    to_it: VecDeque<u8>,
    from_it: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_it.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.to_it.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.from_it.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An agent that nobody here wrote.
fn tungstenite() -> WebSocket<Wire> {
    WebSocket::from_raw_socket(Wire::default(), Role::Server, None)
}

/// What tungstenite writes.
fn sent(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut agent = tungstenite();
    for message in messages {
        agent.write(message).unwrap();
    }
    agent.flush().unwrap();
    std::mem::take(&mut agent.get_mut().from_it)
}

fn frame(opcode: OpCode, payload: &[u8], is_final: bool) -> Message {
    let OpCode::Data(_) = opcode else {
        panic!("tungstenite frames messages only");
    };
    Message::Frame(Frame::message(payload.to_vec(), opcode, is_final))
}

fn written(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    let write = |out: &mut Vec<u8>| out.extend_from_slice(payload);
    writer.frame(opcode, MASK, write).to_vec()
}

#[test]
fn the_examples_of_the_standard_are_read_and_written() {
    // Section 5.7, in its order.
    assert_eq!(read(b"\x81\x05Hello").0, [heard_text("Hello")]);
    let masked = b"\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(written(TEXT, b"Hello"), [b"\x81\x85", &masked[..]].concat());
    assert_eq!(read(b"\x01\x03Hel\x80\x02lo").0, [heard_text("Hello")]);
    assert_eq!(read(b"\x89\x05Hello").0, [Heard::Ping(b"Hello".to_vec())]);
    assert_eq!(written(PONG, b"Hello"), [b"\x8a\x85", &masked[..]].concat());
    for (header, length) in [
        (&b"\x82\x7e\x01\x00"[..], 256),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 65536),
    ] {
        let data: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
        let frame = [header, &data].concat();
        assert_eq!(read(&frame), (vec![Heard::Binary(data.clone())], Ok(())));
        // A bit more in ours: the mask.
        let ours = written(BINARY, &data);
        assert_eq!(ours[1], header[1] | 0x80);
        assert_eq!(ours[2..header.len()], header[2..]);
        assert_eq!(ours[header.len()..][..4], MASK);
    }
}

#[test]
fn what_tungstenite_sends_is_read() {
    let long = "é".repeat(MAX_MESSAGE_BYTES / 2);
    let stream = sent([
        Message::text(""),
        Message::text("one"),
        Message::binary(vec![0xff; 126]),
        frame(TEXT, b"f\xc3", false),
        Message::Ping(b"between".to_vec().into()),
        frame(CONTINUE, b"", false),
        Message::Pong(b"unasked".to_vec().into()),
        frame(CONTINUE, b"\xa9", true),
        Message::text(long.as_str()),
        frame(BINARY, &vec![1; 70_000], false),
        frame(CONTINUE, &vec![2; 70_000], true),
        Message::Ping(Vec::new().into()),
        Message::Close(Some(CloseFrame {
            code: 4001.into(),
            reason: "bye ☎".into(),
        })),
    ]);
    let expected = [
        heard_text(""),
        heard_text("one"),
        Heard::Binary(vec![0xff; 126]),
        Heard::Ping(b"between".to_vec()),
        heard_text("fé"),
        heard_text(&long),
        Heard::Binary([vec![1; 70_000], vec![2; 70_000]].concat()),
        Heard::Ping(Vec::new()),
        Heard::Closed(4001, "bye ☎".to_owned()),
    ];
    for size in [stream.len(), 16 << 10, 1000, 7, 1] {
        let mut reader = Reader::default();
        let (heard, read) = read_on(&mut reader, stream.chunks(size));
        assert_eq!(read, Ok(()));
        assert!(heard == expected, "in pieces of {size}");
        assert!(reader.unread.is_empty() && reader.message.is_empty());
        assert!(reader.unread.capacity() <= KEPT_CAPACITY);
        assert!(reader.message.capacity() <= KEPT_CAPACITY);
    }
}

#[test]
fn a_close_frame_of_tungstenite_may_say_nothing() {
    let stream = sent([Message::Close(None)]);
    let closed = Heard::Closed(NO_CODE, String::new());
    assert_eq!(read(&stream), (vec![closed], Ok(())));
}

#[test]
fn tungstenite_reads_what_is_written() {
    let mut agent = tungstenite();
    let mut writer = Writer::default();
    let mut hear = |opcode, payload: &[u8]| {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(payload);
        agent
            .get_mut()
            .to_it
            .extend(writer.frame(opcode, MASK, write));
        agent.read()
    };
    for length in (0..300).chain([65_535, 65_536, MAX_MESSAGE_BYTES]) {
        // No period that a mask has.
        let data: Vec<u8> = (0..length).map(|place| (place % 253) as u8).collect();
        let message = hear(BINARY, &data).unwrap();
        assert!(message == Message::binary(data), "{length} bytes");
        let letter = |place| char::from(b'a' + (place % 23) as u8);
        let text: String = (0..length).map(letter).collect();
        let message = hear(TEXT, text.as_bytes()).unwrap();
        assert!(message == Message::text(text), "{length} letters");
    }
    assert_eq!(hear(TEXT, "é☎".as_bytes()).unwrap(), Message::text("é☎"));
    let ping = Message::Ping(b"1".to_vec().into());
    assert_eq!(hear(PING, b"1").unwrap(), ping);
    let longest = vec![9; MAX_CONTROL_BYTES];
    let pong = Message::Pong(longest.clone().into());
    assert_eq!(hear(PONG, &longest).unwrap(), pong);
    let close = CloseFrame {
        code: 1000.into(),
        reason: "done".into(),
    };
    let closed = hear(CLOSE, b"\x03\xe8done").unwrap();
    assert_eq!(closed, Message::Close(Some(close)));
    // It answers, and both sides are done.
    assert!(matches!(agent.read(), Err(Error::ConnectionClosed)));
    // What it wrote: a pong, which is not told, and the close frame.
    let heard = Heard::Closed(1000, "done".to_owned());
    assert_eq!(read(&agent.get_ref().from_it), (vec![heard], Ok(())));
}

#[test]
fn masks_and_headers_are_right_for_each_length() {
    let mut writer = Writer::default();
    for length in (0_usize..300).chain([65_535, 65_536]) {
        let data: Vec<u8> = (0..length).map(|place| (place % 253) as u8).collect();
        let mask = [length as u8, 0x80, 0, 0xff];
        let frame = writer.frame(BINARY, mask, |out| out.extend_from_slice(&data));
        let header = match length {
            0..=125 => vec![0x82, 0x80 | length as u8],
            126..=65_535 => {
                let length = (length as u16).to_be_bytes();
                [&[0x82, 0xfe], &length[..]].concat()
            }
            _ => [&[0x82, 0xff], &(length as u64).to_be_bytes()[..]].concat(),
        };
        let masked = data.iter().zip(mask.iter().cycle());
        let masked: Vec<u8> = masked.map(|(byte, mask)| byte ^ mask).collect();
        assert!(
            frame == [header, mask.to_vec(), masked].concat(),
            "{length} bytes"
        );
    }
    assert!(writer.frame(TEXT, MASK, |_| ()).len() == 6);
    assert!(
        writer.0.capacity() <= KEPT_CAPACITY,
        "a long frame's memory is given back"
    );
}

#[test]
fn what_is_not_to_be_sent_is_refused() {
    let protocol = |what| FrameError::Protocol(what);
    let masked = protocol("a masked frame");
    let reserved_bit = protocol("a reserved bit is set");
    let opcode = protocol("an unknown opcode");
    let control = protocol("a control frame is too long or in fragments");
    let fragment = protocol("a fragment without its message");
    let half = protocol("half a close code");
    for (input, error) in [
        // The standard's masked example.
        (
            &b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..],
            &masked,
        ),
        (b"\x89\x80\0\0\0\0", &masked),
        (b"\xc1\x00", &reserved_bit),
        (b"\xa1\x00", &reserved_bit),
        (b"\x91\x00", &reserved_bit),
        (b"\xc9\x00", &reserved_bit),
        (b"\x83\x00", &opcode),
        (b"\x87\x00", &opcode),
        (b"\x8b\x00", &opcode),
        (b"\x8f\x00", &opcode),
        // Their headers are enough.
        (b"\x89\x7e\x00\x7e", &control),
        (b"\x8a\x7e\x00\x7e", &control),
        (b"\x88\x7f\0\0\0\0\0\0\0\x7e", &control),
        (b"\x09\x00", &control),
        (b"\x08\x00", &control),
        (b"\x80\x05", &fragment),
        (b"\x00\x05", &fragment),
        (b"\x01\x01a\x81\x05", &fragment),
        (b"\x01\x01a\x02\x05", &fragment),
        (b"\x88\x01\x03", &half),
        (b"\x81\x02\xc3\x28", &FrameError::NotUtf8),
        // The first half of a letter, and no more.
        (b"\x81\x01\xc3", &FrameError::NotUtf8),
        (b"\x01\x01\xc3\x80\x01\x28", &FrameError::NotUtf8),
        (b"\x88\x03\x03\xe8\xff", &FrameError::NotUtf8),
    ] {
        assert_eq!(&refusal(input), error, "{input:02x?}");
    }
    assert_eq!(masked.close_code(), 1002);
    assert_eq!(FrameError::NotUtf8.close_code(), 1007);
    assert_eq!(FrameError::TooLarge.close_code(), 1009);
}

#[test]
fn a_message_above_one_mebibyte_is_refused_by_its_header() {
    let announce = |first, length: u64| [&[first, 0x7f][..], &length.to_be_bytes()].concat();
    let most = MAX_MESSAGE_BYTES as u64;
    for length in [most + 1, 1 << 32, 1 << 63, u64::MAX] {
        for first in [0x81, 0x82, 0x01] {
            assert_eq!(refusal(&announce(first, length)), FrameError::TooLarge);
        }
    }
    // As much as is allowed, in one and in two.
    let payload = vec![b'x'; MAX_MESSAGE_BYTES];
    let text = [Heard::Text("x".repeat(MAX_MESSAGE_BYTES))];
    let whole = [&announce(0x81, most)[..], &payload].concat();
    let (heard, read) = read(&whole);
    assert!(heard == text && read.is_ok());
    let first = [&announce(0x01, most - 5)[..], &payload[5..]].concat();
    let mut reader = Reader::default();
    let (heard, read) = read_on(&mut reader, [&first[..], b"\x80\x05xxxxx"]);
    assert!(heard == text && read.is_ok());
    // One more is refused before it is there; a ping between is not counted.
    let (heard, read) = read_on(&mut reader, [&first[..], b"\x89\x01p", b"\x80\x06"]);
    assert_eq!(heard, [Heard::Ping(b"p".to_vec())]);
    assert_eq!(read, Err(FrameError::TooLarge));
}

#[test]
fn nothing_is_read_after_the_end() {
    for (last, heard) in [
        (
            &b"\x88\x00"[..],
            vec![Heard::Closed(NO_CODE, String::new())],
        ),
        (b"\x83\x00", vec![]),
        (b"\x81\x01\xff", vec![]),
    ] {
        let mut reader = Reader::default();
        // Half of it waits for the rest, so that both ways of reading see it.
        for pieces in [[&last[..1], &last[1..]], [last, &[]]] {
            let mut told = Vec::new();
            for piece in pieces.into_iter().chain([&b"\x81\x01a"[..]; 3]) {
                let _ = reader.read(piece, &mut |received| told.push(Heard::from(received)));
            }
            assert_eq!(told, heard, "{last:02x?}");
            assert!(reader.unread.is_empty(), "nothing is kept");
            reader = Reader::default();
        }
        // In the same piece, too.
        assert_eq!(read(&[last, b"\x81\x01a"].concat()).0, heard);
    }
}

#[test]
fn a_long_message_in_small_pieces_is_not_moved_for_each() {
    let stream = sent([Message::binary(vec![1; MAX_MESSAGE_BYTES])]);
    let mut reader = Reader::default();
    let mut capacities = Vec::new();
    for piece in stream.chunks(100) {
        reader.read(piece, &mut |_| ()).unwrap();
        capacities.push(reader.unread.capacity());
    }
    capacities.dedup();
    assert!(
        capacities.len() < 32,
        "its memory grew {} times",
        capacities.len()
    );
}

#[test]
fn a_close_is_answered_with_a_code_that_may_be_sent() {
    for (code, answer) in [
        (NO_CODE, None),
        (1000, Some(1000)),
        (1001, Some(1001)),
        (1011, Some(1011)),
        (3000, Some(3000)),
        (4999, Some(4999)),
        (0, Some(1002)),
        (999, Some(1002)),
        (1006, Some(1002)),
        (1015, Some(1002)),
        (2000, Some(1002)),
        (5000, Some(1002)),
        (u16::MAX, Some(1002)),
    ] {
        assert_eq!(close_answer(code), answer, "{code}");
    }
}

/// Frames as an agent might send them, most of them good.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80]),
        2 => prop::sample::select(vec![0x88_u8, 0x89, 0x8a]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        3 => "[a-zé☎]{0,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    (first, payload, prop::bool::weighted(0.02)).prop_map(|(first, payload, masked)| {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = match payload.len() {
            length @ 0..=125 => vec![first, mask | length as u8],
            length => [&[first, mask | 0x7e][..], &(length as u16).to_be_bytes()].concat(),
        };
        frame.extend(payload);
        frame
    })
}

/// A fragmented message with control frames in between, then whatever.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let fragments = prop::collection::vec("[a-zé☎]{0,200}", 1..5).prop_map(|parts| {
        let last = parts.len() - 1;
        let messages = parts.into_iter().enumerate().flat_map(|(place, part)| {
            let opcode = if place == 0 { TEXT } else { CONTINUE };
            let ping = Message::Ping(vec![place as u8].into());
            [frame(opcode, part.as_bytes(), place == last), ping]
        });
        sent(messages)
    });
    let frames = prop::collection::vec(any_frame(), 0..8).prop_map(|frames| frames.concat());
    (fragments, frames).prop_map(|(fragments, frames)| [fragments, frames].concat())
}

proptest! {
    #[test]
    fn how_the_stream_is_cut_makes_no_difference(
        stream in any_stream(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|ends| &stream[ends[0]..ends[1]]);
        let whole = read(&stream);
        prop_assert!(!whole.0.is_empty(), "the fragmented message is there");
        prop_assert_eq!(read_on(&mut Reader::default(), pieces), whole.clone());
        prop_assert_eq!(read_on(&mut Reader::default(), stream.chunks(1)), whole);
    }

    #[test]
    fn what_tungstenite_takes_means_the_same_here(stream in any_stream()) {
        // It reads unmasked frames in the client's part. Its own checks of close codes and of half messages are not ours.
        let wire = Wire { to_it: stream.clone().into(), from_it: Vec::new() };
        let mut agent = WebSocket::from_raw_socket(wire, Role::Client, None);
        let mut theirs = Vec::new();
        while let Ok(message) = agent.read() {
            match message {
                Message::Text(text) => theirs.push(heard_text(&text)),
                Message::Binary(data) => theirs.push(Heard::Binary(data.to_vec())),
                Message::Ping(payload) => theirs.push(Heard::Ping(payload.to_vec())),
                Message::Close(_) => break,
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let (mut ours, _) = read(&stream);
        ours.retain(|heard| !matches!(heard, Heard::Closed(..)));
        // It refuses text as soon as half of it is bad; then only pings can come before our refusal.
        prop_assert!(ours.len() >= theirs.len(), "{:?} {:?}", ours, theirs);
        let more = ours.split_off(theirs.len());
        prop_assert_eq!(ours, theirs);
        prop_assert!(more.iter().all(|heard| matches!(heard, Heard::Ping(_))), "{:?}", more);
    }

    #[test]
    fn no_input_panics_or_is_kept_beyond_the_bound(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16),
    ) {
        let mut reader = Reader::default();
        for piece in &pieces {
            let _ = reader.read(piece, &mut |_| ());
        }
        let total: usize = pieces.iter().map(Vec::len).sum();
        prop_assert!(reader.unread.len() + reader.message.len() <= total);
    }

    #[test]
    fn any_frame_of_ours_is_unmasked_by_tungstenite(
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        mask in any::<[u8; 4]>(),
    ) {
        let mut writer = Writer::default();
        let mut agent = tungstenite();
        let frame = writer.frame(BINARY, mask, |out| out.extend_from_slice(&payload));
        agent.get_mut().to_it.extend(frame);
        prop_assert_eq!(agent.read().unwrap(), Message::binary(payload));
    }
}
