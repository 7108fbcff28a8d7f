//! Offers with ICE, and the answers of one who is lite.

use ringwire_sip::sdp::{Capabilities, Negotiated, Secret, answer, apply_answer, offer_again};

use crate::{HEAD, local, parse};

/// With ICE.
fn caps() -> Capabilities {
    Capabilities {
        ice: Some(Secret::new([5; 32])),
        ..crate::caps()
    }
}

fn respond(text: &str) -> (String, Negotiated) {
    crate::respond(text, &caps()).unwrap()
}

const WHO: &str = "a=ice-ufrag:9uB6\na=ice-pwd:YH75Fviy6338Vbrhrlp8Yh\n";
const CANDIDATES: &str = "a=candidate:1 1 UDP 2130706431 10.0.0.5 4000 typ host\n\
    a=candidate:1 2 udp 2130706430 10.0.0.5 4001 typ host\n\
    a=candidate:2 1 UDP 1694498815 203.0.113.5 4000 typ srflx raddr 10.0.0.5 rport 4000\n\
    a=candidate:2 2 UDP 1694498814 203.0.113.5 4001 typ srflx raddr 10.0.0.5 rport 4001\n";
const AUDIO: &str = "m=audio 4000 RTP/AVP 8\n";

/// What an answer says of ICE.
fn said(text: &str) -> Vec<&str> {
    let names = ["a=ice", "a=candidate", "a=mid", "a=group"];
    let lines = text.lines();
    lines
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .collect()
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let start = format!("a={name}:");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(&start)).unwrap()
}

#[test]
fn ice_is_answered_by_one_who_is_lite() {
    for text in [
        format!("{HEAD}{AUDIO}{WHO}{CANDIDATES}"),
        format!("{HEAD}{WHO}{AUDIO}{CANDIDATES}"),
    ] {
        let (text, agreed) = respond(&text);
        let (ufrag, password) = (value(&text, "ice-ufrag"), value(&text, "ice-pwd"));
        assert_eq!(
            said(&text),
            [
                "a=ice-lite",
                "a=ice-options:ice2",
                &format!("a=ice-ufrag:{ufrag}"),
                &format!("a=ice-pwd:{password}"),
                "a=candidate:1 1 UDP 2130706431 192.0.2.9 20000 typ host",
                "a=candidate:1 2 UDP 2130706430 192.0.2.9 20001 typ host",
            ]
        );
        assert!(text.find("a=ice-lite") < text.find("m=audio"), "{text}");
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        assert!(ufrag.len() == 8 && password.len() == 24);
        assert!(ufrag.bytes().chain(password.bytes()).all(known));
        let terms = agreed.ice.as_ref().unwrap();
        assert_eq!(
            (terms.ufrag.as_str(), terms.password.as_str()),
            (ufrag, password)
        );
        assert!(!terms.muxed);
        assert_eq!(agreed.remote, Some("203.0.113.5:4000".parse().unwrap()));
        assert!(!format!("{agreed:?}").contains(password));
    }
}

#[test]
fn where_reports_share_the_port_there_is_one_candidate() {
    let (text, agreed) = respond(&format!("{HEAD}{AUDIO}a=rtcp-mux\n{WHO}{CANDIDATES}"));
    assert_eq!(text.matches("a=candidate").count(), 1);
    assert!(text.contains("a=rtcp-mux\r\n") && agreed.ice.unwrap().muxed);
    assert_eq!(agreed.remote_rtcp, agreed.remote);
}

#[test]
fn without_ice_nothing_is_said_of_it() {
    let without = Capabilities {
        ice: None,
        ..caps()
    };
    for (more, has) in [
        ("", false),
        ("a=mid:0\n", false),
        (CANDIDATES, false),
        ("a=ice-ufrag:9uB6\n", false),
        // Too short, or of other characters.
        ("a=ice-ufrag:9uB\na=ice-pwd:YH75Fviy6338Vbrhrlp8Yh\n", false),
        ("a=ice-ufrag:9uB6\na=ice-pwd:YH75Fviy6338Vbrhrlp8Y\n", false),
        (
            "a=ice-ufrag:9u:6\na=ice-pwd:YH75Fviy6338Vbrhrlp8Yh\n",
            false,
        ),
        (WHO, true),
    ] {
        let text = format!("{HEAD}a=group:BUNDLE 0\n{AUDIO}{more}");
        let plain = answer(&parse(&text), &without, &local()).unwrap();
        let (answered, agreed) = respond(&text);
        assert_eq!(answered != plain.0.to_string(), has, "{more}");
        assert_eq!(agreed, plain.1);
        assert!(said(&plain.0.to_string()).is_empty());
    }
}

#[test]
fn an_address_that_is_no_candidate_is_a_mismatch() {
    let mismatch = ["a=ice-mismatch"];
    let moved = HEAD.replace("c=IN IP4 203.0.113.5", "c=IN IP4 198.51.100.7");
    for text in [
        // A device on the way put in its own.
        format!("{moved}{AUDIO}{WHO}{CANDIDATES}"),
        format!("{HEAD}m=audio 4002 RTP/AVP 8\n{WHO}{CANDIDATES}"),
        format!("{HEAD}{AUDIO}a=rtcp:4005\n{WHO}{CANDIDATES}"),
        format!("{HEAD}{AUDIO}{WHO}"),
        // The old way to hold.
        format!("{HEAD}{AUDIO}c=IN IP4 0.0.0.0\n{WHO}{CANDIDATES}"),
    ] {
        let (text, agreed) = respond(&text);
        assert_eq!(said(&text), mismatch, "{text}");
        assert!(agreed.ice.is_none());
    }
    for text in [
        // Reports are not sent there.
        format!("{HEAD}{AUDIO}a=rtcp-mux\na=rtcp:4005\n{WHO}{CANDIDATES}"),
        format!(
            "{HEAD}{AUDIO}{WHO}{}",
            CANDIDATES.lines().nth(2).unwrap().to_owned() + "\n"
        ),
    ] {
        assert!(respond(&text).1.ice.is_some(), "{text}");
    }
}

#[test]
fn one_who_does_not_know_his_address_yet_is_not_on_hold() {
    let text = format!(
        "{HEAD}m=audio 9 RTP/AVP 8\nc=IN IP4 0.0.0.0\n{WHO}\
         a=candidate:1 1 udp 2130706431 4b1a2c3d.local 50000 typ host\n"
    );
    let (text, agreed) = respond(&text);
    assert!(text.contains("a=sendrecv") && text.contains("a=ice-lite"));
    assert!(agreed.remote.is_none() && agreed.ice.is_some());
    assert!(!agreed.on_hold && agreed.local_direction.sends());
}

#[test]
fn of_several_addresses_one_of_our_family_is_taken() {
    let text = "v=0\no=- 1 1 IN IP6 2001:db8::5\ns=-\nc=IN IP6 2001:db8::5\nt=0 0\na=ice-lite\n";
    let candidates = "a=candidate:1 1 UDP 2130706431 2001:db8::5 4000 typ host\n\
        a=candidate:2 1 UDP 2130706175 203.0.113.5 4000 typ host\n\
        a=candidate:2 1 UDP 2130706174 203.0.113.6 4000 typ host\n\
        a=candidate:2 1 TCP 2130706430 203.0.113.7 9 typ host tcptype active\n\
        a=candidate:3 1 UDP 2130706430 239.1.1.1 4000 typ host\n\
        a=candidate:3 1 UDP 2130706430 255.255.255.255 4000 typ host\n\
        a=candidate:3 1 UDP 2130706430 0.0.0.0 4000 typ host\n\
        a=candidate:3 1 UDP 2130706430 203.0.113.8 0 typ host\n";
    let text = format!("{text}{AUDIO}{WHO}{candidates}");
    let (text, agreed) = respond(&text);
    assert_eq!(agreed.remote, Some("203.0.113.5:4000".parse().unwrap()));
    // Two who are lite: nobody checks anything.
    assert!(text.contains("a=ice-lite\r\n") && agreed.ice.is_none());
}

#[test]
fn ours_stay_as_long_as_theirs_do_and_change_with_them() {
    let offer = format!("{HEAD}{AUDIO}{WHO}{CANDIDATES}");
    let (first, agreed) = respond(&offer);
    let (again, still) = respond(&offer);
    assert_eq!((&first, &agreed), (&again, &still));
    for (from, to) in [("9uB6", "9uB7"), ("YH75", "YH76")] {
        let (restarted, agreed) = respond(&offer.replace(from, to));
        for name in ["ice-ufrag", "ice-pwd"] {
            assert_ne!(value(&restarted, name), value(&first, name));
        }
        assert!(agreed.ice != still.ice);
    }
    let another = Capabilities {
        ice: Some(Secret::new([6; 32])),
        ..caps()
    };
    let (another, _) = answer(&parse(&offer), &another, &local()).unwrap();
    assert_ne!(
        value(&another.to_string(), "ice-pwd"),
        value(&first, "ice-pwd")
    );
}

#[test]
fn an_offer_of_ours_inside_the_call_keeps_what_was_agreed_on() {
    let offer = format!("{HEAD}a=group:BUNDLE a1\n{AUDIO}a=mid:a1\na=rtcp-mux\n{WHO}{CANDIDATES}");
    let (first, agreed) = respond(&offer);
    let again = offer_again(&caps(), &local(), &parse(&first));
    let lines = said(&first).join("\n");
    assert_eq!(said(&again.to_string()).join("\n"), lines);
    let answered = apply_answer(&again, &parse(&offer), &caps()).unwrap();
    assert_eq!(answered.ice, agreed.ice);
    for without in [
        format!("{HEAD}{AUDIO}a=rtcp-mux\n"),
        format!("{HEAD}{AUDIO}a=rtcp-mux\n{WHO}a=ice-mismatch\n"),
    ] {
        let answered = apply_answer(&again, &parse(&without), &caps()).unwrap();
        assert_eq!(answered.ice, None);
    }
}

#[test]
fn of_a_bundle_the_one_stream_that_is_taken_is_left() {
    let (text, _) = respond(&format!(
        "{HEAD}a=group:LS v a1\na=group:BUNDLE v a1\nm=video 4000 RTP/AVP 96\na=mid:v\na=rtcp-mux\n{WHO}{CANDIDATES}\
         {AUDIO}a=mid:a1\na=rtcp-mux\n{WHO}{CANDIDATES}"
    ));
    let lines = said(&text);
    assert!(lines.contains(&"a=group:BUNDLE a1"), "{text}");
    let media: Vec<_> = text.split("m=").skip(1).collect();
    assert!(media[0].starts_with("video 0 ") && media[0].contains("a=mid:v\r\n"));
    assert!(media[1].starts_with("audio 20000 ") && media[1].contains("a=mid:a1\r\n"));
    // Without a name, or in no bundle, it is in none.
    let (text, _) = respond(&format!(
        "{HEAD}a=group:BUNDLE v\n{AUDIO}a=mid:a1\na=rtcp-mux\n{WHO}{CANDIDATES}"
    ));
    assert!(!text.contains("a=group"), "{text}");
}
