//! Digest authentication, the server's side (RFC 3261 section 22, RFC 7616, RFC 8760): challenges, and whether an answer proves that its
//! sender knows the password.
//!
//! Only `qop=auth` is taken: without a count an answer could be repeated. Whether a nonce is ours, fresh, and was not used before is the
//! caller's to say.

use std::fmt;

use subtle::ConstantTimeEq;

use super::{Algorithm, MAX_CHALLENGES, Quoted};
use crate::message::{HeaderName, Request, quoted, split_list};

/// Asks for the proof: the value of a `WWW-Authenticate`. `stale`: the last one was right, but for its nonce.
pub fn challenge(realm: &str, nonce: &str, algorithm: &Algorithm, stale: bool) -> String {
    let stale = if stale { ", stale=true" } else { "" };
    format!(
        "Digest realm={}, nonce={}, algorithm={}, qop=\"auth\"{stale}",
        Quoted(realm),
        Quoted(nonce),
        algorithm.as_str()
    )
}

/// An answer to a challenge.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who it says it is.
    pub username: String,
    /// The nonce of the challenge.
    pub nonce: String,
    /// How often the nonce was used, this time included.
    pub count: u32,
    realm: String,
    uri: String,
    nc: String,
    cnonce: String,
    qop: String,
    algorithm: Option<String>,
    response: String,
}

/// Without what could be used to guess the password.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("username", &self.username)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// The first answer to a challenge of this realm.
    pub fn from_request(request: &Request, realm: &str) -> Option<Self> {
        let values = request.headers.get_all(&HeaderName::Authorization);
        values
            .take(MAX_CHALLENGES)
            .filter_map(Self::parse)
            .find(|answer| answer.realm == realm)
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(|c: char| c.is_ascii_whitespace())?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut answer = Self::default();
        for item in split_list(rest) {
            let (name, value) = item.split_once('=')?;
            let value = value.trim();
            let value = quoted(value).map_or_else(|| value.to_owned(), |(content, _)| content);
            match name.trim().to_ascii_lowercase().as_str() {
                "username" => answer.username = value,
                "realm" => answer.realm = value,
                "nonce" => answer.nonce = value,
                "uri" => answer.uri = value,
                "response" => answer.response = value.to_ascii_lowercase(),
                "algorithm" => answer.algorithm = Some(value),
                "cnonce" => answer.cnonce = value,
                "qop" => answer.qop = value.to_ascii_lowercase(),
                "nc" => {
                    answer.count = u32::from_str_radix(&value, 16).unwrap_or_default();
                    answer.nc = value;
                }
                _ => {}
            }
        }
        Some(answer)
    }

    /// Whether its sender knows the password. Takes the same time whatever is wrong with the response.
    ///
    /// The `uri` need not be the Request-URI: proxies on the way change that one (RFC 7616 section 3.4.6 has it equivalent), and some
    /// clients write their own.
    pub fn proves(&self, password: &str, request: &Request) -> bool {
        let algorithm = match &self.algorithm {
            None => Algorithm::Md5,
            Some(name) => Algorithm::parse(name),
        };
        if !OFFERED.contains(&algorithm) || self.qop != "auth" || self.count == 0 {
            return false;
        }
        let hash = |parts: &[&str]| {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            algorithm.hash(&parts)
        };
        let key = hash(&[&self.username, &self.realm, password]);
        let asked = hash(&[request.method.as_str(), &self.uri]);
        let expected = hash(&[&key, &self.nonce, &self.nc, &self.cnonce, "auth", &asked]);
        expected.as_bytes().ct_eq(self.response.as_bytes()).into()
    }
}

/// The algorithms that are asked for. The better one ought to be first (RFC 8760 section 2.3), but many callers look at the first
/// challenge only and know nothing but MD5.
pub const OFFERED: [Algorithm; 2] = [Algorithm::Md5, Algorithm::Sha256];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, parse_datagram};

    const MD5: &str = "8ca523f5e9506fed4657c9700eebdbec";
    const SHA_256: &str = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
    const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";

    /// The example of RFC 7616 section 3.9.1, with some other parameters.
    fn request(more: &str) -> Request {
        let text = format!(
            "GET sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: 1\r\nCSeq: 1 GET\r\n\
             Authorization: Basic TXVmYXNh\r\n\
             Authorization: Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", nonce=\"{NONCE}\",\r\n \
             cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", {more}\r\nContent-Length: 0\r\n\r\n"
        );
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => panic!(),
        }
    }

    fn proves(password: &str, more: &str) -> bool {
        let request = request(more);
        let answer = Answer::from_request(&request, "http-auth@example.org").unwrap();
        assert_eq!((&*answer.username, &*answer.nonce), ("Mufasa", NONCE));
        assert!(!format!("{answer:?}").contains(MD5));
        answer.proves(password, &request)
    }

    #[test]
    fn the_examples_of_the_rfc_prove_their_password_only() {
        for (algorithm, response) in [("MD5", MD5), ("SHA-256", SHA_256)] {
            let more =
                format!("response=\"{response}\", algorithm={algorithm}, qop=auth, nc=00000001");
            assert!(proves("Circle of Life", &more), "{algorithm}");
            assert!(!proves("Circle of Lies", &more), "{algorithm}");
        }
        let unnamed = format!("response=\"{MD5}\", qop=\"auth\", nc=00000001");
        assert!(proves("Circle of Life", &unnamed));
    }

    #[test]
    fn what_could_be_repeated_or_was_not_asked_for_proves_nothing() {
        for more in [
            format!("response=\"{MD5}\", algorithm=MD5"),
            format!("response=\"{MD5}\", algorithm=MD5, qop=auth"),
            format!("response=\"{MD5}\", algorithm=MD5, qop=auth, nc=00000000"),
            format!("response=\"{MD5}\", algorithm=MD5, qop=auth, nc=00000002"),
            format!("response=\"{MD5}\", algorithm=MD5, qop=auth-int, nc=00000001"),
            format!("response=\"{MD5}\", algorithm=MD5-sess, qop=auth, nc=00000001"),
            format!("response=\"{MD5}\", algorithm=SHA-256, qop=auth, nc=00000001"),
            "response=\"\", algorithm=MD5, qop=auth, nc=00000001".to_owned(),
        ] {
            assert!(!proves("Circle of Life", &more), "{more}");
        }
        assert!(Answer::from_request(&request("qop=auth"), "ringwire").is_none());
    }
}
