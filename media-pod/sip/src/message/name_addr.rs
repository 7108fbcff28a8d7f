//! `"Display name" <uri>;params` as in From, To, Contact and Route.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::error::ParseError;
use super::lex;
use super::params::{Params, Scan};
use super::uri::Uri;

/// A URI with an optional display name and header parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name without quotes and escapes.
    pub display: Option<String>,
    /// The address.
    pub uri: Uri,
    /// Parameters behind the brackets, such as `tag` and `expires`.
    pub params: Params,
}

impl NameAddr {
    /// An address without name and parameters.
    pub fn new(uri: Uri) -> Self {
        Self {
            display: None,
            uri,
            params: Params::new(),
        }
    }

    /// Reads one address. Without angle brackets, parameters belong to the header (RFC 3261 section 20.10).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_header("address", text)
    }

    pub(crate) fn parse_header(header: &str, text: &str) -> Result<Self, ParseError> {
        let parts = Parts::read(header, text)?;
        Ok(Self {
            display: parts.display.map(|display| {
                if parts.quoted {
                    lex::without_escapes(display)
                } else {
                    display.to_owned()
                }
            }),
            uri: Uri::parse(parts.uri).map_err(|error| in_header(header, error))?,
            params: Params::parse_header(header, parts.params)?,
        })
    }

    /// The address for people and agents: without name, password and parameters.
    pub fn bare(&self) -> String {
        let uri = Uri {
            password: None,
            params: Params::new(),
            headers: None,
            ..self.uri.clone()
        };
        uri.to_string()
    }

    /// The `tag` parameter.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// Sets the `tag` parameter.
    pub fn set_tag(&mut self, tag: &str) {
        self.params.set("tag", Some(tag));
    }

    /// The same with a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.set_tag(tag);
        self
    }
}

/// The pieces of an address, nothing copied.
struct Parts<'a> {
    display: Option<&'a str>,
    /// Whether the display name stood in quotes, and still has its escapes.
    quoted: bool,
    uri: &'a str,
    /// Behind the brackets, or from the first semicolon where there are none.
    params: &'a str,
}

impl<'a> Parts<'a> {
    fn read(header: &str, text: &'a str) -> Result<Self, ParseError> {
        let fail = |problem| ParseError::header(header, problem);
        let text = lex::trim(text);
        let (display, quoted, rest) = if text.starts_with('"') {
            let (display, rest) =
                lex::split_quoted(text).ok_or_else(|| fail("unterminated quote"))?;
            let rest = lex::trim(rest);
            if !rest.starts_with('<') {
                return Err(fail("no address behind the display name"));
            }
            (Some(display), true, rest)
        } else if let Some(open) = text.find('<') {
            let name = lex::trim(&text[..open]);
            if name.contains('"') {
                return Err(fail("quote inside the display name"));
            }
            ((!name.is_empty()).then_some(name), false, &text[open..])
        } else {
            let (uri, params) = text.split_at(text.find(';').unwrap_or(text.len()));
            return Ok(Self {
                display: None,
                quoted: false,
                uri,
                params,
            });
        };
        let inner = &rest[1..];
        let close = inner.find('>').ok_or_else(|| fail("missing >"))?;
        Ok(Self {
            display,
            quoted,
            uri: &inner[..close],
            params: &inner[close + 1..],
        })
    }
}

/// The tag of the address in a header, if it has one. The URI is not looked at.
pub(crate) fn tag_of<'a>(
    header: &'a str,
    text: &'a str,
) -> Result<Option<Cow<'a, str>>, ParseError> {
    let parts = Parts::read(header, text)?;
    let mut tag = None;
    for param in Scan::new(header, parts.params) {
        let param = param?;
        if tag.is_none() && param.is("tag") {
            tag = param.value();
        }
    }
    Ok(tag.filter(|tag| !tag.is_empty()))
}

/// Whether the address in a header can be read.
pub(crate) fn check(header: &str, text: &str) -> Result<(), ParseError> {
    let parts = Parts::read(header, text)?;
    Uri::parse(parts.uri).map_err(|error| in_header(header, error))?;
    Scan::new(header, parts.params).try_for_each(|param| param.map(drop))
}

/// An error inside the URI of a header, told with the header's name.
pub(crate) fn in_header(header: &str, error: ParseError) -> ParseError {
    match error {
        ParseError::Uri(problem) => ParseError::header(header, problem),
        other => other,
    }
}

/// Always with angle brackets, so that no parameter changes sides.
impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            lex::write_quoted(f, display)?;
            f.write_str(" ")?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

impl FromStr for NameAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl From<Uri> for NameAddr {
    fn from(uri: Uri) -> Self {
        Self::new(uri)
    }
}
