//! Peers that find their way to us by ICE: aiortc as a browser would, rtpengine, and PJSIP.

use ringwire_tests::audio::{self, IS_ECHO};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::pjsip::{Offer, Pjsip};
use ringwire_tests::wait::seconds;
use ringwire_tests::webrtc::Peer;

use super::encryption::relayed;

/// An echo for everybody's calls, encrypted by a handshake.
pub(super) fn gateway(codec: &str) -> Gateway {
    let more = format!("allowedSources: [127.0.0.0/8], mediaEncryption: DTLS, codecs: [{codec}]");
    let set = [
        static_trunk("127.0.0.1", &more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n"))])
}

/// A peer's call: it is connected, and hears itself.
fn talk(phone: &mut Phone, peer: &mut Peer) {
    let answer = phone.invite("", &peer.offer());
    phone.confirm(&answer, "");
    assert!(answer.body().contains("a=ice-lite\r\n"), "{}", answer.text);
    peer.answer(answer.body());
    peer.connected();
    peer.hears_itself();
}

#[test]
fn a_webrtc_peer_hears_itself() {
    for codec in ["Opus", "PCMU"] {
        let gateway = gateway(codec);
        let mut phone = Phone::udp(gateway.sip());
        let mut peer = Peer::start(1);
        talk(&mut phone, &mut peer);
        // Time for its reports.
        for _ in 0..4 {
            peer.hears_itself();
        }
        phone.hang_up();
        let record = gateway.record();
        assert_eq!(record["encryption"], "DTLS", "{record}");
        assert!(record["packets_received"].as_u64() > Some(20), "{record}");
        assert_eq!(record["packets_not_authentic"], 0, "{record}");
        assert_eq!(record["packets_lost_remote"], 0, "its reports: {record}");
    }
}

#[test]
fn a_webrtc_peer_with_several_addresses_is_heard_from_one_that_it_chooses() {
    let gateway = gateway("PCMU");
    let mut calls = [(); 2].map(|()| (Phone::udp(gateway.sip()), Peer::start(3)));
    for (phone, peer) in &mut calls {
        talk(phone, peer);
    }
    for (phone, peer) in &mut calls {
        // Both go on beside each other.
        peer.hears_itself();
        phone.hang_up();
    }
    let (_, metrics) = gateway.http("/metrics").unwrap();
    let refused = "ringwire_rtp_dropped_total{reason=\"BadCheck\"} 0";
    assert!(metrics.contains(refused), "{metrics}");
}

#[test]
fn a_relay_that_checks_its_way_is_heard() {
    for (offer, ours) in [
        ("RTP/AVP ICE=force", "None"),
        ("RTP/SAVP ICE=force", "SDES"),
        ("UDP/TLS/RTP/SAVPF rtcp-mux-offer ICE=force", "DTLS"),
        ("UDP/TLS/RTP/SAVP ICE=force", "DTLS"),
    ] {
        let (record, relay) = relayed(offer, ours);
        let found = "ICE negotiated: peer for component 1 is ";
        assert!(relay.contains(found), "{offer}: {record}\n{relay}");
    }
}

/// The names that ICE has had in a phone's log, its own and ours.
fn names(log: &str) -> std::collections::BTreeSet<&str> {
    log.lines()
        .filter_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:"))
        .collect()
}

#[test]
fn a_phone_that_begins_ice_anew_is_heard_before_and_after() {
    let samples = ringwire_media::tone::speech_like(4_000, 7);
    for encryption in ["None", "SDES"] {
        let phone = Pjsip::start(&Offer {
            ice: true,
            sdes: encryption == "SDES",
            ..Offer::default()
        });
        let more =
            format!("allowedSources: [0.0.0.0/0], mediaEncryption: {encryption}, codecs: [PCMU]");
        let set = [
            static_trunk("127.0.0.1", &more),
            number("main", NUMBER, "trunk", "bot"),
            echo("bot", ""),
        ];
        let gateway = Gateway::start_on(phone.here(), &[("all.yaml", &set.join("---\n"))]);
        phone.call(&format!("sip:{NUMBER}@{}", gateway.sip()));
        for turn in 0..2 {
            if turn == 1 {
                phone.restart();
            }
            let heard = phone.talk(&samples, seconds(5));
            let found = heard.counted["dump"].as_str().unwrap();
            let agreed = "ICE role: Controlling, state: Negotiation Success, comp_cnt: 2";
            assert!(found.contains(agreed), "{found}");
            let correlation = audio::compare(&samples, &heard.samples).correlation;
            println!("PJSIP with ICE, {encryption}, turn {turn}: correlation {correlation:.4}");
            assert!(correlation > IS_ECHO, "{correlation} {found}");
            // Each side has a name of its own for each time.
            let log = phone.log();
            assert_eq!(names(&log).len(), 2 * (turn + 1), "{:?}", names(&log));
        }
        phone.hang_up();
        let record = gateway.record();
        assert_eq!(record["reason"], "CallerHungUp", "{record}");
        let (_, metrics) = gateway.http("/metrics").unwrap();
        let refused = "ringwire_rtp_dropped_total{reason=\"BadCheck\"} 0";
        assert!(metrics.contains(refused), "{metrics}");
    }
}
