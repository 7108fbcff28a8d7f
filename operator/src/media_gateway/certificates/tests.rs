use super::*;
use ringwire_config::Secret;
use ringwire_crds::{MediaGateway, MediaGatewaySpec};

fn gateway(uid: &str) -> MediaGateway {
    let mut gateway = MediaGateway::new("main", MediaGatewaySpec::default());
    gateway.metadata.namespace = Some("voice".into());
    gateway.metadata.uid = Some(uid.into());
    gateway
}

/// The two Secrets as an API server would keep them.
struct Stored {
    ca: Lookup,
    control: Lookup,
    clients: Clients,
}

fn stored(child: &Child) -> Lookup {
    let meta = &child.body["metadata"];
    let time = |key: &str| {
        let text = meta["annotations"][key].as_str();
        text.map(|text| text.parse().unwrap())
    };
    let data: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(child.body.clone()).unwrap();
    Lookup::Present(Arc::new(Fetched {
        resource_version: "1".into(),
        uid: "secret".into(),
        made_for: Some("main".into()),
        owner: meta["ownerReferences"][0]["uid"].as_str().map(Into::into),
        renew_after: time(RENEW_AFTER),
        rotate_after: time(ROTATE_AFTER),
        data: data
            .data
            .unwrap()
            .into_iter()
            .map(|(k, v)| (k, Secret::new(String::from_utf8(v.0).unwrap())))
            .collect(),
    }))
}

fn text(lookup: &Lookup, key: &str) -> Option<String> {
    match lookup {
        Lookup::Present(fetched) => fetched.data.get(key).map(|value| value.expose().to_owned()),
        _ => None,
    }
}

impl Stored {
    fn new() -> Self {
        Self {
            ca: Lookup::Absent,
            control: Lookup::Absent,
            clients: Clients::default(),
        }
    }

    /// Writes what is due until nothing is; says what was written.
    fn settle(&mut self, uid: &str, now: Timestamp) -> Vec<String> {
        let gateway = gateway(uid);
        let valid = ValidGateway::new(&gateway).unwrap();
        let mut written = Vec::new();
        loop {
            let checked = check(&valid, &self.ca, &self.control, &mut self.clients, now).unwrap();
            let (how, child) = match checked.write {
                None => return written,
                Some(Write::Create(child)) => ("create", child),
                Some(Write::Replace { child, .. }) => ("replace", child),
            };
            written.push(format!("{how} {}", child.key.id.name));
            let slot = if child.key.id.name.ends_with("-ca") {
                &mut self.ca
            } else {
                &mut self.control
            };
            *slot = stored(&child);
            assert!(written.len() < 5, "never settles: {written:?}");
        }
    }
}

const DAY: i64 = 86_400;

fn day(days: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + days * DAY).unwrap()
}

#[test]
fn makes_both_secrets_once() {
    let mut stored = Stored::new();
    assert_eq!(
        stored.settle("1", day(0)),
        ["create main-control-ca", "create main-control"]
    );
    assert_eq!(stored.settle("1", day(1)), [""; 0]);
    let gateway = gateway("1");
    let valid = ValidGateway::new(&gateway).unwrap();
    let control = check(
        &valid,
        &stored.ca,
        &stored.control,
        &mut stored.clients,
        day(1),
    )
    .unwrap();
    assert_eq!(control.keys.unwrap().tokens.len(), 1);
    assert!(control.client.is_some());
}

/// The pods' keys: those that make tokens, the one that makes contact users.
fn keys(stored: &Stored) -> (Vec<TokenKey>, TokenKey) {
    let tokens = text(&stored.control, TOKEN_KEYS).unwrap();
    let contacts = text(&stored.control, CONTACT_KEY).unwrap();
    (
        serde_json::from_str(&tokens).unwrap(),
        serde_json::from_str(&contacts).unwrap(),
    )
}

#[test]
fn renews_the_pods_certificate_two_thirds_into_its_year_and_keeps_the_token_keys() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    stored.settle("1", day(240));
    let (before, certificate) = (keys(&stored), text(&stored.control, TLS_CRT));
    let soon = day(240) + jiff::SignedDuration::from_mins(30);
    assert_eq!(stored.settle("1", soon), [""; 0]);
    stored.settle("1", day(241));
    let rotated = keys(&stored);
    assert_eq!(stored.settle("1", day(250)), ["replace main-control"]);
    assert_eq!(keys(&stored), rotated);
    assert_ne!(rotated, before);
    assert_ne!(text(&stored.control, TLS_CRT), certificate);
}

#[test]
fn token_keys_are_rotated_in_two_steps_and_nothing_else_changes() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    let certificate = text(&stored.control, TLS_CRT);
    let (first, contacts) = keys(&stored);
    assert_eq!(stored.settle("1", day(29)), [""; 0]);
    assert_eq!(stored.settle("1", day(30)), ["replace main-control"]);
    let (known, _) = keys(&stored);
    assert!(known.len() == 2 && known[0] == first[0]);
    let hour = day(30) + jiff::SignedDuration::from_hours(1);
    let early = hour - jiff::SignedDuration::from_secs(5);
    assert_eq!(stored.settle("1", early), [""; 0]);
    assert_eq!(stored.settle("1", hour), ["replace main-control"]);
    let (signing, _) = keys(&stored);
    assert_eq!(signing, [known[1].clone(), known[0].clone()]);
    assert_eq!(keys(&stored).1, contacts);
    assert_eq!(text(&stored.control, TLS_CRT), certificate);
    assert_eq!(stored.settle("1", day(60)), [""; 0]);
}

#[test]
fn a_secret_from_before_there_was_a_rotation_keeps_its_contact_users() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    let (tokens, _) = keys(&stored);
    let Lookup::Present(fetched) = &stored.control else {
        panic!()
    };
    let mut data = fetched.data.clone();
    data.remove(CONTACT_KEY);
    stored.control = Lookup::Present(Arc::new(Fetched {
        resource_version: "2".into(),
        uid: "secret".into(),
        made_for: Some("main".into()),
        owner: Some("1".into()),
        renew_after: fetched.renew_after,
        rotate_after: None,
        data,
    }));
    assert_eq!(stored.settle("1", day(1)), ["replace main-control"]);
    let (rotated, contacts) = keys(&stored);
    assert_eq!((&rotated[0], &contacts), (&tokens[0], &tokens[0]));
    assert_eq!(rotated.len(), 2);
}

#[test]
fn a_new_authority_is_trusted_beside_the_old() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    let old = text(&stored.ca, CA_CRT).unwrap();
    assert_eq!(
        stored.settle("1", day(2500)),
        ["replace main-control-ca", "replace main-control"]
    );
    let trusted = text(&stored.control, CA_CRT).unwrap();
    assert!(trusted.contains(&old));
    assert!(trusted.starts_with(&text(&stored.ca, CA_CRT).unwrap()));
}

#[test]
fn damaged_secrets_are_made_anew() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    let Lookup::Present(fetched) = &stored.ca else {
        panic!()
    };
    let mut data = fetched.data.clone();
    data.insert(CA_KEY.to_owned(), Secret::new("rubbish"));
    let renew_after = fetched.renew_after;
    stored.ca = Lookup::Present(Arc::new(Fetched {
        resource_version: "2".into(),
        uid: "secret".into(),
        made_for: Some("main".into()),
        owner: Some("1".into()),
        renew_after,
        rotate_after: None,
        data,
    }));
    stored.clients = Clients::default();
    assert_eq!(
        stored.settle("1", day(0)),
        ["replace main-control-ca", "replace main-control"]
    );
}

#[test]
fn a_gateway_made_anew_takes_over_the_secrets_of_its_predecessor() {
    let mut stored = Stored::new();
    stored.settle("1", day(0));
    let before = (text(&stored.ca, CA_CRT), keys(&stored));
    assert_eq!(
        stored.settle("2", day(1)),
        ["replace main-control-ca", "replace main-control"]
    );
    assert_eq!((text(&stored.ca, CA_CRT), keys(&stored)), before);
}

#[test]
fn a_secret_that_is_not_ours_is_left_alone_and_named() {
    let mut stored = Stored::new();
    let fetched = Fetched {
        resource_version: "2".into(),
        uid: "secret".into(),
        made_for: None,
        owner: None,
        renew_after: None,
        rotate_after: None,
        data: BTreeMap::new(),
    };
    stored.ca = Lookup::Present(Arc::new(fetched));
    let gateway = gateway("1");
    let valid = ValidGateway::new(&gateway).unwrap();
    let control = check(
        &valid,
        &stored.ca,
        &stored.control,
        &mut stored.clients,
        day(0),
    )
    .unwrap();
    assert!(control.write.is_none());
    assert_eq!(
        control.foreign,
        Some(ObjectRef::new("voice", "main-control-ca"))
    );
}
