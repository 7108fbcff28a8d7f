//! Digest authentication against the examples of the RFCs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringwire_sip::digest::{Algorithm, Challenge, Credentials, DigestClient, DigestError};
use ringwire_sip::message::{HeaderName, Headers, Method, Response};

fn response(headers: &[(HeaderName, &str)]) -> Response {
    let mut all = Headers::new();
    for (name, value) in headers {
        all.push(name.clone(), *value);
    }
    Response {
        status: 401,
        reason: String::new(),
        headers: all,
        body: Vec::new(),
    }
}

fn challenges(value: &str) -> Vec<Challenge> {
    Challenge::from_response(&response(&[(HeaderName::WwwAuthenticate, value)]))
}

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
        realm: None,
    }
}

fn get(challenges: &[Challenge], credentials: &Credentials, uri: &str, cnonce: &str) -> String {
    let method = Method::from("GET");
    let mut answers = DigestClient::new()
        .answer(
            challenges,
            credentials,
            &method,
            uri,
            b"",
            cnonce.to_owned(),
        )
        .unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0).1
}

#[test]
fn rfc_2617_section_3_5() {
    let asked = challenges(
        r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#,
    );
    let text = get(
        &asked,
        &credentials("Mufasa", "Circle Of Life"),
        "/dir/index.html",
        "0a4f113b",
    );
    assert!(
        text.contains(r#"response="6629fae49393a05397450978507c4ef1""#),
        "{text}"
    );
    assert!(
        text.contains(r#"opaque="5ccc069c403ebaf9f0171e9517f40e41""#)
            && text.contains("qop=auth, nc=00000001")
    );
}

#[test]
fn rfc_7616_section_3_9_1_md5_and_sha_256() {
    let one = |algorithm: &str| {
        format!(
            r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
        )
    };
    let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
    let who = credentials("Mufasa", "Circle of Life");
    let md5 = get(&challenges(&one("MD5")), &who, "/dir/index.html", cnonce);
    assert!(
        md5.contains(r#"response="8ca523f5e9506fed4657c9700eebdbec""#),
        "{md5}"
    );
    let sha = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
    // Both in one header: the stronger one is answered.
    let both = challenges(&format!("{}, {}", one("MD5"), one("sha-256")));
    assert_eq!(both.len(), 2);
    let text = get(&both, &who, "/dir/index.html", cnonce);
    assert!(
        text.contains(&format!("response=\"{sha}\"")) && text.contains("algorithm=SHA-256"),
        "{text}"
    );
}

#[test]
fn rfc_7616_section_3_9_2_sha_512_256_as_corrected_by_erratum_4897() {
    let asked = challenges(
        r#"Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS""#,
    );
    let who = credentials("J\u{e4}s\u{f8}n Doe", "Secret, or not?");
    let text = get(
        &asked,
        &who,
        "/doe.json",
        "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    );
    assert!(
        text.contains(
            r#"response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5""#
        ),
        "{text}"
    );
}

#[test]
fn without_qop_the_form_of_rfc_2069_is_used() {
    let text = get(
        &challenges(r#"Digest realm="r", nonce="n""#),
        &credentials("u", "p"),
        "sip:r",
        "c",
    );
    assert!(
        !text.contains("nc=") && !text.contains("cnonce") && !text.contains("qop"),
        "{text}"
    );
}

#[test]
fn uses_of_a_nonce_are_counted() {
    let asked =
        challenges(r#"Digest realm="r", nonce="n", qop="auth-int,auth", algorithm=MD5-sess"#);
    let mut client = DigestClient::new();
    let mut answer = |nonce: &str| {
        let asked: Vec<_> = asked
            .iter()
            .map(|one| Challenge {
                nonce: nonce.to_owned(),
                ..one.clone()
            })
            .collect();
        client
            .answer(
                &asked,
                &credentials("u", "p"),
                &Method::REGISTER,
                "sip:r",
                b"",
                "c".to_owned(),
            )
            .unwrap()
            .remove(0)
            .1
    };
    assert!(answer("n").contains("nc=00000001"));
    assert!(answer("n").contains("nc=00000002"));
    assert!(answer("new").contains("nc=00000001"));
    for index in 0..100 {
        answer(&format!("{index}"));
    }
    assert!(
        answer("n").contains("nc=00000001"),
        "old nonces are forgotten"
    );
}

#[test]
fn a_body_is_covered_where_only_auth_int_is_offered() {
    let asked = challenges(r#"Digest realm="r", nonce="n", qop="auth-int""#);
    let answer = |body: &[u8]| {
        let who = credentials("u", "p");
        DigestClient::new()
            .answer(&asked, &who, &Method::INVITE, "sip:r", body, "c".to_owned())
            .unwrap()
            .remove(0)
            .1
    };
    assert!(answer(b"a").contains("qop=auth-int"));
    assert_ne!(answer(b"a"), answer(b"b"));
}

#[test]
fn proxy_and_server_are_answered_each_in_its_header() {
    let asked = Challenge::from_response(&response(&[
        (
            HeaderName::ProxyAuthenticate,
            r#"Basic realm="x", Digest realm="a,b", nonce="\"1\"", stale=TRUE"#,
        ),
        (
            HeaderName::WwwAuthenticate,
            r#"Digest nonce=2 , realm=b,algorithm="SHA-256",domain="sip:b""#,
        ),
        (
            HeaderName::WwwAuthenticate,
            r#"Digest nonce="3", realm="b", algorithm=NEW"#,
        ),
        (HeaderName::WwwAuthenticate, r"Digest nonce="),
    ]));
    assert_eq!(asked.len(), 3, "{asked:?}");
    let proxy = asked.iter().find(|one| one.proxy).unwrap();
    assert_eq!(
        (proxy.realm.as_str(), proxy.nonce.as_str(), proxy.stale),
        ("a,b", "\"1\"", true)
    );
    let answers = DigestClient::new()
        .answer(
            &asked,
            &credentials("u\"x", "p"),
            &Method::INVITE,
            "sip:r",
            b"",
            "c".to_owned(),
        )
        .unwrap();
    let names: Vec<_> = answers.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(
        names,
        [HeaderName::Authorization, HeaderName::ProxyAuthorization]
    );
    assert!(
        answers[1].1.contains(r#"username="u\"x""#) && answers[1].1.contains(r#"nonce="\"1\"""#)
    );
}

#[test]
fn what_cannot_be_answered_is_said() {
    let answer = |asked: &[Challenge], realm: Option<&str>| {
        let who = Credentials {
            realm: realm.map(str::to_owned),
            ..credentials("u", "secret")
        };
        DigestClient::new()
            .answer(asked, &who, &Method::INVITE, "sip:r", b"", "c".to_owned())
            .unwrap_err()
    };
    assert_eq!(
        answer(&challenges("Basic realm=\"x\""), None),
        DigestError::NoChallenge
    );
    let new = challenges(r#"Digest realm="r", nonce="n", algorithm=NEW"#);
    assert_eq!(new[0].algorithm, Algorithm::Other("NEW".to_owned()));
    assert_eq!(answer(&new, None), DigestError::Algorithm("NEW".to_owned()));
    let qop = challenges(r#"Digest realm="r", nonce="n", qop="new""#);
    assert_eq!(answer(&qop, None), DigestError::Qop("new".to_owned()));
    assert!(matches!(
        answer(&qop, Some("other")),
        DigestError::Realm { .. }
    ));
    assert!(!format!("{:?}", credentials("u", "secret")).contains("secret"));
}
