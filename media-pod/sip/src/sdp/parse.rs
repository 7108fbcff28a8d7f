//! Reading session descriptions: CRLF or LF, lines in any order before the first `m=`, unknown lines left out.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{
    Attribute, Direction, MAX_ATTRIBUTES, MAX_FORMATS, MAX_MEDIA, MediaDescription, OfferError,
    Origin, SessionDescription,
};

impl SessionDescription {
    /// Reads a description. Missing `o=`, `s=` and `t=` lines are made up for; a bad `m=` or `c=` line is an error.
    pub fn parse(bytes: &[u8]) -> Result<Self, OfferError> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => bytes.iter().map(|&byte| byte as char).collect(),
        };
        let mut session = Self {
            origin: Origin {
                username: "-".to_owned(),
                session_id: "0".to_owned(),
                version: "0".to_owned(),
                address: "0.0.0.0".to_owned(),
            },
            session_name: "-".to_owned(),
            connection: None,
            bandwidth: Vec::new(),
            timing: String::new(),
            attributes: Vec::new(),
            media: Vec::new(),
        };
        let mut session_direction = None;
        // Which media said their own direction.
        let mut directed = Vec::new();
        let mut attributes = 0;
        let mut seen = false;
        for line in text.split(['\r', '\n']) {
            let Some((kind, value)) = line.split_once('=') else {
                continue;
            };
            let value = value.trim();
            seen = true;
            match kind.trim() {
                "o" => session.origin = origin(value).unwrap_or(session.origin),
                "s" if !value.is_empty() => value.clone_into(&mut session.session_name),
                "t" if session.timing.is_empty() => value.clone_into(&mut session.timing),
                "c" => {
                    let address = connection(value)?;
                    match session.media.last_mut() {
                        Some(media) => media.connection = address,
                        None => session.connection = address,
                    }
                }
                "m" => {
                    if session.media.len() >= MAX_MEDIA {
                        return Err(OfferError::Malformed("too many m= lines".to_owned()));
                    }
                    session.media.push(media(value)?);
                    directed.push(false);
                }
                "b" | "a" => {
                    attributes += 1;
                    if attributes > MAX_ATTRIBUTES {
                        return Err(OfferError::Malformed("too many attributes".to_owned()));
                    }
                    if kind.trim() == "b" {
                        let list = session
                            .media
                            .last_mut()
                            .map_or(&mut session.bandwidth, |media| &mut media.bandwidth);
                        list.push(value.to_owned());
                        continue;
                    }
                    match (Direction::parse(value), session.media.last_mut()) {
                        (Some(direction), Some(media)) => {
                            media.direction = direction;
                            if let Some(flag) = directed.last_mut() {
                                *flag = true;
                            }
                        }
                        (Some(direction), None) => session_direction = Some(direction),
                        (None, Some(media)) => media.attributes.push(attribute(value)),
                        // Keys belong to a stream (RFC 4568 section 5.1).
                        (None, None) if value.starts_with("crypto:") => {}
                        (None, None) => session.attributes.push(attribute(value)),
                    }
                }
                _ => {}
            }
        }
        if !seen {
            return Err(OfferError::Malformed("no session description".to_owned()));
        }
        if session.timing.is_empty() {
            "0 0".clone_into(&mut session.timing);
        }
        if let Some(direction) = session_direction {
            for (media, _) in session
                .media
                .iter_mut()
                .zip(directed)
                .filter(|(_, directed)| !directed)
            {
                media.direction = direction;
            }
        }
        Ok(session)
    }
}

fn origin(text: &str) -> Option<Origin> {
    let mut parts = text.split_whitespace();
    let mut next = || parts.next().map(str::to_owned);
    let (username, session_id, version) = (next()?, next()?, next()?);
    let (_, _, address) = (next()?, next()?, next()?);
    Some(Origin {
        username,
        session_id,
        version,
        address,
    })
}

/// `IN IP4 192.0.2.1/127`: the address, or `None` for a host name.
fn connection(text: &str) -> Result<Option<IpAddr>, OfferError> {
    let mut parts = text.split_whitespace();
    let (Some(_), Some(_), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(OfferError::Malformed("bad c= line".to_owned()));
    };
    let address = address.split('/').next().unwrap_or(address);
    Ok(address
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok())
}

fn media(text: &str) -> Result<MediaDescription, OfferError> {
    let bad = || OfferError::Malformed("bad m= line".to_owned());
    let mut parts = text.split_whitespace();
    let (Some(kind), Some(port), Some(protocol)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(bad());
    };
    // `49170/2` asks for two pairs of ports; there is only ever one stream here.
    let port = port
        .split('/')
        .next()
        .unwrap_or(port)
        .parse()
        .map_err(|_| bad())?;
    let formats: Vec<_> = parts.take(MAX_FORMATS + 1).map(str::to_owned).collect();
    if formats.len() > MAX_FORMATS {
        return Err(OfferError::Malformed("too many formats".to_owned()));
    }
    Ok(MediaDescription {
        kind: kind.to_ascii_lowercase(),
        port,
        protocol: protocol.to_owned(),
        formats,
        connection: None,
        bandwidth: Vec::new(),
        direction: Direction::SendRecv,
        attributes: Vec::new(),
    })
}

fn attribute(text: &str) -> Attribute {
    match text.split_once(':') {
        Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
        None => (text.to_owned(), None),
    }
}
