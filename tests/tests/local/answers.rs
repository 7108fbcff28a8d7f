//! What a carrier asks and what it is answered, before there is a call.

use std::net::TcpListener;
use std::time::Duration;

use ringwire_tests::address::Address;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

use crate::{agent_gateway, echo_gateway, local_set};

/// The record of the phone's call must say this.
#[track_caller]
pub fn assert_refused(gateway: &Gateway, phone: &Phone, status: u16, reason: &str) -> Value {
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&status.into(), &reason.into()),
        "{record}"
    );
    assert_eq!(
        record["answer"], "",
        "a refused call was answered: {record}"
    );
    record
}

#[test]
fn an_unknown_number_is_not_found_and_the_record_says_what_was_compared() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    phone.dial("0034999999999");
    let offer = phone.offer();
    assert_eq!(phone.invite("", &offer).status(), 404);
    let record = assert_refused(&gateway, &phone, 404, "NumberNotFound");
    assert!(
        record["detail"].as_str().unwrap().contains("0034999999999")
            || record["detail"].as_str().unwrap().contains("+34999999999")
    );
}

#[test]
fn a_number_without_agent_is_unavailable() {
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    assert_eq!(
        gateway.object("PhoneNumber", "main")["status"]["state"],
        "Inactive"
    );
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    assert_eq!(phone.invite("", &offer).status(), 480);
    assert_refused(&gateway, &phone, 480, "NoAgent");
}

#[test]
fn an_agent_that_cannot_be_reached_leaves_the_call_unanswered_with_the_reason() {
    let nobody = {
        // Free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Gateway::start(&[(
        "all.yaml",
        &local_set(&web_socket("bot", &format!("ws://{nobody}/"), "")),
    )]);
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let answer = phone.invite("", &offer);
    assert_eq!(answer.status(), 480, "{}", answer.text);
    assert!(
        answer.header("Reason").contains("AgentUnreachable"),
        "{}",
        answer.text
    );
    assert_refused(&gateway, &phone, 480, "AgentUnreachable");
    let agent = wait::until(seconds(3), "the agent's status tells", || {
        let agent = gateway.object("VoiceAgent", "bot");
        agent["status"]["lastError"].is_string().then_some(agent)
    });
    let conditions = agent["status"]["conditions"].as_array().unwrap();
    let find = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .unwrap()
    };
    assert_eq!(find("BackendReachable")["status"], "False");
    assert_eq!(
        find("Ready")["status"],
        "True",
        "what the agent does now does not make its YAML wrong"
    );
}

#[test]
fn an_agent_that_does_not_accept_in_time_leaves_the_call_unanswered() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "connectTimeoutSeconds: 1");
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let answer = phone.invite("", &offer);
    assert_eq!(answer.status(), 480, "{}", answer.text);
    assert!(
        answer.header("Reason").contains("AgentTimeout"),
        "{}",
        answer.text
    );
    assert_refused(&gateway, &phone, 480, "AgentTimeout");
}

#[test]
fn a_source_that_is_not_allowed_is_refused_and_named_in_the_status() {
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [203.0.113.0/24]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    assert_eq!(phone.invite("", &offer).status(), 403);
    let record = assert_refused(&gateway, &phone, 403, "SourceNotAllowed");
    let source = record["source"]
        .as_str()
        .unwrap()
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        record["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("add {source} to spec.allowedSources")),
        "{record}"
    );
    wait::until_ok(seconds(2), "the status names the source", || {
        let refused = gateway.object("SipProvider", "trunk")["status"]["refusedSources"].clone();
        if refused == serde_json::json!([source]) {
            Ok(())
        } else {
            Err(refused.to_string())
        }
    });
    // The status is not for those who dial anything: that call only gets its 403.
    let mut stranger = Phone::udp(gateway.sip());
    stranger.dial("100");
    assert_eq!(stranger.invite("", &offer).status(), 403);
    // The line that was named lets it in.
    let fixed = set
        .join("---\n")
        .replace("203.0.113.0/24", &format!("203.0.113.0/24, {source}"));
    gateway.write("all.yaml", &fixed);
    wait::until(seconds(3), "the source is let in", || {
        // Until then it is a stranger, and may send ten messages a second.
        std::thread::sleep(Duration::from_millis(250));
        phone.new_call();
        let answer = phone.invite("", &offer);
        (answer.status() == 200).then(|| {
            phone.confirm(&answer, "");
            phone.hang_up();
        })
    });
}

#[test]
fn what_is_required_and_unknown_is_refused_by_name() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let answer = phone.invite("Require: 100rel, x-teleport\n", &offer);
    assert_eq!(answer.status(), 420, "{}", answer.text);
    assert!(
        answer.header("Unsupported").contains("x-teleport"),
        "{}",
        answer.text
    );
    assert_refused(&gateway, &phone, 420, "CallRefused");
}

#[test]
fn an_offer_without_a_common_codec_is_not_acceptable() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer =
        phone.sdp("m=audio {port} RTP/AVP 18 96\na=rtpmap:18 G729/8000\na=rtpmap:96 opus/48000/2");
    let answer = phone.invite("", &offer);
    assert_eq!(answer.status(), 488, "{}", answer.text);
    assert!(!answer.header("Warning").is_empty(), "{}", answer.text);
    assert_refused(&gateway, &phone, 488, "CodecMismatch");
}

#[test]
fn an_offer_of_encrypted_audio_only_is_not_acceptable() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.sdp(
        "m=audio {port} RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
    );
    assert_eq!(phone.invite("", &offer).status(), 488);
    assert_refused(&gateway, &phone, 488, "EncryptionRequired");
    assert!(
        !gateway.records()[0].to_string().contains("WVNfX19"),
        "a key in the log"
    );
}

#[test]
fn media_lines_that_are_not_wanted_are_refused_in_their_place() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.sdp(
        "m=video 4002 RTP/AVP 96\na=rtpmap:96 H264/90000\nm=audio {port} RTP/AVP 8\nm=audio 4006 RTP/AVP 0\nm=image 4008 udptl t38",
    );
    let answer = phone.invite("", &offer);
    let lines = answer.lines("m=");
    assert_eq!(lines.len(), 4, "{}", answer.text);
    assert!(lines[0].starts_with("m=video 0 RTP/AVP"), "{lines:?}");
    assert!(
        lines[1].starts_with("m=audio ") && !lines[1].starts_with("m=audio 0 "),
        "{lines:?}"
    );
    assert!(lines[1].contains(" RTP/AVP 8"), "{lines:?}");
    assert!(lines[2].starts_with("m=audio 0 RTP/AVP"), "{lines:?}");
    assert!(lines[3].starts_with("m=image 0 udptl"), "{lines:?}");
    phone.confirm(&answer, "");
    phone.hang_up();
}

#[test]
fn options_is_answered_with_what_can_be_done() {
    let gateway = echo_gateway();
    for mut phone in [Phone::udp(gateway.sip()), Phone::tcp(gateway.sip())] {
        let answer = phone.ask("OPTIONS", "", "");
        assert_eq!(answer.status(), 200, "{}", answer.text);
        for method in ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE"] {
            assert!(answer.header("Allow").contains(method), "{}", answer.text);
        }
        assert_eq!(answer.header("Accept"), "application/sdp");
    }
}

#[test]
fn methods_that_are_not_known_are_not_allowed() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    for method in ["SUBSCRIBE", "MESSAGE", "FROBNICATE", "REGISTER"] {
        phone.new_call();
        let answer = phone.ask(method, "", "");
        assert_eq!(answer.status(), 405, "{}", answer.text);
        assert!(answer.header("Allow").contains("INVITE"), "{}", answer.text);
    }
}

#[test]
fn a_bye_for_a_call_that_is_not_there_is_answered_481() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    assert_eq!(phone.ask("BYE", "", "").status(), 481);
    for method in ["BYE", "INVITE", "UPDATE", "OPTIONS"] {
        phone.new_call();
        let text = phone.request(method, "", "");
        let text = text.replace(
            &format!("To: <sip:{NUMBER}@{}>", gateway.sip()),
            &format!("To: <sip:{NUMBER}@x>;tag=gone"),
        );
        phone.send(&text);
        assert_eq!(phone.finish_invite_or(method, &text), 481, "{method}");
    }
}

#[test]
fn a_request_that_has_come_too_far_is_refused() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    assert_eq!(phone.invite("Max-Forwards: 0\n", &offer).status(), 483);
}

#[test]
fn what_cannot_be_read_is_answered_400_with_the_reason() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    for (broken, instead) in [
        ("CSeq: 1 INVITE", "CSeq: one INVITE"),
        ("Call-ID:", "X-Call-ID:"),
        ("From:", "X-From:"),
    ] {
        phone.new_call();
        let offer = phone.offer();
        let text = phone.request("INVITE", "", &offer).replace(broken, instead);
        phone.send(&text);
        let answer = phone.expect("a 400", |message| message.status() >= 200);
        assert_eq!(answer.status(), 400, "{}", answer.text);
        let phrase = answer.text.lines().next().unwrap().to_owned();
        assert!(
            phrase.len() > "SIP/2.0 400 Bad Request".len(),
            "no reason in the phrase: {phrase}"
        );
    }
    // Junk is dropped, and the next one is served.
    phone.send("\u{0}\u{1}\u{2}junk\r\n\r\n");
    phone.new_call();
    phone.call();
    phone.hang_up();
}

#[test]
fn an_invite_that_comes_again_gets_the_same_answer_and_makes_no_second_call() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let invite = phone.request("INVITE", "", &offer);
    phone.send(&invite);
    let first = phone.answer("INVITE");
    phone.send(&invite);
    let second = phone.answer("INVITE");
    assert_eq!(first.text, second.text);
    gateway.wait_calls(1);
    phone.confirm(&first, "");
    phone.hang_up();
    gateway.wait_calls(0);
    assert_eq!(gateway.records().len(), 1);
}

#[test]
fn an_answer_goes_where_rport_says_and_fits_into_a_datagram() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let address = Address::claim();
    let offer = phone.offer();
    // A NAT is in between: the Via names an address at which nobody is.
    let invite = phone.request("INVITE", "", &offer);
    let local = invite
        .split("SIP/2.0/UDP ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let invite = invite.replace(
        &format!("UDP {local};rport"),
        &format!("UDP {address}:5999;rport"),
    );
    phone.send(&invite);
    let answer = phone.answer("INVITE");
    let via = answer.header("Via");
    let ip = local.split(':').next().unwrap();
    assert!(
        via.contains(&format!("received={ip}")) && via.contains("rport=5060"),
        "{via}"
    );
    assert!(answer.text.len() < 1300, "{} bytes", answer.text.len());
    phone.confirm(&answer, "");
    phone.hang_up();
}

#[test]
fn an_unknown_extension_or_scheme_is_refused_outside_of_calls_too() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let answer = phone.ask("OPTIONS", "Require: teleport\n", "");
    assert_eq!(answer.status(), 420, "{}", answer.text);
    assert_eq!(answer.header("Unsupported"), "teleport");
    phone.new_call();
    let request = phone.request("OPTIONS", "", "");
    phone.send(&request.replacen("OPTIONS sip:", "OPTIONS pigeon:", 1));
    assert_eq!(phone.answer("OPTIONS").status(), 416);
}
