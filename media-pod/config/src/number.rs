//! Telephone numbers as carriers write them, brought to E.164 for comparison.
//!
//! A carrier may send the number that we know as `+34911234567` as `0034911234567`, `34911234567`, `911234567`,
//! `+34-911-234-567;npdi` or `tel:+34911234567`. What it means can be ambiguous (is `34911…` international or national?), so
//! [`candidates`] lists every reading, likeliest first, and the caller takes the first that it knows.

/// Longest number that is looked at, in digits (E.164 allows 15; prefixes such as `00` come on top).
const MAX_DIGITS: usize = 32;

/// Every E.164 reading (`+…`) of `user`, likeliest first; empty if it is not a telephone number.
///
/// `country_code` are the digits of the trunk's country (`34`), used to read national numbers.
pub fn candidates(user: &str, country_code: Option<&str>) -> Vec<String> {
    let user = user.strip_prefix("tel:").unwrap_or(user);
    // Number portability and other parameters follow the number (RFC 4694, RFC 3966 section 3).
    let number = user.split([';', '@']).next().unwrap_or_default();
    let number = number.replace("%2B", "+").replace("%2b", "+");
    let (plus, rest) = match number.trim().strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, number.trim()),
    };
    let mut digits = String::with_capacity(rest.len());
    for c in rest.chars() {
        match c {
            '0'..='9' => digits.push(c),
            // Visual separators, RFC 3966 section 5.1.1.
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return Vec::new(),
        }
    }
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return Vec::new();
    }

    let mut found: Vec<String> = Vec::new();
    let mut add = |text: String| {
        let plausible = text.len() <= 16 && text.len() >= 3 && !text.starts_with("+0");
        if plausible && !found.contains(&text) {
            found.push(text);
        }
    };
    if plus {
        // `+0034…` and `+0…` are written by PBXs that prefix everything with a plus.
        let international = digits.strip_prefix("00").unwrap_or(&digits);
        add(format!("+{international}"));
        if let (Some(country), Some(national)) = (country_code, international.strip_prefix('0')) {
            add(format!("+{country}{national}"));
        }
        return found;
    }
    if let Some(international) = digits.strip_prefix("00") {
        add(format!("+{international}"));
    }
    if let (Some("1"), Some(international)) = (country_code, digits.strip_prefix("011")) {
        add(format!("+{international}"));
    }
    let national_first = country_code.is_some_and(|country| !digits.starts_with(country));
    let national = country_code.map(|country| {
        let trunk_prefix_removed = digits
            .strip_prefix('0')
            .map(|rest| format!("+{country}{rest}"));
        (format!("+{country}{digits}"), trunk_prefix_removed)
    });
    if !national_first {
        add(format!("+{digits}"));
    }
    if let Some((whole, stripped)) = national {
        // Only some countries keep the 0 (Italy), so both readings count.
        if let Some(stripped) = stripped {
            add(stripped);
        }
        add(whole);
    }
    if national_first {
        add(format!("+{digits}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_spelling_of_one_number() {
        for spelling in [
            "+34911234567",
            "0034911234567",
            "34911234567",
            "911234567",
            "+34-911-234-567;npdi",
            "tel:+34911234567",
            "%2B34911234567",
            "+0034911234567",
            "(911) 234.567",
        ] {
            assert!(
                candidates(spelling, Some("34")).contains(&"+34911234567".to_owned()),
                "{spelling}: {:?}",
                candidates(spelling, Some("34"))
            );
        }
    }

    #[test]
    fn reads_national_numbers_with_a_trunk_prefix() {
        assert_eq!(candidates("02079460000", Some("44"))[0], "+442079460000");
    }

    #[test]
    fn reads_the_north_american_international_prefix() {
        assert!(candidates("01134911234567", Some("1")).contains(&"+34911234567".to_owned()));
    }

    #[test]
    fn needs_no_country_for_international_forms() {
        assert_eq!(candidates("34911234567", None), ["+34911234567"]);
        assert_eq!(candidates("0034911234567", None)[0], "+34911234567");
    }

    #[test]
    fn takes_names_for_no_numbers() {
        for user in ["", "+", "alice", "agent_sales", "1234x", "+34 abc"] {
            assert!(candidates(user, Some("34")).is_empty(), "{user}");
        }
    }

    proptest! {
        #[test]
        fn every_reading_is_e164(user in ".{0,40}", country in proptest::option::of("[1-9][0-9]{0,2}")) {
            for text in candidates(&user, country.as_deref()) {
                prop_assert!(text.starts_with('+') && text.len() <= 16);
                prop_assert!(text[1..].bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }
}
