//! Encrypted media: baresip as a peer, and what is refused.

use ringwire_tests::address::Address;
use ringwire_tests::audio::{self, IS_ECHO};
use ringwire_tests::baresip::Baresip;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::{self, Gateway, registered};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::seconds;

use super::ECHO_EXPECTED;
use super::answers::assert_refused;

const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// A trunk that takes everybody's calls, with this encryption, and an echo.
fn set(encryption: &str) -> String {
    let more = format!("allowedSources: [0.0.0.0/0], mediaEncryption: {encryption}");
    [
        static_trunk("127.0.0.1", &more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ]
    .join("---\n")
}

/// baresip with that encryption calls and hears himself. Gives the call's record.
fn baresip_hears_his_echo(theirs: &str, modules: &[&str], ours: &str) -> serde_json::Value {
    let samples = ringwire_media::tone::speech_like(8_000, 7);
    let mut phone = Baresip::with(&samples, "PCMU/8000/1", theirs, modules);
    let gateway = Gateway::start_on(phone.here(), &[("all.yaml", &set(ours))]);
    phone.command("dial", &format!("sip:{NUMBER}@{}", gateway.sip()));
    phone.wait_event("CALL_ESTABLISHED", seconds(10));
    // It speaks for so long: nothing to poll for.
    std::thread::sleep(seconds(6));
    phone.command("hangup", "");
    phone.wait_event("CALL_CLOSED", seconds(5));
    let comparison = audio::compare(&phone.recording("enc"), &phone.recording("dec"));
    println!(
        "{theirs} to {ours}: correlation {:.4}",
        comparison.correlation
    );
    assert!(
        comparison.correlation > IS_ECHO,
        "{comparison:?} {}",
        phone.log()
    );
    let record = gateway.record();
    assert_eq!(record["ended_by"], "caller", "{record}");
    assert!(
        record["packets_received"].as_u64().unwrap() > 200,
        "{record}"
    );
    // Its reports were understood: they are encrypted, too.
    assert_eq!(record["packets_lost_remote"], 0, "{record}");
    assert!(!gateway.log().contains("inline:"), "a key in the log");
    record
}

#[test]
fn a_phone_that_insists_on_sdes_is_heard() {
    for (theirs, ours) in [
        (";mediaenc=srtp-mand", "SDES"),
        (";mediaenc=srtp-mand", "OptionalSDES"),
        (";mediaenc=srtp", "SDES"),
        (";mediaenc=srtp", "OptionalSDES"),
    ] {
        let record = baresip_hears_his_echo(theirs, &["srtp"], ours);
        let suite = record["encryption"].as_str().unwrap_or_default();
        assert!(
            suite.starts_with("AES_") || suite.starts_with("AEAD_"),
            "{record}"
        );
        // Before it has keys it opens pinholes in a NAT, by packets in the clear.
        assert!(
            record["packets_not_authentic"].as_u64().unwrap() <= 3,
            "{record}"
        );
    }
}

/// Its certificate is an RSA one.
#[test]
fn a_phone_with_keys_from_a_handshake_is_heard() {
    for ours in ["DTLS", "OptionalDTLS"] {
        let record = baresip_hears_his_echo(";mediaenc=dtls_srtp", &["dtls_srtp"], ours);
        assert_eq!(record["encryption"], "DTLS", "{record}");
    }
}

#[test]
fn a_phone_without_encryption_is_heard_where_it_is_optional() {
    let record = baresip_hears_his_echo("", &[], "OptionalSDES");
    assert!(record["encryption"].is_null(), "{record}");
}

#[test]
fn a_call_in_the_clear_is_refused_where_encryption_is_required() {
    let gateway = Gateway::start(&[("all.yaml", &set("SDES"))]);
    let unusable =
        format!("m=audio {{port}} RTP/SAVP 0\na=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}");
    for media in ["m=audio {port} RTP/AVP 0", &unusable] {
        let mut phone = Phone::udp(gateway.sip());
        let offer = phone.sdp(media);
        let answer = phone.invite("", &offer);
        assert_eq!(answer.status(), 488, "{}", answer.text);
        assert!(
            answer.header("Warning").starts_with("302 "),
            "{}",
            answer.text
        );
        let record = assert_refused(&gateway, &phone, 488, "EncryptionRequired");
        assert!(!record.to_string().contains("WVNfX19"), "a key in the log");
    }
    let provider = gateway.object("SipProvider", "trunk");
    let conditions = provider["status"]["conditions"].as_array().unwrap();
    let told = conditions
        .iter()
        .any(|own| own["type"] == "KeysInClear" && own["status"] == "True");
    assert!(told, "{provider}");
}

/// A call in the clear, of which rtpengine makes another one on its way to us. Gives the call's record, and what rtpengine said.
pub(super) fn relayed(offer: &str, ours: &str) -> (serde_json::Value, String) {
    relayed_with(&[], offer, ours)
}

/// The same with further options of the carrier.
pub(super) fn relayed_with(more: &[&str], offer: &str, ours: &str) -> (serde_json::Value, String) {
    let relay = ["--relay", "yes", "--relay-offer", offer];
    let carrier = Carrier::start(&[&relay[..], more].concat());
    let server = carrier.sip();
    let more = format!("mediaEncryption: {ours}");
    let gateway = registered(&carrier, Gateway::start, &echo("bot", ""), &more);
    let arguments = [&["--header", "X-Provider: network"], &ECHO_EXPECTED[..]].concat();
    let target = format!("sip:{NUMBER}@{server}");
    let caller = Address::claim();
    let call = gateway::call(&target, caller.ip(), &arguments);
    assert!(call.success, "{offer}: {} {}", call.result, gateway.log());
    println!("{offer} to {ours}: {}", call.result["echo"]);
    (gateway.record(), carrier.log("rtpengine"))
}

/// What leaves before both sides have their keys is no fault.
fn assert_authentic(record: &serde_json::Value) {
    let refused = record["packets_not_authentic"].as_u64();
    assert!(refused.is_some_and(|count| count <= 3), "{record}");
}

#[test]
fn a_relay_that_encrypts_is_heard() {
    let (record, _) = relayed("RTP/SAVP", "SDES");
    assert_authentic(&record);
    let suite = record["encryption"].as_str().unwrap_or_default();
    assert!(suite.starts_with("AE"), "{record}");
}

#[test]
fn a_relay_that_shakes_hands_is_heard() {
    for (offer, ours) in [
        ("UDP/TLS/RTP/SAVP", "DTLS"),
        ("UDP/TLS/RTP/SAVPF rtcp-mux-offer", "OptionalDTLS"),
    ] {
        let (record, _) = relayed(offer, ours);
        assert_authentic(&record);
        assert_eq!(record["encryption"], "DTLS", "{record}");
    }
}
