//! Calls whose peers find their way by ICE.

use super::*;
use crate::ice::Proof;

/// A call with checks under this name.
fn checked(port: &mut Port, sdp: &str, ufrag: &str) -> usize {
    let call = port.call(sdp, CARRIER);
    port.line(call).source.set_ufrag(Some(ufrag));
    port.follow();
    call
}

impl Port {
    /// A good check of a call's comes from there.
    fn note(&mut self, call: usize, from: &str, nominates: bool) {
        let proof = Proof {
            priority: 1,
            nominates,
        };
        let now = self.now;
        self.line(call).source.note_check(address(from), proof, now);
        self.follow();
    }

    fn check(&self, ufrag: &str, from: &str) -> Route {
        let datagram = stun::tests::check(ufrag, "any", false, 1);
        self.demux.check(&datagram, address(from))
    }
}

#[test]
fn checks_are_told_apart_by_their_names() {
    let mut port = Port::new();
    let first = checked(&mut port, "192.0.2.1:4000", "first123");
    let second = checked(&mut port, "192.0.2.1:4002", "second12");
    let from = "203.0.113.7:9";
    assert_eq!(port.check("first123", from), Route::Check(first));
    assert_eq!(port.check("second12", from), Route::Check(second));
    for stranger in ["third123", "first12", "first1234", "FIRST123", ""] {
        assert_eq!(port.check(stranger, from), Route::Nobody(Why::BadCheck));
    }
    port.end(first);
    assert_eq!(port.check("first123", from), Route::Nobody(Why::BadCheck));
    assert!(port.demux.has_checks());
    port.end(second);
    assert!(!port.demux.has_checks());
}

#[test]
fn a_name_of_before_the_restart_is_nobodys() {
    let mut port = Port::new();
    let call = checked(&mut port, "192.0.2.1:4000", "before12");
    port.note(call, "203.0.113.7:9", true);
    port.line(call).source.set_ufrag(Some("after123"));
    port.follow();
    let from = "203.0.113.7:9";
    assert_eq!(port.check("before12", from), Route::Nobody(Why::BadCheck));
    assert_eq!(port.check("after123", from), Route::Check(call));
    // The sound goes on meanwhile.
    assert_eq!(port.take("203.0.113.7:9", 1, 1), Heard(call));
}

#[test]
fn what_keeps_a_way_open_is_its_calls_and_other_messages_are_nobodys() {
    let mut port = Port::new();
    let call = checked(&mut port, "192.0.2.1:4000", "name1234");
    port.note(call, "203.0.113.7:9", true);
    let indication = stun::tests::message(0x0011, &[], None, true);
    let take = |from| port.demux.check(&indication, address(from));
    assert_eq!(take("203.0.113.7:9"), Route::Call(call));
    assert_eq!(take("203.0.113.8:9"), Route::Nobody(Why::BadCheck));
    let username: [(u16, &[u8]); 1] = [(6, b"name1234:peer")];
    for kind in [0x0101, 0x0111, 0x0003] {
        let other = stun::tests::message(kind, &username, None, true);
        let route = port.demux.check(&other, address("203.0.113.7:9"));
        assert_eq!(route, Route::Nobody(Why::BadCheck));
    }
}

#[test]
fn two_calls_behind_one_nat_are_told_apart_by_their_checks() {
    let mut port = Port::new();
    let first = checked(&mut port, "10.0.0.5:4000", "first123");
    let second = checked(&mut port, "10.0.0.5:4000", "second12");
    port.note(first, "203.0.113.4:61000", true);
    port.note(second, "203.0.113.4:61001", true);
    assert_eq!(port.take("203.0.113.4:61001", 7, 1), Heard(second));
    assert_eq!(port.take("203.0.113.4:61000", 7, 1), Heard(first));
}

#[test]
fn packets_are_heard_from_where_checks_have_come_from_and_from_nowhere_else() {
    let mut port = Port::new();
    let call = checked(&mut port, "192.0.2.1:4000", "name1234");
    let destination = |port: &mut Port| port.line(call).source.destination();
    assert_eq!(destination(&mut port), None, "nobody has shown who he is");
    let (home, away) = ("203.0.113.7:9", "198.51.100.50:7000");
    port.note(call, home, false);
    assert_eq!(destination(&mut port), Some(address(home)));
    assert_eq!(port.take(home, 1, 1), Heard(call));
    assert_eq!(
        port.take("192.0.2.1:4000", 1, 2),
        Refused(call),
        "the SDP's"
    );
    assert_eq!(port.take("203.0.113.7:10", 1, 3), Nobody(Why::Stranger));
    port.note(call, away, false);
    assert_eq!(port.take(away, 1, 4), Heard(call));
    assert_eq!(destination(&mut port), Some(address(home)));
    assert_eq!(port.moves(), 0);
    // Another network.
    port.note(call, away, true);
    assert_eq!(destination(&mut port), Some(address(away)));
    assert_eq!(port.moves(), 1);
    assert_eq!(port.take(home, 1, 5), Heard(call), "still under way");
    port.wait(Duration::from_secs(31));
    assert_eq!(port.take(home, 1, 6), Refused(call));
    assert_eq!(port.take(away, 1, 7), Heard(call));
    // A new SDP changes nothing of that.
    port.reinvite(call, "192.0.2.1:4010");
    assert_eq!(port.take(away, 1, 8), Heard(call));
    assert_eq!(destination(&mut port), Some(address(away)));
}

#[test]
fn a_key_does_not_stand_in_for_a_check() {
    let mut port = Port::new();
    let call = port.encrypted("192.0.2.1:4000", CARRIER, 5);
    port.line(call).source.set_ufrag(Some("name1234"));
    port.note(call, "203.0.113.7:9", true);
    port.lines.made_with = 5;
    port.wait(Duration::from_secs(60));
    assert_eq!(port.take("198.51.100.77:7", 1, 1), Nobody(Why::Stranger));
    assert_eq!(port.lines.trials, 0);
}

#[test]
fn without_ice_in_a_later_offer_the_source_stays_and_the_old_rules_hold() {
    let mut port = Port::new();
    let call = checked(&mut port, "192.0.2.1:4000", "name1234");
    port.note(call, "203.0.113.7:9", true);
    assert_eq!(port.take("203.0.113.7:9", 1, 1), Heard(call));
    port.line(call).source.set_ufrag(None);
    port.follow();
    assert!(!port.demux.has_checks());
    assert_eq!(port.take("203.0.113.7:9", 1, 2), Heard(call));
    assert_eq!(port.take("192.0.2.1:4000", 2, 1), Heard(call));
}

#[test]
fn where_a_call_wants_its_packets_the_check_of_another_does_not_take_them() {
    let mut port = Port::new();
    let first = checked(&mut port, "192.0.2.1:4000", "name1234");
    port.note(first, "203.0.113.7:9", true);
    port.note(first, "192.0.2.80:4000", false);
    let second = port.call("192.0.2.80:4000", CARRIER);
    assert_eq!(port.take("192.0.2.80:4000", 7, 1), Heard(second));
    assert_eq!(port.take("203.0.113.7:9", 8, 1), Heard(first));
}
