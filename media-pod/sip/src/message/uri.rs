//! URIs: `sip:`, `sips:` and `tel:` taken apart, any other scheme kept as text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::ParseError;
use super::lex;
use super::params::Params;

/// The scheme of a URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// Any other, in lower case; the text behind it is [`Uri::user`].
    Other(String),
}

impl Scheme {
    /// The scheme in lower case, without the colon.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sip => "sip",
            Self::Sips => "sips",
            Self::Tel => "tel",
            Self::Other(name) => name,
        }
    }
}

/// A host: an address, or a name that is compared without case. `tel:` URIs have an empty name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name as it was written.
    Name(String),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
}

impl Host {
    /// Whether both mean the same host without a look-up.
    pub fn equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Name(a), Self::Name(b)) => a
                .trim_end_matches('.')
                .eq_ignore_ascii_case(b.trim_end_matches('.')),
            _ => false,
        }
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }

    /// Reads a host without a port: a name, an IPv4 address, an IPv6 address with or without brackets.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let bracketed = text.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
        if let Some(inner) = bracketed {
            // The grammar of RFC 3261 allowed a third colon before an IPv4 address (RFC 5118 section 4.10).
            let ip = inner.and_then(|inner| {
                let ip = inner.parse::<Ipv6Addr>();
                ip.or_else(|_| inner.replacen(":::", "::", 1).parse()).ok()
            });
            return ip
                .map(|ip| Self::Ip(ip.into()))
                .ok_or(ParseError::Uri("bad IPv6 address"));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        if text.contains(':') {
            return text
                .parse::<Ipv6Addr>()
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| ParseError::Uri("bad host"));
        }
        if text.is_empty() {
            return Err(ParseError::Uri("no host"));
        }
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') || !c.is_ascii();
        if text.len() > 255
            || !text
                .chars()
                .all(|c| fits(c) && !c.is_whitespace() && !c.is_control())
        {
            return Err(ParseError::Uri("bad host"));
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// Reads `host`, `host:port`, `[v6]:port`, with white space around the colon.
    pub(crate) fn parse_with_port(text: &str) -> Result<(Self, Option<u16>), ParseError> {
        let text = lex::trim(text);
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or(ParseError::Uri("bad IPv6 address"))?;
            let (host, rest) = text.split_at(end + 1);
            let rest = lex::trim(rest);
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(ParseError::Uri("bad host")),
            }
        } else {
            match text.split_once(':') {
                // More than one colon: an IPv6 address that lacks its brackets.
                Some((_, port)) if port.contains(':') => (text, None),
                Some((host, port)) => (lex::trim(host), Some(port)),
                None => (text, None),
            }
        };
        let host = Self::parse(host)?;
        let Some(port) = port.map(lex::trim) else {
            return Ok((host, None));
        };
        if port.is_empty() {
            return Ok((host, None));
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseError::Uri("bad port"));
        }
        port.parse()
            .map(|port| (host, Some(port)))
            .map_err(|_| ParseError::Uri("bad port"))
    }

    /// Whether this is the empty host of a URI that has none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Name(name) if name.is_empty())
    }
}

/// IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Name(name) => lex::write_uri_text(f, name, &[';', '?', ':', '@', ',']),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// An address in text becomes [`Host::Ip`].
impl From<&str> for Host {
    fn from(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self::Name(text.to_owned()))
    }
}

impl From<String> for Host {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A URI. Text parts are kept as written, with their percent escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    /// The scheme.
    pub scheme: Scheme,
    /// The user part without the password; the number of a `tel:` URI; everything behind an unknown scheme.
    pub user: Option<String>,
    /// The password of the user part.
    pub password: Option<String>,
    /// The host; an empty name where the scheme has none.
    pub host: Host,
    /// The port, if it is written.
    pub port: Option<u16>,
    /// Parameters.
    pub params: Params,
    /// What stands behind the question mark.
    pub headers: Option<String>,
}

impl Uri {
    /// A `sip:` URI. What may not stand in a user part is escaped.
    pub fn sip(user: Option<&str>, host: impl Into<Host>, port: Option<u16>) -> Self {
        Self {
            scheme: Scheme::Sip,
            user: user.filter(|user| !user.is_empty()).map(escape_user),
            password: None,
            host: host.into(),
            port,
            params: Params::new(),
            headers: None,
        }
    }

    /// A `tel:` URI with this number.
    pub fn tel(number: &str) -> Self {
        Self::opaque(Scheme::Tel, number)
    }

    /// A URI without a host. The text is taken as it is.
    fn opaque(scheme: Scheme, text: &str) -> Self {
        Self {
            scheme,
            user: Some(text.to_owned()),
            password: None,
            host: Host::Name(String::new()),
            port: None,
            params: Params::new(),
            headers: None,
        }
    }

    /// Reads a URI without angle brackets or display name.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = lex::trim(text);
        let (scheme, rest) = text.split_once(':').ok_or(ParseError::Uri("no scheme"))?;
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(valid) {
            return Err(ParseError::Uri("bad scheme"));
        }
        if rest
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"'))
        {
            return Err(ParseError::Uri("white space, bracket or quote inside"));
        }
        if scheme.eq_ignore_ascii_case("sip") {
            Self::parse_sip(Scheme::Sip, rest)
        } else if scheme.eq_ignore_ascii_case("sips") {
            Self::parse_sip(Scheme::Sips, rest)
        } else if scheme.eq_ignore_ascii_case("tel") {
            let (number, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            if number.is_empty() {
                return Err(ParseError::Uri("no number"));
            }
            Ok(Self {
                params: Params::parse_uri(params)?,
                ..Self::tel(number)
            })
        } else {
            if rest.is_empty() {
                return Err(ParseError::Uri("nothing behind the scheme"));
            }
            Ok(Self::opaque(
                Scheme::Other(scheme.to_ascii_lowercase()),
                rest,
            ))
        }
    }

    fn parse_sip(scheme: Scheme, text: &str) -> Result<Self, ParseError> {
        let (user_info, rest) = match text.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (user, password) = match user_info.map(|info| info.split_once(':').ok_or(info)) {
            None => (None, None),
            Some(Ok((user, password))) => (Some(user), Some(password.to_owned())),
            Some(Err(user)) => (Some(user), None),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers.to_owned())),
            None => (rest, None),
        };
        let (host, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        if !host.starts_with('[') && host.bytes().filter(|byte| *byte == b':').count() > 1 {
            // Where the address ends and the port begins, no one can tell (RFC 5118 section 4.2).
            return Err(ParseError::Uri("IPv6 address without brackets"));
        }
        let (host, port) = Host::parse_with_port(host)?;
        Ok(Self {
            scheme,
            user: user
                .filter(|user| !user.is_empty() || password.is_some())
                .map(str::to_owned),
            password,
            host,
            port,
            params: Params::parse_uri(params)?,
            headers,
        })
    }

    /// The user part with its percent escapes undone.
    pub fn user_unescaped(&self) -> Option<String> {
        self.user.as_deref().map(lex::unescape)
    }

    /// The `transport` parameter in lower case.
    pub fn transport(&self) -> Option<String> {
        self.params.get("transport").map(str::to_ascii_lowercase)
    }

    /// Whether the URI demands TLS.
    pub fn is_sips(&self) -> bool {
        self.scheme == Scheme::Sips
    }

    /// Whether it is one of `sip:` and `sips:`.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// Whether `;lr` marks a loose router.
    pub fn is_loose_router(&self) -> bool {
        self.params.has("lr")
    }

    /// Whether both URIs mean the same by RFC 3261 section 19.1.4: user and password with case, the rest without;
    /// a port that is written and one that isn't differ; `user`, `ttl`, `method`, `maddr` and `transport` must stand
    /// in both or none, other parameters must agree where both have them; headers must agree.
    /// `tel:` URIs are compared without visual separators (RFC 3966 section 4).
    pub fn equivalent(&self, other: &Self) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                self.user_unescaped() == other.user_unescaped()
                    && self.password.as_deref().map(lex::unescape)
                        == other.password.as_deref().map(lex::unescape)
                    && self.host.equivalent(&other.host)
                    && self.port == other.port
                    && same_params(&self.params, &other.params, false)
                    && same_headers(self.headers.as_deref(), other.headers.as_deref())
            }
            Scheme::Tel => {
                let digits = |uri: &Self| -> String {
                    let number = uri.user.as_deref().unwrap_or("");
                    number
                        .chars()
                        .filter(|c| !"-.()".contains(*c))
                        .map(|c| c.to_ascii_lowercase())
                        .collect()
                };
                digits(self) == digits(other) && same_params(&self.params, &other.params, true)
            }
            Scheme::Other(_) => self.user == other.user,
        }
    }
}

/// Parameters that are never ignored when they stand on one side only.
const ALWAYS_COMPARED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

fn same_params(a: &Params, b: &Params, all: bool) -> bool {
    let covers = |a: &Params, b: &Params| {
        a.iter().all(|(name, value)| {
            let value = lex::unescape(value.unwrap_or(""));
            // A name may stand twice, against the grammar; then each of its values counts.
            let mut others = b
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, other)| lex::unescape(other.unwrap_or("")))
                .peekable();
            if others.peek().is_none() {
                return !all
                    && !ALWAYS_COMPARED
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(name));
            }
            others.any(|other| other.eq_ignore_ascii_case(&value))
        })
    };
    covers(a, b) && covers(b, a)
}

fn same_headers(a: Option<&str>, b: Option<&str>) -> bool {
    let sorted = |text: Option<&str>| {
        let mut parts: Vec<String> = text
            .unwrap_or("")
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) => {
                    format!("{}={}", name.to_ascii_lowercase(), lex::unescape(value))
                }
                None => part.to_ascii_lowercase(),
            })
            .collect();
        parts.sort();
        parts
    };
    a == b || sorted(a) == sorted(b)
}

fn escape_user(user: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(user.len());
    for byte in user.bytes() {
        // RFC 3261: unreserved and user-unreserved. `#` is left alone: it is dialled, and no one expects %23.
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/#".contains(&byte) {
            out.push(byte as char);
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref();
        lex::write_uri_text(f, self.scheme.as_str(), &[':'])?;
        f.write_str(":")?;
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                if user.is_some_and(|user| !user.is_empty()) || self.password.is_some() {
                    lex::write_uri_text(f, user.unwrap_or(""), &['@', ':'])?;
                    if let Some(password) = &self.password {
                        f.write_str(":")?;
                        lex::write_uri_text(f, password, &['@'])?;
                    }
                    f.write_str("@")?;
                }
                self.host.fmt(f)?;
                if let Some(port) = self.port {
                    write!(f, ":{port}")?;
                }
                self.params.write_uri(f)?;
                if let Some(headers) = &self.headers {
                    f.write_str("?")?;
                    lex::write_uri_text(f, headers, &[])?;
                }
                Ok(())
            }
            Scheme::Tel => {
                lex::write_uri_text(f, user.unwrap_or(""), &[';'])?;
                self.params.write_uri(f)
            }
            Scheme::Other(_) => lex::write_uri_text(f, user.unwrap_or(""), &[]),
        }
    }
}

impl FromStr for Uri {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
