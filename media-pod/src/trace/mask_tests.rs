//! What is masked, and that nothing of a secret gets by.

use proptest::prelude::*;
use ringwire_config::token::{Incarnation, TokenKey};
use ringwire_sip::message::parse_datagram;

use super::mask::mask;

fn masked(text: &str) -> String {
    String::from_utf8(mask(text.as_bytes())).unwrap()
}

const INVITE: &str = "INVITE sip:+34911234567@192.0.2.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 203.0.113.5:5060;branch=z9hG4bK776asdhds\r\n\
    From: \"Bob\" <sip:+34600111222@example.com>;tag=1928301774\r\n\
    To: <sip:+34911234567@example.com>\r\n\
    Call-ID: a84b4c76e66710@pc33.example.com\r\n\
    CSeq: 314159 INVITE\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 91\r\n\
    \r\n\
    v=0\r\no=- 1 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

#[test]
fn leaves_a_message_without_secrets_as_it_is() {
    assert_eq!(masked(INVITE), INVITE);
    let challenge = "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"example.com\", \
                     nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"\r\n\r\n";
    assert_eq!(masked(challenge), challenge);
}

#[test]
fn keeps_only_the_scheme_of_credentials() {
    for (header, shown) in [
        (
            "Authorization: Digest username=\"trunk1\", response=\"6629fae49393a05397450978507c4ef1\"",
            "Authorization: Digest ***",
        ),
        (
            "proxy-authorization:Digest username=\"x\"",
            "proxy-authorization: Digest ***",
        ),
        ("Authorization : c2VjcmV0", "Authorization : ***"),
        ("Authorization: Digestive biscuits", "Authorization: ***"),
        (
            "Authorization: Digest a=\"1\",\r\n response=\"2\",\r\n\tcnonce=\"3\"",
            "Authorization: Digest ***\r\n ***\r\n ***",
        ),
        ("X-Telnyx-Token: abc", "X-Telnyx-Token: ***"),
        (
            "Authentication-Info: rspauth=\"6629fae4\"",
            "Authentication-Info: ***",
        ),
    ] {
        assert_eq!(
            masked(&format!(
                "REGISTER sip:x SIP/2.0\r\n{header}\r\nTo: <sip:a@b>\r\n\r\n"
            )),
            format!("REGISTER sip:x SIP/2.0\r\n{shown}\r\nTo: <sip:a@b>\r\n\r\n")
        );
    }
}

#[test]
fn hides_media_keys_and_keeps_the_length_of_the_body() {
    let head = "SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\n\r\n";
    for (line, shown) in [
        (
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 ",
        ),
        ("a=crypto:inline:WVNfX19zZW1jdGwgKCkgewk", "a=crypto:"),
        ("a=crypto:1 WVNfX19zZW1jdGwgKCkgewk", "a=crypto:"),
        (
            "A=CRYPTO:7 AEAD_AES_128_GCM inline:WVNfX19z",
            "A=CRYPTO:7 AEAD_AES_128_GCM ",
        ),
        ("a=ice-pwd:asd88fgpdd777uzjYhagZg", "a=ice-pwd:"),
        ("k=base64:c2VjcmV0", "k="),
        (
            "a=key-mgmt:mikey AQAFgM0XflABAAAAAAAAAAAAAAsAyO",
            "a=key-mgmt:",
        ),
    ] {
        let expected = format!(
            "{head}v=0\r\n{shown}{}\r\n",
            "*".repeat(line.len() - shown.len())
        );
        assert_eq!(masked(&format!("{head}v=0\r\n{line}\r\n")), expected);
    }
    let line = "a=ice-ufrag:9uB6\r\na=fingerprint:sha-256 19:E2:1C:3B\r\n";
    assert_eq!(masked(&format!("{head}{line}")), format!("{head}{line}"));
}

#[test]
fn hides_the_digits_of_dtmf_but_not_their_duration() {
    let relay = "INFO sip:a@b SIP/2.0\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal= 5\r\nDuration=160\r\n";
    assert_eq!(
        masked(relay),
        "INFO sip:a@b SIP/2.0\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=??\r\nDuration=160\r\n"
    );
    for head in [
        "INFO sip:a@b SIP/2.0\r\nContent-Type: application/dtmf\r\n",
        "INFO sip:a@b SIP/2.0\r\n",
        "NOTIFY sip:a@b SIP/2.0\r\nc:\r\n application/kpml-response+xml\r\n",
        "\r\n\r\nINFO sip:a@b SIP/2.0\nc: text/plain\n",
    ] {
        let text = masked(&format!("{head}\r\n<digits=\"4711\">"));
        assert!(!text.contains("4711"), "{text}");
    }
}

#[test]
fn shortens_our_tokens_wherever_they_stand_but_not_a_call_id() {
    let key = TokenKey::from_bytes(1, [7; 32]);
    let (contact, user) = (
        key.sign(Incarnation(77)),
        key.derive("contact-user", "default/trunk"),
    );
    let text = masked(&format!(
        "INVITE sip:{user}@192.0.2.1 SIP/2.0\r\nContact: <sip:{contact}@192.0.2.1:5060>\r\n\
         To: <sip:a@b>;tag={contact}.x9\r\nRoute: <sip:{}@b;lr>\r\nCall-ID: abcdefghijklmnopqrstuvwxyz@b\r\n\r\n",
        user.to_uppercase()
    ));
    assert_eq!(
        text,
        format!(
            "INVITE sip:{}***@192.0.2.1 SIP/2.0\r\nContact: <sip:{}***@192.0.2.1:5060>\r\n\
             To: <sip:a@b>;tag={}***.x9\r\nRoute: <sip:{}***@b;lr>\r\nCall-ID: abcdefghijklmnopqrstuvwxyz@b\r\n\r\n",
            &user[..6],
            &contact[..6],
            &contact[..6],
            user[..6].to_uppercase()
        )
    );
}

#[test]
fn hides_passwords_in_uris_and_credentials_in_their_headers() {
    assert_eq!(
        masked(
            "INVITE sip:alice:pa55;word@b.example:5060 SIP/2.0\r\nRefer-To: <sips:c:x@d?Authorization=Digest%20abc&Subject=y>\r\n"
        ),
        "INVITE sip:alice:***@b.example:5060 SIP/2.0\r\nRefer-To: <sips:c:*@d?Authorization=***&Subject=y>\r\n"
    );
}

#[test]
fn a_masked_message_can_still_be_read() {
    let text = format!(
        "{}a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwg\r\n",
        INVITE
            .replace("Length: 91", "Length: 150")
            .replace("To:", "Authorization: Digest x=\"y\"\r\nTo:")
    );
    let text = text.replace(
        "150",
        &(text.split_once("\r\n\r\n").unwrap().1.len()).to_string(),
    );
    let before = parse_datagram(text.as_bytes()).unwrap();
    let after = parse_datagram(&mask(text.as_bytes())).unwrap();
    assert_eq!(before.body().len(), after.body().len());
    assert_eq!(before.headers().len(), after.headers().len());
}

/// A secret of bytes that stand nowhere else in the messages below, so that one that survives is seen.
fn secret() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[QJ]{1,60}").unwrap()
}

/// Text without the bytes of [`secret`], line ends and what ends a value.
fn filler() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-ik-pr-zA-IK-PR-Z0-9=/+._-]{0,40}").unwrap()
}

fn any_case(text: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<bool>(), text.len()).prop_map(move |upper| {
        let pick = |(c, upper): (char, bool)| {
            if upper {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        };
        text.chars().zip(upper).map(pick).collect()
    })
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("\r\n"), Just("\n"), Just("\r")]
}

/// A line (or two, folded) with a secret in it.
fn secret_line() -> impl Strategy<Value = String> {
    let credentials = prop_oneof![
        any_case("Authorization"),
        any_case("Proxy-Authorization"),
        any_case("Authentication-Info")
    ];
    let header = (
        credentials,
        "[ \t]{0,3}",
        prop_oneof![Just("Digest "), Just("Basic "), Just("")],
        filler(),
        secret(),
        filler(),
    )
        .prop_map(|(name, space, scheme, before, secret, after)| {
            format!("{name}{space}:{scheme}{before}{secret}{after}")
        });
    let folded = (
        any_case("Authorization"),
        filler(),
        line_end(),
        "[ \t]{1,3}",
        secret(),
    )
        .prop_map(|(name, value, end, indent, secret)| {
            format!("{name}: Digest {value}{end}{indent}x=\"{secret}\"")
        });
    let crypto = (
        "[ \t]{0,2}",
        any_case("a=crypto:"),
        prop_oneof![Just("1 AES_CM_128_HMAC_SHA1_80 "), Just("1 "), Just("")],
        any::<bool>(),
        secret(),
        "(\\|2\\^20\\|1:4)?",
    )
        .prop_map(|(indent, name, suite, inline, secret, rest)| {
            format!(
                "{indent}{name}{suite}{}{secret}{rest}",
                if inline { "inline:" } else { "" }
            )
        });
    let password = (any_case("a=ice-pwd:"), secret()).prop_map(|(name, secret)| name + &secret);
    let key = (any_case("k="), filler(), secret())
        .prop_map(|(name, kind, secret)| format!("{name}{kind}:{secret}"));
    let uri = ("[a-ik-p]{1,9}", secret(), filler())
        .prop_map(|(user, secret, host)| format!("Contact: <sip:{user}:{secret}@{host}>"));
    let inline = (filler(), any_case("inline:"), secret())
        .prop_map(|(before, name, secret)| format!("X: {before} {name}{secret}"));
    prop_oneof![header, folded, crypto, password, key, uri, inline]
}

/// Lines without secrets, head or body.
fn plain_line() -> impl Strategy<Value = String> {
    prop_oneof![
        ("[A-IK-P][a-ik-p-]{1,12}", filler()).prop_map(|(name, value)| format!("{name}: {value}")),
        ("[a-ik-p]", filler()).prop_map(|(kind, value)| format!("{kind}={value}")),
        Just(String::new()),
    ]
}

fn message() -> impl Strategy<Value = String> {
    let line = (
        prop_oneof![2 => plain_line(), 1 => secret_line()],
        line_end(),
    )
        .prop_map(|(line, end)| line + end);
    proptest::collection::vec(line, 0..20)
        .prop_map(|lines| "INVITE sip:a@b SIP/2.0\r\n".to_owned() + &lines.concat())
}

fn is_of_a_secret(byte: u8) -> bool {
    b"QJqj".contains(&byte)
}

proptest! {
    #[test]
    fn no_byte_of_a_secret_survives(text in message()) {
        let shown = masked(&text);
        prop_assert!(!shown.bytes().any(is_of_a_secret), "{text:?} became {shown:?}");
    }

    #[test]
    fn no_dialled_digit_survives(
        digits in "[QJ]{1,8}", name in any_case("Signal"), space in " {0,2}", end in line_end(), more in filler(),
    ) {
        let text = format!("INFO sip:a@b SIP/2.0{end}{end}{name}{space}={space}{digits}{end}{more}{digits}{end}");
        let shown = masked(&text);
        prop_assert!(!shown.bytes().any(is_of_a_secret), "{text:?} became {shown:?}");
    }

    #[test]
    fn of_a_token_only_six_characters_survive(
        token in "[qj]{26,40}", escaped in any::<bool>(), before in "[<>@;=:., 01_-]{0,5}", after in "[<>@;=:., 01_-]{0,5}",
    ) {
        let escapes: Vec<String> = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let written = if escaped { escapes.concat() } else { token.clone() };
        let shown = masked(&format!("OPTIONS sip:a SIP/2.0\r\nTo: {before}{written}{after}\r\n"));
        let plain = shown.bytes().filter(|&byte| is_of_a_secret(byte)).count();
        let escapes = shown.matches('%').count();
        prop_assert_eq!(plain + escapes, 6, "{}", shown);
    }

    #[test]
    fn masking_twice_is_masking_once_and_any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let once = mask(&bytes);
        prop_assert_eq!(mask(&once), once);
    }

    #[test]
    fn a_body_keeps_its_length(text in message()) {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n\r\n{text}");
        prop_assert_eq!(masked(&text).len(), text.len());
    }
}
