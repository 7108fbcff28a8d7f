//! How long packets are.

use std::time::{Duration, Instant};

use ringwire_tests::phone::Phone;

use crate::echo_gateway;

#[test]
fn a_peer_that_takes_ten_milliseconds_gets_no_more_in_a_packet() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.sdp("m=audio {port} RTP/AVP 0\na=maxptime:10");
    let answer = phone.invite("", &offer);
    assert!(answer.body().contains("a=ptime:10\r\n"), "{}", answer.text);
    phone.confirm(&answer, "");
    let limit = Duration::from_secs(2);
    phone.rtp.set_read_timeout(Some(limit)).unwrap();
    let mut packet = [0; 2048];
    let mut next = || {
        let length = phone.rtp.recv(&mut packet).unwrap();
        let timestamp = packet[4..8].try_into().unwrap();
        (length, u32::from_be_bytes(timestamp), Instant::now())
    };
    let (_, mut before, begun) = next();
    let mut ended = begun;
    for _ in 0..100 {
        let (length, timestamp, now) = next();
        assert_eq!(length, 12 + 80, "10 ms of G.711");
        assert_eq!(timestamp.wrapping_sub(before), 80);
        (before, ended) = (timestamp, now);
    }
    // A second of sound takes one.
    let took = ended - begun;
    let expected = Duration::from_millis(900)..Duration::from_millis(1100);
    assert!(expected.contains(&took), "{took:?}");
    phone.hang_up();
}
