//! The agents' protocols, as far as a load needs them: how audio goes into a connection, and how it comes out at either end. Written from
//! Twilio's, Asterisk's and the WebSocket documents (RFC 6455), without the product's code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use ringwire_media::g711::{decode_ulaw, encode_ulaw};

/// How an agent is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Twilio's Media Streams: JSON with base64 over a WebSocket.
    Twilio,
    /// Asterisk's AudioSocket: 16-bit samples over TCP.
    AudioSocket,
}

/// Bytes that come without end would fill the memory.
const MAX_MESSAGE: usize = 1 << 20;

/// AudioSocket's kinds: the call's name, and audio of 8 kHz.
const UUID: u8 = 0x01;
const AUDIO: u8 = 0x10;

/// WebSocket's opcodes.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A WebSocket frame's length that says that two more bytes hold it.
const TWO_MORE: u8 = 0x7e;

/// What a connection brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Audio, µ-law.
    Audio,
    /// The other side wants something sent back at once.
    Reply(Vec<u8>),
    /// The end.
    Closed,
}

/// What is left of a connection's bytes.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    start: usize,
    open: bool,
    /// The call's name, which an agent gives back with its audio.
    stream: String,
}

/// Whose audio is written.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// The caller's, and which frame it is.
    Caller(u64),
    /// The agent's, in the stream of this name.
    Agent(&'a str),
}

impl Protocol {
    /// What a caller sends at first; the agent's side answers it by itself.
    pub fn hello(self, host: &str) -> Vec<u8> {
        match self {
            Self::Twilio => format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                 Sec-WebSocket-Version: 13\r\n\r\n"
            )
            .into_bytes(),
            Self::AudioSocket => [&[UUID, 0, 16][..], &[7; 16]].concat(),
        }
    }

    /// Puts audio behind `out`: as the caller's side sends it (masked, with what Twilio says of each frame), or as the agent's does.
    pub fn write(self, ulaw: &[u8], side: Side<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Twilio => {
                let payload = STANDARD.encode(ulaw);
                let text = match side {
                    Side::Caller(number) => format!(
                        "{{\"event\":\"media\",\"sequenceNumber\":\"{number}\",\"media\":{{\"track\":\"inbound\",\"chunk\":\"{number}\",\
                         \"timestamp\":\"{}\",\"payload\":\"{payload}\"}},\"streamSid\":\"MZ00000000000000000000000000000000\"}}",
                        number * 20
                    ),
                    Side::Agent(stream) => format!(
                        "{{\"event\":\"media\",\"streamSid\":\"{stream}\",\"media\":{{\"payload\":\"{payload}\"}}}}"
                    ),
                };
                frame(TEXT, text.as_bytes(), matches!(side, Side::Caller(_)), out);
            }
            Self::AudioSocket => {
                let length = (ulaw.len() * 2) as u16;
                out.push(AUDIO);
                out.extend(length.to_be_bytes());
                out.extend(
                    ulaw.iter()
                        .flat_map(|code| decode_ulaw(*code).to_le_bytes()),
                );
            }
        }
    }
}

/// A frame of a WebSocket. Masked with zeros, as a client that has nothing to hide may (RFC 6455 section 5.3 wants random ones).
fn frame(opcode: u8, payload: &[u8], masked: bool, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let mask = if masked { 0x80 } else { 0 };
    if payload.len() < usize::from(TWO_MORE) {
        out.push(mask | payload.len() as u8);
    } else {
        out.push(mask | TWO_MORE);
        out.extend((payload.len() as u16).to_be_bytes());
    }
    if masked {
        out.extend([0; 4]);
    }
    out.extend_from_slice(payload);
}

impl Reader {
    /// The call's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Takes bytes of the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the connection may be talked on: the agent has agreed, or was asked.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The next thing in the bytes so far. Audio goes to `ulaw`, in place of what is there.
    pub fn next(&mut self, protocol: Protocol, ulaw: &mut Vec<u8>) -> Option<Event> {
        loop {
            let rest = &mut self.bytes[self.start..];
            if rest.len() > MAX_MESSAGE {
                return Some(Event::Closed);
            }
            let step = match protocol {
                Protocol::Twilio if !self.open => {
                    let end = rest.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
                    let reply = rest.starts_with(b"GET ").then(|| upgrade(&rest[..end]));
                    self.open = true;
                    (end, reply.map(Event::Reply))
                }
                Protocol::Twilio => {
                    let (header, length, mask) = head(rest)?;
                    let payload = rest.get_mut(header..header + length)?;
                    if let Some(mask) = mask.filter(|mask| *mask != [0; 4]) {
                        unmask(payload, mask);
                    }
                    let (opcode, payload) = (rest[0] & 0xf, &rest[header..header + length]);
                    if self.stream.is_empty()
                        && opcode == TEXT
                        && let Some(name) = value_of(payload, b"\"streamSid\":\"")
                    {
                        self.stream = String::from_utf8_lossy(name).into_owned();
                    }
                    (header + length, websocket(opcode, payload, ulaw))
                }
                Protocol::AudioSocket => {
                    self.open = true;
                    let length = usize::from(u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]));
                    let payload = rest.get(3..3 + length)?;
                    let event = match rest[0] {
                        AUDIO => {
                            let samples = payload.chunks_exact(2);
                            ulaw.clear();
                            ulaw.extend(
                                samples
                                    .map(|two| encode_ulaw(i16::from_le_bytes([two[0], two[1]]))),
                            );
                            Some(Event::Audio)
                        }
                        0 => Some(Event::Closed),
                        _ => None,
                    };
                    (3 + length, event)
                }
            };
            self.start += step.0;
            if let Some(event) = step.1 {
                return Some(event);
            }
        }
    }
}

/// Length of a WebSocket frame's header, of its payload, and the mask.
fn head(bytes: &[u8]) -> Option<(usize, usize, Option<[u8; 4]>)> {
    let second = *bytes.get(1)?;
    let (mut header, length) = match second & 0x7f {
        TWO_MORE => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let masked = second & 0x80 != 0;
    let mask = if masked {
        let mask = bytes.get(header..header + 4)?.try_into().ok()?;
        header += 4;
        Some(mask)
    } else {
        None
    };
    Some((header, length, mask))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes((&*word).try_into().unwrap_or_default()) ^ wide;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    for (at, byte) in words.into_remainder().iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
}

fn websocket(opcode: u8, payload: &[u8], ulaw: &mut Vec<u8>) -> Option<Event> {
    match opcode {
        TEXT => {
            let audio = value_of(payload, b"\"payload\":\"")?;
            ulaw.clear();
            STANDARD.decode_vec(audio, ulaw).ok()?;
            Some(Event::Audio)
        }
        CLOSE => Some(Event::Closed),
        PING => {
            let mut pong = Vec::new();
            frame(PONG, payload, false, &mut pong);
            Some(Event::Reply(pong))
        }
        _ => None,
    }
}

/// What stands in a JSON text behind `start`, up to the next quotation mark.
fn value_of<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let rest = &text[find(text, start)? + start.len()..];
    Some(&rest[..find(rest, b"\"")?])
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

/// The answer to a WebSocket's request (RFC 6455 section 4.2.2).
fn upgrade(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim().to_owned())
    });
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(
        key.unwrap_or_default().as_bytes(),
    );
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio_of(protocol: Protocol, bytes: &[u8], agent: bool) -> Vec<Vec<u8>> {
        let mut reader = Reader::default();
        let (mut ulaw, mut heard) = (Vec::new(), Vec::new());
        let hello = protocol.hello("agent");
        if agent {
            reader.push(&hello);
        } else {
            reader.open = true;
        }
        for part in bytes.chunks(7) {
            reader.push(part);
            while let Some(event) = reader.next(protocol, &mut ulaw) {
                match event {
                    Event::Audio => heard.push(ulaw.clone()),
                    Event::Reply(reply) => assert!(reply.starts_with(b"HTTP/1.1 101")),
                    Event::Closed => panic!("closed"),
                }
            }
        }
        heard
    }

    #[test]
    fn each_side_hears_what_the_other_says() {
        for protocol in [Protocol::Twilio, Protocol::AudioSocket] {
            for side in [Side::Caller(1), Side::Agent("MZ1")] {
                let (one, two) = ([0x9a; 160], [0x2f; 160]);
                let mut bytes = Vec::new();
                protocol.write(&one, side, &mut bytes);
                protocol.write(&two, side, &mut bytes);
                let heard = audio_of(protocol, &bytes, matches!(side, Side::Caller(_)));
                assert_eq!(heard, [one.to_vec(), two.to_vec()]);
            }
        }
    }

    #[test]
    fn a_mask_is_taken_off() {
        let mut text = *b"a text of 21 letters.";
        let mask = [1, 2, 3, 4];
        unmask(&mut text, mask);
        assert_ne!(&text, b"a text of 21 letters.");
        unmask(&mut text, mask);
        assert_eq!(&text, b"a text of 21 letters.");
    }
}
