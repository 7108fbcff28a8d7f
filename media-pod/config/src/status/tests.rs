use ringwire_crds::PhoneNumberSpec;

use super::*;
use crate::not_understood::NotUnderstood;
use crate::shard;
use crate::state::PodState;
use crate::token::Incarnation;

fn id(name: &str) -> ObjectRef {
    ObjectRef::new("voice", name)
}

fn number() -> PhoneNumber {
    let spec: PhoneNumberSpec = serde_json::from_value(serde_json::json!({
        "number": "+34911234567",
        "providerRef": {"name": "trunk"},
        "agentRef": {"name": "bot"},
    }))
    .unwrap();
    let mut number = PhoneNumber::new("main", spec);
    number.metadata.namespace = Some("voice".into());
    number.metadata.generation = Some(1);
    number
}

fn findings() -> NumberFindings {
    NumberFindings {
        ready: Verdict::yes(Reason::Ready, "calls are answered by bot"),
        state: PhoneNumberState::Active,
        agent: Some("bot".into()),
        gateway: Some(id("default")),
    }
}

/// A pod that works by these digests.
fn pod(name: &str, role: Role, digest: &str) -> (String, ObservedPod) {
    let mut state = PodState::new(name, role, Incarnation(1));
    state.configuration = vec![digest.to_owned(); shard::SHARDS];
    let reachable = true;
    (name.to_owned(), ObservedPod { state, reachable })
}

fn observed(pods: impl IntoIterator<Item = (String, ObservedPod)>) -> Observed {
    let wanted =
        Role::ALL.map(|role| ((id("default"), role), vec!["new".to_owned(); shard::SHARDS]));
    Observed {
        pods: [(id("default"), pods.into_iter().collect())].into(),
        wanted: wanted.into(),
    }
}

fn ready(number: &PhoneNumber, observed: &Observed) -> (String, Option<PhoneNumberState>) {
    let status = phone_number(number, &findings(), observed, Timestamp::UNIX_EPOCH);
    let condition = &status.conditions[0];
    (
        format!("{} {}", condition.status, condition.reason),
        status.state,
    )
}

#[test]
fn a_number_is_ready_once_all_pods_that_take_calls_know_of_it() {
    let new = |name, role| pod(name, role, "new");
    let known = [new("r", Role::Registrar), new("m", Role::Media)];
    let arrived = ("True Ready".to_owned(), Some(PhoneNumberState::Active));
    let on_its_way = (
        "Unknown Progressing".to_owned(),
        Some(PhoneNumberState::Inactive),
    );
    assert_eq!(ready(&number(), &observed(known.clone())), arrived);
    for late in [
        pod("r", Role::Registrar, "old"),
        pod("m2", Role::Media, "old"),
    ] {
        let pods = known.clone().into_iter().chain([late.clone()]);
        assert_eq!(ready(&number(), &observed(pods)), on_its_way, "{late:?}");
        // One that takes no calls any more, or is of a version that does not tell, holds nothing up.
        for quiet in [true, false] {
            let (name, mut late) = late.clone();
            if quiet {
                late.state.draining = true;
            } else {
                late.state.configuration.clear();
            }
            let pods = known.clone().into_iter().chain([(name, late)]);
            assert_eq!(ready(&number(), &observed(pods)), arrived);
        }
    }
}

#[test]
fn a_number_that_stood_is_not_shaken_by_other_objects_on_their_way() {
    let late = observed([pod("r", Role::Registrar, "old")]);
    let mut number = number();
    let status = phone_number(&number, &findings(), &observed([]), Timestamp::UNIX_EPOCH);
    number.status = Some(status);
    assert_eq!(ready(&number, &late).0, "True Ready");
    // Its own edit is another matter.
    number.metadata.generation = Some(2);
    assert_eq!(ready(&number, &late).0, "Unknown Progressing");
}

#[test]
fn without_shards_what_is_compiled_is_in_force() {
    assert_eq!(ready(&number(), &Observed::default()).0, "True Ready");
}

fn report(contact: &str, observed: &str) -> RegistrationReport {
    RegistrationReport {
        revision: "1".into(),
        state: RegistrationState::Registered,
        reason: Reason::Registered,
        message: "registered at carrier.example".into(),
        last_response: None,
        transport: None,
        contact: Some(contact.into()),
        observed_address: Some(observed.into()),
        registered_at: None,
    }
}

#[test]
fn a_private_contact_behind_a_nat_is_told() {
    for (contact, observed, told) in [
        ("sip:token@10.244.1.4:5060", "203.0.113.9:40123", true),
        (
            "sip:token@[fd00::4]:5060;transport=tcp",
            "[2001:db8::9]:5060",
            true,
        ),
        ("sip:token@10.244.1.4:5060", "10.244.1.4:5060", false),
        // Where calls come in and where packets leave may differ: somebody has chosen a public address.
        ("sip:token@198.51.100.4:5060", "203.0.113.9:40123", false),
        ("sip:token@sip.example.com", "203.0.113.9:40123", false),
    ] {
        assert_eq!(is_elsewhere(&report(contact, observed)), told, "{contact}");
    }
    assert!(
        elsewhere(&report("sip:token@10.244.1.4:5060", "203.0.113.9:40123"))
            .contains("sees our packets come from 203.0.113.9:40123")
    );
}

#[test]
fn the_refusals_of_all_registrars_are_summed_up_and_the_latest_says_why() {
    use crate::state::RefusalReport;
    let refusal = |minute: i64, count: u64, detail: &str| RefusalReport {
        count,
        detail: detail.into(),
        at: Timestamp::from_second(minute * 60).unwrap(),
    };
    let mut pods = [
        pod("a", Role::Registrar, "new"),
        pod("b", Role::Registrar, "new"),
    ];
    let told = &mut pods[0].1.state.provider_refusals;
    let of = told.entry(id("trunk")).or_default();
    of.insert(Reason::AtCapacity, refusal(1, 3, "two calls"));
    of.insert(Reason::NumberNotFound, refusal(9, 1, "compared"));
    let told = &mut pods[1].1.state.provider_refusals;
    let of = told.entry(id("trunk")).or_default();
    of.insert(Reason::AtCapacity, refusal(2, 4, "three calls"));
    let other = told.entry(id("other")).or_default();
    other.insert(Reason::AtCapacity, refusal(3, 5, "of another"));
    let observed = observed(pods);
    let seen = refusals(observed.of(&id("default")), &id("trunk"));
    let seen: Vec<_> = seen
        .iter()
        .map(|refusal| {
            (
                refusal.reason.as_str(),
                refusal.count,
                refusal.message.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("NumberNotFound", 1, Some("compared")),
            ("AtCapacity", 7, Some("three calls"))
        ]
    );
}

fn provider_findings(unaddressed: Option<Verdict>, address_chosen: bool) -> ProviderFindings {
    ProviderFindings {
        gateway: Some(id("default")),
        accepted: Verdict::yes(Reason::Accepted, ""),
        credentials: Verdict::yes(Reason::Resolved, ""),
        paused: false,
        server: None,
        transport: ringwire_crds::Transport::UDP,
        revision: Some("1".into()),
        registers: true,
        callers_log_in: false,
        sdes: false,
        missing_codecs: None,
        address_chosen,
        unaddressed,
    }
}

#[test]
fn a_provider_waits_for_an_address_that_carriers_can_be_told() {
    let missing = Verdict::unknown(Reason::NoAddress, "no address yet");
    let observed = observed([pod("r", Role::Registrar, "new")]);
    let registered = registered(&provider_findings(Some(missing), true), None, &observed);
    assert_eq!(
        (registered.holds, registered.reason),
        (Holds::Unknown, Reason::NoAddress)
    );
    let status = registration_status(&registered, &provider_findings(None, true), None);
    assert_eq!(status.state, StateColumn::Unregistered);
}

#[test]
fn a_private_address_that_somebody_chose_is_no_mismatch() {
    let report = report("sip:token@10.244.1.4:5060", "203.0.113.9:40123");
    let (_, pod) = pod("r", Role::Registrar, "new");
    for (chosen, reason) in [(false, Reason::AddressMismatch), (true, Reason::Registered)] {
        let findings = provider_findings(None, chosen);
        let verdict = registered(&findings, Some((&pod, &report)), &Observed::default());
        assert_eq!(verdict.reason, reason);
    }
}

#[test]
fn keys_in_messages_that_anybody_can_read_are_told_of() {
    let spec = serde_json::json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": "SipProvider",
        "metadata": {"name": "trunk", "namespace": "voice"}, "spec": {"server": "carrier.test"}});
    let provider: SipProvider = serde_json::from_value(spec).unwrap();
    for (sdes, transport, told) in [
        (true, Transport::UDP, true),
        (true, Transport::TCP, true),
        (true, Transport::TLS, false),
        (false, Transport::UDP, false),
    ] {
        let findings = ProviderFindings {
            transport,
            sdes,
            ..provider_findings(None, true)
        };
        let now = Timestamp::UNIX_EPOCH;
        let status = sip_provider(&provider, &findings, &Observed::default(), now);
        let kinds = status.conditions.iter();
        let seen: Vec<_> = kinds
            .filter(|own| own.type_ == condition::KEYS_IN_CLEAR)
            .map(|own| (own.status.as_str(), own.reason.as_str()))
            .collect();
        let expected: &[_] = if told {
            &[("True", "KeysInClear")]
        } else {
            &[]
        };
        assert_eq!(seen, expected, "{sdes} {transport:?}");
    }
}

#[test]
fn codecs_that_were_not_built_in_are_told_of() {
    let spec = serde_json::json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": "SipProvider",
        "metadata": {"name": "trunk", "namespace": "voice"}, "spec": {"server": "carrier.test"}});
    let provider: SipProvider = serde_json::from_value(spec).unwrap();
    let missing = Verdict::no(Reason::CodecNotBuilt, "iLBC needs the feature ilbc");
    for missing_codecs in [None, Some(missing)] {
        let findings = ProviderFindings {
            missing_codecs: missing_codecs.clone(),
            ..provider_findings(None, true)
        };
        let now = Timestamp::UNIX_EPOCH;
        let status = sip_provider(&provider, &findings, &Observed::default(), now);
        let own = status.conditions.iter();
        let told = own
            .filter(|own| own.type_ == condition::CODECS_BUILT)
            .map(|own| (own.status.as_str(), own.message.as_str()))
            .next();
        let expected = missing_codecs.map(|_| ("False", "iLBC needs the feature ilbc"));
        assert_eq!(told, expected);
    }
}

#[test]
fn a_gateway_says_what_is_wrong_with_its_services() {
    let mut object = MediaGateway::new("default", ringwire_crds::MediaGatewaySpec::default());
    object.metadata.namespace = Some("voice".into());
    let mut workload = GatewayWorkload {
        replicas: 1,
        ready_replicas: 1,
        ready_registrars: 1,
        selector: None,
        trouble: None,
        front: None,
    };
    let mut seen = |front: Option<Verdict>| {
        workload.front = front;
        let observed = observed([pod("r", Role::Registrar, "new")]);
        let status = media_gateway(&object, &workload, &observed, Timestamp::UNIX_EPOCH);
        status
            .conditions
            .iter()
            .map(|condition| {
                format!(
                    "{}={} {}",
                    condition.type_, condition.status, condition.reason
                )
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(seen(None), "Ready=True Ready, Addressed=Unknown NoAddress");
    let lost = Verdict::no(Reason::SourceAddressLost, "policy");
    assert_eq!(
        seen(Some(lost)),
        "Ready=False SourceAddressLost, Addressed=False SourceAddressLost"
    );
    let ignored = Verdict::yes(Reason::ExposureIgnored, "no cluster");
    assert_eq!(
        seen(Some(ignored)),
        "Ready=True Ready, Addressed=True ExposureIgnored"
    );
}

#[test]
fn an_object_says_that_a_pod_needs_a_newer_version_to_understand_it() {
    let agent_findings = AgentFindings {
        ready: Verdict::yes(Reason::Ready, "the agent can be called"),
        backend: None,
        numbers: 1,
        max_calls: None,
    };
    let spec = serde_json::json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent",
        "metadata": {"name": "bot", "namespace": "voice"}, "spec": {"echo": {}}});
    let agent: VoiceAgent = serde_json::from_value(spec).unwrap();
    let spec = serde_json::json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": "SipProvider",
        "metadata": {"name": "trunk", "namespace": "voice"}, "spec": {"server": "carrier.test"}});
    let provider: SipProvider = serde_json::from_value(spec).unwrap();
    let seen = |observed: &Observed| {
        let now = Timestamp::UNIX_EPOCH;
        let registering = provider_findings(None, true);
        let trusting = ProviderFindings {
            registers: false,
            revision: None,
            ..provider_findings(None, true)
        };
        let conditions = [
            phone_number(&number(), &findings(), observed, now).conditions,
            voice_agent(&agent, &agent_findings, observed, now).conditions,
            sip_provider(&provider, &registering, observed, now).conditions,
            sip_provider(&provider, &trusting, observed, now).conditions,
        ];
        conditions.map(|conditions| {
            let ready = &conditions[0];
            assert_eq!(ready.type_, condition::READY);
            (ready.reason.clone(), ready.message.clone())
        })
    };
    let is_left_out = |observed: &Observed| {
        seen(observed).map(|(reason, message)| {
            let left_out = reason == Reason::NewerVersionNeeded.as_str();
            assert_eq!(
                left_out,
                message.contains("needs a newer version"),
                "{message}"
            );
            left_out
        })
    };
    let with = |role, leave_out: &dyn Fn(&mut NotUnderstood)| {
        let (name, mut pod) = pod("p", role, "new");
        leave_out(&mut pod.state.not_understood);
        (name, pod)
    };
    let detail = || "unknown value \"telepathy\"".to_owned();
    let agents = with(Role::Media, &|all| {
        all.agents.insert(id("bot"), detail());
    });
    let numbers = with(Role::Registrar, &|all| {
        all.numbers.insert(id("main"), detail());
    });
    let providers = with(Role::Registrar, &|all| {
        all.providers.insert(id("trunk"), detail());
    });
    let told = seen(&observed([agents.clone()]));
    assert!(
        told[1].1.contains("media pod p") && told[1].1.contains("telepathy"),
        "{told:?}"
    );
    assert_eq!(
        is_left_out(&observed([agents.clone()])),
        [true, true, false, false]
    );
    assert_eq!(
        is_left_out(&observed([numbers])),
        [true, false, false, false]
    );
    assert_eq!(
        is_left_out(&observed([providers.clone()])),
        [true, false, true, true]
    );
    // A pod that takes no calls any more is not asked, and one that holds the registration knows better.
    let (name, mut leaving) = agents;
    leaving.state.draining = true;
    assert_eq!(is_left_out(&observed([(name, leaving)])), [false; 4]);
    let (_, mut newer) = pod("q", Role::Registrar, "new");
    let report = report("sip:token@198.51.100.4:5060", "198.51.100.4:5060");
    std::sync::Arc::make_mut(&mut newer.state.registrations).insert(id("trunk"), report);
    let both = observed([providers, ("q".to_owned(), newer)]);
    assert!(!is_left_out(&both)[2]);
}

#[test]
fn an_agents_last_error_is_the_newest_of_all_pods_and_is_remembered() {
    use crate::state::{AgentError, AgentReport};
    let findings = AgentFindings {
        ready: Verdict::yes(Reason::Ready, "the agent can be called"),
        backend: None,
        numbers: 1,
        max_calls: None,
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let report = |reachable, error: Option<i64>| AgentReport {
        reachable,
        reason: Reason::AgentUnreachable,
        message: "refused".into(),
        at: at(5),
        last_error: error.map(|second| AgentError {
            reason: Reason::AgentFailed,
            message: "code 4".into(),
            at: at(second),
        }),
    };
    let object = serde_json::json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent",
        "metadata": {"name": "bot", "namespace": "voice"}, "spec": {"echo": {}}});
    let mut agent: VoiceAgent = serde_json::from_value(object).unwrap();
    let mut seen = |reports: &[AgentReport]| {
        let pods = reports.iter().enumerate().map(|(index, report)| {
            let (name, mut pod) = pod(&format!("m{index}"), Role::Media, "new");
            pod.state.agents.insert(id("bot"), report.clone());
            (name, pod)
        });
        let status = voice_agent(&agent, &findings, &observed(pods), Timestamp::UNIX_EPOCH);
        agent.status = Some(status.clone());
        let at = status.last_error_at.map(|at| at.0.as_second());
        (status.last_error, at)
    };
    let failed = |second| (Some("AgentFailed: code 4".to_owned()), Some(second));
    assert_eq!(seen(&[report(true, None)]), (None, None));
    // A pod of an older version has no more than its verdict.
    let old = (Some("AgentUnreachable: refused".to_owned()), Some(5));
    assert_eq!(seen(&[report(false, None)]), old);
    assert_eq!(
        seen(&[report(true, Some(9)), report(true, Some(7))]),
        failed(9)
    );
    assert_eq!(seen(&[report(true, Some(7))]), failed(9));
    assert_eq!(seen(&[]), failed(9));
}
