//! Calls in the codecs that are built in by features (docs/codecs.md), with phones and a relay that no one here wrote. A program of its own: it
//! wants a `ringwire` with these features.
//!
//! ```text
//! cargo build -p ringwire --features amr-wb,g7221,ilbc
//! RINGWIRE_BIN=target/debug/ringwire cargo test -p ringwire-tests --test codecs -- --test-threads 1
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::net::IpAddr;

use ringwire_tests::address::Address;
use ringwire_tests::audio;
use ringwire_tests::baresip::Baresip;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::{self, Gateway, registered};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::pjsip::{Offer, Pjsip};
use ringwire_tests::stall;
use ringwire_tests::wait::{self, seconds};
use serde_json::{Value, json};

/// What an echo must at least be like. It is coded twice, of which iLBC of either make leaves 0.83, and while a buffer finds its length some of the
/// sound is longer or shorter.
const CLEAN: f64 = 0.7;

/// An echo for everybody's calls in this codec.
fn echo_in(here: IpAddr, codec: &str, encryption: &str) -> Gateway {
    let more =
        format!("allowedSources: [0.0.0.0/0], mediaEncryption: {encryption}, codecs: [{codec}]");
    let set = [
        static_trunk("127.0.0.1", &more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start_on(here, &[("all.yaml", &set.join("---\n"))]);
    assert_built(&gateway);
    gateway
}

/// The program has the codecs of its only trunk.
#[track_caller]
fn assert_built(gateway: &Gateway) {
    let trunk = gateway.object("SipProvider", "trunk");
    let conditions = trunk["status"]["conditions"].as_array().unwrap();
    let missing = conditions
        .iter()
        .find(|own| own["type"] == "CodecsBuilt" && own["status"] == "False");
    if let Some(condition) = missing {
        panic!("RINGWIRE_BIN has to be built with all features: {condition}");
    }
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
    let gateway = echo_in(phone.here(), name, "None");
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
    let lost = |counted: &Value| {
        let kinds = ["lost", "discarded", "lost_there"];
        let counts = kinds.map(|kind| counted[kind].as_u64().unwrap());
        counts.iter().sum::<u64>()
    };
    let is_good = |call: &Call| call.correlation > CLEAN && lost(&call.counted) == 0;
    let call = stall::unless_stalled(is_good, || pjsip_call(&offer));
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
    assert!(correlation > CLEAN, "{correlation} {counted}");
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
    assert_eq!(stream["millis"], offer.millis, "{stream}");
    assert_eq!(lost(&counted), 0, "{counted}");
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

/// `ringwire call` to PJSIP, which sends back what it hears. What it says of the stream.
fn call_to_pjsip(offer: Offer) -> Value {
    let name = offer.codec.split('/').next().unwrap();
    let call = || {
        let phone = Pjsip::start(&offer);
        let target = format!("sip:phone@{}", phone.there());
        let arguments = ["--codec", name, "--min-correlation", "0.7"];
        let call = gateway::call(&target, phone.here(), &arguments);
        (call, phone.media())
    };
    let (call, stream) = stall::unless_stalled(|(call, _)| call.success, call);
    println!("to PJSIP, {offer:?}: {}", call.result["echo"]);
    assert!(call.success, "{} {stream}", call.result);
    assert_eq!(call.result["codec"], name);
    assert_eq!(call.result["packetsLost"], 0, "{}", call.result);
    stream
}

#[test]
fn pjsip_answers_what_we_offer() {
    // We offer 20 ms, and take the other.
    for millis in [20, 30] {
        let stream = call_to_pjsip(Offer {
            codec: "iLBC/8000/1",
            millis,
            ..Offer::default()
        });
        assert_eq!(stream["millis"], millis, "{stream}");
    }
    // We offer both bit rates, this one first; what tells them apart is in no package's PJSIP.
    let stream = call_to_pjsip(Offer {
        codec: "G7221/16000/1",
        ..Offer::default()
    });
    assert_eq!(stream["bits"], 32_000, "{stream}");
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
            let gateway = echo_in(phone.here(), "AMR-WB", encryption);
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

/// A call in G.722 through the carrier, whose relay makes AMR-WB of it on the way to us, packed as `fmtp` says. What the caller says of it, our
/// record, and how many packets and bytes of ours, RTP headers with them, came to the relay.
fn relayed_call(fmtp: &str) -> (gateway::TestCall, Value, (u64, u64)) {
    let offer = format!("transcode-AMR-WB/16000/1/23850//{fmtp} codec-mask-all");
    let carrier = Carrier::start(&["--relay", "yes", "--relay-offer", &offer]);
    let server = carrier.sip();
    let gateway = registered(
        &carrier,
        Gateway::start,
        &echo("bot", ""),
        "codecs: [AMR-WB]",
    );
    assert_built(&gateway);
    let caller = Address::claim();
    let arguments = ["--header", "X-Provider: network", "--codec", "G722"];
    let call = gateway::call(&format!("sip:{NUMBER}@{server}"), caller.ip(), &arguments);
    // It counts at the end of the call: `Port OWN:PORT <> OUR:PORT, SSRC ..., 300 p, 13500 b, ...`, addresses in columns.
    let ours = format!("{}:", gateway.ip());
    let is_ours = |line: &str| {
        let (_, peer) = line.split_once("<>").unwrap_or_default();
        peer.trim_start().starts_with(&ours) && !line.contains("(RTCP)")
    };
    let count = |line: &str, unit: &str| -> Option<u64> {
        let number = line.split(unit).next()?.rsplit(' ').next()?;
        number.parse().ok()
    };
    let counted = wait::until_ok(seconds(5), "the relay has counted", || {
        let log = carrier.log("rtpengine");
        let mut lines = log.lines();
        let line = lines.find(|line| is_ours(line));
        let found = line.and_then(|line| Some((count(line, " p,")?, count(line, " b,")?)));
        found.ok_or(log)
    });
    (call, gateway.record(), counted)
}

#[test]
fn a_relay_that_codes_amr_wb_is_heard_in_both_payload_formats() {
    // Ours are in mode 2, 253 bits: behind 10 bits of headers, or in whole octets behind two of them.
    for (fmtp, bytes) in [("octet-align--0", 33), ("octet-align--1", 34)] {
        let call = || relayed_call(fmtp);
        let is_clean = |call: &gateway::TestCall| {
            let correlation = call.result["echo"]["correlation"].as_f64();
            correlation.is_some_and(|correlation| correlation > CLEAN)
        };
        let (call, record, counted) = stall::unless_stalled(|(call, ..)| is_clean(call), call);
        println!("rtpengine, AMR-WB, {fmtp}: {}", call.result["echo"]);
        assert!(is_clean(&call), "{} {record}", call.result);
        assert_eq!(record["codec"], "AMR-WB");
        let (packets, octets) = counted;
        assert_eq!(octets, packets * (12 + bytes), "{packets} packets");
        for packets in [Some(packets), record["packets_received"].as_u64()] {
            assert!(packets > Some(280), "{record}");
        }
        assert_eq!(record["packets_lost"], 0, "{record}");
        assert_eq!(call.result["packetsLost"], 0, "{}", call.result);
    }
}
