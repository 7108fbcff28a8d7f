//! Reports, and what is concluded from them and from silence.

use super::*;
use crate::rtcp::REPORT_BYTES;

#[test]
fn the_peers_reports_tell_what_it_has_lost_and_ours_go_beside_the_rtp() {
    let Bench {
        mut stream, now, ..
    } = Bench::new(Codec::Pcmu);
    let peer: SocketAddr = PEER.parse().unwrap();
    let mut out = [0; crate::rtcp::REPORT_BYTES];
    assert!(
        stream.poll_report(&mut out, now).is_none(),
        "none is due yet"
    );
    let later = now + Duration::from_secs(10);
    let (length, to) = stream.poll_report(&mut out, later).unwrap();
    assert_eq!(to, SocketAddr::new(peer.ip(), 4001));
    assert!(crate::rtcp::read(&out[..length], 0).is_some());
    assert!(
        stream.poll_report(&mut out, later).is_none(),
        "one at a time"
    );

    let block = crate::rtcp::Block {
        ssrc: 77,
        lost: 7,
        ..crate::rtcp::Block::default()
    };
    let length = crate::rtcp::write(&mut out, 1, None, Duration::ZERO, Some(block));
    let stranger = "203.0.113.250:4001".parse().unwrap();
    stream.receive_report(&out[..length], stranger, later);
    assert_eq!(stream.stats().packets_lost_remote, None);
    let from = SocketAddr::new(peer.ip(), 9999);
    stream.receive_report(&out[..length], from, later);
    assert_eq!(stream.stats().packets_lost_remote, Some(7));
    let next = later + Duration::from_secs(10);
    assert_eq!(stream.poll_report(&mut out, next).unwrap().1, from);
}

#[test]
fn reports_go_where_a_new_offer_wants_them_until_the_peers_come_from_elsewhere() {
    let mut bench = Bench::new(Codec::Pcmu);
    let mut out = [0; REPORT_BYTES];
    let offers = ["192.0.2.1:4100", "192.0.2.1:4200"];
    for (turn, offer) in offers.into_iter().enumerate() {
        let told = offer.parse().unwrap();
        let session = Session {
            remote_rtcp: Some(told),
            ..session(Codec::Pcmu)
        };
        bench.stream.update(session, bench.now);
        bench.now += Duration::from_secs(10);
        let (_, to) = bench.stream.poll_report(&mut out, bench.now).unwrap();
        assert_eq!(to, told);
        let natted = SocketAddr::new(told.ip(), 9000 + turn as u16);
        let length = crate::rtcp::write(&mut out, 1, None, Duration::ZERO, None);
        bench
            .stream
            .receive_report(&out[..length], natted, bench.now);
        // Said again, the same changes nothing.
        bench.stream.update(session, bench.now);
        bench.now += Duration::from_secs(10);
        let (_, to) = bench.stream.poll_report(&mut out, bench.now).unwrap();
        assert_eq!(to, natted);
    }
}

/// What is told of missing directions in so many ticks.
fn one_way(bench: &mut Bench, ticks: u32, speaks: bool) -> Vec<Missing> {
    let mut told = Vec::new();
    for _ in 0..ticks {
        if speaks {
            bench.peer_sends(0, &[7; 160]);
        }
        told.extend(bench.tick().1.into_iter().filter_map(|event| match event {
            StreamEvent::OneWay(missing) => Some(missing),
            _ => None,
        }));
    }
    told
}

#[test]
fn a_peer_from_whom_nothing_comes_is_told_of_after_five_seconds_unless_he_is_on_hold() {
    let mut bench = Bench::new(Codec::Pcmu);
    assert_eq!(one_way(&mut bench, 249, false), []);
    assert_eq!(one_way(&mut bench, 3, false), [Missing::FromPeer]);
    assert!(!bench.stream.stats().both_ways);
    assert_eq!(bench.stream.stats().mos, None);
    assert_eq!(one_way(&mut bench, 300, true), []);
    assert!(bench.stream.stats().both_ways);
    let held = Session {
        receive: false,
        ..session(Codec::Pcmu)
    };
    bench.stream.update(held, bench.now);
    assert_eq!(one_way(&mut bench, 500, false), []);
    bench.stream.update(session(Codec::Pcmu), bench.now);
    assert_eq!(one_way(&mut bench, 252, false), [Missing::FromPeer]);
    // Then he is silent on purpose: comfort noise (RFC 3389), and no more.
    bench.peer_sends(13, &[60]);
    assert_eq!(one_way(&mut bench, 500, false), []);
}

#[test]
fn a_peer_whose_reports_are_silent_about_us_is_told_of() {
    let mut bench = Bench::new(Codec::Pcmu);
    let mut out = [0; REPORT_BYTES];
    let mut report = |bench: &mut Bench, highest: Option<u32>| {
        let block = highest.map(|highest| crate::rtcp::Block {
            ssrc: 77,
            highest,
            lost: 5,
            ..crate::rtcp::Block::default()
        });
        let length = crate::rtcp::write(&mut out, 1, None, Duration::ZERO, block);
        let from = "192.0.2.1:4001".parse().unwrap();
        bench.stream.receive_report(&out[..length], from, bench.now);
    };
    assert_eq!(one_way(&mut bench, 50, true), []);
    report(&mut bench, None);
    assert_eq!(one_way(&mut bench, 1, true), [], "he may not know yet");
    assert_eq!(one_way(&mut bench, 100, true), []);
    report(&mut bench, None);
    assert_eq!(one_way(&mut bench, 1, true), [Missing::ToPeer]);
    report(&mut bench, Some(65_700));
    assert_eq!(one_way(&mut bench, 1, true), []);
    let stats = bench.stream.stats();
    assert!(stats.both_ways);
    // 5 of about 150 packets did not get there, and all of his came.
    assert!((3.5..4.2).contains(&stats.mos_remote.unwrap()), "{stats:?}");
    assert!(stats.mos.unwrap() > 4.3, "{stats:?}");
}
