//! The header section: names and values in their order, and typed readers for the values that SIP itself needs.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::error::ParseError;
use super::header_name::HeaderName;
use super::lex;
use super::method::Method;
use super::name_addr::{self, NameAddr};
use super::text::Text;
use super::via::{self, Via};

/// Header fields in order, unknown ones included. Values are text without line ends: what is put in is
/// cleaned, so that a header can never split when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, Text)>);

impl<V: Into<String>> FromIterator<(HeaderName, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, V)>>(fields: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in fields {
            headers.push(name, value);
        }
        headers
    }
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of that name, as it stands.
    pub fn get(&self, name: &HeaderName) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// All fields of that name, as they stand.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of that name, comma lists taken apart (quotes and angle brackets respected).
    pub fn values(&self, name: &HeaderName) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(move |(own, _)| own == name)
            .flat_map(|(_, value)| lex::split_list(value.as_str()).map(str::to_owned))
    }

    /// Whether there is a field of that name.
    pub fn has(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: HeaderName, value: impl Into<String>) {
        self.0.push((name, Text::Own(clean(value.into()))));
    }

    /// Adds a field before all others, as a new topmost `Via` or `Route`.
    pub fn insert_first(&mut self, name: HeaderName, value: impl Into<String>) {
        self.0.insert(0, (name, Text::Own(clean(value.into()))));
    }

    /// Replaces all fields of that name by one at the place of the first, or adds it at the end.
    pub fn set(&mut self, name: HeaderName, value: impl Into<String>) {
        let value = Text::Own(clean(value.into()));
        let Some(first) = self.0.iter().position(|(own, _)| *own == name) else {
            self.0.push((name, value));
            return;
        };
        self.0[first].1 = value;
        let mut at = 0;
        self.0.retain(|(own, _)| {
            at += 1;
            at - 1 <= first || *own != name
        });
    }

    /// Removes all fields of that name; says whether there was one.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        let before = self.0.len();
        self.0.retain(|(own, _)| own != name);
        self.0.len() != before
    }

    /// Takes off the first value of that name, also from a comma list: the topmost `Via` or `Route`.
    pub fn pop_first(&mut self, name: &HeaderName) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        let value = self.0[at].1.as_str();
        if let Some(comma) = lex::find_outside(value, |byte| byte == b',') {
            let first = lex::trim(&value[..comma]).to_owned();
            let rest = lex::trim(&value[comma + 1..]).to_owned();
            self.0[at].1 = Text::Own(rest);
            return Some(first);
        }
        Some(self.0.remove(at).1.into_string())
    }

    /// Replaces the first value of that name, also in a comma list.
    pub fn replace_first(&mut self, name: &HeaderName, new: impl Into<String>) {
        let new = clean(new.into());
        if let Some((_, value)) = self.0.iter_mut().find(|(own, _)| own == name) {
            let text = value.as_str();
            *value = Text::Own(match lex::find_outside(text, |byte| byte == b',') {
                Some(comma) => format!("{new}{}", &text[comma..]),
                None => new,
            });
        }
    }

    /// Adds a field as it was read: one line, trimmed.
    pub(super) fn push_read(&mut self, name: HeaderName, value: Text) {
        debug_assert!(!value.as_str().contains(['\r', '\n']));
        self.0.push((name, value));
    }

    /// Room for that many fields.
    pub(super) fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    /// The fields with such names, in their order.
    pub(crate) fn copy(&self, wanted: impl Fn(&HeaderName) -> bool) -> Self {
        let fields = || self.0.iter().filter(|(name, _)| wanted(name));
        let mut copied = Vec::with_capacity(fields().count() + 2);
        copied.extend(fields().cloned());
        Self(copied)
    }

    /// Adds copies of all fields of that name.
    pub(crate) fn push_from(&mut self, other: &Self, name: &HeaderName) {
        let fields = other.0.iter().filter(|(own, _)| own == name);
        self.0.extend(fields.cloned());
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn first(&self, name: &HeaderName, label: &'static str) -> Result<&str, ParseError> {
        self.get(name).ok_or(ParseError::Missing(label))
    }

    /// The topmost `Via`.
    pub fn via(&self) -> Result<Via, ParseError> {
        Ok(self.via_parts()?.to_via())
    }

    /// The topmost `Via`, nothing copied.
    pub(crate) fn via_parts(&self) -> Result<via::Parts<'_>, ParseError> {
        let text = self.first(&HeaderName::Via, "Via")?;
        via::Parts::read(
            lex::split_list(text)
                .next()
                .ok_or(ParseError::Missing("Via"))?,
        )
    }

    /// Whether every `Via` can be read.
    pub(super) fn check_vias(&self) -> Result<(), ParseError> {
        self.get_all(&HeaderName::Via)
            .flat_map(lex::split_list)
            .try_for_each(|text| via::Parts::read(text).map(drop))
    }

    /// All `Via` values from the top; the first that can't be read is an error.
    pub fn vias(&self) -> Result<Vec<Via>, ParseError> {
        self.get_all(&HeaderName::Via)
            .flat_map(lex::split_list)
            .map(Via::parse)
            .collect()
    }

    /// `From`.
    pub fn from_(&self) -> Result<NameAddr, ParseError> {
        NameAddr::parse_header("From", self.first(&HeaderName::From, "From")?)
    }

    /// `To`.
    pub fn to(&self) -> Result<NameAddr, ParseError> {
        NameAddr::parse_header("To", self.first(&HeaderName::To, "To")?)
    }

    /// The tag of `From`.
    pub(crate) fn caller_tag(&self) -> Result<Option<Cow<'_, str>>, ParseError> {
        name_addr::tag_of("From", self.first(&HeaderName::From, "From")?)
    }

    /// The tag of `To`.
    pub(crate) fn callee_tag(&self) -> Result<Option<Cow<'_, str>>, ParseError> {
        name_addr::tag_of("To", self.first(&HeaderName::To, "To")?)
    }

    /// The first `Contact`; `None` when there is none. A lone `*` is an error here, see [`Self::is_contact_star`].
    pub fn contact(&self) -> Result<Option<NameAddr>, ParseError> {
        Ok(self.contacts()?.into_iter().next())
    }

    /// All `Contact` values.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, ParseError> {
        self.addresses(&HeaderName::Contact)
    }

    /// Whether `Contact: *` asks to remove every binding.
    pub fn is_contact_star(&self) -> bool {
        self.get(&HeaderName::Contact)
            .is_some_and(|value| lex::trim(value) == "*")
    }

    /// All addresses of a header that is a list of them; the first that can't be read is an error.
    pub fn addresses(&self, name: &HeaderName) -> Result<Vec<NameAddr>, ParseError> {
        self.get_all(name)
            .flat_map(lex::split_list)
            .map(|text| NameAddr::parse_header(name.as_str(), text))
            .collect()
    }

    /// The number and method of `CSeq`.
    pub fn cseq(&self) -> Result<(u32, Method), ParseError> {
        let text = lex::trim(self.first(&HeaderName::CSeq, "CSeq")?);
        let fail = |problem| ParseError::header("CSeq", problem);
        let (number, method) = text
            .split_once(lex::is_space)
            .ok_or_else(|| fail("no method"))?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(fail("not a number"));
        }
        let method = lex::trim(method);
        if !lex::is_token(method) {
            return Err(fail("bad method"));
        }
        Ok((
            number.parse().map_err(|_| fail("number too large"))?,
            Method::parse(method),
        ))
    }

    /// `Call-ID`.
    pub fn call_id(&self) -> Result<&str, ParseError> {
        let text = lex::trim(self.first(&HeaderName::CallId, "Call-ID")?);
        if text.is_empty() {
            Err(ParseError::Missing("Call-ID"))
        } else {
            Ok(text)
        }
    }

    /// `Max-Forwards`, if it is a number.
    pub fn max_forwards(&self) -> Option<u32> {
        self.get(&HeaderName::MaxForwards)
            .and_then(lex::saturating_number)
    }

    /// The `Route` set from the top. Values that can't be read are left out.
    pub fn routes(&self) -> Vec<NameAddr> {
        self.readable(&HeaderName::Route)
    }

    /// The `Record-Route` values from the top. Values that can't be read are left out.
    pub fn record_routes(&self) -> Vec<NameAddr> {
        self.readable(&HeaderName::RecordRoute)
    }

    /// The addresses of a list header that can be read.
    pub fn readable(&self, name: &HeaderName) -> Vec<NameAddr> {
        self.get_all(name)
            .flat_map(lex::split_list)
            .filter_map(|text| NameAddr::parse(text).ok())
            .collect()
    }

    /// `Expires` in seconds, if it is a number; what is too large becomes the largest number.
    pub fn expires(&self) -> Option<u32> {
        self.get(&HeaderName::Expires)
            .and_then(lex::saturating_number)
    }

    /// `Min-Expires` in seconds.
    pub fn min_expires(&self) -> Option<u32> {
        self.get(&HeaderName::MinExpires)
            .and_then(lex::saturating_number)
    }

    /// `Retry-After` in seconds, without its comment and parameters.
    pub fn retry_after(&self) -> Option<u32> {
        let text = self.get(&HeaderName::RetryAfter)?;
        lex::saturating_number(text.split(['(', ';']).next().unwrap_or(text))
    }

    /// The option tags of `Require`, `Supported` and the like, in lower case.
    pub fn option_tags(&self, name: &HeaderName) -> Vec<String> {
        self.values(name)
            .map(|tag| tag.to_ascii_lowercase())
            .collect()
    }

    /// Whether a list header such as `Supported` or `Allow` names this token, whatever its case.
    pub fn lists(&self, name: &HeaderName, token: &str) -> bool {
        self.get_all(name)
            .flat_map(lex::split_list)
            .any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The media type of the body in lower case, without parameters and white space: `application/sdp`.
    pub fn content_type(&self) -> Option<String> {
        let text = self.get(&HeaderName::ContentType)?;
        let kind = text.split(';').next().unwrap_or(text);
        Some(
            kind.chars()
                .filter(|c| !lex::is_space(*c))
                .map(|c| c.to_ascii_lowercase())
                .collect(),
        )
    }

    /// A parameter of `Content-Type`, such as the `boundary` of a multipart body.
    pub fn content_type_param(&self, name: &str) -> Option<String> {
        let text = self.get(&HeaderName::ContentType)?;
        let params = super::Params::parse_header("Content-Type", &text[text.find(';')?..]).ok()?;
        params.get(name).map(str::to_owned)
    }

    /// Notes in the topmost `Via` where the request really came from: `received` when the sent-by says otherwise or
    /// `rport` was asked for, and then the value of `rport` (RFC 3261 section 18.2.1, RFC 3581 section 4). What the
    /// sender claimed in these parameters is overwritten. For the receiver of a request, and for
    /// [`ParseFailure::reply`](super::ParseFailure::reply).
    pub fn note_source(&mut self, source: SocketAddr) {
        if let Ok(via) = self.via_parts() {
            let noted = via.with_source(source);
            self.replace_first(&HeaderName::Via, noted);
        }
    }
}

/// Line ends would start another header: they become spaces.
fn clean(mut value: String) -> String {
    if value.contains(['\r', '\n']) {
        value = value.replace(['\r', '\n'], " ");
    }
    let trimmed = lex::trim(&value);
    if trimmed.len() == value.len() {
        value
    } else {
        trimmed.to_owned()
    }
}
