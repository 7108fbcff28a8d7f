use super::super::{Position, Ulaw};
use super::*;
use crate::FRAME_SAMPLES;
use crate::g711::ULAW_SILENCE;
use crate::jitter::{Delay, JitterStats};
use proptest::prelude::*;

/// A packet: when it comes in milliseconds, its sequence number, and its first and number of samples. It carries its sequence number.
type Packet = (u64, u16, u32, u32);

fn even(number: u16, delay: u64) -> Packet {
    let sent = u64::from(number) * 20;
    (sent + 20 + delay, number, u32::from(number) * 160, 160)
}

/// What is heard, a millisecond at a time: when in milliseconds, and the code of each frame's most samples.
fn run(packets: &[Packet], until: u64) -> (Vec<(u64, u8)>, JitterStats) {
    let start = Instant::now();
    let mut buffer = JitterBuffer::ulaw(Delay::OnArrival);
    let mut packets = packets.to_vec();
    packets.sort_unstable();
    let mut packets = packets.into_iter().peekable();
    let mut heard = Vec::new();
    for at in 0..until {
        let now = start + Duration::from_millis(at);
        while let Some((_, sequence, timestamp, length)) = packets.next_if(|packet| packet.0 <= at)
        {
            let position = Position {
                ssrc: 1,
                sequence,
                timestamp,
                marker: false,
            };
            let codes = std::iter::repeat_n(sequence as u8, length as usize);
            buffer.insert(position, length, codes, now);
        }
        loop {
            let due = buffer.deadline().filter(|due| *due <= now);
            if !buffer.is_ready() {
                let Some(due) = due else { break };
                buffer.gave_up(due);
            }
            let mut frame = [0; FRAME_SAMPLES];
            assert_eq!(
                buffer.pop(&mut Ulaw, &mut frame, now),
                0,
                "it asks for no other time"
            );
            let mut counts = [0; 256];
            for code in frame {
                counts[usize::from(code)] += 1;
            }
            let most = (0..=u8::MAX)
                .max_by_key(|code| counts[usize::from(*code)])
                .unwrap();
            heard.push((at, most));
        }
    }
    (heard, buffer.stats())
}

#[test]
fn frames_come_when_their_packets_do() {
    let delays = [0, 3, 17, 0, 9, 1, 30, 10, 0];
    let packets: Vec<Packet> = (1..)
        .zip(delays)
        .map(|(number, delay)| even(number, delay))
        .collect();
    let (heard, stats) = run(&packets, 240);
    let expected = [
        (40, 1),
        (63, 2),
        (97, 3),
        (100, 4),
        (129, 5),
        (141, 6),
        (190, 7),
        (190, 8),
        (200, 9),
    ];
    assert_eq!(heard, expected);
    assert_eq!((stats.late, stats.concealed), (0, 0));
}

#[test]
fn packets_that_overtake_are_put_in_order() {
    let (heard, stats) = run(&[even(1, 0), even(2, 45), even(3, 0), even(4, 0)], 150);
    assert_eq!(heard, [(40, 1), (105, 2), (105, 3), (105, 4)]);
    assert_eq!(stats.concealed, 0);
}

#[test]
fn what_is_lost_is_waited_for_and_concealed() {
    let packets: Vec<Packet> = [1, 2, 4, 5, 6, 7, 8].map(|number| even(number, 0)).to_vec();
    let (heard, stats) = run(&packets, 190);
    let times: Vec<u64> = heard.iter().map(|(at, _)| *at).collect();
    // The third was due at 80.
    assert_eq!(times, [40, 60, 140, 140, 140, 140, 160, 180]);
    assert_eq!(stats.concealed, 1);
}

#[test]
fn what_comes_after_its_place_was_filled_is_heard_if_nothing_followed() {
    let stalled = |number: u16| (300, number, u32::from(number) * 160, 160);
    let mut packets = vec![even(1, 0), even(2, 0)];
    packets.extend((3..=14).map(stalled));
    packets.extend((15..20).map(|number| even(number, 0)));
    let (heard, stats) = run(&packets, 400);
    let at = |time: u64| -> Vec<u8> {
        let then = heard.iter().filter(|(at, _)| *at == time);
        then.map(|(_, code)| *code).collect()
    };
    assert_eq!(at(300), (3..=14).collect::<Vec<u8>>());
    assert_eq!((at(320), at(340)), (vec![15], vec![16]));
    assert_eq!(stats.late, 0);
}

#[test]
fn a_pause_of_the_sender_is_filled_and_costs_no_time() {
    // Two packets, half a second of nothing, and on.
    let later = |number: u16| {
        let sent = u64::from(number) * 20 + 500;
        (sent + 20, number, u32::from(number) * 160 + 4000, 160)
    };
    let mut packets = vec![even(1, 0), even(2, 0)];
    packets.extend((3..6).map(later));
    let (heard, stats) = run(&packets, 640);
    let silent: Vec<u64> = heard
        .iter()
        .filter(|(_, code)| *code == ULAW_SILENCE)
        .map(|(at, _)| *at)
        .collect();
    // From when nothing was waited for any more, every 20 ms.
    assert!(
        silent.windows(2).all(|pair| pair[1] - pair[0] == 20),
        "{silent:?}"
    );
    assert!(silent.len() >= 18, "{silent:?}");
    assert_eq!(heard[heard.len() - 3..], [(580, 3), (600, 4), (620, 5)]);
    assert_eq!(stats.late, 0);
}

#[test]
fn a_short_pause_is_no_hole() {
    // A comfort noise packet of 20 ms was not sent: the sequence goes on, the timestamp leaves a frame out.
    let packets = [(40, 1, 160, 160), (80, 2, 480, 160), (100, 3, 640, 160)];
    let (heard, _) = run(&packets, 110);
    assert_eq!(
        heard.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [40, 80, 80, 100]
    );
    assert_eq!(heard[2..], [(80, 2), (100, 3)]);
}

#[test]
fn packets_of_other_lengths_make_frames_as_soon_as_these_are_whole() {
    let packet = |number: u16, length: u32| {
        let end = u64::from(number + 1) * u64::from(length) / 8;
        (end, number, u32::from(number) * length, length)
    };
    let times = |length: u32| -> Vec<u64> {
        let packets: Vec<Packet> = (0..6).map(|number| packet(number, length)).collect();
        let (heard, stats) = run(&packets, u64::from(length) * 6 / 8 + 1);
        assert_eq!(stats.concealed, 0);
        heard.iter().map(|(at, _)| *at).collect()
    };
    assert_eq!(times(80), [20, 40, 60]);
    assert_eq!(times(240), [30, 60, 60, 90, 120, 120, 150, 180, 180]);
    assert_eq!(
        times(320),
        [40, 40, 80, 80, 120, 120, 160, 160, 200, 200, 240, 240]
    );
}

#[test]
fn a_spurts_first_packet_may_be_overtaken() {
    let sent = |number: u16, at: u64| (at, number, u32::from(number) * 160 + 4000, 160);
    let packets = [even(1, 0), sent(3, 580), sent(2, 590), sent(4, 600)];
    let (heard, stats) = run(&packets, 610);
    assert_eq!(heard[heard.len() - 3..], [(590, 2), (590, 3), (600, 4)]);
    assert_eq!(stats.late, 0);
}

#[test]
fn a_packet_without_sound_is_no_hole() {
    let start = Instant::now();
    let mut buffer = JitterBuffer::ulaw(Delay::OnArrival);
    let mut ready = |sequence: u16, timestamp: u32, sound: bool| {
        let now = start + Duration::from_micros(125) * timestamp;
        if !sound {
            buffer.pass_over(1, sequence);
            return false;
        }
        let at = Position {
            ssrc: 1,
            sequence,
            timestamp,
            marker: false,
        };
        buffer.insert(at, 160, [7; 160].into_iter(), now);
        let ready = buffer.is_ready();
        while buffer.is_ready() {
            buffer.pop(&mut Ulaw, &mut [0; FRAME_SAMPLES], now);
        }
        ready
    };
    assert!(ready(65_534, 0, true));
    // Two packets of a key, and sound again.
    ready(65_535, 160, false);
    ready(0, 160, false);
    assert!(ready(1, 480, true));
    // One is lost.
    assert!(!ready(3, 800, true));
}

proptest! {
    /// Whatever the network does within the time that is waited: everything is heard once, in order, when it and all before it have come.
    #[test]
    fn nothing_is_lost_or_late_that_comes_in_time(delays in proptest::collection::vec(0..50u64, 2..60)) {
        let packets: Vec<Packet> = (1..).zip(&delays).map(|(number, delay)| even(number, *delay)).collect();
        let mut expected = Vec::new();
        let mut latest = 0;
        // What is sent before the first one comes is of the past.
        let first = packets.iter().min().unwrap().1;
        for (at, number, ..) in packets.iter().filter(|packet| packet.1 >= first) {
            latest = latest.max(*at);
            expected.push((latest, *number as u8));
        }
        let until = latest + 1;
        let (heard, stats) = run(&packets, until);
        prop_assert_eq!(&heard[..expected.len()], &expected[..]);
        prop_assert_eq!(stats.concealed, 0);
    }
}
