//! DTLS handshakes that we begin, with OpenSSL (aiortc, rtpengine) on the other side, and those that fail.

use ringwire_tests::gateway::Gateway;
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};
use ringwire_tests::webrtc::{Peer, Shaking};
use serde_json::Value;

use super::encryption::relayed_with;
use super::ice::gateway;

/// A peer's call. Gives the phone that signals for it.
fn call(gateway: &Gateway, peer: &mut Peer, offer: &str, role: &str) -> Phone {
    let mut phone = Phone::udp(gateway.sip());
    let answer = phone.invite("", offer);
    phone.confirm(&answer, "");
    let said = format!("a=setup:{role}\r\n");
    assert!(answer.body().contains(&said), "{}", answer.text);
    peer.answer(answer.body());
    phone
}

/// The record of a call that ended because of its handshake, and has nothing to do with sound.
fn failed(gateway: &Gateway, phone: &mut Phone) -> Value {
    let bye = phone.wait_request("BYE", seconds(25));
    phone.respond(&bye, 200);
    let record = wait::until(seconds(5), "the call's record", || {
        gateway.records().into_iter().next()
    });
    assert_eq!(record["reason"], "EncryptionFailed", "{record}");
    assert_eq!(record["packets_sent"], 0, "{record}");
    assert_eq!(record["packets_received"], 0, "{record}");
    record
}

#[test]
fn a_passive_peer_is_begun_with_and_hears_itself() {
    let gateway = gateway("PCMU");
    let mut peer = Peer::shaking(&Shaking::default());
    let offer = peer.offer();
    let mut phone = call(&gateway, &mut peer, &offer, "active");
    peer.connected();
    peer.hears_itself();
    peer.expect(seconds(10), "reports of ours", |told| {
        told["reports"].as_u64() > Some(0)
    });
    phone.hang_up();
    let record = gateway.record();
    assert_eq!(record["encryption"], "DTLS", "{record}");
    assert_eq!(record["packets_not_authentic"], 0, "{record}");
    assert_eq!(record["packets_lost_remote"], 0, "its reports: {record}");
}

#[test]
fn a_passive_peer_whose_port_is_not_there_yet_is_asked_again() {
    let gateway = gateway("PCMU");
    let mut peer = Peer::shaking(&Shaking {
        late: seconds(2),
        ..Shaking::default()
    });
    let offer = peer.offer();
    let mut phone = call(&gateway, &mut peer, &offer, "active");
    peer.connected();
    peer.hears_itself();
    phone.hang_up();
    assert_eq!(gateway.record()["encryption"], "DTLS");
}

#[test]
fn without_rtcp_mux_reports_have_a_handshake_of_their_own() {
    for (setup, role) in [("passive", "active"), ("active", "passive")] {
        let gateway = gateway("PCMU");
        let mut peer = Peer::shaking(&Shaking {
            setup,
            mux: false,
            reports: "shake",
            ..Shaking::default()
        });
        let offer = peer.offer();
        let mut phone = call(&gateway, &mut peer, &offer, role);
        peer.connected();
        peer.hears_itself();
        let told = peer.expect(seconds(10), "reports of ours", |told| {
            told["reports"].as_u64() > Some(0)
        });
        assert_eq!(told["reports_state"], "connected", "{told}");
        assert_eq!(told["bad"], 0, "{told}");
        phone.hang_up();
        let record = gateway.record();
        assert_eq!(record["packets_not_authentic"], 0, "{record}");
        assert_eq!(record["packets_lost_remote"], 0, "its reports: {record}");
    }
}

#[test]
fn reports_without_keys_of_their_own_are_neither_sent_nor_taken() {
    let gateway = gateway("PCMU");
    let mut peer = Peer::shaking(&Shaking {
        mux: false,
        reports: "clear",
        ..Shaking::default()
    });
    let offer = peer.offer();
    let mut phone = call(&gateway, &mut peer, &offer, "active");
    peer.connected();
    // Six seconds of sound: ours would have had their turn by then.
    let told = peer.expect(seconds(20), "six seconds of sound", |told| {
        told["packets"].as_u64() > Some(300)
    });
    assert_eq!((&told["reports"], &told["bad"]), (&0.into(), &0.into()));
    phone.hang_up();
    let record = gateway.record();
    assert!(record["packets_lost_remote"].is_null(), "{record}");
    let refused = record["packets_not_authentic"].as_u64();
    assert!(refused > Some(5), "its reports: {record}");
}

#[test]
fn a_passive_webrtc_peer_is_begun_with_once_it_has_found_its_way() {
    let gateway = gateway("Opus");
    let mut peer = Peer::start(1);
    // aiortc never insists itself, but follows.
    let offer = peer.offer().replace("a=setup:actpass", "a=setup:passive");
    let mut phone = call(&gateway, &mut peer, &offer, "active");
    peer.connected();
    peer.hears_itself();
    phone.hang_up();
    let record = gateway.record();
    assert_eq!(record["encryption"], "DTLS", "{record}");
    assert_eq!(record["packets_not_authentic"], 0, "{record}");
}

#[test]
fn a_relay_that_waits_for_our_handshake_is_heard() {
    for (offer, ours) in [
        ("UDP/TLS/RTP/SAVP", "DTLS"),
        ("UDP/TLS/RTP/SAVPF rtcp-mux-offer", "OptionalDTLS"),
    ] {
        // All that it is told is in its log.
        let more = [
            "--relay-setup",
            "passive",
            "--relay-options",
            "--log-level=7",
        ];
        let (record, relay) = relayed_with(&more, offer, ours);
        assert_eq!(record["encryption"], "DTLS", "{record}");
        assert!(relay.contains("a=setup:active"), "{relay}");
    }
}

#[test]
fn another_certificate_than_the_one_told_ends_the_call_whoever_begins() {
    for (setup, role) in [("passive", "active"), ("active", "passive")] {
        let gateway = gateway("PCMU");
        let mut peer = Peer::shaking(&Shaking {
            setup,
            lies: true,
            ..Shaking::default()
        });
        let offer = peer.offer();
        let mut phone = call(&gateway, &mut peer, &offer, role);
        let record = failed(&gateway, &mut phone);
        let detail = record["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("a=fingerprint"), "{record}");
    }
}

#[test]
fn a_peer_with_an_rsa_certificate_hears_itself_whoever_begins() {
    for (setup, role) in [("passive", "active"), ("active", "passive")] {
        let gateway = gateway("PCMU");
        let mut peer = Peer::shaking(&Shaking {
            setup,
            key: "rsa",
            ..Shaking::default()
        });
        let offer = peer.offer();
        let mut phone = call(&gateway, &mut peer, &offer, role);
        peer.connected();
        peer.hears_itself();
        phone.hang_up();
        let record = gateway.record();
        assert_eq!(record["encryption"], "DTLS", "{record}");
        assert_eq!(record["packets_not_authentic"], 0, "{record}");
    }
}

#[test]
fn a_handshake_comes_to_its_end_where_datagrams_are_lost_and_messages_in_pieces() {
    for (setup, role) in [("passive", "active"), ("active", "passive")] {
        for seed in 1..=3 {
            let gateway = gateway("PCMU");
            let mut peer = Peer::shaking(&Shaking {
                setup,
                key: "rsa",
                loses: (15, seed),
                mtu: 256,
                ..Shaking::default()
            });
            let offer = peer.offer();
            let mut phone = call(&gateway, &mut peer, &offer, role);
            peer.connected();
            phone.hang_up();
            let record = gateway.record();
            assert_eq!(record["encryption"], "DTLS", "{role}, {seed}: {record}");
        }
    }
}
