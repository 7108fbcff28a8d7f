//! Which messages somebody wants to see.

use ringwire_config::ObjectRef;
use serde::{Deserialize, Serialize};

/// Fewer digits are no number that could be the end of another.
const LOCAL_DIGITS: usize = 6;

/// Which messages somebody wants to see: those that every given part fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// A Call-ID, or how it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// A SipProvider: `name`, or `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// A number that calls or is called, in any notation; or a PhoneNumber as `name` or `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
}

/// What is known of a message's call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its provider.
    pub provider: Option<ObjectRef>,
    /// The PhoneNumber.
    pub number: Option<ObjectRef>,
    /// The number of ours in E.164.
    pub called: Option<String>,
    /// User parts of Request-URI, To and From.
    pub users: Vec<String>,
}

impl Filter {
    /// Whether a message of this Call-ID and call is wanted.
    pub fn wants(&self, call_id: &str, facts: &Facts) -> bool {
        let Self {
            call,
            provider,
            number,
        } = self;
        let is_object = |wanted: &str, object: &Option<ObjectRef>| {
            object.as_ref().is_some_and(|object| {
                object.name == wanted
                    || wanted.split_once('/').is_some_and(|(namespace, name)| {
                        object.namespace == namespace && object.name == name
                    })
            })
        };
        let is_number = |wanted: &str| {
            is_object(wanted, &facts.number)
                || facts
                    .called
                    .iter()
                    .chain(&facts.users)
                    .any(|user| same_number(wanted, user))
        };
        call.as_ref().is_none_or(|start| call_id.starts_with(start))
            && provider
                .as_ref()
                .is_none_or(|name| is_object(name, &facts.provider))
            && number.as_ref().is_none_or(|number| is_number(number))
    }
}

/// Whether two notations may mean the same number: `+34911234567`, `0034911234567`, `911234567`, `911-234-567`.
fn same_number(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Some(a), Some(b)) = (digits(a), digits(b)) else {
        return false;
    };
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short == long || (short.len() >= LOCAL_DIGITS && long.ends_with(&short))
}

/// The digits of a number, without what stands for "international" or a national prefix.
fn digits(text: &str) -> Option<String> {
    let mut digits = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if digits.is_empty() => {}
            ' ' | '-' | '.' | '(' | ')' | '/' => {}
            // Parameters of a user part, such as `;npdi`.
            ';' => break,
            _ => return None,
        }
    }
    let significant = digits.trim_start_matches('0');
    (!significant.is_empty()).then(|| significant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            provider: Some(ObjectRef::new("voice", "netelip")),
            number: Some(ObjectRef::new("voice", "sales")),
            called: Some("+34911234567".into()),
            users: vec!["600111222".into(), "s".into()],
        }
    }

    fn wants(call: Option<&str>, provider: Option<&str>, number: Option<&str>) -> bool {
        let [call, provider, number] = [call, provider, number].map(|part| part.map(str::to_owned));
        Filter {
            call,
            provider,
            number,
        }
        .wants("abc@host", &facts())
    }

    #[test]
    fn a_filter_without_parts_wants_everything() {
        assert!(wants(None, None, None));
        assert!(Filter::default().wants("", &Facts::default()));
    }

    #[test]
    fn every_part_has_to_fit() {
        assert!(wants(Some("abc"), Some("netelip"), Some("+34911234567")));
        assert!(!wants(Some("abd"), Some("netelip"), None));
        assert!(!wants(Some("abc"), Some("zadarma"), None));
        assert!(wants(None, Some("voice/netelip"), None));
        assert!(!wants(None, Some("other/netelip"), None));
        let strange = Filter {
            provider: Some("netelip".into()),
            ..Filter::default()
        };
        assert!(
            !strange.wants("abc", &Facts::default()),
            "whose it is is not known"
        );
    }

    #[test]
    fn a_number_goes_by_its_object_and_by_any_notation_of_who_calls_and_is_called() {
        for number in [
            "sales",
            "voice/sales",
            "34911234567",
            "0034911234567",
            "911 234 567",
            "+34600111222",
            "s",
        ] {
            assert!(wants(None, None, Some(number)), "{number}");
        }
        for number in ["34567", "+34911234568", "other", "", "000", "+1911234567"] {
            assert!(!wants(None, None, Some(number)), "{number}");
        }
    }
}
