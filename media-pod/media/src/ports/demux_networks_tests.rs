//! Sound from a provider's other machines.

use super::*;

#[test]
fn networks_are_for_sound_alone() {
    let mut port = Port::new();
    let call = port.call_of("10.0.0.5:4000", CARRIER, &["203.0.113.0/28"]);
    let line = port.line(call);
    (line.door, line.shakes_hands) = (Door::Closed, true);
    let stranger = Route::Nobody(Why::Stranger);
    let machine = "203.0.113.7:4001";
    assert_eq!(port.reports(machine, 5), stranger);
    let shake = port
        .demux
        .handshake(address(machine), port.now, &port.lines);
    assert_eq!(shake, stranger);
    let other = port.call_of("10.0.0.6:4000", CARRIER, &["203.0.113.0/28"]);
    for (sequence, expected) in [(1, Pending(other)), (2, Heard(other))] {
        assert_eq!(port.take("203.0.113.9:4000", 11, sequence), expected);
    }
    assert_eq!(
        port.reports(machine, 11),
        stranger,
        "even if it knows who speaks"
    );
}

const NETWORKS: [&str; 2] = ["203.0.113.0/28", "0.0.0.0/0"];

#[test]
fn another_machine_of_the_provider_is_heard_after_two_packets_and_a_stranger_never() {
    let mut port = Port::new();
    let call = port.call_of("192.0.2.1:4000", CARRIER, &NETWORKS);
    let (machine, stranger) = ("203.0.113.7:9000", "203.0.113.16:9000");
    for sequence in 1..9 {
        assert_eq!(port.take(stranger, 5, sequence), Nobody(Why::Stranger));
    }
    assert_eq!(port.take(machine, 5, 1), Pending(call));
    assert_eq!(port.take(machine, 6, 2), Pending(call), "another stream");
    assert_eq!(port.take(machine, 6, 3), Heard(call));
    assert_eq!(port.take("203.0.113.8:9000", 7, 4), Nobody(Why::Stranger));
    // It is over: its machines are nobody's.
    port.end(call);
    assert_eq!(port.take("203.0.113.9:9000", 8, 1), Nobody(Why::Stranger));
    assert!(port.demux.by_networks.is_empty());
}

#[test]
fn two_calls_of_which_a_machine_of_the_provider_could_send_are_ambiguous() {
    let mut port = Port::new();
    let first = port.call_of("192.0.2.1:4000", CARRIER, &NETWORKS);
    let second = port.call_of("192.0.2.2:4000", "192.0.2.2", &["203.0.113.7/32"]);
    let third = port.call("192.0.2.3:4000", "203.0.113.8");
    for sequence in 1..4 {
        let fate = port.take("203.0.113.7:9000", 5, sequence);
        assert_eq!(fate, Nobody(Why::Ambiguous));
        let fate = port.take("203.0.113.8:9000", 5, sequence);
        assert_eq!(fate, Nobody(Why::Ambiguous));
    }
    // One that is found is no candidate any more.
    assert_eq!(port.take("192.0.2.2:4000", 8, 1), Heard(second));
    assert_eq!(port.take("203.0.113.7:9000", 5, 4), Pending(first));
    assert_eq!(port.take("203.0.113.7:9000", 5, 5), Heard(first));
    assert_eq!(port.take("203.0.113.8:9000", 9, 1), Pending(third));
}

#[test]
fn a_machine_of_the_provider_is_not_waited_for_any_longer_than_a_nat() {
    let mut port = Port::new();
    port.call_of("192.0.2.1:4000", CARRIER, &NETWORKS);
    port.wait(CANDIDATE_FOR);
    let fate = port.take("203.0.113.7:9000", 5, 1);
    assert_eq!(fate, Nobody(Why::Stranger));
}
