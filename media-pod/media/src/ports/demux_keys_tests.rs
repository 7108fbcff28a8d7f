//! Encrypted calls, which their keys tell apart, and handshakes.

use super::*;

#[test]
fn encrypted_calls_are_told_apart_by_their_keys_wherever_their_packets_come_from() {
    let mut port = Port::new();
    let first = port.encrypted("10.0.0.5:4000", "203.0.113.4", 1);
    let second = port.encrypted("10.0.0.6:4000", "203.0.113.4", 2);
    port.lines.made_with = 2;
    assert_eq!(port.take("203.0.113.4:61000", 9, 1), Heard(second));
    assert_eq!(port.take("203.0.113.4:61000", 9, 2), Heard(second));
    port.lines.made_with = 1;
    assert_eq!(port.take("192.0.2.200:5", 8, 1), Heard(first));
    // What has another key is nobody's, and does not move what is heard.
    port.lines.made_with = 3;
    assert_eq!(port.take("203.0.113.4:7", 9, 3), Nobody(Why::Stranger));
    port.lines.made_with = 2;
    assert_eq!(port.take("203.0.113.4:7", 9, 3), Nobody(Why::Stranger));
    port.wait(Duration::from_secs(3));
    assert_eq!(port.take("203.0.113.4:7", 9, 4), Heard(second));
    assert_eq!(port.moves(), 1);
}

#[test]
fn an_encrypted_call_that_was_silent_may_begin_another_stream_elsewhere() {
    let mut port = Port::new();
    let calls: Vec<usize> = (0..40)
        .map(|call| port.encrypted(&format!("203.0.113.4:{}", 4000 + call), CARRIER, call as u8))
        .collect();
    for call in &calls {
        port.lines.made_with = *call as u8;
        let from = format!("203.0.113.4:{}", 4000 + call);
        assert_eq!(port.take(&from, 1000 + *call as u32, 1), Heard(*call));
    }
    port.wait(Duration::from_secs(3));
    // Each of the others was silent, too, and could have sent it: a few are tried each time.
    port.lines.made_with = 33;
    let found = (1..=20).find(|sequence| {
        port.wait(20 * MILLI);
        port.take("203.0.113.4:9000", 5, *sequence) == Heard(33)
    });
    assert!(found.is_some());
    // One whose stream goes on is found at once.
    port.lines.made_with = 38;
    assert_eq!(port.take("203.0.113.4:9002", 1038, 2), Heard(38));
    assert_eq!(port.moves(), 2);
}

#[test]
fn an_encrypted_call_and_one_in_the_clear_are_not_mistaken() {
    let mut port = Port::new();
    let encrypted = port.encrypted("10.0.0.5:4000", "203.0.113.4", 1);
    let clear = port.call("10.0.0.6:4000", "203.0.113.4");
    assert_eq!(port.take("203.0.113.4:1", 1, 1), Pending(clear));
    assert_eq!(port.take("203.0.113.4:1", 1, 2), Heard(clear));
    port.lines.made_with = 1;
    assert_eq!(port.take("203.0.113.4:2", 2, 1), Heard(encrypted));
}

#[test]
fn a_flood_is_not_tried_on_keys_more_than_so_often() {
    let mut port = Port::new();
    for call in 0..20 {
        port.encrypted(&format!("10.0.0.5:{}", 4000 + call), "203.0.113.4", 1);
    }
    port.lines.made_with = 9;
    for (from, most) in [("192.0.2.7:1", 50), ("203.0.113.4:1", 450)] {
        port.lines.trials = 0;
        for packet in 0..10_000u16 {
            if packet % 10 == 0 {
                port.wait(MILLI);
            }
            assert_eq!(port.take(from, 1, packet), Nobody(Why::Stranger));
        }
        let trials = port.lines.trials;
        assert!(
            (1..=most * 2).contains(&trials),
            "{trials} trials in 1 s for {from}"
        );
    }
}

#[test]
fn a_handshake_is_for_the_only_one_that_waits_for_one() {
    let mut port = Port::new();
    let call = port.call("10.0.0.5:4000", "203.0.113.4");
    let line = port.line(call);
    (line.door, line.shakes_hands) = (Door::Closed, true);
    port.call("10.0.0.6:4000", "203.0.113.4");
    let shake =
        |port: &Port, from: &str| port.demux.handshake(address(from), port.now, &port.lines);
    assert_eq!(shake(&port, "10.0.0.5:4000"), Route::Call(call));
    assert_eq!(shake(&port, "203.0.113.4:9"), Route::Call(call));
    assert_eq!(shake(&port, "192.0.2.7:9"), Route::Nobody(Why::Stranger));
    let other = port.call("10.0.0.7:4000", "203.0.113.4");
    port.line(other).shakes_hands = true;
    assert_eq!(shake(&port, "203.0.113.4:9"), Route::Nobody(Why::Ambiguous));
}
