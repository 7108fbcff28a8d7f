//! Calls in the codecs that are built in by features (docs/codecs.md), with phones and a relay that no one here wrote. A program of its own: it
//! wants a `ringwire` with these features.
//!
//! ```text
//! cargo build -p ringwire --features amr-wb,g7221,ilbc
//! RINGWIRE_BIN=target/debug/ringwire cargo test -p ringwire-tests --test codecs -- --test-threads 1
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::net::IpAddr;

use ringwire_tests::audio;
use ringwire_tests::baresip::Baresip;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::pjsip::{Offer, Pjsip};
use ringwire_tests::stall;
use ringwire_tests::wait::seconds;
use serde_json::{Value, json};

/// What an echo must at least be like. It is coded twice.
const CLEAN: f64 = 0.85;
/// iLBC alone, of either make, leaves 0.945 of this sound where it is coded once, and 0.83 where it is coded twice.
const CLEAN_ILBC: f64 = 0.75;

/// An echo for everybody's calls in this codec.
fn gateway(here: IpAddr, codec: &str, encryption: &str) -> Gateway {
    let more =
        format!("allowedSources: [0.0.0.0/0], mediaEncryption: {encryption}, codecs: [{codec}]");
    let set = [
        static_trunk("127.0.0.1", &more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start_on(here, &[("all.yaml", &set.join("---\n"))]);
    let conditions = gateway.object("SipProvider", "trunk")["status"]["conditions"].clone();
    let built = conditions.as_array().unwrap().iter();
    let missing = built
        .into_iter()
        .any(|own| own["type"] == "CodecsBuilt" && own["status"] == "False");
    assert!(
        !missing,
        "RINGWIRE_BIN has to be built with all features: {conditions}"
    );
    gateway
}

/// A call whose echo was compared with what was said.
struct Call {
    correlation: f64,
    /// What the phone says of its stream, and what it counted.
    stream: Value,
    counted: Value,
    record: Value,
}

fn pjsip_call(offer: &Offer) -> Call {
    // Time for his jitter buffer to find its length.
    let samples = [vec![0; 8_000], ringwire_media::tone::speech_like(5_000, 7)].concat();
    let phone = Pjsip::start(offer);
    let name = offer.codec.split('/').next().unwrap();
    let gateway = gateway(phone.here(), name, "None");
    let stream = phone.call(&format!("sip:{NUMBER}@{}", gateway.sip()));
    let heard = phone.talk(&samples, seconds(7));
    phone.hang_up();
    Call {
        correlation: audio::compare(&samples, &heard.samples).correlation,
        stream,
        counted: heard.counted,
        record: gateway.record(),
    }
}

fn pjsip_hears_his_echo(offer: Offer, parameter: (&str, &str), bits: u32, packets: u64) {
    let clean = if offer.codec.starts_with("iLBC") {
        CLEAN_ILBC
    } else {
        CLEAN
    };
    let is_clean = |call: &Call| call.correlation > clean;
    let call = stall::unless_stalled(is_clean, || pjsip_call(&offer));
    let Call {
        correlation,
        stream,
        counted,
        record,
    } = call;
    println!(
        "PJSIP, {}, {bits} bit/s: correlation {correlation:.4}",
        offer.codec
    );
    assert!(correlation > clean, "{correlation} {counted}");
    // His account, and ours.
    let (name, value) = parameter;
    let expected = json!({ name: value });
    let codec = offer.codec.trim_end_matches("/1");
    assert_eq!(
        (&stream["media"], &stream["bits"]),
        (&json!(codec), &json!(bits)),
        "{stream}"
    );
    assert_eq!(
        (&stream["fmtp"], &stream["theirs"]),
        (&expected, &expected),
        "{stream}"
    );
    for loss in ["lost", "discarded", "lost_there"] {
        assert_eq!(counted[loss], 0, "{counted}");
    }
    assert!(counted["heard"].as_u64() > Some(packets), "{counted}");
    assert_eq!(
        Some(record["codec"].as_str().unwrap()),
        codec.split('/').next()
    );
    assert_eq!(
        (&record["packets_lost"], &record["packets_lost_remote"]),
        (&json!(0), &json!(0)),
        "{record}"
    );
    assert!(
        record["packets_received"].as_u64() > Some(packets),
        "{record}"
    );
}

#[test]
fn pjsip_hears_his_echo_in_ilbc() {
    for (millis, bits, packets) in [(20, 15_200, 300), (30, 13_333, 200)] {
        let offer = Offer {
            codec: "iLBC/8000/1",
            millis,
            ..Offer::default()
        };
        pjsip_hears_his_echo(offer, ("mode", &millis.to_string()), bits, packets);
    }
}

#[test]
fn pjsip_hears_his_echo_in_g7221() {
    for bitrate in [32_000, 24_000] {
        let offer = Offer {
            codec: "G7221/16000/1",
            bitrate,
            ..Offer::default()
        };
        pjsip_hears_his_echo(offer, ("bitrate", &bitrate.to_string()), bitrate, 300);
    }
}

#[test]
fn baresip_hears_his_echo_in_amr_wb() {
    for (parameters, modules, encryption) in [
        ("", &["amr"][..], "None"),
        (";mediaenc=srtp-mand", &["amr", "srtp"], "SDES"),
    ] {
        let call = || {
            let samples = ringwire_media::tone::speech_like(8_000, 7);
            let mut phone = Baresip::with(&samples, "AMR-WB/16000/1", parameters, modules);
            let gateway = gateway(phone.here(), "AMR-WB", encryption);
            phone.command("dial", &format!("sip:{NUMBER}@{}", gateway.sip()));
            phone.wait_event("CALL_ESTABLISHED", seconds(10));
            // It speaks for so long: nothing to poll for.
            std::thread::sleep(seconds(6));
            phone.command("hangup", "");
            phone.wait_event("CALL_CLOSED", seconds(5));
            let comparison = audio::compare(&phone.recording("enc"), &phone.recording("dec"));
            (comparison.correlation, gateway.record())
        };
        let (correlation, record) =
            stall::unless_stalled(|(correlation, _)| *correlation > CLEAN, call);
        println!("baresip, AMR-WB, {encryption}: correlation {correlation:.4}");
        assert!(correlation > CLEAN, "{correlation} {record}");
        assert_eq!(record["codec"], "AMR-WB");
        assert_eq!(
            (&record["packets_lost"], &record["packets_lost_remote"]),
            (&json!(0), &json!(0)),
            "{record}"
        );
    }
}
