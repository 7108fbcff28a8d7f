//! Offers and answers as they are seen on the wire.

use proptest::prelude::*;
use ringwire_sip::sdp::{
    AmrWb, Capabilities, Codec, Direction, DtlsTerms, Encryption, Fingerprint, Negotiated,
    OfferError, SdesKeys, Secret, Security, SessionDescription, Suite, answer, apply_answer,
    ilbc_millis, offer, offer_again,
};

use crate::{HEAD, caps, local, parse};

fn respond(text: &str) -> Result<(String, Negotiated), OfferError> {
    crate::respond(text, &caps())
}

fn with(media: &str) -> String {
    format!("{HEAD}{media}")
}

#[test]
fn answers_with_our_preferred_codec_and_the_payload_types_of_the_offer() {
    let (text, agreed) = respond(&with(
        "m=audio 4000 RTP/AVP 18 0 8 96\na=rtpmap:18 G729/8000\na=rtpmap:96 Telephone-Event/8000\na=fmtp:96 0-16\na=ptime:30\n",
    ))
    .unwrap();
    assert_eq!(
        text,
        "v=0\r\no=ringwire 7 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 20000 RTP/AVP 8 96\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    );
    assert_eq!(
        (
            agreed.codec,
            agreed.payload_type,
            agreed.receive_payload_type
        ),
        (Codec::Pcma, 8, 8)
    );
    assert_eq!(agreed.telephone_event, Some((96, 96)));
    assert_eq!(agreed.remote, Some("203.0.113.5:4000".parse().unwrap()));
    assert_eq!(
        agreed.remote_rtcp,
        Some("203.0.113.5:4001".parse().unwrap())
    );
    assert!(
        !agreed.on_hold
            && agreed.local_direction == Direction::SendRecv
            && agreed.ptime_millis == 20
    );
}

#[test]
fn a_codec_under_a_dynamic_payload_type_keeps_its_number() {
    let (_, agreed) = respond(&with(
        "m=audio 4000 RTP/AVP 8 97\na=rtpmap:8 OTHER/8000\na=rtpmap:97 pcma/8000/1\n",
    ))
    .unwrap();
    assert_eq!((agreed.codec, agreed.payload_type), (Codec::Pcma, 97));
    let wide = respond(&with("m=audio 4000 RTP/AVP 97\na=rtpmap:97 PCMA/16000\n")).unwrap_err();
    assert_eq!(
        wide,
        OfferError::NoCommonCodec {
            offered: "PCMA/16000".to_owned()
        }
    );
}

#[test]
fn every_other_stream_is_refused_in_its_place() {
    let (text, _) = respond(&with(
        "m=video 5000 RTP/AVP 31\nm=audio 4000 RTP/SAVP 8\nm=audio 4002 RTP/AVPF 0\na=rtcp-fb:* nack\nm=image 6000 udptl t38\nm=audio 4004 RTP/AVP 8\n",
    ))
    .unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=video 0 RTP/AVP 31",
            "m=audio 0 RTP/SAVP 8",
            "m=audio 20000 RTP/AVPF 0",
            "m=image 0 udptl t38",
            "m=audio 0 RTP/AVP 8"
        ]
    );
}

#[test]
fn hold_is_answered_by_its_kind() {
    for (line, ours, held) in [
        ("a=sendonly", Direction::RecvOnly, true),
        ("a=inactive", Direction::Inactive, true),
        ("a=recvonly", Direction::SendOnly, false),
        ("a=sendrecv", Direction::SendRecv, false),
        ("c=IN IP4 0.0.0.0", Direction::RecvOnly, true),
        ("c=IN IP4 0.0.0.0\na=inactive", Direction::Inactive, true),
    ] {
        let (text, agreed) = respond(&with(&format!("m=audio 4000 RTP/AVP 8\n{line}\n"))).unwrap();
        assert!(text.ends_with(&format!("a={ours}\r\n")), "{line}: {text}");
        assert_eq!(
            (agreed.local_direction, agreed.on_hold),
            (ours, held),
            "{line}"
        );
        assert_eq!(agreed.remote.is_none(), line.contains("0.0.0.0"));
    }
    let (_, agreed) = respond(&format!("{HEAD}a=sendonly\nm=audio 4000 RTP/AVP 8\n")).unwrap();
    assert_eq!(
        agreed.local_direction,
        Direction::RecvOnly,
        "a direction of the session holds for its media"
    );
    let (_, agreed) = respond(&format!(
        "{HEAD}a=sendonly\nm=audio 4000 RTP/AVP 8\na=sendrecv\n"
    ))
    .unwrap();
    assert_eq!(agreed.local_direction, Direction::SendRecv);
}

#[test]
fn refusals_say_why() {
    assert_eq!(
        respond(&with("m=audio 4000 RTP/SAVP 8\n")).unwrap_err(),
        OfferError::EncryptionRequired
    );
    assert_eq!(
        respond(&with("m=audio 4000 UDP/TLS/RTP/SAVPF 8\n")).unwrap_err(),
        OfferError::EncryptionRequired
    );
    assert_eq!(
        respond(&with("m=video 4000 RTP/AVP 31\n")).unwrap_err(),
        OfferError::NoAudio
    );
    assert_eq!(
        respond(&with("m=audio 0 RTP/AVP 8\n")).unwrap_err(),
        OfferError::NoAudio
    );
    assert_eq!(respond(HEAD).unwrap_err(), OfferError::NoAudio);
    let none = respond(&with(
        "m=audio 4000 RTP/AVP 18 111 9\na=rtpmap:111 opus/48000/2\n",
    ))
    .unwrap_err();
    assert_eq!(
        none.to_string(),
        "no common codec, offered: G729/8000, opus/48000, G722/8000"
    );
    for bad in [
        "m=audio 70000 RTP/AVP 8\n",
        "m=audio\n",
        "c=IN\n",
        "m=audio 4000 RTP/AVP 8\nc=IN IP4 224.0.0.1\n",
    ] {
        let error = SessionDescription::parse(with(bad).as_bytes())
            .and_then(|offer| answer(&offer, &caps(), &local()));
        assert!(matches!(error, Err(OfferError::Malformed(_))), "{bad}");
    }
    assert!(
        SessionDescription::parse(b"").is_err() && SessionDescription::parse(b"hello").is_err()
    );
    assert!(
        matches!(
            respond("v=0\nm=audio 4000 RTP/AVP 8\n"),
            Err(OfferError::Malformed(_))
        ),
        "no c= line"
    );
}

#[test]
fn reports_share_the_port_of_audio_where_the_peer_offers_that() {
    for (protocol, more) in [("RTP/AVP", ""), ("RTP/AVPF", "a=rtcp:4010\n")] {
        let media = format!("m=audio 4000 {protocol} 8\na=rtcp-mux\n{more}");
        let (text, agreed) = respond(&with(&media)).unwrap();
        assert_eq!(agreed.remote_rtcp, agreed.remote);
        assert_eq!(text.matches("a=rtcp-mux\r\n").count(), 1, "{text}");
    }
    let (text, agreed) = respond(&with("m=audio 4000 RTP/AVP 8\n")).unwrap();
    assert_ne!(agreed.remote_rtcp, agreed.remote);
    assert!(!text.contains("rtcp-mux"), "{text}");
}

#[test]
fn addresses_of_the_media_and_of_rtcp_are_honoured() {
    let (_, agreed) = respond(&with(
        "m=audio 4000/2 RTP/AVP 8\nc=IN IP6 2001:db8::7\na=rtcp:4010 IN IP6 2001:db8::8\n",
    ))
    .unwrap();
    assert_eq!(agreed.remote, Some("[2001:db8::7]:4000".parse().unwrap()));
    assert_eq!(
        agreed.remote_rtcp,
        Some("[2001:db8::8]:4010".parse().unwrap())
    );
    let (_, agreed) = respond(&with("m=audio 65535 RTP/AVP 8\n")).unwrap();
    assert_eq!(agreed.remote_rtcp, None);
}

#[test]
fn packets_have_20_milliseconds_or_10_where_the_peer_takes_no_longer_ones() {
    let of = |codec: &str, says: &str| {
        let text = with(&format!("m=audio 4000 RTP/AVP {codec}\n{says}\n"));
        let caps = Capabilities {
            codecs: vec![Codec::Pcma, Codec::Ilbc, Codec::G7221 { bitrate: 24_000 }],
            ..caps()
        };
        let (text, agreed) = crate::respond(&text, &caps).unwrap();
        let said = format!("a=ptime:{}\r\n", agreed.ptime_millis);
        assert!(text.contains(&said), "{text}");
        agreed.ptime_millis
    };
    for (says, expected) in [
        ("a=maxptime:20", 20),
        ("a=maxptime:19", 10),
        ("a=maxptime:10", 10),
        ("a=ptime:10\na=maxptime:10", 10),
        // Nothing is that short.
        ("a=maxptime:9", 20),
        // A wish.
        ("a=ptime:10", 20),
        ("a=ptime:30\na=maxptime:150", 20),
    ] {
        assert_eq!(of("8", says), expected, "{says}");
    }
    // Its frames cannot be halved.
    let ilbc = "a=rtpmap:97 iLBC/8000\na=fmtp:97 mode=20\na=maxptime:10";
    assert_eq!(of("97", ilbc), 20);
    let g7221 = "a=rtpmap:98 G7221/16000\na=fmtp:98 bitrate=24000\na=maxptime:10";
    assert_eq!(of("98", g7221), 20);
    // Of an answer as well.
    let ours = offer(&caps(), &local());
    let answer = with("m=audio 4000 RTP/AVP 8\na=maxptime:10\n");
    let agreed = apply_answer(&ours, &parse(&answer), &caps()).unwrap();
    assert_eq!(agreed.ptime_millis, 10);
}

#[test]
fn our_offer_is_answered_and_applied() {
    let ours = offer(&caps(), &local());
    assert!(
        ours.to_string()
            .contains("m=audio 20000 RTP/AVP 8 0 101\r\n")
    );
    let theirs = parse(&with(
        "m=audio 4000 RTP/AVP 0 8 100\na=rtpmap:100 telephone-event/8000\na=sendonly\n",
    ));
    let agreed = apply_answer(&ours, &theirs, &caps()).unwrap();
    assert_eq!(
        (agreed.codec, agreed.payload_type),
        (Codec::Pcmu, 0),
        "the order of the answer counts"
    );
    assert_eq!(agreed.receive_codecs, [(0, Codec::Pcmu), (8, Codec::Pcma)]);
    assert_eq!(agreed.telephone_event, Some((100, 101)));
    assert_eq!(
        (agreed.local_direction, agreed.on_hold),
        (Direction::RecvOnly, true)
    );
    for bad in ["m=audio 0 RTP/AVP 8\n", "", "m=video 4000 RTP/AVP 31\n"] {
        assert_eq!(
            apply_answer(&ours, &parse(&with(bad)), &caps()),
            Err(OfferError::NoAudio)
        );
    }
    let (text, _) = respond(&ours.to_string()).unwrap();
    assert!(apply_answer(&ours, &parse(&text), &caps()).is_ok());
}

#[test]
fn a_value_never_starts_a_line() {
    let mut ours = offer(&caps(), &local());
    ours.session_name = "x\r\na=evil".to_owned();
    ours.media[0]
        .attributes
        .push(("y\nm=evil".to_owned(), Some("z\rm=evil".to_owned())));
    let text = ours.to_string();
    assert!(
        !text
            .split(['\r', '\n'])
            .any(|line| line.contains("evil") && (line.starts_with("m=") || line == "a=evil")),
        "{text}"
    );
}

fn speaks(codecs: &[Codec]) -> Capabilities {
    Capabilities {
        codecs: codecs.to_vec(),
        ..caps()
    }
}

/// The answer's lines about formats, and what was agreed on.
fn respond_as(codecs: &[Codec], media: &str) -> (Vec<String>, Negotiated) {
    let (answer, agreed) = answer(&parse(&with(media)), &speaks(codecs), &local()).unwrap();
    let text = answer.to_string();
    let lines = text.lines().filter(|line| {
        ["m=", "a=rtpmap", "a=fmtp"]
            .iter()
            .any(|own| line.starts_with(own))
    });
    (lines.map(str::to_owned).collect(), agreed)
}

const PHONE: &str = "m=audio 4000 RTP/AVP 111 9 0 8 110 101\na=rtpmap:111 opus/48000/2\n\
    a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;maxplaybackrate=16000\na=rtpmap:9 G722/8000\n\
    a=rtpmap:110 telephone-event/48000\na=rtpmap:101 telephone-event/8000\na=maxptime:60\n";

#[test]
fn the_order_of_the_provider_decides_and_not_that_of_the_phone() {
    for (codecs, number) in [
        (&[Codec::G722, Codec::Opus][..], 9),
        (&[Codec::Pcma, Codec::Opus], 8),
        (&[Codec::L16 { rate: 16_000 }, Codec::Pcmu], 0),
        (&[Codec::Opus, Codec::Pcma], 111),
    ] {
        let (_, agreed) = respond_as(codecs, PHONE);
        assert_eq!(agreed.payload_type, number, "{codecs:?}");
    }
}

#[test]
fn opus_is_answered_with_its_two_channels_and_events_of_its_clock() {
    let (lines, agreed) = respond_as(&[Codec::Opus], PHONE);
    assert_eq!(
        lines,
        [
            "m=audio 20000 RTP/AVP 111 110",
            "a=rtpmap:111 opus/48000/2",
            "a=fmtp:111 useinbandfec=1",
            "a=rtpmap:110 telephone-event/48000",
            "a=fmtp:110 0-15"
        ]
    );
    assert_eq!(
        (agreed.telephone_event, agreed.telephone_event_clock),
        (Some((110, 110)), 48_000)
    );
    let asked = &agreed.parameters;
    assert!(asked.is_set("useinbandfec") && !asked.is_set("usedtx"));
    assert_eq!(asked.number("maxplaybackrate"), Some(16_000));
    let (_, agreed) = respond_as(
        &[Codec::Opus],
        "m=audio 4000 RTP/AVP 96 97\na=rtpmap:96 OPUS/48000/2\na=rtpmap:97 telephone-event/8000\n",
    );
    assert_eq!(
        (agreed.telephone_event, agreed.telephone_event_clock),
        (Some((97, 97)), 8000),
        "better than no keys"
    );
}

#[test]
fn g722_has_the_clock_of_8000_and_a_static_type_and_l16_needs_one_channel() {
    let (lines, agreed) = respond_as(
        &[Codec::G722],
        "m=audio 4000 RTP/AVP 9 110 101\n\
        a=rtpmap:110 telephone-event/48000\na=rtpmap:101 telephone-event/8000\n",
    );
    assert_eq!(
        lines[..2],
        ["m=audio 20000 RTP/AVP 9 101", "a=rtpmap:9 G722/8000"]
    );
    assert_eq!(agreed.telephone_event_clock, 8000);
    let both = [Codec::L16 { rate: 16_000 }, Codec::L16 { rate: 8000 }];
    let (lines, _) = respond_as(
        &both,
        "m=audio 4000 RTP/AVP 10 11 96 97 98\na=rtpmap:96 L16/16000/2\na=rtpmap:97 L16/8000\na=rtpmap:98 L16/44100\n",
    );
    assert_eq!(lines[1], "a=rtpmap:97 L16/8000");
    let music = parse(&with("m=audio 4000 RTP/AVP 10 11\n"));
    assert!(matches!(
        answer(&music, &speaks(&both), &local()),
        Err(OfferError::NoCommonCodec { .. })
    ));
}

#[test]
fn an_offer_of_ours_gives_each_format_a_number_that_it_keeps() {
    let caps = speaks(&[
        Codec::Opus,
        Codec::L16 { rate: 16_000 },
        Codec::G722,
        Codec::Pcma,
    ]);
    let ours = offer(&caps, &local());
    assert_eq!(
        ours.media[0].formats,
        ["96", "97", "9", "8", "98", "99", "101"]
    );
    let text = ours.to_string();
    for line in [
        "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n",
        "a=rtpmap:97 L16/16000\r\n",
        "a=rtpmap:98 telephone-event/48000\r\n",
        "a=rtpmap:99 telephone-event/16000\r\n",
        "a=rtpmap:101 telephone-event/8000\r\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let theirs = parse(&with(
        "m=audio 4000 RTP/AVP 110 120 100\na=rtpmap:110 opus/48000/2\na=fmtp:110 usedtx=1\n\
         a=rtpmap:120 telephone-event/48000\na=rtpmap:100 telephone-event/8000\n",
    ));
    let agreed = apply_answer(&ours, &theirs, &caps).unwrap();
    assert_eq!(
        (agreed.payload_type, agreed.receive_payload_type),
        (110, 96)
    );
    assert_eq!(agreed.telephone_event, Some((120, 98)));
    assert!(agreed.parameters.is_set("usedtx"));
    // Numbers that the phone chose mean the same later, and none of them something else.
    let (said, _) = answer(&parse(&with(PHONE)), &caps, &local()).unwrap();
    let again = offer_again(&caps, &local(), &said);
    assert_eq!(
        again.media[0].formats,
        ["111", "96", "9", "8", "110", "97", "101"]
    );
    assert!(
        again
            .to_string()
            .contains("a=rtpmap:110 telephone-event/48000\r\n")
    );
}

const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e";

fn sdes(required: bool) -> Capabilities {
    let secret = Secret::new([5; 32]);
    Capabilities {
        encryption: Encryption::Sdes { required, secret },
        ..caps()
    }
}

fn answer_with(caps: &Capabilities, text: &str) -> Result<(String, Negotiated), OfferError> {
    answer(&parse(text), caps, &local()).map(|(answer, agreed)| (answer.to_string(), agreed))
}

fn sdes_keys(agreed: &Negotiated) -> &SdesKeys {
    let Some(Security::Sdes(keys)) = &agreed.security else {
        panic!("in the clear: {agreed:?}");
    };
    keys
}

#[test]
fn an_encrypted_stream_is_answered_with_the_first_usable_line() {
    for protocol in ["RTP/SAVP", "RTP/SAVPF", "RTP/AVP", "RTP/AVPF"] {
        let offer = with(&format!(
            "m=audio 4000 {protocol} 8\na=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\n\
             a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4\n\
             a=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31\na=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n"
        ));
        for required in [true, false] {
            let (text, agreed) = answer_with(&sdes(required), &offer).unwrap();
            let keys = sdes_keys(&agreed);
            assert_eq!(keys.suite, Suite::Aes128Sha1_32);
            assert_eq!(keys.receive.bytes(), (1..=30).collect::<Vec<u8>>());
            assert_ne!(keys.send.bytes(), keys.receive.bytes());
            assert!(
                text.contains(&format!("m=audio 20000 {protocol} 8\r\n")),
                "{text}"
            );
            assert_eq!(text.matches("a=crypto:").count(), 1, "{text}");
            assert!(
                text.contains("a=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:"),
                "{text}"
            );
            assert!(!text.contains(KEY), "{text}");
            // Asked twice, the same key.
            assert_eq!(answer_with(&sdes(required), &offer).unwrap().0, text);
        }
    }
}

#[test]
fn the_encrypted_one_of_two_streams_is_taken() {
    let plain = "m=audio 4000 RTP/AVP 8\n";
    let secure =
        format!("m=audio 4002 RTP/SAVP 8\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n");
    for offer in [format!("{plain}{secure}"), format!("{secure}{plain}")] {
        for required in [true, false] {
            let (text, agreed) = answer_with(&sdes(required), &with(&offer)).unwrap();
            assert_eq!(agreed.remote.unwrap().port(), 4002);
            assert!(agreed.security.is_some() && text.contains("m=audio 0 RTP/AVP 8\r\n"));
        }
        let (text, agreed) = respond(&with(&offer)).unwrap();
        assert_eq!(agreed.remote.unwrap().port(), 4000);
        assert!(agreed.security.is_none() && text.contains("m=audio 0 RTP/SAVP 8\r\n"));
    }
    // Without a common codec the other one.
    let other = with(&format!("{plain}{}", secure.replace("SAVP 8", "SAVP 18")));
    let (_, agreed) = answer_with(&sdes(false), &other).unwrap();
    assert_eq!(
        (agreed.remote.unwrap().port(), agreed.security),
        (4000, None)
    );
}

#[test]
fn what_is_required_is_not_given_up() {
    let clear = with("m=audio 4000 RTP/AVP 8\n");
    assert_eq!(
        answer_with(&sdes(true), &clear).unwrap_err(),
        OfferError::InTheClear
    );
    let (text, agreed) = answer_with(&sdes(false), &clear).unwrap();
    assert!(agreed.security.is_none() && !text.contains("crypto"));
    let unusable = |protocol| {
        with(&format!(
            "m=audio 4000 {protocol} 8\na=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\n"
        ))
    };
    let offered = "F8_128_HMAC_SHA1_80".to_owned();
    let none = OfferError::NoCommonEncryption { offered };
    assert_eq!(
        answer_with(&sdes(true), &unusable("RTP/AVP")).unwrap_err(),
        none
    );
    assert_eq!(
        answer_with(&sdes(true), &unusable("RTP/SAVP")).unwrap_err(),
        none
    );
    assert_eq!(
        answer_with(&sdes(false), &unusable("RTP/SAVP")).unwrap_err(),
        none
    );
    assert!(answer_with(&sdes(false), &unusable("RTP/AVP")).is_ok());
    assert!(respond(&unusable("RTP/AVP")).is_ok());
    assert_eq!(none.warn_code(), 302);
    for offer in ["RTP/SAVP 8", "UDP/TLS/RTP/SAVP 8"] {
        let offer = with(&format!("m=audio 4000 {offer}\n"));
        let error = answer_with(&sdes(false), &offer).unwrap_err();
        assert!(
            matches!(error, OfferError::NoCommonEncryption { .. }),
            "{error}"
        );
    }
}

#[test]
fn our_offer_has_keys_and_the_answer_takes_one() {
    for (required, protocol) in [(true, "RTP/SAVP"), (false, "RTP/AVP")] {
        let ours = offer(&sdes(required), &local());
        let text = ours.to_string();
        assert!(
            text.contains(&format!("m=audio 20000 {protocol} 8 0 101\r\n")),
            "{text}"
        );
        let offered: Vec<_> = text
            .lines()
            .filter(|l| l.starts_with("a=crypto:"))
            .collect();
        assert_eq!(offered.len(), 3);
        // Answered by one who has another secret.
        let secret = Secret::new([6; 32]);
        let encryption = Encryption::Sdes { required, secret };
        let theirs = Capabilities {
            encryption,
            ..caps()
        };
        let (answer, heard) = answer_with(&theirs, &text).unwrap();
        let agreed = apply_answer(&ours, &parse(&answer), &sdes(required)).unwrap();
        let (ours_agreed, theirs_agreed) = (sdes_keys(&agreed), sdes_keys(&heard));
        assert_eq!(ours_agreed.suite, Suite::Aes256Gcm);
        assert_eq!(ours_agreed.send, theirs_agreed.receive);
        assert_eq!(ours_agreed.receive, theirs_agreed.send);
        // Our key stays in what we offer later.
        let again = offer_again(&sdes(required), &local(), &ours);
        assert_eq!(again, ours);
        let said = parse(&answer);
        let again = offer_again(&theirs, &local(), &said).to_string();
        let line = answer.lines().find(|l| l.starts_with("a=crypto:")).unwrap();
        assert!(again.contains(line) && again.matches("a=crypto:").count() == 1);
    }
}

#[test]
fn an_answer_without_our_keys_is_in_the_clear_or_none() {
    let line = |tag, suite: &str| {
        let line = format!("a=crypto:{tag} {suite} inline:{KEY}\n");
        with(&format!("m=audio 4000 RTP/AVP 8\n{line}"))
    };
    let ours = |required| offer(&sdes(required), &local());
    for bad in [
        with("m=audio 4000 RTP/AVP 8\n"),
        line(1, "AES_CM_128_HMAC_SHA1_80"),
        line(3, "AES_CM_128_HMAC_SHA1_32"),
        line(9, "AES_CM_128_HMAC_SHA1_80"),
    ] {
        assert!(
            apply_answer(&ours(true), &parse(&bad), &sdes(true)).is_err(),
            "{bad}"
        );
        let agreed = apply_answer(&ours(false), &parse(&bad), &sdes(false)).unwrap();
        assert_eq!(agreed.security, None, "{bad}");
        let encrypted = bad.replace("RTP/AVP", "RTP/SAVP");
        assert!(apply_answer(&ours(false), &parse(&encrypted), &sdes(false)).is_err());
    }
    let good = line(3, "AES_CM_128_HMAC_SHA1_80");
    let agreed = apply_answer(&ours(true), &parse(&good), &sdes(true)).unwrap();
    assert_eq!(sdes_keys(&agreed).suite, Suite::Aes128Sha1_80);
}

fn dtls(required: bool) -> Capabilities {
    let fingerprint = Fingerprint {
        hash: "sha-256",
        value: vec![0xab; 32],
    };
    Capabilities {
        encryption: Encryption::Dtls {
            required,
            fingerprint,
        },
        ..caps()
    }
}

fn theirs() -> String {
    format!("a=fingerprint:sha-256 {}\n", vec!["0C"; 32].join(":"))
}

fn terms(agreed: &Negotiated) -> &DtlsTerms {
    let Some(Security::Dtls(terms)) = &agreed.security else {
        panic!("no handshake: {agreed:?}");
    };
    terms
}

#[test]
fn a_handshake_is_agreed_on_in_both_roles() {
    let ours = format!("a=fingerprint:sha-256 {}\r\n", vec!["AB"; 32].join(":"));
    for (offered, active) in [
        ("a=setup:actpass\n", false),
        ("a=setup:active\n", false),
        ("", false),
        ("a=setup:passive\n", true),
    ] {
        for protocol in [
            "UDP/TLS/RTP/SAVP",
            "UDP/TLS/RTP/SAVPF",
            "RTP/SAVPF",
            "RTP/AVP",
        ] {
            let media = format!("m=audio 4000 {protocol} 8\n");
            // For the media, or for all of the session.
            for text in [
                format!("{HEAD}{media}{offered}{}", theirs()),
                format!("{HEAD}{offered}{}{media}", theirs()),
            ] {
                let (text, agreed) = answer_with(&dtls(true), &text).unwrap();
                assert_eq!(terms(&agreed).active, active, "{offered}");
                assert_eq!(terms(&agreed).fingerprints[0].value, [0x0c; 32]);
                let setup = if active { "active" } else { "passive" };
                assert!(text.contains(&format!("a=setup:{setup}\r\n")), "{text}");
                assert!(text.contains(&ours) && text.contains(protocol), "{text}");
                assert!(!text.contains("rtcp-mux"), "{text}");
                let beside = "203.0.113.5:4001".parse().unwrap();
                assert_eq!(agreed.remote_rtcp, Some(beside), "a handshake of its own");
            }
        }
    }
    let media = "m=audio 4000 UDP/TLS/RTP/SAVP 8\na=rtcp-mux\na=setup:actpass\n";
    let (text, agreed) = answer_with(&dtls(true), &with(&format!("{media}{}", theirs()))).unwrap();
    assert_eq!(agreed.remote_rtcp, agreed.remote);
    assert!(text.contains("a=rtcp-mux\r\n"), "{text}");
}

#[test]
fn an_offer_without_a_usable_handshake_is_refused_or_in_the_clear() {
    let sha1 = format!("a=fingerprint:sha-1 {}\n", vec!["0C"; 20].join(":"));
    let held = format!("a=setup:holdconn\n{}", theirs());
    for attributes in [sha1.as_str(), held.as_str(), ""] {
        let tls = with(&format!("m=audio 4000 UDP/TLS/RTP/SAVP 8\n{attributes}"));
        let plain = with(&format!("m=audio 4000 RTP/AVP 8\n{attributes}"));
        assert!(
            answer_with(&dtls(true), &tls).is_err() && answer_with(&dtls(false), &tls).is_err()
        );
        assert!(answer_with(&dtls(true), &plain).is_err());
        let (_, agreed) = answer_with(&dtls(false), &plain).unwrap();
        assert_eq!(agreed.security, None);
    }
    let sdes = with(&format!(
        "m=audio 4000 RTP/SAVP 8\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n"
    ));
    assert!(answer_with(&dtls(false), &sdes).is_err());
    let tls = with(&format!("m=audio 4000 UDP/TLS/RTP/SAVP 8\n{}", theirs()));
    let error = answer_with(&self::sdes(false), &tls).unwrap_err();
    assert_eq!(
        error,
        OfferError::NoCommonEncryption {
            offered: "DTLS".to_owned()
        }
    );
}

#[test]
fn our_offer_of_a_handshake_lets_the_peer_choose() {
    for (required, protocol) in [(true, "UDP/TLS/RTP/SAVP"), (false, "RTP/AVP")] {
        let ours = offer(&dtls(required), &local());
        let text = ours.to_string();
        assert!(
            text.contains(&format!("m=audio 20000 {protocol} 8 0 101\r\n")),
            "{text}"
        );
        assert!(
            text.contains("a=setup:actpass\r\n") && text.contains("a=rtcp-mux\r\n"),
            "{text}"
        );
        for (setup, active) in [
            ("active", Some(false)),
            ("passive", Some(true)),
            ("actpass", None),
        ] {
            let answer = with(&format!(
                "m=audio 4000 {protocol} 8\na=setup:{setup}\na=rtcp-mux\n{}",
                theirs()
            ));
            let agreed = apply_answer(&ours, &parse(&answer), &dtls(required));
            let agreed = agreed.ok().filter(|agreed| agreed.security.is_some());
            assert_eq!(
                agreed.map(|agreed| terms(&agreed).active),
                active,
                "{setup}"
            );
        }
        let (answered, _) = answer_with(&dtls(required), &text).unwrap();
        let again = offer_again(&dtls(required), &local(), &parse(&answered)).to_string();
        assert!(
            again.contains("a=setup:actpass\r\n") && again.contains(protocol),
            "{again}"
        );
    }
    let clear = parse(&with("m=audio 4000 RTP/AVP 8\n"));
    assert!(apply_answer(&offer(&dtls(true), &local()), &clear, &dtls(true)).is_err());
    assert!(apply_answer(&offer(&dtls(false), &local()), &clear, &dtls(false)).is_ok());
}

#[test]
fn keys_are_not_shown() {
    let text = with(&format!(
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\nm=audio 4000 RTP/SAVP 8\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n"
    ));
    let offer = parse(&text);
    let (answer, agreed) = answer(&offer, &sdes(true), &local()).unwrap();
    let shown = format!("{offer:?} {answer:?} {agreed:?} {:?}", sdes(true));
    assert!(
        !shown.contains("inline") && !shown.contains("AQID") && !shown.contains("1, 2, 3"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SessionDescription::parse(&bytes).and_then(|offer| answer(&offer, &sdes(false), &local()));
    }

    #[test]
    fn what_is_read_prints_stably_and_can_be_answered(lines in prop::collection::vec(
        prop_oneof![
            Just("m=audio 4000 RTP/AVP 0 8 101".to_owned()), Just("m=video 1 RTP/AVP 9".to_owned()), Just("a=sendonly".to_owned()), Just("m=audio 4002 RTP/SAVP 0".to_owned()), Just(format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}")),
            Just("c=IN IP4 1.2.3.4".to_owned()), Just("a=rtpmap:101 telephone-event/8000".to_owned()), "[a-z]=[ -~]{0,30}",
        ], 0..20)) {
        if let Ok(first) = SessionDescription::parse(lines.join("\n").as_bytes()) {
            let again = SessionDescription::parse(&first.to_bytes()).unwrap();
            prop_assert_eq!(again.to_string(), first.to_string());
            if let Ok((reply, agreed)) = answer(&first, &sdes(false), &local()) {
                prop_assert_eq!(reply.media.len(), first.media.len());
                prop_assert_eq!(agreed.receive_codecs.len(), 1);
            }
        }
    }
}

const AMR_WB: [Codec; 2] = [
    Codec::AmrWb {
        octet_aligned: false,
    },
    Codec::AmrWb {
        octet_aligned: true,
    },
];

#[test]
fn amr_wb_is_answered_in_the_format_and_with_the_modes_of_the_offer() {
    let media = "m=audio 4000 RTP/AVP 104 105 110 101\na=rtpmap:104 amr-wb/16000/1\n\
        a=fmtp:104 octet-align=1; mode-set=2, 0,1;mode-change-period=2;mode-change-neighbor=1;mode-change-capability=2\n\
        a=rtpmap:105 AMR-WB/16000\na=rtpmap:110 telephone-event/16000\na=rtpmap:101 telephone-event/8000\n";
    // What is preferred is found, wherever it stands.
    let (lines, agreed) = respond_as(&AMR_WB, media);
    assert_eq!((agreed.codec, agreed.payload_type), (AMR_WB[0], 105));
    assert_eq!(
        lines[..3],
        [
            "m=audio 20000 RTP/AVP 105 110",
            "a=rtpmap:105 AMR-WB/16000",
            "a=fmtp:105 mode-change-capability=2;max-red=0",
        ]
    );
    assert_eq!(agreed.telephone_event_clock, 16_000);

    let (lines, agreed) = respond_as(&AMR_WB[1..], media);
    assert_eq!((agreed.codec, agreed.payload_type), (AMR_WB[1], 104));
    assert_eq!(
        lines[2],
        "a=fmtp:104 octet-align=1;mode-set=0,1,2;mode-change-capability=2;max-red=0"
    );
    let asked = AmrWb::of(&agreed.parameters).unwrap();
    assert_eq!(asked.modes, Some(0b111));
    assert!(asked.octet_aligned && asked.every_second && asked.neighbors_only);
}

#[test]
fn amr_wb_that_we_cannot_do_is_no_common_codec() {
    for parameters in [
        "octet-align=1;crc=1",
        "octet-align=1;robust-sorting=1",
        "octet-align=1;interleaving=30",
        "channels=2",
        "mode-set=9",
        "mode-set=",
    ] {
        let media = format!(
            "m=audio 4000 RTP/AVP 104\na=rtpmap:104 AMR-WB/16000\na=fmtp:104 {parameters}\n"
        );
        let answered = answer(&parse(&with(&media)), &speaks(&AMR_WB), &local());
        assert!(
            matches!(answered, Err(OfferError::NoCommonCodec { .. })),
            "{parameters}"
        );
    }
    let stereo = "m=audio 4000 RTP/AVP 104\na=rtpmap:104 AMR-WB/16000/2\n";
    assert!(answer(&parse(&with(stereo)), &speaks(&AMR_WB), &local()).is_err());
}

#[test]
fn ilbc_has_the_frames_of_the_offer_and_30_ms_if_nothing_is_said() {
    for (said, told, ptime) in [
        ("a=fmtp:97 mode=20\n", "mode=20", 20),
        ("a=fmtp:97 mode=30\n", "mode=30", 30),
        ("", "mode=30", 30),
    ] {
        let media = format!("m=audio 4000 RTP/AVP 97\na=rtpmap:97 iLBC/8000\n{said}a=ptime:20\n");
        let (lines, agreed) = respond_as(&[Codec::Ilbc], &media);
        assert_eq!(lines[2], format!("a=fmtp:97 {told}"));
        assert_eq!(agreed.ptime_millis, ptime);
        assert_eq!(ilbc_millis(&agreed.parameters), Some(ptime.into()));
    }
    let odd = "m=audio 4000 RTP/AVP 97\na=rtpmap:97 iLBC/8000\na=fmtp:97 mode=25\n";
    assert!(answer(&parse(&with(odd)), &speaks(&[Codec::Ilbc]), &local()).is_err());
}

#[test]
fn the_answer_to_our_offer_decides_on_frames_and_format() {
    let codecs = [AMR_WB[0], AMR_WB[1], Codec::Ilbc];
    let ours = offer(&speaks(&codecs), &local());
    let text = ours.to_string();
    for line in [
        "a=rtpmap:96 AMR-WB/16000",
        "a=fmtp:96 mode-change-capability=2;max-red=0",
        "a=rtpmap:97 AMR-WB/16000",
        "a=fmtp:97 octet-align=1;mode-change-capability=2;max-red=0",
        "a=rtpmap:98 iLBC/8000",
        "a=fmtp:98 mode=20",
        "a=rtpmap:99 telephone-event/16000",
        "a=rtpmap:101 telephone-event/8000",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let answered =
        |media: &str| apply_answer(&ours, &parse(&with(media)), &speaks(&codecs)).unwrap();
    let agreed = answered("m=audio 4000 RTP/AVP 98\na=rtpmap:98 iLBC/8000\na=fmtp:98 mode=30\n");
    assert_eq!((agreed.codec, agreed.ptime_millis), (Codec::Ilbc, 30));
    let agreed = answered("m=audio 4000 RTP/AVP 98\na=rtpmap:98 iLBC/8000\na=fmtp:98 mode=20\n");
    assert_eq!(agreed.ptime_millis, 20);
    let agreed = answered(
        "m=audio 4000 RTP/AVP 97\na=rtpmap:97 AMR-WB/16000\na=fmtp:97 octet-align=1;mode-set=0\n",
    );
    assert_eq!((agreed.codec, agreed.receive_payload_type), (AMR_WB[1], 97));
    assert_eq!(AmrWb::of(&agreed.parameters).unwrap().modes, Some(1));
}

#[test]
fn g7221_is_answered_at_a_rate_that_was_offered() {
    let rates = [32_000, 24_000].map(|bitrate| Codec::G7221 { bitrate });
    let offered = |said: &[(u8, &str)]| {
        let numbers: Vec<String> = said.iter().map(|(number, _)| number.to_string()).collect();
        let formats = said.iter().map(|(number, bitrate)| {
            let fmtp = format!("a=fmtp:{number} {bitrate}\n");
            let fmtp = if bitrate.is_empty() { "" } else { &fmtp };
            format!("a=rtpmap:{number} G7221/16000\n{fmtp}")
        });
        let formats: String = formats.collect();
        let media = format!("m=audio 4000 RTP/AVP {}\n{formats}", numbers.join(" "));
        media + "a=ptime:40\na=maxptime:60\n"
    };
    let both = [(120, "bitrate=24000"), (121, "bitrate=32000")];
    let (lines, agreed) = respond_as(&rates, &offered(&both));
    assert_eq!((agreed.codec, agreed.payload_type), (rates[0], 121));
    assert_eq!(
        lines[..3],
        [
            "m=audio 20000 RTP/AVP 121",
            "a=rtpmap:121 G7221/16000",
            "a=fmtp:121 bitrate=32000",
        ]
    );
    assert_eq!(agreed.ptime_millis, 20);
    // The other one alone: of what we have, and of what is offered.
    let (lines, agreed) = respond_as(&rates[1..], &offered(&both));
    assert_eq!((agreed.codec, agreed.payload_type), (rates[1], 120));
    assert_eq!(lines[2], "a=fmtp:120 bitrate=24000");
    let (lines, agreed) = respond_as(&rates, &offered(&both[..1]));
    assert_eq!((agreed.codec, agreed.payload_type), (rates[1], 120));
    assert_eq!(lines[2], "a=fmtp:120 bitrate=24000");
    // Frames do not tell their rate, and 48,000 is not for this clock.
    for bitrate in [
        "",
        "bitrate=",
        "bitrate=48000",
        "bitrate=16000",
        "mode=24000",
    ] {
        let offer = offered(&[(120, bitrate)]);
        let answered = answer(&parse(&with(&offer)), &speaks(&rates), &local());
        assert!(
            matches!(answered, Err(OfferError::NoCommonCodec { .. })),
            "{bitrate}"
        );
    }
    let annex_c = "m=audio 4000 RTP/AVP 96\na=rtpmap:96 G7221/32000\na=fmtp:96 bitrate=32000\n";
    assert!(answer(&parse(&with(annex_c)), &speaks(&rates), &local()).is_err());
}

#[test]
fn g7221_is_offered_at_both_rates_the_higher_first() {
    let codecs: Vec<Codec> = Codec::named("g7221").collect();
    let ours = offer(&speaks(&codecs), &local());
    let text = ours.to_string();
    for line in [
        "m=audio 20000 RTP/AVP 96 97 98\r\n",
        "a=rtpmap:96 G7221/16000",
        "a=fmtp:96 bitrate=32000",
        "a=rtpmap:97 G7221/16000",
        "a=fmtp:97 bitrate=24000",
        "a=rtpmap:98 telephone-event/16000",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let answered = |media: &str| apply_answer(&ours, &parse(&with(media)), &speaks(&codecs));
    let media = |bitrate: u32| {
        format!("m=audio 4000 RTP/AVP 97\na=rtpmap:97 G7221/16000\na=fmtp:97 bitrate={bitrate}\n")
    };
    let agreed = answered(&media(24_000)).unwrap();
    assert_eq!(agreed.codec, Codec::G7221 { bitrate: 24_000 });
    assert_eq!((agreed.payload_type, agreed.receive_payload_type), (97, 97));
    assert!(answered(&media(48_000)).is_err());
    assert!(answered("m=audio 4000 RTP/AVP 97\na=rtpmap:97 G7221/16000\n").is_err());
}
