//! What the agent and the call record are told of the caller.
//!
//! The carrier is trusted: its calls were let in by the registrar. So the asserted identity is passed on even where the caller wants
//! to be unknown (RFC 3325 section 7: it is our user's to keep to itself), with `privacy` beside it; only `caller_id` is what may be said
//! aloud.

use std::collections::BTreeMap;

use ringwire_sip::message::{CallerIdentity, NameAddr};

use crate::record::CallRecord;

/// The longest value, in characters.
const MAX_CHARS: usize = 1_024;

/// The parameters that an agent gets of each call, by name. Values that are not known are left out, but for `caller_id`.
pub fn parameters(identity: &CallerIdentity, called: &str) -> BTreeMap<String, String> {
    let asserted = identity.asserted.first();
    let diversion = identity.diversions.first();
    let bare = |address: Option<&NameAddr>| address.map(NameAddr::bare);
    let display = |address: Option<&NameAddr>| address.and_then(|address| address.display.clone());
    let from = identity.from.as_ref();
    let history = identity.history.iter().map(|entry| entry.address.bare());
    let values = [
        ("caller_id", Some(identity.shown().unwrap_or_default())),
        ("called_number", Some(called.to_owned())),
        ("from_display_name", display(from)),
        ("from_uri", bare(from)),
        ("asserted_identity", bare(asserted)),
        ("asserted_display_name", display(asserted)),
        ("privacy", privacy(identity)),
        (
            "diversion",
            bare(diversion.map(|diversion| &diversion.address)),
        ),
        (
            "diversion_reason",
            diversion.and_then(|diversion| diversion.reason.clone()),
        ),
        ("history_info", Some(history.collect::<Vec<_>>().join(", "))),
    ];
    let told = values.into_iter().filter_map(|(name, value)| {
        let value: String = value?.chars().take(MAX_CHARS).collect();
        let wanted = name == "caller_id" || !value.is_empty();
        wanted.then(|| (name.to_owned(), value))
    });
    told.collect()
}

/// Writes it into the record.
pub fn note(identity: &CallerIdentity, record: &mut CallRecord) {
    let from = identity.from.as_ref();
    record.from = from
        .and_then(|from| from.uri.user_unescaped())
        .unwrap_or_default();
    record.from_display_name = from.and_then(|from| from.display.clone());
    record.asserted_identity = identity.asserted.first().map(NameAddr::bare);
    record.privacy = privacy(identity);
    let diversion = identity.diversions.first();
    record.diversion = diversion.map(|diversion| diversion.address.bare());
}

/// What the caller wants withheld; `none` means nothing.
fn privacy(identity: &CallerIdentity) -> Option<String> {
    let mut values = identity.privacy.values.clone();
    values.retain(|value| value != "none");
    (!values.is_empty()).then(|| values.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_sip::message::HeaderName;

    fn read(lines: &[(&str, &str)]) -> CallerIdentity {
        let lines = lines.iter();
        let headers = lines.map(|(name, value)| (HeaderName::from(*name), *value));
        CallerIdentity::of(&headers.collect())
    }

    #[test]
    fn an_ordinary_caller_has_a_number_a_name_and_a_uri() {
        let identity = read(&[(
            "From",
            "\"Bob\" <sip:+34600000001@192.0.2.1;user=phone>;tag=a",
        )]);
        let told = parameters(&identity, "+34911234567");
        let expected = [
            ("called_number", "+34911234567"),
            ("caller_id", "+34600000001"),
            ("from_display_name", "Bob"),
            ("from_uri", "sip:+34600000001@192.0.2.1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(told.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_withheld_caller_is_marked() {
        let identity = read(&[
            (
                "From",
                "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=a",
            ),
            ("P-Asserted-Identity", "<sip:+34600000001@192.0.2.1>"),
            ("Privacy", "id"),
        ]);
        let told = parameters(&identity, "+34911234567");
        assert_eq!(told["caller_id"], "anonymous");
        assert_eq!(told["asserted_identity"], "sip:+34600000001@192.0.2.1");
        assert_eq!(told["privacy"], "id");
        let mut record = CallRecord::default();
        note(&identity, &mut record);
        assert_eq!(record.privacy.as_deref(), Some("id"));
    }

    #[test]
    fn values_are_cut_at_their_limit() {
        let long = format!("\"{}\" <sip:1@x>;tag=a", "é".repeat(5_000));
        let told = parameters(&read(&[("From", &long)]), "");
        assert_eq!(told["from_display_name"].chars().count(), MAX_CHARS);
        assert!(!told.contains_key("called_number"));
    }
}
