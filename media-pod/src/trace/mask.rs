//! Takes the secrets out of a SIP message, so that the rest can be shown to people and sent to a collector.
//!
//! It works on bytes and not on parsed messages: what cannot be parsed is shown too, and may hold secrets all the same. Every rule
//! looks at every line, wherever it stands: bodies hold whole messages now and then. In doubt more is masked than need be.
//!
//! | what | what stays |
//! | --- | --- |
//! | `Authorization`, `Proxy-Authorization`, `Authentication-Info`, headers whose name says token, secret, password or API key | the scheme |
//! | `a=crypto` (RFC 4568) | tag and suite |
//! | `a=ice-pwd`, `a=key-mgmt`, `k=` | the name |
//! | the password in `sip:user:password@host` | the user |
//! | signed and random tokens in our Contacts and tags: knowing one gets a call in | six characters |
//! | bodies of INFO and of anything that carries DTMF | names of fields, the duration |
//!
//! Masks in a body are as long as what they hide, so that `Content-Length` stays right. Challenges stay as they are: a nonce is no
//! secret.

use std::ops::Range;

/// Our shortest token has 26 characters ([`TokenKey::derive`](ringwire_config::token::TokenKey::derive)).
const TOKEN: usize = 26;

/// So much of a token is left, to tell one from another.
const TOKEN_SHOWN: usize = 6;

/// Authentication schemes by name; whatever else stands there may be the secret itself.
const SCHEMES: [&[u8]; 4] = [b"Digest", b"Basic", b"Bearer", b"NTLM"];

/// The message without its secrets.
pub fn mask(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut state = State::default();
    let mut rest = message;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'))
            .unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        let terminator = match behind {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        state.line(line, &mut out);
        out.extend_from_slice(&behind[..terminator]);
        rest = &behind[terminator..];
    }
    out
}

/// Where in a message we are.
#[derive(Default)]
struct State {
    begun: bool,
    in_body: bool,
    /// The line before was a secret header: what is folded belongs to it.
    in_secret: bool,
    /// The line before was a Content-Type.
    in_content_type: bool,
    /// The body carries digits that somebody dials.
    digits: bool,
}

impl State {
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if line.is_empty() {
            self.in_body = self.begun;
            self.in_secret = false;
            return;
        }
        if !self.begun {
            self.begun = true;
            self.digits = starts_with(line, b"INFO ");
            return self.text(line, out);
        }
        if self.in_body && self.digits {
            return dial(line, out);
        }
        let folded = matches!(line[0], b' ' | b'\t');
        if folded && self.in_secret {
            return self.whole(line.len(), out);
        }
        if !self.in_body {
            self.note_content_type(line, folded);
        }
        self.in_secret = false;
        if let Some(colon) = secret_header(line) {
            self.in_secret = true;
            out.extend_from_slice(&line[..=colon]);
            let value = line[colon + 1..].trim_ascii_start();
            if self.in_body {
                return self.whole(line.len() - colon - 1, out);
            }
            let scheme = SCHEMES.iter().find(|scheme| {
                starts_with(value, scheme)
                    && value.get(scheme.len()).is_some_and(u8::is_ascii_whitespace)
            });
            if let Some(scheme) = scheme {
                out.push(b' ');
                out.extend_from_slice(scheme);
            }
            return self.whole(0, out);
        }
        if let Some(shown) = session_key(line) {
            out.extend_from_slice(&line[..shown]);
            return out.extend(std::iter::repeat_n(b'*', line.len() - shown));
        }
        self.text(line, out);
    }

    fn note_content_type(&mut self, line: &[u8], folded: bool) {
        if !folded {
            self.in_content_type = is_header(line, &[b"Content-Type", b"c"]);
        }
        if self.in_content_type {
            self.digits |= [b"dtmf".as_slice(), b"digit", b"kpml"]
                .iter()
                .any(|kind| contains(line, kind));
        }
    }

    /// Instead of a value of this length.
    fn whole(&self, length: usize, out: &mut Vec<u8>) {
        if self.in_body {
            out.extend(std::iter::repeat_n(b'*', length));
        } else {
            out.extend_from_slice(b" ***");
        }
    }

    /// A line that is no secret as a whole: what is secret within it is hidden.
    fn text(&self, line: &[u8], out: &mut Vec<u8>) {
        let mut hidden = behind_names(line);
        hidden.extend(passwords(line));
        if self.in_body || !is_header(line, &[b"Call-ID", b"i"]) {
            hidden.extend(tokens(line));
        }
        hidden.sort_by_key(|range| range.start);
        let mut at = 0;
        for Range { start, end } in hidden {
            if end <= at {
                continue;
            }
            let start = start.max(at);
            out.extend_from_slice(&line[at..start]);
            let length = end - start;
            let stars = if self.in_body { length } else { length.min(3) };
            out.extend(std::iter::repeat_n(b'*', stars));
            at = end;
        }
        out.extend_from_slice(&line[at..]);
    }
}

/// A line of a body with dialled digits: `Signal=5` and everything else but a duration is hidden.
fn dial(line: &[u8], out: &mut Vec<u8>) {
    let equals = line.iter().position(|&byte| byte == b'=');
    let name = &line[..equals.map_or(0, |at| at + 1)];
    let is = |wanted: &[u8]| {
        name.strip_suffix(b"=")
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    if is(b"Duration") {
        return out.extend_from_slice(line);
    }
    let shown = if is(b"Signal") { name.len() } else { 0 };
    out.extend_from_slice(&line[..shown]);
    // Not stars: a star can be dialled.
    out.extend(std::iter::repeat_n(b'?', line.len() - shown));
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(start))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part))
}

/// What stands before the first colon.
fn header_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some(line[..colon].trim_ascii_end())
}

fn is_header(line: &[u8], names: &[&[u8]]) -> bool {
    header_name(line)
        .is_some_and(|name| names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)))
}

/// Where the colon of a header is whose value is secret as a whole.
fn secret_header(line: &[u8]) -> Option<usize> {
    let name = header_name(line)?;
    if name.is_empty() || name.iter().any(|byte| b" \t=<\"".contains(byte)) {
        return None;
    }
    let credentials: [&[u8]; 4] = [
        b"Authorization",
        b"Proxy-Authorization",
        b"Authentication-Info",
        b"Proxy-Authentication-Info",
    ];
    let telling: [&[u8]; 5] = [b"token", b"secret", b"passw", b"api-key", b"apikey"];
    let is_secret = credentials
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
        || telling.iter().any(|part| contains(name, part));
    is_secret.then(|| line.iter().position(|&byte| byte == b':'))?
}

/// For a line of SDP that holds a key: how much of it may be seen.
fn session_key(line: &[u8]) -> Option<usize> {
    let indent = line.len() - line.trim_ascii_start().len();
    let text = &line[indent..];
    for name in [b"a=ice-pwd:".as_slice(), b"a=key-mgmt:", b"k="] {
        if starts_with(text, name) {
            return Some(indent + name.len());
        }
    }
    let name = b"a=crypto:";
    if !starts_with(text, name) {
        return None;
    }
    // Tag, suite, keys. What does not look like the first two may be a key.
    let words = &text[name.len()..];
    let is_tag =
        |word: &[u8]| !word.is_empty() && word.len() < 10 && word.iter().all(u8::is_ascii_digit);
    let is_suite = |word: &[u8]| {
        starts_with(word, b"AES_") || starts_with(word, b"AEAD_") || starts_with(word, b"F8_")
    };
    let mut parts = words.splitn(3, |&byte| byte == b' ');
    let (tag, suite) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let shown = if is_tag(tag) && is_suite(suite) && suite.len() < 40 {
        (tag.len() + 1 + suite.len() + 1).min(words.len())
    } else {
        0
    };
    Some(indent + name.len() + shown)
}

/// Values that are secret wherever they stand, by what stands before them.
fn behind_names(line: &[u8]) -> Vec<Range<usize>> {
    let names: [&[u8]; 4] = [b"inline:", b"ice-pwd:", b"ice-pwd=", b"authorization="];
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let name = names.iter().find(|name| starts_with(&line[at..], name));
        let Some(name) = name else {
            at += 1;
            continue;
        };
        let start = at + name.len();
        at = end_of(line, start, b" \t;,&<>\"");
        found.push(start..at);
    }
    found
}

/// The passwords in SIP URIs.
fn passwords(line: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let schemes: [&[u8]; 2] = [b"sips:", b"sip:"];
        let scheme = schemes
            .iter()
            .find(|scheme| starts_with(&line[at..], scheme));
        let Some(scheme) = scheme else {
            at += 1;
            continue;
        };
        let user = at + scheme.len();
        at = end_of(line, user, b" \t<>\"@");
        let colon = line[user..at].iter().position(|&byte| byte == b':');
        if let Some(colon) = colon.filter(|_| line.get(at) == Some(&b'@')) {
            found.push(user + colon + 1..at);
        }
    }
    found
}

/// Where the next of these bytes is, or the end.
fn end_of(line: &[u8], from: usize, ends: &[u8]) -> usize {
    let length = line[from..].iter().position(|byte| ends.contains(byte));
    length.map_or(line.len(), |length| from + length)
}

/// What is left to hide of each run of base32 as long as a token or longer. Carriers may change the case, and may escape characters.
fn tokens(line: &[u8]) -> Vec<Range<usize>> {
    let unit = |at: usize| -> usize {
        let is_base32 = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7');
        match &line[at..] {
            [b'%', high, low, ..] => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                let byte = digit(*high)
                    .zip(digit(*low))
                    .map(|(high, low)| high * 16 + low);
                let is = byte
                    .and_then(|byte| u8::try_from(byte).ok())
                    .is_some_and(is_base32);
                if is { 3 } else { 0 }
            }
            [byte, ..] if is_base32(*byte) => 1,
            _ => 0,
        }
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let (start, mut units, mut shown) = (at, 0, at);
        loop {
            let length = unit(at);
            if length == 0 {
                break;
            }
            at += length;
            units += 1;
            if units == TOKEN_SHOWN {
                shown = at;
            }
        }
        if units >= TOKEN {
            found.push(shown..at);
        }
        if at == start {
            at += 1;
        }
    }
    found
}
