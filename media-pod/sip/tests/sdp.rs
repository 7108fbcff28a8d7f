//! Offers and answers as they are seen on the wire.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use ringwire_sip::sdp::{
    Capabilities, Codec, Direction, LocalMedia, Negotiated, OfferError, SessionDescription, answer,
    apply_answer, offer,
};

fn caps() -> Capabilities {
    Capabilities {
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        telephone_event: true,
        ptime_millis: 20,
    }
}

fn local() -> LocalMedia {
    LocalMedia {
        address: "192.0.2.9".parse().unwrap(),
        rtp_port: 20_000,
        session_id: 7,
        version: 1,
    }
}

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap()
}

fn respond(text: &str) -> Result<(String, Negotiated), OfferError> {
    answer(&parse(text), &caps(), &local())
        .map(|(answer, negotiated)| (answer.to_string(), negotiated))
}

const HEAD: &str = "v=0\no=- 1 1 IN IP4 203.0.113.5\ns=-\nc=IN IP4 203.0.113.5\nt=0 0\n";

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
    // 20 ms it is, always, and that is what the answer says.
    let (_, agreed) = respond(&with("m=audio 4000 RTP/AVP 8\na=maxptime:15\n")).unwrap();
    assert_eq!(agreed.ptime_millis, 20);
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

proptest! {
    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SessionDescription::parse(&bytes).and_then(|offer| answer(&offer, &caps(), &local()));
    }

    #[test]
    fn what_is_read_prints_stably_and_can_be_answered(lines in prop::collection::vec(
        prop_oneof![
            Just("m=audio 4000 RTP/AVP 0 8 101".to_owned()), Just("m=video 1 RTP/AVP 9".to_owned()), Just("a=sendonly".to_owned()),
            Just("c=IN IP4 1.2.3.4".to_owned()), Just("a=rtpmap:101 telephone-event/8000".to_owned()), "[a-z]=[ -~]{0,30}",
        ], 0..20)) {
        if let Ok(first) = SessionDescription::parse(lines.join("\n").as_bytes()) {
            let again = SessionDescription::parse(&first.to_bytes()).unwrap();
            prop_assert_eq!(again.to_string(), first.to_string());
            if let Ok((reply, agreed)) = answer(&first, &caps(), &local()) {
                prop_assert_eq!(reply.media.len(), first.media.len());
                prop_assert_eq!(agreed.receive_codecs.len(), 1);
            }
        }
    }
}
