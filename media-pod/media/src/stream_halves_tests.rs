use super::*;
use crate::codec::OpusParameters;
use crate::format::MOST_BYTES;
use crate::g711::ulaw_to_alaw;

const HALF: Duration = Duration::from_millis(10);

/// A call with a peer that takes packets of 10 ms, and nothing longer.
fn stream(codec: Codec, now: Instant) -> RtpStream {
    let remote = "192.0.2.1:4000".parse().ok();
    let config = StreamConfig {
        cushion_millis: 0,
        reports: false,
        ..StreamConfig::new(Session::new(codec, 96, remote), (77, 1, 0))
    };
    let mut stream = RtpStream::new(config, now);
    stream.send_halves(true);
    stream.start(now);
    stream
}

/// What is sent at that time: timestamp, sequence number, marker and payload.
fn sent(stream: &mut RtpStream, now: Instant) -> Vec<(u32, u16, bool, Vec<u8>)> {
    stream.handle_timeout(now);
    let mut frame = [0; MOST_BYTES];
    while stream.poll_frame(&mut frame).is_some() {}
    let mut out = [0; PACKET_BYTES];
    let mut packets = Vec::new();
    while let Some((length, _)) = stream.poll_transmit(&mut out) {
        let packet = Packet::parse(&out[..length]).unwrap();
        let payload = packet.payload.to_vec();
        packets.push((packet.timestamp, packet.sequence, packet.marker, payload));
    }
    packets
}

#[test]
fn one_packet_of_ten_milliseconds_leaves_every_ten() {
    for (codec, ticks, bytes) in [
        (Codec::Pcmu, 80, 80..=80),
        (Codec::Pcma, 80, 80..=80),
        (Codec::G722, 80, 80..=80),
        (Codec::L16 { rate: 16_000 }, 160, 320..=320),
        (Codec::Opus(OpusParameters::default()), 480, 1..=100),
    ] {
        let begin = Instant::now();
        let mut stream = stream(codec, begin);
        let mut decoder = codec.decoder(48_000);
        for number in 0..50_u16 {
            let now = begin + HALF * u32::from(number);
            assert!(stream.poll_timeout() <= Some(now), "{codec:?} {number}");
            let packets = sent(&mut stream, now);
            let [(timestamp, sequence, marker, payload)] = &packets[..] else {
                panic!("{codec:?} {number}: {packets:?}");
            };
            let expected = (u32::from(number) * ticks, 1 + number, number == 0);
            assert_eq!((*timestamp, *sequence, *marker), expected, "{codec:?}");
            assert!(bytes.contains(&payload.len()), "{codec:?} {payload:?}");
            if let Some(decoder) = &mut decoder {
                assert_eq!(decoder.ticks(payload), Some(ticks), "{codec:?}");
            }
        }
    }
}

#[test]
fn what_the_agent_says_is_halved_and_nothing_is_lost_or_doubled() {
    for (codec, law) in [(Codec::Pcmu, false), (Codec::Pcma, true)] {
        let begin = Instant::now();
        let mut stream = stream(codec, begin);
        let said: Vec<u8> = (0..1600_u32).map(|at| (at % 100) as u8).collect();
        stream.play(&said, begin);
        let mut heard = Vec::new();
        // The thread is late now and then.
        for milli in [
            0, 10, 20, 33, 40, 57, 60, 70, 85, 100, 130, 150, 160, 170, 180, 190,
        ] {
            let now = begin + Duration::from_millis(milli);
            let packets = sent(&mut stream, now);
            heard.extend(packets.into_iter().flat_map(|(.., payload)| payload));
        }
        let expected: Vec<u8> = if law {
            said.iter().copied().map(ulaw_to_alaw).collect()
        } else {
            said
        };
        let first = heard.windows(2).position(|pair| pair == &expected[..2]);
        let first = first.expect("something was heard");
        assert_eq!(heard[first..][..expected.len()], expected[..], "{codec:?}");
    }
}

#[test]
fn on_hold_and_after_its_end_no_half_is_left() {
    let begin = Instant::now();
    let mut held = stream(Codec::Pcmu, begin);
    assert_eq!(sent(&mut held, begin).len(), 1);
    let session = Session {
        send: false,
        ..held.session
    };
    held.update(session, begin);
    assert!(sent(&mut held, begin + HALF).is_empty());
    let mut ended = stream(Codec::Pcmu, begin);
    assert_eq!(sent(&mut ended, begin).len(), 1);
    ended.stop();
    assert_eq!(ended.poll_timeout(), None);
    assert!(sent(&mut ended, begin + HALF).is_empty());
}
