//! One `Via` value: the hop that a request came over, and where its answer goes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::error::ParseError;
use super::lex;
use super::name_addr::in_header;
use super::params::Params;
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
        let params = Params::parse_header("Via", params)?;
        Ok(Self {
            transport: transport.to_ascii_uppercase(),
            host,
            port,
            params,
        })
    }

    /// The `branch` parameter, if there is one with a value.
    pub fn branch(&self) -> Option<&str> {
        self.params
            .get("branch")
            .filter(|branch| !branch.is_empty())
    }

    /// Whether the branch was made by RFC 3261 (and not RFC 2543), so that it names the transaction by itself.
    pub fn has_magic_branch(&self) -> bool {
        self.branch().is_some_and(|branch| {
            branch.len() > BRANCH_MAGIC.len()
                && branch
                    .get(..BRANCH_MAGIC.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(BRANCH_MAGIC))
        })
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

    /// Notes where a request really came from: `received` when the sent-by says otherwise or `rport` was asked
    /// for, and then the value of `rport` (RFC 3261 section 18.2.1, RFC 3581 section 4). What the sender claimed in
    /// these parameters is overwritten.
    pub fn note_source(&mut self, source: SocketAddr) {
        let ip = source.ip().to_canonical();
        let wants_rport = self.wants_rport();
        self.params.remove("received");
        if wants_rport {
            self.params.set("rport", Some(&source.port().to_string()));
        }
        if wants_rport || self.host.ip() != Some(ip) {
            self.params.set("received", Some(&ip.to_string()));
        }
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
