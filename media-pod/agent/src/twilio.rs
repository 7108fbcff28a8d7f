//! Twilio's Media Streams protocol, as seen from Twilio's side of the WebSocket.
//!
//! Shapes and their quirks (numbers as strings, two names of the inbound track) are those of
//! <https://www.twilio.com/docs/voice/media-streams/websocket-messages>, bidirectional streams. Text in, text out, appended to what the
//! caller gives: the socket is `socket`'s, and when audio is played or a mark comes back is the media crate's.

use std::{borrow::Cow, collections::BTreeMap, io::Write as _};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Command;

/// Largest message that is read.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Longest name of a mark.
pub const MAX_MARK_BYTES: usize = 1024;
/// Capacity for the agent's audio that is kept: half a second.
const KEPT_CAPACITY: usize = 4096;
/// How much of an unreadable message's fault goes into an error.
const MAX_DETAIL_CHARS: usize = 200;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is wrong with a message of the agent. The message is not acted upon; the stream goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("message of {0} bytes is longer than 1 MiB: send audio in smaller pieces")]
    TooLarge(usize),
    /// Not JSON, or a field of the wrong type.
    #[error("message is not a Media Streams message: {0}")]
    Json(String),
    /// A field that the event needs is missing.
    #[error("{event:?} message without {field:?}")]
    MissingField {
        /// The event.
        event: &'static str,
        /// The missing field's path.
        field: &'static str,
    },
    /// The payload is not base64.
    #[error("media.payload is not base64: {0}")]
    Payload(String),
    /// The name is longer than [`MAX_MARK_BYTES`].
    #[error("mark.name of {0} bytes is longer than 1024")]
    MarkName(usize),
    /// Meant for another call.
    #[error("streamSid is another stream's, expected {expected}")]
    OtherStream {
        /// This stream's.
        expected: String,
    },
}

/// What the `start` message says about the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartInfo {
    /// `AC…`.
    pub account_sid: String,
    /// `CA…`.
    pub call_sid: String,
    /// `MZ…`.
    pub stream_sid: String,
    /// The call's context for the agent.
    pub custom_parameters: BTreeMap<String, String>,
}

/// One stream: numbers its messages and reads the agent's.
#[derive(Debug)]
pub struct Session {
    info: StartInfo,
    /// `info.stream_sid` as a JSON string, quotes included: it is in every message.
    stream_sid_json: String,
    sequence: u64,
    chunk: u64,
    unknown_events: u64,
    /// What is to be played; its memory is used again.
    audio: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartMessage<'a> {
    event: &'static str,
    sequence_number: String,
    start: StartBody<'a>,
    stream_sid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartBody<'a> {
    account_sid: &'a str,
    stream_sid: &'a str,
    call_sid: &'a str,
    tracks: [&'static str; 1],
    media_format: MediaFormat,
    custom_parameters: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat {
    encoding: &'static str,
    sample_rate: u32,
    channels: u8,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Option<Text<'a>>,
    #[serde(borrow)]
    media: Option<IncomingMedia<'a>>,
    #[serde(borrow)]
    mark: Option<IncomingMark<'a>>,
}

/// Borrowed where it can be: serde copies what it finds in an `Option<Cow<str>>`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct IncomingMedia<'a> {
    #[serde(borrow, default)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct IncomingMark<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct EventOnly<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

impl Session {
    /// A stream that has sent nothing yet.
    pub fn new(info: StartInfo) -> Self {
        let stream_sid_json = json_string(&info.stream_sid);
        Self {
            info,
            stream_sid_json,
            sequence: 0,
            chunk: 0,
            unknown_events: 0,
            audio: Vec::new(),
        }
    }

    /// The call's `CA…`.
    pub fn call_sid(&self) -> &str {
        &self.info.call_sid
    }

    /// The first message.
    pub fn connected() -> &'static str {
        r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#
    }

    /// The second message, once.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        let message = StartMessage {
            event: "start",
            sequence_number: self.next_sequence().to_string(),
            start: StartBody {
                account_sid: &self.info.account_sid,
                stream_sid: &self.info.stream_sid,
                call_sid: &self.info.call_sid,
                tracks: ["inbound"],
                media_format: MediaFormat {
                    encoding: "audio/x-mulaw",
                    sample_rate: 8000,
                    channels: 1,
                },
                custom_parameters: &self.info.custom_parameters,
            },
            stream_sid: &self.info.stream_sid,
        };
        // Strings and a map of strings always serialise.
        let _ = serde_json::to_writer(out, &message);
    }

    /// The caller's audio.
    pub fn media(&mut self, ulaw: &[u8], timestamp_millis: u64, out: &mut Vec<u8>) {
        let sequence = self.next_sequence();
        self.chunk += 1;
        let chunk = self.chunk;
        // Writing to memory can't fail, here and below.
        let _ = write!(
            out,
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_millis}","payload":""#
        );
        let begin = out.len();
        out.resize(begin + ulaw.len().div_ceil(3) * 4, 0);
        let written = BASE64.encode_slice(ulaw, &mut out[begin..]);
        out.truncate(begin + written.unwrap_or(0));
        out.extend_from_slice(br#""},"streamSid":"#);
        out.extend_from_slice(self.stream_sid_json.as_bytes());
        out.push(b'}');
    }

    /// The caller pressed a key.
    pub fn dtmf(&mut self, digit: char, out: &mut Vec<u8>) {
        let sequence = self.next_sequence();
        let digit = json_string(digit.encode_utf8(&mut [0; 4]));
        let _ = write!(
            out,
            r#"{{"event":"dtmf","streamSid":{},"sequenceNumber":"{sequence}","dtmf":{{"track":"inbound_track","digit":{digit}}}}}"#,
            self.stream_sid_json
        );
    }

    /// The agent's mark has been played.
    pub fn mark(&mut self, name: &str, out: &mut Vec<u8>) {
        let sequence = self.next_sequence();
        let _ = write!(
            out,
            r#"{{"event":"mark","sequenceNumber":"{sequence}","streamSid":{},"mark":{{"name":{}}}}}"#,
            self.stream_sid_json,
            json_string(name)
        );
    }

    /// The last message.
    pub fn stop(&mut self, out: &mut Vec<u8>) {
        let sequence = self.next_sequence();
        let _ = write!(
            out,
            r#"{{"event":"stop","sequenceNumber":"{sequence}","stop":{{"accountSid":{},"callSid":{}}},"streamSid":{}}}"#,
            json_string(&self.info.account_sid),
            json_string(&self.info.call_sid),
            self.stream_sid_json
        );
    }

    /// Reads one text message of the agent. Unknown events give `None` and are counted. A missing `streamSid` is
    /// tolerated (the socket carries one stream), another stream's is not: it would be another caller's audio.
    pub fn receive<'a>(&'a mut self, text: &'a str) -> Result<Option<Command<'a>>, ProtocolError> {
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(ProtocolError::TooLarge(text.len()));
        }
        let message: Incoming<'_> = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                // An event that we don't know may use our field names as it likes.
                return match serde_json::from_str::<EventOnly<'_>>(text) {
                    Ok(only) if !matches!(&*only.event, "media" | "mark" | "clear") => {
                        self.unknown_events += 1;
                        Ok(None)
                    }
                    _ => Err(ProtocolError::Json(shorten(&error.to_string()))),
                };
            }
        };
        let command = match &*message.event {
            "media" => {
                let payload = message
                    .media
                    .map(|media| media.payload)
                    .filter(|payload| !payload.is_empty());
                let payload = payload.ok_or(ProtocolError::MissingField {
                    event: "media",
                    field: "media.payload",
                })?;
                self.audio.clear();
                self.audio.shrink_to(KEPT_CAPACITY);
                let decoded = BASE64.decode_vec(payload.as_bytes(), &mut self.audio);
                decoded.map_err(|error| ProtocolError::Payload(error.to_string()))?;
                Command::Audio(&self.audio)
            }
            "mark" => {
                let name = message
                    .mark
                    .map(|mark| mark.name)
                    .filter(|name| !name.is_empty());
                let name = name.ok_or(ProtocolError::MissingField {
                    event: "mark",
                    field: "mark.name",
                })?;
                if name.len() > MAX_MARK_BYTES {
                    return Err(ProtocolError::MarkName(name.len()));
                }
                Command::Mark(name)
            }
            "clear" => Command::Clear,
            _ => {
                self.unknown_events += 1;
                return Ok(None);
            }
        };
        if message
            .stream_sid
            .is_some_and(|Text(sid)| sid != self.info.stream_sid)
        {
            return Err(ProtocolError::OtherStream {
                expected: self.info.stream_sid.clone(),
            });
        }
        Ok(Some(command))
    }

    /// Messages with an event that Twilio does not know either.
    pub fn unknown_events(&self) -> u64 {
        self.unknown_events
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

/// A random identifier as Twilio makes them: two letters and 32 hexadecimal digits.
pub fn new_sid(prefix: &str, rng: &mut impl RngCore) -> String {
    format!("{prefix}{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

fn json_string(text: &str) -> String {
    // A string always serialises.
    serde_json::to_string(text).unwrap_or_default()
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
#[path = "twilio_tests.rs"]
mod tests;
