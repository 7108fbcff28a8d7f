//! Request methods. Case matters in a method name (RFC 3261 section 7.1), so `invite` is an unknown method.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A request method: one that `rsip` knows, or any other token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A method from the RFCs.
    Known(rsip::Method),
    /// Any other token, as it was written.
    Other(String),
}

impl Method {
    /// `ACK`
    pub const ACK: Self = Self::Known(rsip::Method::Ack);
    /// `BYE`
    pub const BYE: Self = Self::Known(rsip::Method::Bye);
    /// `CANCEL`
    pub const CANCEL: Self = Self::Known(rsip::Method::Cancel);
    /// `INFO` (RFC 6086)
    pub const INFO: Self = Self::Known(rsip::Method::Info);
    /// `INVITE`
    pub const INVITE: Self = Self::Known(rsip::Method::Invite);
    /// `MESSAGE` (RFC 3428)
    pub const MESSAGE: Self = Self::Known(rsip::Method::Message);
    /// `NOTIFY` (RFC 6665)
    pub const NOTIFY: Self = Self::Known(rsip::Method::Notify);
    /// `OPTIONS`
    pub const OPTIONS: Self = Self::Known(rsip::Method::Options);
    /// `PRACK` (RFC 3262)
    pub const PRACK: Self = Self::Known(rsip::Method::PRack);
    /// `PUBLISH` (RFC 3903)
    pub const PUBLISH: Self = Self::Known(rsip::Method::Publish);
    /// `REFER` (RFC 3515)
    pub const REFER: Self = Self::Known(rsip::Method::Refer);
    /// `REGISTER`
    pub const REGISTER: Self = Self::Known(rsip::Method::Register);
    /// `SUBSCRIBE` (RFC 6665)
    pub const SUBSCRIBE: Self = Self::Known(rsip::Method::Subscribe);
    /// `UPDATE` (RFC 3311)
    pub const UPDATE: Self = Self::Known(rsip::Method::Update);

    /// Reads a method name; anything unknown becomes [`Method::Other`].
    pub fn parse(text: &str) -> Self {
        let known = match text {
            "ACK" => rsip::Method::Ack,
            "BYE" => rsip::Method::Bye,
            "CANCEL" => rsip::Method::Cancel,
            "INFO" => rsip::Method::Info,
            "INVITE" => rsip::Method::Invite,
            "MESSAGE" => rsip::Method::Message,
            "NOTIFY" => rsip::Method::Notify,
            "OPTIONS" => rsip::Method::Options,
            "PRACK" => rsip::Method::PRack,
            "PUBLISH" => rsip::Method::Publish,
            "REFER" => rsip::Method::Refer,
            "REGISTER" => rsip::Method::Register,
            "SUBSCRIBE" => rsip::Method::Subscribe,
            "UPDATE" => rsip::Method::Update,
            other => return Self::Other(other.to_owned()),
        };
        Self::Known(known)
    }

    /// The name as it goes on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => match known {
                rsip::Method::Ack => "ACK",
                rsip::Method::Bye => "BYE",
                rsip::Method::Cancel => "CANCEL",
                rsip::Method::Info => "INFO",
                rsip::Method::Invite => "INVITE",
                rsip::Method::Message => "MESSAGE",
                rsip::Method::Notify => "NOTIFY",
                rsip::Method::Options => "OPTIONS",
                rsip::Method::PRack => "PRACK",
                rsip::Method::Publish => "PUBLISH",
                rsip::Method::Refer => "REFER",
                rsip::Method::Register => "REGISTER",
                rsip::Method::Subscribe => "SUBSCRIBE",
                rsip::Method::Update => "UPDATE",
            },
            Self::Other(name) => name,
        }
    }

    /// Whether this is that known method.
    pub fn is(&self, known: rsip::Method) -> bool {
        matches!(self, Self::Known(own) if *own == known)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for Method {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

impl Hash for Method {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
