//! One `Via` value: the hop that a request came over, and where its answer goes.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::error::ParseError;
use super::lex;
use super::name_addr::in_header;
use super::params::{Param, Params, Scan};
use super::uri::Host;

/// The beginning of every branch made by RFC 3261.
pub const BRANCH_MAGIC: &str = "z9hG4bK";

/// One `Via` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The transport in upper case: `UDP`, `TCP`, `TLS`, …
    pub transport: String,
    /// Where the sender says it is.
    pub host: Host,
    /// The port, if it is written.
    pub port: Option<u16>,
    /// Parameters, such as `branch`.
    pub params: Params,
}

impl Via {
    /// A `Via` with a branch.
    pub fn new(transport: &str, host: Host, port: Option<u16>, branch: &str) -> Self {
        let mut params = Params::new();
        params.set("branch", Some(branch));
        Self {
            transport: transport.to_ascii_uppercase(),
            host,
            port,
            params,
        }
    }

    /// Reads one value: `SIP/2.0/UDP host:port;branch=…`, with white space in all the places that RFC 4475 puts it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Parts::read(text).map(|parts| parts.to_via())
    }

    /// The `branch` parameter, if there is one with a value.
    pub fn branch(&self) -> Option<&str> {
        self.params
            .get("branch")
            .filter(|branch| !branch.is_empty())
    }

    /// Whether the branch was made by RFC 3261 (and not RFC 2543), so that it names the transaction by itself.
    pub fn has_magic_branch(&self) -> bool {
        self.branch().is_some_and(is_magic)
    }

    /// The address that the receiver saw (`received`), with or without brackets.
    pub fn received(&self) -> Option<IpAddr> {
        self.params
            .get("received")
            .and_then(|text| Host::parse(text).ok())
            .and_then(|host| host.ip())
    }

    /// The port that the receiver saw: the value of `rport`.
    pub fn rport(&self) -> Option<u16> {
        self.params.get("rport").and_then(|text| text.parse().ok())
    }

    /// Whether the sender asks for its port (RFC 3581: `rport` without or with a value).
    pub fn wants_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// Asks the receiver to answer to the port that it sees (RFC 3581).
    pub fn request_rport(&mut self) {
        self.params.set("rport", None);
    }
}

/// Whether a branch begins with the magic cookie, and is more than that.
pub(crate) fn is_magic(branch: &str) -> bool {
    branch.len() > BRANCH_MAGIC.len()
        && branch
            .get(..BRANCH_MAGIC.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(BRANCH_MAGIC))
}

/// One `Via` value taken apart, nothing copied but the name of a host. All of it is known to be readable.
pub(crate) struct Parts<'a> {
    transport: &'a str,
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
    /// Protocol, transport and host as they were written.
    head: &'a str,
    params: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, ParseError> {
        let fail = |problem| ParseError::header("Via", problem);
        let (head, params) = text.split_at(text.find(';').unwrap_or(text.len()));
        let mut parts = head.splitn(3, '/');
        let (Some(protocol), Some(version), Some(rest)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(fail("no protocol"));
        };
        // Any version is well-formed (RFC 3261 section 25.1), and a request of another one is still to be answered.
        if !lex::trim(protocol).eq_ignore_ascii_case("SIP") || !lex::is_token(lex::trim(version)) {
            return Err(fail("not SIP"));
        }
        let rest = lex::trim(rest);
        let (transport, host) = rest
            .split_once(lex::is_space)
            .ok_or_else(|| fail("no sent-by"))?;
        if !lex::is_token(transport) {
            return Err(fail("bad transport"));
        }
        let (host, port) = Host::parse_with_port(host).map_err(|error| in_header("Via", error))?;
        Scan::new("Via", params).try_for_each(|param| param.map(drop))?;
        Ok(Self {
            transport,
            host,
            port,
            head,
            params,
        })
    }

    fn params(&self) -> impl Iterator<Item = Param<'a>> {
        Scan::new("Via", self.params).flatten()
    }

    /// The `branch` parameter, if there is one with a value.
    pub(crate) fn branch(&self) -> Option<Cow<'a, str>> {
        let branch = self.params().find(|param| param.is("branch"))?.value();
        branch.filter(|branch| !branch.is_empty())
    }

    /// Whether the sender asks for its port.
    pub(crate) fn wants_rport(&self) -> bool {
        self.params().any(|param| param.is("rport"))
    }

    pub(crate) fn to_via(&self) -> Via {
        Via {
            transport: self.transport.to_ascii_uppercase(),
            host: self.host.clone(),
            port: self.port,
            params: self
                .params()
                .map(|param| (param.name, param.value()))
                .collect(),
        }
    }

    /// The value with the address that the request came from, see
    /// [`Headers::note_source`](super::Headers::note_source). The rest stays as it was written.
    pub(crate) fn with_source(&self, source: SocketAddr) -> String {
        let ip = source.ip().to_canonical();
        let mut text = String::with_capacity(self.head.len() + self.params.len() + 64);
        text.push_str(lex::trim(self.head));
        let mut wants_rport = false;
        // Writing to a String can't fail.
        for param in self.params() {
            if param.is("rport") {
                if !wants_rport {
                    let _ = write!(text, ";{}={}", param.name, source.port());
                }
                wants_rport = true;
            } else if !param.is("received") {
                let _ = write!(text, "{param}");
            }
        }
        if wants_rport || self.host.ip() != Some(ip) {
            let _ = write!(text, ";received={ip}");
        }
        text
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.params.fmt(f)
    }
}

impl FromStr for Via {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
