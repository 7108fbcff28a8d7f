//! What a listener is sent: lines of JSON, the same on the socket and with `-o json`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ringwire_config::ObjectRef;
use serde::{Deserialize, Serialize};

use super::filter::Filter;

/// What a listener asks for, as the first and only line that it sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Which messages.
    pub filter: Filter,
    /// Whether whole messages are wanted.
    pub whole: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Line {
    /// The first: from now on messages are followed.
    Listening {
        /// The registrar.
        pod: String,
        /// Its version.
        version: String,
    },
    /// A message.
    Message(Box<Entry>),
    /// Messages that came too fast for this listener.
    Lost {
        /// The registrar.
        pod: String,
        /// When it was noticed.
        time: Timestamp,
        /// How many; those that the filter would have left out are counted too.
        messages: u64,
    },
    /// The request cannot be served; the last line.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A SIP message that a registrar received or sent, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When, by the registrar's clock.
    pub time: Timestamp,
    /// The registrar.
    pub pod: String,
    /// Where it came from: an address, the registrar or a media pod.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// The side that is not the registrar.
    pub peer: Peer,
    /// `UDP`, `TCP`, `TLS`; `link` between our own.
    pub transport: String,
    /// The method; of a response, that of its request. Empty if it cannot be read.
    pub method: String,
    /// The Request-URI of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The status of a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The reason phrase of a response; of what cannot be read, what is wrong with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The number of the `CSeq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u32>,
    /// The Call-ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call_id: String,
    /// The same bytes went the same way a short while ago.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The provider, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ObjectRef>,
    /// The number that is called, if it is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The headers that people look for, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the body says of media, in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<String>,
    /// The whole message, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    /// A carrier, or a stranger.
    Outside,
    /// A media pod.
    MediaPod,
}
