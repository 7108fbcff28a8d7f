//! Names of header fields: known ones as variants, compact forms mapped, any case.

use std::fmt;
use std::hash::{Hash, Hasher};

/// The name of a header field. Two unknown names are equal whatever their case.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is the header of that name")]
pub enum HeaderName {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    MaxForwards,
    Route,
    RecordRoute,
    Expires,
    ContentType,
    ContentLength,
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
    Require,
    ProxyRequire,
    Supported,
    Unsupported,
    Allow,
    Accept,
    UserAgent,
    Server,
    Reason,
    RetryAfter,
    MinExpires,
    Warning,
    PAssertedIdentity,
    PCalledPartyId,
    ServiceRoute,
    Path,
    SessionExpires,
    MinSe,
    ReferTo,
    Replaces,
    Diversion,
    HistoryInfo,
    Privacy,
    Event,
    SubscriptionState,
    Rack,
    Rseq,
    Date,
    Timestamp,
    ErrorInfo,
    /// Any other name, as it was written.
    Other(String),
}

macro_rules! names {
    ($($variant:ident $text:literal $compact:expr;)*) => {
        /// Name, compact form and variant of each known header.
        const KNOWN: &[(&str, Option<u8>, HeaderName)] = &[$(($text, $compact, HeaderName::$variant),)*];

        impl HeaderName {
            /// The full name in its usual spelling, or an unknown name as it was written.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(name) => name,
                }
            }
        }
    };
}

names! {
    Via "Via" Some(b'v');
    From "From" Some(b'f');
    To "To" Some(b't');
    CallId "Call-ID" Some(b'i');
    CSeq "CSeq" None;
    Contact "Contact" Some(b'm');
    MaxForwards "Max-Forwards" None;
    Route "Route" None;
    RecordRoute "Record-Route" None;
    Expires "Expires" None;
    ContentType "Content-Type" Some(b'c');
    ContentLength "Content-Length" Some(b'l');
    Authorization "Authorization" None;
    ProxyAuthorization "Proxy-Authorization" None;
    WwwAuthenticate "WWW-Authenticate" None;
    ProxyAuthenticate "Proxy-Authenticate" None;
    Require "Require" None;
    ProxyRequire "Proxy-Require" None;
    Supported "Supported" Some(b'k');
    Unsupported "Unsupported" None;
    Allow "Allow" None;
    Accept "Accept" None;
    UserAgent "User-Agent" None;
    Server "Server" None;
    Reason "Reason" None;
    RetryAfter "Retry-After" None;
    MinExpires "Min-Expires" None;
    Warning "Warning" None;
    PAssertedIdentity "P-Asserted-Identity" None;
    PCalledPartyId "P-Called-Party-ID" None;
    ServiceRoute "Service-Route" None;
    Path "Path" None;
    SessionExpires "Session-Expires" Some(b'x');
    MinSe "Min-SE" None;
    ReferTo "Refer-To" Some(b'r');
    Replaces "Replaces" None;
    Diversion "Diversion" None;
    HistoryInfo "History-Info" None;
    Privacy "Privacy" None;
    Event "Event" Some(b'o');
    SubscriptionState "Subscription-State" None;
    Rack "RAck" None;
    Rseq "RSeq" None;
    Date "Date" None;
    Timestamp "Timestamp" None;
    ErrorInfo "Error-Info" None;
}

/// Compact forms of headers that have no variant of their own (IANA registry).
const OTHER_COMPACT: &[(u8, &str)] = &[
    (b'a', "Accept-Contact"),
    (b'b', "Referred-By"),
    (b'd', "Request-Disposition"),
    (b'e', "Content-Encoding"),
    (b'j', "Reject-Contact"),
    (b'n', "Identity-Info"),
    (b's', "Subject"),
    (b'u', "Allow-Events"),
    (b'y', "Identity"),
];

impl HeaderName {
    /// Whether several instances of this header mean the same as one comma list, and each value stands for
    /// itself, so that the parser stores them one by one.
    pub(crate) fn is_split_when_read(&self) -> bool {
        matches!(
            self,
            Self::Via | Self::Route | Self::RecordRoute | Self::Path | Self::ServiceRoute
        )
    }
}

impl From<&str> for HeaderName {
    fn from(text: &str) -> Self {
        if let [letter] = text.as_bytes() {
            let letter = letter.to_ascii_lowercase();
            if let Some((_, _, name)) = KNOWN
                .iter()
                .find(|(_, compact, _)| *compact == Some(letter))
            {
                return name.clone();
            }
            if let Some((_, name)) = OTHER_COMPACT.iter().find(|(compact, _)| *compact == letter) {
                return Self::Other((*name).to_owned());
            }
        }
        KNOWN
            .iter()
            .find(|(name, _, _)| name.eq_ignore_ascii_case(text))
            .map_or_else(|| Self::Other(text.to_owned()), |(_, _, name)| name.clone())
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(_), _) | (_, Self::Other(_)) => {
                self.as_str().eq_ignore_ascii_case(other.as_str())
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for HeaderName {}

impl Hash for HeaderName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.as_str().bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
