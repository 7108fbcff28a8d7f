//! Sound that goes one way only, and how good it is where it goes both.

use ringwire_media::tone::speech_like;
use ringwire_tests::baresip::Baresip;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

use crate::{ECHO_EXPECTED, echo_gateway};

/// What the provider's condition says, while it is there.
fn told(gateway: &Gateway) -> Option<String> {
    let provider = gateway.object("SipProvider", "trunk");
    let conditions = provider["status"]["conditions"].as_array()?;
    let told = conditions
        .iter()
        .find(|condition| condition["type"] == "OneWayAudio")?;
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&"True".into(), &"OneWayAudio".into())
    );
    told["message"].as_str().map(str::to_owned)
}

#[test]
fn a_caller_from_whom_nothing_comes_is_told_of_until_a_call_has_sound() {
    let gateway = echo_gateway();
    // It says where it wants audio, and sends none.
    let silent = sipp::start("call.xml", gateway.sip(), &["-d", "7000"]);
    let theirs = format!("{}:6000", silent.ip());
    let message = wait::until(seconds(7), "the provider's condition", || told(&gateway));
    assert!(message.contains(&theirs), "{message}");
    assert!(
        message.contains(&format!("to {}:", gateway.ip())),
        "{message}"
    );
    assert!(message.contains("no sound from the caller"), "{message}");
    assert!(silent.succeeded());
    let record = gateway.record();
    assert_eq!(record["one_way"], "from the caller", "{record}");
    assert_eq!(record["mos"], Value::Null, "{record}");
    let counted = gateway.metric("ringwire_one_way_calls_total{direction=\"in\"}");
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");

    let target = format!("sip:{NUMBER}@{}", gateway.sip());
    let arguments = [&["--duration", "3"], &ECHO_EXPECTED[..]].concat();
    let call = gateway::call(&target, gateway.ip(), &arguments);
    assert!(call.success, "{}", call.result);
    wait::until(seconds(3), "the end of the condition", || {
        told(&gateway).is_none().then_some(())
    });
    let records = gateway.records();
    let record = records.last().unwrap();
    assert_eq!(record["one_way"], Value::Null, "{record}");
    assert!(gateway.metric("ringwire_call_mos_count{direction=\"in\"}") > 0.5);
    assert!(
        record["mos"].as_f64().is_some_and(|mos| mos > 3.5),
        "{record}"
    );
}

#[test]
fn a_caller_who_hears_nothing_is_told_of_by_his_own_reports() {
    let mut phone = Baresip::start(&speech_like(15_000, 3), "PCMA/8000/1");
    let here = phone.here();
    let trunk = static_trunk(phone.there(), "codecs: [PCMA]");
    let set = [
        trunk,
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start_on(here, &[("all.yaml", &set.join("---\n"))]);
    phone.lose_media();
    phone.command("dial", &format!("sip:{NUMBER}@{}", gateway.sip()));
    phone.wait_event("CALL_ESTABLISHED", seconds(10));
    let message = wait::until(seconds(15), "the provider's condition", || told(&gateway));
    println!("{message}");
    assert!(message.contains("does not hear the agent"), "{message}");
    phone.command("hangup", "");
    phone.wait_event("CALL_CLOSED", seconds(5));
    let record = gateway.record();
    assert_eq!(record["one_way"], "to the caller", "{record}");
    assert!(record["packets_received"].as_u64() > Some(100), "{record}");
    let counted = gateway.metric("ringwire_one_way_calls_total{direction=\"out\"}");
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn a_call_that_is_over_before_anything_could_be_missed_tells_nothing() {
    let gateway = echo_gateway();
    sipp::run("call.xml", gateway.sip(), &["-d", "300"]);
    let record = gateway.record();
    assert_eq!(record["one_way"], Value::Null, "{record}");
    assert_eq!(told(&gateway), None);
}
