//! Who calls: what the caller says of himself, what his network vouches for, what of it he wants withheld, and by whom the
//! call was sent on to us.
//!
//! The network's word counts only where the network is trusted (RFC 3325 section 2): that is for the reader to know.

use super::header_name::HeaderName;
use super::headers::Headers;
use super::lex;
use super::name_addr::NameAddr;
use super::params::Params;
use super::unescape;

/// Most entries of one header that are read; the rest are left out.
const MAX_ENTRIES: usize = 16;

/// What an INVITE says of its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerIdentity {
    /// `From`: what the caller says.
    pub from: Option<NameAddr>,
    /// `P-Asserted-Identity` (RFC 3325 section 9.1): what the caller's network vouches for; a SIP URI, a telephone number,
    /// or one of each.
    pub asserted: Vec<NameAddr>,
    /// `Privacy`.
    pub privacy: Privacy,
    /// Who sent the call on, the latest first: by `Diversion` (RFC 5806), else by `History-Info`.
    pub diversions: Vec<Diversion>,
    /// `History-Info` (RFC 7044), in the order in which it stands.
    pub history: Vec<HistoryEntry>,
}

impl CallerIdentity {
    /// Reads the headers. What can't be read is left out: no call fails for it.
    pub fn of(headers: &Headers) -> Self {
        let mut asserted = headers.readable(&HeaderName::PAssertedIdentity);
        asserted.truncate(MAX_ENTRIES);
        let history = history(headers);
        let mut diversions = diversions(headers);
        if diversions.is_empty() {
            diversions = diverted(&history);
        }
        Self {
            from: headers.from_().ok(),
            asserted,
            privacy: Privacy::of(headers),
            diversions,
            history,
        }
    }

    /// Whether the caller does not want to be known: by `Privacy`, or by a `From` that says nobody (RFC 3323 section 4.1.1.3).
    pub fn is_withheld(&self) -> bool {
        let anonymous = self.from.as_ref().is_some_and(|from| {
            from.uri
                .host
                .to_string()
                .eq_ignore_ascii_case("anonymous.invalid")
        });
        anonymous || self.privacy.hides_caller()
    }

    /// The caller's number or name as it may be shown: the asserted one, or the user part of `From` where there is none or
    /// where the caller is withheld.
    pub fn shown(&self) -> Option<String> {
        let vouched = if self.is_withheld() {
            &[][..]
        } else {
            &self.asserted
        };
        let users: Vec<String> = vouched.iter().filter_map(user_of).collect();
        let number = users.iter().find(|user| is_number(user));
        let vouched = number.or(users.first()).cloned();
        vouched.or_else(|| self.from.as_ref().and_then(user_of))
    }
}

/// The user part without the parameters that telephone numbers have (RFC 3261 section 19.1.6), a number without what only
/// helps to read it (RFC 3966 section 5.1.1).
fn user_of(address: &NameAddr) -> Option<String> {
    let user = address.uri.user_unescaped()?;
    let user = user.split(';').next().unwrap_or_default();
    let number: String = user.chars().filter(|c| !"-.() ".contains(*c)).collect();
    let user = if is_number(&number) {
        number
    } else {
        user.to_owned()
    };
    (!user.is_empty()).then_some(user)
}

/// Whether a user part is a telephone number.
fn is_number(user: &str) -> bool {
    let digits = user.strip_prefix('+').unwrap_or(user);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `Privacy` (RFC 3323 section 4.2, RFC 3325 section 9.3, RFC 7044 section 10.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    /// What is asked for, in lower case, in its order: `id`, `user`, `header`, `session`, `history`, `critical`, `none`.
    pub values: Vec<String>,
}

impl Privacy {
    /// Reads the header.
    pub fn of(headers: &Headers) -> Self {
        // The list is one of semicolons; some write commas.
        let values = headers
            .get_all(&HeaderName::Privacy)
            .flat_map(|text| text.split([';', ',']))
            .map(lex::trim)
            .filter(|value| lex::is_token(value))
            .map(str::to_ascii_lowercase)
            .take(MAX_ENTRIES);
        Self {
            values: values.collect(),
        }
    }

    /// Whether the caller is not to be shown to who is called.
    pub fn hides_caller(&self) -> bool {
        self.values
            .iter()
            .any(|value| matches!(value.as_str(), "id" | "user" | "header"))
    }
}

/// Who sent a call on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// Who.
    pub address: NameAddr,
    /// Why, in the words of RFC 5806: `user-busy`, `no-answer`, `unconditional`, and so on.
    pub reason: Option<String>,
}

fn diversions(headers: &Headers) -> Vec<Diversion> {
    let addresses = headers.readable(&HeaderName::Diversion).into_iter();
    let diversions = addresses.map(|address| Diversion {
        reason: address.params.get("reason").map(str::to_ascii_lowercase),
        address,
    });
    diversions.take(MAX_ENTRIES).collect()
}

/// One target of the call on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The target, without what was attached to its URI.
    pub address: NameAddr,
    /// Its place in the tree of targets: `1.2.1`.
    pub index: Option<String>,
    /// Why the call did not stay there: the status in the `Reason` attached to the URI.
    pub left: Option<u16>,
    /// Why the call came there (RFC 4458).
    pub cause: Option<u16>,
}

fn history(headers: &Headers) -> Vec<HistoryEntry> {
    let addresses = headers.readable(&HeaderName::HistoryInfo).into_iter();
    let entries = addresses.map(|mut address| {
        let attached = address.uri.headers.take().unwrap_or_default();
        let reason = attached.split('&').find_map(|field| {
            let (name, value) = field.split_once('=')?;
            (HeaderName::from(unescape(name).as_str()) == HeaderName::Reason)
                .then(|| unescape(value))
        });
        let cause = address
            .uri
            .params
            .get("cause")
            .and_then(|cause| cause.parse().ok());
        HistoryEntry {
            index: address.params.get("index").map(str::to_owned),
            left: reason.as_deref().and_then(sip_cause),
            cause,
            address,
        }
    });
    entries.take(MAX_ENTRIES).collect()
}

/// The status in a `Reason` value (RFC 3326).
fn sip_cause(reason: &str) -> Option<u16> {
    let (protocol, params) = reason.split_once(';')?;
    lex::trim(protocol)
        .eq_ignore_ascii_case("SIP")
        .then_some(())?;
    let params = Params::parse_header("Reason", &format!(";{params}")).ok()?;
    params.get("cause")?.parse().ok()
}

/// What the history says in the words of `Diversion` (RFC 7544), the latest first.
fn diverted(history: &[HistoryEntry]) -> Vec<Diversion> {
    let followed = history.iter().enumerate().filter_map(|(at, entry)| {
        let came = history.get(at + 1).and_then(|next| next.cause);
        let reason = match came.or(entry.left)? {
            302 => "unconditional",
            408 => "no-answer",
            480 | 487 => "deflection",
            486 => "user-busy",
            503 => "unavailable",
            _ => "unknown",
        };
        Some(Diversion {
            address: entry.address.clone(),
            reason: Some(reason.to_owned()),
        })
    });
    let mut diversions: Vec<Diversion> = followed.collect();
    diversions.reverse();
    diversions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&str, &str)]) -> CallerIdentity {
        let lines = lines.iter();
        let headers = lines.map(|(name, value)| (HeaderName::from(*name), *value));
        CallerIdentity::of(&headers.collect())
    }

    /// Who diverted the call, and why.
    fn diversions(caller: &CallerIdentity) -> Vec<String> {
        let said = caller.diversions.iter();
        said.map(|by| {
            format!(
                "{} {}",
                by.address.bare(),
                by.reason.as_deref().unwrap_or("-")
            )
        })
        .collect()
    }

    #[test]
    fn the_network_outranks_the_caller() {
        let caller = read(&[
            ("From", "\"Bob\" <sip:bob@192.0.2.1>;tag=a"),
            (
                "P-Asserted-Identity",
                "\"Bob B.\" <sip:bob.b@carrier.example>, <tel:+34-600-000-001>",
            ),
        ]);
        assert_eq!(caller.shown().as_deref(), Some("+34600000001"));
        assert_eq!(caller.asserted[0].display.as_deref(), Some("Bob B."));
        assert_eq!(caller.asserted[1].bare(), "tel:+34-600-000-001");
        assert!(!caller.is_withheld());
    }

    #[test]
    fn who_wants_to_be_nobody_is_shown_as_nobody() {
        let asserted = ("P-Asserted-Identity", "<sip:+34600000001@carrier.example>");
        let anonymous = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=a";
        for lines in [
            [("From", anonymous), ("Privacy", "id")],
            [("From", anonymous), ("Privacy", " User ;id;critical")],
            [("From", anonymous), ("Subject", "none")],
            [
                ("From", "<sip:anonymous@192.0.2.1>;tag=a"),
                ("Privacy", "id"),
            ],
        ] {
            let caller = read(&[lines[0], lines[1], asserted]);
            assert!(caller.is_withheld(), "{lines:?}");
            assert_eq!(caller.shown().as_deref(), Some("anonymous"), "{lines:?}");
            assert_eq!(caller.asserted.len(), 1, "we still know who it is");
        }
        let caller = read(&[("From", "<sip:1@x>;tag=a"), ("Privacy", "none"), asserted]);
        assert_eq!(caller.shown().as_deref(), Some("+34600000001"));
    }

    #[test]
    fn diversions_come_the_latest_first() {
        let caller = read(&[
            (
                "Diversion",
                "<sip:+34911000002@x>;reason=User-Busy;counter=1, \"Desk\" <tel:+34911000001>;reason=no-answer",
            ),
            (
                "History-Info",
                "<sip:other@x?Reason=SIP%3Bcause%3D302>;index=1",
            ),
        ]);
        assert_eq!(
            diversions(&caller),
            ["sip:+34911000002@x user-busy", "tel:+34911000001 no-answer"]
        );
    }

    #[test]
    fn without_diversion_the_history_tells() {
        let caller = read(&[(
            "History-Info",
            "<sip:+34911000001@x;user=phone?Reason=SIP%3Bcause%3D486%3Btext%3D%22busy%22>;index=1, \
             <sip:+34911000002@x>;index=1.1, <sip:+34911000003@x;cause=408>;index=1.1.1;mp=1.1",
        )]);
        assert_eq!(
            diversions(&caller),
            [
                "sip:+34911000002@x no-answer",
                "sip:+34911000001@x user-busy"
            ]
        );
        assert_eq!(caller.history[2].index.as_deref(), Some("1.1.1"));
        assert_eq!(caller.history[0].left, Some(486));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let caller = read(&[
            ("From", "<sip:a@x"),
            ("P-Asserted-Identity", "<sip:, <tel:1>"),
            ("Diversion", "<<>>"),
            ("History-Info", "nonsense, <sip:a@x?Reason=;=&%>;index"),
            ("Privacy", ";;\u{1}"),
        ]);
        assert!(caller.from.is_none() && caller.diversions.is_empty());
        assert!(!caller.is_withheld());
        let many = "<sip:a@x>, ".repeat(200);
        assert_eq!(read(&[("Diversion", &many)]).diversions.len(), MAX_ENTRIES);
    }

    #[test]
    fn an_address_for_people_has_no_password_and_parameters() {
        let address =
            NameAddr::parse("\"A\" <sip:a:secret@192.0.2.1:5070;transport=tcp?x=y>;tag=1");
        assert_eq!(address.unwrap().bare(), "sip:a@192.0.2.1:5070");
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(noise in "[<>;?=,%\":@ a-z0-9]{0,80}") {
            let lines = ["P-Asserted-Identity", "Diversion", "History-Info", "Privacy"];
            let caller = read(&lines.map(|name| (name, noise.as_str())));
            let _ = (caller.shown(), caller.is_withheld());
        }
    }
}
