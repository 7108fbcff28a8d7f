//! Calls that share ports for their audio, and who tries to be heard there.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringwire_tests::address::{Address, Loopback6};
use ringwire_tests::audio;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, echo, media_gateway, number, static_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::{ECHO_EXPECTED, echo_gateway, echo_gateway_on, local_set};

/// How long an echo may take.
const LIMIT: Duration = Duration::from_secs(4);

/// One who sends the same code again and again, µ-law.
struct Voice<'a> {
    socket: &'a UdpSocket,
    to: SocketAddr,
    code: u8,
    ssrc: u32,
    sequence: u16,
    /// The synchronisation source that was heard.
    heard: u32,
}

impl<'a> Voice<'a> {
    fn new(socket: &'a UdpSocket, to: SocketAddr, code: u8) -> Self {
        Self {
            socket,
            to,
            code,
            ssrc: 0x5000 + u32::from(code),
            sequence: 100,
            heard: 0,
        }
    }

    fn say(&mut self) {
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend([self.code; 160]);
        self.sequence += 1;
        self.socket.send_to(&packet, self.to).unwrap();
    }

    /// What comes within a frame's time: the codes of which there are whole packets.
    fn listen(&mut self) -> Vec<u8> {
        let end = Instant::now() + Duration::from_millis(20);
        let (mut packet, mut codes) = ([0; 2048], Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return codes;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok((length, from)) = self.socket.recv_from(&mut packet) else {
                continue;
            };
            let payload = &packet[12..length];
            // Of several calls only this one's.
            if from == self.to && payload.iter().all(|code| *code == payload[0]) {
                self.heard = u32::from_be_bytes(packet[8..12].try_into().unwrap());
                codes.push(payload[0]);
            }
        }
    }

    /// Speaks until the echo comes back. All that was heard meanwhile.
    #[track_caller]
    fn is_heard(&mut self) -> Vec<u8> {
        self.try_for(LIMIT)
            .unwrap_or_else(|heard| panic!("no echo of {}, but {heard:?}", self.code))
    }

    /// Speaks for so long, or until the echo comes back.
    fn try_for(&mut self, limit: Duration) -> Result<Vec<u8>, Vec<u8>> {
        let begun = Instant::now();
        let mut heard = Vec::new();
        while begun.elapsed() < limit {
            self.say();
            heard.extend(self.listen());
            if heard.contains(&self.code) {
                return Ok(heard);
            }
        }
        Err(heard)
    }
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!(
        "ringwire_rtp_dropped_total{{reason=\"{reason}\"}}"
    ))
}

#[track_caller]
fn wait_dropped(gateway: &Gateway, reason: &str, least: f64) {
    let what = format!("{least} packets dropped for {reason}");
    wait::until_ok(seconds(5), &what, || {
        let seen = dropped(gateway, reason);
        if seen >= least {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
}

/// A gateway with so many pairs of ports.
fn narrow_gateway(pairs: u16) -> Gateway {
    let to = 20_000 + 2 * pairs - 1;
    let range = media_gateway(&format!(
        "{{rtp: {{portRange: {{from: 20000, to: {to}}}}}}}"
    ));
    let set = [local_set(&echo("bot", "")), range].join("---\n");
    Gateway::start(&[("all.yaml", &set)])
}

#[test]
fn another_machine_of_the_carrier_is_heard_and_one_of_nobody_is_not() {
    let [machine, stranger] = [(); 2].map(|()| Address::claim());
    // The wide ones say who may call, and no more.
    let more =
        format!("allowedSources: [127.0.0.0/8, 0.0.0.0/0, {machine}/32], codecs: [PCMU, PCMA]");
    let set = [
        static_trunk("127.0.0.1", &more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let mut phone = Phone::udp(gateway.sip());
    let to = phone.call().media();
    let [machine, stranger] =
        [&machine, &stranger].map(|address| UdpSocket::bind(address.port(9000)).unwrap());
    let heard = Voice::new(&stranger, to, 31).try_for(seconds(1));
    assert!(heard.is_err(), "a stranger is heard: {heard:?}");
    wait_dropped(&gateway, "Stranger", 20.0);
    Voice::new(&machine, to, 30).is_heard();
    // Now it is known, and the stranger is still nobody.
    let heard = Voice::new(&stranger, to, 31).try_for(Duration::from_millis(300));
    assert!(heard.is_err(), "a stranger is heard: {heard:?}");
    phone.hang_up();
    let record = gateway.record();
    let received = record["packets_received"].as_u64().unwrap();
    assert!((1..20).contains(&received), "{record}");
}

#[test]
fn calls_share_a_port_and_each_caller_hears_himself() {
    let gateway = echo_gateway();
    let mut phones: Vec<(Phone, SocketAddr)> = Vec::new();
    for code in 20..28 {
        let mut phone = Phone::udp(gateway.sip());
        let to = phone.call().media();
        Voice::new(&phone.rtp, to, code).is_heard();
        phones.push((phone, to));
    }
    let pairs = gateway.metric("ringwire_rtp_port_pairs");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(
        pairs <= threads as f64,
        "{pairs} pairs of ports for 8 calls"
    );
    assert!(gateway.metric("ringwire_rtp_calls_per_port") >= 20.0);
    assert!(gateway.metric("ringwire_rtp_receive_buffer_bytes") >= 200_000.0);
    for ((phone, to), code) in phones.iter().zip(20..) {
        let mut voice = Voice::new(&phone.rtp, *to, code);
        voice.ssrc += 100;
        let heard = voice.is_heard();
        let others: Vec<u8> = (20..28).filter(|other| *other != code).collect();
        assert!(!heard.iter().any(|code| others.contains(code)), "{heard:?}");
    }
    for (phone, _) in &mut phones {
        phone.hang_up();
    }
    gateway.wait_calls(0);
    assert_eq!(
        gateway
            .metric("ringwire_rtp_dropped_by_kernel_total")
            .to_bits(),
        0
    );
}

#[test]
fn two_calls_with_the_same_remote_address_and_port_are_told_apart() {
    let gateway = echo_gateway();
    let (mut first, mut second) = (Phone::udp(gateway.sip()), Phone::udp(gateway.sip()));
    let first_to = first.call().media();
    Voice::new(&first.rtp, first_to, 30).is_heard();
    second.rtp = first.rtp.try_clone().unwrap();
    let second_to = second.call().media();
    assert_ne!(first_to, second_to);
    assert_eq!(second_to.port() % 2, 0);
    Voice::new(&second.rtp, second_to, 31).is_heard();
    // The first one still is.
    let mut voice = Voice::new(&first.rtp, first_to, 32);
    assert!(!voice.is_heard().contains(&31));
    // Which ports they have does not matter to the next call.
    let mut third = Phone::udp(gateway.sip());
    let third_to = third.call().media();
    Voice::new(&third.rtp, third_to, 33).is_heard();
    for phone in [&mut first, &mut second, &mut third] {
        phone.hang_up();
    }
}

#[test]
fn calls_that_never_send_do_not_block_new_ones() {
    let gateway = narrow_gateway(4);
    let place = Address::claim();
    let mut mute = Vec::new();
    for call in 0..10 {
        let mut phone = Phone::udp(gateway.sip());
        phone.rtp = UdpSocket::bind(place.port(6000 + 2 * call)).unwrap();
        phone.call();
        mute.push(phone);
    }
    let pairs = gateway.metric("ringwire_rtp_port_pairs");
    assert_eq!(pairs.to_bits(), 4.0_f64.to_bits());
    // One of the same address that is heard from where its SDP says,
    let mut phone = Phone::udp(gateway.sip());
    phone.rtp = UdpSocket::bind(place.port(7000)).unwrap();
    let to = phone.call().media();
    Voice::new(&phone.rtp, to, 40).is_heard();
    phone.hang_up();
    // and, once the others are no candidates any more, one from another port than its SDP says.
    std::thread::sleep(seconds(5));
    let mut natted = Phone::udp(gateway.sip());
    natted.rtp = UdpSocket::bind(place.port(7002)).unwrap();
    let to = natted.call().media();
    let behind = UdpSocket::bind(place.port(7100)).unwrap();
    Voice::new(&behind, to, 41).is_heard();
    natted.hang_up();
    for phone in &mut mute {
        phone.hang_up();
    }
}

#[test]
fn symmetric_nat_is_found_out_for_each_of_several_callers() {
    let gateway = echo_gateway();
    let place = Address::claim();
    let mut calls = Vec::new();
    for call in 0..3 {
        let mut phone = Phone::udp(gateway.sip());
        phone.rtp = UdpSocket::bind(place.port(6000 + 2 * call)).unwrap();
        let to = phone.call().media();
        let behind = UdpSocket::bind(place.port(7000 + 2 * call)).unwrap();
        calls.push((phone, behind, to));
    }
    // All of them before any is known.
    let ports: std::collections::BTreeSet<SocketAddr> = calls.iter().map(|(.., to)| *to).collect();
    assert_eq!(ports.len(), 3, "they could be mistaken");
    for ((_, behind, to), code) in calls.iter().zip(50..) {
        Voice::new(behind, *to, code).is_heard();
    }
    for (phone, ..) in &mut calls {
        phone.hang_up();
    }
    assert_eq!(
        gateway.metric("ringwire_rtp_source_moves_total").to_bits(),
        0
    );
}

#[test]
fn a_stranger_and_a_thief_at_the_callers_address_get_and_say_nothing() {
    let gateway = echo_gateway();
    let place = Address::claim();
    let mut phone = Phone::udp(gateway.sip());
    phone.rtp = UdpSocket::bind(place.port(6000)).unwrap();
    let to = phone.call().media();
    let mut caller = Voice::new(&phone.rtp, to, 60);
    caller.is_heard();
    let elsewhere = Address::claim();
    let sockets = [place.port(6666), elsewhere.port(6000)].map(|at| UdpSocket::bind(at).unwrap());
    for (socket, code) in sockets.iter().zip(70..) {
        let mut thief = Voice::new(socket, to, code);
        // He knows the stream, too.
        (thief.ssrc, thief.sequence) = (caller.ssrc, caller.sequence);
        let before = dropped(&gateway, "Stranger");
        let begun = Instant::now();
        let mut sent = 0.0;
        while begun.elapsed() < Duration::from_millis(600) {
            thief.say();
            sent += 1.0;
            assert!(thief.listen().is_empty(), "the thief hears something");
            caller.say();
            assert!(!caller.listen().contains(&code), "the thief is heard");
        }
        wait_dropped(&gateway, "Stranger", before + sent);
    }
    caller.is_heard();
    phone.hang_up();
    assert_eq!(
        gateway.metric("ringwire_rtp_source_moves_total").to_bits(),
        0
    );
}

#[test]
fn a_reinvite_moves_one_of_the_calls_on_a_port_and_leaves_the_other() {
    let gateway = echo_gateway();
    let place = Address::claim();
    let mut phones = Vec::new();
    for call in 0..2 {
        let mut phone = Phone::udp(gateway.sip());
        phone.rtp = UdpSocket::bind(place.port(6000 + 2 * call)).unwrap();
        let to = phone.call().media();
        Voice::new(&phone.rtp, to, 80 + call as u8).is_heard();
        phones.push((phone, to));
    }
    let [(mut moving, to), (mut other, other_to)] = <[_; 2]>::try_from(phones).ok().unwrap();
    assert_eq!(to, other_to);
    let before = std::mem::replace(&mut moving.rtp, UdpSocket::bind(place.port(6100)).unwrap());
    let offer = moving.offer();
    let answer = moving.ask("INVITE", "", &offer);
    moving.confirm(&answer, "");
    assert_eq!(answer.media(), to, "the port stays");
    let mut voice = Voice::new(&moving.rtp, to, 83);
    voice.is_heard();
    // What the old place still sends is nobody's.
    let mut old = Voice::new(&before, to, 90);
    old.try_for(Duration::from_millis(300)).unwrap_err();
    for voice in [voice, Voice::new(&other.rtp, to, 84)] {
        let mut voice = voice;
        assert!(!voice.is_heard().contains(&90));
    }
    wait_dropped(&gateway, "Stranger", 1.0);
    let moves = gateway.metric("ringwire_rtp_source_moves_total");
    assert_eq!(moves.to_bits(), 1.0_f64.to_bits());
    assert!(gateway.log().contains("RTP comes from a new address"));
    moving.hang_up();
    other.hang_up();
}

#[test]
fn what_a_call_that_is_over_still_sends_is_not_the_next_ones() {
    let gateway = narrow_gateway(1);
    let place = Address::claim();
    let mut old = Phone::udp(gateway.sip());
    old.rtp = UdpSocket::bind(place.port(6000)).unwrap();
    let to = old.call().media();
    let socket = old.rtp.try_clone().unwrap();
    let mut voice = Voice::new(&socket, to, 100);
    voice.is_heard();
    old.hang_up();
    // Its source is plausible for the next one.
    let mut new = Phone::udp(gateway.sip());
    new.rtp = UdpSocket::bind(place.port(6002)).unwrap();
    assert_eq!(new.call().media(), to);
    // What was sent back before the end.
    audio::drain(&socket);
    voice.try_for(Duration::from_millis(300)).unwrap_err();
    let mut next = Voice::new(&new.rtp, to, 101);
    assert!(!next.is_heard().contains(&100));
    wait_dropped(&gateway, "CallOver", 3.0);
    new.hang_up();
}

/// A receiver report about a stream.
fn report(sender: u32, about: u32, lost: u8) -> Vec<u8> {
    let mut report = vec![0x81, 201, 0, 7];
    report.extend(sender.to_be_bytes());
    report.extend(about.to_be_bytes());
    report.extend([0, 0, 0, lost]);
    report.extend([0; 16]);
    report
}

#[test]
fn reports_through_a_nat_reach_the_call_of_their_sender_and_move_nothing() {
    let gateway = echo_gateway();
    let place = Address::claim();
    let mut calls = Vec::new();
    for call in 0..2 {
        let mut phone = Phone::udp(gateway.sip());
        phone.rtp = UdpSocket::bind(place.port(6000 + 2 * call)).unwrap();
        let to = phone.call().media();
        let mut voice = Voice::new(&phone.rtp, to, 110 + call as u8);
        voice.is_heard();
        let (sender, about) = (voice.ssrc, voice.heard);
        calls.push((phone, to, sender, about));
    }
    assert_eq!(calls[0].1, calls[1].1, "one port");
    let behind = UdpSocket::bind(place.port(7777)).unwrap();
    for ((_, to, sender, about), lost) in calls.iter().zip([3, 5]) {
        let to = SocketAddr::new(to.ip(), to.port() + 1);
        behind.send_to(&report(*sender, *about, lost), to).unwrap();
    }
    for ((phone, to, ..), code) in calls.iter().zip(110..) {
        let mut voice = Voice::new(&phone.rtp, *to, code);
        voice.sequence = 5_000;
        voice.is_heard();
    }
    for ((phone, ..), lost) in calls.iter_mut().zip([3, 5]) {
        phone.hang_up();
        let record = gateway.record_of(phone.call_id());
        assert_eq!(record["packets_lost_remote"], lost, "{record}");
    }
}

#[test]
fn two_calls_at_once_over_ipv6() {
    let loopback = Loopback6::claim();
    let gateway = echo_gateway_on(&loopback);
    let target = format!("sip:{NUMBER}@{}", gateway.sip());
    let calls = [(); 2].map(|()| gateway::place(&target, loopback.ip(), &ECHO_EXPECTED));
    for call in calls {
        let call = call.end();
        assert!(call.success, "{}", call.result);
    }
    assert!(gateway.metric("ringwire_rtp_port_pairs") >= 1.0);
}
