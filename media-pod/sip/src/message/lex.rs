//! Small scanners shared by the header parsers: they know about quotes, escapes and angle brackets, and nothing else.

use std::fmt;

/// Whether this may stand in a token (RFC 3261 section 25.1).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Linear white space as it remains after unfolding.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Position of the first byte for which `wanted` holds outside quotes and outside angle brackets.
pub(crate) fn find_outside(text: &str, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut bracket = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if bracket {
            bracket = byte != b'>';
        } else if wanted(byte) {
            return Some(at);
        } else {
            match byte {
                b'"' => quoted = true,
                b'<' => bracket = true,
                _ => {}
            }
        }
    }
    None
}

/// The values of a comma list; quotes and angle brackets are respected, empty values left out.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        loop {
            let now = rest?;
            let value = if let Some(at) = find_outside(now, |byte| byte == b',') {
                rest = Some(&now[at + 1..]);
                &now[..at]
            } else {
                rest = None;
                now
            };
            let value = trim(value);
            if !value.is_empty() {
                return Some(value);
            }
        }
    })
}

/// Reads a quoted string that `text` starts with: its content without escapes, and what follows it.
/// `None` when it doesn't start with a quote or the closing quote is missing.
pub(crate) fn quoted(text: &str) -> Option<(String, &str)> {
    split_quoted(text).map(|(inner, rest)| (without_escapes(inner), rest))
}

/// The same without a copy: what stands between the quotes, with its escapes.
pub(crate) fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

/// The content of a quoted string without its escapes.
pub(crate) fn without_escapes(inner: &str) -> String {
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => content.extend(chars.next()),
            _ => content.push(c),
        }
    }
    content
}

/// Writes a quoted string; line ends become spaces, so that a header is never split.
pub(crate) fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                f.write_char('\\')?;
                f.write_char(c)?;
            }
            '\r' | '\n' => f.write_char(' ')?,
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// Writes URI text as it is, but percent-escapes what would end the URI or the header around it.
pub(crate) fn write_uri_text(f: &mut fmt::Formatter<'_>, text: &str, also: &[char]) -> fmt::Result {
    let ends = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"') || also.contains(&c)
    };
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let (plain, tail) = rest.split_at(at);
        f.write_str(plain)?;
        let length = tail.chars().next().map_or(0, char::len_utf8);
        for byte in tail[..length].bytes() {
            write!(f, "%{byte:02X}")?;
        }
        rest = &tail[length..];
    }
    f.write_str(rest)
}

/// Undoes percent escapes. A broken escape stays as it is; bytes that are no UTF-8 are read as Latin-1.
pub(crate) fn unescape(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%'
            && let Some(&[high, low]) = bytes.get(at + 1..at + 3)
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            out.push(high << 4 | low);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    decode(&out).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// Bytes as text: UTF-8, or Latin-1 where it is not valid UTF-8.
pub(crate) fn decode(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .map(|&byte| byte as char)
            .collect::<String>()
            .into(),
    }
}

/// A number made of digits only; what is larger than the type becomes its largest value.
pub(crate) fn saturating_number(text: &str) -> Option<u32> {
    let text = trim(text);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}
