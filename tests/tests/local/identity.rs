//! Who calls: what the agent and the call record are told of it.

use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, object};
use ringwire_tests::phone::Phone;
use ringwire_tests::sipp;
use serde_json::{Value, json};

use crate::{agent_gateway, local_set};

fn parameters(agent: &Agent) -> Value {
    agent.wait("start").message["start"]["customParameters"].clone()
}

#[test]
fn a_withheld_number_is_known_to_the_agent_and_marked() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    sipp::run("identity.xml", gateway.sip(), &["-d", "300"]);
    let told = parameters(&agent);
    let expected = [
        ("caller_id", "anonymous"),
        ("called_number", NUMBER),
        ("from_display_name", "Anonymous"),
        ("from_uri", "sip:anonymous@anonymous.invalid"),
        ("asserted_display_name", "Alice Example"),
        ("privacy", "id;critical"),
        ("diversion_reason", "no-answer"),
    ];
    for (name, value) in expected {
        assert_eq!(told[name], value, "{name}: {told}");
    }
    for (name, start) in [
        ("asserted_identity", "sip:+34600000001@127."),
        ("diversion", "sip:+34911000002@127."),
        ("history_info", "sip:+34911000001@127."),
    ] {
        let value = told[name].as_str().unwrap_or_default();
        assert!(value.starts_with(start), "{name}: {told}");
    }
    assert_eq!(
        told["history_info"].as_str().unwrap().split(", ").count(),
        3
    );
    let record = gateway.record();
    for name in ["asserted_identity", "privacy", "diversion"] {
        assert_eq!(record[name], told[name], "{name}: {record}");
    }
    assert_eq!(record["from"], "anonymous");
    assert_eq!(record["from_display_name"], "Anonymous");
    // Why the caller hung up, in his own words.
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("Normal call clearing"), "{record}");
}

#[test]
fn an_ordinary_caller_is_named_and_what_is_configured_outranks_what_he_says() {
    let agent = Agent::start(Manner::default());
    let spec = format!(
        "{{webSocket: {{url: \"{}\", customParameters: {{from_uri: fixed, language: es}}}}}}",
        agent.url()
    );
    let set = local_set(&object("VoiceAgent", "bot", &spec));
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    assert_eq!(
        parameters(&agent),
        json!({
            "caller_id": "+34600000000", "called_number": NUMBER, "from_display_name": "Tester",
            "from_uri": "fixed", "language": "es"
        })
    );
    phone.hang_up();
    let record = gateway.record();
    assert_eq!(record["asserted_identity"], Value::Null, "{record}");
    assert_eq!(record["privacy"], Value::Null, "{record}");
}
