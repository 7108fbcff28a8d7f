//! Digest authentication, the client's side (RFC 2617, RFC 7616, RFC 8760).
//!
//! Reads challenges, picks one for each realm, and counts how often a nonce was used. When to try again and when to give up is
//! the caller's decision, for which [`Asked`] keeps what a request was asked. The server's side is [`server`].

mod asked;
pub mod server;

use std::fmt::{self, Write as _};

use md5::Md5;
use sha2::digest::Digest;
use sha2::{Sha256, Sha512_256};

use crate::message::{HeaderName, Method, Response, quoted, split_list};

pub use asked::Asked;

/// Most nonces that a client remembers; the oldest goes first.
const MAX_SESSIONS: usize = 16;
/// Most challenges that are read from one response.
const MAX_CHALLENGES: usize = 16;

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name for authentication.
    pub username: String,
    /// The password. Not shown by `Debug`.
    pub password: String,
    /// The only realm that is answered; `None` answers every one.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// A hash algorithm; `…Sess` hashes the nonces into the key (RFC 7616 section 3.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the algorithm of that name")]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
    Sha512_256,
    Sha512_256Sess,
    /// One that we don't speak, as it was written.
    Other(String),
}

impl Algorithm {
    fn parse(text: &str) -> Self {
        let known = [
            Self::Md5,
            Self::Md5Sess,
            Self::Sha256,
            Self::Sha256Sess,
            Self::Sha512_256,
            Self::Sha512_256Sess,
        ];
        let found = known
            .into_iter()
            .find(|own| own.as_str().eq_ignore_ascii_case(text));
        found.unwrap_or_else(|| Self::Other(text.to_owned()))
    }

    /// The registered name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
            Self::Sha512_256 => "SHA-512-256",
            Self::Sha512_256Sess => "SHA-512-256-sess",
            Self::Other(name) => name,
        }
    }

    /// Larger is stronger; `None` can't be used.
    fn strength(&self) -> Option<u8> {
        match self {
            Self::Md5 => Some(1),
            Self::Md5Sess => Some(2),
            Self::Sha256 => Some(3),
            Self::Sha256Sess => Some(4),
            Self::Sha512_256 => Some(5),
            Self::Sha512_256Sess => Some(6),
            Self::Other(_) => None,
        }
    }

    fn is_session(&self) -> bool {
        matches!(
            self,
            Self::Md5Sess | Self::Sha256Sess | Self::Sha512_256Sess
        )
    }

    /// The hash of the parts with colons between them, in hexadecimal.
    fn hash(&self, parts: &[&[u8]]) -> String {
        match self {
            Self::Sha256 | Self::Sha256Sess => hash::<Sha256>(parts),
            Self::Sha512_256 | Self::Sha512_256Sess => hash::<Sha512_256>(parts),
            // Challenges with another algorithm are never chosen.
            Self::Md5 | Self::Md5Sess | Self::Other(_) => hash::<Md5>(parts),
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn hash<D: Digest>(parts: &[&[u8]]) -> String {
    let mut digest = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            digest.update(b":");
        }
        digest.update(part);
    }
    let bytes = digest.finalize();
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| DIGITS[usize::from(digit)] as char)
        .collect()
}

/// One digest challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// To be sent back unchanged.
    pub opaque: Option<String>,
    /// The algorithm; MD5 when it isn't named.
    pub algorithm: Algorithm,
    /// The offered qualities of protection in lower case; empty for RFC 2069.
    pub qop: Vec<String>,
    /// Whether only the nonce was too old: the password was right.
    pub stale: bool,
    /// Whether a proxy asks (`Proxy-Authenticate`).
    pub proxy: bool,
}

impl Challenge {
    /// The digest challenges of a 401 or 407: of several headers, and of several challenges in one. Other schemes, and challenges
    /// without realm or nonce, are left out.
    pub fn from_response(response: &Response) -> Vec<Self> {
        let mut challenges = Vec::new();
        for (name, proxy) in [
            (HeaderName::WwwAuthenticate, false),
            (HeaderName::ProxyAuthenticate, true),
        ] {
            for value in response.headers.get_all(&name) {
                read_challenges(value, proxy, &mut challenges);
            }
        }
        challenges.truncate(MAX_CHALLENGES);
        challenges
    }
}

/// Reads `Digest a="b", c=d, Digest a="e", …`: a scheme is a word before a parameter without a comma between.
fn read_challenges(text: &str, proxy: bool, out: &mut Vec<Challenge>) {
    let mut current: Option<Draft> = None;
    for item in split_list(text) {
        let name_end = item.find('=').unwrap_or(item.len());
        let before = item[..name_end].trim();
        let param = match before.split_once(|c: char| c.is_ascii_whitespace()) {
            Some((scheme, rest)) => {
                out.extend(current.take().and_then(|draft| draft.finish(proxy)));
                current = scheme.eq_ignore_ascii_case("Digest").then(Draft::default);
                Some((rest.trim(), item.get(name_end + 1..).unwrap_or("")))
            }
            None => item.get(name_end + 1..).map(|value| (before, value)),
        };
        if let (Some(draft), Some((name, value))) = (&mut current, param) {
            draft.set(name, value.trim());
        }
    }
    out.extend(current.and_then(|draft| draft.finish(proxy)));
}

/// A challenge whose parameters are being read.
#[derive(Default)]
struct Draft {
    realm: Option<String>,
    nonce: Option<String>,
    opaque: Option<String>,
    algorithm: Option<String>,
    qop: String,
    stale: bool,
}

impl Draft {
    fn set(&mut self, name: &str, value: &str) {
        let value = quoted(value).map_or_else(|| value.to_owned(), |(content, _)| content);
        match name.to_ascii_lowercase().as_str() {
            "realm" => self.realm = Some(value),
            "nonce" => self.nonce = Some(value),
            "opaque" => self.opaque = Some(value),
            "algorithm" => self.algorithm = Some(value),
            "qop" => self.qop = value,
            "stale" => self.stale = value.eq_ignore_ascii_case("true"),
            _ => {}
        }
    }

    fn finish(self, proxy: bool) -> Option<Challenge> {
        let Self {
            realm,
            nonce,
            opaque,
            algorithm,
            qop,
            stale,
        } = self;
        Some(Challenge {
            realm: realm?,
            nonce: nonce?,
            opaque,
            algorithm: algorithm.map_or(Algorithm::Md5, |text| Algorithm::parse(&text)),
            qop: qop
                .split(',')
                .map(|one| one.trim().to_ascii_lowercase())
                .filter(|one| !one.is_empty())
                .collect(),
            stale,
            proxy,
        })
    }
}

/// Why no challenge could be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no digest challenge.
    #[error("no digest challenge")]
    NoChallenge,
    /// None uses an algorithm that we speak.
    #[error("unsupported digest algorithm {0}")]
    Algorithm(String),
    /// None offers `auth` or `auth-int`.
    #[error("unsupported quality of protection {0}")]
    Qop(String),
    /// The credentials are for another realm.
    #[error("the server asks for realm {offered}, the credentials are for {wanted}")]
    Realm {
        /// What the server asks for.
        offered: String,
        /// What the credentials are for.
        wanted: String,
    },
}

/// A nonce that was used.
#[derive(Clone, Debug)]
struct Session {
    realm: String,
    nonce: String,
    proxy: bool,
    count: u32,
    /// Stays the same for a nonce: with `…-sess` it is part of the key.
    cnonce: String,
}

/// Answers challenges and counts the uses of each nonce.
#[derive(Clone, Debug, Default)]
pub struct DigestClient {
    sessions: Vec<Session>,
}

/// What is authenticated, besides the credentials.
struct Target<'a> {
    method: &'a Method,
    uri: &'a str,
    body: &'a [u8],
}

impl DigestClient {
    /// A client that has used no nonce.
    pub fn new() -> Self {
        Self::default()
    }

    /// The headers that answer these challenges: one for each realm, with the strongest algorithm that we speak. `uri` is the
    /// Request-URI as it is written. `cnonce` is fresh random text; it is used with a nonce's first answer, and kept for that nonce.
    ///
    /// The same challenges may be answered again for later requests: the count goes up.
    pub fn answer(
        &mut self,
        challenges: &[Challenge],
        credentials: &Credentials,
        method: &Method,
        uri: &str,
        body: &[u8],
        cnonce: impl Into<String>,
    ) -> Result<Vec<(HeaderName, String)>, DigestError> {
        let cnonce = cnonce.into();
        let mut error = DigestError::NoChallenge;
        let mut chosen: Vec<(&Challenge, u8)> = Vec::new();
        for challenge in challenges {
            if let Some(wanted) = credentials
                .realm
                .as_ref()
                .filter(|wanted| **wanted != challenge.realm)
            {
                error = DigestError::Realm {
                    offered: printable(&challenge.realm),
                    wanted: wanted.clone(),
                };
                continue;
            }
            let Some(strength) = challenge.algorithm.strength() else {
                error = DigestError::Algorithm(printable(challenge.algorithm.as_str()));
                continue;
            };
            if !challenge.qop.is_empty() && quality(challenge).is_none() {
                error = DigestError::Qop(printable(&challenge.qop.join(",")));
                continue;
            }
            let same = |other: &Challenge| {
                other.realm == challenge.realm && other.proxy == challenge.proxy
            };
            match chosen.iter_mut().find(|(other, _)| same(other)) {
                Some(slot) if slot.1 < strength => *slot = (challenge, strength),
                Some(_) => {}
                None => chosen.push((challenge, strength)),
            }
        }
        if chosen.is_empty() {
            return Err(error);
        }
        let target = Target { method, uri, body };
        Ok(chosen
            .into_iter()
            .map(|(challenge, _)| self.one(challenge, credentials, &target, &cnonce))
            .collect())
    }

    fn one(
        &mut self,
        challenge: &Challenge,
        credentials: &Credentials,
        target: &Target<'_>,
        cnonce: &str,
    ) -> (HeaderName, String) {
        let Challenge {
            realm,
            nonce,
            opaque,
            algorithm,
            qop: _,
            stale: _,
            proxy,
        } = challenge;
        let (count, cnonce) = self.count(challenge, cnonce);
        let count = format!("{count:08x}");
        let quality = quality(challenge);
        let mut key = algorithm.hash(&[
            credentials.username.as_bytes(),
            realm.as_bytes(),
            credentials.password.as_bytes(),
        ]);
        if algorithm.is_session() {
            key = algorithm.hash(&[key.as_bytes(), nonce.as_bytes(), cnonce.as_bytes()]);
        }
        let method = target.method.as_str().as_bytes();
        let request = if quality == Some("auth-int") {
            let body = algorithm.hash(&[target.body]);
            algorithm.hash(&[method, target.uri.as_bytes(), body.as_bytes()])
        } else {
            algorithm.hash(&[method, target.uri.as_bytes()])
        };
        let response = match quality {
            Some(quality) => algorithm.hash(&[
                key.as_bytes(),
                nonce.as_bytes(),
                count.as_bytes(),
                cnonce.as_bytes(),
                quality.as_bytes(),
                request.as_bytes(),
            ]),
            None => algorithm.hash(&[key.as_bytes(), nonce.as_bytes(), request.as_bytes()]),
        };
        let mut text = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}",
            Quoted(&credentials.username),
            Quoted(realm),
            Quoted(nonce),
            Quoted(target.uri),
            algorithm.as_str()
        );
        if let Some(quality) = quality {
            // Writing to a String can't fail; the same below.
            let _ = write!(
                text,
                ", cnonce={}, qop={quality}, nc={count}",
                Quoted(&cnonce)
            );
        } else if algorithm.is_session() {
            let _ = write!(text, ", cnonce={}", Quoted(&cnonce));
        }
        if let Some(opaque) = opaque {
            let _ = write!(text, ", opaque={}", Quoted(opaque));
        }
        (
            if *proxy {
                HeaderName::ProxyAuthorization
            } else {
                HeaderName::Authorization
            },
            text,
        )
    }

    /// The count and the client nonce for the next use of this challenge.
    fn count(&mut self, challenge: &Challenge, cnonce: &str) -> (u32, String) {
        let same = |one: &Session| {
            one.realm == challenge.realm
                && one.nonce == challenge.nonce
                && one.proxy == challenge.proxy
        };
        if let Some(session) = self.sessions.iter_mut().find(|one| same(one)) {
            session.count = session.count.saturating_add(1);
            return (session.count, session.cnonce.clone());
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(Session {
            realm: challenge.realm.clone(),
            nonce: challenge.nonce.clone(),
            proxy: challenge.proxy,
            count: 1,
            cnonce: cnonce.to_owned(),
        });
        (1, cnonce.to_owned())
    }
}

/// The quality of protection to use: `auth` where it is offered, since middle boxes change bodies.
fn quality(challenge: &Challenge) -> Option<&'static str> {
    ["auth", "auth-int"]
        .into_iter()
        .find(|own| challenge.qop.iter().any(|offered| offered == own))
}

/// What the server wrote, short and without control characters, for a message to people.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A quoted string with its escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::message::write_quoted(f, self.0)
    }
}
