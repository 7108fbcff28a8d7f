use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::gateway::{Backend, Front, Host};
use crate::object::{Hiding, SecretData, SipService, sip_tcp_service, sip_udp_service};
use crate::secret::Secret;
use crate::token::{GatewayKeys, TokenKey};

fn settings() -> Settings {
    Settings {
        default_gateway: ObjectRef::new("ringwire", "default"),
        shared_gateway_namespaces: BTreeSet::new(),
        restrict_agent_addresses: true,
        services: true,
    }
}

fn gateway_id() -> ObjectRef {
    ObjectRef::new("ringwire", "default")
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "json! literals read better without &"
)]
fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: serde_json::Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "ringwire.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "voice", "uid": format!("uid-of-{name}")}, "spec": spec,
    }))
    .unwrap()
}

/// One trunk with credentials, one number, one agent, one gateway that serves everyone.
fn world() -> Objects {
    let mut gateway: ringwire_crds::MediaGateway = object(
        "MediaGateway",
        "default",
        json!({"allowedNamespaces": {"from": "All"}}),
    );
    gateway.metadata.namespace = Some("ringwire".into());
    let mut objects = Objects {
        providers: vec![object(
            "SipProvider",
            "trunk",
            json!({"server": "sip.carrier.test", "credentialsSecretRef": {"name": "trunk"}}),
        )],
        numbers: vec![number("main", "+34911234567", "trunk", Some("agent"))],
        agents: vec![object(
            "VoiceAgent",
            "agent",
            json!({"webSocket": {"url": "ws://bot.voice:8080/"}}),
        )],
        gateways: vec![gateway],
        ..Objects::default()
    };
    let credentials = [("username", "trunk1"), ("password", "hunter2\n")];
    objects.secrets.insert(
        ObjectRef::new("voice", "trunk"),
        credentials
            .map(|(key, value)| (key.to_owned(), Secret::new(value)))
            .into(),
    );
    let key = TokenKey::from_bytes(1, [1; 32]);
    objects.keys.insert(gateway_id(), GatewayKeys::single(key));
    objects
}

fn number(
    name: &str,
    e164: &str,
    provider: &str,
    agent: Option<&str>,
) -> ringwire_crds::PhoneNumber {
    let mut spec = json!({"number": e164, "providerRef": {"name": provider}});
    if let Some(agent) = agent {
        spec["agentRef"] = json!({"name": agent});
    }
    object("PhoneNumber", name, spec)
}

fn voice(name: &str) -> ObjectRef {
    ObjectRef::new("voice", name)
}

#[test]
fn tells_the_pods_of_trunk_number_and_agent() {
    let compiled = compile(&world(), &settings());
    let config = &compiled.gateways[&gateway_id()];
    let trunk = &config.providers[&voice("trunk")];
    let registration = trunk.registration.as_ref().unwrap();
    assert_eq!(registration.username, "trunk1");
    assert_eq!(
        registration.password.expose(),
        "hunter2",
        "a trailing line feed is not part of a password"
    );
    assert_eq!(registration.from_domain, "sip.carrier.test");
    assert!(trunk.contact_user_is_secret && trunk.contact_user.len() == 26);
    assert_eq!(trunk.numbers["+34911234567"].agent, Some(voice("agent")));
    assert!(matches!(
        config.agents[&voice("agent")].backend,
        Backend::TwilioWebSocket { .. }
    ));
    assert!(compiled.numbers[&voice("main")].ready.is_yes());
    assert_eq!(compiled.agents[&voice("agent")].numbers, 1);
}

#[test]
fn each_backend_is_told_and_two_are_refused() {
    let mut objects = world();
    let both = json!({"echo": {}, "audioSocket": {"address": "bot.voice:9092"}});
    objects.agents = vec![
        object("VoiceAgent", "echo", json!({"echo": {}})),
        object(
            "VoiceAgent",
            "tcp",
            json!({"audioSocket": {"address": "bot.voice:9092"}}),
        ),
        object("VoiceAgent", "both", both),
    ];
    objects.numbers = ["echo", "tcp", "both"]
        .iter()
        .zip(1..)
        .map(|(agent, last)| number(agent, &format!("+3491123456{last}"), "trunk", Some(agent)))
        .collect();
    let compiled = compile(&objects, &settings());
    let agents = &compiled.gateways[&gateway_id()].agents;
    assert_eq!(agents[&voice("echo")].backend, Backend::Echo);
    assert_eq!(
        agents[&voice("tcp")].backend,
        Backend::AudioSocket {
            address: "bot.voice:9092".to_owned(),
            sample_rate: 8000,
        }
    );
    assert!(!agents.contains_key(&voice("both")));
    let findings = &compiled.agents;
    assert_eq!(
        findings[&voice("tcp")].backend,
        Some(ringwire_crds::BackendKind::AudioSocket)
    );
    let refused = &findings[&voice("both")];
    assert_eq!(
        (refused.backend, refused.ready.reason),
        (None, Reason::InvalidSpec)
    );
}

#[test]
fn a_missing_secret_or_key_is_named_and_heals() {
    let mut objects = world();
    let secret = objects.secrets.remove(&voice("trunk")).unwrap();
    let findings = &compile(&objects, &settings()).providers[&voice("trunk")];
    assert_eq!(findings.credentials.reason, Reason::SecretNotFound);
    assert!(findings.credentials.message.contains("voice/trunk"));

    let without: SecretData = secret
        .clone()
        .into_iter()
        .filter(|(key, _)| key != "password")
        .collect();
    objects.secrets.insert(voice("trunk"), without);
    let findings = &compile(&objects, &settings()).providers[&voice("trunk")];
    assert_eq!(findings.credentials.reason, Reason::SecretKeyMissing);
    assert!(
        findings.credentials.message.contains("\"password\""),
        "{}",
        findings.credentials.message
    );

    objects.secrets.insert(voice("trunk"), secret);
    assert!(
        compile(&objects, &settings()).providers[&voice("trunk")]
            .credentials
            .is_yes()
    );
}

#[test]
fn a_new_password_is_a_new_revision_and_the_contact_stays() {
    let before = compile(&world(), &settings());
    let mut objects = world();
    objects
        .secrets
        .get_mut(&voice("trunk"))
        .unwrap()
        .insert("password".into(), Secret::new("other"));
    let after = compile(&objects, &settings());
    let trunk =
        |compiled: &Compiled| compiled.gateways[&gateway_id()].providers[&voice("trunk")].clone();
    assert_ne!(
        trunk(&before).registration.unwrap().revision,
        trunk(&after).registration.unwrap().revision
    );
    assert_eq!(trunk(&before).contact_user, trunk(&after).contact_user);
}

#[test]
fn a_paused_trunk_is_out_of_service() {
    let mut objects = world();
    objects.providers[0].spec.paused = true;
    let compiled = compile(&objects, &settings());
    assert!(compiled.gateways[&gateway_id()].providers.is_empty());
    let number = &compiled.numbers[&voice("main")];
    assert_eq!(
        (number.ready.holds, number.ready.reason),
        (Holds::True, Reason::Paused)
    );
    assert_eq!(number.state, PhoneNumberState::Inactive);
}

#[cfg(not(any(feature = "amr-wb", feature = "g7221", feature = "ilbc")))]
#[test]
fn codecs_that_were_not_built_in_are_named_and_left_out() {
    use ringwire_crds::Codec;

    let mut objects = world();
    objects.providers[0].spec.codecs = vec![Codec::AmrWb, Codec::PCMA, Codec::Ilbc, Codec::G7221];
    let compiled = compile(&objects, &settings());
    let findings = &compiled.providers[&voice("trunk")];
    let told = findings.missing_codecs.as_ref().unwrap();
    assert_eq!(told.reason, Reason::CodecNotBuilt);
    for part in [
        "AMR-WB (feature amr-wb)",
        "iLBC (feature ilbc)",
        "G7221 (feature g7221)",
        "calls use PCMA",
    ] {
        assert!(told.message.contains(part), "{}", told.message);
    }
    assert!(findings.accepted.is_yes());
    let entries = &compiled.gateways[&gateway_id()].providers;
    assert_eq!(entries[&voice("trunk")].codecs, [Codec::PCMA]);

    objects.providers[0].spec.codecs = vec![Codec::Ilbc];
    let compiled = compile(&objects, &settings());
    let findings = &compiled.providers[&voice("trunk")];
    assert_eq!(findings.accepted.reason, Reason::CodecNotBuilt);
    assert!(compiled.gateways[&gateway_id()].providers.is_empty());

    objects.providers[0].spec.codecs = vec![Codec::G722];
    let compiled = compile(&objects, &settings());
    assert_eq!(compiled.providers[&voice("trunk")].missing_codecs, None);
}

#[test]
fn a_number_without_agent_is_inactive_and_one_with_an_unknown_agent_an_error() {
    let mut objects = world();
    objects.numbers = vec![
        number("none", "+34911111111", "trunk", None),
        number("gone", "+34922222222", "trunk", Some("gone")),
    ];
    let compiled = compile(&objects, &settings());
    let none = &compiled.numbers[&voice("none")];
    assert_eq!(
        (none.state, none.ready.holds),
        (PhoneNumberState::Inactive, Holds::True)
    );
    let gone = &compiled.numbers[&voice("gone")];
    assert_eq!(
        (gone.state, gone.ready.reason),
        (PhoneNumberState::Error, Reason::AgentNotFound)
    );
    let numbers = &compiled.gateways[&gateway_id()].providers[&voice("trunk")].numbers;
    assert!(
        numbers.values().all(|number| number.agent.is_none()),
        "both are known, and refused with 480"
    );
}

#[test]
fn the_older_object_keeps_a_number() {
    let mut objects = world();
    let mut younger = number("a-younger", "+34911234567", "trunk", Some("agent"));
    younger.metadata.creation_timestamp = Some(Time("2026-01-02T00:00:00Z".parse().unwrap()));
    objects.numbers[0].metadata.creation_timestamp =
        Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
    objects.numbers.insert(0, younger);
    let compiled = compile(&objects, &settings());
    assert!(compiled.numbers[&voice("main")].ready.is_yes());
    let conflict = &compiled.numbers[&voice("a-younger")].ready;
    assert_eq!(conflict.reason, Reason::Conflict);
    assert!(
        conflict.message.contains("voice/main"),
        "{}",
        conflict.message
    );

    objects
        .numbers
        .retain(|object| object.metadata.name.as_deref() != Some("main"));
    assert!(
        compile(&objects, &settings()).numbers[&voice("a-younger")]
            .ready
            .is_yes(),
        "heals"
    );
}

#[test]
fn the_same_number_on_distinguishable_trunks_is_no_conflict() {
    let mut objects = world();
    let other = json!({"server": "sip.other.test", "registration": {"enabled": false}});
    objects
        .providers
        .push(object("SipProvider", "other", other));
    objects
        .numbers
        .push(number("again", "+34911234567", "other", Some("agent")));
    let compiled = compile(&objects, &settings());
    assert!(
        compiled
            .numbers
            .values()
            .all(|number| number.ready.is_yes())
    );

    objects.providers[1].spec.server = Some("sip.carrier.test".into());
    let compiled = compile(&objects, &settings());
    assert_eq!(
        compiled.numbers[&voice("main")].ready.reason,
        Reason::Conflict,
        "same age: the name decides"
    );
}

#[test]
fn the_same_number_is_no_conflict_where_callers_prove_different_accounts() {
    let mut objects = world();
    let other = json!({"server": "sip.carrier.test", "registration": {"enabled": false}});
    objects
        .providers
        .push(object("SipProvider", "other", other));
    objects
        .numbers
        .push(number("again", "+34911234567", "other", Some("agent")));
    for name in ["first", "second"] {
        let account = [("username", name), ("password", "secret")];
        objects.secrets.insert(
            voice(name),
            account
                .map(|(key, value)| (key.to_owned(), Secret::new(value)))
                .into(),
        );
    }
    for (accounts, sources, is_good) in [
        ([Some("first"), Some("second")], "", true),
        // Who dials the one without being asked would be taken for a caller of the other.
        ([None, Some("second")], "", false),
        ([Some("first"), Some("first")], "", false),
        ([Some("first"), Some("first")], "192.0.2.0/24", false),
    ] {
        for (provider, account) in objects.providers.iter_mut().zip(accounts) {
            let reference = account.map(|name| serde_json::from_value(json!({"name": name})));
            provider.spec.incoming_credentials_secret_ref = reference.transpose().unwrap();
            let sources = Some(sources.to_owned()).filter(|text| !text.is_empty());
            provider.spec.allowed_sources = sources.into_iter().collect();
        }
        let compiled = compile(&objects, &settings());
        let mut ready = compiled.numbers.values().map(|number| &number.ready);
        assert_eq!(ready.all(Verdict::is_yes), is_good, "{accounts:?}");
    }
    // One account that is used from anywhere, whatever the servers are.
    for (provider, server) in objects.providers.iter_mut().zip(["a.test", "b.test"]) {
        provider.spec.server = Some(server.into());
        provider.spec.allowed_sources = vec![];
    }
    let compiled = compile(&objects, &settings());
    let conflict = &compiled.numbers[&voice("main")].ready;
    assert_eq!(conflict.reason, Reason::Conflict);
}

#[test]
fn a_trunk_whose_callers_log_in_takes_none_without_its_secret() {
    let mut objects = world();
    let login = json!({"server": "pbx.test", "registration": {"enabled": false}, "incomingCredentialsSecretRef": {"name": "pbx"}});
    objects.providers.push(object("SipProvider", "pbx", login));
    objects
        .numbers
        .push(number("pbx", "+34933333333", "pbx", Some("agent")));
    let compiled = compile(&objects, &settings());
    let credentials = &compiled.providers[&voice("pbx")].credentials;
    assert_eq!(credentials.reason, Reason::SecretNotFound);
    let incoming = |compiled: &Compiled| {
        let config = &compiled.gateways[&gateway_id()];
        config.providers.get(&voice("pbx"))?.incoming.clone()
    };
    assert_eq!(incoming(&compiled), Some(vec![]));

    let account = [("username", "pbx"), ("password", "secret")]
        .map(|(key, value)| (key.to_owned(), Secret::new(value)));
    objects.secrets.insert(voice("pbx"), account.into());
    let compiled = compile(&objects, &settings());
    let accounts = incoming(&compiled).unwrap();
    assert_eq!(accounts[0].username, "pbx");
    assert_eq!(accounts[0].password.expose(), "secret");
    assert!(!format!("{accounts:?}").contains("secret"));
    assert!(
        compiled.gateways[&gateway_id()].providers[&voice("trunk")]
            .incoming
            .is_none()
    );
}

#[test]
fn a_gateway_serves_only_namespaces_that_it_allows() {
    let mut objects = world();
    objects.gateways[0].spec.allowed_namespaces = serde_json::from_value(json!({
        "from": "Selector", "selector": {"matchLabels": {"calls": "yes"}},
    }))
    .unwrap();
    let reason = |objects: &Objects| {
        compile(objects, &settings()).providers[&voice("trunk")]
            .accepted
            .reason
    };
    assert_eq!(reason(&objects), Reason::NamespaceNotAllowed);
    objects.namespaces.insert(
        "voice".into(),
        BTreeMap::from([("calls".into(), "yes".into())]),
    );
    assert_eq!(reason(&objects), Reason::Accepted);
    objects.gateways[0].spec.allowed_namespaces =
        serde_json::from_value(json!({"from": "Same"})).unwrap();
    assert_eq!(reason(&objects), Reason::NamespaceNotAllowed);
    objects.gateways.clear();
    assert_eq!(reason(&objects), Reason::GatewayNotFound);
}

#[test]
fn a_gateway_of_a_stranger_is_refused() {
    let mut objects = world();
    objects.providers[0].spec.gateway_ref =
        serde_json::from_value(json!({"name": "g", "namespace": "evil"})).unwrap();
    let compiled = compile(&objects, &settings());
    assert_eq!(
        compiled.providers[&voice("trunk")].accepted.reason,
        Reason::NamespaceNotAllowed
    );
    let mut settings = settings();
    settings.shared_gateway_namespaces.insert("evil".into());
    assert_eq!(
        compile(&objects, &settings).providers[&voice("trunk")]
            .accepted
            .reason,
        Reason::GatewayNotFound
    );
}

#[test]
fn a_preset_fills_in_the_server_and_an_explicit_one_wins() {
    let mut objects = world();
    objects.providers[0].spec.server = None;
    objects.providers[0].spec.type_ = ringwire_crds::ProviderType::Netelip;
    let server = |objects: &Objects| {
        compile(objects, &settings()).providers[&voice("trunk")]
            .server
            .clone()
    };
    assert_eq!(server(&objects).as_deref(), Some("sip.netelip.com:5060"));
    objects.providers[0].spec.server = Some("sip-eu.netelip.com".into());
    assert_eq!(server(&objects).as_deref(), Some("sip-eu.netelip.com:5060"));
}

#[test]
fn headers_that_cannot_be_sent_are_refused_without_showing_them() {
    let mut objects = world();
    objects.agents[0]
        .spec
        .web_socket
        .as_mut()
        .unwrap()
        .headers_secret_ref = serde_json::from_value(json!({"name": "headers"})).unwrap();
    let verdict = |objects: &Objects| {
        compile(objects, &settings()).agents[&voice("agent")]
            .ready
            .clone()
    };
    assert_eq!(verdict(&objects).reason, Reason::SecretNotFound);
    objects.secrets.insert(
        voice("headers"),
        BTreeMap::from([("X-Key".into(), Secret::new("hunter2\n"))]),
    );
    assert_eq!(verdict(&objects).reason, Reason::SecretInvalid);
    assert!(!verdict(&objects).message.contains("hunter2"));
    objects.secrets.insert(
        voice("headers"),
        BTreeMap::from([("X-Key".into(), Secret::new("hunter2"))]),
    );
    assert!(verdict(&objects).is_yes());
}

#[test]
fn a_hep_collector_has_its_port_and_password_and_a_missing_one_is_told() {
    let mut objects = world();
    let id = ObjectRef::of(&objects.gateways[0]);
    let compiled = |objects: &Objects| {
        let mut compiled = compile(objects, &settings());
        let hep = compiled.gateways.remove(&id).unwrap().hep;
        (hep, compiled.gateway_troubles.remove(&id))
    };
    assert_eq!(compiled(&objects), (None, None));
    let set = |objects: &mut Objects, hep: serde_json::Value| {
        objects.gateways[0].spec.sip.hep = serde_json::from_value(hep).unwrap();
    };
    set(&mut objects, json!({"address": "[2001:db8::5]:9061"}));
    let (hep, trouble) = compiled(&objects);
    let hep = hep.unwrap();
    assert_eq!((hep.port, hep.capture_id, trouble), (9061, 1, None));
    assert_eq!(hep.host, Host::parse("2001:db8::5"));

    set(
        &mut objects,
        json!({"address": "Homer.test", "captureId": 5, "passwordSecretRef": {"name": "homer"}}),
    );
    let (hep, trouble) = compiled(&objects);
    assert_eq!(hep, None);
    let trouble = trouble.unwrap();
    assert_eq!(trouble.reason, Reason::SecretNotFound);
    assert!(
        trouble.message.contains("spec.sip.hep.passwordSecretRef"),
        "{}",
        trouble.message
    );
    let secret = ObjectRef::new(&id.namespace, "homer");
    assert!(objects.referenced_secrets().contains(&secret));
    let long = "x".repeat(257);
    for (password, good) in [("s3cret\n", true), (&long, false)] {
        objects.secrets.insert(
            secret.clone(),
            BTreeMap::from([("password".into(), Secret::new(password))]),
        );
        let (hep, trouble) = compiled(&objects);
        let told =
            hep.and_then(|hep| Some((hep.host, hep.port, hep.password?.expose().to_owned())));
        let expected = (Host::parse("homer.test"), 9060, "s3cret".to_owned());
        assert_eq!(told, good.then_some(expected));
        let reason = trouble.map(|trouble| trouble.reason);
        assert_eq!(reason, (!good).then_some(Reason::SecretInvalid));
    }
}

#[test]
fn a_gateway_that_is_being_set_up_is_no_failure() {
    let mut objects = world();
    objects.keys.clear();
    let compiled = compile(&objects, &settings());
    assert_eq!(
        compiled.providers[&voice("trunk")].accepted.holds,
        Holds::Unknown
    );
    assert_eq!(compiled.numbers[&voice("main")].ready.holds, Holds::Unknown);
}

#[test]
fn tells_registrars_of_the_limits_of_trunk_and_agent() {
    let mut world = world();
    world.providers[0].spec.limits.max_calls = Some(30);
    world.agents[0].spec.limits.max_calls = Some(4);
    let compiled = compile(&world, &settings());
    let trunk = &compiled.gateways[&gateway_id()].providers[&voice("trunk")];
    assert_eq!(
        (trunk.limits.max_calls, trunk.limits.calls_per_second),
        (Some(30), None)
    );
    assert_eq!(trunk.numbers["+34911234567"].agent_max_calls, Some(4));
}

/// The world with its gateway behind Services of this type.
fn behind(exposure: &serde_json::Value) -> Objects {
    let mut objects = world();
    let sip = json!({"exposure": exposure, "tcpPort": 5070});
    objects.gateways[0].spec.sip = serde_json::from_value(sip).unwrap();
    objects
}

/// A Service that keeps the callers' addresses.
fn service(ingress: &[&str], node_ports: &[(&str, u16)]) -> SipService {
    SipService {
        hides_source: None,
        ingress: ingress.iter().map(|text| Host::parse(text)).collect(),
        node_ports: node_ports
            .iter()
            .map(|(name, port)| ((*name).to_owned(), *port))
            .collect(),
    }
}

fn add_services(objects: &mut Objects, udp: SipService, tcp: SipService) {
    let id = gateway_id();
    let name = |name: String| ObjectRef::new(&id.namespace, name);
    let names = [
        name(sip_udp_service(&id.name)),
        name(sip_tcp_service(&id.name)),
    ];
    objects.services = names.into_iter().zip([udp, tcp]).collect();
}

fn at(host: &str, port: u16) -> Front {
    let host = Host::parse(host);
    Front::At { host, port }
}

#[test]
fn load_balancers_lead_to_what_they_were_given() {
    let mut objects = behind(&json!({"type": "LoadBalancer"}));
    add_services(
        &mut objects,
        service(&["192.0.2.9"], &[]),
        service(&["lb.example.com"], &[]),
    );
    let compiled = compile(&objects, &settings());
    let fronts = &compiled.gateways[&gateway_id()].settings.sip_fronts;
    assert_eq!(
        *fronts,
        BTreeMap::from([
            (Transport::UDP, at("192.0.2.9", 5060)),
            (Transport::TCP, at("lb.example.com", 5070)),
        ])
    );
    assert!(compiled.gateway_fronts.is_empty());
    assert!(compiled.providers[&voice("trunk")].address_chosen);
}

#[test]
fn a_load_balancer_without_address_leads_nowhere_unless_one_is_written() {
    let mut objects = behind(&json!({"type": "LoadBalancer"}));
    add_services(
        &mut objects,
        service(&[], &[]),
        service(&["192.0.2.9"], &[]),
    );
    let compiled = compile(&objects, &settings());
    let fronts = &compiled.gateways[&gateway_id()].settings.sip_fronts;
    assert_eq!(fronts[&Transport::UDP], Front::Nowhere);
    assert_eq!(fronts[&Transport::TCP], at("192.0.2.9", 5070));
    let verdict = &compiled.gateway_fronts[&gateway_id()];
    assert_eq!(
        (verdict.holds, verdict.reason),
        (Holds::Unknown, Reason::NoAddress)
    );
    assert!(verdict.message.contains("-sip-udp"), "{}", verdict.message);
    assert_eq!(
        compiled.providers[&voice("trunk")].unaddressed.as_ref(),
        Some(verdict)
    );

    let written = behind(&json!({"type": "LoadBalancer", "addresses": ["198.51.100.5"]}));
    let compiled = compile(&written, &settings());
    let fronts = &compiled.gateways[&gateway_id()].settings.sip_fronts;
    assert_eq!(fronts[&Transport::UDP], at("198.51.100.5", 5060));
    assert!(compiled.gateway_fronts.is_empty());
}

#[test]
fn ports_of_nodes_are_those_of_the_pods_node_unless_an_address_is_written() {
    for (addresses, expected) in [
        (json!([]), Front::Node { port: 30060 }),
        (json!(["198.51.100.5"]), at("198.51.100.5", 30060)),
    ] {
        let mut objects = behind(&json!({"type": "NodePort", "addresses": addresses}));
        let compiled = compile(&objects, &settings());
        assert_eq!(
            compiled.gateway_fronts[&gateway_id()].reason,
            Reason::NoAddress
        );
        add_services(
            &mut objects,
            service(&[], &[("sip-udp", 30060)]),
            service(&[], &[("sip-tcp", 30061)]),
        );
        let compiled = compile(&objects, &settings());
        let fronts = &compiled.gateways[&gateway_id()].settings.sip_fronts;
        assert_eq!(fronts[&Transport::UDP], expected);
        assert!(compiled.gateway_fronts.is_empty());
    }
}

#[test]
fn a_service_that_hides_where_calls_come_from_is_told() {
    for (hiding, named) in [
        (Hiding::Policy, "externalTrafficPolicy"),
        (Hiding::Proxy, "ipMode"),
    ] {
        let mut objects = behind(&json!({"type": "LoadBalancer"}));
        let hides = SipService {
            hides_source: Some(hiding),
            ..service(&["192.0.2.9"], &[])
        };
        add_services(&mut objects, service(&["192.0.2.9"], &[]), hides);
        let compiled = compile(&objects, &settings());
        let verdict = &compiled.gateway_fronts[&gateway_id()];
        assert_eq!(
            (verdict.holds, verdict.reason),
            (Holds::False, Reason::SourceAddressLost)
        );
        assert!(
            verdict.message.contains("-sip-tcp") && verdict.message.contains(named),
            "{}",
            verdict.message
        );
        // Registrations do not depend on it.
        assert_eq!(compiled.providers[&voice("trunk")].unaddressed, None);
    }
}

#[test]
fn without_a_cluster_services_are_ignored_aloud() {
    let objects = behind(&json!({"type": "LoadBalancer"}));
    let settings = Settings {
        services: false,
        ..settings()
    };
    let compiled = compile(&objects, &settings);
    assert!(
        compiled.gateways[&gateway_id()]
            .settings
            .sip_fronts
            .is_empty()
    );
    let verdict = &compiled.gateway_fronts[&gateway_id()];
    assert_eq!(
        (verdict.holds, verdict.reason),
        (Holds::True, Reason::ExposureIgnored)
    );
}
