//! Parameters behind URIs and header values: `;name=value` and `;name`.

use std::borrow::Cow;
use std::fmt;

use super::error::ParseError;
use super::lex;
use super::limits::MAX_PARAMS;

/// Parameters in their order. Names are compared without case. Values are stored without quotes and escapes
/// and get quotes back when they are written and need them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a parameter: `None` when it is missing, `Some("")` when it has no value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.unwrap_or(""))
    }

    /// Whether the parameter stands there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Replaces a parameter where it stands, or adds it at the end.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self
            .0
            .iter_mut()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
        {
            Some(slot) => slot.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes every instance of a parameter; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.0.len() != before
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, name: String, value: Option<String>) -> Result<(), &'static str> {
        if self.0.len() >= MAX_PARAMS {
            return Err("too many parameters");
        }
        self.0.push((name, value));
        Ok(())
    }

    /// Reads `;a=b ;c="d"` behind a header value. The text is empty or begins with a semicolon.
    pub(crate) fn parse_header(header: &str, text: &str) -> Result<Self, ParseError> {
        let mut params = Self::new();
        for param in Scan::new(header, text) {
            let param = param?;
            let value = param.value().map(Cow::into_owned);
            params.0.push((param.name.to_owned(), value));
        }
        Ok(params)
    }

    /// Reads `;a=b;c` inside a URI, where nothing is quoted and escapes stay as they are.
    pub(crate) fn parse_uri(text: &str) -> Result<Self, ParseError> {
        let mut params = Self::new();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (part, None),
            };
            if name.is_empty() {
                return Err(ParseError::Uri("parameter without a name"));
            }
            params
                .push(name.to_owned(), value)
                .map_err(ParseError::Uri)?;
        }
        Ok(params)
    }

    pub(crate) fn write_uri(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            f.write_str(";")?;
            lex::write_uri_text(f, name, &[';', '?', '=', '@'])?;
            if let Some(value) = value {
                f.write_str("=")?;
                lex::write_uri_text(f, value, &[';', '?', '@'])?;
            }
        }
        Ok(())
    }
}

/// One parameter behind a header value, nothing copied.
pub(crate) struct Param<'a> {
    pub(crate) name: &'a str,
    value: Option<&'a str>,
    /// Whether the value stood in quotes, and still has its escapes.
    quoted: bool,
}

impl<'a> Param<'a> {
    /// The value without quotes and escapes.
    pub(crate) fn value(&self) -> Option<Cow<'a, str>> {
        self.value.map(|value| {
            if self.quoted && value.contains('\\') {
                lex::without_escapes(value).into()
            } else {
                value.into()
            }
        })
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// As it was written.
impl fmt::Display for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ";{}", self.name)?;
        match self.value {
            Some(value) if self.quoted => write!(f, "=\"{value}\""),
            Some(value) => write!(f, "={value}"),
            None => Ok(()),
        }
    }
}

/// Goes through the parameters behind a header value. After an error it ends.
pub(crate) struct Scan<'a> {
    header: &'a str,
    rest: &'a str,
    read: usize,
}

impl<'a> Scan<'a> {
    /// The text is empty or begins with a semicolon.
    pub(crate) fn new(header: &'a str, text: &'a str) -> Self {
        Self {
            header,
            rest: lex::trim(text),
            read: 0,
        }
    }

    /// The next parameter; `None` where only a semicolon stands.
    fn read(&mut self) -> Result<Option<Param<'a>>, &'static str> {
        let text = self.rest.strip_prefix(';').ok_or("text behind the value")?;
        let text = lex::trim(text);
        let name_end = text.find(['=', ';', '"', '<', '>']).unwrap_or(text.len());
        let name = lex::trim(&text[..name_end]);
        let after = &text[name_end..];
        let (value, quoted);
        (value, quoted, self.rest) = match after.strip_prefix('=').map(lex::trim) {
            Some(text) if text.starts_with('"') => {
                let (value, rest) = lex::split_quoted(text).ok_or("unterminated quote")?;
                (Some(value), true, lex::trim(rest))
            }
            Some(text) => {
                let end = text.find([';', '"']).unwrap_or(text.len());
                (Some(lex::trim(&text[..end])), false, &text[end..])
            }
            None if after.is_empty() || after.starts_with(';') => (None, false, after),
            None => return Err("bad parameter name"),
        };
        if name.is_empty() {
            // `;;` and a trailing semicolon are seen in the wild and mean nothing.
            return match value {
                Some(_) => Err("parameter without a name"),
                None => Ok(None),
            };
        }
        if name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == ',')
        {
            return Err("bad parameter name");
        }
        self.read += 1;
        if self.read > MAX_PARAMS {
            return Err("too many parameters");
        }
        Ok(Some(Param {
            name,
            value,
            quoted,
        }))
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Result<Param<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.read() {
                Ok(None) => {}
                Ok(Some(param)) => return Some(Ok(param)),
                Err(problem) => {
                    self.rest = "";
                    return Some(Err(ParseError::header(self.header, problem)));
                }
            }
        }
        None
    }
}

/// As behind a header value: a value that is neither token nor host is put into quotes.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            f.write_str(";")?;
            for c in name
                .chars()
                .filter(|c| !c.is_control() && !c.is_whitespace() && !"=;,\"<>".contains(*c))
            {
                write!(f, "{c}")?;
            }
            if let Some(value) = value {
                f.write_str("=")?;
                let plain = !value.is_empty()
                    && value
                        .bytes()
                        .all(|byte| lex::is_token_byte(byte) || b":[]/@?&$#".contains(&byte));
                if plain {
                    f.write_str(value)?;
                } else {
                    lex::write_quoted(f, value)?;
                }
            }
        }
        Ok(())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, Option<V>)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, Option<V>)>>(iter: I) -> Self {
        Self(
            iter.into_iter()
                .map(|(name, value)| (name.into(), value.map(Into::into)))
                .collect(),
        )
    }
}
